//! Runs blocking work of the disk on a thread for that.

use crate::error::{Error, ErrorKind};

/// Runs what waits for the disk on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(ErrorKind::Other, format!("work on the disk ended early: {error}"))),
    }
}
