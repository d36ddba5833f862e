//! Whether the registry is known to answer.

use std::time::{Duration, Instant};

use crate::error::ErrorKind;

/// How long after a failure to probe the registry again.
pub(super) const AGAIN: Duration = Duration::from_secs(10);

/// Whether the registry is known to answer.
#[derive(Default)]
pub(super) struct Outage {
    /// The last failure to get an answer.
    pub(super) failed: Option<Instant>,
    /// A task is probing whether it is back.
    pub(super) looking: bool,
    /// The last answer, on the clock used for waits.
    pub(super) heard: Option<tokio::time::Instant>,
    /// When the outage was forgotten: earlier failures no longer count.
    forgotten: Option<Instant>,
}

impl Outage {
    /// A failure long enough ago that it is time to probe again.
    #[cfg(test)]
    pub(super) fn long_ago() -> Self {
        Self { failed: Instant::now().checked_sub(AGAIN), ..Self::default() }
    }

    /// Forgets the outage, so that the next use asks the registry.
    pub(super) fn forget(&mut self) {
        self.failed = None;
        self.forgotten = Some(Instant::now());
    }

    /// Records that another request got no answer. Returns whether that is news.
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

/// Whether an error means that the registry could not be reached.
pub(super) fn is_outage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::TimedOut)
}
