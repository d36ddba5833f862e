//! Records which blobs an upstream's repository has, and their sizes, as reported by the upstream itself.
//!
//! The cache holds blobs regardless of repository, so this decides where a blob may be read: only where the upstream has confirmed it. Manifests
//! do not count, since anyone who may push can name any digest.

use std::sync::Arc;

use crate::bounded::BoundedMap;
use crate::cache::{Protection, SpanCache};
use crate::oci::{Digest, Repository};

/// The document kind in the cache.
const KIND: &str = "served";
/// Entries kept in memory.
const KEPT: usize = 100_000;

/// The known blobs of one upstream's repositories.
pub(super) struct Sizes {
    cache: SpanCache,
    origin: String,
    known: BoundedMap<(Repository, Digest), u64, KEPT>,
}

impl Sizes {
    pub(super) fn new(cache: SpanCache, origin: &str) -> Self {
        Self { cache, origin: origin.to_owned(), known: BoundedMap::default() }
    }

    /// The size of a blob that the repository is known to have. The first call reads a small file.
    pub(super) fn get(&self, repository: &Repository, digest: &Digest) -> Option<u64> {
        let key = (repository.clone(), *digest);
        if let Some(size) = self.known(&key) {
            return Some(size);
        }
        let stored = self.cache.document(KIND, &self.name(repository, digest), &Protection::Plain);
        let stored = stored.inspect_err(|error| tracing::warn!(%error, "cannot read the recorded size of a blob")).ok()??;
        let size = u64::from_le_bytes((*stored).as_ref().try_into().ok()?);
        self.known.put(key, size);
        Some(size)
    }

    /// The same, if it is in memory.
    pub(super) fn known(&self, key: &(Repository, Digest)) -> Option<u64> {
        self.known.get(key)
    }

    /// Records the upstream's answer. Writes a small file.
    pub(super) fn put(&self, repository: &Repository, digest: &Digest, size: u64) {
        self.known.put((repository.clone(), *digest), size);
        let stored = self.cache.store_document(KIND, &self.name(repository, digest), &size.to_le_bytes(), &Protection::Plain);
        if let Err(error) = stored {
            tracing::warn!(%error, "cannot record the size of a blob");
        }
    }

    fn name(&self, repository: &Repository, digest: &Digest) -> Arc<str> {
        Digest::of(format!("{}\n{repository}\n{digest}", self.origin).as_bytes()).hex().into()
    }
}
