//! Copying artifacts from a `Pull` to a `Push`: manifests, blobs and referrers, byte for byte.
//!
//! Digests are preserved: a copy never reserialises anything. Children are placed before their parents, and a tag last. Never decides which tags
//! are copied, and never writes to a terminal.
//!
//! - `copy`: the order of a copy, from the root manifest down and back up.
//! - `remote_blob`: a blob of the source as the source of an upload.
//! - `tally`: the progress, and the placing of a blob that it counts.

mod copy;
mod remote_blob;
mod tally;

use std::sync::Arc;

use crate::oci::Repository;
use crate::registry::{Pull, Push};

pub use copy::{Copied, Copier, Options, fitting, member_for, put_tag};
pub use remote_blob::{RemoteBlob, read_small};
pub use tally::Tally;

/// Where artifacts are copied from.
#[derive(Clone)]
pub struct Source {
    /// The registry or layout.
    pub pull: Arc<dyn Pull>,
    /// The repository in it.
    pub repository: Repository,
}

/// Where artifacts are copied to.
#[derive(Clone)]
pub struct Destination {
    /// The registry or layout.
    pub push: Arc<dyn Push>,
    /// The repository in it.
    pub repository: Repository,
}

#[cfg(test)]
mod tests;
