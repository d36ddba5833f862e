//! One name of a tree with everything known about it: from a frozen tag, an artifact, or a local directory.

use std::fmt;
use std::sync::Arc;

use super::ViewNode;
use crate::artifact::{Artifact, Kind, NodeId};
use crate::layer::{Metadata, Xattrs};
use crate::staging::DataId;

/// One name of a tree.
#[derive(Clone, Debug)]
pub struct TreeEntry {
    /// Path; empty for the tag's own directory.
    pub path: Vec<u8>,
    /// The node: all names of a hard-linked file share it.
    pub node: ViewNode,
    /// Kind.
    pub kind: Kind,
    /// Attributes.
    pub metadata: Metadata,
    /// Size of a regular file in bytes.
    pub size: u64,
    /// Number of names of the node.
    pub links: u32,
    /// Target of a symlink.
    pub target: Vec<u8>,
    /// Extended attributes by name, without ocifs's own and `user.oci.*`.
    pub xattrs: Xattrs,
    /// Location of the bytes of a regular file.
    pub content: EntryContent,
    /// SHA-256 of a regular file, if known.
    pub sha256: Option<[u8; 32]>,
}

/// Where the bytes of a file are.
#[derive(Clone)]
pub enum EntryContent {
    /// Not a regular file.
    None,
    /// In the tree of an artifact, at this node.
    Tree(Arc<Artifact>, NodeId),
    /// Staged.
    Data(DataId),
    /// In a local directory that is published as it is.
    Disk,
}

impl TreeEntry {
    /// A directory of which only the mode is known.
    pub fn directory(path: Vec<u8>, mode: Option<u32>) -> Self {
        Self {
            path,
            node: 0,
            kind: Kind::Directory,
            metadata: Metadata { mode, ..Metadata::default() },
            size: 0,
            links: 2,
            target: Vec::new(),
            xattrs: Vec::new(),
            content: EntryContent::None,
            sha256: None,
        }
    }

    /// Whether the node may have other names.
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
