//! Maps errors of the store to responses.

use std::io;

use crate::error::{Error, ErrorKind};
use crate::serve::problem::{Code, Problem};

/// Maps a layout error to a response.
pub(crate) fn problem(error: &Error, absent: Code) -> Problem {
    Problem::of(error.kind, error.to_string(), absent)
}

/// The response to a failure whose error may reveal the store's path, which only the log gets.
pub(super) fn withheld(kind: ErrorKind, error: &dyn std::error::Error, message: String, absent: Code) -> Problem {
    tracing::warn!("store: {message}: {error}");
    Problem::of(kind, message, absent)
}

/// Maps a disk error to a response, without its path.
pub(crate) fn of_disk(error: &io::Error) -> Problem {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Other,
    };
    withheld(kind, error, format!("the store: {}", error.kind()), Code::BlobUploadUnknown)
}
