//! The error of artifacts.

use crate::error::ErrorKind;
use crate::oci::Descriptor;
use crate::{content, registry};

/// Why an artifact cannot be shown.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of failure, for callers to act on.
    pub kind: ErrorKind,
    /// The failure, and the artifact it concerns.
    pub message: String,
}

impl Error {
    /// A failure to read a blob that a manifest names. That it is missing does not mean that a name is.
    pub(super) fn of_blob(what: &str, descriptor: &Descriptor, error: content::Error) -> Self {
        let kind = if error.kind == ErrorKind::NotFound { ErrorKind::Gone } else { error.kind };
        Self { kind, message: format!("{what} ({}): {}", descriptor.digest, error.message) }
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self { kind: error.kind, message: error.message }
    }
}
