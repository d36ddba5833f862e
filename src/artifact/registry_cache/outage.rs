//! Whether the registry answers, as far as is known.

use std::time::{Duration, Instant};

use crate::error::ErrorKind;

/// How long after a failure it is tried again whether the registry answers.
pub(super) const AGAIN: Duration = Duration::from_secs(10);

/// Whether the registry answers, as far as is known.
#[derive(Default)]
pub(super) struct Outage {
    /// The last failure, since no answer came.
    pub(super) failed: Option<Instant>,
    /// A task is checking whether it is back.
    pub(super) looking: bool,
    /// The last answer. On the clock that waits are on.
    pub(super) heard: Option<tokio::time::Instant>,
    /// When it was forgotten: failures of before count no more.
    forgotten: Option<Instant>,
}

impl Outage {
    /// A failure so long ago that it is time to look again.
    #[cfg(test)]
    pub(super) fn long_ago() -> Self {
        Self { failed: Instant::now().checked_sub(AGAIN), ..Self::default() }
    }

    /// Forgets it, so that the next use asks.
    pub(super) fn forget(&mut self) {
        self.failed = None;
        self.forgotten = Some(Instant::now());
    }

    /// Notes that something else that the registry was asked for got no answer. Whether that is news.
    pub(super) fn met(&mut self, since: Instant) -> bool {
        let is_news = self.failed.is_none()
            && self.forgotten.is_none_or(|forgotten| forgotten < since)
            && self.heard.is_none_or(|heard| heard.into_std() < since);
        if is_news {
            self.failed = Some(since);
        }
        is_news
    }
}

/// Whether a failure says that the registry could not be asked.
pub(super) fn is_outage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::TimedOut)
}
