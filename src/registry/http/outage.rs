//! Whether a registry answers: while it does not, operations only probe it briefly. Sends nothing.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::retry::{Attempts, Failure, Timing};
use crate::error::Error;

/// After an operation got no answer at all, others only probe briefly, for at least this long: cached content is served quickly, and no
/// caller waits for the full limit twice.
const AWAY: Duration = Duration::from_secs(10);
/// How long a 429 applies if the registry gives no time.
const THROTTLED: Duration = Duration::from_secs(10);

/// How a registry answered lately.
pub(super) struct Outage {
    timing: Timing,
    /// When the registry was last found to be unreachable. Never held across an await.
    away: Mutex<Away>,
    /// Why the last attempt got no answer. Locked only for a glance.
    unanswered: Mutex<Option<Error>>,
    /// Until when the registry asked for no requests (429). Locked only for a glance.
    throttled: Mutex<Option<Instant>>,
}

/// When operations gave up because no answer came.
#[derive(Clone, Copy, Default)]
struct Away {
    any: Option<Instant>,
    /// Operations that write, which wait longer.
    writing: Option<Instant>,
}

impl Outage {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, away: Mutex::default(), unanswered: Mutex::default(), throttled: Mutex::default() }
    }

    /// The attempts of a new operation.
    pub(super) fn attempts(&self) -> Attempts {
        if self.is_away(self.away.lock().any) { Attempts::brief(self.timing) } else { Attempts::new(self.timing) }
    }

    /// The attempts of a new operation that writes or checks the outcome of a write: it waits for a registry that is restarting.
    pub(super) fn attempts_to_write(&self) -> Attempts {
        let attempts = Attempts::new(self.timing);
        if self.is_away(self.away.lock().writing) { attempts.only_once() } else { attempts.patient() }
    }

    /// When an operation last gave up because no answer came, if none has come since.
    pub(super) fn away_since(&self) -> Option<Instant> {
        self.away.lock().any
    }

    /// Why the last attempt got no answer, if none has come since.
    pub(super) fn unanswered(&self) -> Option<Error> {
        self.unanswered.lock().clone()
    }

    /// How long the registry still asks for no requests.
    pub(super) fn throttled(&self) -> Option<Duration> {
        self.throttled.lock().map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    fn is_away(&self, since: Option<Instant>) -> bool {
        since.is_some_and(|since| since.elapsed() < self.timing.progress.max(AWAY))
    }

    /// Waits before the next attempt, or returns the error if there is none.
    pub(super) async fn pause(&self, attempts: &mut Attempts, failure: Failure) -> Result<(), Error> {
        let silent = failure.is_silent();
        if silent {
            *self.unanswered.lock() = Some(failure.error().clone());
        }
        let outcome = attempts.pause(failure).await;
        // A brief probe does not prolong the period, so that a slow registry gets its full time again.
        if silent && outcome.is_err() && !attempts.brief {
            let now = Some(Instant::now());
            let mut away = self.away.lock();
            *away = Away { any: now, writing: if attempts.patient { now } else { away.writing } };
        }
        outcome
    }

    /// Records an answer.
    pub(super) fn answered(&self) {
        *self.away.lock() = Away::default();
        *self.unanswered.lock() = None;
    }

    /// Records that the registry asks for no requests for a while.
    pub(super) fn throttle(&self, after: Option<Duration>) {
        *self.throttled.lock() = Instant::now().checked_add(after.unwrap_or(THROTTLED));
    }
}
