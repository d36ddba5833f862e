//! Sets of byte ranges: sorted, neither touching nor overlapping. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

/// Sorted, merged ranges: end by start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

/// The effect of adding a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// Starts of the ranges merged into the new one.
    pub gone: Vec<u64>,
    /// The merged range.
    pub range: Range<u64>,
}

impl Ranges {
    /// Decodes stored ranges, which must be sorted, separate and non-empty; `None` otherwise.
    pub fn of(stored: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let mut ranges = BTreeMap::new();
        let mut last = None;
        for (start, end) in stored {
            if start >= end || last.is_some_and(|last| last >= start) {
                return None;
            }
            last = Some(end);
            ranges.insert(start, end);
        }
        Some(Self(ranges))
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The end of the range that contains an offset.
    pub fn end_at(&self, offset: u64) -> Option<u64> {
        self.0.range(..=offset).next_back().map(|(_, end)| *end).filter(|end| *end > offset)
    }

    /// The start of the first range after an offset.
    pub fn next_start(&self, offset: u64) -> Option<u64> {
        self.0.range(offset.checked_add(1)?..).next().map(|(start, _)| *start)
    }

    /// Whether it contains a whole range.
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.end_at(range.start).is_some_and(|end| end >= range.end)
    }

    /// The effect of adding a non-empty range.
    pub fn joined(&self, range: &Range<u64>) -> Joined {
        let mut joined = Joined { gone: Vec::new(), range: range.clone() };
        let before = self.0.range(..=range.start).next_back().filter(|(_, end)| **end >= range.start);
        let behind = self.0.range(range.start.saturating_add(1)..=range.end.max(range.start.saturating_add(1)));
        for (start, end) in before.into_iter().chain(behind.filter(|(start, _)| **start <= range.end)) {
            joined.gone.push(*start);
            joined.range = joined.range.start.min(*start)..joined.range.end.max(*end);
        }
        joined
    }

    /// Adds a range.
    pub fn join(&mut self, joined: &Joined) {
        for start in &joined.gone {
            self.0.remove(start);
        }
        self.0.insert(joined.range.start, joined.range.end);
    }

    /// Drops everything at and after an offset.
    pub fn cut(&mut self, end: u64) {
        self.0.split_off(&end);
        if let Some((_, last)) = self.0.iter_mut().next_back() {
            *last = end.min(*last);
        }
    }

    /// The first uncovered bytes at or after an offset and before an end.
    pub fn gap(&self, offset: u64, end: u64) -> Option<Range<u64>> {
        let start = self.end_at(offset).unwrap_or(offset);
        // Ranges do not touch, so a gap starts where one ends.
        let gap = start..self.next_start(start).unwrap_or(end).min(end);
        if gap.is_empty() { None } else { Some(gap) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_rows_are_refused() {
        for stored in [vec![(1, 1)], vec![(2, 1)], vec![(0, 5), (5, 6)], vec![(0, 5), (3, 6)], vec![(4, 5), (0, 1)]] {
            assert_eq!(Ranges::of(stored), None);
        }
        assert!(Ranges::of([(0, 5), (6, 7)]).is_some());
    }

    proptest! {
        #[test]
        fn ranges_are_the_set_of_bytes_that_was_put_in(
            steps in prop::collection::vec((0..40u64, 1..12u64, any::<bool>()), 1..20),
        ) {
            let (mut ranges, mut bytes) = (Ranges::default(), [false; 64]);
            for (start, length, joins) in steps {
                if joins {
                    ranges.join(&ranges.joined(&(start..start + length)));
                    bytes[start as usize..(start + length) as usize].fill(true);
                } else {
                    ranges.cut(start);
                    bytes[start as usize..].fill(false);
                }
                let of_bytes: Vec<_> = (0..64).filter(|at| bytes[*at as usize]).collect();
                let of_ranges: Vec<_> = (0..64).filter(|at| ranges.end_at(*at).is_some()).collect();
                prop_assert_eq!(of_bytes, of_ranges);
                prop_assert_eq!(Ranges::of(ranges.0.clone()), Some(ranges.clone()), "they are merged");
                for at in 0..50_usize {
                    let gap = (at..50).find(|at| !bytes[*at]).map(|from| {
                        from as u64..(from..50).find(|at| bytes[*at]).unwrap_or(50) as u64
                    });
                    prop_assert_eq!(ranges.gap(at as u64, 50), gap);
                    prop_assert_eq!(ranges.covers(&(at as u64..50)), (at..50).all(|at| bytes[at]));
                }
            }
        }
    }
}
