//! State shared by all readers of a mount. If the cache fails, reading continues without it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use super::budget::{Budget, Turns, Use};
use super::recent::Recent;
use super::sealed::keys::KeyRing;
use super::spool::Spool;
use super::verdicts::Verdicts;
use super::{BlobSource, Config, Sealing, VerifyPolicy, names, plan};
use crate::bounded::BoundedMap;
use crate::cache::{CachedStream, Claim, Fill, Layout, Protection, SpanCache};
use crate::error::{Error, ErrorKind};
use crate::layer::{Form, LayerIndex, Limits, Resources, Windows, WindowsUpTo};
use crate::oci::{Descriptor, Digest, Repository};
use crate::registry::{BlobStream, Pull, Trust};
use crate::sys::array::Scratch;

/// Largest document that the cache stores, as a fraction (1/n) of its size.
const DOCUMENT_SHARE: u64 = 4;
/// An index up to this many bytes is built however small the cache is.
const LEAST_INDEX: u64 = 64 << 20;
/// How many times the index of an encrypted layer may be in memory at once: as tables, assembled, sealed, and as a tree.
const SEALED_COPIES: u64 = 4;
/// Largest frame window in an encrypted layer: 8 MiB plus the decoder's own. Its memory is counted with the index.
const SEALED_WINDOW: u64 = 9 << 20;
/// Interval at which ongoing work is recorded as progress.
const WORKING: Duration = Duration::from_secs(1);
/// Most wrong streams remembered.
const POISONED: usize = 4096;
/// Most fetched raw streams remembered; others age like everything else in the cache.
const FETCHED_RAW: usize = 256;

/// The parts of a mount needed for reading.
pub(super) struct Shared {
    pub(super) pull: Arc<dyn Pull>,
    pub(super) cache: SpanCache,
    pub(super) keys: KeyRing,
    pub(super) io_timeout: Duration,
    pub(super) budget: Budget,
    pub(super) turns: Turns,
    pub(super) recent: Recent,
    pub(super) spool: Spool,
    /// The verdicts on attached indexes.
    pub(super) attached_indexes: Verdicts,
    verify: VerifyPolicy,
    progress: AtomicU64,
    /// Streams that turned out wrong while being read. Locked only for a glance.
    poisoned: BoundedMap<Digest, (), POISONED>,
    /// Raw streams that passes of this process fetched: ciphertext among them is dropped once it was opened. Locked only for a glance.
    pub(super) fetched_raw: BoundedMap<Digest, (), FETCHED_RAW>,
}

impl Shared {
    pub(super) fn new(config: Config) -> Self {
        Self {
            recent: Recent::new(config.budget.recent(config.cache.is_filled())),
            spool: Spool::new(config.spool.filter(|_| !config.pull.is_local())),
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
            fetched_raw: BoundedMap::default(),
        }
    }

    pub(super) fn policy(&self) -> VerifyPolicy {
        self.verify
    }

    /// Whether nothing of a blob may be served before it is verified as a whole.
    pub(super) fn strict(&self, source: &BlobSource) -> bool {
        match self.verify {
            VerifyPolicy::Strict => true,
            VerifyPolicy::Relayed => source.strict,
            VerifyPolicy::Auto => source.strict || self.pull.trust() == Trust::Digest,
        }
    }

    /// Whether spans of a blob may be in the cache.
    pub(super) fn caches(&self, source: &BlobSource) -> bool {
        plan::is_copied(source.form, source.is_sealed(), self.pull.is_local())
    }

    /// Whether spans of a blob are copied into the cache.
    pub(super) fn copies(&self, source: &BlobSource) -> bool {
        self.cache.is_filled() && self.caches(source)
    }

    /// A range of a blob by one request. The blob was referred to by something, so if the registry lacks it the error is Gone.
    pub(super) async fn fetch(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        if let Some(stream) = self.spool.stream(&descriptor.digest, range.clone()) {
            return Ok(stream);
        }
        let stream = self.pull.blob(repository, descriptor, range).await.map_err(Error::absent_is_gone)?;
        Ok(Box::pin(stream.map_err(Error::absent_is_gone)))
    }

    /// A number unique to a reader in this process.
    pub(super) fn next_reader(&self) -> u64 {
        self.budget.next_reader()
    }

    /// Remembers that a stream is wrong, so that this process never again serves its blob before verifying it.
    pub(super) fn poison(&self, key: Digest) {
        self.poisoned.put(key, ());
    }

    /// Whether a stream turned out wrong.
    pub(super) fn is_poisoned(&self, key: &Digest) -> bool {
        self.poisoned.get(key).is_some()
    }

    /// Resources for building the index of a blob: space in the cache, or memory for content that must not reach the disk. The limits are those of the
    /// place where the index is kept.
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

    /// The memory pool for decoder windows.
    pub(super) fn windows(&self) -> Arc<dyn Windows> {
        Arc::new(self.budget.clone())
    }

    /// Records that bytes arrived or were decoded.
    pub(super) fn moved(&self, bytes: usize) {
        self.progress.fetch_add(bytes as u64, Ordering::Relaxed);
        self.cache.moved(bytes as u64);
    }

    /// The next bytes of a transfer; `None` at its end. `subject` starts the error for a stalled registry: "SUBJECT arrived for 60 s".
    ///
    /// # Errors
    /// TimedOut; errors of the registry.
    pub(super) async fn next_piece(&self, stream: &mut BlobStream, subject: impl FnOnce() -> String) -> Result<Option<Bytes>, Error> {
        let stalled = |_| Error::new(ErrorKind::TimedOut, format!("{} arrived for {} s", subject(), self.io_timeout.as_secs()));
        let piece = tokio::time::timeout(self.io_timeout, stream.next()).await.map_err(stalled)?.transpose()?;
        // Piece by piece, since a span may take longer than the stall limit.
        self.moved(piece.as_ref().map_or(0, Bytes::len));
        Ok(piece)
    }

    /// Awaits local work, which counts as progress while it lasts.
    pub(super) async fn working<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(WORKING, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.moved(1),
            }
        }
    }

    /// Total bytes that arrived or were decoded.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// The stored index of a blob. A broken one, or one for something else, is removed.
    ///
    /// # Errors
    /// The manifest claims a different size than the blob has.
    pub(super) fn stored_index(&self, source: &BlobSource, name: &str, protection: &Protection) -> Result<Option<LayerIndex>, Error> {
        let bytes = match self.cache.document(names::INDEX, name, protection) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(%error, "cannot read the index of {} from the cache", source.label());
                return Ok(None);
            }
        };
        let problem = match LayerIndex::open(bytes) {
            Ok(index) if index.blob_digest() != source.descriptor.digest => "it belongs to another blob".to_owned(),
            Ok(index) if index.is_archive() != (source.form == Form::Archive) => "it has another form".to_owned(),
            Ok(index) => return self.check_size(source, &index).map(|()| Some(index)),
            Err(error) => error.to_string(),
        };
        tracing::warn!(problem, "the stored index of {} is unusable and will be rebuilt", source.label());
        self.forget_index(name);
        Ok(None)
    }

    /// Whether the index built here from a whole blob is present.
    pub(super) fn has_index(&self, source: &BlobSource) -> bool {
        matches!(self.cache.document(names::INDEX, &names::index(source), &Protection::Plain), Ok(Some(_)))
    }

    /// Compares a manifest's claims with the actual blob.
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
            tracing::warn!(%error, "cannot remove an unusable index from the cache");
        }
    }

    /// Stores an index and returns the stored one: mapped if plain, so that it takes no memory.
    pub(super) fn store_index(&self, source: &BlobSource, name: &str, index: LayerIndex, protection: &Protection) -> LayerIndex {
        if let Err(error) = self.cache.store_document(names::INDEX, name, index.as_bytes(), protection) {
            tracing::warn!(%error, "cannot cache the index of {}; it will be rebuilt when needed", source.label());
            return index;
        }
        match self.stored_index(source, name, protection) {
            Ok(Some(stored)) => stored,
            _ => index,
        }
    }

    /// The cached stream with a key; `None` if there is nothing to cache or the cache fails.
    pub(super) fn cached(&self, key: &Digest, layout: &Layout, protection: &Protection) -> Option<CachedStream> {
        if layout.length() == 0 {
            return None;
        }
        let stream = match self.cache.is_filled() {
            true => self.cache.stream(key, layout, protection).map(Some),
            false => self.cache.begun_stream(key, layout, protection),
        };
        match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "reading without the cache");
                None
            }
        }
    }

    /// Starts filling the stream of a blob; `None` if it is not copied or the cache fails.
    pub(super) fn fill(&self, source: &BlobSource, protection: &Protection) -> Option<Fill> {
        if !self.copies(source) {
            return None;
        }
        match self.cache.fill(&names::stream(&source.descriptor.digest, source.form, source.sealing), protection) {
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
            tracing::warn!(%error, "cannot remove an unusable stream from the cache");
        }
    }

    /// Waits until no other process computes `name`. `None` if the cache cannot tell, or the other process stalls for as long as a transfer may: doing the
    /// work twice is better than not at all.
    pub(super) async fn claim(&self, name: &str) -> Option<Claim> {
        // What is not stored helps no other process.
        if !self.cache.is_filled() {
            return None;
        }
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
