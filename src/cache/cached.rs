//! A handle on a cached stream: reads parts of spans at stream offsets, unseals them if necessary, and moves on when the stream was unlinked or
//! replaced.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::config::Protection;
use super::layout::Layout;
use super::shared::Shared;
use super::span_key::{chunk_position, object_key};
use super::stream::{OpenStreams, Stream};
use super::table::Trust;
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;
use crate::seal::{CHUNK, CHUNK_TAG, ChunkKey};

/// One cached stream.
pub struct CachedStream {
    open: Arc<OpenStreams>,
    blob: Digest,
    layout: Layout,
    /// Belongs to this handle, not to the stream: another opener without the right key must not read through it.
    key: Option<ChunkKey>,
    /// The current life of the stream. Locked only for a glance.
    current: RwLock<Arc<Stream>>,
}

impl CachedStream {
    /// Opens a stream; creates it if `create`, else `None` if it does not exist.
    pub(super) fn open(
        open: &Arc<OpenStreams>,
        blob: &Digest,
        layout: &Layout,
        protection: &Protection,
        create: bool,
    ) -> Result<Option<Self>, Error> {
        let key = match protection {
            Protection::Plain => None,
            Protection::Sealed(key) => Some(key.clone()),
        };
        let layout = layout.stored_as(key.is_some())?;
        let name = Shared::stream_name(blob, key.is_some(), &layout.fingerprint());
        let stream = Stream::open(open, &name, &layout, create)?;
        Ok(stream.map(|stream| Self { open: Arc::clone(open), blob: *blob, layout, key, current: RwLock::new(stream) }))
    }

    /// Whether its bytes are stored sealed.
    pub(super) fn is_sealed(&self) -> bool {
        self.key.is_some()
    }

    fn current(&self) -> Arc<Stream> {
        Arc::clone(&self.current.read())
    }

    /// The current live stream: reopened if the last one was unlinked or replaced, created if `create`. The dead one if there is no other.
    pub(super) fn living(&self, create: bool) -> Result<Arc<Stream>, Error> {
        let stream = self.current();
        if !stream.dead() {
            return Ok(stream);
        }
        let Some(next) = Stream::open(&self.open, stream.name(), &self.layout, create)? else { return Ok(stream) };
        *self.current.write() = Arc::clone(&next);
        Ok(next)
    }

    /// Part of a proved span (in stream offsets), if the span is present and intact. A failing disk counts as a miss.
    pub fn read(&self, span: u32, within: Range<u64>) -> Result<Option<Bytes>, Error> {
        self.read_trusted(span, within, Trust::Proved)
    }

    /// The same for a span that may be unproved.
    pub fn read_unproved(&self, span: u32, within: Range<u64>) -> Result<Option<Bytes>, Error> {
        self.read_trusted(span, within, Trust::Unproved)
    }

    fn read_trusted(&self, span: u32, within: Range<u64>, trusted: Trust) -> Result<Option<Bytes>, Error> {
        let range = self.layout.span(span);
        if span >= self.layout.count() || within.start < range.start || range.end < within.end || within.end < within.start {
            let message = format!("span {span} of {} does not hold bytes {}..{}", self.blob, within.start, within.end);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let stream = self.living(false)?;
        match &self.key {
            None => Ok(stream.read_span(span, within, trusted)),
            Some(key) => Ok(self.read_sealed(&stream, key, span, range.start, within)),
        }
    }

    /// Verifies a present, unproved span of a plain stream: from then on it is proved, or dropped.
    pub fn prove(&self, span: u32, is_right: impl FnOnce(&[u8]) -> bool) -> Result<(), Error> {
        if self.key.is_none() {
            self.living(false)?.prove_span(span, is_right);
        }
        Ok(())
    }

    fn read_sealed(&self, stream: &Arc<Stream>, key: &ChunkKey, span: u32, start: u64, within: Range<u64>) -> Option<Bytes> {
        let stored = self.layout.stored(span)?;
        let (chunk, whole) = (CHUNK as u64, (CHUNK + CHUNK_TAG) as u64);
        let first = (within.start - start) / chunk;
        let last = (within.end - start).div_ceil(chunk);
        let wanted = stored.start + first * whole..(stored.start + last * whole).min(stored.end).max(stored.start + first * whole);
        let sealed = stream.read_span(span, wanted.start.min(stored.end)..wanted.end.min(stored.end), Trust::Proved)?;
        let key = object_key(key, &self.blob, stream.table.identity());
        let mut open = Vec::with_capacity(sealed.len());
        // The checksum matched, so this is another key's span: a miss for this caller, but not broken.
        key.open(chunk_position(span) + first, &sealed, &mut open).ok()?;
        let skip = usize::try_from(within.start - start - first * chunk).ok()?;
        let length = usize::try_from(within.end - within.start).ok()?;
        let bytes = Bytes::from(open);
        (skip + length <= bytes.len()).then(|| bytes.slice(skip..skip + length))
    }

    /// Whether a span is present, proved or not.
    pub fn has(&self, span: u32) -> bool {
        self.living(false).unwrap_or_else(|_| self.current()).table.state(span).present()
    }

    /// Stores a span; a proved one replaces an unproved one. `false`, which is not an error, if the budget (fully pinned or in flight) or the disk has no
    /// room, or if another writer is storing this span.
    pub fn store(&self, span: u32, data: &[u8], trust: Trust) -> Result<bool, Error> {
        let range = self.layout.span(span);
        if span >= self.layout.count() || range.end - range.start != data.len() as u64 {
            let message = format!("{} bytes are not span {span} of {}", data.len(), self.blob);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        // Give up on a stream that keeps being unlinked while we try.
        for _ in 0..3 {
            let stream = self.living(true)?;
            if !stream.dead() && stream.suffices(span, trust) {
                return Ok(true);
            }
            let stored = match &self.key {
                None => stream.write_span(span, data, trust)?,
                Some(key) => {
                    let mut sealed = Vec::with_capacity(data.len() + data.len().div_ceil(CHUNK) * CHUNK_TAG);
                    object_key(key, &self.blob, stream.table.identity()).seal(chunk_position(span), data, &mut sealed);
                    stream.write_span(span, &sealed, trust)?
                }
            };
            if let Some(kept) = stored {
                return Ok(kept);
            }
        }
        Ok(false)
    }
}
