//! Artifact operations used by a publish: tags it moved, layers it packed, keys.

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

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;

impl Artifacts {
    /// Records that this program moved a tag to a manifest: later lookups return it, whatever was requested before.
    pub fn published(&self, repository: &Repository, tag: &Tag, manifest: Arc<Manifest>) {
        self.inner.registry_cache.published(repository, tag, manifest);
    }

    /// Records that this program deleted a tag.
    pub fn deleted(&self, repository: &Repository, tag: &Tag) {
        self.inner.registry_cache.deleted(repository, tag);
    }

    /// Names of the repositories seen by this process; makes no request.
    pub fn seen_repositories(&self) -> Vec<Repository> {
        self.inner.registry_cache.seen_repositories()
    }

    /// Records a manifest that this program sent.
    pub fn learned_manifest(&self, repository: &Repository, manifest: Arc<Manifest>) {
        self.inner.registry_cache.learned_manifest(repository, manifest);
    }

    /// Stores the index of a layer packed here, so that its artifact's tree is built without fetching anything; `attached_index` is the digest of the
    /// attached index blob. Not for encrypted layers.
    pub async fn adopt(&self, index: &LayerIndex, attached_index: Option<&Digest>) {
        let (contents, index, attached_index) = (self.inner.contents.clone(), index.clone(), attached_index.copied());
        // A failure costs a fetch later, and is logged.
        let _ = spawn_blocking(move || contents.adopt(&index, attached_index.as_ref())).await;
    }

    /// The same for an archive sealed here in an oci-sync envelope. The index is stored sealed.
    pub async fn adopt_sealed(
        &self,
        repository: &Repository,
        layer: &Descriptor,
        header: EnvelopeHeader,
        key: &EnvelopeKey,
        index: &LayerIndex,
    ) {
        let (repository, descriptor) = (repository.clone(), layer.clone());
        let source = BlobSource { repository, descriptor, form: Form::Archive, sealing: Sealing::OciSync, strict: false, guide: None };
        let (contents, key, index) = (self.inner.contents.clone(), key.clone(), index.clone());
        let kept = spawn_blocking(move || contents.adopt_sealed(&source, header, &key, &index)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!("cannot store the index of a packed layer; it will be rebuilt when needed: {error}");
        }
    }

    /// Adds the blobs of an artifact that `pull` has at hand to the cache, whole and only as readers would request them: verified, and sealed if encrypted.
    ///
    /// # Errors
    /// A blob cannot be read; those before it are cached.
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

    /// Whether the attached index of a blob, if it has one, has not turned out wrong.
    pub fn trusts(&self, source: &BlobSource) -> bool {
        self.inner.contents.trusts(source)
    }

    /// Whether there may be a passphrase.
    pub fn has_keys(&self) -> bool {
        self.inner.contents.has_keys()
    }

    /// Tries these passphrases first until the result is dropped.
    pub fn lend(&self, passphrases: Vec<Passphrase>) -> Lent {
        self.inner.contents.lend(passphrases)
    }

    /// The key for a new oci-sync envelope: from the passphrase that opens `source`, else from the first passphrase; `None` if there is none.
    ///
    /// # Errors
    /// KeyMissing and KeyWrong; errors of the registry, if the source was never opened here.
    pub async fn seal_key(&self, source: Option<&BlobSource>, salt: &[u8; 32]) -> Result<Option<EnvelopeKey>, Error> {
        self.inner.contents.seal_key(source, *salt).await.map_err(|error| match source {
            Some(source) => of_blob("a layer", &source.descriptor, error),
            None => error,
        })
    }
}
