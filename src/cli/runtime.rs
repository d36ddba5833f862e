//! Runs asynchronous work of a command.

use crate::blocking::spawn_blocking;
use crate::cli::exit::{Code, Failure};

/// Runs a future to completion.
///
/// # Errors
/// Those of the future; also if threads cannot be started.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        builder.worker_threads(2).enable_all().build().map_err(|error| Failure::other(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// Runs a future until it completes or Ctrl-C, whichever comes first. A daemon working for it stops too.
///
/// # Errors
/// Those of the future; [`Code::Interrupted`] on Ctrl-C.
pub fn until_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    block_on(async {
        tokio::select! {
            result = work => result,
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(|error| Failure::other(format!("cannot watch signals: {error}")))?;
                Err(Failure::new(Code::Interrupted, "interrupted"))
            }
        }
    })
}

/// As [`until_interrupted`], with a message about what an interruption leaves behind.
///
/// # Errors
/// As [`until_interrupted`].
pub fn resumable<T>(work: impl Future<Output = Result<T, Failure>>, meaning: &str) -> Result<T, Failure> {
    until_interrupted(work).map_err(|failure| match failure.code {
        Code::Interrupted => Failure::new(Code::Interrupted, format!("interrupted; {meaning}")),
        _ => failure,
    })
}

/// The note printed when a sync is interrupted.
pub const EDITS_ARE_KEPT: &str = "staged edits are kept, and the next sync resumes";

/// Blocking work inside [`until_interrupted`]; abandoned if that ends early.
///
/// # Errors
/// Those of the work.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    spawn_blocking(work).await?
}
