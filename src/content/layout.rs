//! Borders of the spans of one logical stream, from its index or, for a raw blob, from its claimed size.

use std::ops::Range;
use std::sync::Arc;

use super::Error;
use crate::cache::StreamLayout;
use crate::error::ErrorKind;
use crate::layer::{LayerIndex, RAW_SPAN};

/// Most spans that a claimed size may make: 1 TiB of raw blob, 8 MiB of borders.
const RAW_SPANS: u64 = 1 << 20;

/// Spans and large members of a stream.
#[derive(Clone)]
pub(super) struct Layout {
    /// As the cache wants it.
    pub(super) cached: StreamLayout,
}

impl Layout {
    /// The layout that an index describes.
    pub(super) fn of_index(index: &LayerIndex) -> Self {
        let starts = (0..index.span_count()).filter_map(|number| index.span(number)).map(|span| span.stream.start).collect();
        Self { cached: StreamLayout { starts, length: index.stream_length(), members: index.members().collect() } }
    }

    /// The layout of a raw blob of a claimed size.
    pub(super) fn of_raw(size: u64) -> Result<Self, Error> {
        let count = size.div_ceil(RAW_SPAN);
        if count > RAW_SPANS {
            return Err(Error::new(ErrorKind::Unsupported, format!("a blob of {size} bytes is larger than ocifs can read (1 TiB)")));
        }
        let starts: Arc<[u64]> = (0..count).map(|number| number * RAW_SPAN).collect();
        Ok(Self { cached: StreamLayout { starts, length: size, members: Arc::from([]) } })
    }

    /// Length of the stream.
    pub(super) fn length(&self) -> u64 {
        self.cached.length
    }

    /// Number of spans.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.cached.starts.len()).unwrap_or(u32::MAX)
    }

    /// The range of the stream that a span covers; empty beyond the last.
    pub(super) fn span(&self, number: u32) -> Range<u64> {
        let starts = &self.cached.starts;
        let at = |number: usize| starts.get(number).copied().unwrap_or(self.cached.length);
        at(number as usize)..at(number as usize + 1)
    }

    /// The spans that a range of the stream touches.
    pub(super) fn spans_of(&self, range: &Range<u64>) -> Range<u32> {
        if range.is_empty() || range.start >= self.cached.length {
            return 0..0;
        }
        let starts = &self.cached.starts;
        let first = starts.partition_point(|start| *start <= range.start).saturating_sub(1);
        let end = starts.partition_point(|start| *start < range.end);
        let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        number(first)..number(end.max(first))
    }

    /// Where a sequential reader at `offset` certainly stops: the end of its large member, else of the stream.
    pub(super) fn end_of_member(&self, offset: u64) -> u64 {
        let members = &self.cached.members;
        let place = members.partition_point(|member| member.end <= offset);
        match members.get(place) {
            Some(member) if member.start <= offset => member.end,
            _ => self.cached.length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_find_their_spans() {
        let layout = Layout::of_raw(3 * RAW_SPAN + 5).unwrap();
        assert_eq!(layout.count(), 4);
        assert_eq!(layout.spans_of(&(0..1)), 0..1);
        assert_eq!(layout.spans_of(&(0..RAW_SPAN)), 0..1);
        assert_eq!(layout.spans_of(&(0..RAW_SPAN + 1)), 0..2);
        assert_eq!(layout.spans_of(&(RAW_SPAN..3 * RAW_SPAN + 5)), 1..4);
        assert_eq!(layout.spans_of(&(5..5)), 0..0);
        assert_eq!(layout.spans_of(&(4 * RAW_SPAN..5 * RAW_SPAN)), 0..0);
        assert_eq!(layout.span(3), 3 * RAW_SPAN..3 * RAW_SPAN + 5);
        assert_eq!(layout.span(4), 3 * RAW_SPAN + 5..3 * RAW_SPAN + 5);
    }

    #[test]
    fn a_claimed_size_beyond_reason_is_refused_before_anything_is_allocated() {
        for size in [(RAW_SPANS * RAW_SPAN) + 1, u64::MAX] {
            assert_eq!(Layout::of_raw(size).err().map(|error| error.kind), Some(ErrorKind::Unsupported));
        }
    }
}
