//! Tracks whether a host is worth asking: after a failure it is skipped for a while, so that not every request waits for it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a failed host is skipped.
pub(super) const AWAY: Duration = Duration::from_secs(30);
/// How long other requests skip it while one tries it again.
const TRYING: Duration = Duration::from_secs(5);

/// The state of a host.
#[derive(Default)]
pub(super) struct Health {
    /// Until when it is skipped. Locked only for a lookup.
    away: Mutex<Option<Instant>>,
}

impl Health {
    /// Whether to ask it now. After a failure, only one request at a time retries it.
    pub(super) fn may_be_asked(&self) -> bool {
        let (mut away, now) = (self.away.lock(), Instant::now());
        match *away {
            None => true,
            Some(until) if until > now => false,
            Some(_) => {
                *away = Some(now + TRYING);
                true
            }
        }
    }

    /// Whether its last request was answered.
    pub(super) fn is_well(&self) -> bool {
        self.away.lock().is_none()
    }

    /// Records an answer; returns whether it follows a failure.
    pub(super) fn answered(&self) -> bool {
        self.away.lock().take().is_some()
    }

    /// Records a failure; returns whether it is the first since the last answer.
    pub(super) fn failed(&self) -> bool {
        self.away.lock().replace(Instant::now() + AWAY).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_host_is_retried_later_by_a_single_request() {
        let health = Health::default();
        assert!(health.may_be_asked() && health.is_well());
        assert!(health.failed() && !health.failed());
        assert!(!health.may_be_asked() && !health.is_well());
        tokio::time::advance(AWAY).await;
        assert_eq!((health.may_be_asked(), health.may_be_asked()), (true, false));
        assert!(health.answered() && !health.answered());
        assert!(health.may_be_asked() && health.may_be_asked() && health.is_well());
    }
}
