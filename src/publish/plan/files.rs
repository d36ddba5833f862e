//! Plans the files dialect: large files alone, everything else in groups.

use std::sync::Arc;

use futures_util::TryStreamExt;

use super::groups::{Assigner, Placement, Totals};
use super::identity::{Identity, LayerIdentity, archived};
use super::layers::{LayerPlan, Plan, Selector};
use super::parents::{Above, Named};
use crate::artifact::Kind;
use crate::error::Error;
use crate::layer::{self, FileKind, Packing};
use crate::view::TreeEntry;
use crate::view::snapshot::{Snapshot, hashed};

/// Longest title that every reader accepts as a path, in bytes.
const TITLE: usize = 4095;

#[derive(Clone)]
struct Draft {
    identity: LayerIdentity,
    /// Directories named by the walk's entries; packing, which sees no links, names the same.
    named: Named,
    /// Directories named for the links at the end, independent of the rest.
    named_behind: Named,
    plan: LayerPlan,
}

impl Draft {
    fn new(packing: Packing, title: Option<String>) -> Self {
        let plan = LayerPlan { identity: [0; 32], packing, title, entries: 0, bytes: 0, behind: Vec::new(), has_directories: false };
        Self { identity: LayerIdentity::new(packing), named: Named::default(), named_behind: Named::default(), plan }
    }

    /// A layer for one entry.
    fn alone(packing: Packing, title: Option<String>, entry: &TreeEntry, above: &Above) -> Self {
        let mut layer = Self::new(packing, title);
        layer.add(entry, above);
        layer
    }

    /// Adds an entry of the walk, after its parent directories.
    fn add(&mut self, entry: &TreeEntry, above: &Above) {
        if self.plan.packing != Packing::Raw {
            for directory in self.named.missing(above, entry) {
                self.identity.add(&archived(&directory, None), None);
            }
        }
        let archived = archived(entry, None);
        self.identity.add(&archived, entry.sha256);
        self.plan.entries += 1;
        self.plan.bytes = self.plan.bytes.saturating_add(archived.size);
        self.plan.has_directories |= entry.kind == Kind::Directory;
    }

    /// Adds a further name of one of its files.
    fn add_link(&mut self, entry: &TreeEntry, first: &[u8], above: &Above) {
        let directories = self.named_behind.missing(above, entry);
        self.plan.behind.extend(directories.iter().map(|directory| archived(directory, None)));
        self.plan.behind.push(archived(entry, Some(first)));
    }

    fn finish(mut self) -> LayerPlan {
        let named = &self.named;
        self.plan.behind.retain(|entry| entry.kind != FileKind::Directory || !named.contains(&entry.path));
        for entry in &self.plan.behind {
            self.identity.add(entry, None);
        }
        self.plan.identity = self.identity.finish();
        self.plan
    }
}

/// Plans the layers of a tree with these totals. `is_known` tells layers that need no packing.
pub(in crate::publish) async fn plan(
    snapshot: &Arc<dyn Snapshot>,
    totals: Totals,
    is_known: impl Fn(&Identity) -> bool,
) -> Result<Plan, Error> {
    let mut assigner = Assigner::new(&totals);
    let mut layers: Vec<Draft> = Vec::new();
    let mut above = Above::default();
    let mut hashed = hashed(snapshot, |_| true);
    while let Some(entry) = hashed.try_next().await? {
        above.step(&entry);
        match assigner.place(&entry) {
            Placement::Link { group, first } => {
                if let Some(layer) = layers.get_mut(group as usize) {
                    layer.add_link(&entry, &first, &above);
                }
            }
            Placement::Alone(_) => layers.push(alone(&**snapshot, &entry, &above, &is_known).await?),
            Placement::Group(group) => {
                if group as usize >= layers.len() {
                    layers.push(Draft::new(Packing::GzipTar, None));
                }
                if let Some(layer) = layers.get_mut(group as usize) {
                    layer.add(&entry, &above);
                }
            }
        }
    }
    Ok(Plan { selector: Selector::Groups(totals), layers: layers.into_iter().map(Draft::finish).collect() })
}

/// The layer of a large file. It is stored raw if it is a plain file whose path is a valid title and whose bytes gain nothing from compression. A known
/// layer settles that without reading the file, which may not be on this machine.
async fn alone(snapshot: &dyn Snapshot, entry: &TreeEntry, above: &Above, is_known: impl Fn(&Identity) -> bool) -> Result<Draft, Error> {
    let archive = Draft::alone(Packing::GzipTar, None, entry, above);
    let is_plain = entry.metadata.mode.is_none_or(|mode| mode == 0o644) && entry.xattrs.is_empty() && entry.links <= 1;
    let Some(title) = title(&entry.path).filter(|_| is_plain) else { return Ok(archive) };
    let raw = Draft::alone(Packing::Raw, Some(title), entry, above);
    for draft in [&raw, &archive] {
        if is_known(&draft.identity.clone().finish()) {
            return Ok(draft.clone());
        }
    }
    Ok(if compresses(snapshot, entry).await? { archive } else { raw })
}

/// Whether a sample of a file says that it is worth compressing.
async fn compresses(snapshot: &dyn Snapshot, entry: &TreeEntry) -> Result<bool, Error> {
    let reader = snapshot.open(entry).await?;
    let mut sample = Vec::new();
    for range in layer::sample_ranges(entry.size) {
        let length = u32::try_from(range.end.saturating_sub(range.start)).unwrap_or(u32::MAX);
        sample.extend_from_slice(&reader.read(range.start, length).await?);
    }
    layer::compressible(&sample)
}

/// A path as a title, if every reader maps it back to that very path.
pub(in crate::publish) fn title(path: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(path).ok()?;
    let is_path = !text.is_empty() && text.len() <= TITLE && !text.contains('\\') && !text.chars().any(char::is_control);
    is_path.then(|| text.to_owned())
}
