//! Which file of a tree comes from which layer, for planning a manifest that keeps layers unchanged.

use super::dialect::{Shape, Step};
use super::error::of_blob;
use super::merge::{Mark, Placing, find_directory, mark, place_of};
use super::tree::{Kind, NodeId};
use super::{Artifact, Artifacts};
use crate::content::{BlobSource, LARGEST_INDEX};
use crate::error::Error;
use crate::layer::{Entry, FileKind, Form, LayerIndex};
use crate::oci::{Descriptor, Repository};
use crate::path::split;

/// A layer of the shown manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactLayer {
    /// Its position in the manifest.
    pub number: usize,
    /// Its descriptor in the manifest.
    pub descriptor: Descriptor,
    /// The blob that the manifest names as its index.
    pub index: Option<Descriptor>,
    /// Its number in [`super::Content`]; `None` if nothing of it is shown.
    pub blob: Option<u32>,
    /// Whether its entries are shown, rather than the blob as a file.
    pub unpacked: bool,
}

impl Artifact {
    /// The layers of the shown manifest, including index layers and others that are not shown. Empty for an index without a matching platform.
    pub fn layers(&self) -> Vec<ArtifactLayer> {
        let Some(image) = self.shown.image() else { return Vec::new() };
        let mut steps = self.steps.iter().zip(self.sources.iter()).zip(0_u32..).filter(|((step, _), _)| !step.is_manifest).peekable();
        let layer = |(number, descriptor): (usize, &Descriptor)| {
            let shown = steps.next_if(|((step, _), _)| step.descriptor == *descriptor);
            ArtifactLayer {
                number,
                descriptor: descriptor.clone(),
                index: super::attached_index::index_of(&image.layers, number),
                blob: shown.map(|(_, blob)| blob),
                unpacked: shown.is_some_and(|((_, source), _)| source.form == Form::Archive),
            }
        };
        image.layers.iter().enumerate().map(layer).collect()
    }

    fn step_of(&self, number: usize) -> Option<(&Step, u32)> {
        let blob = self.layers().get(number)?.blob?;
        Some((self.steps.get(blob as usize)?, blob))
    }

    /// The tree path of a path in an unpacked layer.
    pub fn entry_path(&self, number: usize, path: &[u8]) -> Option<Vec<u8>> {
        match &self.step_of(number)?.0.shape {
            Shape::Archive { placing, .. } => Some(place_of(placing, path)),
            Shape::File(_) => None,
        }
    }

    /// The path and node of a layer that is not unpacked.
    pub fn file_of(&self, number: usize) -> Option<(Vec<u8>, NodeId)> {
        let (step, blob) = self.step_of(number)?;
        let (Shape::File(wanted) | Shape::Archive { instead: Some(wanted), .. }) = &step.shape else { return None };
        // The fourth choice is the first with a number, and no two blobs have the same digest.
        let places = wanted.title.places(&wanted.base, &step.descriptor.digest).take(4);
        let mut found = places.filter_map(|path| self.tree.find(&path).map(|node| (path, node)));
        found.find(|(_, node)| self.tree.content(*node).is_some_and(|content| content.blob == blob))
    }

    /// For each entry of a layer, the node that shows exactly this entry at its path; `None` if another layer hides, replaces or redefines it, and for
    /// whiteouts.
    pub fn shown_entries(&self, number: usize, index: &LayerIndex) -> Vec<Option<NodeId>> {
        let Some((step, blob)) = self.step_of(number) else { return vec![None; index.entry_count() as usize] };
        match &step.shape {
            Shape::Archive { placing, .. } => index.entries().map(|entry| self.shown_entry(placing, blob, index, &entry)).collect(),
            Shape::File(_) => index.entries().map(|_| self.file_of(number).map(|(_, node)| node)).collect(),
        }
    }

    fn shown_entry(&self, placing: &Placing, blob: u32, index: &LayerIndex, entry: &Entry<'_>) -> Option<NodeId> {
        if placing.whiteouts && mark(entry.path) != Mark::None {
            return None;
        }
        let node = self.lookup_entry(placing, entry.path)?;
        if entry.kind == FileKind::HardLink {
            return (self.lookup_entry(placing, entry.link) == Some(node)).then_some(node);
        }
        self.matches(node, blob, index, entry).then_some(node)
    }

    /// The node at a path of a layer, which may pass through links of the layer. Anything else found through a link that later replaced a directory has
    /// other content.
    fn lookup_entry(&self, placing: &Placing, path: &[u8]) -> Option<NodeId> {
        let path = place_of(placing, path);
        self.tree.find(&path).or_else(|| {
            let (above, name) = split(&path);
            let directory = find_directory(&self.tree, above, placing, |_| true)?;
            self.tree.lookup(directory, name)
        })
    }

    /// Whether a node has the attributes and content of an entry.
    fn matches(&self, number: NodeId, blob: u32, index: &LayerIndex, entry: &Entry<'_>) -> bool {
        let Some(node) = self.tree.node(number) else { return false };
        let ours = |name: &[u8]| name.starts_with(b"user.oci.") || name.starts_with(b"user.ocifs.");
        let xattrs = index.xattrs(entry.number).into_iter().filter(|(name, _)| !ours(name));
        if node.metadata != entry.metadata || !self.tree.xattrs(number).into_iter().eq(xattrs) {
            return false;
        }
        match (node.kind, entry.kind) {
            (Kind::File, FileKind::File) => {
                let extents = index.extents(entry.number);
                node.size == entry.size
                    && self.tree.content(number).is_some_and(|content| content.blob == blob && content.extents == extents)
            }
            (Kind::Symlink, FileKind::Symlink) => self.tree.target(number) == Some(entry.link),
            (Kind::Directory, FileKind::Directory)
            | (Kind::CharDevice, FileKind::CharDevice)
            | (Kind::BlockDevice, FileKind::BlockDevice)
            | (Kind::Fifo, FileKind::Fifo)
            | (Kind::Socket, FileKind::Socket) => true,
            _ => false,
        }
    }
}

impl Artifacts {
    /// Largest attached index that is read, in bytes.
    pub const LARGEST_INDEX: u64 = LARGEST_INDEX;

    /// The index of a layer, built here from all of its bytes, whatever guide it has.
    ///
    /// # Errors
    /// Errors of the registry; Integrity and Unsupported if the layer is no readable archive.
    pub async fn own_index(&self, source: &BlobSource) -> Result<LayerIndex, Error> {
        let source = BlobSource { guide: None, ..source.clone() };
        self.inner.contents.index(&source).await.map_err(|error| of_blob("a layer", &source.descriptor, error))
    }

    /// The index that a layer's guide gives; `None` without a usable guide.
    ///
    /// # Errors
    /// Those of a registry that could not be reached.
    pub async fn guide_index(&self, source: &BlobSource) -> Result<Option<LayerIndex>, Error> {
        self.inner.contents.attached_index(source).await.map_err(|error| of_blob("a layer", &source.descriptor, error))
    }

    /// The index of an artifact's layer, by position in the manifest: always for an unpacked layer, for a file only if one is attached.
    ///
    /// # Errors
    /// Errors of the registry, if the index has to be fetched or built.
    pub async fn layer_index(
        &self,
        repository: &Repository,
        artifact: &Artifact,
        number: usize,
        strict: bool,
    ) -> Result<Option<LayerIndex>, Error> {
        let Some((step, blob)) = artifact.step_of(number) else { return Ok(None) };
        let Some(source) = artifact.source(blob) else { return Ok(None) };
        let mut source = source.clone();
        source.repository = repository.clone();
        source.strict = strict || self.inner.registry_cache.options.strict;
        let index = match (&step.shape, source.form) {
            (Shape::Archive { .. }, Form::Archive) => self.inner.contents.index(&source).await.map(Some),
            _ => self.inner.contents.attached_index(&source).await,
        };
        index.map_err(|error| of_blob("a layer", &source.descriptor, error))
    }
}
