//! What a publish of this program tells, and asks for beside trees: tags that it moved, layers that it packed, keys.

use std::sync::Arc;

use super::{Artifacts, Error};
use crate::content::BlobSource;
use crate::layer::LayerIndex;
use crate::oci::{Digest, Manifest, Repository, Tag};
use crate::seal::EnvelopeKey;

impl Artifacts {
    /// Notes that a tag was moved to a manifest by this program: what follows is answered by it, whatever was asked
    /// before.
    pub fn published(&self, repository: &Repository, tag: &Tag, manifest: Arc<Manifest>) {
        self.inner.known.published(repository, tag, manifest);
    }

    /// Notes that a tag was deleted by this program.
    pub fn deleted(&self, repository: &Repository, tag: &Tag) {
        self.inner.known.deleted(repository, tag);
    }

    /// Notes a manifest that this program sent, whatever names it.
    pub fn learned_manifest(&self, repository: &Repository, manifest: Arc<Manifest>) {
        self.inner.known.learned_manifest(repository, manifest);
    }

    /// Keeps the index of a layer that was packed here, so that the tree of its artifact is built without fetching
    /// anything; `travelling` is the digest of the blob that the index travels as.
    pub async fn adopt(&self, index: &LayerIndex, travelling: Option<&Digest>) {
        let (contents, index, travelling) = (self.inner.contents.clone(), index.clone(), travelling.copied());
        // A failure costs a fetch later, and is in the log.
        let _ = tokio::task::spawn_blocking(move || contents.adopt(&index, travelling.as_ref())).await;
    }

    /// The key for a new oci-sync envelope: from the passphrase that opens `source`, else from the first one there is;
    /// `None` if none was given.
    ///
    /// # Errors
    /// KeyMissing and KeyWrong; what the registry answers, if the source was never opened here.
    pub async fn seal_key(&self, source: Option<&BlobSource>, salt: &[u8; 32]) -> Result<Option<EnvelopeKey>, Error> {
        self.inner.contents.seal_key(source, *salt).await.map_err(|error| match source {
            Some(source) => Error::of_blob("a layer", &source.descriptor, error),
            None => Error { kind: error.kind, message: error.message },
        })
    }
}
