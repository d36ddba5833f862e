//! Recognises a tree that is already published: stores the identity of each artifact's tree and searches them.
//!
//! Sends no request. Facts about encrypted artifacts are kept in memory only: names are as secret as content.

use std::sync::Arc;

use super::artifacts::{Artifacts, Inner};
use super::identity::{IdentityDefaults, NOTHING};
use super::kept::Key;
use super::tree::{self, Tree};
use super::{Identity, Secrets, ViewMode};
use crate::blocking::spawn_blocking;
use crate::cache::Protection;
use crate::content::Sealing;
use crate::error::Error;
use crate::oci::{Digest, Manifest, Platform, Repository};

/// Document kind of identities.
const IDENTITY: &str = "identity";
/// Version and length of such a document.
const VERSION: u8 = 2;
const LENGTH: usize = 50;
const HAS_DIGEST: u8 = 1;
const ABSOLUTE: u8 = 2;
impl Artifacts {
    /// The cached manifests that tags of a repository are known to point to.
    pub async fn known_artifacts(&self, repository: &Repository) -> Vec<Arc<Manifest>> {
        let (known, repository) = (Arc::clone(&self.inner.registry_cache), repository.clone());
        spawn_blocking(move || known.local_manifests(&repository)).await.unwrap_or_default()
    }

    /// A known manifest of a repository with the same tree.
    ///
    /// # Errors
    /// A tree has to be rebuilt and cannot be.
    pub async fn find_tree(
        &self,
        repository: &Repository,
        identity: &Identity,
        defaults: &IdentityDefaults,
    ) -> Result<Option<Arc<Manifest>>, Error> {
        let Some(wanted) = identity.digest else { return Ok(None) };
        for manifest in self.known_artifacts(repository).await {
            let in_memory = self.inner.opened_here.identity(&manifest.digest);
            let Some(known) = in_memory.or_else(|| self.inner.stored_identity(&manifest.digest, &self.platform)) else { continue };
            if (known.names, known.bytes) != (identity.names, identity.bytes) || known.digest.is_none() {
                continue;
            }
            let found = if known.absolute {
                known.digest
            } else {
                let artifact = self.artifact(repository, &manifest.digest, ViewMode::Merged, false).await?;
                let (tree, defaults) = (artifact.tree.clone(), *defaults);
                spawn_blocking(move || tree.identity(&defaults)).await.ok().and_then(|identity| identity.digest)
            };
            if found == Some(wanted) {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }
}

impl Inner {
    /// Stores the identity of a tree just built.
    pub(super) fn store_identity(&self, key: &Key, tree: &Tree) {
        if key.view != ViewMode::Merged || key.layer.is_some() {
            return;
        }
        let bytes = to_document(&tree.identity(&NOTHING));
        if let Err(error) = self.cache.store_document(IDENTITY, &identity_name(&key.manifest, &key.platform), &bytes, &Protection::Plain) {
            tracing::warn!("a copy of {}@{} will not be recognised: {error}", key.repository, key.manifest);
        }
    }

    fn stored_identity(&self, manifest: &Digest, platform: &Platform) -> Option<Identity> {
        let bytes = self.cache.document(IDENTITY, &identity_name(manifest, platform), &Protection::Plain).ok()??;
        of_document((*bytes).as_ref())
    }
}

/// The shown member of an index depends on the platform.
fn identity_name(manifest: &Digest, platform: &Platform) -> String {
    Digest::of(format!("{manifest}\n{platform}\n{}", tree::VERSION).as_bytes()).hex()
}

fn to_document(identity: &Identity) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let flags = if identity.digest.is_some() { HAS_DIGEST } else { 0 } | if identity.absolute { ABSOLUTE } else { 0 };
    let digest = identity.digest.unwrap_or_else(|| Digest::of(b""));
    let fields: [&[u8]; 5] = [&[VERSION], &[flags], &identity.names.to_le_bytes(), &identity.bytes.to_le_bytes(), digest.as_bytes()];
    for (place, byte) in bytes.iter_mut().zip(fields.concat()) {
        *place = byte;
    }
    bytes
}

fn of_document(bytes: &[u8]) -> Option<Identity> {
    let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
    let (flags, rest) = bytes.strip_prefix(&[VERSION])?.split_first()?;
    let (names, rest) = rest.split_first_chunk()?;
    let (length, digest) = rest.split_first_chunk()?;
    let digest = Digest::from_sha256(digest.try_into().ok()?);
    Some(Identity {
        names: u64::from_le_bytes(*names),
        bytes: u64::from_le_bytes(*length),
        digest: (flags & HAS_DIGEST != 0).then_some(digest),
        absolute: flags & ABSOLUTE != 0,
    })
}

impl Artifacts {
    /// The files of encrypted artifacts that this process opened, and of those opened by an earlier one, provided that a tag of these repositories refers
    /// to them and the keys are available.
    pub async fn secrets(&self, repositories: &[Repository]) -> Secrets {
        for repository in repositories.iter().filter(|_| self.inner.contents.has_keys()) {
            for manifest in self.known_artifacts(repository).await {
                if self.inner.opened_here.contains(&manifest.digest) || !self.was_opened(repository, &manifest).await {
                    continue;
                }
                // Building its tree records it.
                if let Err(error) = self.artifact(repository, &manifest.digest, ViewMode::Merged, false).await {
                    tracing::warn!("cannot recognise files of {repository}@{}: {error}", manifest.digest);
                }
            }
        }
        Secrets(self.inner.opened_here.all().values().cloned().collect())
    }

    /// Whether an artifact is encrypted and was opened here.
    pub fn is_secret(&self, manifest: &Digest) -> bool {
        self.inner.opened_here.contains(manifest)
    }

    /// Whether an encrypted artifact was opened on this machine and the available keys decrypt it. Sends no request.
    async fn was_opened(&self, repository: &Repository, manifest: &Manifest) -> bool {
        let Some(plan) = super::dialect::encrypted(manifest) else { return false };
        for step in plan.steps.iter().filter(|step| step.sealing != Sealing::None) {
            let source = super::build::source_of(step, repository, false);
            if self.inner.contents.was_opened(&source).await {
                return true;
            }
        }
        false
    }
}
