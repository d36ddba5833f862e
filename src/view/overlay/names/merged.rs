//! The upper over its tree, for reading: nodes, names, attributes. Uses the current rows, those inside a transaction, or frozen ones.

use crate::artifact::{self, Kind, NodeId, is_own_name};
use crate::error::{Error, ErrorKind};
use crate::layer::{Metadata, Xattrs};
use crate::path::components;
use crate::staging::{Named, Node, NodeKey, Rows};
use crate::view::overlay::names::base::Base;

/// Cookies of the upper's names start here; those of the tree are smaller.
pub(in crate::view::overlay) const STAGED_NAMES: u64 = 1 << 40;
/// Rows of names read at a time; also the most that are held in memory while the tree's names are filtered.
const BATCH: usize = 256;

/// Rows over a tree.
#[derive(Clone, Copy)]
pub(in crate::view::overlay) struct Merged<'a> {
    pub rows: &'a dyn Rows,
    pub base: &'a Base,
}

/// A node as seen through the upper.
pub(in crate::view::overlay) enum Seen {
    /// The upper has a row.
    Row(Node),
    /// Unchanged from the tree.
    Lower(NodeId, artifact::Node),
}

impl Seen {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Row(node) => node.kind,
            Self::Lower(_, node) => node.kind,
        }
    }
}

/// The attributes that other programs see and artifacts carry.
pub(in crate::view::overlay) fn without_own(xattrs: Xattrs) -> Xattrs {
    xattrs.into_iter().filter(|(name, _)| !is_own_name(name)).collect()
}

pub(in crate::view::overlay) fn fault(kind: ErrorKind, message: &'static str) -> Error {
    Error::new(kind, message)
}

pub(in crate::view::overlay) fn gone() -> Error {
    fault(ErrorKind::Gone, "the file no longer exists")
}

pub(in crate::view::overlay) fn not_found() -> Error {
    fault(ErrorKind::NotFound, "no such file or directory")
}

pub(in crate::view::overlay) fn not_a_directory() -> Error {
    fault(ErrorKind::NotDirectory, "not a directory")
}

impl Merged<'_> {
    /// The row of a node, if the upper has one.
    pub fn row(&self, key: NodeKey) -> Result<Option<Node>, Error> {
        if self.base.is_marked(key) { self.rows.node(key) } else { Ok(None) }
    }

    /// A node; Gone if no node has this number.
    pub fn see(&self, key: NodeKey) -> Result<Seen, Error> {
        if let Some(row) = self.row(key)? {
            return Ok(Seen::Row(row));
        }
        let lower = self.base.lower(key).and_then(|id| Some(Seen::Lower(id, self.base.tree()?.node(id)?)));
        match lower {
            Some(seen) => Ok(seen),
            None if key == 0 => Ok(Seen::Row(empty_root())),
            None => Err(gone()),
        }
    }

    /// The tree directory whose names show through.
    pub fn below(&self, directory: NodeKey) -> Result<Option<NodeId>, Error> {
        let Some(id) = self.base.lower(directory) else { return Ok(None) };
        let opaque = self.row(directory)?.is_some_and(|row| row.opaque);
        Ok(if opaque { None } else { Some(id) })
    }

    /// The node under a name in the tree below.
    pub fn lookup_below(&self, directory: NodeKey, name: &[u8]) -> Result<Option<NodeId>, Error> {
        let Some(tree) = self.base.tree() else { return Ok(None) };
        let Some(found) = self.base.lower(directory).and_then(|id| tree.lookup(id, name)) else { return Ok(None) };
        Ok(self.below(directory)?.map(|_| found))
    }

    /// The node of a name.
    pub fn lookup(&self, directory: NodeKey, name: &[u8]) -> Result<Option<NodeKey>, Error> {
        if self.base.is_marked(directory)
            && let Some(named) = self.rows.name(directory, name)?
        {
            return Ok(match named {
                Named::Node(key) => Some(key),
                Named::Whiteout => None,
            });
        }
        Ok(self.lookup_below(directory, name)?.map(NodeKey::from))
    }

    /// The node of a path.
    pub fn find(&self, path: &[u8]) -> Result<Option<NodeKey>, Error> {
        let mut node = 0;
        for name in components(path) {
            match self.lookup(node, name)? {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// The parent of a directory.
    pub fn parent(&self, directory: NodeKey) -> Result<NodeKey, Error> {
        match self.see(directory)? {
            Seen::Row(row) if row.kind == Kind::Directory => Ok(row.parent),
            Seen::Lower(id, node) if node.kind == Kind::Directory => Ok(self.base.tree().map_or(0, |tree| tree.parent(id).into())),
            _ => Err(not_a_directory()),
        }
    }

    /// Whether a directory is the other one or is below it.
    pub fn is_within(&self, directory: NodeKey, other: NodeKey) -> Result<bool, Error> {
        let mut at = directory;
        while at != other {
            if at == 0 {
                return Ok(false);
            }
            at = self.parent(at)?;
        }
        Ok(true)
    }

    /// Whether a directory has no names.
    pub fn is_empty(&self, directory: NodeKey) -> Result<bool, Error> {
        let mut empty = true;
        self.children(directory, 0, &mut |_, _, _| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// Passes names after a cookie, those of the tree first, to `take` until it returns `false`.
    pub fn children(&self, directory: NodeKey, after: u64, take: &mut dyn FnMut(u64, &[u8], NodeKey) -> bool) -> Result<(), Error> {
        if after < STAGED_NAMES
            && let Some(tree) = self.base.tree()
            && let Some(id) = self.below(directory)?
        {
            let overridden = self.overridden(directory)?;
            for child in tree.children(id, after) {
                let hidden = match &overridden {
                    Some(names) => names.binary_search_by(|name| name.as_slice().cmp(child.name)).is_ok(),
                    None => self.rows.name(directory, child.name)?.is_some(),
                };
                if !hidden && !take(child.cookie, child.name, child.node.into()) {
                    return Ok(());
                }
            }
        }
        if !self.base.is_marked(directory) {
            return Ok(());
        }
        self.rows.each_name(directory, after.saturating_sub(STAGED_NAMES), &mut |row| {
            Ok(match row.named {
                Named::Node(key) => take(STAGED_NAMES + row.cookie, &row.name, key),
                Named::Whiteout => true,
            })
        })
    }

    /// The upper's names in a directory, sorted; `None` if too many to hold in memory.
    fn overridden(&self, directory: NodeKey) -> Result<Option<Vec<Vec<u8>>>, Error> {
        if !self.base.is_marked(directory) {
            return Ok(Some(Vec::new()));
        }
        let rows = self.rows.names(directory, 0, BATCH)?;
        if rows.len() == BATCH {
            return Ok(None);
        }
        let mut names: Vec<Vec<u8>> = rows.into_iter().map(|row| row.name).collect();
        names.sort_unstable();
        Ok(Some(names))
    }

    /// Extended attributes, including ocifs's own and internal notes.
    pub fn xattrs(&self, key: NodeKey) -> Result<Xattrs, Error> {
        match self.see(key)? {
            Seen::Row(_) => self.rows.xattrs(key),
            Seen::Lower(id, _) => Ok(self.base.xattrs(id)),
        }
    }
}

/// The untouched root directory of a tag that began empty.
pub(in crate::view::overlay) fn empty_root() -> Node {
    Node {
        kind: Kind::Directory,
        metadata: Metadata::default(),
        ctime: (0, 0),
        links: 2,
        target: Vec::new(),
        content: crate::staging::Content::None,
        opaque: false,
        parent: 0,
    }
}
