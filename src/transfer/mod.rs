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

use crate::oci::Repository;
use crate::registry::{Pull, Push};

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

#[cfg(test)]
mod tests;
