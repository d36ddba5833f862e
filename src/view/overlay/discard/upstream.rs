//! The tree that edits are reverted to: which nodes here equal it, and fresh nodes that refer to it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::artifact::{Artifact, Kind, NodeId, is_own_name};
use crate::error::{Error, ErrorKind};
use crate::layer::Xattrs;
use crate::staging::{Content, Node, NodeKey, STAGED};
use crate::view::overlay::names::base::Base;
use crate::view::overlay::names::edit::Edit;
use crate::view::overlay::names::merged::{fault, without_own};

/// The artifact that the tag is expected to hold; absent for a new tag.
pub(in crate::view::overlay) struct Upstream {
    base: Base,
    artifact: Option<Arc<Artifact>>,
    /// The node here for each upstream node with several names.
    made: HashMap<NodeId, NodeKey>,
}

impl Upstream {
    pub fn new(artifact: Option<Arc<Artifact>>) -> Self {
        Self { base: Base::new(artifact.clone()), artifact, made: HashMap::new() }
    }

    /// The tag's own directory.
    pub fn root(&self) -> Option<NodeId> {
        self.artifact.as_ref().map(|_| 0)
    }

    /// Whether it contains a path.
    pub fn has(&self, path: &[u8]) -> bool {
        self.base.tree().is_some_and(|tree| tree.find(path).is_some())
    }

    /// A few names of a directory after a cookie, with their cookies.
    pub fn names(&self, directory: NodeId, after: u64, limit: usize) -> Vec<(u64, Vec<u8>)> {
        let Some(tree) = self.base.tree() else { return Vec::new() };
        tree.children(directory, after).take(limit).map(|child| (child.cookie, child.name.to_vec())).collect()
    }

    /// The node of a name.
    pub fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.base.tree()?.lookup(directory, name)
    }

    /// The kind of a node.
    pub fn kind(&self, id: NodeId) -> Option<Kind> {
        self.base.tree()?.node(id).map(|node| node.kind)
    }

    /// Whether a node equals one upstream and is its counterpart here: names of one node upstream are names of one node here.
    pub fn stands_for(&mut self, edit: &Edit<'_, '_>, key: NodeKey, id: NodeId) -> Result<bool, Error> {
        if !self.is_same(edit, key, id)? {
            return Ok(false);
        }
        let several = self.base.tree().and_then(|tree| tree.node(id)).is_some_and(|node| node.links > 1);
        Ok(!several || *self.made.entry(id).or_insert(key) == key)
    }

    /// Whether a node is still exactly that of the upstream tree.
    fn is_same(&self, edit: &Edit<'_, '_>, key: NodeKey, id: NodeId) -> Result<bool, Error> {
        let Some(there) = self.base.row_without_path(id, (0, 0)) else { return Ok(false) };
        let Some(row) = edit.merged().row(key)? else {
            let under = edit.base.artifact().map(|artifact| artifact.manifest.digest);
            return Ok(under == self.artifact.as_ref().map(|artifact| artifact.manifest.digest) && key == NodeKey::from(id));
        };
        let same_content = match (&row.content, &there.content) {
            (Content::Tree(one), Content::Tree(other)) => (one.manifest, one.node) == (other.manifest, other.node),
            _ => false,
        };
        let same = same_content && row.metadata == there.metadata;
        Ok(same && without_own(edit.merged().xattrs(key)?) == without_own(self.xattrs(id)))
    }

    fn xattrs(&self, id: NodeId) -> Xattrs {
        self.base.xattrs(id)
    }

    /// Gives a name to a fresh node of the upstream tree, or to the node of its other names. A directory is empty.
    pub fn make(&mut self, edit: &mut Edit<'_, '_>, directory: NodeKey, name: &[u8], id: NodeId, path: &[u8]) -> Result<NodeKey, Error> {
        let mut row = self.base.row_without_path(id, edit.now).ok_or_else(crate::view::overlay::names::merged::gone)?;
        let several = row.kind != Kind::Directory && row.links > 1;
        if several && let Some(key) = self.linked(edit, id)? {
            edit.update(key, |node| node.links = node.links.saturating_add(1))?;
            edit.put_name(directory, name, key)?;
            return Ok(key);
        }
        row.links = if row.kind == Kind::Directory { 2 } else { 1 };
        row.parent = if row.kind == Kind::Directory { directory } else { 0 };
        if let Content::Tree(tree) = &mut row.content {
            tree.path = path.to_vec();
        }
        let is_directory = row.kind == Kind::Directory;
        let key = self.add(edit, &row, id)?;
        edit.put_name(directory, name, key)?;
        edit.changed_names(directory, i32::from(is_directory))?;
        if several {
            self.made.insert(id, key);
        }
        Ok(key)
    }

    fn add(&self, edit: &mut Edit<'_, '_>, row: &Node, id: NodeId) -> Result<NodeKey, Error> {
        let key = edit.change.add_node(row)?;
        let xattrs = without_own(self.xattrs(id));
        if !xattrs.is_empty() {
            edit.change.put_xattrs(key, &xattrs)?;
        }
        Ok(key)
    }

    /// The node that has other names of a hard-linked file and equals upstream.
    fn linked(&self, edit: &Edit<'_, '_>, id: NodeId) -> Result<Option<NodeKey>, Error> {
        let made = self.made.get(&id).copied();
        let key = made.unwrap_or(NodeKey::from(id));
        // A tree node without a row is unchanged; whether any name still leads to it is unknown unless one was seen.
        let alive = edit.merged().row(key)?.map_or(made.is_some(), |row| row.links > 0);
        Ok(if alive && self.is_same(edit, key, id)? { Some(key) } else { None })
    }

    /// Gives a directory its upstream attributes; `false` if they were never changed.
    pub fn restore_attributes(&self, edit: &mut Edit<'_, '_>, key: NodeKey, id: NodeId) -> Result<bool, Error> {
        let under = edit.base.artifact().map(|artifact| artifact.manifest.digest);
        let is_its_own =
            key < STAGED && under == self.artifact.as_ref().map(|artifact| artifact.manifest.digest) && key == NodeKey::from(id);
        if is_its_own && edit.merged().row(key)?.is_none() {
            return Ok(false);
        }
        let there = self.base.row_without_path(id, edit.now).ok_or_else(|| fault(ErrorKind::Gone, "no such directory upstream"))?;
        edit.update(key, |node| node.metadata = there.metadata)?;
        let kept: Vec<_> = edit.merged().xattrs(key)?.into_iter().filter(|(name, _)| is_own_name(name)).collect();
        let xattrs: Vec<_> = without_own(self.xattrs(id)).into_iter().chain(kept).collect();
        edit.change.put_xattrs(key, &xattrs).map(|()| true)
    }
}
