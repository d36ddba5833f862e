//! All names of a merged state in the order in which they are published: parents before children, names of a directory by
//! their bytes. Memory holds one path and what the upper says of the directories on it.

use std::collections::HashMap;
use std::iter::Peekable;
use std::sync::Arc;
use std::vec::IntoIter;

use parking_lot::RwLock;

use super::copy_up::without_own;
use super::frozen::{ArtifactOf, FrozenContent, FrozenEntry};
use super::merged::{Merged, Seen, fault};
use crate::artifact::{Artifact, Kind, NodeId};
use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::staging::{Content, DataId, Error as Fault, NameRow, Named, Node, NodeKey, Rows, TreeNode};

/// Rows of names that are read at a time.
const BATCH: usize = 1024;
/// Directories below one another. A tree has no more, since its paths are bounded; a damaged upper may have a circle.
const DEEPEST: usize = 1 << 16;

/// A walk over a merged state.
pub(super) struct Walk<'a> {
    merged: Merged<'a>,
    artifacts: &'a RwLock<HashMap<Digest, Arc<Artifact>>>,
    begun: bool,
    path: Vec<u8>,
    levels: Vec<Level>,
}

/// A directory on the way, and where in it the walk is.
struct Level {
    /// Length of its path.
    path: usize,
    below: Option<NodeId>,
    /// Cookie of the tree's last name.
    cookie: u64,
    rows: Peekable<IntoIter<NameRow>>,
}

impl<'a> Walk<'a> {
    pub fn new(merged: Merged<'a>, artifacts: &'a RwLock<HashMap<Digest, Arc<Artifact>>>) -> Self {
        Self { merged, artifacts, begun: false, path: Vec::new(), levels: Vec::new() }
    }

    /// The next name.
    pub fn next(&mut self) -> Result<Option<FrozenEntry>, Fault> {
        if !self.begun {
            self.begun = true;
            let entry = self.entry(0)?;
            self.enter(0)?;
            return Ok(Some(entry));
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            self.path.truncate(level.path);
            let Some((name, key)) = level.next(&self.merged) else {
                self.levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            let entry = match self.entry(key) {
                Ok(entry) => entry,
                // Removed while an upper that is in use is walked.
                Err(error) if error.kind == ErrorKind::Gone => continue,
                Err(error) => return Err(error),
            };
            if entry.kind == Kind::Directory {
                self.enter(key)?;
            }
            return Ok(Some(entry));
        }
    }

    fn enter(&mut self, directory: NodeKey) -> Result<(), Fault> {
        if self.levels.len() >= DEEPEST {
            return Err(fault(ErrorKind::Integrity, "staged directories lie in one another without an end"));
        }
        let rows = rows_of(&self.merged, directory)?;
        let below = self.merged.below(directory)?;
        self.levels.push(Level { path: self.path.len(), below, cookie: 0, rows: rows.into_iter().peekable() });
        Ok(())
    }

    fn entry(&self, key: NodeKey) -> Result<FrozenEntry, Fault> {
        let seen = self.merged.see(key)?;
        let (mut row, lower) = match seen {
            Seen::Row(row) => (row, None),
            Seen::Lower(id, _) => (self.merged.base.row_without_path(id, (0, 0)).ok_or_else(super::merged::gone)?, Some(id)),
        };
        let xattrs = match lower {
            Some(id) => self.merged.tree_xattrs(id),
            None => self.merged.rows.xattrs(key)?,
        };
        let content = std::mem::replace(&mut row.content, Content::None);
        let (size, content) = match content {
            Content::Data(id) if row.kind == Kind::File => {
                let (size, mtime) = staged(self.merged.rows, id)?;
                row.mtime = Some(mtime);
                (size, FrozenContent::Data(id))
            }
            Content::Tree(tree) if row.kind == Kind::File => self.of_tree(&tree)?,
            _ => (0, FrozenContent::None),
        };
        Ok(self.frozen_entry(key, row, size, content, without_own(xattrs)))
    }

    fn frozen_entry(&self, key: NodeKey, row: Node, size: u64, content: FrozenContent, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> FrozenEntry {
        FrozenEntry {
            path: self.path.clone(),
            node: key,
            kind: row.kind,
            mode: row.mode,
            owner: row.owner,
            mtime: row.mtime,
            size,
            links: row.links,
            device: row.device,
            target: row.target,
            xattrs,
            content,
        }
    }

    fn of_tree(&self, tree: &TreeNode) -> Result<(u64, FrozenContent), Fault> {
        let artifacts = self.artifacts.read();
        let Some(artifact) = artifacts.get(&tree.manifest) else {
            let message = format!("the tree of {} that a staged file refers to is not open", tree.manifest);
            return Err(Fault { kind: ErrorKind::Other, message });
        };
        Ok((tree.size, FrozenContent::Tree { artifact: ArtifactOf(Arc::clone(artifact)), node: tree.node, sha256: tree.sha256 }))
    }
}

impl Level {
    /// The next name by its bytes: of the upper and of the tree, where the upper says nothing of it.
    fn next(&mut self, merged: &Merged<'_>) -> Option<(Vec<u8>, NodeKey)> {
        loop {
            let below = self.below.and_then(|id| merged.base.tree()?.children(id, self.cookie).next());
            let of_upper = match (&below, self.rows.peek()) {
                (Some(child), Some(row)) => row.name.as_slice() <= child.name,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (None, None) => return None,
            };
            if !of_upper && let Some(child) = below {
                self.cookie = child.cookie;
                return Some((child.name.to_vec(), child.node.into()));
            }
            let row = self.rows.next()?;
            if let Some(child) = below
                && child.name == row.name
            {
                self.cookie = child.cookie;
            }
            if let Named::Node(key) = row.named {
                return Some((row.name, key));
            }
        }
    }
}

/// The rows of the upper for the names of a directory, sorted by name.
fn rows_of(merged: &Merged<'_>, directory: NodeKey) -> Result<Vec<NameRow>, Fault> {
    let mut all: Vec<NameRow> = Vec::new();
    if !merged.base.is_marked(directory) {
        return Ok(all);
    }
    loop {
        let after = all.last().map_or(0, |row| row.cookie);
        let batch = merged.rows.names(directory, after, BATCH)?;
        let full = batch.len() == BATCH;
        all.extend(batch);
        if !full {
            all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            return Ok(all);
        }
    }
}

/// Size and modification time of staged bytes.
fn staged(rows: &dyn Rows, id: DataId) -> Result<(u64, (i64, u32)), Fault> {
    let data = rows.data_attributes(id)?;
    Ok((data.size, data.mtime))
}
