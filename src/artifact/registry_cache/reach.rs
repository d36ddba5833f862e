//! While the registry is unreachable, cached answers are used at once, and a background task probes whether it is back. No caller waits for that,
//! however long the registry hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outage::{AGAIN, is_outage};
use super::{Lookup, RegistryCache, abandoned};
use crate::error::{Error, ErrorKind};
use crate::flight::Abandoned;

/// How long the registry may be silent before an older answer is used.
const PATIENCE: Duration = Duration::from_secs(2);

impl RegistryCache {
    /// Whether the registry is unreachable or never contacted, so that a request would only make a caller wait.
    pub(in crate::artifact) fn is_away(self: &Arc<Self>) -> bool {
        if self.options.offline {
            return true;
        }
        // A thread outside the runtime may call this too; then the next call inside starts the probe.
        let runtime = tokio::runtime::Handle::try_current().ok();
        let met = self.pull.away_since();
        let look = {
            let outage = &mut self.memory.lock().outage;
            if met.is_some_and(|since| outage.met(since)) {
                let error = self.pull.unanswered().map(|error| format!(": {error}")).unwrap_or_default();
                tracing::warn!("{} does not answer; using cached answers{error}", self.pull.origin().escape_default());
            }
            let Some(failed) = outage.failed else { return false };
            let look = runtime.is_some() && !outage.looking && failed.elapsed() >= AGAIN;
            outage.looking |= look;
            look
        };
        if let Some(runtime) = runtime.filter(|_| look) {
            let me = Arc::clone(self);
            runtime.spawn(async move {
                let answer = me.pull.ping(None).await;
                me.memory.lock().outage.looking = false;
                match answer {
                    Err(error) if is_outage(error.kind) => me.unreached(&error, false),
                    // A refusal is an answer too.
                    _ => me.reached(),
                }
            });
        }
        true
    }

    /// Awaits an answer. If the registry is silent for a while, an older answer is used instead; the request continues, and its answer is cached when it
    /// arrives.
    pub(super) async fn answered<T>(&self, asked: impl Future<Output = Result<Lookup<T>, Abandoned>>, older: Option<T>) -> Lookup<T> {
        let Some(older) = older else { return asked.await.map_err(abandoned)? };
        let mut asked = std::pin::pin!(asked);
        let mut since = tokio::time::Instant::now();
        loop {
            if let Ok(answer) = tokio::time::timeout_at(since + PATIENCE, &mut asked).await {
                return answer.map_err(abandoned)?;
            }
            // A long list arrives page by page.
            match self.memory.lock().outage.heard.filter(|heard| *heard > since) {
                Some(heard) => since = heard,
                None => break,
            }
        }
        self.unreached(&self.silence(), true);
        Ok(older)
    }

    /// Why the registry has not answered in time.
    fn silence(&self) -> Error {
        self.pull.unanswered().unwrap_or_else(|| {
            let message = format!("{}: no answer within {} s", self.pull.origin().escape_default(), PATIENCE.as_secs());
            Error::new(ErrorKind::TimedOut, message)
        })
    }

    /// Records an answer.
    pub(super) fn reached(&self) {
        let was_away = {
            let outage = &mut self.memory.lock().outage;
            outage.heard = Some(tokio::time::Instant::now());
            outage.failed.take().is_some()
        };
        if was_away {
            tracing::info!("{} answers again", self.pull.origin().escape_default());
        }
    }

    /// The last known answer, if any, while the registry does not answer.
    pub(super) fn last_known<T>(&self, last: Option<T>, error: Error) -> Lookup<T> {
        self.unreached(&error, last.is_some());
        last.ok_or(error)
    }

    /// Records a failed attempt; the first one of an outage is logged.
    pub(super) fn unreached(&self, error: &Error, served: bool) {
        let first = self.memory.lock().outage.failed.replace(Instant::now()).is_none();
        if first && served {
            tracing::warn!("the registry does not answer; using cached answers: {error}");
        }
    }
}
