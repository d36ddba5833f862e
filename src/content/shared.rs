//! State shared by all readers of one mount. When the cache fails, reading goes on without it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use super::budget::{Budget, Turns, Use};
use super::recent::Recent;
use super::sealed::keys::KeyRing;
use super::verdicts::Verdicts;
use super::{BlobSource, Config, Sealing, VerifyPolicy, names};
use crate::bounded::BoundedMap;
use crate::cache::{CachedStream, Claim, Fill, Layout, Protection, SpanCache};
use crate::error::{Error, ErrorKind};
use crate::layer::{Form, LayerIndex, Limits, Resources, Windows, WindowsUpTo};
use crate::oci::{Descriptor, Digest, Repository};
use crate::registry::{BlobStream, Pull, Trust};
use crate::sys::array::Scratch;

/// The cache keeps no document that takes a larger part of it.
const DOCUMENT_SHARE: u64 = 4;
/// An index up to this size is made however small the cache is.
const LEAST_INDEX: u64 = 64 << 20;
/// The index of an encrypted layer may be so many times in memory at once: as tables, put together, sealed, and as a tree.
const SEALED_COPIES: u64 = 4;
/// Largest window of a frame in an encrypted layer, 8 MiB and what a decoder has beside it. Its memory is that of the index.
const SEALED_WINDOW: u64 = 9 << 20;
/// Work that goes on for so long is noted as progress.
const WORKING: Duration = Duration::from_secs(1);
/// Most wrong streams that are remembered.
const POISONED: usize = 4096;

/// The parts of a mount that reading needs.
pub(super) struct Shared {
    pub(super) pull: Arc<dyn Pull>,
    pub(super) cache: SpanCache,
    pub(super) keys: KeyRing,
    pub(super) io_timeout: Duration,
    pub(super) budget: Budget,
    pub(super) turns: Turns,
    pub(super) recent: Recent,
    /// The verdicts on attached indexes.
    pub(super) attached_indexes: Verdicts,
    verify: VerifyPolicy,
    progress: AtomicU64,
    /// Streams that turned out wrong while they were read. Held for one look.
    poisoned: BoundedMap<Digest, (), POISONED>,
}

impl Shared {
    pub(super) fn new(config: Config) -> Self {
        Self {
            recent: Recent::new(config.budget.recent()),
            turns: Turns::new(config.concurrency, config.passes),
            budget: config.budget,
            attached_indexes: Verdicts::default(),
            pull: config.pull,
            cache: config.cache,
            keys: config.keys,
            io_timeout: config.io_timeout,
            verify: config.verify,
            progress: AtomicU64::new(0),
            poisoned: BoundedMap::default(),
        }
    }

    pub(super) fn policy(&self) -> VerifyPolicy {
        self.verify
    }

    /// Whether nothing of a blob may be served before all of it was checked.
    pub(super) fn strict(&self, source: &BlobSource) -> bool {
        match self.verify {
            VerifyPolicy::Strict => true,
            VerifyPolicy::Relayed => source.strict,
            VerifyPolicy::Auto => source.strict || self.pull.trust() == Trust::Digest,
        }
    }

    /// A range of a blob from the registry. Whatever names the blob exists, so a blob that the registry lacks is Gone.
    pub(super) async fn fetch(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        let stream = self.pull.blob(repository, descriptor, range).await.map_err(Error::absent_is_gone)?;
        Ok(Box::pin(stream.map_err(Error::absent_is_gone)))
    }

    /// A number that no other reader of this process has.
    pub(super) fn next_reader(&self) -> u64 {
        self.budget.next_reader()
    }

    /// Remembers that a stream is wrong, so that its blob is never again served by this process before it was checked.
    pub(super) fn poison(&self, key: Digest) {
        self.poisoned.put(key, ());
    }

    /// Whether a stream turned out wrong.
    pub(super) fn is_poisoned(&self, key: &Digest) -> bool {
        self.poisoned.get(key).is_some()
    }

    /// Resources for making the index of a blob: space in the cache, or memory for what must not reach the disk. The
    /// bounds are those of what the index is kept in.
    pub(super) fn resources(&self, sealing: Sealing) -> Resources {
        let limits = Limits::default();
        match sealing {
            Sealing::None => {
                let kept = (self.cache.size() / DOCUMENT_SHARE).max(LEAST_INDEX);
                let limits = Limits { index_bytes: kept.min(limits.index_bytes), index_reason: "a quarter of --cache-size", ..limits };
                Resources { limits, scratch: self.cache.scratch(), windows: self.windows() }
            }
            Sealing::OciSync => {
                let index_bytes = self.budget.share(Use::Large) / SEALED_COPIES;
                let limits = Limits {
                    index_bytes,
                    window_bytes: index_bytes / 4,
                    index_reason: "--memory-limit, for an encrypted layer,",
                    ..limits
                };
                Resources { limits, scratch: Scratch::memory(), windows: Arc::new(WindowsUpTo(SEALED_WINDOW)) }
            }
        }
    }

    /// Memory for decoders.
    pub(super) fn windows(&self) -> Arc<dyn Windows> {
        Arc::new(self.budget.clone())
    }

    /// Notes that bytes arrived or were decoded.
    pub(super) fn moved(&self, bytes: usize) {
        self.progress.fetch_add(bytes as u64, Ordering::Relaxed);
        self.cache.moved(bytes as u64);
    }

    /// The next bytes of a transfer; `None` at its end. `subject` begins the error of a registry that stands still: "SUBJECT arrived
    /// for 60 s".
    ///
    /// # Errors
    /// TimedOut; what the registry answers.
    pub(super) async fn next_piece(&self, stream: &mut BlobStream, subject: impl FnOnce() -> String) -> Result<Option<Bytes>, Error> {
        let stalled = |_| Error::new(ErrorKind::TimedOut, format!("{} arrived for {} s", subject(), self.io_timeout.as_secs()));
        let piece = tokio::time::timeout(self.io_timeout, stream.next()).await.map_err(stalled)?.transpose()?;
        // Piece by piece, since a span may take longer than anything may stand still.
        self.moved(piece.as_ref().map_or(0, Bytes::len));
        Ok(piece)
    }

    /// Waits for work of this machine, which counts as progress for as long as it goes on.
    pub(super) async fn working<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(WORKING, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.moved(1),
            }
        }
    }

    /// Bytes that arrived or were decoded so far.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// The stored index of a blob. A broken one, or one of something else, is forgotten.
    ///
    /// # Errors
    /// The manifest claims another size than the blob has.
    pub(super) fn stored_index(&self, source: &BlobSource, name: &str, protection: &Protection) -> Result<Option<LayerIndex>, Error> {
        let bytes = match self.cache.document(names::INDEX, name, protection) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(%error, "the index of {} cannot be read from the cache", source.label());
                return Ok(None);
            }
        };
        let problem = match LayerIndex::open(bytes) {
            Ok(index) if index.blob_digest() != source.descriptor.digest => "it is of another blob".to_owned(),
            Ok(index) if index.is_archive() != (source.form == Form::Archive) => "it is of another form".to_owned(),
            Ok(index) => return self.check_size(source, &index).map(|()| Some(index)),
            Err(error) => error.to_string(),
        };
        tracing::warn!(problem, "the stored index of {} is unusable and will be rebuilt", source.label());
        self.forget_index(name);
        Ok(None)
    }

    /// Compares what a manifest claims with what the blob was found to be.
    pub(super) fn check_size(&self, source: &BlobSource, index: &LayerIndex) -> Result<(), Error> {
        let found = index.blob_length() + source.sealing.overhead();
        if found == source.descriptor.size {
            return Ok(());
        }
        let claimed = source.descriptor.size;
        Err(Error::new(
            ErrorKind::Integrity,
            format!("{} has {found} bytes, but the manifest says {claimed}: the artifact is broken as published", source.label()),
        ))
    }

    /// Removes an index that turned out wrong.
    pub(super) fn forget_index(&self, name: &str) {
        if let Err(error) = self.cache.forget_document(names::INDEX, name) {
            tracing::warn!(%error, "an unusable index cannot be removed from the cache");
        }
    }

    /// Stores an index and answers it as it is stored: mapped, where it is plain, so that it costs no memory.
    pub(super) fn store_index(&self, source: &BlobSource, name: &str, index: LayerIndex, protection: &Protection) -> LayerIndex {
        if let Err(error) = self.cache.store_document(names::INDEX, name, index.as_bytes(), protection) {
            tracing::warn!(%error, "the index of {} is not kept and will be rebuilt when needed", source.label());
            return index;
        }
        match self.stored_index(source, name, protection) {
            Ok(Some(stored)) => stored,
            _ => index,
        }
    }

    /// The cached stream under a key; `None` if there is nothing to cache or the cache fails.
    pub(super) fn cached(&self, key: &Digest, layout: &Layout, protection: &Protection) -> Option<CachedStream> {
        if layout.length() == 0 {
            return None;
        }
        match self.cache.stream(key, layout, protection) {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::warn!(%error, "reading without the cache");
                None
            }
        }
    }

    /// Begins to fill a stream; `None` if the cache fails.
    pub(super) fn fill(&self, key: &Digest, protection: &Protection) -> Option<Fill> {
        match self.cache.fill(key, protection) {
            Ok(fill) => Some(fill),
            Err(error) => {
                tracing::warn!(%error, "reading without the cache");
                None
            }
        }
    }

    /// Drops the data of a stream.
    pub(super) fn forget_stream(&self, key: &Digest) {
        if let Err(error) = self.cache.forget_stream(key) {
            tracing::warn!(%error, "an unusable stream cannot be removed from the cache");
        }
    }

    /// Waits until no other process computes `name`. `None` if the cache cannot tell, or the other one stands still for as
    /// long as a transfer may stall: then the work is done twice rather than not at all.
    pub(super) async fn claim(&self, name: &str) -> Option<Claim> {
        // Progress there counts as progress here.
        let moved = || {
            self.progress.fetch_add(1, Ordering::Relaxed);
        };
        match self.cache.claim(name, self.io_timeout, moved).await {
            Ok(Some(claim)) => Some(claim),
            Ok(None) => {
                tracing::info!(name, "claim still held by another process that makes no progress; proceeding without it");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "working without a claim");
                None
            }
        }
    }
}
