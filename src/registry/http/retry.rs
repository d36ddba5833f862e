//! Decides which failures are retried, after how long, and when to give up.
//!
//! Whether a request may be repeated at all is the caller's decision: reads always, writes after checking their outcome. One [`Attempts`]
//! belongs to one operation: it counts failures, waits between them and holds the deadline for a transfer without progress.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// Longest `Retry-After` that is honoured; a longer one fails at once.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The fraction of the limit (1/n) to wait for a registry just found to be unreachable.
const BRIEF: u32 = 20;
/// Longest pause between refused connections to a registry that is restarting.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// Time limits of one client.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Limit for connecting.
    pub connect: Duration,
    /// Limit for the head of a response.
    pub header: Duration,
    /// An operation fails when nothing arrives for this long.
    pub progress: Duration,
    /// Number of retries of a failed request.
    pub retries: u32,
    /// The first wait between attempts; each further one doubles.
    pub backoff: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            header: Duration::from_secs(30),
            progress: Duration::from_secs(60),
            retries: 5,
            backoff: Duration::from_millis(200),
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// A retry would fail as well.
    Final(Error),
    /// Worth a retry, after the time given by the registry, if any.
    Passing { error: Error, after: Option<Duration>, cause: Cause },
}

/// How a transient failure reflects on the registry as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It answered.
    Answered,
    /// It did not answer, and may have received the request.
    Silent,
    /// The connection was refused, so nothing was sent; it may be restarting.
    Refused,
    /// The connection failed otherwise, so nothing was sent.
    Unconnected,
    /// Its name does not resolve. That may pass, but rarely within seconds.
    Unknown,
}

impl Failure {
    pub(super) fn passing(error: Error, cause: Cause) -> Self {
        Self::Passing { error, after: None, cause }
    }

    /// Whether no answer came.
    pub(super) fn is_silent(&self) -> bool {
        match self {
            Self::Passing { cause, .. } => *cause != Cause::Answered,
            Self::Final(error) => error.kind == ErrorKind::TimedOut,
        }
    }

    /// The error by itself.
    pub(super) fn error(&self) -> &Error {
        match self {
            Self::Final(error) | Self::Passing { error, .. } => error,
        }
    }
}

/// The attempts of one operation.
pub(super) struct Attempts {
    timing: Timing,
    left: u32,
    failed: u32,
    deadline: Instant,
    /// How much longer the registry may make us wait.
    obedience: Duration,
    last: Option<Error>,
    /// Refused connections do not count as failures until the deadline.
    pub(super) patient: bool,
    /// Only probes whether an unreachable registry is back.
    pub(super) brief: bool,
}

impl Attempts {
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            timing,
            left: timing.retries,
            failed: 0,
            deadline: Instant::now() + timing.progress,
            obedience: LONGEST_WAIT,
            last: None,
            patient: false,
            brief: false,
        }
    }

    /// One short attempt to see whether an unreachable registry is back.
    pub(super) fn brief(timing: Timing) -> Self {
        let short = timing.progress / BRIEF;
        let timing = Timing { progress: short, header: timing.header.min(short), ..timing };
        Self { brief: true, ..Self::new(timing).only_once() }
    }

    /// Waits for a registry that is restarting: refused connections are retried until the deadline.
    pub(super) fn patient(self) -> Self {
        Self { patient: true, ..self }
    }

    /// No retry.
    pub(super) fn only_once(self) -> Self {
        self.at_most(0)
    }

    /// At most this many retries.
    pub(super) fn at_most(mut self, retries: u32) -> Self {
        self.left = self.left.min(retries);
        self
    }

    /// Bytes arrived, or the consumer starts waiting now: restarts the deadline.
    pub(super) fn progress(&mut self) {
        self.deadline = Instant::now() + self.timing.progress;
    }

    /// Bytes were sent until this time.
    pub(super) fn progress_until(&mut self, last: Instant) {
        self.deadline = self.deadline.max(last + self.timing.progress);
    }

    /// The limit for a transfer without progress.
    pub(super) fn patience(&self) -> Duration {
        self.timing.progress
    }

    /// Enough arrived that earlier failures no longer count.
    pub(super) fn forget_failures(&mut self) {
        self.left = self.timing.retries;
        self.failed = 0;
    }

    /// Waits for `future` until `limit` or the deadline of the operation.
    pub(super) async fn within<T>(&self, limit: Duration, what: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
        let own = Instant::now() + limit;
        match tokio::time::timeout_at(own.min(self.deadline), future).await {
            Ok(value) => Ok(value),
            Err(_) if own < self.deadline => {
                let message = format!("{what}: no answer within {} s", seconds(limit));
                Err(Failure::passing(Error::new(ErrorKind::TimedOut, message), Cause::Silent))
            }
            Err(_) => Err(Failure::Final(self.out_of_time(what))),
        }
    }

    fn out_of_time(&self, what: &str) -> Error {
        let before = self.last.as_ref().map(|error| format!(" (before that: {error})")).unwrap_or_default();
        let message = format!("{what}: no progress within {} s (--io-timeout){before}", seconds(self.timing.progress));
        Error::new(ErrorKind::TimedOut, message)
    }

    /// Waits before the next attempt, or returns the error if there is none.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), Error> {
        let (error, after, cause) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { error, after, cause } => (error, after, cause),
        };
        let restarts = self.patient && cause == Cause::Refused;
        if !restarts && (self.left == 0 || (cause == Cause::Unknown && self.failed > 0)) {
            let again = if self.failed == 0 { String::new() } else { format!(" (after {} attempts)", self.failed + 1) };
            return Err(error.append(again));
        }
        let wait = match after {
            Some(after) if after > self.obedience => {
                let message = format!("{} (retry in {} s)", error.message, after.as_secs());
                return Err(Error::new(error.kind, message));
            }
            Some(after) => {
                self.obedience -= after;
                self.deadline += after;
                after
            }
            None => self.backoff(if restarts { REFUSED_PAUSE } else { Duration::MAX }),
        };
        if Instant::now() + wait >= self.deadline {
            return Err(match restarts {
                true => error.append(format_args!(" for {} s (--io-timeout)", seconds(self.timing.progress))),
                false => self.out_of_time(&error.message),
            });
        }
        tracing::debug!(%error, wait = ?wait, "retrying");
        if !restarts {
            self.left -= 1;
        }
        self.failed += 1;
        self.last = Some(error);
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// The pause that doubles with each failure, up to `longest`.
    fn backoff(&self, longest: Duration) -> Duration {
        let wait = self.timing.backoff.saturating_mul(1 << self.failed.min(8)).min(longest);
        wait.mul_f64(rand::random_range(0.5..1.0))
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// Whether a response with this status is worth a retry.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599) && status != 501 && status != 505
}

/// How long a server asks to wait before the next attempt.
pub(super) fn told_wait(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

/// The value of `Retry-After`: seconds or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit counts as the maximum.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_garbage_is_ignored() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sat, 05 Nov 1994 08:49:37 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999999999999999", now), Some(Duration::from_secs(u64::from(u32::MAX))));
        for garbage in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(garbage, now), None, "{garbage}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end_at_the_limit_with_the_last_error() {
        let mut attempts = Attempts::new(Timing { retries: 2, ..Timing::default() });
        let failure = || Failure::passing(Error::new(ErrorKind::Unreachable, "refused"), Cause::Silent);
        assert!(attempts.pause(failure()).await.is_ok());
        assert!(attempts.pause(failure()).await.is_ok());
        let error = attempts.pause(failure()).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_ref()), (ErrorKind::Unreachable, "refused (after 3 attempts)"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarting_registry_is_awaited_within_the_time_limit() {
        let timing = Timing { retries: 0, progress: Duration::from_secs(60), ..Timing::default() };
        let refused = || Failure::passing(Error::new(ErrorKind::Unreachable, "connection refused"), Cause::Refused);
        assert!(Attempts::new(timing).pause(refused()).await.is_err());
        let (mut attempts, begun, mut tried) = (Attempts::new(timing).patient(), Instant::now(), 0);
        let error = loop {
            match attempts.pause(refused()).await {
                Ok(()) => tried += 1,
                Err(error) => break error,
            }
        };
        assert!(tried > 100 && begun.elapsed() > Duration::from_secs(59) && begun.elapsed() < Duration::from_secs(60), "{tried}");
        assert_eq!((error.kind, error.message.as_ref()), (ErrorKind::Unreachable, "connection refused for 60 s (--io-timeout)"));
        let silent = Failure::passing(Error::new(ErrorKind::Unreachable, "reset"), Cause::Silent);
        assert!(Attempts::new(timing).patient().pause(silent).await.is_err(), "only what was not sent is sent again for long");
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_may_ask_for_a_minute_in_all() {
        let mut attempts = Attempts::new(Timing::default());
        let busy = |seconds| Failure::Passing {
            error: Error::new(ErrorKind::Unreachable, "busy"),
            after: Some(Duration::from_secs(seconds)),
            cause: Cause::Answered,
        };
        let begun = Instant::now();
        assert!(attempts.pause(busy(40)).await.is_ok());
        assert_eq!(begun.elapsed(), Duration::from_secs(40));
        assert!(attempts.pause(busy(20)).await.is_ok());
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
        assert!(attempts.pause(busy(1)).await.is_err());
        assert!(Attempts::new(Timing::default()).pause(busy(61)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn without_progress_the_deadline_ends_every_wait() {
        let attempts = Attempts::new(Timing { progress: Duration::from_secs(5), ..Timing::default() });
        let waited = attempts.within(Duration::from_secs(30), "blob", std::future::pending::<()>()).await;
        assert!(matches!(waited, Err(Failure::Final(error)) if error.kind == ErrorKind::TimedOut));
    }
}
