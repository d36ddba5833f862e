//! The layers of a tree before they are packed. A plan keeps no list of entries: it is replayed over the same snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use super::groups::Totals;
use super::identity::{Identity, LayerIdentity, archived};
use super::path_set::PathSet;
use crate::layer::{PackEntry, Packing};
use crate::view::TreeEntry;

/// One layer to be packed, or to be found packed already.
#[derive(Clone, Debug)]
pub(in crate::publish) struct LayerPlan {
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
    /// Whether it holds real directories, not only placeholders.
    pub has_directories: bool,
}

impl LayerPlan {
    /// A raw layer of one file.
    pub fn of_file(entry: &TreeEntry, sha256: [u8; 32], title: String) -> Self {
        let mut identity = LayerIdentity::new(Packing::Raw);
        identity.add(&archived(entry, None), Some(sha256));
        Self {
            identity: identity.finish(),
            packing: Packing::Raw,
            title: Some(title),
            entries: 1,
            bytes: entry.size,
            behind: Vec::new(),
            has_directories: false,
        }
    }
}

/// Which entries of the walk go where.
#[derive(Clone, Debug)]
pub(in crate::publish) enum Selector {
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
pub(in crate::publish) struct Plan {
    pub selector: Selector,
    pub layers: Vec<LayerPlan>,
}
