//! Tracks whether a host is worth asking: after a failure it is skipped for a while, so that not every request waits for it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Error;

/// How long a failed host is skipped.
const AWAY: Duration = Duration::from_secs(30);
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

    /// Records an answer.
    pub(super) fn answered(&self, name: &str) {
        if self.away.lock().take().is_some() {
            tracing::info!("mirror {name} answers again");
        }
    }

    /// Records a failure, which matters less if the host is about to be tried another way.
    pub(super) fn failed(&self, name: &str, error: &Error, is_first_try: bool) {
        let first = self.away.lock().replace(Instant::now() + AWAY).is_none();
        let seconds = AWAY.as_secs();
        match is_first_try {
            _ if !first => {}
            true => tracing::debug!("skipping mirror {name} for {seconds} s: {error}"),
            false => tracing::warn!("skipping mirror {name} for {seconds} s: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn a_failed_host_is_retried_later_by_a_single_request() {
        let (health, error) = (Health::default(), Error::new(ErrorKind::Unreachable, "refused"));
        assert!(health.may_be_asked() && health.is_well());
        health.failed("m", &error, false);
        assert!(!health.may_be_asked() && !health.is_well());
        tokio::time::advance(AWAY).await;
        assert_eq!((health.may_be_asked(), health.may_be_asked()), (true, false));
        health.answered("m");
        assert!(health.may_be_asked() && health.may_be_asked() && health.is_well());
    }
}
