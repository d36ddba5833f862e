//! Ranges of blobs as streams: exactly the requested bytes, or an error.
//!
//! A broken or stalled transfer resumes with a new range request; after 64 KiB of progress, earlier failures are forgotten. If a registry
//! ignores ranges, the blob is read from the start and unwanted bytes are dropped. Sizes are checked against the descriptor; the digest is
//! not, since only a reader of the whole blob can do that.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use reqwest::{Method, StatusCode};

use super::super::BlobStream;
use super::answer;
use super::authorize::Scope;
use super::exchange::{Call, ResponseHead};
use super::retry::{Attempts, Cause, Failure};
use super::shared::Http;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Repository};

/// Bytes of progress after which earlier failures no longer count.
const PROGRESS: u64 = 64 << 10;
/// A transfer of so many bytes should not share its connection with others.
const LONG: u64 = 2 << 20;
type Body = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// Opens a range of a blob.
pub(super) async fn open(
    http: &Arc<Http>,
    repository: &Repository,
    descriptor: &Descriptor,
    range: Range<u64>,
) -> Result<BlobStream, Error> {
    let what = format!("blob {}/{repository}@{}", http.registry, descriptor.digest);
    if range.start > range.end || range.end > descriptor.size {
        return Err(Error::new(ErrorKind::Invalid, format!("{what}: bytes {range:?} are outside its {} bytes", descriptor.size)));
    }
    if range.is_empty() {
        return Ok(stream::empty().boxed());
    }
    let mut transfer = Transfer {
        call: Call::new(
            what,
            Method::GET,
            http.url(&format!("v2/{repository}/blobs/{}", descriptor.digest))?,
            Scope::Content(repository.clone()),
        ),
        http: Arc::clone(http),
        digest: descriptor.digest,
        size: descriptor.size,
        next: range.start,
        end: range.end,
        attempts: http.exchange.attempts(),
        since_failure: 0,
        dropped: 0,
        body: None,
    };
    if range.end - range.start >= LONG {
        transfer.call.lane = http.long_transfers.fetch_add(1, Ordering::Relaxed);
    }
    transfer.connect().await?;
    Ok(stream::unfold(Some(transfer), |transfer| async move {
        let mut transfer = transfer?;
        match transfer.piece().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(transfer))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

/// Requests the size of a blob.
pub(super) async fn size(http: &Http, repository: &Repository, digest: &Digest) -> Result<u64, Error> {
    let what = format!("blob {}/{repository}@{digest}", http.registry);
    let url = http.url(&format!("v2/{repository}/blobs/{digest}"))?;
    let call = Call::new(what, Method::HEAD, url, Scope::Content(repository.clone()));
    let answer = http.exchange.fetch(&call, 0).await?;
    if answer.status != StatusCode::OK {
        return Err(http.exchange.refused(&call, answer.status, &answer.headers, &answer.body).await);
    }
    let length = answer.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()).and_then(|length| length.parse().ok());
    length.ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("{}: the registry does not report its size", call.what)))
}

/// The body of one response.
struct Incoming {
    body: Body,
    /// Bytes to skip before the wanted ones.
    skip: u64,
    /// Whether the body extends to the blob's end, so that its length can be checked.
    to_the_end: bool,
}

/// A range in transfer.
struct Transfer {
    http: Arc<Http>,
    call: Call,
    digest: Digest,
    size: u64,
    next: u64,
    end: u64,
    attempts: Attempts,
    since_failure: u64,
    /// Bytes that this connection sent before the wanted ones.
    dropped: u64,
    body: Option<Incoming>,
}

impl Transfer {
    /// The next bytes, `None` at the end of the range.
    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        // The consumer may have taken its time; the registry's clock starts now.
        self.attempts.progress();
        loop {
            if self.next >= self.end {
                return self.finish().await.map(|()| None);
            }
            if self.body.is_none() {
                self.connect().await?;
            }
            match self.receive().await {
                Ok(Some(piece)) => {
                    self.since_failure += piece.len() as u64;
                    // Bytes read only to be dropped are not progress.
                    if self.since_failure >= PROGRESS.max(self.dropped) {
                        self.attempts.forget_failures();
                    }
                    return Ok(Some(piece));
                }
                Ok(None) => {}
                Err(failure) => {
                    self.body = None;
                    self.since_failure = 0;
                    self.dropped = 0;
                    self.http.exchange.pause(&mut self.attempts, failure).await?;
                }
            }
        }
    }

    /// Reads from the open body; `None` if it had no wanted bytes.
    async fn receive(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(incoming) = self.body.as_mut() else { return Ok(None) };
        // Half of the limit per connection, so that a stalled one can be replaced.
        let limit = self.attempts.patience() / 2;
        let next = self.attempts.within(limit, &self.call.what, incoming.body.next()).await?;
        let Some(piece) = next else {
            return Err(self.ended_early());
        };
        let mut piece = piece.map_err(|error| answer::unanswered(&self.call.what, &error))?;
        self.attempts.progress();
        let skipped = incoming.skip.min(piece.len() as u64);
        incoming.skip -= skipped;
        self.dropped += skipped;
        // At most the length of the piece, so the conversions are lossless.
        drop(piece.split_to(skipped as usize));
        let wanted = self.end - self.next;
        if piece.len() as u64 > wanted {
            if incoming.to_the_end && self.end == self.size {
                return Err(Failure::Final(self.wrong_size("more than")));
            }
            piece.truncate(wanted as usize);
        }
        self.next += piece.len() as u64;
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// The body ended cleanly before its range did: the blob is short, or the server sends ranges in parts.
    fn ended_early(&self) -> Failure {
        let whole = self.body.as_ref().is_some_and(|incoming| incoming.to_the_end);
        if whole {
            Failure::Final(self.wrong_size("less than"))
        } else {
            let message = format!("{}: the transfer ended at byte {}", self.call.what, self.next);
            Failure::passing(Error::new(ErrorKind::Unreachable, message), Cause::Answered)
        }
    }

    /// After the last byte of the blob, the body must end.
    async fn finish(&mut self) -> Result<(), Error> {
        let Some(mut incoming) = self.body.take().filter(|incoming| incoming.to_the_end && self.end == self.size) else { return Ok(()) };
        match self.attempts.within(self.attempts.patience() / 2, &self.call.what, incoming.body.next()).await {
            Ok(Some(Ok(piece))) if !piece.is_empty() => Err(self.wrong_size("more than")),
            // All bytes are here; how the connection ends does not matter.
            _ => Ok(()),
        }
    }

    fn wrong_size(&self, how: &str) -> Error {
        Error::new(ErrorKind::Integrity, format!("{}: the registry sends {how} its {} bytes", self.call.what, self.size))
    }

    /// Requests the missing bytes.
    async fn connect(&mut self) -> Result<(), Error> {
        loop {
            // The first request for a whole blob has no range, which every registry and proxy understands.
            self.call.range = (self.next > 0 || self.end < self.size).then_some(self.next..self.end);
            self.call.shortcut = self.http.shortcuts.get(&self.digest);
            let answer = self.http.exchange.open(&self.call, &mut self.attempts).await?;
            if let Some(url) = &answer.elsewhere {
                self.http.shortcuts.put(self.digest, url.clone());
            }
            match self.accept(answer).await {
                Ok(incoming) => {
                    self.body = Some(incoming);
                    return Ok(());
                }
                Err(failure) => self.http.exchange.pause(&mut self.attempts, failure).await?,
            }
        }
    }

    async fn accept(&mut self, answer: ResponseHead) -> Result<Incoming, Failure> {
        let (status, headers) = (answer.response.status(), answer.response.headers().clone());
        let length = answer.response.content_length();
        let integrity = |why: String| Failure::Final(Error::new(ErrorKind::Integrity, format!("{}: {why}", self.call.what)));
        match status {
            StatusCode::OK => {
                if let Some(length) = length.filter(|length| *length != self.size) {
                    return Err(integrity(format!("the registry has {length} bytes instead of {}", self.size)));
                }
                self.http.rangeless.fetch_or(self.next > 0, Ordering::Relaxed);
                Ok(Incoming { body: answer.response.bytes_stream().boxed(), skip: self.next, to_the_end: true })
            }
            StatusCode::PARTIAL_CONTENT => {
                let value = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
                let (sent, total) = content_range(value)
                    .ok_or_else(|| integrity(format!("a part without a usable Content-Range (`{}`)", answer::escaped(value))))?;
                if total.is_some_and(|total| total != self.size) {
                    return Err(integrity(format!("the registry has {} bytes instead of {}", total.unwrap_or_default(), self.size)));
                }
                if sent.start != self.next || sent.end > self.end || length.is_some_and(|length| length != sent.end - sent.start) {
                    return Err(integrity(format!("requested bytes {}..{}, got {sent:?}", self.next, self.end)));
                }
                if self.next > 0 {
                    self.http.rangeless.store(false, Ordering::Relaxed);
                }
                Ok(Incoming { body: answer.response.bytes_stream().boxed(), skip: 0, to_the_end: false })
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(integrity(format!("the registry has fewer than its {} bytes", self.size))),
            _ => {
                let own = answer.elsewhere.is_none();
                let mut attempts = self.http.exchange.attempts();
                // Without the body, the error only lacks the registry's own message.
                let body = answer::body(answer.response, answer::ERROR_LIMIT, &self.call.what, &mut attempts).await.unwrap_or_default();
                let error = match own {
                    true => self.http.exchange.refused(&self.call, status, &headers, &body).await,
                    false => answer::refused(&self.call.what, status.as_u16(), &headers, &body, false),
                };
                Err(Failure::Final(error))
            }
        }
    }
}

/// Parses `bytes 0-9/100` and `bytes 0-9/*` into a half-open range and the total.
fn content_range(value: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.trim().bytes().all(|byte| byte.is_ascii_digit()).then(|| text.trim().parse::<u64>().ok()).flatten();
    let (start, end) = (number(first)?, number(last)?.checked_add(1)?);
    let total = if total.trim() == "*" { None } else { Some(number(total)?) };
    (start < end && total.is_none_or(|total| end <= total)).then_some((start..end, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_is_parsed_strictly() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0..10, Some(100))));
        assert_eq!(content_range("bytes 5-5/*"), Some((5..6, None)));
        for bad in [
            "",
            "bytes",
            "bytes 9-0/100",
            "bytes 0-100/100",
            "bytes */100",
            "items 0-9/100",
            "bytes 0-18446744073709551615/*",
            "bytes +0-9/100",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
