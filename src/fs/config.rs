//! What is fixed for the life of a mount, and whom a file system tells what the kernel must forget. Plain data.

use std::sync::Arc;
use std::time::Duration;

use super::{Others, Writing};
use crate::oci::{Repository, Version};
use crate::view::{Authority, Defaults, Meaning};

/// What the root of the mount is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// A registry (`None`) or a prefix of it, which may be a repository as well.
    Prefix(Option<Repository>),
    /// The names of a layout; the repository is the one that stands for it.
    Layout(Repository),
    /// The content of one artifact.
    Content(Repository, Version),
}

/// Figures for `statfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes of it that are unused.
    pub free: u64,
}

/// Bytes of a file that is made when it is read.
pub type Made = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// What does not change during a mount.
pub struct Config {
    /// What the root is.
    pub root: Root,
    /// The registry or layout as written in references.
    pub authority: Authority,
    /// Attributes where an archive says nothing, and overrides.
    pub defaults: Defaults,
    /// What edits mean that are begun here, and how everything else is shown.
    pub meaning: Meaning,
    /// How long tags and lists are fresh.
    pub tag_ttl: Duration,
    /// Content of `.oci/mount.json` at the root.
    pub mount_json: Vec<u8>,
    /// Content of `.oci/status.json` at the root.
    pub status_json: Made,
    /// What `df` shows of a mount that cannot be written to.
    pub space: Arc<dyn Fn() -> Space + Send + Sync>,
    /// Which other users the kernel lets in.
    pub others: Others,
    /// How edits are staged and published; `None` where nothing can be written.
    pub writing: Option<Writing>,
}

/// What the kernel must forget. Never called from a thread that answers the kernel.
pub trait KernelCache: Send + Sync {
    /// Drops pages and attributes of an inode.
    fn forget_inode(&self, inode: u64);
    /// Makes the kernel hand over what was written to a file, and waits for that.
    fn hand_over(&self, inode: u64);
    /// Drops a name in a directory.
    fn forget_name(&self, directory: u64, name: &[u8]);
}
