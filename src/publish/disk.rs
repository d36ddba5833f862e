//! Errors of the disk on which layers are packed.

use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind};

/// A failed system call on a file. `doing` names the attempt.
pub(super) fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    full(Error::io(format_args!("{doing} {}", path.display()), error))
}

/// The same error; where the disk is full, with the remedy.
pub(super) fn full(error: Error) -> Error {
    match error.kind {
        ErrorKind::NoSpace => {
            error.append("; the disk that holds the state directory is full; all edits are kept: free some space, then sync again")
        }
        _ => error,
    }
}
