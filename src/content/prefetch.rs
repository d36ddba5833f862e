//! Decides when to prefetch: a window that doubles while a reader is sequential. Pure.

use std::collections::VecDeque;
use std::ops::Range;

/// The first window, in bytes.
const FIRST: u64 = 1 << 20;
/// The largest window, in bytes.
const LARGEST: u64 = 64 << 20;
/// How far a read may be from the end of the last one and still count as sequential: the kernel sends the parts of one readahead in any order.
const SLACK: u64 = 512 << 10;
/// Readers of one stream tracked at once.
const READERS: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Track {
    /// Where the reader's last read ended.
    next: u64,
    /// Bytes to prefetch; 0 until the reader has proved sequential.
    window: u64,
    /// How far prefetching has got.
    reached: u64,
    /// The largest window that has paid off so far.
    largest: u64,
}

/// The sequential readers of one stream.
pub(super) struct SequentialReads {
    tracks: VecDeque<Track>,
    largest: u64,
}

impl SequentialReads {
    /// No readers yet. The window is limited by the cache size: prefetched content must survive until it is read.
    pub(super) fn new(cache_size: u64) -> Self {
        Self { tracks: VecDeque::new(), largest: (cache_size / 8).clamp(FIRST, LARGEST) }
    }

    /// Records a read and returns what to prefetch. `end` is where the reader stops at the latest; `missed` means that the bytes were neither present nor
    /// being fetched.
    pub(super) fn note(&mut self, read: &Range<u64>, end: u64, missed: bool) -> Option<Range<u64>> {
        let follows = |track: &Track| read.start + SLACK >= track.next && read.start <= track.next + SLACK;
        let Some(place) = self.tracks.iter().position(follows) else {
            self.tracks.push_back(Track { next: read.end, window: 0, reached: read.end, largest: self.largest });
            if self.tracks.len() > READERS {
                self.tracks.pop_front();
            }
            return None;
        };
        let mut track = self.tracks.remove(place)?;
        let moved = read.end > track.next;
        if missed && read.start >= track.next && read.end <= track.reached {
            // Prefetched, and evicted before it was read.
            track.largest = (track.window / 2).max(FIRST);
            track.window = track.largest / 2;
            track.reached = read.end;
        }
        track.next = track.next.max(read.end);
        track.reached = track.reached.max(track.next);
        let ahead = if moved { track.ahead(end) } else { None };
        self.tracks.push_back(track);
        ahead
    }

    /// Prefetching did not pay off: readers must prove sequential again.
    pub(super) fn calm(&mut self) {
        self.tracks.clear();
    }
}

impl Track {
    fn ahead(&mut self, end: u64) -> Option<Range<u64>> {
        // Half the window is still ahead: enough, and requests stay large.
        if self.window > 0 && self.reached - self.next > self.window / 2 {
            return None;
        }
        self.window = if self.window == 0 { FIRST } else { (self.window * 2).min(self.largest) };
        let range = self.reached..(self.next.saturating_add(self.window)).min(end);
        if range.start >= range.end {
            return None;
        }
        self.reached = range.end;
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u64 = 128 << 10;

    #[test]
    fn a_sequential_reader_gets_a_doubling_window_up_to_the_bound() {
        let mut tracks = SequentialReads::new(u64::MAX);
        let mut largest = 0;
        let mut reached = 0;
        for number in 0..8000 {
            let read = number * READ..(number + 1) * READ;
            if let Some(ahead) = tracks.note(&read, u64::MAX, false) {
                assert!(ahead.start >= reached.min(read.end) && ahead.end > reached);
                reached = ahead.end;
                largest = largest.max(ahead.end - read.end);
            }
        }
        assert_eq!(largest, LARGEST);
    }

    #[test]
    fn single_and_random_reads_fetch_nothing_ahead() {
        let mut tracks = SequentialReads::new(u64::MAX);
        for place in [0, 900, 30, 70, 500, 10, 300] {
            let start = place * (1 << 20);
            assert_eq!(tracks.note(&(start..start + READ), u64::MAX, false), None);
        }
    }

    #[test]
    fn nothing_is_fetched_beyond_the_end_of_the_member() {
        let mut tracks = SequentialReads::new(u64::MAX);
        let end = 10 * READ;
        tracks.note(&(0..READ), end, false);
        assert_eq!(tracks.note(&(READ..2 * READ), end, false), Some(2 * READ..end));
        for number in 2..10 {
            assert_eq!(tracks.note(&(number * READ..(number + 1) * READ), end, false), None);
        }
    }

    #[test]
    fn the_window_fits_the_cache_and_shrinks_after_useless_read_ahead() {
        let widest = |tracks: &mut SequentialReads, from: u64, missed: bool| {
            let ahead = (from..from + 400).filter_map(|number| {
                let read = number * READ..(number + 1) * READ;
                tracks.note(&read, u64::MAX, missed).map(|ahead| ahead.end - read.end)
            });
            ahead.max().unwrap_or(0)
        };
        let mut tracks = SequentialReads::new(64 << 20);
        assert_eq!(widest(&mut tracks, 0, false), 8 << 20);
        assert!(widest(&mut tracks, 400, true) <= 8 << 20);
        assert_eq!(widest(&mut tracks, 800, false), FIRST);
    }

    #[test]
    fn two_interleaved_readers_are_both_followed() {
        let mut tracks = SequentialReads::new(u64::MAX);
        let far = 1 << 30;
        let mut ahead = [0, 0];
        for number in 0..4 {
            for (reader, base) in [0, far].into_iter().enumerate() {
                let read = base + number * READ..base + (number + 1) * READ;
                ahead[reader] += u32::from(tracks.note(&read, u64::MAX, false).is_some());
            }
        }
        assert!(ahead.iter().all(|count| *count > 0), "{ahead:?}");
    }
}
