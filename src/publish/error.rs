//! Failures of a publish, with what a user can do about them.

use std::io;
use std::path::Path;

use crate::error::ErrorKind;
use crate::{artifact, content, layer, oci, registry, seal, staging, view};

/// A tag was not published. Everything staged is still there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Conflict where the tag moved, Skipped where a safety check refused, else the kind of the failure below.
    pub kind: ErrorKind,
    /// The failure, the tag it concerns, and the ways out.
    pub message: String,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other, message)
    }

    /// A failure of the disk.
    pub(super) fn disk(doing: &str, path: &Path, error: &io::Error) -> Self {
        Self::io(&format!("{doing} {}", path.display()), error)
    }

    pub(super) fn io(doing: &str, error: &io::Error) -> Self {
        let message = format!("{doing}: {error}");
        if crate::durable::is_full(error) { Self::full(&message) } else { Self::other(message) }
    }

    /// The disk on which layers are packed is full.
    fn full(message: &str) -> Self {
        let ways = "the disk that holds the state directory is full; all edits are kept: free some space, then sync again";
        Self::new(ErrorKind::NoSpace, format!("{message}; {ways}"))
    }

    /// The same, with the object that it happened to in front.
    pub(super) fn about(self, what: &str) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
    }
}

impl From<view::Error> for Error {
    fn from(error: view::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<content::Error> for Error {
    fn from(error: content::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<artifact::Error> for Error {
    fn from(error: artifact::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<staging::Error> for Error {
    fn from(error: staging::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<layer::Error> for Error {
    fn from(error: layer::Error) -> Self {
        // Nothing but a packed layer is written through it.
        if error.kind == ErrorKind::NoSpace { Self::full(&error.message) } else { Self::new(error.kind, error.message) }
    }
}

impl From<seal::Error> for Error {
    fn from(error: seal::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<oci::InvalidManifest> for Error {
    fn from(error: oci::InvalidManifest) -> Self {
        Self::new(ErrorKind::Invalid, error.to_string())
    }
}
