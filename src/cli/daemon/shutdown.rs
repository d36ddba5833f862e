//! Daemon shutdown: once the mount is gone, publishes staged edits within a time limit and lists the rest.
//!
//! No edits are lost: an interrupted push leaves them for the next mount.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::blocking::spawn_blocking;
use crate::cli::daemon::attached::Attached;
use crate::cli::daemon::handler::RequestHandler;
use crate::cli::exit::{Code, Failure};
use crate::cli::staged::{report, summary};
use crate::cli::terminal::message;
use crate::fs::{Selection, StagedTag};
use crate::publish::{Listener, Options};
use crate::sys::process;

/// How long open files may delay shutdown.
const GRACE: Duration = Duration::from_secs(2);

/// Why edits stay staged after a second signal.
const STOPPED: &str = "stopped by a signal";

/// The signals that ask a daemon to shut down.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal was closed; `None` under `nohup`.
    hangup: Option<Signal>,
}

impl Signals {
    /// Installs the signal handlers. Needs a runtime.
    pub fn watch() -> Result<Self, Failure> {
        let watch = |kind| signal(kind).map_err(|error| Failure::other(format!("cannot watch signals: {error}")));
        let hangup = if process::ignores_hangup() { None } else { Some(watch(SignalKind::hangup())?) };
        Ok(Self { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())?, hangup })
    }

    /// Waits for the next signal.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = received(&mut self.hangup) => {}
        }
    }
}

/// Waits for a signal that may not be watched.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Unmounts for a daemon that was asked to end, and gives open files a moment. Returns true if another signal arrived meanwhile.
pub async fn detach(attached: Option<Attached>, ended: impl Future, signals: &mut Signals) -> bool {
    let Some(attached) = attached else { return false };
    let detached = spawn_blocking(move || attached.detach()).await;
    match detached {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot unmount"),
        Err(error) => tracing::warn!(%error, "cannot unmount"),
    }
    tokio::select! {
        _ = ended => false,
        () = tokio::time::sleep(GRACE) => false,
        () = signals.received() => true,
    }
}

/// Publishes staged edits until the time limit or a signal.
///
/// # Errors
/// Some edits stay staged that should have been published.
pub async fn publish_rest(handler: &RequestHandler, signals: &mut Signals, given_up: bool, foreground: bool) -> Result<(), Failure> {
    let rest = edited(handler).await;
    if rest.is_empty() {
        return Ok(());
    }
    if !handler.push_at_end.load(Ordering::Relaxed) {
        return keep(&rest, None);
    }
    if given_up {
        return keep(&rest, Some(STOPPED));
    }
    if handler.info.offline {
        return keep(&rest, Some("the mount was offline"));
    }
    tracing::info!(tags = rest.len(), "publishing staged edits");
    if foreground {
        message::report(&format!("publishing {}; Ctrl-C keeps the rest staged", summary::count(rest.len())));
    }
    let listener: Listener = Arc::new(|event| tracing::debug!(?event, "publishing"));
    let (everything, options) = (Selection::All, Options::default());
    let publishing = handler.file_system.sync(&everything, &options, &listener);
    let why = tokio::select! {
        finished = timeout(handler.info.exit_timeout, publishing) => match finished {
            Ok(Ok(done)) => {
                for report in &done {
                    report::log(report);
                }
                report::reason(&done)
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("not published within {} s (--exit-timeout)", handler.info.exit_timeout.as_secs())),
        },
        () = signals.received() => Some(STOPPED.to_owned()),
    };
    keep(&edited(handler).await, Some(why.as_deref().unwrap_or("files were still open for writing")))
}

/// Lists the tags that stay staged; no reason means the user asked for it.
fn keep(rest: &[StagedTag], why: Option<&str>) -> Result<(), Failure> {
    for tag in rest {
        match why {
            Some(why) => tracing::warn!(reference = %tag.reference, why, "stays staged"),
            None => tracing::info!(reference = %tag.reference, "stays staged"),
        }
    }
    match (rest, why) {
        ([], _) | (_, None) => Ok(()),
        (rest, Some(why)) => Err(Failure::new(Code::NotPushed, summary::still_staged(rest, why))),
    }
}

async fn edited(handler: &RequestHandler) -> Vec<StagedTag> {
    if handler.info.is_read_only() {
        return Vec::new();
    }
    handler.file_system.staged().await.into_iter().filter(|tag| tag.edited || tag.error.is_some()).collect()
}
