//! How a daemon ends: what is staged is published once the mount is gone, for a bounded time, and what stays is named.
//!
//! Never gives anything staged up: a push that is stopped leaves it for the next mount.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::cli::daemon::attached::Attached;
use crate::cli::daemon::handler::Answers;
use crate::cli::exit::{Code, Failure};
use crate::cli::staged::report;
use crate::cli::staged::summary;
use crate::fs::{Selection, StagedTag};
use crate::publish::{Listener, Options};
use crate::sys::process;

/// How long open files may keep a daemon that was asked to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why something stays staged after a second signal.
const STOPPED: &str = "stopped by a signal";

/// The signals that ask a daemon to end.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal went away; `None` where whoever started us wants that ignored (`nohup`).
    hangup: Option<Signal>,
}

impl Signals {
    /// From here on they do not end the process by themselves. Inside a runtime.
    pub fn watch() -> Result<Self, Failure> {
        let watch = |kind| signal(kind).map_err(|error| Failure::other(format!("cannot watch signals: {error}")));
        let hangup = if process::ignores_hangup() { None } else { Some(watch(SignalKind::hangup())?) };
        Ok(Self { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())?, hangup })
    }

    /// Waits for the next of them.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = heard(&mut self.hangup) => {}
        }
    }
}

/// Waits for a signal that may not be watched at all.
async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Takes the mount away for a daemon that was asked to end. Open files may finish for a moment; then it goes on all the same.
/// Answers whether it was asked once more meanwhile.
pub async fn detach(attached: Option<Attached>, ended: impl Future, signals: &mut Signals) -> bool {
    let Some(attached) = attached else { return false };
    let detached = tokio::task::spawn_blocking(move || attached.detach()).await;
    match detached {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot unmount"),
        Err(error) => tracing::warn!(%error, "cannot unmount"),
    }
    tokio::select! {
        _ = ended => false,
        () = tokio::time::sleep(FAREWELL) => false,
        () = signals.received() => true,
    }
}

/// Publishes what is still staged, until the time is over or a signal says to leave it.
///
/// # Errors
/// Something stays staged that should have been published.
pub async fn publish_rest(answers: &Answers, signals: &mut Signals, given_up: bool, foreground: bool) -> Result<(), Failure> {
    let rest = edited(answers).await;
    if rest.is_empty() {
        return Ok(());
    }
    if !answers.push_at_end.load(Ordering::Relaxed) {
        return leave(&rest, None);
    }
    if given_up {
        return leave(&rest, Some(STOPPED));
    }
    if answers.facts.offline {
        return leave(&rest, Some("the mount was offline"));
    }
    tracing::info!(tags = rest.len(), "publishing what is staged");
    if foreground {
        crate::cli::terminal::message::report(&format!(
            "publishing {}; Ctrl-C leaves what is not published staged",
            summary::count(rest.len())
        ));
    }
    let listener: Listener = Arc::new(|event| tracing::debug!(?event, "publishing"));
    let (everything, options) = (Selection::All, Options::default());
    let publishing = answers.file_system.sync(&everything, &options, &listener);
    let why = tokio::select! {
        finished = timeout(answers.facts.exit_timeout, publishing) => match finished {
            Ok(Ok(done)) => {
                for report in &done {
                    report::log(report);
                }
                report::reason(&done)
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("not published within {} s (--exit-timeout)", answers.facts.exit_timeout.as_secs())),
        },
        () = signals.received() => Some(STOPPED.to_owned()),
    };
    leave(&edited(answers).await, Some(why.as_deref().unwrap_or("files were still open for writing")))
}

/// Names what stays staged. Without a reason that is what was asked for.
fn leave(rest: &[StagedTag], why: Option<&str>) -> Result<(), Failure> {
    for tag in rest {
        match why {
            Some(why) => tracing::warn!(reference = %tag.reference, why, "stays staged"),
            None => tracing::info!(reference = %tag.reference, "stays staged"),
        }
    }
    match (rest, why) {
        ([], _) | (_, None) => Ok(()),
        (rest, Some(why)) => Err(Failure::new(Code::NotPushed, summary::stays(rest, why))),
    }
}

async fn edited(answers: &Answers) -> Vec<StagedTag> {
    if answers.facts.is_read_only() {
        return Vec::new();
    }
    answers.file_system.staged().await.into_iter().filter(|tag| tag.edited || tag.error.is_some()).collect()
}
