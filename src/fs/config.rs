//! Settings fixed for the life of a mount, and the interface to the kernel's caches. Plain data.

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
    /// A registry (`None`) or a prefix of it, which may also be a repository.
    Prefix(Option<Repository>),
    /// The names of a layout, with its placeholder repository.
    Layout(Repository),
    /// The content of one artifact.
    Content(Repository, Version),
}

/// Figures for `statfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Total bytes.
    pub total: u64,
    /// Free bytes.
    pub free: u64,
}

/// Generates the bytes of a file when it is read.
pub type Made = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// Options fixed for the life of a mount.
pub struct Config {
    /// The root.
    pub root: Root,
    /// The registry or layout as written in references.
    pub authority: Authority,
    /// Defaults for attributes missing from an archive, and overrides.
    pub defaults: Defaults,
    /// The meaning of edits begun here, and how everything else is shown.
    pub meaning: Meaning,
    /// How long tags and lists stay fresh.
    pub tag_ttl: Duration,
    /// Content of `.oci/mount.json` at the root.
    pub mount_json: Vec<u8>,
    /// Content of `.oci/status.json` at the root.
    pub status_json: Made,
    /// The figures of `df` for a read-only mount.
    pub space: Arc<dyn Fn() -> Space + Send + Sync>,
    /// Which other users the kernel lets in.
    pub others: Others,
    /// How edits are staged and published; `None` if nothing is writable.
    pub writing: Option<Writing>,
    /// The kernel need not open files, so that reading what it has cached costs no request. For read-only mounts whose bytes are verified
    /// before they are served, since the kernel then keeps the pages of every file.
    pub skips_opens: bool,
}

/// Tells the kernel what to forget. Never called from a thread that answers the kernel.
pub trait KernelCache: Send + Sync {
    /// Drops pages and attributes of an inode.
    fn forget_inode(&self, inode: u64);
    /// Makes the kernel write back dirty pages of a file, and waits for that.
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
    /// All, according to file owners and modes; `.oci`, which shows the bytes without the modes, is limited to the mounting user and root.
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
    /// Blobs uploaded at a time.
    pub concurrency: NonZeroUsize,
    /// Files of encrypted artifacts may be published unencrypted.
    pub plaintext: bool,
    /// Attach indexes of layers as referrers.
    pub attach_index: bool,
}
