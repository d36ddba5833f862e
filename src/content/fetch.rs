//! Fetches spans: consecutive missing spans become one request, whose spans are verified, decoded, stored and handed out one after the other.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::blob_bytes::{BlobBytes, Places};
use super::budget::{Budget, Granted, Use};
use super::decode::{IDLE, SequentialDecoder};
use super::in_flight::PendingSpan;
use super::input::{Input, Origin};
use super::reader::{Checked, Mode, Reader};
use super::{Sealing, names};
use crate::blocking::blocking;
use crate::cache::{Claim, Trust};
use crate::error::{Error, ErrorKind};
use crate::layer::{Codec, Form, RAW_SPAN, Restart, Span};

/// Spans per request; more if they are short.
const RUN: usize = 8;
/// Most spans per request, and most bytes of the stream in more than [`RUN`] of them.
const SHORT_RUN: usize = 512;
const RUN_BYTES: u64 = RUN as u64 * RAW_SPAN;
/// Most spans decoded on the way to the wanted one that are kept too: in the cache, or else among the recent ones.
const ON_THE_WAY: u32 = 16;

/// Resources held by a running fetch.
struct Held {
    memory: Option<Granted>,
    turn: Option<OwnedSemaphorePermit>,
}

/// Fetches spans that readers are waiting for.
pub(super) fn demand(reader: &Arc<Reader>, pending: Vec<PendingSpan>, rank: Use) {
    let near = pending.last().map_or(0..0, |last| neighbours(reader, last.span));
    for pending in runs(reader, pending, |pending_span| pending_span.span) {
        let reader = Arc::clone(reader);
        tokio::spawn(async move { run(&reader, pending, rank, Held { memory: None, turn: None }).await });
    }
    ahead(reader, near);
}

/// The spans after a short one: a reader of a small file in a table of contents often wants its neighbors too.
fn neighbours(reader: &Reader, span: u32) -> Range<u32> {
    if !reader.is_of_content() || !reader.keeps() || reader.crowded.load(Ordering::Relaxed) {
        return 0..0;
    }
    let start = reader.layout.span(span).start;
    span + 1..reader.layout.spans_of(&(start..(start + RAW_SPAN).min(reader.length()))).end.max(span + 1)
}

/// Prefetches spans. Acquires memory and a request slot before it takes responsibility for a span, so that no reader ever waits for a fetch that is
/// itself waiting.
pub(super) fn ahead(reader: &Arc<Reader>, spans: Range<u32>) {
    let missing: Vec<u32> = spans.filter(|span| !reader.has(*span) && !reader.in_flight.has(*span)).collect();
    for spans in runs(reader, missing, |span| *span) {
        let sequential = spans.first().is_some_and(|first| !can_restart(reader, *first));
        let reader = Arc::clone(reader);
        reader.under_way.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay(Arc::clone(&reader));
        tokio::spawn(async move {
            let _under_way = under_way;
            let Ok(held) = hold_ahead(&reader, &spans).await else { return };
            let pending = take_ahead(&reader, &spans);
            if !pending.is_empty() {
                run(&reader, pending, Use::Prefetch, held).await;
            }
        });
        if sequential {
            // A decoder that has to decode everything in between does so once, run after run.
            break;
        }
    }
}

/// Takes responsibility for the first consecutive spans that still need it, and no others: dropping it is an error to the waiters. Spans after a gap
/// are fetched when wanted.
fn take_ahead(reader: &Reader, spans: &[u32]) -> Vec<PendingSpan> {
    let mut pending = Vec::new();
    for span in spans {
        let pending_span = if reader.has(*span) { None } else { reader.in_flight.join(*span).1 };
        match pending_span {
            Some(pending_span) => pending.push(pending_span),
            None if pending.is_empty() => {}
            None => break,
        }
    }
    pending
}

/// Counts a prefetch until it ends in any way.
struct UnderWay(Arc<Reader>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn hold_ahead(reader: &Reader, spans: &[u32]) -> Result<Held, Error> {
    let memory = reader.shared.budget.take(Use::Prefetch, cost(reader, spans.iter().copied())).await?;
    let turn = match reader.mode {
        Mode::Sealed { .. } => None,
        _ => Some(reader.shared.turns.request(Use::Prefetch).await?),
    };
    Ok(Held { memory: Some(memory), turn })
}

/// Splits ascending spans into consecutive runs.
fn runs<T>(reader: &Reader, spans: Vec<T>, number: impl Fn(&T) -> u32) -> Vec<Vec<T>> {
    let bytes = |first: &T, last: &T| reader.layout.span(number(last)).end - reader.layout.span(number(first)).start;
    let has_room =
        |run: &[T], span: &T| run.len() < RUN || run.len() < SHORT_RUN && run.first().is_some_and(|first| bytes(first, span) <= RUN_BYTES);
    let mut runs: Vec<Vec<T>> = Vec::new();
    for span in spans {
        match runs.last_mut() {
            Some(run) if has_room(run, &span) && run.last().is_some_and(|last| number(last) + 1 == number(&span)) => run.push(span),
            _ => runs.push(vec![span]),
        }
    }
    runs
}

/// Memory needed to fetch spans one after the other, in bytes.
fn cost(reader: &Reader, spans: impl Iterator<Item = u32>) -> u64 {
    let length = |range: &Range<u64>| range.end - range.start;
    spans.filter_map(|number| reader.span(number)).map(|span| 2 * length(&span.blob) + length(&span.stream)).max().unwrap_or(0)
}

fn can_restart(reader: &Reader, number: u32) -> bool {
    reader.span(number).is_none_or(|span| span.restart != Restart::No)
}

/// Answers every pending span, whatever happens.
async fn run(reader: &Arc<Reader>, pending: Vec<PendingSpan>, rank: Use, held: Held) {
    let mut open: BTreeMap<u32, PendingSpan> = pending.into_iter().map(|pending_span| (pending_span.span, pending_span)).collect();
    if let Err(error) = attempt(reader, &mut open, rank, held).await {
        for pending_span in open.into_values() {
            pending_span.complete(Err(error.clone()));
        }
    }
}

/// Everyone waits in the same order: pooled decoders, memory, claims, the request slot, the decoder's window.
async fn attempt(reader: &Arc<Reader>, open: &mut BTreeMap<u32, PendingSpan>, rank: Use, mut held: Held) -> Result<(), Error> {
    let Some(first) = open.keys().next().copied() else { return Ok(()) };
    let sequence = if can_restart(reader, first) { None } else { Some(reader.sequence.lock().await) };
    // Memory for ciphertext is accounted to the reader that it serves.
    if held.memory.is_none() && !reader.is_ciphertext() {
        held.memory = Some(reader.shared.budget.take(rank, cost(reader, open.keys().copied())).await?);
    }
    look_again(reader, open);
    let _claims = if open.is_empty() { Vec::new() } else { claims(reader, open.keys().copied()).await };
    look_again(reader, open);
    let mut how = How { rank, in_sequence: sequence.is_some(), places: places(reader) };
    loop {
        let Some((first, last)) = open.keys().next().copied().zip(open.keys().next_back().copied()) else { return Ok(()) };
        match fetch(reader, open, first..last + 1, how, held.turn.take()).await? {
            Some(places) => how.places = places,
            None => return Ok(()),
        }
    }
}

/// How spans are fetched.
#[derive(Clone, Copy)]
struct How {
    rank: Use,
    /// The decoder that a sequence left behind is used, and left behind again.
    in_sequence: bool,
    /// Where the bytes may come from.
    places: Places,
}

/// The stream that a reader of the raw blob uses anyway is no second place.
fn places(reader: &Reader) -> Places {
    let raw = names::stream(&reader.source.descriptor.digest, Form::Raw, Sealing::None);
    if reader.key == raw { Places::Registry } else { Places::All }
}

/// Completes spans that reached the cache since they were joined.
fn look_again(reader: &Reader, open: &mut BTreeMap<u32, PendingSpan>) {
    let found: Vec<_> = open.keys().filter_map(|span| Some((*span, reader.piece(*span, reader.layout.span(*span))?))).collect();
    for (span, data) in found {
        if let Some(pending_span) = open.remove(&span) {
            pending_span.complete(Ok(data));
        }
    }
}

/// Keeps other daemons from fetching the same spans. In ascending order, so that no two wait for each other.
async fn claims(reader: &Reader, spans: impl Iterator<Item = u32>) -> Vec<Claim> {
    let mut claims = Vec::new();
    // Fetching a small blob twice is cheaper than claiming it.
    if reader.cached.is_some() && reader.keeps() && !matches!(reader.mode, Mode::Single { .. }) {
        // Short spans are one task together.
        let most = if reader.is_of_content() { 1 } else { usize::MAX };
        for span in spans.take(most) {
            claims.extend(reader.shared.claim(&format!("span.{}.{span}", reader.key.hex())).await);
        }
    }
    claims
}

/// Fetches and decodes spans, from the closest preceding restart point. If bytes were wrong, the places from which the rest may still be fetched.
async fn fetch(
    reader: &Arc<Reader>,
    open: &mut BTreeMap<u32, PendingSpan>,
    spans: Range<u32>,
    how: How,
    turn: Option<OwnedSemaphorePermit>,
) -> Result<Option<Places>, Error> {
    let (from, mut decoder) = begin(reader, spans.start, how.in_sequence)?;
    let blob = blob_range(reader, from..spans.end)?;
    let mut input = open_input(reader, blob, how, turn).await?;
    for number in from..spans.end {
        let span = reader.span(number).ok_or_else(|| inconsistent(reader, number))?;
        let blob = input.take(&span.blob).await.map_err(|error| describe(reader, number, &error))?;
        let pending_span = open.remove(&number);
        let keeps = pending_span.is_some() || spans.end - number <= ON_THE_WAY;
        let task = Task { number, span, blob, pending_span, keeps, how, were_cached: input.were_cached() };
        decoder = match work(reader, task, decoder).await? {
            Worked::Done(decoder) => decoder,
            Worked::Wrong(pending_span, places) => {
                open.extend(pending_span.map(|pending_span| (number, pending_span)));
                return Ok(Some(places));
            }
        };
    }
    if let Some(decoder) = decoder.filter(|_| how.in_sequence)
        && decoder.next() < reader.layout.count()
        && !can_restart(reader, decoder.next())
    {
        let budget = &reader.shared.budget;
        budget.decoder_pool().put(|| budget.is_short(), reader.number, decoder);
        expire_later(reader.shared.budget.clone());
    }
    Ok(None)
}

/// Where decoding starts and with which decoder; without one the stream is the blob.
fn begin(reader: &Reader, first: u32, takes_pooled: bool) -> Result<(u32, Option<SequentialDecoder>), Error> {
    let Some(index) = reader.index().filter(|index| index.codec() != Codec::Identity) else { return Ok((first, None)) };
    let restart = index.restart_for(first);
    let decoder_pool = reader.shared.budget.decoder_pool();
    decoder_pool.expire();
    let waiting = if takes_pooled { decoder_pool.take(reader.number, restart, first) } else { None };
    let decoder = match waiting {
        Some(decoder) => decoder,
        None => SequentialDecoder::new(index, restart, &reader.shared.windows())?,
    };
    Ok((decoder.next(), Some(decoder)))
}

fn blob_range(reader: &Reader, spans: Range<u32>) -> Result<Range<u64>, Error> {
    let place = |number: u32| reader.span(number).ok_or_else(|| inconsistent(reader, number));
    Ok(place(spans.start)?.blob.start..place(spans.end.saturating_sub(1))?.blob.end)
}

async fn open_input(reader: &Reader, range: Range<u64>, how: How, turn: Option<OwnedSemaphorePermit>) -> Result<Input, Error> {
    if let Mode::Sealed { blob, opened, .. } = &reader.mode {
        return Ok(Input::of_envelope(blob, opened, range, how.rank));
    }
    let blob = (&reader.source.repository, &reader.source.descriptor);
    let mut bytes = BlobBytes::find(&reader.shared, blob, range.clone(), how.places).await?;
    // A range that is cached must not wait for a registry that hangs.
    let turn = match turn {
        None if !bytes.is_complete() => Some(reader.shared.turns.request(how.rank).await?),
        turn => turn,
    };
    bytes.begin().await?;
    if reader.is_unchecked() && reader.is_distrusted() {
        let message =
            format!("{}: it comes from a host whose transport is not trusted, so all of it is checked first", reader.source.label());
        return Err(Error::new(ErrorKind::Integrity, message));
    }
    Ok(Input::new(Origin::Stored { bytes: Box::new(bytes), _turn: turn }, range))
}

/// One span whose blob bytes are present.
struct Task {
    number: u32,
    span: Span,
    blob: Bytes,
    pending_span: Option<PendingSpan>,
    keeps: bool,
    how: How,
    were_cached: bool,
}

/// The outcome of a span.
enum Worked {
    /// It was handed out; the decoder for the next one.
    Done(Option<SequentialDecoder>),
    /// Its bytes were wrong, and these places may have the right ones.
    Wrong(Option<PendingSpan>, Places),
}

/// Verifies, decodes, stores and hands out one span; returns the decoder. On a blocking thread, however small the span is: storing it may cause an
/// eviction.
async fn work(reader: &Arc<Reader>, task: Task, decoder: Option<SequentialDecoder>) -> Result<Worked, Error> {
    let worker = Arc::clone(reader);
    blocking(move || work_here(&worker, task, decoder)).await
}

fn work_here(reader: &Reader, task: Task, mut decoder: Option<SequentialDecoder>) -> Result<Worked, Error> {
    let Task { number, span, blob, pending_span, keeps, how, were_cached } = task;
    let verified = check(reader, number, &span, &blob, decoder.as_mut());
    let (repository, digest) = (&reader.source.repository, &reader.source.descriptor.digest);
    if verified.as_ref().is_err_and(|error| error.kind == ErrorKind::Integrity)
        && let Some(places) = how.places.after_wrong(&reader.shared, repository, digest, were_cached)
    {
        return Ok(Worked::Wrong(pending_span, places));
    }
    let worked = verified.and_then(|(trust, data)| match data {
        Some(data) => Ok((trust, data)),
        None => Ok((trust, decode(reader, number, &span, blob, decoder.as_mut())?)),
    });
    let (trust, data) = match worked {
        Ok(worked) => worked,
        Err(error) => {
            if error.kind == ErrorKind::Integrity {
                reader.found_wrong();
            }
            if let Some(pending_span) = pending_span {
                pending_span.complete(Err(error.clone()));
            }
            return Err(error);
        }
    };
    let stores = keeps && reader.keeps();
    let kept = stores && reader.store(number, &data, trust);
    if stores {
        reader.note_room(kept, how.rank);
    }
    if keeps && !kept {
        reader.shared.recent.put(reader.number, number, data.clone());
    }
    if let Some(pending_span) = pending_span {
        pending_span.complete(Ok(data.clone()));
    }
    reader.advance(Some((number, &data)));
    Ok(Worked::Done(decoder))
}

/// Verifies a span by its bytes in the blob or, if it was named by a table of contents, by its content, which is returned.
fn check(
    reader: &Reader,
    number: u32,
    span: &Span,
    blob: &Bytes,
    decoder: Option<&mut SequentialDecoder>,
) -> Result<(Trust, Option<Bytes>), Error> {
    if !reader.is_of_content() {
        return Ok((verify(reader, number, span, blob)?, None));
    }
    let data = decode(reader, number, span, blob.clone(), decoder)?;
    Ok((verify(reader, number, span, &data)?, Some(data)))
}

/// Compares the bytes of a span with what is known about them.
fn verify(reader: &Reader, number: u32, span: &Span, blob: &[u8]) -> Result<Trust, Error> {
    let message = match reader.check_span(number, span, blob) {
        Checked::Right => return Ok(Trust::Proved),
        Checked::Open => return Ok(Trust::Unproved),
        Checked::Wrong { expected, found } => format!(
            "{}: bytes {}–{} (span {number}) do not match: expected {expected}, found {found}; they are not served",
            reader.source.label(),
            span.blob.start,
            span.blob.end,
        ),
        Checked::Changed => {
            format!("{}, span {number}: the registry sent other bytes than before; they are not served", reader.source.label())
        }
        Checked::Unknown => return Err(inconsistent(reader, number)),
    };
    tracing::error!("{message}");
    Err(Error::new(ErrorKind::Integrity, message))
}

fn decode(reader: &Reader, number: u32, span: &Span, blob: Bytes, decoder: Option<&mut SequentialDecoder>) -> Result<Bytes, Error> {
    match (decoder, reader.index()) {
        (Some(decoder), Some(index)) => {
            let data = decoder.decode(index, span, &blob).map_err(|error| describe(reader, number, &error))?;
            reader.shared.moved(data.len());
            Ok(data.into())
        }
        _ => Ok(blob),
    }
}

/// Drops pooled decoders that were not used.
fn expire_later(budget: Budget) {
    tokio::spawn(async move {
        tokio::time::sleep(IDLE).await;
        budget.decoder_pool().expire();
    });
}

fn describe(reader: &Reader, number: u32, error: &Error) -> Error {
    error.clone().context(format_args!("{}, span {number}", reader.source.label()))
}

fn inconsistent(reader: &Reader, number: u32) -> Error {
    let message =
        format!("{}: its stored index lacks span {number} or its digest; run `ocifs cache clear` to rebuild it", reader.source.label());
    Error::new(ErrorKind::Integrity, message)
}
