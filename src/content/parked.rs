//! Decoders that wait for the next sequential reader, where decoding cannot begin in the middle.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::cursor::Cursor;

/// Decoders a stream.
const DECODERS: usize = 4;
/// How long a decoder waits.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// The waiting decoders of one stream, the most recent last.
#[derive(Default)]
pub(super) struct Parked {
    cursors: VecDeque<(Instant, Cursor)>,
}

impl Parked {
    /// The decoder that has least to decode before it reaches `span`, if it stands at `restart` or behind it.
    pub(super) fn take(&mut self, restart: u32, span: u32) -> Option<Cursor> {
        let fitting = self.cursors.iter().enumerate().filter(|(_, (_, cursor))| (restart..=span).contains(&cursor.next()));
        let (place, _) = fitting.max_by_key(|(_, (_, cursor))| cursor.next())?;
        self.cursors.remove(place).map(|(_, cursor)| cursor)
    }

    /// Keeps a decoder; the one that waited longest goes if there are too many.
    pub(super) fn put(&mut self, cursor: Cursor) {
        self.cursors.push_back((Instant::now(), cursor));
        while self.cursors.len() > DECODERS {
            self.cursors.pop_front();
        }
    }

    /// Drops what waited too long.
    pub(super) fn expire(&mut self) {
        self.cursors.retain(|(since, _)| since.elapsed() < IDLE);
    }
}
