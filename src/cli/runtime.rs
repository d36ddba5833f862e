//! Work that Ctrl-C stops cleanly: what it asked a daemon for is stopped with it, and the exit code is 130.

use crate::cli::exit::{Code, Failure};
use crate::cli::source::reference;

/// Runs work to its end or to Ctrl-C, whichever comes first.
///
/// # Errors
/// What the work says; [`Code::Interrupted`] on Ctrl-C.
pub fn until_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = reference::runtime()?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = work => result,
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(|error| Failure::other(format!("cannot watch signals: {error}")))?;
                Err(Failure::new(Code::Interrupted, "interrupted; what is staged stays, and the next sync goes on from here"))
            }
        }
    });
    runtime.shutdown_background();
    result
}

/// Blocking work as part of [`until_interrupted`]. It is left behind when that ends early.
///
/// # Errors
/// What the work says.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::other(error.to_string()))?
}
