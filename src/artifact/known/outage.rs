//! While the registry is away: what is known already serves at once, and somebody looks in the background whether
//! it is back. Nobody waits for that, however long the registry hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Error, Known};
use crate::error::ErrorKind;
use crate::registry;

/// How long after a failure it is tried again whether the registry answers.
const AGAIN: Duration = Duration::from_secs(10);
/// Who knows an older answer waits no longer than this for a new one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the registry answers, as far as is known.
#[derive(Default)]
pub(super) struct Outage {
    /// The last failure, since no answer came.
    failed: Option<Instant>,
    /// Somebody is looking whether it is back.
    looking: bool,
}

impl Outage {
    /// A failure so long ago that it is time to look again.
    #[cfg(test)]
    pub(super) fn long_ago() -> Self {
        Self { failed: Instant::now().checked_sub(AGAIN), looking: false }
    }

    /// Forgets it, so that the next use asks.
    pub(super) fn forget(&mut self) {
        self.failed = None;
    }
}

impl Known {
    /// Whether the registry is away or never asked, so that asking would only make somebody wait.
    pub(in crate::artifact) fn is_away(self: &Arc<Self>) -> bool {
        if self.options.offline {
            return true;
        }
        // A thread outside of the runtime may ask too; then the next one that is inside looks.
        let runtime = tokio::runtime::Handle::try_current().ok();
        let look = {
            let outage = &mut self.memory().outage;
            let Some(failed) = outage.failed else { return false };
            let look = runtime.is_some() && !outage.looking && failed.elapsed() >= AGAIN;
            outage.looking |= look;
            look
        };
        if let Some(runtime) = runtime.filter(|_| look) {
            let me = Arc::clone(self);
            runtime.spawn(async move {
                let answer = me.pull.ping(None).await;
                me.memory().outage.looking = false;
                match answer {
                    Err(error) if is_outage(error.kind) => me.unreached(&error.into(), false),
                    // A refusal is an answer too.
                    _ => me.reached(),
                }
            });
        }
        true
    }

    /// Asks, but not for long where an older answer is known.
    pub(super) async fn ask<T>(
        &self,
        older_is_known: bool,
        asking: impl Future<Output = Result<T, registry::Error>>,
    ) -> Result<T, registry::Error> {
        if !older_is_known {
            return asking.await;
        }
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
            let message = format!("{}: no answer within {} s", self.pull.origin().escape_default(), PATIENCE.as_secs());
            Err(registry::Error::new(ErrorKind::TimedOut, message))
        })
    }

    /// Notes an answer.
    pub(super) fn reached(&self) {
        if self.memory().outage.failed.take().is_some() {
            tracing::info!("{} answers again", self.pull.origin().escape_default());
        }
    }

    /// Notes a failed attempt; the first one of an outage is logged.
    pub(super) fn unreached(&self, error: &Error, served: bool) {
        let first = self.memory().outage.failed.replace(Instant::now()).is_none();
        if first && served {
            tracing::warn!("what was last known serves, since the registry does not answer: {error}");
        }
    }
}

/// Whether a failure says that the registry could not be asked.
pub(super) fn is_outage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::TimedOut)
}
