//! Reads a range: cached spans, spans in flight, new fetches, and prefetching.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;

use super::budget::Use;
use super::fetch;
use super::in_flight::Waiting;
use super::reader::{Reader, part_of};
use super::running_check::Wanting;
use crate::blocking::spawn_blocking;
use crate::error::{Error, ErrorKind};

/// Spans of one request awaited together.
const GROUP: u32 = 16;

impl Reader {
    /// Bytes of a range, clipped to the stream. Ready at once if present.
    pub(super) async fn read(self: &Arc<Self>, range: Range<u64>) -> Result<Bytes, Error> {
        let range = range.start.min(self.length())..range.end.min(self.length());
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.failure()?;
        if let Some(data) = self.here(&range) {
            self.read_ahead(&range, false);
            return Ok(data);
        }
        let first = self.layout.spans_of(&range).start;
        let missed = !self.has(first) && !self.in_flight.has(first) && self.under_way.load(Ordering::Relaxed) == 0;
        let mut gathered = self.gather(&range, 0, Use::Demand);
        self.read_ahead(&range, missed);
        let mut data = BytesMut::new();
        let spans = self.layout.spans_of(&range);
        loop {
            for part in gathered.parts {
                data.extend_from_slice(&part.bytes().await?);
            }
            if gathered.next >= spans.end {
                break;
            }
            gathered = self.gather(&range, gathered.next, Use::Demand);
        }
        self.failure()?;
        Ok(data.freeze())
    }

    /// Bytes of a short range for another reader. Boxed, since envelope readers read from readers.
    pub(super) fn read_for(self: &Arc<Self>, range: Range<u64>, rank: Use) -> BoxFuture<'_, Result<Bytes, Error>> {
        Box::pin(async move {
            if let Some(data) = self.here(&range) {
                return Ok(data);
            }
            let mut data = BytesMut::new();
            let mut next = self.layout.spans_of(&range).start;
            while next < self.layout.spans_of(&range).end {
                let gathered = self.gather(&range, next, rank);
                next = gathered.next;
                for part in gathered.parts {
                    data.extend_from_slice(&part.bytes().await?);
                }
            }
            Ok(data.freeze())
        })
    }

    /// Waits until the digest of a blob served unverified is known, fetching what is missing for that.
    ///
    /// # Errors
    /// Integrity if the digest does not match.
    pub(super) async fn finish_verification(self: &Arc<Self>) -> Result<(), Error> {
        while self.is_unchecked() {
            let reader = Arc::clone(self);
            let wanting = spawn_blocking(move || reader.open_check().map(|check| check.wanting(&reader.layout)));
            match wanting.await? {
                Some(Wanting::Span(next)) => {
                    let data = self.read_for(self.layout.span(next), Use::Demand).await?;
                    let reader = Arc::clone(self);
                    spawn_blocking(move || reader.advance(Some((next, &data)))).await?;
                }
                Some(Wanting::Nothing) | None => return self.failure(),
            }
        }
        Ok(())
    }

    /// The next spans of a range from `next` on: cached ones, ones in flight, and newly fetched ones.
    fn gather(self: &Arc<Self>, range: &Range<u64>, next: u32, rank: Use) -> Gathered {
        let spans = self.layout.spans_of(range);
        let first = spans.start.max(next);
        let end = spans.end.min(first.saturating_add(GROUP));
        let mut parts = Vec::new();
        let mut mine = Vec::new();
        for span in first..end {
            let within = self.within(span, range);
            if let Some(data) = self.piece(span, within.clone()) {
                parts.push(Part::Here(data));
                continue;
            }
            let (waiting, pending_span) = self.in_flight.join(span);
            mine.extend(pending_span);
            parts.push(Part::Later { waiting, start: self.layout.span(span).start, within });
        }
        fetch::demand(self, mine, rank);
        Gathered { parts, next: end }
    }

    fn read_ahead(self: &Arc<Self>, read: &Range<u64>, missed: bool) {
        if self.crowded.load(Ordering::Relaxed) {
            return;
        }
        let end = self.layout.end_of_member(read.end.saturating_sub(1));
        let ahead = self.tracks().note(read, end, missed);
        if let Some(ahead) = ahead {
            fetch::ahead(self, self.layout.spans_of(&ahead));
        }
    }
}

/// Some spans of a request.
struct Gathered {
    parts: Vec<Part>,
    /// The span after them.
    next: u32,
}

/// Part of the result.
enum Part {
    Here(Bytes),
    Later { waiting: Waiting, start: u64, within: Range<u64> },
}

impl Part {
    async fn bytes(self) -> Result<Bytes, Error> {
        match self {
            Self::Here(data) => Ok(data),
            Self::Later { waiting, start, within } => {
                let data = waiting.outcome().await?;
                let part = part_of(&data, start, &within);
                if part.len() as u64 == within.end - within.start {
                    return Ok(part);
                }
                Err(Error::new(ErrorKind::Other, format!("a span at byte {start} came out shorter than its index says")))
            }
        }
    }
}
