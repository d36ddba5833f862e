//! The handle on a cached stream: parts of spans in offsets of the stream, sealed if need be, moving on when the stream
//! was unlinked or replaced.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::config::Protection;
use super::error::Error;
use super::layout::Geometry;
use super::shared::Shared;
use super::stream::{OpenStreams, Stream, chunk_position, object_key};
use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::seal::{CHUNK, CHUNK_TAG, ChunkKey};

/// One cached stream.
pub struct CachedStream {
    open: Arc<OpenStreams>,
    blob: Digest,
    geometry: Geometry,
    /// Belongs to this handle, not to the stream: another opener without the right key must not read through ours.
    key: Option<ChunkKey>,
    first: Arc<Stream>,
}

impl CachedStream {
    pub(super) fn new(open: &Arc<OpenStreams>, blob: &Digest, geometry: Geometry, protection: &Protection) -> Result<Self, Error> {
        let name = Shared::stream_name(blob, geometry.is_sealed(), &geometry.fingerprint());
        let first = Stream::open(open, &name, &geometry, true)?.ok_or_else(|| Error {
            kind: ErrorKind::Other,
            message: format!("the cache cannot make a stream for {blob}: its table is broken at once"),
        })?;
        let key = match protection {
            Protection::Plain => None,
            Protection::Sealed(key) => Some(key.clone()),
        };
        Ok(Self { open: Arc::clone(open), blob: *blob, geometry, key, first })
    }

    /// The stream that is in use now.
    fn current(&self) -> &Arc<Stream> {
        let mut stream = &self.first;
        while let Some(next) = stream.next.get() {
            stream = next;
        }
        stream
    }

    /// The stream that is alive now, reopened if the last one was unlinked or replaced.
    fn living(&self, create: bool) -> Result<&Arc<Stream>, Error> {
        let stream = self.current();
        if stream.dead()
            && let Some(next) = Stream::open(&self.open, stream.name(), &self.geometry, create)?
            && !Arc::ptr_eq(&next, stream)
        {
            // If another thread was faster, its answer counts.
            let _ = stream.next.set(next);
        }
        Ok(self.current())
    }

    /// Part of a span (offsets in the stream), if the span is here and whole. Failing disks make it a miss.
    pub fn read(&self, span: u32, within: Range<u64>) -> Result<Option<Bytes>, Error> {
        let range = self.geometry.stream(span).filter(|range| range.start <= within.start && within.end <= range.end);
        let Some(range) = range.filter(|_| within.start <= within.end) else {
            let message = format!("span {span} of {} does not hold bytes {}..{}", self.blob, within.start, within.end);
            return Err(Error { kind: ErrorKind::Invalid, message });
        };
        let stream = if self.current().dead() { self.living(false)? } else { self.current() };
        match &self.key {
            None => Ok(stream.read_span(span, within)),
            Some(key) => Ok(self.read_sealed(stream, key, span, range.start, within)),
        }
    }

    fn read_sealed(&self, stream: &Arc<Stream>, key: &ChunkKey, span: u32, start: u64, within: Range<u64>) -> Option<Bytes> {
        let stored = self.geometry.stored(span)?;
        let (chunk, whole) = (CHUNK as u64, (CHUNK + CHUNK_TAG) as u64);
        let first = (within.start - start) / chunk;
        let last = (within.end - start).div_ceil(chunk);
        let wanted = stored.start + first * whole..(stored.start + last * whole).min(stored.end).max(stored.start + first * whole);
        let sealed = stream.read_span(span, wanted.start.min(stored.end)..wanted.end.min(stored.end))?;
        let key = object_key(key, &self.blob, stream.table.identity());
        let mut open = Vec::with_capacity(sealed.len());
        // The checksum held, so this is another key's span: nothing for this caller, and not broken.
        key.open(chunk_position(span) + first, &sealed, &mut open).ok()?;
        let skip = usize::try_from(within.start - start - first * chunk).ok()?;
        let length = usize::try_from(within.end - within.start).ok()?;
        let bytes = Bytes::from(open);
        (skip + length <= bytes.len()).then(|| bytes.slice(skip..skip + length))
    }

    /// Whether a span is here.
    pub fn has(&self, span: u32) -> bool {
        let stream = if self.current().dead() { self.living(false).unwrap_or(&self.first) } else { self.current() };
        stream.table.state(span).present()
    }

    /// Keeps a verified span. `false`, which is not an error, if the budget (all of it pinned or in flight) or the disk
    /// leaves no room, or if another writer is just storing this span.
    pub fn store(&self, span: u32, data: &[u8]) -> Result<bool, Error> {
        let length = self.geometry.stream(span).map(|range| range.end - range.start);
        if length != Some(data.len() as u64) {
            let message = format!("{} bytes are not span {span} of {}", data.len(), self.blob);
            return Err(Error { kind: ErrorKind::Invalid, message });
        }
        // A stream that is unlinked again and again while we try is not worth more.
        for _ in 0..3 {
            let stream = self.living(true)?;
            if stream.table.state(span).present() && !stream.dead() {
                return Ok(true);
            }
            let stored = match &self.key {
                None => stream.write_span(span, data)?,
                Some(key) => {
                    let mut sealed = Vec::with_capacity(data.len() + data.len().div_ceil(CHUNK) * CHUNK_TAG);
                    object_key(key, &self.blob, stream.table.identity()).seal(chunk_position(span), data, &mut sealed);
                    stream.write_span(span, &sealed)?
                }
            };
            if let Some(kept) = stored {
                return Ok(kept);
            }
        }
        Ok(false)
    }
}
