//! Copying artifacts from a `Pull` to a `Push`: manifests, blobs and referrers, byte for byte.
//!
//! Digests are kept: a copy never parses and writes again. Children are there before their parents, and a tag is
//! put last. Never decides which tags are copied, and never writes to a terminal.
//!
//! - `copy`: the order of a copy, from the root manifest down and back up.
//! - `remote_blob`: a blob of the source as what an upload reads.

mod copy;
mod remote_blob;

use std::sync::Arc;

use crate::error::ErrorKind;
use crate::oci::Repository;
use crate::registry::{self, Pull, Push};

pub use copy::{Copied, Copier, Options, Tally, member_for, put_tag};
pub use remote_blob::{RemoteBlob, read_small};

/// Where artifacts come from.
#[derive(Clone)]
pub struct Source {
    /// The registry or layout.
    pub pull: Arc<dyn Pull>,
    /// The repository in it.
    pub repository: Repository,
}

/// Where artifacts go.
#[derive(Clone)]
pub struct Destination {
    /// The registry or layout.
    pub push: Arc<dyn Push>,
    /// The repository in it.
    pub repository: Repository,
}

/// Why a copy ended.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of failure, for callers to act on.
    pub kind: ErrorKind,
    /// The failure, the object it concerns, and what to do; text of a registry in it is escaped.
    pub message: String,
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Self { kind: error.kind, message: error.message }
    }
}

#[cfg(test)]
mod tests;
