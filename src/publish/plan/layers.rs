//! The planned layers of a tree. A plan keeps no list of entries: it is replayed over the same snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use super::groups::Totals;
use super::identity::{Identity, LayerIdentity, archived};
use super::path_set::PathSet;
use crate::layer::{PackEntry, Packing};
use crate::view::TreeEntry;

/// A layer to pack, or to find already packed.
#[derive(Clone, Debug)]
pub(in crate::publish) struct LayerPlan {
    /// Identifies its content.
    pub identity: Identity,
    /// How it is stored.
    pub packing: Packing,
    /// Path of the single file of a raw layer.
    pub title: Option<String>,
    /// Number of entries from the walk.
    pub entries: u64,
    /// Total bytes of their files.
    pub bytes: u64,
    /// Entries after those: further names of its files, whiteouts.
    pub behind: Vec<PackEntry>,
    /// Whether it contains real directories, not only placeholders.
    pub has_directories: bool,
    /// Its entries from the walk and the directories before them, if few enough to keep until it is packed.
    pub kept: Option<Arc<[TreeEntry]>>,
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
            kept: None,
        }
    }
}

/// Assigns entries of the walk to layers.
#[derive(Clone, Debug)]
pub(in crate::publish) enum Selector {
    /// By groups.
    Groups(Totals),
    /// All to the first layer, with further names of a file in their place.
    All,
    /// The same, but only these.
    Chosen(Arc<PathSet>),
    /// Each of these files alone to the layer with that number.
    Each(Arc<HashMap<Vec<u8>, usize>>),
}

/// The layers of a tree.
#[derive(Clone, Debug)]
pub(in crate::publish) struct Plan {
    pub selector: Selector,
    pub layers: Vec<LayerPlan>,
}
