//! Work that blocks on the disk, away from the threads of the network.

use crate::error::Error;

/// Runs work on a thread where blocking is fine.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::other(format!("a publishing task ended early: {error}")))?
}
