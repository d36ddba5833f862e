//! Uploads of blobs: sessions are opened, filled, closed, and reopened when lost.
//!
//! A small blob takes one request, and so does a large one if the registry rejects chunks. After a lost answer the outcome is queried,
//! never guessed: a blob by HEAD, a session by its status. Bytes that failed once go into a session with a known offset, or into a new one,
//! because some registries append whatever they receive.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use reqwest::{Method, Url};

use super::super::{UploadSource, Uploaded};
use super::answer;
use super::exchange::{Call, Whole};
use super::learned::Session;
use super::manifest::{broken, claimed};
use super::mount;
use super::payload::Payload;
use super::retry::{Attempts, Failure};
use super::session::{Reached, Uploads};
use super::shared::Http;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Repository};

/// How often a blob is restarted because its session was lost or fell behind.
pub(super) const RESTARTS: u32 = 4;

/// The upload of one blob.
pub(super) struct Upload<'http> {
    pub(super) uploads: Uploads<'http>,
    pub(super) descriptor: &'http Descriptor,
    pub(super) source: Arc<dyn UploadSource>,
    pub(super) uploaded: Uploaded,
    pub(super) attempts: Attempts,
    /// Size of the next chunk, in bytes.
    pub(super) chunk: u64,
    /// Something went wrong in this session, so it may hold other bytes than were sent.
    pub(super) disturbed: bool,
    /// The most bytes that a session ever held. Only bytes beyond count as progress: a registry that accepts chunks and loses them again must
    /// not get the same bytes forever.
    pub(super) high: u64,
    /// How often a session fell behind its confirmed offset.
    pub(super) setbacks: u32,
}

/// How a session ended.
pub(super) enum Ended {
    /// The blob is stored.
    Done,
    /// The blob is not stored and needs another session.
    Lost(Error),
    /// The session takes no chunks and was cancelled; holds the status that refused the first chunk.
    Chunkless(u16),
}

/// Uploads a blob.
pub(super) async fn push(
    http: &Http,
    repository: &Repository,
    descriptor: &Descriptor,
    source: Arc<dyn UploadSource>,
    uploaded: Uploaded,
) -> Result<(), Error> {
    let uploads = Uploads::new(http, repository, &descriptor.digest);
    if source.length() != descriptor.size {
        return Err(broken(&uploads.what, &format!("the source has {} bytes instead of {}", source.length(), descriptor.size)));
    }
    let (attempts, chunk) = (http.exchange.attempts_to_write(), http.sizes.chunk);
    let mut upload = Upload { uploads, descriptor, source, uploaded, attempts, chunk, disturbed: false, high: 0, setbacks: 0 };
    let mut session = http.idle_sessions.take(repository, &descriptor.digest);
    let mut restarts = 0;
    let mut refused = None;
    loop {
        let open = match session.take() {
            Some(open) => open,
            None => upload.uploads.begin().await?,
        };
        upload.disturbed = false;
        let at_once = descriptor.size <= http.sizes.whole || refused.is_some() || http.chunkless.load(Ordering::Relaxed);
        let ended = match at_once {
            true => upload.at_once(open).await?,
            false => upload.in_chunks(open).await?,
        };
        match ended {
            Ended::Done => {
                // The other statuses may concern this session only.
                if matches!(refused, Some(405 | 411 | 415 | 501)) {
                    http.chunkless.store(true, Ordering::Relaxed);
                }
                (upload.uploaded)(descriptor.size);
                return Ok(());
            }
            Ended::Chunkless(status) => {
                tracing::debug!(status, what = upload.uploads.what, "the registry rejects chunks; sending the blob in one request");
                refused = Some(status);
            }
            Ended::Lost(error) if restarts == RESTARTS => {
                return Err(error.append(format_args!(" (begun {} times)", restarts + 1)));
            }
            Ended::Lost(error) => {
                tracing::debug!(%error, "restarting the upload");
                restarts += 1;
                (upload.uploaded)(0);
            }
        }
    }
}

impl Upload<'_> {
    /// Sends the whole blob in the request that closes the session.
    async fn at_once(&mut self, session: Session) -> Result<Ended, Error> {
        let payload = Payload::part(&self.source, 0..self.descriptor.size, &self.uploaded);
        let call = self.closing(&session, payload);
        self.attempts.progress();
        match self.send(&call).await {
            Ok(answer) => self.closed(&call, session, answer).await,
            Err(failure) => {
                let failure = self.passing(failure, &session).await?;
                if self.is_there().await {
                    return Ok(Ended::Done);
                }
                let error = failure.error().clone();
                self.pause(failure).await?;
                // The session's content is unknown now.
                self.uploads.cancel(session).await;
                Ok(Ended::Lost(error))
            }
        }
    }

    /// Closes a session that holds all bytes.
    pub(super) async fn close(&mut self, mut session: Session) -> Result<Ended, Error> {
        self.attempts.progress();
        loop {
            let call = self.closing(&session, Payload::whole("application/octet-stream", Bytes::new()));
            let failure = match self.send(&call).await {
                Ok(answer) => return self.closed(&call, session, answer).await,
                Err(failure) => self.passing(failure, &session).await?,
            };
            if self.is_there().await {
                return Ok(Ended::Done);
            }
            let error = failure.error().clone();
            self.pause(failure).await?;
            match self.uploads.reached(&mut session).await? {
                Reached::Offset(offset) if offset == self.descriptor.size => {}
                Reached::Unknown => {}
                Reached::Lost if self.is_there().await => return Ok(Ended::Done),
                Reached::Lost | Reached::Offset(_) => return Ok(Ended::Lost(error)),
            }
        }
    }

    /// The request that closes a session.
    fn closing(&self, session: &Session, payload: Payload) -> Call {
        let mut url: Url = session.location.clone();
        url.query_pairs_mut().append_pair("digest", &self.descriptor.digest.to_string());
        Call { payload: Some(payload), ..self.uploads.call(Method::PUT, url) }
    }

    /// Interprets the answer to a closing request.
    async fn closed(&mut self, call: &Call, session: Session, answer: Whole) -> Result<Ended, Error> {
        match answer.status.as_u16() {
            200 | 201 | 204 => {
                let wanted = self.descriptor.digest;
                match claimed(&answer.headers, &call.what)? {
                    Some(named) if named != wanted && named.algorithm() == wanted.algorithm() => {
                        Err(broken(&call.what, &format!("the registry stored it as {named}")))
                    }
                    _ => Ok(Ended::Done),
                }
            }
            404 | 410 | 416 => match self.is_there().await {
                true => Ok(Ended::Done),
                false => Ok(Ended::Lost(self.lost(&answer))),
            },
            _ => {
                let error = self.uploads.http.exchange.refused_write(call, &answer).await;
                match error.kind {
                    ErrorKind::Integrity if self.disturbed => {
                        self.uploads.cancel(session).await;
                        Ok(Ended::Lost(error))
                    }
                    _ => Err(self.given_up(error, session).await),
                }
            }
        }
    }

    /// One attempt of a session request, with the whole response.
    pub(super) async fn send(&mut self, call: &Call) -> Result<Whole, Failure> {
        let exchange = &self.uploads.http.exchange;
        let outcome = match exchange.attempt(call, &self.attempts).await {
            Ok(answer) => exchange.whole(call, answer, answer::ERROR_LIMIT, &mut self.attempts).await,
            Err(failure) => Err(failure),
        };
        if let Some(last) = call.payload.as_ref().and_then(Payload::last_progress) {
            self.attempts.progress_until(last);
        }
        outcome
    }

    /// Waits before the next attempt, or returns the error if there is none.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), Error> {
        self.uploads.http.exchange.pause(&mut self.attempts, failure).await
    }

    /// Passes on a failure worth a retry; any other cancels the session.
    pub(super) async fn passing(&mut self, failure: Failure, session: &Session) -> Result<Failure, Error> {
        self.disturbed = true;
        match failure {
            Failure::Final(error) => Err(self.given_up(error, session.clone()).await),
            passing => Ok(passing),
        }
    }

    /// Cancels the session of an upload that failed for good, if the registry can still be reached.
    pub(super) async fn given_up(&self, error: Error, session: Session) -> Error {
        if !matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut) {
            self.uploads.cancel(session).await;
        }
        error
    }

    /// The session is unknown to the registry. This says nothing about the blob or the repository.
    pub(super) fn lost(&self, answer: &Whole) -> Error {
        let message = format!("{}: the registry lost the upload (status {})", self.uploads.what, answer.status.as_u16());
        Error::new(ErrorKind::Unreachable, message)
    }

    /// Whether the blob arrived after all. No answer counts as no.
    async fn is_there(&self) -> bool {
        let Uploads { http, repository, .. } = self.uploads;
        let attempts = http.exchange.attempts_to_write().at_most(1);
        matches!(mount::has(http, repository, self.descriptor, attempts).await, Ok(true))
    }
}
