//! What a publish of this program tells, and asks for beside trees: tags that it moved, layers that it packed, keys.

use std::sync::Arc;

use super::{Artifacts, Error};
use crate::content::{BlobSource, Sealing};
use crate::layer::{Form, LayerIndex};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag};
use crate::seal::{EnvelopeHeader, EnvelopeKey};

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

    /// Repositories of which anything was seen by this process, by name; asks nobody.
    pub fn seen_repositories(&self) -> Vec<Repository> {
        self.inner.known.seen_repositories()
    }

    /// Notes a manifest that this program sent, whatever names it.
    pub fn learned_manifest(&self, repository: &Repository, manifest: Arc<Manifest>) {
        self.inner.known.learned_manifest(repository, manifest);
    }

    /// Keeps the index of a layer that was packed here, so that the tree of its artifact is built without fetching
    /// anything; `travelling` is the digest of the blob that the index travels as. Not for what is encrypted.
    pub async fn adopt(&self, index: &LayerIndex, travelling: Option<&Digest>) {
        let (contents, index, travelling) = (self.inner.contents.clone(), index.clone(), travelling.copied());
        // A failure costs a fetch later, and is in the log.
        let _ = tokio::task::spawn_blocking(move || contents.adopt(&index, travelling.as_ref())).await;
    }

    /// The same for an archive that was sealed here in an oci-sync envelope. The index is kept sealed.
    pub async fn adopt_sealed(
        &self,
        repository: &Repository,
        layer: &Descriptor,
        header: EnvelopeHeader,
        key: &EnvelopeKey,
        index: &LayerIndex,
    ) {
        let (repository, descriptor) = (repository.clone(), layer.clone());
        let source = BlobSource { repository, descriptor, form: Form::Archive, sealing: Sealing::OciSync, strict: false, index: None };
        let (contents, key, index) = (self.inner.contents.clone(), key.clone(), index.clone());
        let kept = tokio::task::spawn_blocking(move || contents.adopt_sealed(&source, header, &key, &index)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!("the index of a packed layer is not kept: it is made again when it is needed: {error}");
        }
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
