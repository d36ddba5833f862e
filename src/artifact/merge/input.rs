//! Input of a merge: entries of layers, raw files, and where they are put.

use crate::layer::{Entry, Extent, FileKind, LayerIndex};

/// The entries of a layer: its index, or plain values in tests.
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

/// A blob that is shown as one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::artifact) struct RawFile {
    /// Claimed size.
    pub size: u64,
    /// SHA-256, unless the digest is of another algorithm.
    pub sha256: Option<[u8; 32]>,
    /// Permission bits, where the manifest has them.
    pub mode: Option<u32>,
    /// Owner and group, where the manifest has them.
    pub owner: Option<(u32, u32)>,
    /// Time, where the manifest has one.
    pub mtime: Option<(i64, u32)>,
    /// The title as the manifest has it.
    pub title: Option<String>,
    /// Extended attributes, where its index has some.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl RawFile {
    /// Takes the attributes of the one entry of its index. An index that does not say just that says nothing.
    pub fn describe(&mut self, index: &dyn Entries) {
        let Some(entry) = index.entry(0).filter(|_| index.entry_count() == 1) else { return };
        if entry.kind != FileKind::File || entry.size != self.size {
            return;
        }
        self.mode = Some(entry.metadata.mode);
        self.owner = Some(entry.metadata.owner);
        self.mtime = Some(entry.metadata.mtime);
        self.xattrs = index.xattrs(0).into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    }
}

/// Something that describes nodes. The position of a source is the number of its blob.
pub(in crate::artifact) enum MergeSource<'a> {
    /// Entries of a layer.
    Layer {
        /// The entries.
        entries: &'a dyn Entries,
        /// Whether directories that no entry describes belong to root, as every unpacker of images makes them,
        /// instead of the owner of the entry below.
        image: bool,
    },
    /// One file.
    Raw(&'a RawFile),
    /// Nothing: the defaults of the mount apply.
    Bare,
}

/// How the entries of one layer are placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::artifact) struct Placing {
    /// Directory of the tree that the layer's root becomes; empty for the root.
    pub at: Vec<u8>,
    /// A prefix that is stripped from entry paths; an entry that begins otherwise keeps its path.
    pub strip: Vec<u8>,
    /// Whether whiteouts and opaque marks act; otherwise they are ordinary names.
    pub whiteouts: bool,
    /// Whether the files that eStargz adds to the root are left out.
    pub estargz: bool,
}
