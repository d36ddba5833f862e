//! Ends operations whose caller wants to leave, since fuser does not forward FUSE_INTERRUPT, and operations that are stuck.
//!
//! The kernel keeps a caller of a pending operation unkillable until it is answered. So one thread watches
//! operations that wait longer than a moment: does the caller have a pending signal that would end it, or that it
//! wants to handle? Then the operation is answered EINTR. The computation behind it continues for others. An operation
//! during which nothing at all was received or decoded for the deadline is answered ETIMEDOUT. Only operations
//! without local effect are watched.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// How long an operation waits before its caller is checked.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often callers are checked.
const PERIOD: Duration = Duration::from_millis(100);

/// Why an operation is ended before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its caller has a signal pending.
    Interrupted,
    /// No progress within the deadline.
    Stuck,
}

struct Pending {
    /// Thread ID of the caller; 0 if it is in another PID namespace.
    caller: u32,
    since: Instant,
    /// The progress counter when it last changed, and when that was.
    progress: u64,
    moved: Instant,
    end: oneshot::Sender<Ending>,
}

#[derive(Default)]
struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
    closed: bool,
}

struct Shared {
    /// Held for map operations only; the watching thread reads `/proc` without it.
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {}

/// Watches pending operations until it is dropped.
pub struct Watchdog {
    shared: Arc<Shared>,
}

/// A watched operation; unwatched when dropped.
pub struct Watched {
    number: u64,
    shared: Arc<Shared>,
    ended: oneshot::Receiver<Ending>,
}

impl Watchdog {
    /// Starts the thread. `progress` is any counter that grows while something is received or decoded.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(deadline: Duration, progress: impl Fn() -> u64 + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let watching = Arc::clone(&shared);
        let watch = move || watch(&watching, deadline, &progress);
        std::thread::Builder::new().name("ocifs-watchdog".to_owned()).spawn(watch)?;
        Ok(Self { shared })
    }

    /// Watches an operation of this caller from now on.
    pub fn watch(&self, caller: u32) -> Watched {
        let (end, ended) = oneshot::channel();
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        state.next += 1;
        let number = state.next;
        state.pending.insert(number, Pending { caller, since: now, progress: 0, moved: now, end });
        drop(state);
        self.shared.changed.notify_one();
        Watched { number, shared: Arc::clone(&self.shared), ended }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

impl Watched {
    /// Waits until the operation should end; forever if no watchdog runs any more.
    pub async fn ending(&mut self) -> Ending {
        match (&mut self.ended).await {
            Ok(ending) => ending,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.state.lock().pending.remove(&self.number);
    }
}

fn watch(shared: &Shared, deadline: Duration, progress: &dyn Fn() -> u64) {
    let mut state = shared.state.lock();
    while !state.closed {
        if state.pending.is_empty() {
            shared.changed.wait(&mut state);
            continue;
        }
        shared.changed.wait_for(&mut state, PERIOD);
        let now = Instant::now();
        let stuck = note_progress(&mut state, progress(), now, deadline);
        let callers = callers(&state, now);
        drop(state);
        let interrupted = callers.into_iter().filter(|(_, caller)| wants_to_go(*caller)).map(|(number, _)| number).collect();
        state = shared.state.lock();
        end(&mut state, interrupted, Ending::Interrupted);
        end(&mut state, stuck, Ending::Stuck);
    }
}

/// Operations without progress within the deadline.
fn note_progress(state: &mut State, progress: u64, now: Instant, deadline: Duration) -> Vec<u64> {
    let mut stuck = Vec::new();
    for (number, pending) in &mut state.pending {
        if pending.progress != progress {
            pending.progress = progress;
            pending.moved = now;
        } else if now.saturating_duration_since(pending.moved) >= deadline {
            stuck.push(*number);
        }
    }
    stuck
}

/// Operations that have waited long enough for a check of their caller.
fn callers(state: &State, now: Instant) -> Vec<(u64, u32)> {
    let waits = |pending: &Pending| pending.caller != 0 && now.saturating_duration_since(pending.since) >= PATIENCE;
    state.pending.iter().filter(|(_, pending)| waits(pending)).map(|(number, pending)| (*number, pending.caller)).collect()
}

fn end(state: &mut State, numbers: Vec<u64>, ending: Ending) {
    for number in numbers {
        if let Some(pending) = state.pending.remove(&number) {
            // An operation that was just answered no longer listens.
            let _ = pending.end.send(ending);
        }
    }
}

fn wants_to_go(thread: u32) -> bool {
    fs::read_to_string(format!("/proc/{thread}/status")).is_ok_and(|status| has_ending_signal(&status))
}

const HANGUP: u64 = 1 << 0;
const INTERRUPT: u64 = 1 << 1;
const QUIT: u64 = 1 << 2;
const KILL: u64 = 1 << 8;
const TERMINATE: u64 = 1 << 14;

/// Whether the status of a thread, as `/proc/<tid>/status` shows it, has a signal pending that ends it, or a
/// SIGINT or SIGTERM that it wants to handle. The kernel makes most fatal signals a pending SIGKILL.
fn has_ending_signal(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
    };
    let pending = mask("SigPnd") | mask("ShdPnd");
    let heard = pending & !mask("SigBlk") & !mask("SigIgn");
    let fatal = heard & !mask("SigCgt") & (HANGUP | QUIT);
    pending & KILL != 0 || heard & (INTERRUPT | TERMINATE) != 0 || fatal != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: u64, shared: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tcat\nState:\tD (disk sleep)\nSigQ:\t0/127\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\n\
             SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\nCapInh:\t0\n"
        )
    }

    #[test]
    fn a_pending_kill_ends_an_operation_even_where_it_is_blocked() {
        assert!(has_ending_signal(&status(KILL, 0, u64::MAX, u64::MAX, 0)));
        assert!(has_ending_signal(&status(0, KILL, 0, 0, 0)));
    }

    #[test]
    fn a_pending_interrupt_ends_an_operation_unless_it_is_blocked_or_ignored() {
        for signal in [INTERRUPT, TERMINATE] {
            assert!(has_ending_signal(&status(signal, 0, 0, 0, 0)));
            assert!(has_ending_signal(&status(0, signal, 0, 0, signal)), "a handler wants to run");
            assert!(!has_ending_signal(&status(0, signal, signal, 0, 0)));
            assert!(!has_ending_signal(&status(0, signal, 0, signal, 0)));
        }
    }

    #[test]
    fn sighup_counts_only_if_fatal_and_sigchld_never() {
        assert!(has_ending_signal(&status(0, HANGUP, 0, 0, 0)));
        assert!(!has_ending_signal(&status(0, HANGUP, 0, 0, HANGUP)));
        assert!(!has_ending_signal(&status(0, 1 << 16, 0, 0, 0)));
    }

    #[test]
    fn malformed_status_text_ends_nothing() {
        for text in ["", "SigPnd: zz", "SigPnd:", "SigPndx: 100\nShdPnd"] {
            assert!(!has_ending_signal(text), "{text:?}");
        }
    }

    #[test]
    fn this_process_has_no_ending_signal_pending() {
        assert!(!wants_to_go(std::process::id()));
        assert!(!wants_to_go(u32::MAX), "a caller that is gone");
    }

    fn state_with(moved: Instant, progress: u64) -> (State, oneshot::Receiver<Ending>) {
        let (end, ended) = oneshot::channel();
        let pending = Pending { caller: 1, since: moved, progress, moved, end };
        (State { next: 1, pending: HashMap::from([(1, pending)]), closed: false }, ended)
    }

    #[test]
    fn an_operation_is_stuck_only_after_a_full_deadline_without_progress() {
        let (start, deadline) = (Instant::now(), Duration::from_secs(60));
        let (mut state, mut ended) = state_with(start, 5);
        assert!(note_progress(&mut state, 5, start + deadline / 2, deadline).is_empty());
        assert!(note_progress(&mut state, 6, start + deadline, deadline).is_empty(), "bytes arrived");
        assert!(note_progress(&mut state, 6, start + deadline + deadline / 2, deadline).is_empty());
        let stuck = note_progress(&mut state, 6, start + deadline * 2, deadline);
        assert_eq!(stuck, [1]);
        end(&mut state, stuck, Ending::Stuck);
        assert_eq!(ended.try_recv(), Ok(Ending::Stuck));
        assert!(state.pending.is_empty());
    }

    #[test]
    fn callers_in_other_pid_namespaces_and_of_recent_operations_are_not_inspected() {
        let start = Instant::now();
        let (mut state, _ended) = state_with(start, 0);
        assert_eq!(callers(&state, start), []);
        assert_eq!(callers(&state, start + PATIENCE), [(1, 1)]);
        state.pending.get_mut(&1).unwrap().caller = 0;
        assert_eq!(callers(&state, start + PATIENCE), []);
    }

    #[tokio::test]
    async fn a_stuck_operation_is_cancelled() {
        let watchdog = Watchdog::start(Duration::ZERO, || 0).unwrap();
        let mut watched = watchdog.watch(0);
        assert_eq!(watched.ending().await, Ending::Stuck);
    }
}
