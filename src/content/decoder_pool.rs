//! Decoders that wait for the next sequential reader, where decoding cannot begin in the middle.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::sequential_decoder::SequentialDecoder;

/// Decoders that wait at most, of all streams.
const DECODERS: usize = 8;
/// How long a decoder waits.
pub(super) const IDLE: Duration = Duration::from_secs(60);

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
