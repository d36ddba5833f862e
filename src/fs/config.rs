//! Settings that are fixed for the life of a mount, and the interface to the kernel's caches. Plain data.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::oci::{Repository, Version};
use crate::registry::Push;
use crate::staging::Uppers;
use crate::view::{Authority, Defaults, Meaning};

/// The root of the mount.
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

/// Options that hold for the whole life of a mount.
pub struct Config {
    /// The root.
    pub root: Root,
    /// The registry or layout as written in references.
    pub authority: Authority,
    /// Attributes where an archive says nothing, and overrides.
    pub defaults: Defaults,
    /// The meaning of edits begun here, and how everything else is shown.
    pub meaning: Meaning,
    /// How long tags and lists are fresh.
    pub tag_ttl: Duration,
    /// Content of `.oci/mount.json` at the root.
    pub mount_json: Vec<u8>,
    /// Content of `.oci/status.json` at the root.
    pub status_json: Made,
    /// The figures of `df` for a read-only mount.
    pub space: Arc<dyn Fn() -> Space + Send + Sync>,
    /// Which other users the kernel lets in.
    pub others: Others,
    /// How edits are staged and published; `None` where nothing can be written.
    pub writing: Option<Writing>,
}

/// Tells the kernel what to forget. Never called from a thread that answers the kernel.
pub trait KernelCache: Send + Sync {
    /// Drops pages and attributes of an inode.
    fn forget_inode(&self, inode: u64);
    /// Makes the kernel hand over what was written to a file, and waits for that.
    fn hand_over(&self, inode: u64);
    /// Drops a name in a directory.
    fn forget_name(&self, directory: u64, name: &[u8]);
}

/// Which other users the kernel lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// None.
    #[default]
    None,
    /// All, as owners and modes of files say; `.oci`, which has the bytes without the modes, is for the mounting user and root.
    Files,
    /// All, and `.oci` too.
    Everything,
}

/// The additional parts of a writable mount.
pub struct Writing {
    /// Where edits are staged.
    pub uppers: Arc<Uppers>,
    /// Where they are published.
    pub push: Arc<dyn Push>,
    /// Blobs sent at a time.
    pub concurrency: NonZeroUsize,
    /// Files of encrypted artifacts may be published in clear.
    pub plaintext: bool,
    /// Indexes of layers are attached as referrers.
    pub attach_index: bool,
}
