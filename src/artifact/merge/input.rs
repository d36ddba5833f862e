//! Input of a merge: entries of layers, raw files, and where to put them.

use crate::layer::{Entry, Extent, FileKind, LayerIndex, Metadata, Xattrs, owned_xattrs};

/// The entries of a layer: from its index, or plain values in tests.
pub(in crate::artifact) trait Entries: Send + Sync {
    /// Number of entries.
    fn entry_count(&self) -> u32;
    /// An entry by number.
    fn entry(&self, number: u32) -> Option<Entry<'_>>;
    /// Pieces of a file.
    fn extents(&self, number: u32) -> Vec<Extent>;
    /// Extended attributes.
    fn xattrs(&self, number: u32) -> Vec<(&[u8], &[u8])>;
}

impl Entries for LayerIndex {
    fn entry_count(&self) -> u32 {
        Self::entry_count(self)
    }
    fn entry(&self, number: u32) -> Option<Entry<'_>> {
        Self::entry(self, number)
    }
    fn extents(&self, number: u32) -> Vec<Extent> {
        Self::extents(self, number)
    }
    fn xattrs(&self, number: u32) -> Vec<(&[u8], &[u8])> {
        Self::xattrs(self, number)
    }
}

/// The entries of a layer as an artifact shows them.
pub(in crate::artifact) struct Shown<'a> {
    /// The index.
    pub index: &'a LayerIndex,
    /// Whether its author is a stranger, whose digests of files prove nothing.
    pub is_referred: bool,
}

impl Entries for Shown<'_> {
    fn entry_count(&self) -> u32 {
        self.index.entry_count()
    }
    fn entry(&self, number: u32) -> Option<Entry<'_>> {
        let entry = self.index.entry(number)?;
        Some(Entry { sha256: entry.sha256.filter(|_| !self.is_referred), ..entry })
    }
    fn extents(&self, number: u32) -> Vec<Extent> {
        self.index.extents(number)
    }
    fn xattrs(&self, number: u32) -> Vec<(&[u8], &[u8])> {
        self.index.xattrs(number)
    }
}

/// A blob shown as a single file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::artifact) struct RawFile {
    /// Claimed size.
    pub size: u64,
    /// SHA-256, unless the digest uses another algorithm.
    pub sha256: Option<[u8; 32]>,
    /// Attributes, if the manifest or its index has any.
    pub metadata: Metadata,
    /// The title in the manifest.
    pub title: Option<String>,
    /// Extended attributes, if its index has any.
    pub xattrs: Xattrs,
}

impl RawFile {
    /// Takes the attributes of the single entry in its index. Any other index is ignored.
    pub fn describe(&mut self, index: &dyn Entries) {
        let Some(entry) = index.entry(0).filter(|_| index.entry_count() == 1) else { return };
        if entry.kind != FileKind::File || entry.size != self.size {
            return;
        }
        self.metadata = entry.metadata;
        self.xattrs = owned_xattrs(index.xattrs(0));
    }
}

/// A source of nodes. Its position is the number of its blob.
pub(in crate::artifact) enum MergeSource<'a> {
    /// Entries of a layer.
    Layer {
        /// The entries.
        entries: &'a dyn Entries,
        /// Whether implied directories belong to root, as with all image unpackers, instead of the owner of the entry below.
        image: bool,
    },
    /// One file.
    Raw(&'a RawFile),
    /// No attributes: the mount's defaults apply.
    Bare,
}

/// How to place the entries of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::artifact) struct Placing {
    /// The tree directory for the layer's root; empty for the root.
    pub at: Vec<u8>,
    /// A prefix to strip from entry paths; entries without it keep their path.
    pub strip: Vec<u8>,
    /// Whether whiteouts and opaque markers are applied; otherwise they are ordinary names.
    pub whiteouts: bool,
    /// Whether to skip the files that eStargz adds to the root.
    pub estargz: bool,
}
