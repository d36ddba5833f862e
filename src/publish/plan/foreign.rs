//! Decides the fate of layers written by another tool: which stay, which single-file layers are replaced, which are dropped.
//!
//! A layer stays byte for byte if all its content is unchanged. A single-file layer stays one, with its title, media type and annotations, if only
//! the file's content changed. The content of all others is replanned. Names of one file stay together, whatever layers they were in.

use std::collections::HashMap;
use std::sync::Arc;

use super::layers::{LayerPlan, Plan, Selector};
use super::path_set::PathSet;
use crate::artifact::{Artifact, ArtifactLayer, Artifacts, Kind};
use crate::error::Error;
use crate::layer::{FileKind, LayerIndex};
use crate::oci::Repository;
use crate::path::name;
use crate::view::snapshot::{Entries, Snapshot};
use crate::view::{TreeEntry, ViewNode};

/// The fate of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::publish) enum Fate {
    /// It stays.
    Stays,
    /// It holds one file, whose bytes change: its number in the plan of replacements.
    Replaced(usize),
    /// It is dropped; its content is replanned or gone.
    Goes,
    /// It has no content (an index, a placeholder).
    Silent,
}

/// The fates of all layers.
pub(in crate::publish) struct Foreign {
    /// By position in the manifest.
    pub fates: Vec<Fate>,
    /// The content of the layers that stay or are replaced.
    pub covered: PathSet,
    /// The files whose layers are replaced, and which of them need an index for their attributes.
    pub replaced: Plan,
    pub described: Vec<bool>,
    /// Positions of layers that were unpacked.
    pub archives: Vec<usize>,
}

/// The key that records in a survey that a path is still a directory.
pub(in crate::publish) fn directory_key(path: &[u8]) -> Vec<u8> {
    [path, b"/"].concat()
}

/// Decides the fates. `regroups` names unpacked layers whose content is always replanned (and found again by content).
pub(in crate::publish) async fn plan(
    (artifacts, repository): (&Artifacts, &Repository),
    base: &Arc<Artifact>,
    snapshot: &Arc<dyn Snapshot>,
    same: &PathSet,
    regroups: impl Fn(usize) -> bool,
) -> Result<Foreign, Error> {
    let layers = base.layers();
    let mut indexes = Vec::with_capacity(layers.len());
    for layer in &layers {
        indexes.push(if layer.unpacked { artifacts.layer_index(repository, base, layer.number, false).await? } else { None });
    }
    let mut same = same.clone();
    let Decided { mut fates, mut covered, archives, wanted } = loop {
        let decided = decide(base, &layers, &indexes, &same, &regroups);
        let split = split(snapshot, &decided.covered).await?;
        if split.is_empty() {
            break decided;
        }
        split.iter().for_each(|path| same.remove(path));
    };
    let (replaced, described) = replacements(snapshot, &wanted, &mut fates, &mut covered).await?;
    for layer in layers.iter().filter(|layer| !archives.contains(&layer.number)) {
        if let (Some(Fate::Stays | Fate::Replaced(_)), Some((path, _))) = (fates.get(layer.number), base.file_of(layer.number)) {
            cover_above(base, &path, &same, &mut covered);
        }
    }
    Ok(Foreign { fates, covered, replaced, described, archives })
}

/// The fate of each layer, and the content of those that stay.
struct Decided {
    fates: Vec<Fate>,
    covered: PathSet,
    archives: Vec<usize>,
    /// Paths of changed single-file layers.
    wanted: HashMap<Vec<u8>, usize>,
}

fn decide(
    base: &Artifact,
    layers: &[ArtifactLayer],
    indexes: &[Option<LayerIndex>],
    same: &PathSet,
    regroups: &impl Fn(usize) -> bool,
) -> Decided {
    let mut decided =
        Decided { fates: Vec::with_capacity(layers.len()), covered: PathSet::default(), archives: Vec::new(), wanted: HashMap::new() };
    for (layer, index) in layers.iter().zip(indexes) {
        let number = layer.number;
        let fate = match (layer.blob, index) {
            (None, _) => Fate::Silent,
            (Some(_), Some(index)) => {
                decided.archives.push(number);
                if !regroups(number) && is_unchanged(base, number, index, same) {
                    cover(base, number, index, same, &mut decided.covered);
                    Fate::Stays
                } else {
                    Fate::Goes
                }
            }
            (Some(_), None) => match base.file_of(number) {
                Some((path, _)) if same.contains(&path) => {
                    decided.covered.insert(&path);
                    Fate::Stays
                }
                Some((path, _)) => {
                    decided.wanted.insert(path, number);
                    Fate::Goes
                }
                None => Fate::Goes,
            },
        };
        decided.fates.push(fate);
    }
    decided
}

/// Covered names whose file has an uncovered one: one layer must hold all names of a file.
async fn split(snapshot: &Arc<dyn Snapshot>, covered: &PathSet) -> Result<Vec<Vec<u8>>, Error> {
    // By node: the covered names, and whether another name is not.
    let mut nodes: HashMap<ViewNode, (Vec<Vec<u8>>, bool)> = HashMap::new();
    let mut entries = Entries::of(snapshot);
    while let Some(entry) = entries.next().await? {
        if entry.links > 1 && entry.kind != Kind::Directory {
            let (names, is_split) = nodes.entry(entry.node).or_default();
            if covered.contains(&entry.path) { names.push(entry.path) } else { *is_split = true }
        }
    }
    Ok(nodes.into_values().filter(|(_, is_split)| *is_split).flat_map(|(names, _)| names).collect())
}

/// Whether all content of a layer is unchanged, including hidden entries.
fn is_unchanged(base: &Artifact, number: usize, index: &LayerIndex, same: &PathSet) -> bool {
    index.entries().all(|entry| {
        let Some(path) = base.entry_path(number, entry.path) else { return false };
        if entry.kind == FileKind::Directory { same.contains(&directory_key(&path)) } else { same.contains(&path) }
    })
}

/// Records the visible content of a layer that stays.
fn cover(base: &Artifact, number: usize, index: &LayerIndex, same: &PathSet, covered: &mut PathSet) {
    for (entry, shown) in index.entries().zip(base.shown_entries(number, index)) {
        if let (Some(_), Some(path)) = (shown, base.entry_path(number, entry.path))
            && same.contains(&path)
        {
            covered.insert(&path);
        }
    }
}

/// Covers directories that exist only because a file in them has a title. Others are described by a layer, which may be dropped.
fn cover_above(base: &Artifact, path: &[u8], same: &PathSet, covered: &mut PathSet) {
    let mut node = 0;
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let directory = path.get(..at).unwrap_or_default();
        let Some(found) = base.tree.lookup(node, name(directory)) else { return };
        node = found;
        // Directories with an entry have permission bits; owner and time may come from the file below.
        let is_silent = base.tree.node(node).is_some_and(|node| node.metadata.mode.is_none());
        if is_silent && base.tree.xattrs(node).is_empty() && same.contains(directory) {
            covered.insert(directory);
        }
    }
}

/// Plans the files that keep their own layers.
async fn replacements(
    snapshot: &Arc<dyn Snapshot>,
    wanted: &HashMap<Vec<u8>, usize>,
    fates: &mut [Fate],
    covered: &mut PathSet,
) -> Result<(Plan, Vec<bool>), Error> {
    let (mut files, mut layers, mut described) = (HashMap::new(), Vec::new(), Vec::new());
    if !wanted.is_empty() {
        let mut entries = Entries::of(snapshot);
        while let Some(entry) = entries.next().await? {
            let Some(number) = wanted.get(&entry.path).filter(|_| entry.kind == Kind::File && entry.links <= 1) else { continue };
            let Some(title) = super::files::title(&entry.path) else { continue };
            let sha256 = snapshot.sha256(&entry).await?;
            if let Some(fate) = fates.get_mut(*number) {
                *fate = Fate::Replaced(layers.len());
            }
            covered.insert(&entry.path);
            files.insert(entry.path.clone(), layers.len());
            described.push(has_attributes(&entry));
            layers.push(LayerPlan::of_file(&entry, sha256, title));
        }
    }
    Ok((Plan { selector: Selector::Each(Arc::new(files)), layers }, described))
}

/// Whether a file has attributes beyond its bytes.
pub(in crate::publish) fn has_attributes(entry: &TreeEntry) -> bool {
    entry.metadata.mode.is_some_and(|mode| mode != 0o644 || entry.kind == Kind::Directory)
        || entry.metadata.owner.is_some()
        || entry.metadata.mtime.is_some()
        || !entry.xattrs.is_empty()
}
