//! A server that runs in the foreground until a signal ends it.

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::daemon::service_manager::tell;
use crate::cli::exit::Failure;
use crate::serve::Server;

/// Runs a server until SIGTERM or SIGINT. SIGHUP calls `read_again`.
///
/// # Errors
/// Signals cannot be watched.
pub async fn until_stopped(server: Server, read_again: impl Fn()) -> Result<(), Failure> {
    let watch = |kind| signal(kind).map_err(|error| Failure::other(format!("cannot watch signals: {error}")));
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    let mut hangup = watch(SignalKind::hangup())?;
    tell(&[NotifyState::Ready]);
    let stopped = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    tell(&[NotifyState::Reloading]);
                    read_again();
                    tell(&[NotifyState::Ready]);
                }
            }
        }
        tell(&[NotifyState::Stopping]);
    };
    server.run(stopped).await;
    Ok(())
}
