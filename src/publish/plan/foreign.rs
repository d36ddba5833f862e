//! Layers of an artifact by another tool: which stay as they are, which file of its own is replaced in its place, which go.
//!
//! A layer stays byte for byte if everything that it holds is as it was. A layer that is one file stays one, with its title, media
//! type and annotations, when only the file's content changed. The content of all others is planned anew.

use std::collections::HashMap;
use std::sync::Arc;

use super::identity::{LayerIdentity, archived};
use super::{LayerPlan, PathSet, Plan, Selector};
use crate::artifact::{Artifact, Artifacts, Kind};
use crate::layer::{FileKind, LayerIndex, Packing};
use crate::oci::Repository;
use crate::publish::Error;
use crate::publish::snapshot::{Entries, Snapshot, parent};
use crate::view::FrozenEntry;

/// What becomes of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::publish) enum Fate {
    /// It stays.
    Stays,
    /// It is one file and gets other bytes: its number in the plan of replacements.
    Replaced(usize),
    /// Its content is planned anew, or gone.
    Goes,
    /// It shows nothing (an index, a placeholder).
    Silent,
}

/// The fates of all layers.
pub(in crate::publish) struct Foreign {
    /// By number in the manifest.
    pub fates: Vec<Fate>,
    /// What the layers that stay or are replaced show.
    pub covered: PathSet,
    /// The files whose layers are replaced, and which of them need an index for their attributes.
    pub replaced: Plan,
    pub described: Vec<bool>,
    /// Layers that were unpacked, by number.
    pub archives: Vec<usize>,
}

/// The key under which a survey remembers that a path is still a directory.
pub(in crate::publish) fn directory_key(path: &[u8]) -> Vec<u8> {
    [path, b"/"].concat()
}

/// Decides. `regroups` names the unpacked layers whose content is always planned anew (and found again by what they contain).
pub(in crate::publish) async fn plan(
    (artifacts, repository): (&Artifacts, &Repository),
    base: &Arc<Artifact>,
    snapshot: &Arc<dyn Snapshot>,
    same: &PathSet,
    regroups: impl Fn(usize) -> bool,
) -> Result<Foreign, Error> {
    let layers = base.layers();
    let mut fates = Vec::with_capacity(layers.len());
    let (mut covered, mut archives) = (PathSet::default(), Vec::new());
    let mut wanted: HashMap<Vec<u8>, usize> = HashMap::new();
    for layer in &layers {
        let number = layer.number;
        let index = if layer.unpacked { artifacts.layer_index(repository, base, number, false).await? } else { None };
        fates.push(match (layer.blob, index) {
            (None, _) => Fate::Silent,
            (Some(_), Some(index)) => {
                archives.push(number);
                if !regroups(number) && stays(base, number, &index, same) {
                    cover(base, number, &index, same, &mut covered);
                    Fate::Stays
                } else {
                    Fate::Goes
                }
            }
            (Some(_), None) => match base.file_of(number) {
                Some((path, _)) if same.contains(&path) => {
                    covered.insert(&path);
                    Fate::Stays
                }
                Some((path, _)) => {
                    wanted.insert(path, number);
                    Fate::Goes
                }
                None => Fate::Goes,
            },
        });
    }
    let (replaced, described) = replacements(snapshot, &wanted, &mut fates, &mut covered).await?;
    for layer in layers.iter().filter(|layer| !archives.contains(&layer.number)) {
        if let (Some(Fate::Stays | Fate::Replaced(_)), Some((path, _))) = (fates.get(layer.number), base.file_of(layer.number)) {
            cover_above(&path, same, &mut covered);
        }
    }
    Ok(Foreign { fates, covered, replaced, described, archives })
}

/// Whether everything that a layer holds is as it was, also what other layers hide.
fn stays(base: &Artifact, number: usize, index: &LayerIndex, same: &PathSet) -> bool {
    index.entries().all(|entry| {
        let Some(path) = base.entry_path(number, entry.path) else { return false };
        if entry.kind == FileKind::Directory { same.contains(&directory_key(&path)) } else { same.contains(&path) }
    })
}

/// Remembers what a layer that stays shows.
fn cover(base: &Artifact, number: usize, index: &LayerIndex, same: &PathSet, covered: &mut PathSet) {
    for (entry, shown) in index.entries().zip(base.shown_entries(number, index)) {
        if let (Some(_), Some(path)) = (shown, base.entry_path(number, entry.path))
            && same.contains(&path)
        {
            covered.insert(&path);
        }
    }
}

/// Directories that are there because a file in them has a title need no entry.
fn cover_above(path: &[u8], same: &PathSet, covered: &mut PathSet) {
    let mut above = parent(path);
    while let Some(directory) = above.filter(|directory| !directory.is_empty()) {
        if same.contains(directory) {
            covered.insert(directory);
        }
        above = parent(directory);
    }
}

/// The plan of files that keep a layer of their own.
async fn replacements(
    snapshot: &Arc<dyn Snapshot>,
    wanted: &HashMap<Vec<u8>, usize>,
    fates: &mut [Fate],
    covered: &mut PathSet,
) -> Result<(Plan, Vec<bool>), Error> {
    let (mut files, mut layers, mut described) = (HashMap::new(), Vec::new(), Vec::new());
    if !wanted.is_empty() {
        let mut entries = Entries::of(Arc::clone(snapshot));
        while let Some(entry) = entries.next().await? {
            let Some(number) = wanted.get(&entry.path).filter(|_| entry.kind == Kind::File && entry.links <= 1) else { continue };
            let Some(title) = super::files::title(&entry.path) else { continue };
            let mut identity = LayerIdentity::new(Packing::Raw);
            let sha256 = snapshot.sha256(&entry).await?;
            identity.add(&archived(&entry, None), Some(sha256));
            if let Some(fate) = fates.get_mut(*number) {
                *fate = Fate::Replaced(layers.len());
            }
            covered.insert(&entry.path);
            files.insert(entry.path.clone(), layers.len());
            described.push(says_something(&entry));
            let identity = identity.finish();
            layers.push(LayerPlan {
                identity,
                packing: Packing::Raw,
                title: Some(title),
                entries: 1,
                bytes: entry.size,
                behind: Vec::new(),
                has_directories: false,
            });
        }
    }
    Ok((Plan { selector: Selector::Each(Arc::new(files)), layers }, described))
}

/// Whether a file has attributes that its bytes alone do not have.
pub(in crate::publish) fn says_something(entry: &FrozenEntry) -> bool {
    entry.mode.is_some_and(|mode| mode != 0o644 || entry.kind == Kind::Directory)
        || entry.owner.is_some()
        || entry.mtime.is_some()
        || !entry.xattrs.is_empty()
}
