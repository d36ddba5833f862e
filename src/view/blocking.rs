//! Work that blocks on the disk, away from the threads of the network.

use crate::error::{Error, ErrorKind};

/// Runs work on a thread where blocking is fine.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(ErrorKind::Other, format!("staging was stopped: {error}"))),
    }
}
