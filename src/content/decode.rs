//! Sequential decoders, and the pool in which they wait for the next sequential reader if decoding cannot start in the middle.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind};
use crate::layer::{LayerIndex, Restart, Span, SpanDecoder, Windows};

/// Longest span to decode, in bytes; the layer module creates none longer than 4 MiB.
const LONGEST: u64 = 16 << 20;
/// Most pooled decoders, over all streams.
const DECODERS: usize = 8;
/// How long a decoder stays in the pool.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// Decodes consecutive spans.
pub(super) struct SequentialDecoder {
    decoder: SpanDecoder,
    windows: Arc<dyn Windows>,
    /// The next span.
    next: u32,
    /// Blob offset up to which it was fed.
    fed: u64,
    /// Fed, but not yet consumed by the decoder.
    rest: Vec<u8>,
}

impl SequentialDecoder {
    /// A decoder positioned before a span that can restart.
    pub(super) fn new(index: &LayerIndex, number: u32, windows: &Arc<dyn Windows>) -> Result<Self, Error> {
        let (decoder, windows) = (SpanDecoder::new(index, number, windows)?, Arc::clone(windows));
        Ok(Self { decoder, windows, next: number, fed: 0, rest: Vec::new() })
    }

    /// The next span.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Decodes the next span from its complete blob range.
    pub(super) fn decode(&mut self, index: &LayerIndex, span: &Span, blob: &[u8]) -> Result<Vec<u8>, Error> {
        let gap = self.fed != 0 && span.blob.start > self.fed;
        if self.fed != 0 && (span.restart == Restart::Clean || gap && span.restart != Restart::No) {
            // Bytes between spans belong to no span, and a decoder must not see them.
            let windows = Arc::clone(&self.windows);
            *self = Self::new(index, self.next, &windows)?;
        }
        let known = usize::try_from(self.fed.saturating_sub(span.blob.start)).unwrap_or(usize::MAX);
        let fresh = blob.get(known.min(blob.len())..).unwrap_or_default();
        self.fed = self.fed.max(span.blob.end);
        let mut joined = std::mem::take(&mut self.rest);
        let input = if joined.is_empty() {
            fresh
        } else {
            joined.extend_from_slice(fresh);
            &joined
        };
        let length = span.stream.end - span.stream.start;
        let wanted = usize::try_from(length.min(LONGEST)).unwrap_or(usize::MAX);
        let mut output = Vec::with_capacity(wanted);
        let mut used = 0;
        while output.len() < wanted {
            let before = output.len();
            let consumed = self.decoder.decode(input.get(used..).unwrap_or_default(), &mut output, wanted - before)?;
            used += consumed;
            if consumed == 0 && output.len() == before {
                break;
            }
        }
        if output.len() as u64 != length {
            let message = format!("span {} decodes to {} bytes instead of {length}", self.next, output.len());
            return Err(Error::new(ErrorKind::Integrity, message));
        }
        self.rest = input.get(used..).unwrap_or_default().to_vec();
        self.next += 1;
        Ok(output)
    }
}

struct Entry {
    since: Instant,
    /// The number of the reader it belongs to.
    reader: u64,
    decoder: SequentialDecoder,
}

/// The pooled decoders, most recent last. Each holds the memory of its window.
#[derive(Default)]
pub(super) struct DecoderPool {
    /// Locked briefly.
    entries: Mutex<VecDeque<Entry>>,
}

impl DecoderPool {
    /// The decoder of a reader with the least left to decode before `span`, if it is at `restart` or later.
    pub(super) fn take(&self, reader: u64, restart: u32, span: u32) -> Option<SequentialDecoder> {
        let mut entries = self.entries.lock();
        let fits = |entry: &Entry| entry.reader == reader && (restart..=span).contains(&entry.decoder.next());
        let fitting = entries.iter().enumerate().filter(|(_, entry)| fits(entry));
        let (place, _) = fitting.max_by_key(|(_, entry)| entry.decoder.next())?;
        entries.remove(place).map(|entry| entry.decoder)
    }

    /// Pools a decoder, unless memory `is_short`; drops the oldest if there are too many.
    pub(super) fn put(&self, is_short: impl FnOnce() -> bool, reader: u64, decoder: SequentialDecoder) {
        let mut entries = self.entries.lock();
        // Under the lock: a waiter for memory clears the decoders pooled before it was seen here.
        if is_short() {
            return;
        }
        entries.push_back(Entry { since: Instant::now(), reader, decoder });
        while entries.len() > DECODERS {
            entries.pop_front();
        }
    }

    /// Drops decoders that waited too long.
    pub(super) fn expire(&self) {
        self.entries.lock().retain(|entry| entry.since.elapsed() < IDLE);
    }

    /// Drops all decoders.
    pub(super) fn clear(&self) {
        self.entries.lock().clear();
    }
}
