//! Two snapshots compared in one pass: what is new, gone, changed, the same.
//!
//! Attributes that were never set equal any value of the other side. Bytes are compared by SHA-256, which is computed only
//! where sizes agree and it is not known. Never holds more than one entry of each side.

use std::cmp::Ordering;
use std::sync::Arc;

use futures_util::TryStreamExt;

use super::Error;
use super::snapshot::{Entries, FirstNames, Hash, Hashed, Snapshot, hashed, order};
use crate::artifact::Kind;
use crate::view::{FrozenContent, FrozenEntry};

/// How two entries of one path differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Not at all.
    Same,
    /// A directory, only by its time, which changes with whatever happened in it.
    DirectoryTime,
    /// Otherwise.
    Real,
}

/// One path of either side.
pub(super) struct Pair {
    pub new: Option<FrozenEntry>,
    /// SHA-256 of the new one, where known.
    pub sha256: Option<[u8; 32]>,
    pub old: Option<FrozenEntry>,
}

/// Two snapshots, side by side.
pub(super) struct Join {
    new: Hashed,
    old: Option<Entries>,
    next_new: Option<(FrozenEntry, Option<[u8; 32]>)>,
    next_old: Option<FrozenEntry>,
}

impl Join {
    /// `old` is `None` for a tag that does not exist yet.
    pub fn new(new: &Arc<dyn Snapshot>, old: Option<Arc<dyn Snapshot>>) -> Self {
        Self { new: hashed(new, Hash::Local), old: old.map(Entries::of), next_new: None, next_old: None }
    }

    /// The next path.
    pub async fn next(&mut self) -> Result<Option<Pair>, Error> {
        if self.next_new.is_none() {
            self.next_new = self.new.try_next().await?;
        }
        if self.next_old.is_none()
            && let Some(old) = &mut self.old
        {
            self.next_old = old.next().await?;
        }
        let ordering = match (&self.next_new, &self.next_old) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((new, _)), Some(old)) => order(&new.path, &old.path),
        };
        let new = if ordering == Ordering::Greater { None } else { self.next_new.take() };
        let old = if ordering == Ordering::Less { None } else { self.next_old.take() };
        let (new, sha256) = new.map_or((None, None), |(new, sha256)| (Some(new), sha256));
        Ok(Some(Pair { new, sha256, old }))
    }
}

/// Compares entries of one path, given in order.
pub(super) struct Comparer {
    reading: Arc<dyn Snapshot>,
    new_names: FirstNames,
    old_names: FirstNames,
}

impl Comparer {
    /// `reading` computes what digests are missing, of both sides.
    pub fn new(reading: Arc<dyn Snapshot>) -> Self {
        Self { reading, new_names: FirstNames::default(), old_names: FirstNames::default() }
    }

    /// How the two sides of a pair differ; every pair must be shown.
    pub async fn differ(&mut self, pair: &Pair) -> Result<Difference, Error> {
        let new_first = pair.new.as_ref().and_then(|new| self.new_names.of(new));
        let old_first = pair.old.as_ref().and_then(|old| self.old_names.of(old));
        let (Some(new), Some(old)) = (&pair.new, &pair.old) else { return Ok(Difference::Real) };
        if new_first != old_first || !same_attributes(new, old) {
            return Ok(Difference::Real);
        }
        if new_first.is_none() && !same_content(&*self.reading, (new, pair.sha256), old).await? {
            return Ok(Difference::Real);
        }
        Ok(match new.mtime {
            Some(time) if old.mtime != Some(time) && new.kind == Kind::Directory => Difference::DirectoryTime,
            Some(time) if old.mtime != Some(time) => Difference::Real,
            _ => Difference::Same,
        })
    }
}

/// Whether all but times and bytes agree.
pub(super) fn same_attributes(new: &FrozenEntry, old: &FrozenEntry) -> bool {
    let mode = |entry: &FrozenEntry| entry.mode.filter(|_| entry.kind != Kind::Symlink);
    new.kind == old.kind
        && (mode(new).is_none() || mode(new) == mode(old))
        && (new.owner.is_none() || new.owner == old.owner)
        && new.xattrs == old.xattrs
        && match new.kind {
            Kind::File => new.size == old.size,
            Kind::Symlink => new.target == old.target,
            Kind::CharDevice | Kind::BlockDevice => new.device == old.device,
            Kind::Directory | Kind::Fifo | Kind::Socket => true,
        }
}

/// Whether two entries of one size have the same bytes.
pub(super) async fn same_content(
    reading: &dyn Snapshot,
    (new, sha256): (&FrozenEntry, Option<[u8; 32]>),
    old: &FrozenEntry,
) -> Result<bool, Error> {
    if new.kind != Kind::File || new.size == 0 {
        return Ok(true);
    }
    if let (FrozenContent::Tree { artifact: one, node, .. }, FrozenContent::Tree { artifact: other, node: old_node, .. }) =
        (&new.content, &old.content)
        && one.0.manifest.digest == other.0.manifest.digest
        && node == old_node
    {
        return Ok(true);
    }
    let sha256 = match sha256 {
        Some(sha256) => sha256,
        None => reading.sha256(new).await?,
    };
    Ok(sha256 == reading.sha256(old).await?)
}
