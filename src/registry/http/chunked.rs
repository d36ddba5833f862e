//! Uploads large blobs in chunks: after each chunk, the offset that the registry reports counts.
//!
//! After anything unexpected, the session is queried for its offset before another byte is sent. A session that is gone, or that holds more
//! than was sent, is lost.

use std::ops::Range;

use reqwest::Method;

use super::exchange::{Call, Whole};
use super::learned::Session;
use super::payload::Payload;
use super::retry::{Cause, Failure};
use super::session::{Reached, range};
use super::upload::{Ended, RESTARTS, Upload};
use crate::error::{Error, ErrorKind};

/// The next step after a chunk.
enum Next {
    /// The registry has all bytes up to this offset.
    At(u64),
    /// Query the session, because of this failure.
    Ask(Failure),
    /// The session is gone.
    Lost(Error),
    /// The registry does not accept chunks.
    Chunkless(u16),
}

impl Upload<'_> {
    /// Fills a session chunk by chunk and closes it.
    pub(super) async fn in_chunks(&mut self, mut session: Session) -> Result<Ended, Error> {
        let size = self.descriptor.size;
        let mut offset = 0;
        self.attempts.progress();
        while offset < size {
            let length = self.chunk.max(session.least).max(1);
            let end = size.min(offset.saturating_add(length));
            let payload = Payload::part(&self.source, offset..end, &self.uploaded).placed();
            let call = Call { payload: Some(payload), ..self.uploads.call(Method::PATCH, session.location.clone()) };
            let next = match self.send(&call).await {
                Ok(answer) => self.after(&call, &mut session, offset..end, answer).await?,
                Err(failure) => Next::Ask(self.passing(failure, &session).await?),
            };
            offset = match next {
                Next::At(reached) => {
                    if reached > self.high {
                        self.high = reached;
                        self.attempts.forget_failures();
                        self.attempts.progress();
                    }
                    reached
                }
                Next::Lost(error) => return Ok(Ended::Lost(error)),
                Next::Chunkless(status) => {
                    self.uploads.cancel(session).await;
                    return Ok(Ended::Chunkless(status));
                }
                Next::Ask(failure) => {
                    let error = failure.error().clone();
                    match self.queried(&mut session, offset..end, failure).await? {
                        Some(reached) => reached,
                        None => return Ok(Ended::Lost(error)),
                    }
                }
            };
            (self.uploaded)(offset);
        }
        self.close(session).await
    }

    /// The offset of a session after a failure to send a chunk; `None` if the session is lost.
    async fn queried(&mut self, session: &mut Session, sent: Range<u64>, failure: Failure) -> Result<Option<u64>, Error> {
        self.disturbed = true;
        let error = failure.error().clone();
        self.pause(failure).await?;
        match self.uploads.reached(session).await? {
            Reached::Offset(reached) if reached < sent.start && self.setbacks == RESTARTS => {
                let message = format!("{}; the registry keeps losing bytes it had accepted", error.message);
                Err(self.given_up(Error::new(error.kind, message), session.clone()).await)
            }
            Reached::Offset(reached) if reached <= sent.end => {
                self.setbacks += u32::from(reached < sent.start);
                Ok(Some(reached))
            }
            Reached::Lost => Ok(None),
            Reached::Offset(_) | Reached::Unknown => {
                self.uploads.cancel(session.clone()).await;
                Ok(None)
            }
        }
    }

    /// Interprets the answer to a chunk.
    async fn after(&mut self, call: &Call, session: &mut Session, sent: Range<u64>, answer: Whole) -> Result<Next, Error> {
        let end = sent.end;
        let strange =
            |why: String| Next::Ask(Failure::passing(Error::new(ErrorKind::Unreachable, format!("{}: {why}", call.what)), Cause::Answered));
        match answer.status.as_u16() {
            200..=299 => {
                self.uploads.moved(session, &answer)?;
                match range(&answer.headers) {
                    Reached::Offset(reached) if reached == end => Ok(Next::At(end)),
                    // If a registry does not report an offset, assume success; the digest is checked at the end.
                    Reached::Unknown | Reached::Lost => Ok(Next::At(end)),
                    Reached::Offset(reached) => Ok(strange(format!("{end} bytes were sent, but the registry has {reached}"))),
                }
            }
            // The first chunk of a session in which nothing went wrong.
            status @ (400 | 404 | 405 | 411 | 415 | 416 | 501) if sent.start == 0 && !self.disturbed => Ok(Next::Chunkless(status)),
            404 | 410 => Ok(Next::Lost(self.lost(&answer))),
            416 => Ok(strange("the registry expects a different offset".to_owned())),
            413 => {
                let smaller = (self.chunk / 2).max(self.uploads.http.sizes.smallest).max(session.least);
                if smaller >= self.chunk {
                    let error = self.refusal(call, &answer).await;
                    return Err(self.given_up(error, session.clone()).await);
                }
                self.chunk = smaller;
                Ok(strange("the registry rejects the chunk as too large".to_owned()))
            }
            _ => {
                let error = self.refusal(call, &answer).await;
                Err(self.given_up(error, session.clone()).await)
            }
        }
    }

    async fn refusal(&self, call: &Call, answer: &Whole) -> Error {
        self.uploads.http.exchange.refused_write(call, answer).await
    }
}
