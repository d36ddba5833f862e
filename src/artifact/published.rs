//! The part of the artifacts that a publish uses: tags that it moved, layers that it packed, keys.

use std::collections::HashSet;
use std::sync::Arc;

use super::error::of_blob;
use super::{Artifact, Artifacts};
use crate::blocking::spawn_blocking;
use crate::content::{BlobSource, Lent, Sealing};
use crate::error::Error;
use crate::layer::{Form, LayerIndex};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag};
use crate::registry::Pull;
use crate::seal::{EnvelopeHeader, EnvelopeKey, Passphrase};

/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;

impl Artifacts {
    /// Notes that a tag was moved to a manifest by this program: what follows is answered by it, whatever was asked
    /// before.
    pub fn published(&self, repository: &Repository, tag: &Tag, manifest: Arc<Manifest>) {
        self.inner.registry_cache.published(repository, tag, manifest);
    }

    /// Notes that a tag was deleted by this program.
    pub fn deleted(&self, repository: &Repository, tag: &Tag) {
        self.inner.registry_cache.deleted(repository, tag);
    }

    /// Repositories of which this process has seen anything, by name; makes no request.
    pub fn seen_repositories(&self) -> Vec<Repository> {
        self.inner.registry_cache.seen_repositories()
    }

    /// Notes a manifest that this program sent, whatever names it.
    pub fn learned_manifest(&self, repository: &Repository, manifest: Arc<Manifest>) {
        self.inner.registry_cache.learned_manifest(repository, manifest);
    }

    /// Keeps the index of a layer that was packed here, so that the tree of its artifact is built without fetching
    /// anything; `attached_index` is the digest of the blob of the attached index. Not for what is encrypted.
    pub async fn adopt(&self, index: &LayerIndex, attached_index: Option<&Digest>) {
        let (contents, index, attached_index) = (self.inner.contents.clone(), index.clone(), attached_index.copied());
        // A failure costs a fetch later, and is in the log.
        let _ = spawn_blocking(move || contents.adopt(&index, attached_index.as_ref())).await;
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
        let kept = spawn_blocking(move || contents.adopt_sealed(&source, header, &key, &index)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!("the index of a packed layer is not kept: it is made again when it is needed: {error}");
        }
    }

    /// Brings the blobs of an artifact into the cache that `pull` has at hand, all of their content and no more than they are asked for
    /// by readers: verified, and sealed where they are encrypted.
    ///
    /// # Errors
    /// A blob that cannot be read; those before it are in the cache.
    pub async fn join_cache(&self, artifact: &Artifact, pull: Arc<dyn Pull>, at_hand: &HashSet<Digest>) -> Result<(), Error> {
        let contents = self.inner.contents.filled_from(pull);
        for source in artifact.sources().iter().filter(|source| at_hand.contains(&source.descriptor.digest)) {
            let failed = |error| of_blob("a packed layer", &source.descriptor, error);
            let stream = contents.open(source).await.map_err(failed)?;
            let mut place = 0;
            while place < stream.length() {
                let end = stream.length().min(place + PIECE);
                stream.read(place..end).await.map_err(failed)?;
                place = end;
            }
        }
        Ok(())
    }

    /// Whether there may be a passphrase.
    pub fn has_keys(&self) -> bool {
        self.inner.contents.has_keys()
    }

    /// Tries these passphrases first until the answer is dropped.
    pub fn lend(&self, passphrases: Vec<Passphrase>) -> Lent {
        self.inner.contents.lend(passphrases)
    }

    /// The key for a new oci-sync envelope: from the passphrase that opens `source`, else from the first one there is;
    /// `None` if none was given.
    ///
    /// # Errors
    /// KeyMissing and KeyWrong; what the registry answers, if the source was never opened here.
    pub async fn seal_key(&self, source: Option<&BlobSource>, salt: &[u8; 32]) -> Result<Option<EnvelopeKey>, Error> {
        self.inner.contents.seal_key(source, *salt).await.map_err(|error| match source {
            Some(source) => of_blob("a layer", &source.descriptor, error),
            None => error,
        })
    }
}
