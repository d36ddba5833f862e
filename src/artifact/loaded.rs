//! A loaded artifact: its tree and the blobs it reads from.

use std::sync::Arc;

use parking_lot::Mutex;

use super::access_order::opens::Opens;
use super::dialect::{self, Dialect, Step};
use super::tracks::SequentialOpens;
use super::tree::Tree;
use crate::content::BlobSource;
use crate::oci::{Digest, Manifest, Platform};

/// A loaded artifact, as shown in a view. Immutable, except that it follows its readers.
pub struct Artifact {
    /// The manifest that the tag or digest refers to.
    pub manifest: Arc<Manifest>,
    /// The shown image manifest: the same one, or the platform's member of an index.
    pub shown: Arc<Manifest>,
    /// The dialect.
    pub dialect: Dialect,
    /// The platform chosen from an index.
    pub platform: Option<Platform>,
    /// Names and nodes.
    pub tree: Tree,
    pub(super) sources: Arc<[BlobSource]>,
    /// How each blob is shown.
    pub(super) steps: Arc<[Step]>,
    /// Sources that are manifests rather than blobs.
    pub(super) manifests: Vec<Digest>,
    /// Locked for the bookkeeping of one open.
    pub(super) raw_tracks: Mutex<SequentialOpens>,
    /// The same for small files in layers.
    pub(super) packed_tracks: Mutex<SequentialOpens>,
    /// The files opened, if their order is to be remembered. Locked for the bookkeeping of one open, or to copy it.
    pub(super) opens: Option<Mutex<Opens>>,
}

impl Artifact {
    /// The blob with a number from [`Content`](super::Content).
    pub fn source(&self, blob: u32) -> Option<&BlobSource> {
        self.sources.get(blob as usize)
    }

    /// Whether its entries, or some of them, are what a referrer says and the manifest does not vouch for.
    pub fn is_referred(&self) -> bool {
        self.sources.iter().any(BlobSource::is_referred)
    }

    /// Whether its files, or some of them, are encrypted.
    pub fn is_encrypted(&self) -> bool {
        dialect::is_encrypted(self.dialect, &self.sources)
    }

    /// All blobs that the tree reads from.
    pub fn sources(&self) -> &[BlobSource] {
        &self.sources
    }
}
