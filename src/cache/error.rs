//! The error of the cache.

use crate::error::ErrorKind;

/// Why the cache did not do what was asked. A miss is no error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// NoSpace, Busy, Denied, Invalid, or Other for failing disks.
    pub kind: ErrorKind,
    /// What happened to which file.
    pub message: String,
}
