//! The merged tree of an artifact as memory-mapped bytes: nodes, names, extents, xattrs, a string heap.

use std::sync::Arc;

use super::Error;
use crate::layer::Extent;

/// Number of a node; 0 is the root. Hard links share a node.
pub type NodeId = u32;

/// Kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

/// Attributes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Kind.
    pub kind: Kind,
    /// Permission bits, or `None` where the archive has none (raw files): the mount's default applies.
    pub mode: Option<u32>,
    /// Owner and group, or `None` where the archive has none.
    pub owner: Option<(u32, u32)>,
    /// Seconds, `None` where the archive has none.
    pub mtime: Option<(i64, u32)>,
    /// Bytes; length of the target for a symlink.
    pub size: u64,
    /// Links: names of a file; 2 + subdirectories of a directory.
    pub links: u32,
    /// Major and minor of a device.
    pub device: (u32, u32),
}

/// Where the bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Which blob of the artifact (see [`super::Artifacts::stream`]).
    pub blob: u32,
    /// Pieces in file order; the rest is holes.
    pub extents: Vec<Extent>,
    /// SHA-256 of the file, where known.
    pub sha256: Option<[u8; 32]>,
}

/// One name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child<'a> {
    /// Cookie of this name: listing may continue behind it. Never 0.
    pub cookie: u64,
    /// The name.
    pub name: &'a [u8],
    /// The node.
    pub node: NodeId,
}

/// The tree. Immutable; cheap to clone.
#[derive(Clone)]
pub struct Tree {
    _bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

impl Tree {
    /// Opens tree bytes after checking version, bounds and checksum, so that no later access can fail.
    pub fn open(_bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, Error> {
        todo!()
    }
    /// Number of nodes.
    pub fn node_count(&self) -> u32 {
        todo!()
    }
    /// Attributes. `None` out of range.
    pub fn node(&self, _node: NodeId) -> Option<Node> {
        todo!()
    }
    /// The node of a name in a directory.
    pub fn lookup(&self, _directory: NodeId, _name: &[u8]) -> Option<NodeId> {
        todo!()
    }
    /// The names of a directory behind a cookie (0: from the start), sorted by bytes.
    pub fn children(&self, _directory: NodeId, _after: u64) -> Box<dyn Iterator<Item = Child<'_>> + '_> {
        todo!()
    }
    /// The directory that holds this directory (the root's is itself).
    pub fn parent(&self, _directory: NodeId) -> NodeId {
        todo!()
    }
    /// Content of a regular file.
    pub fn content(&self, _node: NodeId) -> Option<Content> {
        todo!()
    }
    /// Target of a symlink.
    pub fn target(&self, _node: NodeId) -> Option<&[u8]> {
        todo!()
    }
    /// Extended attributes from the archive, and `user.oci.title` and the like from the manifest.
    pub fn xattrs(&self, _node: NodeId) -> Vec<(&[u8], &[u8])> {
        todo!()
    }
}
