//! From a tree to the layers that it becomes, before anything is packed: which entries, in which layer, in which order.
//!
//! Everything here is decided by the tree (and, for an edit, by the tree that it began with) alone: no clock, no machine, no
//! registry. A plan is replayed over the same snapshot when it is packed, so that it keeps no list of entries.

pub(super) mod diff;
pub(super) mod files;
pub(super) mod foreign;
pub(super) mod groups;
pub(super) mod identity;
pub(super) mod parents;
pub(super) mod whole;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use super::snapshot::{Snapshot, Visit, is_within};
use crate::layer::{PackEntry, Packing};
use crate::view::{self, FrozenEntry, Reader};
use groups::Totals;
use identity::Identity;

/// A path in few bytes, for sets of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PathKey([u8; 16]);

impl PathKey {
    pub fn of(path: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(path).into();
        let mut key = [0; 16];
        key.iter_mut().zip(digest).for_each(|(place, byte)| *place = byte);
        Self(key)
    }
}

/// Many paths.
#[derive(Clone, Debug, Default)]
pub(super) struct PathSet(HashSet<PathKey>);

impl PathSet {
    pub fn insert(&mut self, path: &[u8]) -> bool {
        self.0.insert(PathKey::of(path))
    }

    pub fn remove(&mut self, path: &[u8]) {
        self.0.remove(&PathKey::of(path));
    }

    pub fn contains(&self, path: &[u8]) -> bool {
        !self.0.is_empty() && self.0.contains(&PathKey::of(path))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One layer to be packed, or to be found packed already.
#[derive(Clone, Debug)]
pub(super) struct LayerPlan {
    /// Its content.
    pub identity: Identity,
    /// How it is stored.
    pub packing: Packing,
    /// Path of the one file of a raw layer.
    pub title: Option<String>,
    /// Entries of the walk that it takes.
    pub entries: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Entries that follow: further names of its files, whiteouts.
    pub behind: Vec<PackEntry>,
    /// Whether directories of the walk are among them, not only what stands in for such.
    pub has_directories: bool,
}

/// Which entries of the walk go where.
#[derive(Clone, Debug)]
pub(super) enum Selector {
    /// Into groups.
    Groups(Totals),
    /// All into the first layer, further names of a file in their place.
    All,
    /// The same, but only these.
    Chosen(Arc<PathSet>),
    /// Each of these files alone into the layer of that number.
    Each(Arc<HashMap<Vec<u8>, usize>>),
}

/// The layers of a tree.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub selector: Selector,
    pub layers: Vec<LayerPlan>,
}

/// A snapshot without some of its paths.
pub(super) struct Without {
    pub inner: Arc<dyn Snapshot>,
    /// Left out with everything below.
    pub trees: Arc<HashSet<Vec<u8>>>,
    /// Left out alone.
    pub paths: Arc<PathSet>,
}

impl Without {
    /// A snapshot without these trees.
    pub fn trees(inner: Arc<dyn Snapshot>, trees: &Arc<HashSet<Vec<u8>>>) -> Arc<dyn Snapshot> {
        if trees.is_empty() {
            return inner;
        }
        Arc::new(Self { inner, trees: Arc::clone(trees), paths: Arc::default() })
    }
}

#[async_trait]
impl Snapshot for Without {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), view::Error> {
        let mut below: Option<Vec<u8>> = None;
        self.inner.walk(&mut |entry| {
            if below.as_ref().is_some_and(|above| is_within(&entry.path, above)) {
                return Ok(());
            }
            below = self.trees.get(&entry.path).cloned();
            if below.is_some() || self.paths.contains(&entry.path) {
                return Ok(());
            }
            visit(entry)
        })
    }

    async fn sha256(&self, entry: &FrozenEntry) -> Result<[u8; 32], view::Error> {
        self.inner.sha256(entry).await
    }

    async fn open(&self, entry: &FrozenEntry) -> Result<Reader, view::Error> {
        self.inner.open(entry).await
    }

    fn on_disk(&self, path: &[u8]) -> Option<PathBuf> {
        self.inner.on_disk(path)
    }
}
