//! The error of the cache.

use crate::error::ErrorKind;

/// Why the cache did not do what was asked. A miss is not an error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// NoSpace, Busy, Denied, Invalid, or Other for failing disks.
    pub kind: ErrorKind,
    /// The failure, and the file it concerns.
    pub message: String,
}
