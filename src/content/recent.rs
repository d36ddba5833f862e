//! The most recent spans that the cache did not store, so that small reads of one span do not refetch it.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

struct Entry {
    reader: u64,
    span: u32,
    data: Bytes,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: u64,
}

/// A bounded number of bytes over all readers; the oldest are dropped first.
pub(super) struct Recent {
    limit: u64,
    /// Locked briefly, never across an await.
    state: Mutex<State>,
}

impl Recent {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Adds a span, dropping the oldest ones.
    pub(super) fn put(&self, reader: u64, span: u32, data: Bytes) {
        let mut state = self.state.lock();
        if data.len() as u64 > self.limit || state.entries.iter().any(|entry| (entry.reader, entry.span) == (reader, span)) {
            return;
        }
        state.bytes += data.len() as u64;
        state.entries.push_back(Entry { reader, span, data });
        while state.bytes > self.limit {
            let Some(oldest) = state.entries.pop_front() else { break };
            state.bytes -= oldest.data.len() as u64;
        }
    }

    /// A span, if still present.
    pub(super) fn get(&self, reader: u64, span: u32) -> Option<Bytes> {
        let state = self.state.lock();
        state.entries.iter().rev().find(|entry| (entry.reader, entry.span) == (reader, span)).map(|entry| entry.data.clone())
    }

    /// Drops all spans of a reader.
    pub(super) fn forget(&self, reader: u64) {
        let mut state = self.state.lock();
        state.entries.retain(|entry| entry.reader != reader);
        state.bytes = state.entries.iter().map(|entry| entry.data.len() as u64).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_spans_are_dropped_at_the_limit() {
        let recent = Recent::new(100);
        for span in 0..5 {
            recent.put(1, span, Bytes::from(vec![span as u8; 40]));
        }
        assert_eq!(recent.get(1, 2), None);
        assert_eq!(recent.get(1, 3), Some(Bytes::from(vec![3; 40])));
        assert_eq!(recent.get(2, 3), None);
        recent.put(1, 9, Bytes::from(vec![0; 101]));
        assert_eq!(recent.get(1, 9), None);
        recent.forget(1);
        assert_eq!(recent.get(1, 4), None);
    }
}
