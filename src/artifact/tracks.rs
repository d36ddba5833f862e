//! The sequential readers of an artifact: which file each opens next, and which it may want after that. Pure.

use std::collections::VecDeque;
use std::ops::Range;

use super::tree::NodeId;

/// The first window, in nodes.
const FIRST: u32 = 4;
/// The largest window of raw blobs: the streams of this many blobs stay open.
pub(super) const RAW: u32 = 24;
/// The largest window of files in layers.
pub(super) const PACKED: u32 = 4096;
/// Most nodes between a file and the next one: directories, and files that are not raw blobs.
const SLACK: u32 = 64;
/// Readers of one artifact tracked at once.
const READERS: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Track {
    /// The node after the last file opened.
    next: NodeId,
    /// Nodes to fetch ahead; 0 until the reader has proved to be sequential.
    window: u32,
    /// The first node not fetched yet.
    reached: NodeId,
}

/// The sequential readers of an artifact.
#[derive(Debug)]
pub(super) struct SequentialOpens {
    tracks: VecDeque<Track>,
    /// The largest window.
    largest: u32,
}

impl SequentialOpens {
    /// No readers yet.
    pub fn new(largest: u32) -> Self {
        Self { tracks: VecDeque::new(), largest }
    }

    /// Records that of the nodes returned last those from `node` on are not fetched.
    pub fn reached_only(&mut self, node: NodeId) {
        if let Some(track) = self.tracks.back_mut() {
            track.reached = node.max(track.next);
            track.window = track.reached - track.next;
        }
    }

    /// Records that a file was opened; returns the nodes whose files to fetch. The numbers of nodes follow a walk: the names of a directory are
    /// neighbours.
    pub fn opened(&mut self, node: NodeId) -> Range<NodeId> {
        let next = node.saturating_add(1);
        let follows = |track: &Track| (track.next..track.next.saturating_add(SLACK)).contains(&node);
        let Some(mut track) = self.tracks.iter().position(follows).and_then(|place| self.tracks.remove(place)) else {
            self.tracks.push_back(Track { next, window: 0, reached: next });
            if self.tracks.len() > READERS {
                self.tracks.pop_front();
            }
            return 0..0;
        };
        // Nothing of what was fetched last was opened: the reader must prove sequential again.
        let is_outrun = track.window > 0 && node >= track.reached;
        track.next = next;
        track.reached = track.reached.max(next);
        let mut ahead = 0..0;
        if is_outrun {
            track.window = 0;
            self.tracks.push_back(track);
            return ahead;
        }
        // Half the window may still be ahead.
        if track.reached - next <= track.window / 2 {
            track.window = (track.window * 2).clamp(FIRST, self.largest);
            ahead = track.reached..next.saturating_add(track.window).max(track.reached);
            track.reached = ahead.end;
        }
        self.tracks.push_back(track);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_opened_in_order_are_fetched_ahead_once_in_a_doubling_window() {
        let mut tracks = SequentialOpens::new(RAW);
        let mut reached = 0;
        for node in 1..500 {
            let ahead = tracks.opened(node);
            if !ahead.is_empty() {
                assert!(ahead.start >= reached && ahead.start > node && ahead.end <= node + 1 + RAW, "{node}: {ahead:?}");
                reached = ahead.end;
            }
            assert!(node < 2 || reached > node + 1, "{node}: {reached}");
        }
    }

    #[test]
    fn small_gaps_are_tolerated_and_two_readers_are_followed() {
        let mut tracks = SequentialOpens::new(RAW);
        let mut fetched = [0, 0];
        for step in 0..20 {
            for (reader, start) in [0, 10_000].into_iter().enumerate() {
                fetched[reader] += tracks.opened(start + step * 3).len();
            }
        }
        assert!(fetched.iter().all(|count| *count >= 60), "{fetched:?}");
    }

    #[test]
    fn a_reader_that_outruns_what_is_fetched_gets_little() {
        let mut tracks = SequentialOpens::new(PACKED);
        let fetched: usize = (0..1000).map(|step| tracks.opened(step * 50).len()).sum();
        assert!(fetched <= 1000 * FIRST as usize / 2, "{fetched} nodes for 1000 opens");
    }

    #[test]
    fn what_was_not_fetched_is_returned_again() {
        let mut tracks = SequentialOpens::new(PACKED);
        let (mut reached, mut returned) = (2, 0);
        for node in 1..10_000 {
            let ahead = tracks.opened(node);
            if !ahead.is_empty() {
                assert_eq!(ahead.start, reached.max(node + 1), "{node}");
                reached = ahead.end.min(ahead.start + 100);
                returned += 1;
                if reached < ahead.end {
                    tracks.reached_only(reached);
                }
            }
        }
        assert!(returned < 500, "{returned} times");
    }

    #[test]
    fn files_opened_at_random_fetch_nothing() {
        let mut tracks = SequentialOpens::new(RAW);
        for node in [5, 900, 70, 4000, 5, 300, u32::MAX, 2000, 1000] {
            assert_eq!(tracks.opened(node), 0..0);
        }
    }
}
