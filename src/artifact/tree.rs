//! The merged tree of an artifact as memory-mapped bytes: nodes, names, extents, xattrs, a string heap.
//!
//! Everything is validated once when the bytes are opened; afterwards no access can fail. An out-of-range node number yields nothing, never a panic.
//! Never reads a file or sends a request.

mod encode;
mod format;

use std::sync::Arc;

pub(super) use encode::{Draft, Encoder, Form, Placed, no_room};
pub use format::VERSION;
use format::{NameRecord, NodeRecord, Sections, View};

use crate::error::Error;
pub use crate::layer::NodeKind as Kind;
use crate::layer::{Extent, Metadata};
use crate::path::components;

/// Number of a node; 0 is the root. Hard links share a node.
pub type NodeId = u32;

/// The time shown if an artifact has none: the same on every mount, and never published. Seconds and nanoseconds of 1980-01-01, the first day that
/// every archive format can represent.
pub const UNDATED: (i64, u32) = (315_532_800, 0);

/// Attributes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Kind.
    pub kind: Kind,
    /// Attributes. For those that are `None` the mount's defaults apply, and [`UNDATED`].
    pub metadata: Metadata,
    /// Size in bytes; for a symlink, the length of its target.
    pub size: u64,
    /// Blocks of 512 bytes that the content occupies, without holes.
    pub blocks: u64,
    /// Hard links of a file; 2 + subdirectories of a directory.
    pub links: u32,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Number of the blob (see [`super::Artifacts::stream`]).
    pub blob: u32,
    /// Extents in file order; the rest is holes.
    pub extents: Vec<Extent>,
    /// SHA-256 of the file, if known.
    pub sha256: Option<[u8; 32]>,
}

/// One name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child<'a> {
    /// Cookie of this name, after which a listing can continue. Never 0.
    pub cookie: u64,
    /// The name.
    pub name: &'a [u8],
    /// The node.
    pub node: NodeId,
}

/// The tree. Immutable and cheap to clone.
#[derive(Clone)]
pub struct Tree {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    sections: Sections,
}

impl Tree {
    /// Opens tree bytes after validating version, bounds and checksum, so that no later access can fail.
    ///
    /// # Errors
    /// Integrity if the bytes are not a complete tree of this version.
    pub fn open(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, Error> {
        let sections = format::check((*bytes).as_ref())?;
        Ok(Self { bytes, sections })
    }

    fn view(&self) -> View<'_> {
        View { bytes: self.as_bytes(), sections: &self.sections }
    }

    fn record(&self, node: NodeId) -> Option<&NodeRecord> {
        self.view().node(node)
    }

    fn record_of(&self, kind: Kind, node: NodeId) -> Option<&NodeRecord> {
        self.record(node).filter(|record| record.kind() == Some(kind))
    }

    /// The names of a directory; none if it is not one.
    fn names(&self, directory: NodeId) -> &[NameRecord] {
        self.record_of(Kind::Directory, directory).and_then(|record| self.view().names(record)).unwrap_or_default()
    }

    /// The bytes, for storing.
    pub fn as_bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// Number of nodes.
    pub fn node_count(&self) -> u32 {
        self.sections.nodes.len() as u32
    }

    /// Attributes of a node. `None` if out of range.
    pub fn node(&self, node: NodeId) -> Option<Node> {
        let record = self.record(node)?;
        let (kind, size) = (record.kind()?, record.size.get());
        Some(Node {
            kind,
            metadata: record.metadata(),
            size,
            blocks: match kind {
                Kind::File if !record.has(format::SINGLE) => record.blocks.into(),
                _ => size.div_ceil(format::BLOCK),
            },
            links: record.links.get(),
        })
    }

    /// The node at a path in the form of [`crate::path`].
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        components(path).try_fold(0, |node, name| self.lookup(node, name))
    }

    /// The node of a name in a directory.
    pub fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let (view, names) = (self.view(), self.names(directory));
        let at = names.binary_search_by(|entry| view.text(entry).cmp(name)).ok()?;
        names.get(at).map(|entry| entry.node.get())
    }

    /// The names of a directory after a cookie (0: from the start), sorted by bytes.
    pub fn children(&self, directory: NodeId, after: u64) -> impl Iterator<Item = Child<'_>> {
        let (view, names) = (self.view(), self.names(directory));
        let first = self.record(directory).map_or(0, |record| record.first.get());
        let next = first.max(after);
        let names = usize::try_from(next - first).ok().and_then(|passed| names.get(passed..)).unwrap_or_default();
        names.iter().zip(next..).map(move |(entry, position)| Child {
            cookie: position + 1,
            name: view.text(entry),
            node: entry.node.get(),
        })
    }

    /// The parent of a directory (the root is its own).
    pub fn parent(&self, directory: NodeId) -> NodeId {
        self.record_of(Kind::Directory, directory).map_or(0, |record| record.extra.get())
    }

    /// Content of a regular file.
    pub fn content(&self, node: NodeId) -> Option<Content> {
        let record = self.record_of(Kind::File, node)?;
        let extents = if record.has(format::SINGLE) {
            vec![Extent { file: 0, stream: record.first.get(), length: record.size.get() }]
        } else {
            self.view().extents(record)?.iter().map(|extent| (*extent).into()).collect()
        };
        Some(Content { blob: record.extra.get(), extents, sha256: record.sha256() })
    }

    /// SHA-256 of a regular file, if known.
    pub fn sha256(&self, node: NodeId) -> Option<[u8; 32]> {
        self.record_of(Kind::File, node)?.sha256()
    }

    /// Parts of the artifact that could not be shown faithfully.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.view().warnings().lines()
    }

    /// For each node: if it is a file, one under the same path in another tree that is known to have the same bytes.
    pub fn same_files(&self, other: &Self) -> Vec<Option<NodeId>> {
        let mut same = vec![None; self.node_count() as usize];
        let mut seen = vec![false; same.len()];
        let mut pairs = vec![(0, 0)];
        while let Some((directory, there)) = pairs.pop() {
            // A directory inside itself is not compared again.
            if seen.get_mut(directory as usize).is_none_or(|seen| std::mem::replace(seen, true)) {
                continue;
            }
            let mut others = other.children(there, 0).peekable();
            for Child { name, node, .. } in self.children(directory, 0) {
                while others.next_if(|other| other.name < name).is_some() {}
                let Some(twin) = others.next_if(|other| other.name == name) else { continue };
                let (Some(one), Some(two)) = (self.record(node), other.record(twin.node)) else { continue };
                match (one.kind(), two.kind()) {
                    (Some(Kind::Directory), Some(Kind::Directory)) => pairs.push((node, twin.node)),
                    (Some(Kind::File), Some(Kind::File)) if one.has_bytes_of(two) => {
                        same.get_mut(node as usize).into_iter().for_each(|same| *same = Some(twin.node));
                    }
                    _ => {}
                }
            }
        }
        same
    }

    /// Target of a symlink.
    pub fn target(&self, node: NodeId) -> Option<&[u8]> {
        let record = self.record_of(Kind::Symlink, node)?;
        self.view().heap(record.first, record.count)
    }

    /// Extended attributes from the archive, plus `user.oci.title` and the like from the manifest.
    pub fn xattrs(&self, node: NodeId) -> Vec<(&[u8], &[u8])> {
        let view = self.view();
        let xattrs = self.record(node).and_then(|record| view.xattrs(record)).unwrap_or_default();
        xattrs.iter().filter_map(|xattr| view.xattr(xattr)).collect()
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tree").field("nodes", &self.node_count()).field("names", &self.sections.names.len()).finish_non_exhaustive()
    }
}
