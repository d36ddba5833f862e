//! The merged tree of an artifact as memory-mapped bytes: nodes, names, extents, xattrs, a string heap.
//!
//! Everything is validated once when the bytes are opened; afterwards no access can fail. An out-of-range node number yields nothing, never a panic.
//! Never reads a file or sends a request.

mod encode;
mod format;

use std::sync::Arc;

pub(super) use encode::{Draft, Encoder, Placed, no_room};
pub use format::VERSION;
use format::{Header, NameRecord, NodeRecord, View};

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
    header: Header,
}

impl Tree {
    /// Opens tree bytes after validating version, bounds and checksum, so that no later access can fail.
    ///
    /// # Errors
    /// Integrity if the bytes are not a complete tree of this version.
    pub fn open(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, Error> {
        let header = format::check((*bytes).as_ref())?;
        Ok(Self { bytes, header })
    }

    fn view(&self) -> View<'_> {
        View { bytes: (*self.bytes).as_ref(), header: &self.header }
    }

    fn record(&self, node: NodeId) -> Option<NodeRecord> {
        self.view().node(node)
    }

    fn directory(&self, node: NodeId) -> Option<NodeRecord> {
        self.record(node).filter(|record| record.kind == Some(Kind::Directory))
    }

    /// The bytes, for storing.
    pub fn as_bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// Number of nodes.
    pub fn node_count(&self) -> u32 {
        self.header.nodes
    }

    /// Attributes of a node. `None` if out of range.
    pub fn node(&self, node: NodeId) -> Option<Node> {
        let record = self.record(node)?;
        let kind = record.kind?;
        Some(Node {
            kind,
            metadata: record.metadata,
            size: record.size,
            blocks: match kind {
                Kind::File if !record.has(format::SINGLE) => u64::from(record.blocks),
                _ => record.size.div_ceil(format::BLOCK),
            },
            links: record.links,
        })
    }

    /// The node at a path in the form of [`crate::path`].
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        components(path).try_fold(0, |node, name| self.lookup(node, name))
    }

    /// The node of a name in a directory.
    pub fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let record = self.directory(directory)?;
        let view = self.view();
        let (mut low, mut high) = (record.first, record.first.saturating_add(u64::from(record.count)));
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = view.name(middle)?;
            match view.text(&entry).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(entry.node),
            }
        }
        None
    }

    /// The names of a directory after a cookie (0: from the start), sorted by bytes.
    pub fn children(&self, directory: NodeId, after: u64) -> Box<dyn Iterator<Item = Child<'_>> + '_> {
        let Some(record) = self.directory(directory) else { return Box::new(std::iter::empty()) };
        let view = self.view();
        let end = record.first.saturating_add(u64::from(record.count));
        Box::new((record.first.max(after)..end).filter_map(move |position| {
            let entry: NameRecord = view.name(position)?;
            Some(Child { cookie: position + 1, name: view.text(&entry), node: entry.node })
        }))
    }

    /// The parent of a directory (the root is its own).
    pub fn parent(&self, directory: NodeId) -> NodeId {
        self.directory(directory).map_or(0, |record| record.extra)
    }

    /// Content of a regular file.
    pub fn content(&self, node: NodeId) -> Option<Content> {
        let record = self.record(node).filter(|record| record.kind == Some(Kind::File))?;
        let extents = if record.has(format::SINGLE) {
            vec![Extent { file: 0, stream: record.first, length: record.size }]
        } else {
            let view = self.view();
            (0..u64::from(record.count)).filter_map(|number| view.extent(record.first.saturating_add(number))).collect()
        };
        let sha256 = record.has(format::HAS_SHA256).then_some(record.sha256);
        Some(Content { blob: record.extra, extents, sha256 })
    }

    /// Parts of the artifact that could not be shown faithfully.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.view().warnings().lines()
    }

    /// The files that differ from those of another tree in size or bytes, or that have unknown bytes, ascending. `None` if the trees have other names, or
    /// other numbers for their nodes.
    pub fn differing_files(&self, other: &Self) -> Option<Vec<NodeId>> {
        let (view, others) = (self.view(), other.view());
        let same_name = |position: u64| {
            let (one, two) = (view.name(position)?, others.name(position)?);
            (one.node == two.node && view.text(&one) == others.text(&two)).then_some(())
        };
        if (self.header.nodes, self.header.names) != (other.header.nodes, other.header.names) {
            return None;
        }
        (0..u64::from(self.header.names)).try_for_each(same_name)?;
        let mut differing = Vec::new();
        for node in 0..self.header.nodes {
            let (one, two) = (view.node(node)?, others.node(node)?);
            let is_directory = one.kind == Some(Kind::Directory);
            if one.kind != two.kind || is_directory && (one.first, one.count) != (two.first, two.count) {
                return None;
            }
            let known = one.has(format::HAS_SHA256) && two.has(format::HAS_SHA256);
            if one.kind == Some(Kind::File) && !(known && (one.size, one.sha256) == (two.size, two.sha256)) {
                differing.push(node);
            }
        }
        Some(differing)
    }

    /// Target of a symlink.
    pub fn target(&self, node: NodeId) -> Option<&[u8]> {
        let record = self.record(node).filter(|record| record.kind == Some(Kind::Symlink))?;
        self.view().heap(record.first, u64::from(record.count))
    }

    /// Extended attributes from the archive, plus `user.oci.title` and the like from the manifest.
    pub fn xattrs(&self, node: NodeId) -> Vec<(&[u8], &[u8])> {
        let Some(record) = self.record(node) else { return Vec::new() };
        let view = self.view();
        (0..record.xattrs).filter_map(|number| view.xattr(record.first_xattr.checked_add(number)?)).collect()
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tree").field("nodes", &self.header.nodes).field("names", &self.header.names).finish_non_exhaustive()
    }
}
