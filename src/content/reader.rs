//! Reads of one logical stream: from the cache at once, else by waiting for spans that are being fetched.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::budget::Use;
use super::in_flight::InFlight;
use super::key_probe::Opened;
use super::layout::Layout;
use super::prefetch::Tracks;
use super::shared::Shared;
use super::streaming::{Streaming, Verdict, Wanting};
use super::{BlobSource, Error, Verified, attached_index, names};
use crate::cache::{CachedStream, Protection};
use crate::error::ErrorKind;
use crate::layer::{LayerIndex, Restart, Span};
use crate::oci::Digest;

/// One logical stream and everything that is under way for it.
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) source: BlobSource,
    /// Tells the readers of this process apart.
    pub(super) number: u64,
    pub(super) layout: Layout,
    /// The key of the stream in the cache.
    pub(super) key: Digest,
    pub(super) cached: Option<CachedStream>,
    /// Whether fetched spans are stored in the cache.
    pub(super) keeps: bool,
    /// Whether the index is an attached one.
    attached: bool,
    /// The stored blob, if what is read lies in an envelope.
    pub(super) envelope: Option<(Arc<Reader>, Opened)>,
    pub(super) in_flight: InFlight,
    /// Held by the one fetch that uses a pooled decoder; taken before memory is.
    pub(super) sequence: tokio::sync::Mutex<()>,
    /// Fetches ahead that have not ended.
    pub(super) under_way: AtomicUsize,
    index: OnceLock<LayerIndex>,
    streaming: Option<Streaming>,
    /// Held for the bookkeeping of one read.
    pub(super) tracks: Mutex<Tracks>,
    /// The cache has no room for what is fetched ahead.
    pub(super) crowded: AtomicBool,
}

impl Reader {
    fn new(shared: &Arc<Shared>, source: &BlobSource, layout: Layout, key: Digest, cached: Option<CachedStream>) -> Self {
        Self {
            shared: Arc::clone(shared),
            source: source.clone(),
            number: shared.next_reader(),
            layout,
            key,
            cached,
            keeps: true,
            attached: false,
            envelope: None,
            in_flight: InFlight::default(),
            sequence: tokio::sync::Mutex::default(),
            under_way: AtomicUsize::new(0),
            index: OnceLock::new(),
            streaming: None,
            tracks: Mutex::new(Tracks::new(shared.cache.size())),
            crowded: AtomicBool::new(false),
        }
    }

    /// A reader of a blob that was checked whole, whose stream the cache keeps under `key`.
    pub(super) fn checked(shared: &Arc<Shared>, source: &BlobSource, index: LayerIndex, key: Digest) -> Arc<Self> {
        let layout = Layout::of_index(&index);
        let cached = shared.cached(&key, &layout, &Protection::Plain);
        Arc::new(Self { index: OnceLock::from(index), ..Self::new(shared, source, layout, key, cached) })
    }

    /// A reader by an index attached to the blob and is not compared with it yet.
    pub(super) fn attached(shared: &Arc<Shared>, source: &BlobSource, index: LayerIndex, key: Digest) -> Arc<Self> {
        let layout = Layout::of_index(&index);
        let cached = shared.cached(&key, &layout, &Protection::Plain);
        Arc::new(Self { index: OnceLock::from(index), attached: true, ..Self::new(shared, source, layout, key, cached) })
    }

    /// The same for what lies in an envelope; `blob` reads the ciphertext.
    pub(super) fn sealed(shared: &Arc<Shared>, source: &BlobSource, index: LayerIndex, blob: Arc<Self>, opened: Opened) -> Arc<Self> {
        let layout = Layout::of_index(&index);
        let key = names::stream(&source.descriptor.digest, source.form, source.sealing);
        let cached = shared.cached(&key, &layout, &opened.protection(source, "stream"));
        let plain = Self::new(shared, source, layout, key, cached);
        Arc::new(Self { index: OnceLock::from(index), envelope: Some((blob, opened)), ..plain })
    }

    /// A reader of a checked blob that uses what the cache has of it, and stores nothing more. Its reads are
    /// accounted for by the reader it serves.
    pub(super) fn transient(shared: &Arc<Shared>, source: &BlobSource, index: LayerIndex) -> Arc<Self> {
        let layout = Layout::of_index(&index);
        let key = names::stream(&source.descriptor.digest, source.form, source.sealing);
        let cached = shared.cached(&key, &layout, &Protection::Plain);
        Arc::new(Self { index: OnceLock::from(index), keeps: false, ..Self::new(shared, source, layout, key, cached) })
    }

    /// A reader of a raw blob that serves spans before the whole was checked.
    pub(super) fn streaming(shared: &Arc<Shared>, source: &BlobSource) -> Result<Arc<Self>, Error> {
        let layout = Layout::of_raw(source.descriptor.size)?;
        let key = names::streaming(&source.descriptor);
        let cached = shared.cached(&key, &layout, &Protection::Plain);
        let begun = cached.as_ref().is_some_and(|cached| cached.has(0));
        let streaming = Some(Streaming::new(source));
        let reader = Arc::new(Self { streaming, ..Self::new(shared, source, layout, key, cached) });
        if begun {
            let reader = Arc::clone(&reader);
            tokio::task::spawn_blocking(move || reader.advance(None));
        }
        Ok(reader)
    }

    /// Length of the stream.
    pub(super) fn length(&self) -> u64 {
        self.layout.length()
    }

    /// How many spans it has.
    pub(super) fn span_count(&self) -> u32 {
        self.layout.count()
    }

    /// The spans that a range lies in.
    pub(super) fn spans_of(&self, range: &Range<u64>) -> Range<u32> {
        self.layout.spans_of(&(range.start.min(self.length())..range.end.min(self.length())))
    }

    /// How far the stream was checked.
    pub(super) fn verified(&self) -> Verified {
        // A reader that waited for the digest may come before the index is kept.
        let is_whole = self.index.get().is_some() || self.streaming.as_ref().is_some_and(Streaming::has_held);
        if is_whole { Verified::Whole } else { Verified::Partial }
    }

    /// Whether what it reads by is not to be believed any more: the index that travelled turned out wrong, or a blob
    /// that is not checked yet came from where the transport vouches for nothing.
    pub(super) fn is_distrusted(&self) -> bool {
        (self.attached && self.shared.attached_indexes.is_distrusted(&self.key))
            || (self.is_unchecked() && self.shared.strict(&self.source))
    }

    /// Whether it serves a blob whose digest is not known yet.
    pub(super) fn is_unchecked(&self) -> bool {
        self.streaming.is_some() && self.index.get().is_none()
    }

    /// Waits until the digest of a blob that is served meanwhile is known, and fetches what is missing for that.
    ///
    /// # Errors
    /// Integrity if the digest does not hold.
    pub(super) async fn finish_verification(self: &Arc<Self>) -> Result<(), Error> {
        let abandoned = || Error::new(ErrorKind::Other, format!("{}: checking was abandoned; see the log", self.source.label()));
        while let Some(streaming) = self.streaming.as_ref().filter(|_| self.index.get().is_none()) {
            let reader = Arc::clone(self);
            let wanting = tokio::task::spawn_blocking(move || reader.streaming.as_ref().map(|streaming| streaming.wanting(&reader.layout)));
            match wanting.await.map_err(|_| abandoned())? {
                Some(Wanting::Span(next)) => {
                    let data = self.read_for(self.layout.span(next), Use::Demand).await?;
                    let reader = Arc::clone(self);
                    tokio::task::spawn_blocking(move || reader.advance(Some((next, &data)))).await.map_err(|_| abandoned())?;
                }
                Some(Wanting::Never) => return Err(abandoned()),
                Some(Wanting::Nothing) | None => return streaming.failure().map_or(Ok(()), |failure| Err(failure.clone())),
            }
        }
        Ok(())
    }

    /// Notes that a span does not fit the index.
    pub(super) fn found_wrong(&self) {
        if self.attached {
            attached_index::distrust(&self.shared, &self.source);
        }
    }

    /// Bytes of memory that its index takes: one that is stored as it is is mapped.
    pub(super) fn memory(&self) -> u64 {
        let index = self.envelope.as_ref().and_then(|_| self.index.get());
        index.map_or(0, |index| index.as_bytes().len() as u64)
    }

    /// The index, once the blob was checked.
    pub(super) fn index(&self) -> Option<&LayerIndex> {
        self.index.get()
    }

    /// The blob turned out whole.
    pub(super) fn adopt(&self, index: LayerIndex) {
        // Another task may have found out at the same time.
        let _ = self.index.set(index);
    }

    /// A span, with its digest where one is known.
    pub(super) fn span(&self, number: u32) -> Option<Span> {
        let stream = self.layout.span(number);
        if let Some(span) = self.index.get().and_then(|index| index.span(number)).filter(|span| span.stream == stream) {
            return Some(span);
        }
        let plain = self.streaming.is_some() && number < self.layout.count();
        plain.then(|| Span { blob: stream.clone(), stream, restart: Restart::Clean, digest: None })
    }

    /// Whether the blob is, or was, served while it is checked.
    pub(super) fn is_streaming(&self) -> bool {
        self.streaming.is_some()
    }

    /// Whether a span without a digest may be served: the transport is trusted, and it says what it said before.
    pub(super) fn trusts_transport(&self, number: u32, data: &[u8]) -> bool {
        self.streaming.as_ref().is_some_and(|streaming| streaming.agrees(number, data))
    }

    /// The error of a blob that turned out wrong while it was read.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.streaming.as_ref().and_then(Streaming::failure) {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// All of a range, if it is in the cache or in memory.
    pub(super) fn here(&self, range: &Range<u64>) -> Option<Bytes> {
        let spans = self.layout.spans_of(range);
        if spans.end.saturating_sub(spans.start) == 1 {
            return self.piece(spans.start, range.clone());
        }
        // Looks before it copies: a long range of which the end is missing costs nothing here.
        if !spans.clone().all(|span| self.has(span)) {
            return None;
        }
        let mut data = BytesMut::new();
        for span in spans {
            data.extend_from_slice(&self.piece(span, self.within(span, range))?);
        }
        Some(data.freeze())
    }

    pub(super) fn within(&self, span: u32, range: &Range<u64>) -> Range<u64> {
        let whole = self.layout.span(span);
        range.start.max(whole.start)..range.end.min(whole.end)
    }

    /// Whether a span is in the cache or in memory.
    pub(super) fn has(&self, span: u32) -> bool {
        self.cached.as_ref().is_some_and(|cached| cached.has(span)) || self.shared.recent.get(self.number, span).is_some()
    }

    /// Part of a span, from the cache or from memory.
    pub(super) fn piece(&self, span: u32, within: Range<u64>) -> Option<Bytes> {
        if let Some(cached) = &self.cached {
            match cached.read(span, within.clone()) {
                Ok(Some(data)) => return Some(data),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a cached span of {} cannot be read and is fetched again", self.source.label()),
            }
        }
        let data = self.shared.recent.get(self.number, span)?;
        Some(part_of(&data, self.layout.span(span).start, &within))
    }

    pub(super) fn tracks(&self) -> parking_lot::MutexGuard<'_, Tracks> {
        self.tracks.lock()
    }

    /// Notes whether the cache had room; without room nothing more is fetched ahead.
    pub(super) fn note_room(&self, had_room: bool, rank: Use) {
        if had_room {
            self.crowded.store(false, Ordering::Relaxed);
        } else if rank == Use::Prefetch && self.keeps {
            self.crowded.store(true, Ordering::Relaxed);
            self.tracks().calm();
        }
    }

    /// Goes on checking a blob that is served meanwhile, with a span that is here now. Blocks.
    pub(super) fn advance(&self, fresh: Option<(u32, &[u8])>) {
        let Some(streaming) = self.streaming.as_ref().filter(|_| self.index.get().is_none()) else { return };
        match streaming.advance(&self.source, &self.layout, self.cached.as_ref(), fresh) {
            Verdict::Open => {}
            Verdict::Held(index) => {
                let name = names::streamed_index(&self.source.descriptor);
                self.adopt(self.shared.store_index(&self.source, &name, *index, &Protection::Plain));
            }
            Verdict::Failed => {
                self.shared.poison(self.key);
                self.shared.forget_stream(&self.key);
                self.shared.recent.forget(self.number);
            }
        }
    }
}

/// The part of a span that begins at `start`.
pub(super) fn part_of(data: &Bytes, start: u64, within: &Range<u64>) -> Bytes {
    let place = |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX).min(data.len());
    data.slice(place(within.start)..place(within.end).max(place(within.start)))
}
