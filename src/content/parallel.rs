//! A long range of a blob as one stream, from several requests at once: many registries limit each connection, not the client.
//!
//! The first request is for all of it, which every registry and proxy understands. Others join only if the reader waits for it most of the time,
//! and the source sends no more than the range it was asked for; parts arrive in order, from memory that prefetching would have. A request that
//! is much slower than the others is replaced once, and one that fails is not the end: a single request asks for the rest. Bytes are not checked
//! here.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::budget::{Granted, Use};
use super::shared::Shared;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Repository};
use crate::registry::BlobStream;

/// Bytes after which a single request is judged, again and again.
const JUDGED: u64 = 8 << 20;
/// A request that delivers them sooner is not limited, even if its reader waits.
const QUICK: Duration = Duration::from_millis(100);
/// The shortest range worth several requests, in bytes: what is on its way when the first one is cut is transferred for nothing.
const LEAST: u64 = 64 << 20;
/// Most parts requested ahead of the one being read.
const AHEAD: usize = 3;
/// Largest part, in bytes.
const PART: u64 = 2 << 20;
/// A request is replaced if it takes this many times as long as the slowest of those that are complete, and at least [`PATIENCE`].
const STARVED: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(500);

/// A range of a blob: by several requests if it is long, they are of use, and the blob is not on this machine.
///
/// # Errors
/// Errors of the registry.
pub(super) async fn fetch(
    shared: &Arc<Shared>,
    repository: &Repository,
    blob: &Descriptor,
    range: Range<u64>,
) -> Result<BlobStream, Error> {
    if range.end.saturating_sub(range.start) < LEAST || shared.pull.is_local() {
        return shared.fetch(repository, blob, range).await;
    }
    // Half of the share is left to those who read ahead.
    let part = (shared.budget.share(Use::Prefetch) / (2 * (1 + AHEAD as u64))).min(PART);
    let source = BlobRanges { shared: Arc::clone(shared), repository: repository.clone(), blob: blob.clone() };
    Ok(Parallel::open(source, range, part).await?.stream())
}

/// The source of ranges.
trait Ranges: Send + Sync + 'static {
    /// Opens one range.
    fn open(&self, range: Range<u64>) -> BoxFuture<'static, Result<BlobStream, Error>>;

    /// Resources for a part of this many bytes, if they are free.
    fn hold(&self, bytes: u64) -> Option<Held>;

    /// Whether the source sends what comes before a range too.
    fn are_ignored(&self) -> bool;
}

/// The memory of a part, and its request slot. Neither is waited for: the reader needs bytes that nobody else can give.
type Held = (Granted, OwnedSemaphorePermit);

struct BlobRanges {
    shared: Arc<Shared>,
    repository: Repository,
    blob: Descriptor,
}

impl Ranges for BlobRanges {
    fn open(&self, range: Range<u64>) -> BoxFuture<'static, Result<BlobStream, Error>> {
        let Self { shared, repository, blob } = self;
        let (shared, repository, blob) = (Arc::clone(shared), repository.clone(), blob.clone());
        Box::pin(async move { shared.fetch(&repository, &blob, range).await })
    }

    fn hold(&self, bytes: u64) -> Option<Held> {
        let memory = self.shared.budget.take(Use::Prefetch, bytes).now_or_never()?.ok()?;
        Some((memory, self.shared.turns.request(Use::Prefetch).now_or_never()?.ok()?))
    }

    fn are_ignored(&self) -> bool {
        self.shared.pull.ignores_ranges()
    }
}

/// A part requested ahead. Its request ends when it is dropped.
struct Part {
    /// What the reader has not taken yet.
    rest: Range<u64>,
    /// Bytes as they arrive; those in the channel are covered by `held`.
    arriving: mpsc::UnboundedReceiver<Result<Bytes, Error>>,
    request: JoinSet<Result<Duration, Error>>,
    begun: Instant,
    /// Replaces a starved request. It is not replaced itself: a registry that asks for patience gets it.
    is_second: bool,
    held: Held,
}

impl Part {
    fn request(source: &impl Ranges, rest: Range<u64>, is_second: bool, held: Held) -> Self {
        let (opening, begun, length) = (source.open(rest.clone()), Instant::now(), rest.end - rest.start);
        let (arrived, arriving) = mpsc::unbounded_channel();
        let mut request = JoinSet::new();
        request.spawn(async move {
            let outcome = transfer(opening, length, &arrived).await;
            // A reader that is gone needs no error.
            outcome.map(|()| begun.elapsed()).inspect_err(|error| drop(arrived.send(Err(error.clone()))))
        });
        Self { rest, arriving, request, begun, is_second, held }
    }

    /// How long the request took, if it is complete.
    fn duration(&mut self) -> Option<Duration> {
        self.request.try_join_next()?.ok()?.ok()
    }
}

/// Passes on the bytes of a range, and nothing beyond it.
async fn transfer(
    opening: BoxFuture<'static, Result<BlobStream, Error>>,
    length: u64,
    arrived: &mpsc::UnboundedSender<Result<Bytes, Error>>,
) -> Result<(), Error> {
    let (mut stream, mut missing) = (opening.await?, length);
    // Tells that it was answered.
    let _ = arrived.send(Ok(Bytes::new()));
    while let Some(piece) = stream.next().await.transpose()? {
        let too_long = || Error::integrity("the registry sends more than the requested range");
        missing = missing.checked_sub(piece.len() as u64).ok_or_else(too_long)?;
        let _ = arrived.send(Ok(piece));
    }
    match missing {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::Unreachable, "the transfer ended before its range")),
    }
}

/// The request that is read as it arrives.
struct Direct {
    /// All of the rest.
    stream: BlobStream,
    /// Where the parts take over.
    end: u64,
    /// Bytes after `end` that arrived with those before.
    beyond: Bytes,
    judged: Judged,
}

impl Direct {
    fn new(stream: BlobStream, end: u64) -> Self {
        Self { stream, end, beyond: Bytes::new(), judged: Judged::new() }
    }

    /// The next bytes, at most `room`.
    async fn next(&mut self, room: u64) -> Result<Option<Bytes>, Error> {
        let mut piece = match std::mem::take(&mut self.beyond) {
            beyond if beyond.is_empty() => match self.stream.next().await.transpose()? {
                Some(piece) => piece,
                None => return Ok(None),
            },
            beyond => beyond,
        };
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if piece.len() > room {
            self.beyond = piece.split_off(room);
        }
        Ok(Some(piece))
    }
}

/// What is known of a request since it was last judged.
struct Judged {
    since: Instant,
    waited: Duration,
    bytes: u64,
}

impl Judged {
    fn new() -> Self {
        Self { since: Instant::now(), waited: Duration::ZERO, bytes: 0 }
    }

    /// Counts a piece; true if the reader spent most of a noticeable time on waiting for it and those before it.
    fn is_slow_after(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.bytes < JUDGED {
            return false;
        }
        let judged = std::mem::replace(self, Self::new());
        judged.since.elapsed() > QUICK && judged.waited * 2 > judged.since.elapsed()
    }
}

/// A range being read.
struct Parallel<S> {
    source: S,
    /// What the reader has not got yet.
    rest: Range<u64>,
    direct: Option<Direct>,
    /// Consecutive, after what the direct request is read for.
    parts: VecDeque<Part>,
    /// Size of a part, in bytes.
    part: u64,
    /// Nothing more is requested ahead.
    is_single: bool,
    /// The slowest complete request for a part.
    slowest: Option<Duration>,
}

impl<S: Ranges> Parallel<S> {
    async fn open(source: S, range: Range<u64>, part: u64) -> Result<Self, Error> {
        let direct = Some(Direct::new(source.open(range.clone()).await?, range.end));
        let is_single = source.are_ignored();
        Ok(Self { source, rest: range, direct, parts: VecDeque::new(), part, is_single, slowest: None })
    }

    fn stream(self) -> BlobStream {
        stream::try_unfold(self, |mut reading| async move { Ok(reading.next().await?.map(|piece| (piece, reading))) }).boxed()
    }

    /// The next bytes; `None` at the end, or where a transfer ended early.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(direct) = self.direct.take() {
                let end = direct.end;
                match self.next_direct(direct).await? {
                    Some(piece) => return Ok(Some(piece)),
                    None if self.rest.start < end => return Ok(None),
                    None => {}
                }
            }
            self.request_ahead();
            match self.parts.front_mut() {
                Some(part) if part.rest.is_empty() => drop(self.parts.pop_front()),
                Some(_) => {
                    if let Some(piece) = self.next_of_part().await {
                        return Ok(Some(piece));
                    }
                }
                None if self.rest.is_empty() => return Ok(None),
                None => self.read_directly().await?,
            }
        }
    }

    /// The next bytes of the direct request, which is kept unless it ended, or the parts take over.
    async fn next_direct(&mut self, mut direct: Direct) -> Result<Option<Bytes>, Error> {
        if self.rest.start >= direct.end && direct.end < self.rest.end {
            if self.parts_take_over().await {
                return Ok(None);
            }
            self.go_single();
            direct.end = self.rest.end;
        }
        let asked = Instant::now();
        let until_parts = if direct.end < self.rest.end { direct.end - self.rest.start } else { u64::MAX };
        let Some(piece) = direct.next(until_parts).await? else { return Ok(None) };
        self.rest.start += piece.len() as u64;
        let is_slow = direct.judged.is_slow_after(asked.elapsed(), piece.len());
        if is_slow && direct.end == self.rest.end && self.rest.end.saturating_sub(self.rest.start) >= 2 * self.part {
            let end = self.rest.start + self.part;
            self.request_after(end, AHEAD);
            if !self.parts.is_empty() {
                direct.end = end;
            }
        }
        self.direct = Some(direct);
        Ok(Some(piece))
    }

    /// Whether the part after the direct request was answered as requested. If not, parts would cost everything before them too; and a registry
    /// that keeps a second connection waiting may do so until the first has ended.
    async fn parts_take_over(&mut self) -> bool {
        match self.parts.front_mut() {
            Some(part) => {
                let answered = tokio::time::timeout(PATIENCE, part.arriving.recv()).await;
                matches!(answered, Ok(Some(Ok(_)))) && !self.source.are_ignored()
            }
            None => false,
        }
    }

    fn request_ahead(&mut self) {
        let end = self.parts.back().map_or(self.rest.start, |part| part.rest.end);
        self.request_after(end, 1 + AHEAD);
    }

    /// Requests the parts from an offset on, until there are `most` or no resources for another.
    fn request_after(&mut self, mut start: u64, most: usize) {
        self.is_single |= self.source.are_ignored();
        while !self.is_single && self.parts.len() < most && start < self.rest.end {
            let end = (start + self.part).min(self.rest.end);
            let Some(held) = self.source.hold(end - start) else { return };
            self.parts.push_back(Part::request(&self.source, start..end, false, held));
            start = end;
        }
    }

    /// The next bytes of the first part. `None` if they have to be asked for again.
    async fn next_of_part(&mut self) -> Option<Bytes> {
        let limit = self.patience();
        let part = self.parts.front_mut()?;
        // The others may be complete a moment later.
        let until = limit.unwrap_or_else(|| Instant::now() + PATIENCE);
        match tokio::time::timeout_at(until, part.arriving.recv()).await {
            Ok(Some(Ok(piece))) => {
                part.rest.start += piece.len() as u64;
                self.rest.start = part.rest.start;
                return (!piece.is_empty()).then_some(piece);
            }
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "a part of a blob failed; asking for the rest by a single request");
                self.go_single();
            }
            // Its task ended without a word.
            Ok(None) => self.go_single(),
            Err(_) if limit.is_some() => self.replace_first(),
            Err(_) => {}
        }
        None
    }

    /// When the first part counts as starved: only if all the others are complete, so that it alone holds up the reader.
    fn patience(&mut self) -> Option<Instant> {
        let slowest = &mut self.slowest;
        let mut others_are_complete = self.parts.len() > 1;
        for part in self.parts.iter_mut().skip(1) {
            if let Some(took) = part.duration() {
                *slowest = (*slowest).max(Some(took));
            }
            others_are_complete &= part.request.is_empty();
        }
        let first = self.parts.front_mut()?;
        let is_replaced = others_are_complete && !first.is_second;
        Some(first.begun + ((*slowest)? * STARVED).max(PATIENCE)).filter(|_| is_replaced)
    }

    fn replace_first(&mut self) {
        if let Some(starved) = self.parts.pop_front() {
            tracing::debug!(range = ?starved.rest, "a request for a part of a blob is starved; replacing it");
            let Part { rest, held, .. } = starved;
            self.parts.push_front(Part::request(&self.source, rest, true, held));
        }
    }

    fn go_single(&mut self) {
        self.parts.clear();
        self.is_single = true;
    }

    /// Asks for all of the rest: nothing can be held, or a part failed.
    async fn read_directly(&mut self) -> Result<(), Error> {
        let stream = self.source.open(self.rest.clone()).await?;
        self.direct = Some(Direct::new(stream, self.rest.end));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use parking_lot::Mutex;

    use super::super::budget::{Budget, MEMORY_LEAST, Turns};
    use super::*;

    const MIB: u64 = 1 << 20;
    const PIECE: u64 = 256 << 10;

    /// A source whose every request gives 1 MiB a second, in virtual time.
    #[derive(Clone)]
    struct Capped(Arc<Inner>);

    struct Inner {
        budget: Budget,
        turns: Turns,
        requests: Mutex<Vec<Range<u64>>>,
        open: AtomicUsize,
        most: AtomicUsize,
        per_piece: Duration,
        /// The number of the request that stalls in its middle.
        stalls: Option<usize>,
        /// The number of the request from which on all fail, and how many do.
        fails: Range<usize>,
        ignores: bool,
        ignored: AtomicBool,
        /// Ranges from these offsets on are answered after so long.
        late: Option<(Range<u64>, Duration)>,
        /// A request is answered once no other is open.
        one_at_a_time: bool,
    }

    impl Capped {
        fn new(change: impl FnOnce(&mut Inner)) -> Self {
            let mut inner = Inner {
                budget: Budget::new(8 * MEMORY_LEAST),
                turns: Turns::new(8, 2),
                requests: Mutex::default(),
                open: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                per_piece: Duration::from_millis(250),
                stalls: None,
                fails: 0..0,
                ignores: false,
                ignored: AtomicBool::new(false),
                late: None,
                one_at_a_time: false,
            };
            change(&mut inner);
            Self(Arc::new(inner))
        }

        fn requests(&self) -> Vec<Range<u64>> {
            self.0.requests.lock().clone()
        }

        /// Reads a range, compares every byte, and says how long it took.
        async fn read(&self, range: Range<u64>) -> Result<Duration, Error> {
            let begun = Instant::now();
            let mut stream = Parallel::open(self.clone(), range.clone(), 4 * MIB).await?.stream();
            let mut at = range.start;
            while let Some(piece) = stream.next().await.transpose()? {
                assert!(piece.iter().zip(at..).all(|(byte, at)| *byte == content(at)), "wrong bytes after {at}");
                at += piece.len() as u64;
            }
            drop(stream);
            assert_eq!(at, range.end);
            Ok(begun.elapsed())
        }
    }

    fn content(at: u64) -> u8 {
        (at / PIECE * 31 + at % 251) as u8
    }

    struct Open(Arc<Inner>);

    impl Drop for Open {
        fn drop(&mut self) {
            self.0.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Ranges for Capped {
        fn open(&self, range: Range<u64>) -> BoxFuture<'static, Result<BlobStream, Error>> {
            let inner = Arc::clone(&self.0);
            Box::pin(async move {
                let number = {
                    let mut requests = inner.requests.lock();
                    requests.push(range.clone());
                    requests.len() - 1
                };
                if inner.fails.contains(&number) {
                    return Err(Error::new(ErrorKind::Unreachable, "planned"));
                }
                if let Some((_, late)) = inner.late.as_ref().filter(|(starts, _)| starts.contains(&range.start)) {
                    tokio::time::sleep(*late).await;
                }
                while inner.one_at_a_time && inner.open.load(Ordering::SeqCst) > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                inner.ignored.fetch_or(inner.ignores && range.start > 0, Ordering::SeqCst);
                let open = Open(Arc::clone(&inner));
                inner.most.fetch_max(inner.open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let middle = range.start.midpoint(range.end);
                let pieces = stream::unfold((range, open), move |(range, open)| async move {
                    if range.is_empty() {
                        return None;
                    }
                    let stalls = open.0.stalls == Some(number) && range.start >= middle;
                    tokio::time::sleep(if stalls { Duration::from_secs(3600) } else { open.0.per_piece }).await;
                    let end = (range.start + PIECE).min(range.end);
                    let piece: Vec<u8> = (range.start..end).map(content).collect();
                    Some((Ok(Bytes::from(piece)), (end..range.end, open)))
                });
                Ok(pieces.boxed())
            })
        }

        fn hold(&self, bytes: u64) -> Option<Held> {
            let memory = self.0.budget.take(Use::Prefetch, bytes).now_or_never()?.ok()?;
            Some((memory, self.0.turns.request(Use::Prefetch).now_or_never()?.ok()?))
        }

        fn are_ignored(&self) -> bool {
            self.0.ignored.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_waits_for_one_request_gets_several() {
        let source = Capped::new(|_| {});
        let took = source.read(5..80 * MIB + 7).await.unwrap();
        // One request would take 80 s; the first 12 MiB come from one.
        assert!(took < Duration::from_secs(12 + 80 / 3), "{took:?}");
        assert_eq!(source.0.most.load(Ordering::SeqCst), 1 + AHEAD);
        assert_eq!(source.0.open.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_the_slower_side_keeps_its_single_request() {
        let source = Capped::new(|inner| inner.per_piece = Duration::ZERO);
        let mut stream = Parallel::open(source.clone(), 0..40 * MIB, 4 * MIB).await.unwrap().stream();
        while let Some(piece) = stream.next().await {
            piece.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(source.requests().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_ignores_ranges_is_read_by_its_first_request() {
        let source = Capped::new(|inner| inner.ignores = true);
        let took = source.read(0..40 * MIB).await.unwrap();
        assert_eq!(took, Duration::from_secs(40));
        // It is known from then on.
        let before = source.requests().len();
        source.read(0..40 * MIB).await.unwrap();
        assert_eq!(source.requests().len(), before + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_starved_request_is_replaced() {
        for stalled in 1..5 {
            let source = Capped::new(|inner| inner.stalls = Some(stalled));
            let took = source.read(0..80 * MIB).await.unwrap();
            assert!(took < Duration::from_secs(80), "request {stalled}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_is_slow_to_answer_a_part_is_asked_for_it_twice_at_most() {
        // The parts are those of 4 MiB after the first 12 MiB.
        let late = 24 * MIB..28 * MIB;
        let source = Capped::new(|inner| inner.late = Some((late.clone(), Duration::from_secs(50))));
        let took = source.read(0..80 * MIB).await.unwrap();
        let again = source.requests().into_iter().filter(|range| late.contains(&range.start)).count();
        assert!((1..=2).contains(&again), "{again} requests");
        assert!(took < Duration::from_secs(12 + 2 * 50 + 80), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_is_read_on_while_the_others_are_kept_waiting() {
        let source = Capped::new(|inner| inner.one_at_a_time = true);
        let took = source.read(0..40 * MIB).await.unwrap();
        assert!(took < Duration::from_secs(41), "{took:?}");
        assert_eq!(source.0.most.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_one_request_if_nothing_can_be_held_any_more() {
        let source = Capped::new(|_| {});
        let mut stream = Parallel::open(source.clone(), 0..80 * MIB, 4 * MIB).await.unwrap().stream();
        let mut at = 0;
        while let Some(piece) = stream.next().await {
            at += piece.unwrap().len() as u64;
            if at == 20 * MIB {
                let budget = source.0.budget.clone();
                tokio::spawn(async move { budget.take(Use::Prefetch, u64::MAX).await.map(std::mem::forget) });
            }
        }
        assert_eq!(at, 80 * MIB);
        let last = source.requests().pop().unwrap();
        assert!(last.end == 80 * MIB && last.start <= 48 * MIB, "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn failed_parts_cost_only_their_speed() {
        for fails in [1..2, 1..5, 3..4, 4..8] {
            let source = Capped::new(|inner| inner.fails = fails.clone());
            let outcome = source.read(0..60 * MIB).await;
            match fails.len() {
                // The request for the rest fails too.
                4 if fails.start > 1 => assert_eq!(outcome.unwrap_err().kind, ErrorKind::Unreachable),
                _ => drop(outcome.unwrap()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_that_others_hold_is_not_waited_for() {
        let source = Capped::new(|_| {});
        let others = source.0.budget.take(Use::Prefetch, u64::MAX).await.unwrap();
        let took = source.read(0..40 * MIB).await.unwrap();
        assert_eq!((took, source.requests().len()), (Duration::from_secs(40), 1));
        drop(others);
        assert!(source.read(0..40 * MIB).await.unwrap() < Duration::from_secs(30));
        // All of it is given back.
        source.0.budget.take(Use::Prefetch, u64::MAX).now_or_never().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn requests_end_with_their_reader() {
        let source = Capped::new(|_| {});
        let mut stream = Parallel::open(source.clone(), 0..80 * MIB, 4 * MIB).await.unwrap().stream();
        for _ in 0..60 {
            stream.next().await.unwrap().unwrap();
        }
        assert!(source.0.open.load(Ordering::SeqCst) > 0);
        drop(stream);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(source.0.open.load(Ordering::SeqCst), 0);
        source.0.budget.take(Use::Prefetch, u64::MAX).now_or_never().unwrap().unwrap();
    }
}
