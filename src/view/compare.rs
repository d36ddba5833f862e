//! Compares two trees in one walk. `diff` lists the result, `status` counts it, and a publish sends it.
//!
//! Compares kind, permission bits, owner, times, device, target, extended attributes and bytes. An attribute never set here
//! equals any upstream value. Bytes are compared by SHA-256, computed only if the sizes agree and it is unknown.
//!
//! Hard links: among the names that both trees have, a file must have the same first name on both sides. So an extra name only counts as
//! added, a missing name only as removed, and names that were linked or split as changed. A file
//! that differs counts at each of its names.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use super::snapshot::{FirstNames, Hashed, Nothing, Snapshot, hashed};
use super::{EntryContent, TreeEntry, ViewNode};
use crate::artifact::Kind;
use crate::error::Error;
use crate::path::order;

/// The entries of two trees at one path; at least one exists.
pub struct Pair {
    /// In the newer tree.
    pub new: Option<TreeEntry>,
    /// In the older tree.
    pub old: Option<TreeEntry>,
}

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Equal.
    Same,
    /// A directory that differs only in its time, which changes with every name in it.
    DirectoryTime,
    /// Only the newer tree has it.
    Added,
    /// Both trees have it, with different content or attributes.
    Changed,
    /// Only the older tree has it.
    Removed,
}

/// Two trees side by side.
pub struct Pairs {
    new: Hashed,
    old: Hashed,
    next: (Option<TreeEntry>, Option<TreeEntry>),
}

impl Pairs {
    /// Starts at the root.
    pub fn new(new: &Arc<dyn Snapshot>, old: &Arc<dyn Snapshot>) -> Self {
        Self::hashed(new, old, |_| false)
    }

    fn hashed(new: &Arc<dyn Snapshot>, old: &Arc<dyn Snapshot>, hash: impl Fn(&TreeEntry) -> bool + Send + 'static) -> Self {
        Self { new: hashed(new, hash), old: hashed(old, |_| false), next: (None, None) }
    }

    /// The next path, in the order of a walk.
    ///
    /// # Errors
    /// Those of either walk.
    pub async fn next(&mut self) -> Result<Option<Pair>, Error> {
        if self.next.0.is_none() {
            self.next.0 = self.new.next().await?;
        }
        if self.next.1.is_none() {
            self.next.1 = self.old.next().await?;
        }
        let ordering = match &self.next {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(new), Some(old)) => order(&new.path, &old.path),
        };
        let new = if ordering == Ordering::Greater { None } else { self.next.0.take() };
        let old = if ordering == Ordering::Less { None } else { self.next.1.take() };
        Ok(Some(Pair { new, old }))
    }
}

/// How two trees differ, path by path.
pub struct Comparison {
    pairs: Pairs,
    snapshots: (Arc<dyn Snapshot>, Arc<dyn Snapshot>),
    /// First names among those in both trees.
    names: (FirstNames, FirstNames),
    /// Files with several names whose bytes differ, as found at the first name.
    other_bytes: HashSet<ViewNode>,
}

impl Comparison {
    /// Compares a tree with an older one (`None` for a tag that does not exist yet). `hash` selects entries of the newer tree whose SHA-256 is
    /// wanted even if the comparison does not need it.
    pub fn new(new: &Arc<dyn Snapshot>, old: Option<&Arc<dyn Snapshot>>, hash: impl Fn(&TreeEntry) -> bool + Send + 'static) -> Self {
        let old = old.cloned().unwrap_or_else(|| Arc::new(Nothing));
        Self {
            pairs: Pairs::hashed(new, &old, hash),
            snapshots: (Arc::clone(new), old),
            names: Default::default(),
            other_bytes: HashSet::new(),
        }
    }

    /// The next path, in the order of a walk.
    ///
    /// # Errors
    /// Those of either walk, and of reading bytes.
    pub async fn next(&mut self) -> Result<Option<(Pair, Verdict)>, Error> {
        let Some(pair) = self.pairs.next().await? else { return Ok(None) };
        let verdict = match (&pair.new, &pair.old) {
            (Some(new), Some(old)) => self.verdict(new, old).await?,
            (Some(_), None) => Verdict::Added,
            (None, _) => Verdict::Removed,
        };
        Ok(Some((pair, verdict)))
    }

    async fn verdict(&mut self, new: &TreeEntry, old: &TreeEntry) -> Result<Verdict, Error> {
        let (first, old_first) = (self.names.0.of(new), self.names.1.of(old));
        if first != old_first || !same_attributes(new, old) || self.other_bytes.contains(&new.node) {
            return Ok(Verdict::Changed);
        }
        if first.is_none() && !same_bytes((&*self.snapshots.0, new), (&*self.snapshots.1, old)).await? {
            if new.is_linked() {
                self.other_bytes.insert(new.node);
            }
            return Ok(Verdict::Changed);
        }
        Ok(match new.metadata.mtime {
            Some(time) if old.metadata.mtime != Some(time) && new.kind == Kind::Directory => Verdict::DirectoryTime,
            Some(time) if old.metadata.mtime != Some(time) => Verdict::Changed,
            _ => Verdict::Same,
        })
    }
}

/// Whether two entries have the same kind, attributes and bytes; times and names are ignored. Each side reads its own.
///
/// # Errors
/// Those of reading bytes.
pub async fn agree(new: (&dyn Snapshot, &TreeEntry), old: (&dyn Snapshot, &TreeEntry)) -> Result<bool, Error> {
    Ok(same_attributes(new.1, old.1) && same_bytes(new, old).await?)
}

/// Whether two entries of equal size have the same bytes.
async fn same_bytes(new: (&dyn Snapshot, &TreeEntry), old: (&dyn Snapshot, &TreeEntry)) -> Result<bool, Error> {
    if new.1.kind != Kind::File || new.1.size == 0 {
        return Ok(true);
    }
    if let (EntryContent::Tree(one, node), EntryContent::Tree(other, other_node)) = (&new.1.content, &old.1.content)
        && (one.manifest.digest, node) == (other.manifest.digest, other_node)
    {
        return Ok(true);
    }
    Ok(sha256(new).await? == sha256(old).await?)
}

async fn sha256((snapshot, entry): (&dyn Snapshot, &TreeEntry)) -> Result<[u8; 32], Error> {
    match entry.sha256 {
        Some(known) => Ok(known),
        None => snapshot.sha256(entry).await,
    }
}

/// Whether all but times, names and bytes agree.
fn same_attributes(new: &TreeEntry, old: &TreeEntry) -> bool {
    let (set, upstream) = (new.metadata, old.metadata);
    new.kind == old.kind
        && (set.mode.is_none() || set.mode == upstream.mode || new.kind == Kind::Symlink)
        && (set.owner.is_none() || set.owner == upstream.owner)
        && new.xattrs == old.xattrs
        && match new.kind {
            Kind::File => new.size == old.size,
            Kind::Symlink => new.target == old.target,
            Kind::CharDevice | Kind::BlockDevice => set.device == upstream.device,
            Kind::Directory | Kind::Fifo | Kind::Socket => true,
        }
}
