//! Upload sessions: opening, addresses, offsets, cancelling.
//!
//! The registry sends a session's address with every response, relative or absolute. Only the registry's own 202 may name another origin;
//! no credential goes there, and encryption is never lost. A session opened by a refused mount waits here for the upload of its blob.

use std::time::Duration;

use reqwest::header::{HeaderMap, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::authorize::Scope;
use super::exchange::{Call, ResponseHead, Whole};
use super::learned::Session;
use super::shared::Http;
use super::{answer, origin};
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Repository};

/// Limit for cancelling a session: a courtesy, not worth a long wait.
const COURTESY: Duration = Duration::from_secs(5);

/// The uploads of one blob to a registry.
pub(super) struct Uploads<'http> {
    pub(super) http: &'http Http,
    pub(super) repository: &'http Repository,
    /// The blob, for messages.
    pub(super) what: String,
}

/// The progress of an upload as reported by the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// This many bytes from the start.
    Offset(u64),
    /// The session does not exist (any more).
    Lost,
    /// The registry does not report it.
    Unknown,
}

impl<'http> Uploads<'http> {
    pub(super) fn new(http: &'http Http, repository: &'http Repository, digest: &Digest) -> Self {
        Self { http, repository, what: format!("blob {}/{repository}@{digest}", http.registry) }
    }

    pub(super) fn scope(&self) -> Scope {
        Scope::Push(self.repository.clone())
    }

    /// A request to a session.
    pub(super) fn call(&self, method: Method, url: Url) -> Call {
        Call { elsewhere_counts: true, ..Call::new(self.what.clone(), method, url, self.scope()) }
    }

    /// Opens a session.
    pub(super) async fn begin(&self) -> Result<Session, Error> {
        let url = self.http.url(&format!("v2/{}/blobs/uploads/", self.repository))?;
        let call = self.call(Method::POST, url);
        let answer = self.http.exchange.fetch(&call, answer::ERROR_LIMIT).await?;
        match answer.status.as_u16() {
            202 => self.session(&call.url, &answer.headers, true),
            _ => Err(self.http.exchange.refused_write(&call, &answer).await),
        }
    }

    /// The session named by a response; a response that accepted something `may_leave` the origin.
    fn session(&self, from: &Url, headers: &HeaderMap, may_leave: bool) -> Result<Session, Error> {
        let bad = |why: &str| Error::new(ErrorKind::Unreachable, format!("{}: cannot continue the upload: {why}", self.what));
        let location = headers.get(LOCATION).ok_or_else(|| bad("the registry sent no location"))?;
        let location = location.to_str().map_err(|_| bad("the registry sent an invalid location"))?;
        let location = origin::upload(&self.http.base, from, location, may_leave).map_err(|why| bad(&why))?;
        let least = headers.get("oci-chunk-min-length").and_then(|value| value.to_str().ok()).and_then(|value| value.trim().parse().ok());
        Ok(Session { location, least: least.unwrap_or_default() })
    }

    /// Updates the session from the response to a chunk or query.
    pub(super) fn moved(&self, session: &mut Session, answer: &Whole) -> Result<(), Error> {
        if answer.headers.contains_key(LOCATION) {
            session.location = self.session(&session.location, &answer.headers, answer.status == StatusCode::ACCEPTED)?.location;
        }
        Ok(())
    }

    /// Queries how far a session got.
    pub(super) async fn reached(&self, session: &mut Session) -> Result<Reached, Error> {
        let call = self.call(Method::GET, session.location.clone());
        let answer = self.http.exchange.fetch(&call, answer::ERROR_LIMIT).await?;
        match answer.status.as_u16() {
            200..=299 => {
                self.moved(session, &answer)?;
                Ok(range(&answer.headers))
            }
            // Registries that cancel a broken session also answer 400 or 416 here.
            400 | 404 | 410 | 416 => Ok(Reached::Lost),
            405 | 501 => Ok(Reached::Unknown),
            _ => Err(self.http.exchange.refused_write(&call, &answer).await),
        }
    }

    /// Cancels a session. Failures do not matter: registries expire sessions by themselves.
    pub(super) async fn cancel(&self, session: Session) {
        let exchange = &self.http.exchange;
        let call = self.call(Method::DELETE, session.location);
        let mut attempts = exchange.attempts().only_once();
        let asking = exchange.open(&call, &mut attempts);
        if let Ok(Ok(ResponseHead { response, .. })) = tokio::time::timeout(COURTESY, asking).await {
            tracing::debug!(what = self.what, status = response.status().as_u16(), "upload cancelled");
        }
    }

    /// Keeps the session of a refused mount for the upload that follows.
    pub(super) async fn park(&self, digest: &Digest, from: &Url, answer: &Whole) {
        // A session without a usable address cannot be cancelled either.
        let Ok(session) = self.session(from, &answer.headers, true) else { return };
        if let Some(surplus) = self.http.idle_sessions.put(self.repository, *digest, session) {
            self.cancel(surplus).await;
        }
    }
}

/// The `Range` header of an upload: `0-999` means a thousand bytes, `0-0` none (or one, which is ambiguous).
pub(super) fn range(headers: &HeaderMap) -> Reached {
    let Some(value) = headers.get(RANGE).and_then(|value| value.to_str().ok()) else { return Reached::Unknown };
    let value = value.trim();
    let value = value.strip_prefix("bytes").map_or(value, |value| value.trim_start_matches(['=', ' ']));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match value.split_once('-').and_then(|(first, last)| number(first).zip(number(last))) {
        Some((0, 0)) => Reached::Offset(0),
        Some((0, last)) => last.checked_add(1).map_or(Reached::Unknown, Reached::Offset),
        _ => Reached::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_an_upload_is_parsed_strictly() {
        let read = |value: &str| range(&HeaderMap::from_iter([(RANGE, value.parse().unwrap())]));
        for (value, expected) in [
            ("0-999", Reached::Offset(1000)),
            ("bytes=0-999", Reached::Offset(1000)),
            ("0-0", Reached::Offset(0)),
            ("5-9", Reached::Unknown),
            ("0-", Reached::Unknown),
            ("-1", Reached::Unknown),
            ("0-18446744073709551615", Reached::Unknown),
            ("0-+9", Reached::Unknown),
            ("", Reached::Unknown),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
        assert_eq!(range(&HeaderMap::new()), Reached::Unknown);
    }
}
