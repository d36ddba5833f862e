//! Decoders that go on span after span, and the pool in which they wait for the next sequential reader where decoding cannot
//! begin in the middle.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind};
use crate::layer::{LayerIndex, Restart, Span, SpanDecoder, Windows};

/// Longest span that is decoded; the layer module makes none longer than 4 MiB.
const LONGEST: u64 = 16 << 20;
/// Decoders that wait at most, of all streams.
const DECODERS: usize = 8;
/// How long a decoder waits.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// Decodes consecutive spans.
pub(super) struct SequentialDecoder {
    decoder: SpanDecoder,
    windows: Arc<dyn Windows>,
    /// The span that comes next.
    next: u32,
    /// The blob up to where it was fed.
    fed: u64,
    /// Fed, but not consumed by the decoder yet.
    rest: Vec<u8>,
}

impl SequentialDecoder {
    /// A decoder in front of a span that can restart.
    pub(super) fn new(index: &LayerIndex, number: u32, windows: &Arc<dyn Windows>) -> Result<Self, Error> {
        let (decoder, windows) = (SpanDecoder::new(index, number, windows)?, Arc::clone(windows));
        Ok(Self { decoder, windows, next: number, fed: 0, rest: Vec::new() })
    }

    /// The span that comes next.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Decodes the next span from the whole of its blob range.
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
    /// The number of the reader that it belongs to.
    reader: u64,
    decoder: SequentialDecoder,
}

/// The waiting decoders, the most recent last. Each holds the memory of its window.
#[derive(Default)]
pub(super) struct DecoderPool {
    /// Held for a few moves.
    entries: Mutex<VecDeque<Entry>>,
}

impl DecoderPool {
    /// The decoder of a reader that has least to decode before it reaches `span`, if it stands at `restart` or behind it.
    pub(super) fn take(&self, reader: u64, restart: u32, span: u32) -> Option<SequentialDecoder> {
        let mut entries = self.entries.lock();
        let fits = |entry: &Entry| entry.reader == reader && (restart..=span).contains(&entry.decoder.next());
        let fitting = entries.iter().enumerate().filter(|(_, entry)| fits(entry));
        let (place, _) = fitting.max_by_key(|(_, entry)| entry.decoder.next())?;
        entries.remove(place).map(|entry| entry.decoder)
    }

    /// Keeps a decoder, unless memory `is_short`; the one that waited longest goes if there are too many.
    pub(super) fn put(&self, is_short: impl FnOnce() -> bool, reader: u64, decoder: SequentialDecoder) {
        let mut entries = self.entries.lock();
        // Under the lock: a waiter for memory clears the decoders that were put before it was seen here.
        if is_short() {
            return;
        }
        entries.push_back(Entry { since: Instant::now(), reader, decoder });
        while entries.len() > DECODERS {
            entries.pop_front();
        }
    }

    /// Drops what waited too long.
    pub(super) fn expire(&self) {
        self.entries.lock().retain(|entry| entry.since.elapsed() < IDLE);
    }

    /// Drops all.
    pub(super) fn clear(&self) {
        self.entries.lock().clear();
    }
}
