//! One logical stream and everything in progress for it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::budget::Use;
use super::in_flight::InFlight;
use super::prefetch::SequentialReads;
use super::running_check::{RunningCheck, Verdict};
use super::sealed::probe::Opened;
use super::shared::Shared;
use super::{BlobSource, Verified, attached_index, names, plan};
use crate::blocking::spawn_blocking;
use crate::cache::{CachedStream, Layout, Protection, Trust};
use crate::error::Error;
use crate::layer::{Form, LayerIndex, Restart, Span};
use crate::oci::{Digest, Hasher};

/// How a reader gets its bytes, with the state it needs.
pub(super) enum Mode {
    /// In one piece, verified against the blob's digest.
    Single {
        /// Whether it was verified.
        checked: AtomicBool,
    },
    /// Through the index built here.
    Indexed(LayerIndex),
    /// Through the attached index, which has not been compared with the blob yet.
    Attached(LayerIndex),
    /// As delivered by the transport, while the whole is being verified.
    Unchecked {
        /// The running check.
        check: Box<RunningCheck>,
        /// Set once the digest was verified.
        index: OnceLock<LayerIndex>,
    },
    /// From an envelope.
    Sealed {
        /// The index of its content.
        index: LayerIndex,
        /// The blob as stored.
        blob: Arc<Reader>,
        /// The key.
        opened: Opened,
    },
    /// The ciphertext for a sealed reader, which accounts for its memory. Uses the cache but stores nothing.
    Ciphertext(LayerIndex),
}

impl Mode {
    /// A single span that was not read yet.
    pub(super) fn single() -> Self {
        Self::Single { checked: AtomicBool::new(false) }
    }

    /// A check about to start.
    pub(super) fn unchecked(source: &BlobSource) -> Self {
        Self::Unchecked { check: Box::new(RunningCheck::new(source)), index: OnceLock::new() }
    }

    fn index(&self) -> Option<&LayerIndex> {
        match self {
            Self::Single { .. } => None,
            Self::Indexed(index) | Self::Attached(index) | Self::Ciphertext(index) | Self::Sealed { index, .. } => Some(index),
            Self::Unchecked { index, .. } => index.get(),
        }
    }
}

/// One open logical stream.
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) source: BlobSource,
    /// Distinguishes the readers of this process.
    pub(super) number: u64,
    pub(super) layout: Layout,
    /// The cache key of the stream.
    pub(super) key: Digest,
    pub(super) cached: Option<CachedStream>,
    pub(super) mode: Mode,
    pub(super) in_flight: InFlight,
    /// Held by the one fetch that uses a pooled decoder; taken before memory.
    pub(super) sequence: tokio::sync::Mutex<()>,
    /// Prefetches in progress.
    pub(super) under_way: AtomicUsize,
    /// Locked for the bookkeeping of one read.
    pub(super) tracks: Mutex<SequentialReads>,
    /// The cache has no room for prefetched spans.
    pub(super) crowded: AtomicBool,
}

impl Reader {
    /// A reader in this mode.
    ///
    /// # Errors
    /// Unsupported for a raw blob of more than 1 TiB.
    pub(super) fn open(shared: &Arc<Shared>, source: &BlobSource, mode: Mode) -> Result<Arc<Self>, Error> {
        let layout = mode.index().map_or_else(|| plan::raw_layout(source.descriptor.size), |index| Ok(layout_of(index)))?;
        let key = match (&mode, &source.guide) {
            (Mode::Attached(_), Some(guide)) => names::attached(&source.descriptor.digest, &guide.key()),
            _ => names::stream(&source.descriptor.digest, source.form, source.sealing),
        };
        let protection = match &mode {
            Mode::Sealed { opened, .. } => opened.protection(source, "stream"),
            _ => Protection::Plain,
        };
        let cached = if shared.caches(source) { shared.cached(&key, &layout, &protection) } else { None };
        // What is not stored waits among the recent spans.
        let room = if shared.copies(source) { shared.cache.size() } else { shared.budget.recent(false) };
        let has_begun = matches!(mode, Mode::Unchecked { .. }) && cached.as_ref().is_some_and(|cached| cached.has(0));
        let reader = Arc::new(Self {
            shared: Arc::clone(shared),
            source: source.clone(),
            number: shared.next_reader(),
            layout,
            key,
            cached,
            mode,
            in_flight: InFlight::default(),
            sequence: tokio::sync::Mutex::default(),
            under_way: AtomicUsize::new(0),
            tracks: Mutex::new(SequentialReads::new(room)),
            crowded: AtomicBool::new(false),
        });
        if has_begun {
            let reader = Arc::clone(&reader);
            drop(spawn_blocking(move || reader.advance(None)));
        }
        Ok(reader)
    }

    /// Length of the stream.
    pub(super) fn length(&self) -> u64 {
        self.layout.length()
    }

    /// The spans that overlap a range.
    pub(super) fn spans_of(&self, range: &Range<u64>) -> Range<u32> {
        self.layout.spans_of(&(range.start.min(self.length())..range.end.min(self.length())))
    }

    /// How much of the stream is verified.
    pub(super) fn verified(&self) -> Verified {
        match &self.mode {
            Mode::Single { checked } if !checked.load(Ordering::Relaxed) && !self.has(0) => Verified::Unread,
            // A reader that waited for the digest may get here before the index is stored.
            Mode::Unchecked { check, index } if index.get().is_none() && !check.has_held() => Verified::Partial,
            _ => Verified::Whole,
        }
    }

    /// Whether it must not be used any more: the attached index turned out wrong, or an unverified blob came over an untrusted transport.
    pub(super) fn is_distrusted(&self) -> bool {
        match &self.mode {
            Mode::Attached(_) => attached_index::is_distrusted(&self.shared, &self.source),
            _ => self.is_unchecked() && self.shared.strict(&self.source),
        }
    }

    /// Whether it serves a blob whose digest is not verified yet.
    pub(super) fn is_unchecked(&self) -> bool {
        self.open_check().is_some()
    }

    /// The check of a blob being served unverified, unless it has succeeded.
    pub(super) fn open_check(&self) -> Option<&RunningCheck> {
        match &self.mode {
            Mode::Unchecked { check, index } if index.get().is_none() => Some(check),
            _ => None,
        }
    }

    /// Whether fetched spans are stored in the cache.
    pub(super) fn keeps(&self) -> bool {
        !self.is_ciphertext() && self.shared.copies(&self.source)
    }

    /// Whether it reads for a sealed reader.
    pub(super) fn is_ciphertext(&self) -> bool {
        matches!(self.mode, Mode::Ciphertext(_))
    }

    /// Records that a span does not match the index.
    pub(super) fn found_wrong(&self) {
        if let Mode::Attached(_) = self.mode {
            attached_index::distrust(&self.shared, &self.source);
        }
    }

    /// Memory taken by its index, in bytes: an index stored unsealed is mapped.
    pub(super) fn memory(&self) -> u64 {
        match &self.mode {
            Mode::Sealed { index, .. } => index.as_bytes().len() as u64,
            _ => 0,
        }
    }

    /// The index, if there is one yet.
    pub(super) fn index(&self) -> Option<&LayerIndex> {
        self.mode.index()
    }

    /// Whether spans are verified by their content.
    pub(super) fn is_of_content(&self) -> bool {
        self.index().is_some_and(LayerIndex::is_of_content)
    }

    /// A span, with its digest if known.
    pub(super) fn span(&self, number: u32) -> Option<Span> {
        let stream = self.layout.span(number);
        if let Some(span) = self.index().and_then(|index| index.span(number)).filter(|span| span.stream == stream) {
            return Some(span);
        }
        let is_raw = matches!(self.mode, Mode::Single { .. } | Mode::Unchecked { .. }) && number < self.layout.count();
        is_raw.then(|| Span { blob: stream.clone(), stream, restart: Restart::Clean, digest: None })
    }

    /// Verifies the blob bytes of a span as far as possible.
    pub(super) fn check_span(&self, number: u32, span: &Span, blob: &[u8]) -> Checked {
        match (&self.mode, span.digest) {
            (Mode::Single { checked }, _) => {
                let expected = self.source.descriptor.digest;
                let mut hasher = Hasher::new(expected.algorithm());
                hasher.update(blob);
                let found = hasher.finish();
                checked.fetch_or(found == expected, Ordering::Relaxed);
                if found == expected { Checked::Right } else { Checked::Wrong { expected, found } }
            }
            (_, Some(expected)) => {
                let found: [u8; 32] = Sha256::digest(blob).into();
                let [expected, found] = [expected, found].map(Digest::from_sha256);
                if found == expected { Checked::Right } else { Checked::Wrong { expected, found } }
            }
            (Mode::Unchecked { check, .. }, None) if check.agrees(number, blob) => Checked::Open,
            (Mode::Unchecked { .. }, None) => Checked::Changed,
            _ => Checked::Unknown,
        }
    }

    /// The error of a blob that turned out wrong while being read.
    pub(super) fn failure(&self) -> Result<(), Error> {
        match self.open_check().and_then(RunningCheck::failure) {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// A whole range, if it is in the cache or in memory.
    pub(super) fn here(&self, range: &Range<u64>) -> Option<Bytes> {
        let spans = self.layout.spans_of(range);
        if spans.end.saturating_sub(spans.start) == 1 {
            return self.piece(spans.start, range.clone());
        }
        // Checks before copying: a long range with a missing end costs nothing here.
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
            match self.cached_piece(cached, span, within.clone()) {
                Ok(Some(data)) => return Some(data),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot read a cached span of {}; fetching it again", self.source.label()),
            }
        }
        let data = self.shared.recent.get(self.number, span)?;
        Some(part_of(&data, self.layout.span(span).start, &within))
    }

    fn cached_piece(&self, cached: &CachedStream, number: u32, within: Range<u64>) -> Result<Option<Bytes>, Error> {
        if self.is_unchecked() {
            return cached.read_unproved(number, within);
        }
        let found = cached.read(number, within.clone())?;
        if found.is_some() || self.source.form != Form::Raw || !cached.has(number) {
            return Ok(found);
        }
        // Left by a reader that did not know its digest.
        let Some(span) = self.span(number) else { return Ok(None) };
        cached.prove(number, |data| matches!(self.check_span(number, &span, data), Checked::Right))?;
        cached.read(number, within)
    }

    /// Stores a span in the cache; returns whether there was room.
    pub(super) fn store(&self, span: u32, data: &[u8], trust: Trust) -> bool {
        let Some(cached) = &self.cached else { return false };
        cached.store(span, data, trust).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot cache a span of {}", self.source.label());
            false
        })
    }

    pub(super) fn tracks(&self) -> parking_lot::MutexGuard<'_, SequentialReads> {
        self.tracks.lock()
    }

    /// Records whether the cache had room; without room nothing more is prefetched.
    pub(super) fn note_room(&self, had_room: bool, rank: Use) {
        if had_room {
            self.crowded.store(false, Ordering::Relaxed);
        } else if rank == Use::Prefetch && self.keeps() {
            self.crowded.store(true, Ordering::Relaxed);
            self.tracks().calm();
        }
    }

    /// Continues the check of a blob being served unverified, with a span that has just arrived. Blocks.
    pub(super) fn advance(&self, fresh: Option<(u32, &[u8])>) {
        let Mode::Unchecked { check, index } = &self.mode else { return };
        if index.get().is_some() {
            return;
        }
        match check.advance(&self.source, &self.layout, self.cached.as_ref(), fresh) {
            Verdict::Open => {}
            Verdict::Held(found) => {
                let stored = self.shared.store_index(&self.source, &names::index(&self.source), *found, &Protection::Plain);
                // Another task may have set it at the same time.
                let _ = index.set(stored);
            }
            Verdict::Failed => {
                self.shared.poison(self.key);
                self.shared.forget_stream(&self.key);
                self.shared.recent.forget(self.number);
            }
        }
    }
}

/// The outcome of verifying a span.
pub(super) enum Checked {
    /// It matches its digest.
    Right,
    /// It has no digest yet, and the transport is trusted.
    Open,
    /// It does not match its digest.
    Wrong {
        /// The expected digest.
        expected: Digest,
        /// The actual digest.
        found: Digest,
    },
    /// It has no digest yet, but differs from what the registry sent before.
    Changed,
    /// It should have a digest, but has none.
    Unknown,
}

/// The part of a span's `data` that starts at `start`.
pub(super) fn part_of(data: &Bytes, start: u64, within: &Range<u64>) -> Bytes {
    let place = |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX).min(data.len());
    data.slice(place(within.start)..place(within.end).max(place(within.start)))
}

/// The layout described by an index.
pub(super) fn layout_of(index: &LayerIndex) -> Layout {
    let starts: Vec<u64> = (0..index.span_count()).filter_map(|number| index.span(number)).map(|span| span.stream.start).collect();
    Layout::new(starts, index.stream_length(), index.members().collect::<Vec<_>>())
}
