//! How the merged state differs from what the tag holds upstream: both walked in one order, side by side.
//!
//! Compared are kind, content, permission bits, owner, device, target, extended attributes, and the modification time of what is no
//! directory: a directory's time changes with every name in it and would name all of them. Links are not compared: a further name
//! shows as added. What neither user nor archive said (`None`) is not a difference, whatever the other side has. Bytes are hashed only
//! where sizes and attributes are equal and no digest is known.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::Overlay;
use super::base::Base;
use super::copy_up::{blocking, without_own};
use super::file::Blobs;
use super::frozen::{FrozenContent, FrozenEntry, NoRows, hash_data, hash_reader};
use super::merged::{Merged, Seen};
use super::plain::{Difference, PathState};
use super::walk::Walk;
use crate::artifact::{Artifact, Kind, ViewMode};
use crate::error::ErrorKind;
use crate::staging::{Content, Node, NodeKey, ORIGIN, TreeNode};
use crate::view::{Context, Defaults, Error, ViewNode};

/// The result of a comparison that reads no bytes.
#[derive(Default)]
struct Found {
    differences: Vec<Difference>,
    /// Files that only their bytes can tell apart: ours and theirs.
    undecided: Vec<(FrozenEntry, FrozenEntry)>,
}

impl Overlay {
    /// How a node differs from upstream (`user.ocifs.state`). Cheap: what was moved or made here and published since may still
    /// count as added until nothing at all is left to publish.
    ///
    /// # Errors
    /// Gone for a node that is not there.
    pub fn state(&self, node: ViewNode) -> Result<PathState, Error> {
        let row = match self.merged().see(node)? {
            Seen::Lower(..) => return Ok(PathState::Clean),
            Seen::Row(row) => row,
        };
        if row.links == 0 {
            return Ok(PathState::Removed);
        }
        if !self.is_edited() {
            return Ok(PathState::Clean);
        }
        match &row.content {
            Content::Tree(tree) => self.state_of_tree(node, &row, tree),
            Content::Data(_) if self.merged().xattrs(node)?.iter().any(|(name, _)| name == ORIGIN) => Ok(PathState::Changed),
            Content::None if node == 0 => Ok(PathState::Clean),
            Content::Data(_) | Content::None => Ok(PathState::Added),
        }
    }

    fn state_of_tree(&self, key: NodeKey, row: &Node, tree: &TreeNode) -> Result<PathState, Error> {
        if self.merged().find(&tree.path)? != Some(key) {
            return Ok(PathState::Added);
        }
        let there = self.artifact(&tree.manifest).and_then(|artifact| {
            let node = artifact.tree.node(tree.node)?;
            let xattrs = artifact.tree.xattrs(tree.node).into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            Some((node, without_own(xattrs)))
        });
        let Some((there, xattrs)) = there else { return Ok(PathState::Changed) };
        let same_time = row.kind == Kind::Directory || row.mtime == there.mtime;
        let same = (row.mode, row.owner) == (there.mode, there.owner) && same_time && without_own(self.merged().xattrs(key)?) == xattrs;
        Ok(if same { PathState::Clean } else { PathState::Changed })
    }

    /// All that differs from what the tag is expected to hold, by path.
    ///
    /// # Errors
    /// Errors of the disk; errors of the registry where bytes must be compared.
    pub async fn differences(self: &Arc<Self>, context: &Context) -> Result<Vec<Difference>, Error> {
        let binding = self.binding();
        let expected = self.fetch_expected().await?;
        let (overlay, defaults) = (Arc::clone(self), context.defaults);
        let found = blocking(move || overlay.compare(expected.as_ref(), &defaults, binding.deleted)).await?;
        let mut differences = found.differences;
        for (mine, theirs) in found.undecided {
            if self.hash(&mine).await? != self.hash(&theirs).await? {
                differences.push(changed(mine, &theirs));
            }
        }
        differences.sort_by(|one, other| order(&one.path, &other.path));
        Ok(differences)
    }

    /// Opens the tree that the tag is expected to hold, where that is not done yet: it was bound to another digest.
    ///
    /// # Errors
    /// Errors of fetching the artifact.
    pub async fn fetch_expected(&self) -> Result<Option<Arc<Artifact>>, Error> {
        let Some(digest) = self.binding().expected else { return Ok(None) };
        if let Some(artifact) = self.artifact(&digest) {
            return Ok(Some(artifact));
        }
        let Blobs { artifacts, repository, strict } = &self.blobs;
        let artifact = artifacts.artifact(repository, &digest, ViewMode::Merged, *strict).await?;
        self.keep_artifact(&artifact);
        Ok(Some(artifact))
    }

    /// SHA-256 of a file's bytes, of which nothing is known.
    async fn hash(self: &Arc<Self>, entry: &FrozenEntry) -> Result<[u8; 32], Error> {
        match &entry.content {
            FrozenContent::None | FrozenContent::Disk => Err(Error::new(ErrorKind::Invalid, "only a regular file has content")),
            FrozenContent::Tree { sha256: Some(known), .. } => Ok(*known),
            FrozenContent::Tree { artifact, node, .. } => hash_reader(self.blobs.open(&artifact.0, *node).await?).await,
            FrozenContent::Data(id) => {
                let data = self.upper().rows().open_data(*id)?;
                hash_data(self, data, self.blobs.clone()).await
            }
        }
    }

    fn compare(&self, expected: Option<&Arc<Artifact>>, defaults: &Defaults, deleted: bool) -> Result<Found, Error> {
        let (base, nothing) = (Base::new(expected.cloned()), Base::new(None));
        let artifacts: HashMap<_, _> = expected.iter().map(|artifact| (artifact.manifest.digest, Arc::clone(artifact))).collect();
        let artifacts = RwLock::new(artifacts);
        let live = if deleted { Merged { rows: &NoRows, base: &nothing } } else { self.merged() };
        let mut live = Walk::new(live, &self.artifacts);
        let mut upstream = Walk::new(Merged { rows: &NoRows, base: &base }, &artifacts);
        // Nodes of one tree have one number on both sides.
        let is_same_tree = !deleted && expected.is_some_and(|artifact| self.binding().under == Some(artifact.manifest.digest));
        let mut found = Found::default();
        let (mut mine, mut theirs) = (live.next()?, upstream.next()?);
        loop {
            let side = match (&mine, &theirs) {
                (Some(mine), Some(theirs)) => order(&mine.path, &theirs.path),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Ok(found),
            };
            let ours = if side == Ordering::Greater { None } else { std::mem::replace(&mut mine, live.next()?) };
            let other = if side == Ordering::Less { None } else { std::mem::replace(&mut theirs, upstream.next()?) };
            match (ours, other) {
                (Some(ours), Some(other)) => {
                    let untouched = is_same_tree && ours.node == other.node && !self.base.is_marked(ours.node);
                    let is_new_root = ours.path.is_empty() && expected.is_none();
                    if !untouched && !is_new_root {
                        found.note(ours, other, defaults);
                    }
                }
                (Some(ours), None) => {
                    found.differences.push(Difference {
                        after: bytes(&ours),
                        path: ours.path,
                        state: PathState::Added,
                        kind: ours.kind,
                        before: None,
                    });
                }
                (None, Some(other)) => {
                    let before = bytes(&other);
                    found.differences.push(Difference {
                        path: other.path,
                        state: PathState::Removed,
                        kind: other.kind,
                        before,
                        after: None,
                    });
                }
                (None, None) => {}
            }
        }
    }
}

impl Found {
    fn note(&mut self, mine: FrozenEntry, theirs: FrozenEntry, defaults: &Defaults) {
        if !is_alike(&mine, &theirs, defaults) {
            self.differences.push(changed(mine, &theirs));
            return;
        }
        match is_same_content(&mine.content, &theirs.content) {
            Some(true) => {}
            Some(false) => self.differences.push(changed(mine, &theirs)),
            None => self.undecided.push((mine, theirs)),
        }
    }
}

fn changed(mine: FrozenEntry, theirs: &FrozenEntry) -> Difference {
    Difference { before: bytes(theirs), after: bytes(&mine), path: mine.path, state: PathState::Changed, kind: mine.kind }
}

fn bytes(entry: &FrozenEntry) -> Option<u64> {
    (entry.kind == Kind::File).then_some(entry.size)
}

/// Whether kind, size and attributes are equal as far as both sides say any.
fn is_alike(mine: &FrozenEntry, theirs: &FrozenEntry, defaults: &Defaults) -> bool {
    let bits = |mode: Option<u32>| mode.unwrap_or(if mine.kind == Kind::Directory { 0o755 } else { 0o644 });
    let owner = theirs.owner.unwrap_or((defaults.uid, defaults.gid));
    let same_mode = mine.kind == Kind::Symlink || mine.mode.is_none() || bits(mine.mode) == bits(theirs.mode);
    let same_time = mine.kind == Kind::Directory || mine.mtime.is_none() || theirs.mtime.is_none() || mine.mtime == theirs.mtime;
    mine.kind == theirs.kind
        && same_mode
        && mine.owner.is_none_or(|mine| mine == owner)
        && same_time
        && mine.size == theirs.size
        && mine.device == theirs.device
        && mine.target == theirs.target
        && mine.xattrs == theirs.xattrs
}

/// Whether two files have the same bytes, as far as that is known without reading them.
fn is_same_content(mine: &FrozenContent, theirs: &FrozenContent) -> Option<bool> {
    match (mine, theirs) {
        (
            FrozenContent::Tree { artifact: one, node: mine, sha256: our_digest },
            FrozenContent::Tree { artifact: other, node: theirs, sha256: their_digest },
        ) => {
            if one == other && mine == theirs {
                return Some(true);
            }
            our_digest.as_ref().zip(their_digest.as_ref()).map(|(one, other)| one == other)
        }
        (FrozenContent::None, FrozenContent::None) => Some(true),
        _ => None,
    }
}

/// The order of a walk: names by their bytes, what is in a directory behind it and before its next neighbour.
fn order(one: &[u8], other: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    one.iter().map(key).cmp(other.iter().map(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_directory_comes_before_a_neighbour_with_a_smaller_letter_than_the_slash() {
        assert_eq!(order(b"a/x", b"a-b"), Ordering::Less);
        assert_eq!(order(b"a", b"a/x"), Ordering::Less);
        assert_eq!(order(b"", b"a"), Ordering::Less);
        assert_eq!(order(b"b", b"a/x"), Ordering::Greater);
    }
}
