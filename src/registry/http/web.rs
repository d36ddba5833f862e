//! Downloads files from web servers, as sources of packs.
//!
//! No registry credential goes there; credentials in a URL go only to its own origin. Redirects never lead from TLS to plain text. A broken
//! transfer goes on where it ended if the server still has the same file, by its entity tag or time of modification; else the file is read from
//! the start, and what arrived before must be the same. A file arrives whole or as an error; no digest is checked.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderValue, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE};
use reqwest::{Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};

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
        let url = Url::parse(address).map_err(|error| Error::new(ErrorKind::Invalid, format!("not a URL: {error}")))?;
        let mut attempts = Attempts::new(self.timing);
        let (response, what) = self.found(url.clone(), None, &mut attempts).await?;
        let validator = validator(&response);
        let transfer = Transfer {
            files: self.clone(),
            url,
            what,
            validator,
            attempts,
            response: Some(response),
            delivered: Sha256::new(),
            length: 0,
            again: None,
        };
        let pieces = stream::unfold(Some(transfer), |transfer| async move {
            let mut transfer = transfer?;
            match transfer.next().await {
                Ok(None) => None,
                Ok(Some(piece)) => Some((Ok(piece), Some(transfer))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(pieces.boxed())
    }

    /// The response for a file, or for its rest, and the name of its place in messages.
    async fn found(&self, mut url: Url, rest: Option<&Rest>, attempts: &mut Attempts) -> Result<(Response, String), Error> {
        for _ in 0..=REDIRECTS {
            let what = origin::shown(&url);
            let response = self.answered(&url, &what, rest, attempts).await?;
            if !response.status().is_redirection() {
                return Ok((response, what));
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
            url = origin::redirect(&url, location).map_err(|why| Error::new(ErrorKind::Unreachable, format!("{what}: {why}")))?;
        }
        Err(Error::new(ErrorKind::Unreachable, format!("{}: more than {REDIRECTS} redirects", origin::shown(&url))))
    }

    /// A response with a body or a redirect.
    async fn answered(&self, url: &Url, what: &str, rest: Option<&Rest>, attempts: &mut Attempts) -> Result<Response, Error> {
        loop {
            match self.asked(url, what, rest, attempts).await {
                Ok(response) => return Ok(response),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }

    async fn asked(&self, url: &Url, what: &str, rest: Option<&Rest>, attempts: &Attempts) -> Result<Response, Failure> {
        let invalid = || Failure::Final(Error::new(ErrorKind::Invalid, format!("{what}: not a web address")));
        let origin = Origin::of(url).ok_or_else(invalid)?;
        let clients = Clients::new(self.tls.clone(), Custom::default(), self.timing, origin.clone(), Vec::new()).map_err(Failure::Final)?;
        let client = clients.of(&origin, false).map_err(Failure::Final)?;
        let mut request = client.get(url.clone());
        if let Some(Rest { from, validator }) = rest {
            request = request.header(RANGE, format!("bytes={from}-")).header(IF_RANGE, validator);
        }
        let response = attempts.within(self.timing.header, what, request.send()).await?;
        let response = response.map_err(|error| answer::unanswered(what, &error))?;
        let status = response.status();
        if status == StatusCode::OK || status.is_redirection() || rest.is_some_and(|rest| rest.is_start_of(&response)) {
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
}

/// The rest of a file that must not have changed.
struct Rest {
    from: u64,
    validator: HeaderValue,
}

impl Rest {
    /// Whether a response is this part.
    fn is_start_of(&self, response: &Response) -> bool {
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
        response.status() == StatusCode::PARTIAL_CONTENT && range.starts_with(&format!("bytes {}-", self.from))
    }
}

/// Identifies the version of a file: its strong entity tag, else when it was modified.
fn validator(response: &Response) -> Option<HeaderValue> {
    let headers = response.headers();
    let tag = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    tag.or_else(|| headers.get(LAST_MODIFIED)).cloned()
}

/// A file being transferred.
struct Transfer {
    files: WebFiles,
    url: Url,
    what: String,
    validator: Option<HeaderValue>,
    attempts: Attempts,
    /// The response in progress; `None` after one broke.
    response: Option<Response>,
    /// Hashes everything that was returned, and its length.
    delivered: Sha256,
    length: u64,
    /// After a new start: how much of what was returned is still to come again, and its hash so far.
    again: Option<(u64, Sha256)>,
}

impl Transfer {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.attempts.progress();
        loop {
            let arrived = match &mut self.response {
                Some(response) => Self::arrived(response, &self.what, &self.attempts).await,
                None => {
                    self.reopen().await?;
                    continue;
                }
            };
            match arrived {
                Ok(Some(piece)) => {
                    self.attempts.progress();
                    if let Some(piece) = self.fresh(piece)? {
                        self.attempts.forget_failures();
                        self.length += piece.len() as u64;
                        self.delivered.update(&piece);
                        return Ok(Some(piece));
                    }
                }
                Ok(None) if self.again.is_some() => return Err(self.changed()),
                Ok(None) => return Ok(None),
                Err(failure) => {
                    self.attempts.pause(failure).await?;
                    self.response = None;
                }
            }
        }
    }

    async fn arrived(response: &mut Response, what: &str, attempts: &Attempts) -> Result<Option<Bytes>, Failure> {
        let piece = attempts.within(attempts.patience(), what, response.chunk()).await?;
        piece.map_err(|error| {
            let error = Error::new(ErrorKind::Unreachable, format!("{what}: {}", answer::chain(&error)));
            Failure::passing(error, Cause::Silent)
        })
    }

    /// Asks for the rest; without a way to tell whether the file changed, or if it did, for all of it.
    async fn reopen(&mut self) -> Result<(), Error> {
        let validator = self.validator.clone().filter(|_| self.length > 0);
        let rest = validator.map(|validator| Rest { from: self.length, validator });
        let (response, what) = self.files.found(self.url.clone(), rest.as_ref(), &mut self.attempts).await?;
        let is_rest = response.status() == StatusCode::PARTIAL_CONTENT;
        tracing::debug!("{what}: the transfer broke at byte {}; {}", self.length, if is_rest { "going on" } else { "starting again" });
        self.again = (!is_rest && self.length > 0).then(|| (self.length, Sha256::new()));
        self.validator = validator_of(is_rest, self.validator.take(), &response);
        (self.response, self.what) = (Some(response), what);
        Ok(())
    }

    /// The part of a piece that was not returned before.
    fn fresh(&mut self, mut piece: Bytes) -> Result<Option<Bytes>, Error> {
        let Some((left, mut hasher)) = self.again.take() else { return Ok(Some(piece)) };
        let known = piece.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()));
        hasher.update(&known);
        let left = left - known.len() as u64;
        if left > 0 {
            self.again = Some((left, hasher));
            return Ok(None);
        }
        if hasher.finalize() != self.delivered.clone().finalize() {
            return Err(self.changed());
        }
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    fn changed(&self) -> Error {
        Error::new(ErrorKind::Unreachable, format!("{}: the file changed while it was transferred; try again", self.what))
    }
}

/// The validator from now on: that of the whole file just begun, or the one that still holds.
fn validator_of(is_rest: bool, known: Option<HeaderValue>, response: &Response) -> Option<HeaderValue> {
    if is_rest { known } else { validator(response) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use futures_util::TryStreamExt;

    use super::*;

    /// Serves one connection for each answer, and returns the requests.
    fn server(answers: Vec<&'static str>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let serve = |answer: &str| {
                let (mut connection, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    connection.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                connection.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(request).unwrap().to_lowercase()
            };
            answers.into_iter().map(serve).collect()
        });
        (address, serving)
    }

    async fn fetch(answers: Vec<&'static str>) -> (Result<String, Error>, Vec<String>) {
        let (address, serving) = server(answers);
        let timing = Timing { backoff: Duration::from_millis(1), ..Timing::default() };
        let read = async {
            let pieces: Vec<Bytes> = WebFiles::new(Tls::default(), timing).open(&address).await?.try_collect().await?;
            Ok(String::from_utf8(pieces.concat()).unwrap())
        };
        (read.await, serving.join().unwrap())
    }

    const BROKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"one\"\r\nConnection: close\r\n\r\n0123";

    #[tokio::test]
    async fn a_broken_transfer_goes_on_where_it_ended_if_the_file_is_the_same() {
        let rest = "HTTP/1.1 206 Partial Content\r\nContent-Length: 6\r\nContent-Range: bytes 4-9/10\r\nConnection: close\r\n\r\n456789";
        let (read, requests) = fetch(vec![BROKEN, rest]).await;
        assert_eq!(read.unwrap(), "0123456789");
        assert!(!requests[0].contains("range:"), "{requests:?}");
        assert!(requests[1].contains("\r\nrange: bytes=4-\r\n") && requests[1].contains("\r\nif-range: \"one\"\r\n"), "{requests:?}");
    }

    #[tokio::test]
    async fn a_transfer_begun_anew_continues_the_same_content_and_refuses_another() {
        let whole = |content: &str| -> &'static str {
            Box::leak(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}", content.len()).into_boxed_str(),
            )
        };
        assert_eq!(fetch(vec![BROKEN, whole("0123456789")]).await.0.unwrap(), "0123456789");
        for other in ["0129456789", "012"] {
            let error = fetch(vec![BROKEN, whole(other)]).await.0.unwrap_err();
            assert!(error.message.contains("changed while it was transferred"), "{error}");
        }
    }
}
