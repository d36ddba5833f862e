//! Request bodies: bytes in memory, or part of a source streamed in pieces.
//!
//! Holds only a piece or two in memory, whatever the length. A payload can be sent again from its start. Sending fails if nothing was
//! taken for half of the progress limit, so that a stalled connection can be replaced, or if the answer does not come within the limit
//! after the last byte.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Body, RequestBuilder, Response};
use tokio::time::Instant;

use super::super::{UploadSource, Uploaded};
use super::answer;
use super::retry::{Cause, Failure};
use crate::error::{Error, ErrorKind};

/// Bytes read from a source at once.
const PIECE: u64 = 256 << 10;

/// The body of a request.
#[derive(Clone)]
pub(super) struct Payload {
    media_type: String,
    content: Content,
    /// The range of the upload, if it must be sent to the registry.
    place: Option<Range<u64>>,
    flow: Arc<Flow>,
}

#[derive(Clone)]
enum Content {
    Whole(Bytes),
    Part { source: Arc<dyn UploadSource>, range: Range<u64>, uploaded: Uploaded },
}

/// Progress of the latest attempt.
struct Flow {
    /// Never held across an await.
    state: Mutex<SendState>,
}

struct SendState {
    /// When bytes were last taken, or sending began.
    last: Instant,
    /// When bytes were last taken, over all attempts.
    moved: Option<Instant>,
    /// All bytes were taken; only the answer is missing.
    whole: bool,
    /// Why the source could not be read.
    failed: Option<String>,
}

impl Flow {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(SendState { last: Instant::now(), moved: None, whole: false, failed: None }) })
    }

    fn moved(&self) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        state.last = now;
        state.moved = Some(now);
    }

    fn begin(&self) {
        let mut state = self.state.lock();
        *state = SendState { last: Instant::now(), moved: state.moved, whole: false, failed: None };
    }

    /// Resolves when nothing was taken for too long, to that time.
    async fn stalled(&self, patience: Duration) -> Duration {
        loop {
            let (last, limit) = {
                let state = self.state.lock();
                (state.last, if state.whole { patience } else { patience / 2 })
            };
            if last.elapsed() >= limit {
                return limit;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

impl Payload {
    /// Bytes in memory.
    pub(super) fn whole(media_type: &str, bytes: Bytes) -> Self {
        Self { media_type: media_type.to_owned(), content: Content::Whole(bytes), place: None, flow: Flow::new() }
    }

    /// A range of a source. `uploaded` is called for every piece that the connection has taken.
    pub(super) fn part(source: &Arc<dyn UploadSource>, range: Range<u64>, uploaded: &Uploaded) -> Self {
        let content = Content::Part { source: Arc::clone(source), range, uploaded: Arc::clone(uploaded) };
        Self { media_type: "application/octet-stream".to_owned(), content, place: None, flow: Flow::new() }
    }

    /// The same, with its range in `Content-Range`.
    pub(super) fn placed(mut self) -> Self {
        if let Content::Part { range, .. } = &self.content {
            self.place = Some(range.clone());
        }
        self
    }

    /// When bytes were last taken, if ever.
    pub(super) fn last_progress(&self) -> Option<Instant> {
        self.flow.state.lock().moved
    }

    /// Adds headers and body to a request.
    pub(super) fn load(&self, request: RequestBuilder) -> RequestBuilder {
        self.flow.begin();
        let length = match &self.content {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::Part { range, .. } => range.end.saturating_sub(range.start),
        };
        let mut request = request.header(CONTENT_TYPE, &self.media_type).header(CONTENT_LENGTH, length);
        if let Some(place) = &self.place {
            // As the distribution specification demands: without unit and total.
            request = request.header(CONTENT_RANGE, format!("{}-{}", place.start, place.end.saturating_sub(1)));
        }
        match &self.content {
            Content::Whole(bytes) => {
                self.flow.state.lock().whole = true;
                request.body(bytes.clone())
            }
            Content::Part { range, .. } if range.is_empty() => {
                self.flow.state.lock().whole = true;
                request.body(Bytes::new())
            }
            Content::Part { source, range, uploaded } => {
                request.body(streamed(Arc::clone(source), range.clone(), Arc::clone(uploaded), Arc::clone(&self.flow)))
            }
        }
    }

    /// Waits for the response to a request with this body.
    pub(super) async fn answered(
        &self,
        sending: impl Future<Output = reqwest::Result<Response>>,
        patience: Duration,
        what: &str,
    ) -> Result<Response, Failure> {
        let sent = tokio::select! {
            sent = sending => sent,
            limit = self.flow.stalled(patience) => {
                let message = format!("{what}: the connection accepted nothing for {} s", limit.as_secs_f64());
                return Err(Failure::passing(Error::new(ErrorKind::TimedOut, message), Cause::Silent));
            }
        };
        sent.map_err(|error| match self.flow.state.lock().failed.take() {
            Some(why) => Failure::Final(Error::new(ErrorKind::Other, format!("{what}: cannot read the data to upload: {why}"))),
            None => answer::unanswered(what, &error),
        })
    }
}

/// The body, produced as the connection takes it.
fn streamed(source: Arc<dyn UploadSource>, range: Range<u64>, uploaded: Uploaded, flow: Arc<Flow>) -> Body {
    let start = range.start;
    let pieces = stream::unfold(Some(range), move |range| {
        let (source, uploaded, flow) = (Arc::clone(&source), Arc::clone(&uploaded), Arc::clone(&flow));
        async move {
            let range = range?;
            // A request for more means that the connection has taken the previous piece.
            if range.start > start {
                flow.moved();
            }
            uploaded(range.start);
            if range.is_empty() {
                flow.state.lock().whole = true;
                return None;
            }
            // At most `PIECE`, so the conversion is lossless.
            let wanted = range.end.saturating_sub(range.start).min(PIECE) as usize;
            let read = match source.read(range.start, wanted).await {
                Ok(bytes) if bytes.is_empty() || bytes.len() > wanted => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                other => other,
            };
            if let Err(error) = &read {
                flow.state.lock().failed = Some(error.to_string().escape_debug().to_string());
            }
            let next = read.as_ref().ok().map(|bytes| range.start.saturating_add(bytes.len() as u64)..range.end);
            if next.as_ref().is_some_and(Range::is_empty) {
                flow.state.lock().whole = true;
            }
            Some((read, next))
        }
    });
    Body::wrap_stream(pieces)
}
