//! Plans the files dialect: large files alone, everything else in groups.

use std::collections::HashMap;
use std::sync::Arc;

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
/// Bytes of memory for entries of new layers kept for packing; with more, the tree is walked again.
const KEPT: usize = 2 << 20;

/// A layer that is being planned.
#[derive(Clone)]
pub(super) struct Draft {
    identity: LayerIdentity,
    /// Directories named by the walk's entries; packing, which sees no links, names the same.
    named: Named,
    /// Directories named for the links at the end, independent of the rest.
    named_behind: Named,
    plan: LayerPlan,
    /// The entries to pack, unless there are too many or the layer is known.
    kept: Option<Kept>,
}

/// Kept entries, and the memory they take.
#[derive(Clone, Default)]
struct Kept {
    entries: Vec<TreeEntry>,
    bytes: usize,
}

impl Kept {
    fn push(&mut self, entry: TreeEntry) {
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len() + size_of::<(Vec<u8>, Vec<u8>)>()).sum();
        self.bytes += size_of::<TreeEntry>() + entry.path.len() + entry.target.len() + xattrs;
        self.entries.push(entry);
    }
}

impl Draft {
    fn new(packing: Packing, title: Option<String>) -> Self {
        let plan =
            LayerPlan { identity: [0; 32], packing, title, entries: 0, bytes: 0, behind: Vec::new(), has_directories: false, kept: None };
        let identity = LayerIdentity::new(packing);
        Self { identity, named: Named::default(), named_behind: Named::default(), plan, kept: Some(Kept::default()) }
    }

    /// A layer for one entry.
    fn alone(packing: Packing, title: Option<String>, entry: &TreeEntry, above: &Above) -> Self {
        let mut layer = Self::new(packing, title);
        layer.add(entry, above);
        layer
    }

    /// The preferred layer of a large file, and whether it is settled: a raw one, if the file is plain and its path is a valid title, is not unless it
    /// is known.
    pub fn preferred(entry: &TreeEntry, above: &Above, is_known: impl Fn(&Identity) -> bool) -> (Self, bool) {
        let is_plain = entry.metadata.mode.is_none_or(|mode| mode == 0o644) && entry.xattrs.is_empty() && entry.links <= 1;
        let Some(title) = title(&entry.path).filter(|_| is_plain) else {
            return (Self::alone(Packing::GzipTar, None, entry, above), true);
        };
        let raw = Self::alone(Packing::Raw, Some(title), entry, above);
        let is_settled = is_known(&raw.identity.clone().finish());
        (raw, is_settled)
    }

    /// Adds an entry of the walk, after its parent directories. Returns how many bytes of entries it keeps more.
    fn add(&mut self, entry: &TreeEntry, above: &Above) -> usize {
        let missing = if self.plan.packing == Packing::Raw { Vec::new() } else { self.named.missing(above, entry) };
        for directory in &missing {
            self.identity.add(&archived(directory, None), None);
        }
        let archived = archived(entry, None);
        self.identity.add(&archived, entry.sha256);
        self.plan.entries += 1;
        self.plan.bytes = self.plan.bytes.saturating_add(archived.size);
        self.plan.has_directories |= entry.kind == Kind::Directory;
        let Some(kept) = &mut self.kept else { return 0 };
        let before = kept.bytes;
        missing.into_iter().chain([entry.clone()]).for_each(|entry| kept.push(entry));
        kept.bytes - before
    }

    /// Drops the kept entries; returns their bytes.
    fn drop_kept(&mut self) -> usize {
        self.kept.take().map_or(0, |kept| kept.bytes)
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
        self.plan.kept = self.kept.map(|kept| kept.entries.into());
        self.plan
    }
}

/// Plans the layers of a tree with these totals. `is_known` tells layers that need no packing.
pub(in crate::publish) async fn plan(
    snapshot: &Arc<dyn Snapshot>,
    totals: Totals,
    is_known: impl Fn(&Identity) -> bool,
) -> Result<Plan, Error> {
    let mut planner = Planner::new(&totals);
    let mut hashed = hashed(snapshot, |_| true);
    while let Some(entry) = hashed.next().await? {
        match planner.place(&entry) {
            Placement::Alone(_) => planner.push(alone(&**snapshot, &entry, &planner.above, &is_known).await?),
            placement => planner.add(&placement, &entry, &is_known),
        }
    }
    Ok(planner.finish(totals))
}

/// Plans layers entry by entry.
pub(super) struct Planner {
    assigner: Assigner,
    above: Above,
    drafts: Drafts,
}

impl Planner {
    pub fn new(totals: &Totals) -> Self {
        let drafts = Drafts { layers: Vec::new(), open: HashMap::new(), kept: 0, keeps: true };
        Self { assigner: Assigner::new(totals), above: Above::default(), drafts }
    }

    /// Places the next entry, which is then added, or pushed as a layer of its own.
    pub fn place(&mut self, entry: &TreeEntry) -> Placement {
        self.above.step(entry);
        self.assigner.place(entry)
    }

    /// The parents of the entry placed last.
    pub fn above(&self) -> &Above {
        &self.above
    }

    /// Adds the entry placed last to a layer with others.
    pub fn add(&mut self, placement: &Placement, entry: &TreeEntry, is_known: impl Fn(&Identity) -> bool) {
        match placement {
            Placement::Link { group, first } => {
                if let Some(layer) = self.drafts.layers.get_mut(*group as usize) {
                    layer.add_link(entry, first, &self.above);
                }
            }
            Placement::Alone(group) | Placement::Group(group) => self.drafts.add(*group as usize, entry, &self.above, is_known),
        }
    }

    /// Adds the entry placed last as a layer of its own.
    pub fn push(&mut self, layer: Draft) {
        self.drafts.push(layer);
    }

    /// The plan of a tree with these totals.
    pub fn finish(self, totals: Totals) -> Plan {
        Plan { selector: Selector::Groups(totals), layers: self.drafts.layers.into_iter().map(Draft::finish).collect() }
    }
}

/// Whether only the time is known of the tag's own directory: it is not archived then.
pub(in crate::publish) fn is_silent(root: &TreeEntry) -> bool {
    root.metadata.mode.is_none() && root.metadata.owner.is_none() && root.xattrs.is_empty()
}

/// The layers planned so far.
struct Drafts {
    layers: Vec<Draft>,
    /// The open group of directories (`true`) and of everything else.
    open: HashMap<bool, usize>,
    /// Bytes of entries kept for packing.
    kept: usize,
    /// False once there were too many.
    keeps: bool,
}

impl Drafts {
    /// Adds an entry to a group; the number of a new one is the next. The entries of the group before it are kept only if it has to be packed.
    fn add(&mut self, group: usize, entry: &TreeEntry, above: &Above, is_known: impl Fn(&Identity) -> bool) {
        if group >= self.layers.len() {
            let closed = self.open.insert(entry.kind == Kind::Directory, group).and_then(|closed| self.layers.get_mut(closed));
            if let Some(closed) = closed.filter(|closed| closed.kept.is_some() && is_known(&closed.identity.clone().finish())) {
                self.kept -= closed.drop_kept();
            }
            self.push(Draft::new(Packing::GzipTar, None));
        }
        if let Some(layer) = self.layers.get_mut(group) {
            self.kept += layer.add(entry, above);
        }
        self.bound();
    }

    fn push(&mut self, mut layer: Draft) {
        if !self.keeps {
            layer.drop_kept();
        }
        self.kept += layer.kept.as_ref().map_or(0, |kept| kept.bytes);
        self.layers.push(layer);
        self.bound();
    }

    /// Keeps nothing any more if there is too much.
    fn bound(&mut self) {
        if self.kept > KEPT {
            self.layers.iter_mut().for_each(|layer| layer.kept = None);
            (self.kept, self.keeps) = (0, false);
        }
    }
}

/// The layer of a large file. It is stored raw if it is a plain file whose path is a valid title and whose bytes gain nothing from compression. A known
/// layer settles that without reading the file, which may not be on this machine.
async fn alone(snapshot: &dyn Snapshot, entry: &TreeEntry, above: &Above, is_known: impl Fn(&Identity) -> bool) -> Result<Draft, Error> {
    let (preferred, is_settled) = Draft::preferred(entry, above, &is_known);
    if is_settled {
        return Ok(preferred);
    }
    let archive = Draft::alone(Packing::GzipTar, None, entry, above);
    let is_archived = is_known(&archive.identity.clone().finish()) || compresses(snapshot, entry).await?;
    Ok(if is_archived { archive } else { preferred })
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
