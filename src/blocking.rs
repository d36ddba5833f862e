//! Work that waits for the disk or computes for long, on blocking threads instead of those of the network. It completes even if nothing awaits it
//! any more.

use futures_util::TryFutureExt;
use futures_util::future::MapErr;
use tokio::task::{JoinError, JoinHandle};

use crate::error::Error;

/// Work in progress.
pub type Spawned<T> = MapErr<JoinHandle<T>, fn(JoinError) -> Error>;

/// Starts work at once; the result may be awaited later or not at all.
///
/// # Errors
/// Other if the work panicked or the program is shutting down.
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Spawned<T> {
    tokio::task::spawn_blocking(work).map_err(|error| Error::other(format!("work on a thread ended early: {error}; see the log")))
}

/// Runs work and awaits its result.
///
/// # Errors
/// Those of the work and of [`spawn_blocking`].
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    spawn_blocking(work).await?
}
