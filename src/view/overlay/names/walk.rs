//! All names of a merged state in publish order: parents before children, names of a directory by
//! their bytes. Holds one path in memory, and some of the upper's rows of each directory on it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::artifact::{self, Artifact, Kind, NodeId};
use crate::error::{Error, ErrorKind};
use crate::path::push;
use crate::staging::{Content, EntryRow, Named, Node, NodeKey, TreeNode};
use crate::view::overlay::names::base::Base;
use crate::view::overlay::names::merged::{Merged, Seen, fault, gone, without_own};
use crate::view::overlay::names::trees::Trees;
use crate::view::{EntryContent, TreeEntry};

/// Rows of names read at a time.
const BATCH: usize = 256;
/// Nesting limit. A tree stays below it, since its paths are bounded; a damaged upper may have a cycle.
const DEEPEST: usize = 1 << 16;

/// The position of a walk. The state is passed to each step, so that an owner can hold both.
#[derive(Default)]
pub(in crate::view::overlay) struct Place {
    begun: bool,
    path: Vec<u8>,
    levels: Vec<Level>,
    /// The tree that the last row referred to: most refer to the same.
    tree: Option<Arc<Artifact>>,
}

/// A directory on the path, and the position in it.
struct Level {
    /// Length of its path.
    path: usize,
    directory: NodeKey,
    below: Option<NodeId>,
    /// Cookie of the tree's last name.
    cookie: u64,
    /// The upper's next names.
    rows: VecDeque<EntryRow>,
    /// The last name of `rows`, if there may be more.
    last: Option<Vec<u8>>,
}

/// A row as it was read with its name, and whether it has extended attributes.
type Known = Option<(Node, bool)>;

impl Place {
    /// The next name. `merged` and `trees` are the same at every step.
    pub fn next(&mut self, merged: Merged<'_>, trees: &Trees) -> Result<Option<TreeEntry>, Error> {
        if !self.begun {
            self.begun = true;
            let entry = self.entry(merged, trees, 0, None)?;
            self.enter(merged, 0)?;
            return Ok(Some(entry));
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            self.path.truncate(level.path);
            let Some((name, key, known)) = level.next(&merged)? else {
                self.levels.pop();
                continue;
            };
            push(&mut self.path, &name);
            // An upper in use may have changed since the row was read.
            let read = self.entry(merged, trees, key, known).or_else(|_| self.entry(merged, trees, key, None));
            let entry = match read {
                Ok(entry) => entry,
                // Removed while an upper in use is walked.
                Err(error) if error.kind == ErrorKind::Gone => continue,
                Err(error) => return Err(error),
            };
            if entry.kind == Kind::Directory {
                self.enter(merged, key)?;
            }
            return Ok(Some(entry));
        }
    }

    fn enter(&mut self, merged: Merged<'_>, directory: NodeKey) -> Result<(), Error> {
        if self.levels.len() >= DEEPEST {
            return Err(fault(ErrorKind::Integrity, "staged directories contain one another"));
        }
        let below = merged.below(directory)?;
        let last = merged.base.is_marked(directory).then(Vec::new);
        self.levels.push(Level { path: self.path.len(), directory, below, cookie: 0, rows: VecDeque::new(), last });
        Ok(())
    }

    fn entry(&mut self, merged: Merged<'_>, trees: &Trees, key: NodeKey, known: Known) -> Result<TreeEntry, Error> {
        let (row, xattrs) = match known {
            Some((row, has_xattrs)) => (row, if has_xattrs { merged.rows.xattrs(key)? } else { Vec::new() }),
            None => match merged.see(key)? {
                Seen::Row(row) => (row, merged.rows.xattrs(key)?),
                Seen::Lower(id, node) => return self.unchanged(merged.base, id, node),
            },
        };
        let mut entry = TreeEntry {
            path: self.path.clone(),
            node: key,
            kind: row.kind,
            metadata: row.metadata,
            size: 0,
            links: row.links,
            target: row.target,
            xattrs: without_own(xattrs),
            content: EntryContent::None,
            sha256: None,
        };
        match row.content {
            Content::Data(id) if row.kind == Kind::File => {
                let data = merged.rows.data_attributes(id)?;
                (entry.size, entry.metadata.mtime, entry.content) = (data.size, Some(data.mtime), EntryContent::Data(id));
            }
            Content::Tree(tree) if row.kind == Kind::File => {
                let artifact = self.tree_of(trees, &tree)?;
                (entry.size, entry.sha256, entry.content) = (tree.size, tree.sha256, EntryContent::Tree(artifact, tree.node));
            }
            Content::Data(_) | Content::Tree(_) | Content::None => {}
        }
        Ok(entry)
    }

    fn tree_of(&mut self, trees: &Trees, node: &TreeNode) -> Result<Arc<Artifact>, Error> {
        if let Some(tree) = self.tree.as_ref().filter(|tree| tree.manifest.digest == node.manifest) {
            return Ok(Arc::clone(tree));
        }
        let tree = trees.of(node, ErrorKind::Other)?;
        self.tree = Some(Arc::clone(&tree));
        Ok(tree)
    }

    /// A name whose node is unchanged from the tree below.
    fn unchanged(&self, base: &Base, id: NodeId, node: artifact::Node) -> Result<TreeEntry, Error> {
        let artifact = base.artifact().ok_or_else(gone)?;
        let is_file = node.kind == Kind::File;
        Ok(TreeEntry {
            path: self.path.clone(),
            node: id.into(),
            kind: node.kind,
            metadata: node.metadata,
            size: if is_file { node.size } else { 0 },
            links: node.links,
            target: artifact.tree.target(id).map(<[u8]>::to_vec).unwrap_or_default(),
            xattrs: without_own(base.xattrs(id)),
            content: if is_file { EntryContent::Tree(Arc::clone(artifact), id) } else { EntryContent::None },
            sha256: artifact.tree.sha256(id),
        })
    }
}

impl Level {
    /// The next name in byte order: of the upper, or of the tree if the upper has no row for it.
    fn next(&mut self, merged: &Merged<'_>) -> Result<Option<(Vec<u8>, NodeKey, Known)>, Error> {
        loop {
            self.read_rows(merged)?;
            let below = self.below.and_then(|id| merged.base.tree()?.children(id, self.cookie).next());
            let of_upper = match (&below, self.rows.front()) {
                (Some(child), Some(row)) => row.name.as_slice() <= child.name,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (None, None) => return Ok(None),
            };
            if !of_upper && let Some(child) = below {
                self.cookie = child.cookie;
                return Ok(Some((child.name.to_vec(), child.node.into(), None)));
            }
            let Some(row) = self.rows.pop_front() else { return Ok(None) };
            if let Some(child) = below
                && child.name == row.name
            {
                self.cookie = child.cookie;
            }
            if let Named::Node(key) = row.named {
                return Ok(Some((row.name, key, row.node.map(|node| (node, row.has_xattrs)))));
            }
        }
    }

    /// Reads the upper's next names, if those read before are used up.
    fn read_rows(&mut self, merged: &Merged<'_>) -> Result<(), Error> {
        if !self.rows.is_empty() {
            return Ok(());
        }
        let Some(last) = self.last.take() else { return Ok(()) };
        self.rows = merged.rows.entries(self.directory, &last, BATCH)?.into();
        self.last = self.rows.back().filter(|_| self.rows.len() == BATCH).map(|row| row.name.clone());
        Ok(())
    }
}
