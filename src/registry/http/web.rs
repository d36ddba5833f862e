//! Downloads files from web servers, as sources of packs.
//!
//! No registry credential goes there; credentials in a URL go only to its own origin. Redirects never lead from TLS to plain text. A file
//! arrives whole or as an error; no digest is checked.

use futures_util::{StreamExt, stream};
use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode, Url};

use super::super::BlobStream;
use super::clients::{Clients, Custom, Tls};
use super::origin::{self, Origin};
use super::retry::{self, Attempts, Failure, Timing};
use super::{answer, retry::Cause};
use crate::error::{Error, ErrorKind};

/// Most redirects followed.
const REDIRECTS: usize = 10;

/// Web servers, and their TLS settings.
#[derive(Clone, Debug)]
pub struct WebFiles {
    tls: Tls,
    timing: Timing,
}

impl WebFiles {
    /// Uses the system's CAs and those of `tls`; the registry-only settings in `tls` are ignored.
    pub fn new(tls: Tls, timing: Timing) -> Self {
        Self { tls: Tls { insecure: false, client: None, ..tls }, timing }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// Invalid if it is not a URL; NotFound, Denied, and Unreachable for everything that may pass.
    pub async fn open(&self, address: &str) -> Result<BlobStream, Error> {
        let mut url = Url::parse(address).map_err(|error| Error::new(ErrorKind::Invalid, format!("not a URL: {error}")))?;
        let mut attempts = Attempts::new(self.timing);
        for _ in 0..=REDIRECTS {
            let what = origin::shown(&url);
            let response = self.answered(&url, &what, &mut attempts).await?;
            if !response.status().is_redirection() {
                return Ok(self.body(response, what));
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
            url = origin::redirect(&url, location).map_err(|why| Error::new(ErrorKind::Unreachable, format!("{what}: {why}")))?;
        }
        Err(Error::new(ErrorKind::Unreachable, format!("{}: more than {REDIRECTS} redirects", origin::shown(&url))))
    }

    /// A response with a body or a redirect.
    async fn answered(&self, url: &Url, what: &str, attempts: &mut Attempts) -> Result<Response, Error> {
        loop {
            match self.asked(url, what, attempts).await {
                Ok(response) => return Ok(response),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }

    async fn asked(&self, url: &Url, what: &str, attempts: &Attempts) -> Result<Response, Failure> {
        let invalid = || Failure::Final(Error::new(ErrorKind::Invalid, format!("{what}: not a web address")));
        let origin = Origin::of(url).ok_or_else(invalid)?;
        let clients = Clients::new(self.tls.clone(), Custom::default(), self.timing, origin.clone(), Vec::new()).map_err(Failure::Final)?;
        let client = clients.of(&origin, false).map_err(Failure::Final)?;
        let response = attempts.within(self.timing.header, what, client.get(url.clone()).send()).await?;
        let response = response.map_err(|error| answer::unanswered(what, &error))?;
        let status = response.status();
        if status == StatusCode::OK || status.is_redirection() {
            return Ok(response);
        }
        let kind = match status.as_u16() {
            404 | 410 => ErrorKind::NotFound,
            401 | 403 => ErrorKind::Denied,
            _ => ErrorKind::Unreachable,
        };
        let error = Error::new(kind, format!("{what}: the server answered with status {}", status.as_u16()));
        match retry::is_passing(status.as_u16()) {
            true => Err(Failure::Passing { error, after: retry::told_wait(response.headers()), cause: Cause::Silent }),
            false => Err(Failure::Final(error)),
        }
    }

    fn body(&self, response: Response, what: String) -> BlobStream {
        let limit = self.timing.progress;
        let start = Some((response, what));
        stream::unfold(start, move |state| async move {
            let (mut response, what) = state?;
            let late = || Error::new(ErrorKind::TimedOut, format!("{what}: no progress within {} s (--io-timeout)", limit.as_secs()));
            let next = tokio::time::timeout(limit, response.chunk()).await;
            match next {
                Err(_) => Some((Err(late()), None)),
                Ok(Err(error)) => {
                    let error = Error::new(ErrorKind::Unreachable, format!("{what}: {}", answer::chain(&error)));
                    Some((Err(error), None))
                }
                Ok(Ok(None)) => None,
                Ok(Ok(Some(piece))) => Some((Ok(piece), Some((response, what)))),
            }
        })
        .boxed()
    }
}
