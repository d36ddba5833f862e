//! Work that waits for the disk or computes for long, on threads that may block instead of those of the network. It completes even
//! if nobody waits for it any more.

use futures_util::TryFutureExt;
use futures_util::future::MapErr;
use tokio::task::{JoinError, JoinHandle};

use crate::error::Error;

/// Work that was started.
pub type Spawned<T> = MapErr<JoinHandle<T>, fn(JoinError) -> Error>;

/// Starts work at once; the answer may be awaited later, or not at all.
///
/// # Errors
/// Other if the work panicked, or if the program ends.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Spawned<T> {
    tokio::task::spawn_blocking(work).map_err(|error| Error::other(format!("work on a thread ended early: {error}; see the log")))
}

/// Runs work and waits for it.
///
/// # Errors
/// Those of the work; those of [`spawn_blocking`].
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    spawn_blocking(work).await?
}
