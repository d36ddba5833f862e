//! Errors of the store as answers.

use std::io;

use crate::error::{Error, ErrorKind};
use crate::serve::problem::{Code, Problem};

/// An error of a layout as an answer.
pub(crate) fn problem(error: &Error, absent: Code) -> Problem {
    Problem::of(error.kind, error.to_string(), absent)
}

/// An error of the disk as an answer; the path stays here.
pub(crate) fn of_disk(error: &io::Error) -> Problem {
    tracing::warn!(%error, "the store cannot be written");
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Other,
    };
    Problem::of(kind, format!("the store: {}", error.kind()), Code::BlobUploadUnknown)
}
