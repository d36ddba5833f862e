//! One artifact as a tree, with the blobs that it reads from.

use std::sync::Arc;

use super::dialect::{Dialect, Step};
use super::tree::Tree;
use crate::content::BlobSource;
use crate::oci::{Digest, Manifest, Platform};

/// One artifact as a tree: what a view shows. Immutable.
pub struct Artifact {
    /// The manifest that the tag or digest names.
    pub manifest: Arc<Manifest>,
    /// The image manifest that is shown: the same, or the platform's member of an index.
    pub shown: Arc<Manifest>,
    /// The rule.
    pub dialect: Dialect,
    /// The platform that was chosen from an index.
    pub platform: Option<Platform>,
    /// Names and nodes.
    pub tree: Tree,
    pub(super) sources: Arc<[BlobSource]>,
    /// How each of them is shown.
    pub(super) steps: Arc<[Step]>,
    /// Those of the sources that are manifests and no blobs.
    pub(super) manifests: Vec<Digest>,
}

impl Artifact {
    /// The blob that a number of [`Content`](super::Content) stands for.
    pub fn source(&self, blob: u32) -> Option<&BlobSource> {
        self.sources.get(blob as usize)
    }

    /// All blobs that the tree reads from.
    pub fn sources(&self) -> &[BlobSource] {
        &self.sources
    }
}
