//! Taking edits back: below a path, the merged state becomes what the tag is expected to hold.
//!
//! A file that was edited, replaced or removed comes back as a fresh node that refers to the tree, so that no inode comes to
//! mean other bytes; a directory that is there keeps its node and gets its attributes back. Whoever has the old file open
//! goes on with it, without a name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Overlay;
use super::copy_up::without_own;
use super::edit::Edit;
use super::ground::{Ground, find};
use super::merged::{Merged, fault, not_found};
use super::plain::Forgotten;
use crate::artifact::{Artifact, Kind, NodeId, is_own_name};
use crate::error::ErrorKind;
use crate::staging::{Binding, Content, Error as Fault, Node, NodeKey, STAGED};
use crate::view::Error;

impl Overlay {
    /// Takes back what was changed below a path (all if empty): names lead to fresh nodes that refer to the tree. Answers the inodes and names that the
    /// kernel must forget. After all was taken back nothing is left to publish, unless the tag is new.
    ///
    /// # Errors
    /// Other where the tree that the tag is expected to hold was not opened ([`Overlay::fetch_expected`]); NotFound where neither the tag nor what it is expected to hold has the path; what the disk says.
    pub fn discard(&self, path: &[u8]) -> Result<Vec<Forgotten>, Error> {
        let expected = match self.binding().expected {
            None => None,
            Some(digest) => Some(self.artifact(&digest).ok_or_else(|| {
                Error::new(ErrorKind::Other, format!("the tree of {digest}, which the tag is expected to hold, is not open"))
            })?),
        };
        let ground = Ground::new(expected.clone());
        let _names = self.names();
        let _gate = self.gate_alone();
        let forgotten = self.change(|edit| {
            let mut discard = Discard {
                upstream: &ground,
                artifact: expected.as_ref(),
                forgotten: Vec::new(),
                made: HashMap::new(),
                work: Vec::new(),
                restored: Vec::new(),
            };
            discard.start(edit, path)?;
            discard.run(edit)?;
            if path.is_empty() {
                let binding = self.upper().binding();
                edit.change.bind(Binding { deleted: false, ..binding })?;
                edit.change.set_unedited();
            }
            Ok(discard.forgotten)
        })?;
        // What is written from now on counts again.
        self.next_epoch();
        Ok(forgotten)
    }
}

/// A directory to be made like that of the tree.
struct Job {
    directory: NodeKey,
    /// The directory upstream, if there is one.
    upstream: Option<NodeId>,
    path: Vec<u8>,
}

struct Discard<'a> {
    upstream: &'a Ground,
    artifact: Option<&'a Arc<Artifact>>,
    forgotten: Vec<Forgotten>,
    /// Which node here stands for one upstream.
    made: HashMap<NodeId, NodeKey>,
    /// A stack instead of recursion: nothing bounds how deep directories lie.
    work: Vec<Job>,
    /// Directories that get the attributes from upstream, once all in them is done.
    restored: Vec<(NodeKey, NodeId)>,
}

impl Discard<'_> {
    /// Finds the place; directories on the way that are not here any more are made again.
    fn start(&mut self, edit: &mut Edit<'_, '_>, path: &[u8]) -> Result<(), Fault> {
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let Some((last, parents)) = names.split_last() else {
            self.enter(0, self.artifact.map(|_| 0), Vec::new());
            return Ok(());
        };
        let is_there = self.artifact.is_some_and(|artifact| find(&artifact.tree, &names.join(&b'/')).is_some());
        if !is_there && edit.merged().find(path)?.is_none() {
            return Err(not_found());
        }
        let (mut directory, mut upstream, mut at) = (0, self.artifact.map(|_| 0), Vec::new());
        for name in parents {
            upstream = upstream.and_then(|id| self.lookup(id, name));
            join(&mut at, name);
            let here = match edit.merged().lookup(directory, name)? {
                Some(key) if edit.merged().see(key)?.kind() == Kind::Directory => Some(key),
                other => {
                    self.remove(edit, directory, name, other)?;
                    None
                }
            };
            directory = match (here, upstream) {
                (Some(key), _) => key,
                (None, Some(id)) => {
                    let made = self.make(edit, directory, name, id, &at)?;
                    self.restored.push((made, id));
                    made
                }
                (None, None) => return Err(not_found()),
            };
        }
        let theirs = upstream.and_then(|id| self.lookup(id, last));
        let mine = edit.merged().lookup(directory, last)?;
        self.restore_name(edit, directory, last, (mine, theirs), &at)
    }

    fn run(&mut self, edit: &mut Edit<'_, '_>) -> Result<(), Fault> {
        while let Some(job) = self.work.pop() {
            for (name, sides) in self.names(edit.merged(), &job)? {
                self.restore_name(edit, job.directory, &name, sides, &job.path)?;
            }
        }
        while let Some((key, id)) = self.restored.pop() {
            self.restore_attributes(edit, key, id)?;
        }
        Ok(())
    }

    fn enter(&mut self, directory: NodeKey, upstream: Option<NodeId>, path: Vec<u8>) {
        if let Some(id) = upstream {
            self.restored.push((directory, id));
        }
        self.work.push(Job { directory, upstream, path });
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.upstream.tree()?.lookup(directory, name)
    }

    fn kind(&self, id: NodeId) -> Option<Kind> {
        self.upstream.tree()?.node(id).map(|node| node.kind)
    }

    /// All names of a directory, here and upstream.
    fn names(&self, merged: Merged<'_>, job: &Job) -> Result<Names, Fault> {
        let mut names = Names::new();
        merged.children(job.directory, 0, &mut |_, name, key| {
            names.entry(name.to_vec()).or_default().0 = Some(key);
            true
        })?;
        if let (Some(tree), Some(id)) = (self.upstream.tree(), job.upstream) {
            for child in tree.children(id, 0) {
                names.entry(child.name.to_vec()).or_default().1 = Some(child.node);
            }
        }
        Ok(names)
    }

    /// Makes one name what it is upstream.
    fn restore_name(&mut self, edit: &mut Edit<'_, '_>, directory: NodeKey, name: &[u8], sides: Sides, parent: &[u8]) -> Result<(), Fault> {
        let mut path = parent.to_vec();
        join(&mut path, name);
        if let (Some(key), Some(id)) = sides {
            let kinds = (edit.merged().see(key)?.kind(), self.kind(id));
            if kinds == (Kind::Directory, Some(Kind::Directory)) {
                self.enter(key, Some(id), path);
                return Ok(());
            }
            // Names of one node upstream are names of one node here.
            if self.is_same(edit, key, id)? && *self.made.entry(id).or_insert(key) == key {
                return Ok(());
            }
        }
        self.remove(edit, directory, name, sides.0)?;
        if let Some(id) = sides.1 {
            let made = self.make(edit, directory, name, id, &path)?;
            if self.kind(id) == Some(Kind::Directory) {
                self.enter(made, Some(id), path);
            }
        }
        Ok(())
    }

    /// Whether a node is still exactly that of the tree upstream.
    fn is_same(&self, edit: &Edit<'_, '_>, key: NodeKey, id: NodeId) -> Result<bool, Fault> {
        let Some(there) = self.upstream.row_without_path(id, (0, 0)) else { return Ok(false) };
        let Some(row) = edit.merged().row(key)? else {
            let under = edit.ground.artifact().map(|artifact| artifact.manifest.digest);
            return Ok(under == self.artifact.map(|artifact| artifact.manifest.digest) && key == NodeKey::from(id));
        };
        let same_content = match (&row.content, &there.content) {
            (Content::Tree(one), Content::Tree(other)) => (one.manifest, one.node) == (other.manifest, other.node),
            _ => false,
        };
        let same = same_content && (row.mode, row.owner, row.mtime) == (there.mode, there.owner, there.mtime);
        Ok(same && without_own(edit.merged().xattrs(key)?) == without_own(self.xattrs(id)))
    }

    fn xattrs(&self, id: NodeId) -> Vec<(Vec<u8>, Vec<u8>)> {
        let xattrs = self.upstream.tree().map(|tree| tree.xattrs(id)).unwrap_or_default();
        xattrs.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    /// Gives a name to a fresh node of the tree upstream, or to the one that its other names have. A directory is empty.
    fn make(&mut self, edit: &mut Edit<'_, '_>, directory: NodeKey, name: &[u8], id: NodeId, path: &[u8]) -> Result<NodeKey, Fault> {
        self.forgotten.push(Forgotten::Name(directory, name.to_vec()));
        let mut row = self.upstream.row_without_path(id, edit.now).ok_or_else(super::merged::gone)?;
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

    fn add(&self, edit: &mut Edit<'_, '_>, row: &Node, id: NodeId) -> Result<NodeKey, Fault> {
        let key = edit.change.add_node(row)?;
        let xattrs = without_own(self.xattrs(id));
        if !xattrs.is_empty() {
            edit.change.put_xattrs(key, &xattrs)?;
        }
        Ok(key)
    }

    /// The node that has other names of a hard-linked file and is as upstream.
    fn linked(&self, edit: &Edit<'_, '_>, id: NodeId) -> Result<Option<NodeKey>, Fault> {
        if let Some(key) = self.made.get(&id) {
            return Ok(Some(*key));
        }
        let key = NodeKey::from(id);
        let alive = edit.merged().row(key)?.is_some_and(|row| row.links > 0);
        Ok(if alive && self.is_same(edit, key, id)? { Some(key) } else { None })
    }

    /// Takes a name away, with everything below it.
    fn remove(&mut self, edit: &mut Edit<'_, '_>, directory: NodeKey, name: &[u8], key: Option<NodeKey>) -> Result<(), Fault> {
        let Some(key) = key else { return Ok(()) };
        self.forgotten.push(Forgotten::Name(directory, name.to_vec()));
        let is_directory = edit.merged().see(key)?.kind() == Kind::Directory;
        edit.take_name(directory, name)?;
        edit.changed_names(directory, -i32::from(is_directory))?;
        let mut open = vec![key];
        while let Some(key) = open.pop() {
            self.forgotten.push(Forgotten::Node(key));
            if edit.merged().see(key)?.kind() == Kind::Directory {
                edit.merged().children(key, 0, &mut |_, _, child| {
                    open.push(child);
                    true
                })?;
            }
            edit.lose_name(key)?;
        }
        Ok(())
    }

    fn restore_attributes(&mut self, edit: &mut Edit<'_, '_>, key: NodeKey, id: NodeId) -> Result<(), Fault> {
        let under = edit.ground.artifact().map(|artifact| artifact.manifest.digest);
        let is_its_own = key < STAGED && under == self.artifact.map(|artifact| artifact.manifest.digest) && key == NodeKey::from(id);
        if is_its_own && edit.merged().row(key)?.is_none() {
            return Ok(());
        }
        let there = self.upstream.row_without_path(id, edit.now).ok_or_else(|| fault(ErrorKind::Gone, "no such directory upstream"))?;
        edit.update(key, |node| (node.mode, node.owner, node.mtime) = (there.mode, there.owner, there.mtime))?;
        let kept: Vec<_> = edit.merged().xattrs(key)?.into_iter().filter(|(name, _)| is_own_name(name)).collect();
        let xattrs: Vec<_> = without_own(self.xattrs(id)).into_iter().chain(kept).collect();
        edit.change.put_xattrs(key, &xattrs)?;
        self.forgotten.push(Forgotten::Node(key));
        Ok(())
    }
}

/// What a name leads to here and upstream.
type Sides = (Option<NodeKey>, Option<NodeId>);
type Names = BTreeMap<Vec<u8>, Sides>;

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
