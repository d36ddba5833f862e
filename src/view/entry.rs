//! One name of a tree with all that is known of it: of a frozen tag, of an artifact, of a directory of this machine.

use std::fmt;
use std::sync::Arc;

use super::ViewNode;
use crate::artifact::{Artifact, Kind, NodeId};
use crate::staging::DataId;

/// One name of a tree.
#[derive(Clone, Debug)]
pub struct TreeEntry {
    /// Path; empty for the tag's own directory.
    pub path: Vec<u8>,
    /// The node: further names of a hard-linked file have the same.
    pub node: ViewNode,
    /// Kind.
    pub kind: Kind,
    /// Permission bits, `None` where neither user nor archive set any.
    pub mode: Option<u32>,
    /// Owner and group, as mode.
    pub owner: Option<(u32, u32)>,
    /// Modification time, as mode.
    pub mtime: Option<(i64, u32)>,
    /// Bytes of a regular file.
    pub size: u64,
    /// Names of the node.
    pub links: u32,
    /// Major and minor.
    pub device: (u32, u32),
    /// Target of a symlink.
    pub target: Vec<u8>,
    /// Extended attributes by name, own names and `user.oci.*` left out.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of a regular file.
    pub content: EntryContent,
    /// SHA-256 of a regular file, once it is known.
    pub sha256: Option<[u8; 32]>,
}

/// Where the bytes of a file are.
#[derive(Clone)]
pub enum EntryContent {
    /// Not a regular file.
    None,
    /// In the tree of an artifact, in this node.
    Tree(Arc<Artifact>, NodeId),
    /// Staged.
    Data(DataId),
    /// In a directory of this machine that is published as it is.
    Disk,
}

impl TreeEntry {
    /// A directory of which nothing but its mode is known.
    pub fn directory(path: Vec<u8>, mode: Option<u32>) -> Self {
        Self {
            path,
            node: 0,
            kind: Kind::Directory,
            mode,
            owner: None,
            mtime: None,
            size: 0,
            links: 2,
            device: (0, 0),
            target: Vec::new(),
            xattrs: Vec::new(),
            content: EntryContent::None,
            sha256: None,
        }
    }

    /// Whether it may be one of several names of its node.
    pub fn is_linked(&self) -> bool {
        self.links > 1 && self.kind != Kind::Directory
    }
}

impl fmt::Debug for EntryContent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("None"),
            Self::Tree(artifact, node) => formatter.debug_tuple("Tree").field(&artifact.manifest.digest).field(node).finish(),
            Self::Data(id) => formatter.debug_tuple("Data").field(id).finish(),
            Self::Disk => formatter.write_str("Disk"),
        }
    }
}
