//! Errors of the disk that holds packed layers.

use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind};

/// A failed system call on a file. `doing` names the attempt.
pub(super) fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    full(Error::io(format_args!("{doing} {}", path.display()), error))
}

/// Adds advice to the error if the disk is full.
pub(super) fn full(error: Error) -> Error {
    match error.kind {
        ErrorKind::NoSpace => {
            error.append("; the disk that holds the state directory is full; all edits are kept: free some space, then sync again")
        }
        _ => error,
    }
}
