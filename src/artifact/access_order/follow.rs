//! Follows a reader along a remembered order: which files to fetch after each one that it opens. Pure.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::artifact::tree::NodeId;

/// The first window, in bytes.
const FIRST: u64 = 1 << 20;
/// How many places a reader may be off and still follow the order: programs with several threads do not repeat theirs exactly.
const SLACK: usize = 64;

/// One reader of an artifact and the order that it is expected to keep.
pub struct Follower {
    order: Vec<NodeId>,
    places: HashMap<NodeId, usize>,
    /// Bytes to fetch for the files in front of each place, and for all.
    bytes: Vec<u64>,
    /// Whether a file at each place was opened, or returned to be fetched.
    done: Vec<bool>,
    opened: usize,
    /// The place after the last file opened, once one was.
    next: Option<usize>,
    /// The place up to which files were returned.
    reached: usize,
    /// Bytes to fetch ahead of it; 0 after a departure, until the reader follows the order again.
    window: u64,
    largest: u64,
}

impl Follower {
    /// An order of files with the bytes to fetch for each. At most `largest` bytes are ahead of the reader.
    pub fn new(files: impl IntoIterator<Item = (NodeId, u64)>, largest: u64) -> Self {
        let (mut order, mut places, mut bytes) = (Vec::new(), HashMap::new(), vec![0_u64]);
        let mut sum = 0_u64;
        for (node, size) in files {
            if places.contains_key(&node) {
                continue;
            }
            places.insert(node, order.len());
            order.push(node);
            sum = sum.saturating_add(size);
            bytes.push(sum);
        }
        let done = vec![false; order.len()];
        Self { order, places, bytes, done, opened: 0, next: None, reached: 0, window: 0, largest }
    }

    /// Records the first open of a file; returns the files to fetch, in order. No file is returned twice, unless it was missed.
    pub fn opened(&mut self, node: NodeId) -> Vec<NodeId> {
        // Files outside of the order are no reason to stop: only those in it cause a fetch.
        let Some(&place) = self.places.get(&node) else { return Vec::new() };
        self.opened += 1;
        self.take(place..place + 1);
        let follows = self.next.is_none_or(|next| place < next.saturating_add(SLACK) && next <= place.saturating_add(SLACK));
        if !follows {
            (self.next, self.reached, self.window) = (Some(place + 1), place + 1, 0);
            return Vec::new();
        }
        let next = self.next.unwrap_or(0).max(place + 1);
        let reached = self.reached.max(next);
        (self.next, self.reached) = (Some(next), reached);
        // Half the window is still ahead: enough, and requests stay large.
        if self.before(reached) - self.before(next) > self.window / 2 {
            return Vec::new();
        }
        self.window = (self.window * 2).max(FIRST).min(self.largest);
        let most = self.before(next).saturating_add(self.window);
        self.reached = self.bytes.partition_point(|bytes| *bytes <= most).saturating_sub(1).max(reached);
        self.take(next..self.reached)
    }

    /// These files could not be fetched: those that are still in front of the reader are returned again.
    pub fn missed(&mut self, files: &[NodeId]) {
        for place in files.iter().filter_map(|file| self.places.get(file)) {
            if let Some(done) = self.done.get_mut(*place) {
                *done = false;
            }
        }
    }

    /// Whether a reader that keeps to the order has just opened this file.
    pub fn expects(&self, node: NodeId) -> bool {
        self.window > 0 && self.places.contains_key(&node)
    }

    /// Bytes to fetch for the files in front of a place.
    fn before(&self, place: usize) -> u64 {
        self.bytes.get(place).or(self.bytes.last()).copied().unwrap_or(0)
    }

    /// The files at these places that were not taken before.
    fn take(&mut self, places: Range<usize>) -> Vec<NodeId> {
        let range = places.start..places.end.min(self.order.len());
        let files = self.order.get(range.clone()).unwrap_or_default();
        let done = self.done.get_mut(range).unwrap_or_default();
        files.iter().zip(done).filter_map(|(node, done)| (!std::mem::replace(done, true)).then_some(*node)).collect()
    }

    /// The order to remember after these files were opened first: they come first, then the rest, then those that others stored meanwhile. A reader that kept
    /// to the order needs those no more that it passed over.
    pub fn renewed(&self, opened: &[NodeId], stored: &[NodeId]) -> Vec<NodeId> {
        let end = opened.iter().filter_map(|node| self.places.get(node)).max().map_or(0, |last| last + 1);
        let kept_to_it = self.opened * 2 > end;
        let first: HashSet<NodeId> = opened.iter().copied().collect();
        let rest = self.order.iter().enumerate().filter(|(place, node)| !first.contains(node) && (*place >= end || !kept_to_it));
        let others = stored.iter().filter(|node| !first.contains(node) && !self.places.contains_key(node));
        opened.iter().copied().chain(rest.map(|(_, node)| *node)).chain(others.copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const LARGEST: u64 = 16 << 20;

    /// Files 1000, 1001, …, of 64 KiB.
    fn follower(files: u32) -> Follower {
        Follower::new((1000..1000 + files).map(|node| (node, 64 * KIB)), LARGEST)
    }

    #[test]
    fn a_reader_that_keeps_to_the_order_gets_each_file_once_in_a_doubling_window() {
        let mut follower = follower(1000);
        let mut fetched = Vec::new();
        for node in 1000..2000 {
            let ahead = follower.opened(node);
            fetched.extend(ahead);
            let reached = fetched.last().copied().unwrap_or(node).max(node);
            assert!(u64::from(reached - node) * 64 * KIB <= LARGEST, "{node}: {reached}");
            assert!(node == 1999 || reached > node, "{node} waits");
        }
        assert_eq!(fetched, (1001..2000).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_open_of_any_file_starts_with_a_small_window() {
        let mut follower = follower(1000);
        assert!(follower.opened(7).is_empty());
        assert_eq!(follower.opened(1500), (1501..1517).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_departs_from_the_order_gets_nothing_until_it_follows_again() {
        let mut follower = follower(4000);
        follower.opened(1000);
        let fetched: usize = (1..30).map(|step| follower.opened(1000 + step * 129).len()).sum();
        assert_eq!(fetched, 0);
        follower.opened(1200);
        assert_eq!(follower.opened(1201).len(), 16);
    }

    #[test]
    fn threads_that_change_places_and_other_files_in_between_do_not_end_it() {
        let mut follower = follower(600);
        let mut fetched = vec![1000];
        for node in (1000..1600).step_by(2) {
            fetched.extend(follower.opened(node + 1));
            fetched.extend(follower.opened(5));
            fetched.extend(follower.opened(node));
        }
        fetched.sort_unstable();
        fetched.dedup();
        assert!(fetched.len() >= 598, "{}", fetched.len());
    }

    #[test]
    fn at_most_the_largest_window_is_wasted() {
        for files in [1, 5, 1000] {
            let mut follower = Follower::new((0..files).map(|node| (node, 700 * KIB)), 2 << 20);
            let fetched: usize = follower.opened(0).len() + follower.opened(1).len();
            assert!(fetched as u64 * 700 * KIB <= 3 << 20, "{fetched}");
        }
        let mut none = Follower::new((0..9).map(|node| (node, 64 * KIB)), 0);
        assert!(none.opened(0).is_empty());
    }

    #[test]
    fn the_order_is_renewed_by_what_was_opened_and_skipped() {
        let renewed = |opened: &[NodeId]| {
            let mut follower = follower(6);
            opened.iter().for_each(|node| drop(follower.opened(*node)));
            follower.renewed(opened, &[])
        };
        assert_eq!(renewed(&[]), [1000, 1001, 1002, 1003, 1004, 1005]);
        // One that looked at a single file says nothing about the others.
        assert_eq!(renewed(&[1004]), [1004, 1000, 1001, 1002, 1003, 1005]);
        assert_eq!(renewed(&[1001, 7, 1000, 1003]), [1001, 7, 1000, 1003, 1004, 1005]);
        assert_eq!(Follower::new([], 1).renewed(&[3, 2], &[]), [3, 2]);
    }

    #[test]
    fn what_others_stored_meanwhile_is_kept_behind_what_was_passed_over() {
        let mut follower = follower(4);
        for node in [1000, 1001, 1003] {
            follower.opened(node);
        }
        assert_eq!(follower.renewed(&[1000, 1001, 1003], &[8, 1001, 1002, 9]), [1000, 1001, 1003, 8, 9]);
    }

    #[test]
    fn missed_files_are_returned_again_while_they_are_in_front_of_the_reader() {
        let mut follower = follower(1000);
        assert_eq!(follower.opened(1000), (1001..1017).collect::<Vec<_>>());
        follower.missed(&(1001..1017).collect::<Vec<_>>());
        assert!((1001..1008).all(|node| follower.opened(node).is_empty()));
        assert_eq!(follower.opened(1008), (1009..1041).collect::<Vec<_>>());
        assert!(follower.opened(1009).is_empty());
    }
}
