//! Which blobs a repository of an upstream holds, and how large they are, as the upstream itself said.
//!
//! A blob is in the cache whatever repository it came from, so this decides where it may be read: only where the upstream answered
//! for it. What a manifest says counts for nothing here, since anybody who may push can name any digest.

use std::sync::Arc;

use crate::bounded::BoundedMap;
use crate::cache::{Protection, SpanCache};
use crate::oci::{Digest, Repository};

/// The kind of the documents in the cache.
const KIND: &str = "served";
/// Entries in memory.
const KEPT: usize = 100_000;

/// The blobs of the repositories of one upstream.
pub(super) struct Sizes {
    cache: SpanCache,
    origin: String,
    known: BoundedMap<(Repository, Digest), u64, KEPT>,
}

impl Sizes {
    pub(super) fn new(cache: SpanCache, origin: &str) -> Self {
        Self { cache, origin: origin.to_owned(), known: BoundedMap::default() }
    }

    /// The size of a blob that the repository is known to hold. Reads a small file at the first time.
    pub(super) fn get(&self, repository: &Repository, digest: &Digest) -> Option<u64> {
        let key = (repository.clone(), *digest);
        if let Some(size) = self.known.get(&key) {
            return Some(size);
        }
        let stored = self.cache.document(KIND, &self.name(repository, digest), &Protection::Plain);
        let stored = stored.inspect_err(|error| tracing::warn!(%error, "what is known of a blob cannot be read")).ok()??;
        let size = u64::from_le_bytes((*stored).as_ref().try_into().ok()?);
        self.known.put(key, size);
        Some(size)
    }

    /// Notes what the upstream said. Writes a small file.
    pub(super) fn put(&self, repository: &Repository, digest: &Digest, size: u64) {
        self.known.put((repository.clone(), *digest), size);
        let stored = self.cache.store_document(KIND, &self.name(repository, digest), &size.to_le_bytes(), &Protection::Plain);
        if let Err(error) = stored {
            tracing::warn!(%error, "what is known of a blob is not kept");
        }
    }

    fn name(&self, repository: &Repository, digest: &Digest) -> Arc<str> {
        Digest::of(format!("{}\n{repository}\n{digest}", self.origin).as_bytes()).hex().into()
    }
}
