//! The lower tree of an upper: that of the digest the edits began with, and which of its nodes have rows in the upper.
//!
//! The marks are in memory, one bit per node, so that walking an unedited tree never queries the database. A mark without a row
//! costs a query; a row without a mark cannot exist.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::artifact::{Artifact, Kind, NodeId, Tree};
use crate::layer::{Xattrs, owned_xattrs};
use crate::staging::{Content, Node, NodeKey, STAGED, TreeNode};

/// Bits per word of marks.
const WORD: u64 = 64;

/// The tree below an upper; absent for a tag that began empty.
pub(in crate::view::overlay) struct Base {
    artifact: Option<Arc<Artifact>>,
    /// One bit per tree node: the upper has a row for it.
    marks: Vec<AtomicU64>,
    /// One name of every node, computed when a path is first requested.
    homes: OnceLock<Vec<Home>>,
}

/// One name of a node: its directory and the name's cookie there. Cookies start at 1; 0 means no name.
#[derive(Clone, Copy, Default)]
struct Home {
    directory: NodeId,
    cookie: u32,
}

impl Base {
    pub fn new(artifact: Option<Arc<Artifact>>) -> Self {
        let nodes = artifact.as_ref().map_or(0, |artifact| u64::from(artifact.tree.node_count()));
        let marks = (0..nodes.div_ceil(WORD)).map(|_| AtomicU64::new(0)).collect();
        Self { artifact, marks, homes: OnceLock::new() }
    }

    pub fn artifact(&self) -> Option<&Arc<Artifact>> {
        self.artifact.as_ref()
    }

    pub fn tree(&self) -> Option<&Tree> {
        self.artifact.as_ref().map(|artifact| &artifact.tree)
    }

    /// The tree node for a number.
    pub fn lower(&self, key: NodeKey) -> Option<NodeId> {
        NodeId::try_from(key).ok().filter(|id| self.tree().is_some_and(|tree| *id < tree.node_count()))
    }

    /// Notes that the upper has a row for a node. Call before the row is committed.
    pub fn mark(&self, key: NodeKey) {
        if let Some(word) = self.word(key) {
            word.fetch_or(1 << (key % WORD), Ordering::Release);
        }
    }

    /// Whether the upper may have rows for a node, or for names in it.
    pub fn is_marked(&self, key: NodeKey) -> bool {
        match self.word(key) {
            Some(word) => word.load(Ordering::Acquire) & (1 << (key % WORD)) != 0,
            // Created here, or the root of a tag that began empty.
            None => key >= STAGED || key == 0,
        }
    }

    fn word(&self, key: NodeKey) -> Option<&AtomicU64> {
        self.marks.get(usize::try_from(key / WORD).ok()?)
    }

    /// One path of a tree node.
    pub fn path(&self, node: NodeId) -> Vec<u8> {
        let Some(tree) = self.tree() else { return Vec::new() };
        let homes = self.homes.get_or_init(|| homes(tree));
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut at = node;
        while let Some(home) = homes.get(at as usize).filter(|home| at != 0 && home.cookie != 0) {
            if let Some(child) = tree.children(home.directory, u64::from(home.cookie - 1)).next() {
                parts.push(child.name);
            }
            at = home.directory;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Extended attributes of a tree node.
    pub fn xattrs(&self, id: NodeId) -> Xattrs {
        self.tree().map(|tree| owned_xattrs(tree.xattrs(id))).unwrap_or_default()
    }

    /// A tree node as a row.
    pub fn row(&self, id: NodeId, ctime: (i64, u32)) -> Option<Node> {
        let mut row = self.row_without_path(id, ctime)?;
        if let Content::Tree(tree) = &mut row.content {
            tree.path = self.path(id);
        }
        Some(row)
    }

    /// The same, its path left empty.
    pub fn row_without_path(&self, id: NodeId, ctime: (i64, u32)) -> Option<Node> {
        let artifact = self.artifact.as_ref()?;
        let tree = &artifact.tree;
        let node = tree.node(id)?;
        let sha256 = tree.sha256(id);
        Some(Node {
            kind: node.kind,
            metadata: node.metadata,
            ctime,
            links: node.links,
            target: tree.target(id).map(<[u8]>::to_vec).unwrap_or_default(),
            content: Content::Tree(TreeNode {
                manifest: artifact.manifest.digest,
                node: id,
                path: Vec::new(),
                sha256,
                size: if node.kind == Kind::File { node.size } else { 0 },
            }),
            opaque: false,
            parent: if node.kind == Kind::Directory { tree.parent(id).into() } else { 0 },
        })
    }
}

/// The first name of every node.
fn homes(tree: &Tree) -> Vec<Home> {
    let mut homes = vec![Home::default(); tree.node_count() as usize];
    for directory in 0..tree.node_count() {
        for child in tree.children(directory, 0) {
            let cookie = u32::try_from(child.cookie).unwrap_or(0);
            if let Some(home) = homes.get_mut(child.node as usize).filter(|home| home.cookie == 0) {
                *home = Home { directory, cookie };
            }
        }
    }
    homes
}
