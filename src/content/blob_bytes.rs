//! Reads a range of a blob as stored, forward: spans that are cached raw (`ocifs serve` stores blobs so) first, the rest from the registry.
//!
//! Cached bytes may be unproved, and so are those of a registry: callers compare everything with a digest before they use it, and
//! [`Places::after_wrong`] says where to read again after a mismatch.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use super::budget::Use;
use super::plan::raw_layout;
use super::shared::Shared;
use super::{Sealing, names, parallel};
use crate::blocking::blocking;
use crate::cache::{CachedStream, Layout, Protection};
use crate::error::Error;
use crate::layer::Form;
use crate::oci::{Descriptor, Digest, Repository};
use crate::registry::BlobStream;
use crate::sys::array::Array;

/// Most cached bytes read at once.
const PIECE: u64 = 256 << 10;
/// Cached spans in a row that are worth another request after them: fewer are fetched with what surrounds them.
const RUN: u32 = 4;

/// The places that bytes may still come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// The cache, then the registry.
    All,
    /// The registry.
    Registry,
    /// The last place that the registry's mirrors leave.
    Last,
}

impl Places {
    /// The places left after a blob's bytes turned out to be wrong; `None` if there is none. Wrong bytes do not stay in the cache. Blocks.
    pub(super) fn after_wrong(self, shared: &Shared, repository: &Repository, blob: &Digest, were_cached: bool) -> Option<Self> {
        match self {
            Self::Last => None,
            _ if were_cached => {
                shared.forget_stream(&names::stream(blob, Form::Raw, Sealing::None));
                Some(Self::Registry)
            }
            _ => shared.pull.report_wrong_bytes(repository, blob).then_some(Self::Last),
        }
    }
}

/// A blob of which the cache holds raw spans.
struct CachedBlob {
    stream: CachedStream,
    layout: Layout,
}

/// The next part of a range.
enum Next {
    Cached(Bytes),
    /// Not cached up to this offset.
    Missing(u64),
}

/// A forward reader of one range.
pub(super) struct BlobBytes {
    shared: Arc<Shared>,
    repository: Repository,
    descriptor: Descriptor,
    rest: Range<u64>,
    cached: Option<Arc<CachedBlob>>,
    is_complete: bool,
    /// The request in progress, and where its range ends.
    request: Option<(BlobStream, u64)>,
    were_cached: bool,
}

impl BlobBytes {
    /// Looks for the range in the cache, unless that is ruled out. Sends no request.
    ///
    /// # Errors
    /// None in practice: the thread that looks does not panic.
    pub(super) async fn find(
        shared: &Arc<Shared>,
        (repository, descriptor): (&Repository, &Descriptor),
        range: Range<u64>,
        places: Places,
    ) -> Result<Self, Error> {
        let (cached, is_complete) = match places {
            Places::All if !shared.pull.is_local() => {
                let (shared, blob, range) = (Arc::clone(shared), descriptor.clone(), range.clone());
                blocking(move || Ok(CachedBlob::find(&shared, &blob, &range))).await?
            }
            _ => (None, false),
        };
        Ok(Self {
            shared: Arc::clone(shared),
            repository: repository.clone(),
            descriptor: descriptor.clone(),
            rest: range,
            cached: cached.map(Arc::new),
            is_complete,
            request: None,
            were_cached: false,
        })
    }

    /// Whether all of it was cached when it was looked for, so that it takes no request.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether any of the bytes returned so far came from the cache.
    pub(super) fn were_cached(&self) -> bool {
        self.were_cached
    }

    /// Asks the registry now if the cache has nothing of the range.
    ///
    /// # Errors
    /// Errors of the registry.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        if self.cached.is_none() && self.request.is_none() {
            self.request(self.rest.end).await?;
        }
        Ok(())
    }

    /// The next bytes; `None` at the end, or where a transfer ended early. `subject` starts the error for a stalled registry.
    ///
    /// # Errors
    /// TimedOut and errors of the registry.
    pub(super) async fn next(&mut self, subject: &str) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some((stream, end)) = &mut self.request {
                if let Some(piece) = self.shared.next_piece(stream, || subject.to_owned()).await? {
                    self.rest.start += piece.len() as u64;
                    return Ok(Some(piece));
                }
                if self.rest.start < *end {
                    return Ok(None);
                }
                self.request = None;
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            match self.look().await? {
                Next::Cached(piece) => {
                    self.shared.moved(piece.len());
                    self.were_cached = true;
                    self.rest.start += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Next::Missing(end) => self.request(end).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Next, Error> {
        let Some(cached) = self.cached.clone() else { return Ok(Next::Missing(self.rest.end)) };
        let rest = self.rest.clone();
        blocking(move || Ok(cached.next(&rest))).await
    }

    async fn request(&mut self, end: u64) -> Result<(), Error> {
        let stream = parallel::fetch(&self.shared, &self.repository, &self.descriptor, self.rest.start..end).boxed().await?;
        self.request = Some((stream, end));
        Ok(())
    }
}

/// The bytes of a range, not compared with anything yet.
pub(super) struct Taken {
    pub(super) bytes: Array<u8>,
    /// Whether some of them came from the cache.
    pub(super) were_cached: bool,
}

/// Takes a range for somebody who waits for it, into memory or, if it is long, into the cache. Storage grows with the bytes that arrive.
///
/// # Errors
/// Errors of the registry; Integrity if it sends more than the range.
pub(super) async fn take(
    shared: &Arc<Shared>,
    blob: (&Repository, &Descriptor),
    range: Range<u64>,
    places: Places,
    subject: &str,
) -> Result<Taken, Error> {
    let _turn = shared.turns.request(Use::Demand).await?;
    let length = range.end - range.start;
    let mut blob = BlobBytes::find(shared, blob, range, places).await?;
    let mut bytes = Array::new(&shared.cache.scratch());
    while let Some(piece) = blob.next(subject).await? {
        if bytes.len() as u64 + piece.len() as u64 > length {
            return Err(Error::integrity("more bytes arrive than there are"));
        }
        bytes.extend_from_slice(&piece).map_err(|error| Error::io("they cannot be held", error))?;
    }
    Ok(Taken { bytes, were_cached: blob.were_cached() })
}

impl CachedBlob {
    /// A blob, if the cache has a raw span of the range, and whether it has all of them.
    fn find(shared: &Shared, blob: &Descriptor, range: &Range<u64>) -> (Option<Self>, bool) {
        // A claimed size that no raw blob may have is judged by those who read the bytes.
        let Ok(layout) = raw_layout(blob.size) else { return (None, false) };
        let key = names::stream(&blob.digest, Form::Raw, Sealing::None);
        let stream = shared.cache.begun_stream(&key, &layout, &Protection::Plain).unwrap_or_else(|error| {
            tracing::warn!(%error, "reading without the cache");
            None
        });
        let Some(stream) = stream.filter(|_| range.end <= blob.size) else { return (None, false) };
        let spans = layout.spans_of(range);
        let is_complete = spans.clone().all(|span| stream.has(span));
        let has_any = is_complete || spans.into_iter().any(|span| stream.has(span));
        (has_any.then_some(Self { stream, layout }), is_complete)
    }

    fn next(&self, rest: &Range<u64>) -> Next {
        let spans = self.layout.spans_of(rest);
        let first = self.layout.span(spans.start);
        if self.stream.has(spans.start) {
            let piece = rest.start..rest.end.min(first.end).min(rest.start + PIECE);
            match self.stream.read_unproved(spans.start, piece) {
                Ok(Some(bytes)) => return Next::Cached(bytes),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot read a cached span; fetching it again"),
            }
            // Damaged or being removed: no reason to trust the rest.
            return Next::Missing(rest.end);
        }
        let mut run = 0;
        for span in spans.start + 1..spans.end {
            run = if self.stream.has(span) { run + 1 } else { 0 };
            if run == RUN {
                return Next::Missing(self.layout.span(span + 1 - RUN).start);
            }
        }
        Next::Missing(self.layout.span(spans.end - run).start.min(rest.end))
    }
}
