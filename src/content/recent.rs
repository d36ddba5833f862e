//! The most recent spans that the cache did not store, so that small reads of one span do not refetch it.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

/// Reader and span.
type Key = (u64, u32);

#[derive(Default)]
struct State {
    spans: HashMap<Key, Bytes>,
    /// Oldest first.
    order: VecDeque<Key>,
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
        let state = &mut *state;
        if data.len() as u64 > self.limit || state.spans.contains_key(&(reader, span)) {
            return;
        }
        state.bytes += data.len() as u64;
        state.order.push_back((reader, span));
        state.spans.insert((reader, span), data);
        while state.bytes > self.limit {
            let Some(oldest) = state.order.pop_front() else { break };
            state.bytes -= state.spans.remove(&oldest).map_or(0, |data| data.len() as u64);
        }
    }

    /// A span, if still present.
    pub(super) fn get(&self, reader: u64, span: u32) -> Option<Bytes> {
        self.state.lock().spans.get(&(reader, span)).cloned()
    }

    /// Drops all spans of a reader.
    pub(super) fn forget(&self, reader: u64) {
        let mut state = self.state.lock();
        state.order.retain(|key| key.0 != reader);
        state.spans.retain(|key, _| key.0 != reader);
        state.bytes = state.spans.values().map(|data| data.len() as u64).sum();
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
