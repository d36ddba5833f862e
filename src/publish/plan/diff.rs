//! Plans a layer that turns one tree into another: new and changed entries with their parent directories, and whiteouts for removed ones.
//!
//! Names of one file stay together: if one is in the layer, all are, since readers that unpack each layer separately know no other. Parent
//! directories are repeated because some readers would otherwise recreate them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::layers::Plan;
use super::path_set::PathSet;
use super::whole;
use crate::artifact::Kind;
use crate::error::Error;
use crate::layer::{FileKind, LayerIndex, Metadata, PackEntry, Packing};
use crate::path::join;
use crate::path::{is_within, name, order, parent};
use crate::view::snapshot::{Entries, Snapshot};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The effects of earlier edit layers, which this one replaces, on the tree below them.
#[derive(Default)]
pub(in crate::publish) struct Earlier {
    /// Paths that they wrote or removed; whether a directory there must hide what is below.
    touched: HashMap<Vec<u8>, bool>,
}

impl Earlier {
    /// Adds a layer, lowest first.
    pub fn add(&mut self, index: &LayerIndex) {
        for entry in index.entries() {
            let last = name(entry.path);
            let above = parent(entry.path).unwrap_or_default();
            if last == OPAQUE {
                self.touched.insert(above.to_vec(), true);
            } else if let Some(gone) = last.strip_prefix(WHITEOUT) {
                self.touched.insert(join(above, gone), true);
            } else {
                let hides = self.touched.entry(entry.path.to_vec()).or_default();
                *hides = *hides || entry.kind != FileKind::Directory;
            }
        }
    }
}

/// Plans the layer. `changed` are the paths that differ from the tree below, `removed` those only in the tree below.
pub(in crate::publish) async fn plan(
    snapshot: &Arc<dyn Snapshot>,
    changed: &PathSet,
    removed: &[Vec<u8>],
    earlier: &Earlier,
) -> Result<Plan, Error> {
    let linked = linked(snapshot, changed, earlier).await?;
    let mut chosen = PathSet::default();
    let mut above: Vec<Vec<u8>> = Vec::new();
    let mut absent: HashSet<&[u8]> = earlier.touched.keys().map(Vec::as_slice).collect();
    let mut hiding = Vec::new();
    let mut entries = Entries::of(snapshot);
    while let Some(entry) = entries.next().await? {
        above.retain(|above| is_within(&entry.path, above));
        absent.remove(entry.path.as_slice());
        let by_earlier = earlier.touched.get(&entry.path);
        let is_directory = entry.kind == Kind::Directory;
        if changed.contains(&entry.path) || by_earlier.is_some() || !is_directory && entry.links > 1 && linked.contains(&entry.node) {
            for directory in &above {
                chosen.insert(directory);
            }
            chosen.insert(&entry.path);
        }
        if is_directory && by_earlier == Some(&true) {
            hiding.push(join(&entry.path, OPAQUE));
        }
        if is_directory && !entry.path.is_empty() {
            above.push(entry.path);
        }
    }
    let mut gone: Vec<Vec<u8>> = removed.to_vec();
    gone.extend(absent.into_iter().map(<[u8]>::to_vec));
    gone.sort_by(|one, other| order(one, other));
    // Removing a directory, or replacing it by a file, removes everything below it.
    let mut last: Option<Vec<u8>> = None;
    gone.retain(|path| {
        let is_covered = last.as_ref().is_some_and(|last| is_within(path, last));
        if !is_covered {
            last = Some(path.clone());
        }
        !is_covered
    });
    let (marks, parents) = whiteouts(snapshot, gone, hiding).await?;
    parents.iter().for_each(|directory| {
        chosen.insert(directory);
    });
    whole::plan(snapshot, Some(Arc::new(chosen)), Packing::GzipTar, marks).await
}

/// Nodes with several names, at least one of them in the layer.
async fn linked(snapshot: &Arc<dyn Snapshot>, changed: &PathSet, earlier: &Earlier) -> Result<HashSet<u64>, Error> {
    let mut linked = HashSet::new();
    let mut entries = Entries::of(snapshot);
    while let Some(entry) = entries.next().await? {
        let is_linked = entry.links > 1 && entry.kind != Kind::Directory;
        if is_linked && (changed.contains(&entry.path) || earlier.touched.contains_key(&entry.path)) {
            linked.insert(entry.node);
        }
    }
    Ok(linked)
}

/// The whiteouts, and their parent directories, for paths whose parent is still a directory.
async fn whiteouts(
    snapshot: &Arc<dyn Snapshot>,
    gone: Vec<Vec<u8>>,
    hiding: Vec<Vec<u8>>,
) -> Result<(Vec<PackEntry>, HashSet<Vec<u8>>), Error> {
    let mut wanted: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    for path in gone {
        let above = parent(&path).unwrap_or_default().to_vec();
        let mark = join(&above, &[WHITEOUT, name(&path)].concat());
        wanted.entry(above).or_default().push(mark);
    }
    let mut marks = Vec::new();
    let mut parents = HashSet::new();
    let mut entries = Entries::of(snapshot);
    while let Some(entry) = entries.next().await? {
        if entry.kind != Kind::Directory {
            continue;
        }
        if let Some(found) = wanted.remove(&entry.path) {
            marks.extend(found.into_iter().map(mark));
            let mut directory = Some(entry.path.as_slice());
            while let Some(path) = directory.filter(|path| !path.is_empty()) {
                parents.insert(path.to_vec());
                directory = parent(path);
            }
        }
    }
    marks.extend(hiding.into_iter().map(mark));
    marks.sort_by(|one: &PackEntry, other| order(&one.path, &other.path));
    Ok((marks, parents))
}

/// An empty file whose name is the marker.
fn mark(path: Vec<u8>) -> PackEntry {
    PackEntry {
        path,
        kind: FileKind::File,
        metadata: Metadata { mode: Some(0o600), ..Metadata::default() },
        size: 0,
        link: Vec::new(),
        xattrs: Vec::new(),
    }
}
