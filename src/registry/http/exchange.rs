//! One complete request: authorization, redirects, retries, bodies of bounded size.
//!
//! `Authorization` and the client certificate go only to the registry's own origin, and never again once a redirect has left it. Redirects
//! are followed by hand, at most five, never from TLS to plain text; writes never follow one to another origin.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::answer;
use super::authorize::{Authorization, Authorizer, Scope};
use super::challenge;
use super::clients::Clients;
use super::origin::{self, Origin};
use super::outage::Outage;
use super::payload::Payload;
use super::refusal;
use super::retry::{Attempts, Cause, Failure, Timing, is_passing, told_wait};
use crate::error::{Error, ErrorKind};
use crate::registry::mirrors::Rules;

/// Most redirects followed.
const REDIRECTS: usize = 5;
/// Retries when probing whether a registry exists at all: a user who mistyped its name waits for them.
const PING_RETRIES: u32 = 2;
/// One request.
#[derive(Clone)]
pub(super) struct Call {
    /// The object, for messages.
    pub(super) what: String,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<String>,
    pub(super) range: Option<Range<u64>>,
    pub(super) scope: Scope,
    /// The target of an earlier redirect, to save a round trip.
    pub(super) shortcut: Option<Url>,
    /// The body.
    pub(super) payload: Option<Payload>,
    /// Accept the answer of another host that a redirect or an upload leads to.
    pub(super) elsewhere_counts: bool,
    /// Which of several connections to use; see [`Clients::in_lane`].
    pub(super) lane: usize,
}

impl Call {
    /// A request without body or range.
    pub(super) fn new(what: String, method: Method, url: Url, scope: Scope) -> Self {
        Self { what, method, url, accept: None, range: None, scope, shortcut: None, payload: None, elsewhere_counts: false, lane: 0 }
    }

    /// Whether it may change something.
    fn writes(&self) -> bool {
        self.method != Method::GET && self.method != Method::HEAD
    }
}

/// The head of a response and its origin.
pub(super) struct ResponseHead {
    pub(super) response: Response,
    /// The target of a redirect to another origin.
    pub(super) elsewhere: Option<Url>,
}

/// A response with its whole body.
pub(super) struct Whole {
    /// Whether it came from another host than the registry.
    pub(super) elsewhere: bool,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Sends requests to one registry.
pub(super) struct Exchange {
    pub(super) clients: Clients,
    pub(super) authorizer: Authorizer,
    pub(super) own: Origin,
    pub(super) timing: Timing,
    /// Rules that block registries or repositories.
    rules: Arc<Rules>,
    /// Sent with every request to the registry itself.
    namespace: Option<String>,
    /// Whether a response came over plain text from another machine.
    strayed: AtomicBool,
    pub(super) outage: Outage,
}

impl Exchange {
    pub(super) fn new(
        clients: Clients,
        authorizer: Authorizer,
        own: Origin,
        timing: Timing,
        rules: Arc<Rules>,
        namespace: Option<String>,
    ) -> Self {
        let strayed = AtomicBool::new(false);
        Self { clients, authorizer, own, timing, rules, namespace, strayed, outage: Outage::new(timing) }
    }

    /// Whether a response came over plain text from another machine, and so may be forged.
    pub(super) fn has_strayed(&self) -> bool {
        self.strayed.load(Ordering::Relaxed)
    }

    /// The attempts of a new operation.
    pub(super) fn attempts(&self) -> Attempts {
        self.outage.attempts()
    }

    /// The attempts of a new operation that writes or checks the outcome of a write.
    pub(super) fn attempts_to_write(&self) -> Attempts {
        self.outage.attempts_to_write()
    }

    /// Waits before the next attempt, or returns the error if there is none.
    pub(super) async fn pause(&self, attempts: &mut Attempts, failure: Failure) -> Result<(), Error> {
        self.outage.pause(attempts, failure).await
    }

    /// Sends until there is a response that another attempt would not change. The caller interprets statuses.
    pub(super) async fn open(&self, call: &Call, attempts: &mut Attempts) -> Result<ResponseHead, Error> {
        loop {
            match self.attempt(call, attempts).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.pause(attempts, failure).await?,
            }
        }
    }

    /// Sends until there is a response with a whole body of at most `limit` bytes (64 KiB for errors).
    pub(super) async fn fetch(&self, call: &Call, limit: u64) -> Result<Whole, Error> {
        let attempts = match call.scope {
            Scope::Ping(_) => self.attempts().at_most(PING_RETRIES),
            Scope::Push(_) | Scope::Mount { .. } | Scope::Delete(_) => self.attempts_to_write(),
            _ => self.attempts(),
        };
        self.fetch_within(call, limit, attempts).await
    }

    /// The same with the caller's attempts.
    pub(super) async fn fetch_within(&self, call: &Call, limit: u64, mut attempts: Attempts) -> Result<Whole, Error> {
        loop {
            let answer = self.open(call, &mut attempts).await?;
            match self.whole(call, answer, limit, &mut attempts).await {
                Ok(whole) => return Ok(whole),
                Err(failure) => self.pause(&mut attempts, failure).await?,
            }
        }
    }

    /// Reads the body of a response.
    pub(super) async fn whole(&self, call: &Call, answer: ResponseHead, limit: u64, attempts: &mut Attempts) -> Result<Whole, Failure> {
        let ResponseHead { response, elsewhere } = answer;
        let (elsewhere, status, headers) = (elsewhere.is_some(), response.status(), response.headers().clone());
        if call.method == Method::HEAD {
            return Ok(Whole { elsewhere, status, headers, body: Bytes::new() });
        }
        let limit = if status.is_success() { limit } else { answer::ERROR_LIMIT };
        let body = answer::body(response, limit, &call.what, attempts).await?;
        Ok(Whole { elsewhere, status, headers, body })
    }

    /// The error of a refusing response, with what is known about the credentials.
    pub(super) async fn refused(&self, call: &Call, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
        let error = answer::refused(&call.what, status.as_u16(), headers, body, true);
        if error.kind == ErrorKind::Denied { error.append(self.authorizer.explain(&call.scope).await) } else { error }
    }

    /// The error of a refused write.
    pub(super) async fn refused_write(&self, call: &Call, answer: &Whole) -> Error {
        let error = refusal::of_write(&call.what, answer.status.as_u16(), &answer.headers, &answer.body, !answer.elsewhere);
        let is_denied = error.kind == ErrorKind::Denied && !answer.elsewhere;
        if is_denied { error.append(self.authorizer.explain(&call.scope).await) } else { error }
    }

    /// The error of a refusing token server, with the requested scope and what is known about the credentials.
    async fn without_token(&self, call: &Call, error: Error) -> Error {
        let about = self.authorizer.explain(&call.scope).await;
        let about = if error.message.contains(about.trim_start_matches("; ")) { "" } else { &about };
        error.append(about).context(&call.what)
    }

    /// One attempt, with credentials if required.
    pub(super) async fn attempt(&self, call: &Call, attempts: &Attempts) -> Result<ResponseHead, Failure> {
        self.rules.check(call.scope.repository()).map_err(|error| Failure::Final(error.context(&call.what)))?;
        let answer = match self.authorized(call, attempts).await {
            Err(Failure::Final(error)) if error.kind == ErrorKind::Denied => {
                return Err(Failure::Final(self.without_token(call, error).await));
            }
            answer => answer?,
        };
        self.outage.answered();
        let status = answer.response.status();
        if is_passing(status.as_u16()) {
            let after = told_wait(answer.response.headers());
            if status == StatusCode::TOO_MANY_REQUESTS {
                self.outage.throttle(after);
            }
            let error = self.refusal(call, answer, attempts).await;
            if error.kind != ErrorKind::Unreachable {
                return Err(Failure::Final(error));
            }
            return Err(Failure::Passing { error, after, cause: Cause::Answered });
        }
        if answer.elsewhere.is_some() && !call.elsewhere_counts && !status.is_success() && status != StatusCode::RANGE_NOT_SATISFIABLE {
            // A storage host's refusal says nothing about the registry; its signed URL may have expired.
            return Err(Failure::passing(self.refusal(call, answer, attempts).await, Cause::Answered));
        }
        if let Some(encoding) = answer.response.headers().get(CONTENT_ENCODING)
            && encoding != "identity"
            && status.is_success()
        {
            return Err(Failure::Final(Error::new(
                ErrorKind::Integrity,
                format!("{}: the response has an unrequested content encoding", call.what),
            )));
        }
        Ok(answer)
    }

    async fn refusal(&self, call: &Call, answer: ResponseHead, attempts: &Attempts) -> Error {
        let (status, headers) = (answer.response.status().as_u16(), answer.response.headers().clone());
        let what = match &answer.elsewhere {
            Some(url) => format!("{} at {}", call.what, origin::shown(url)),
            None => call.what.clone(),
        };
        // If the body does not arrive, the error only lacks the registry's own message.
        let mut patience = Attempts::new(self.timing);
        let reading = answer::body(answer.response, answer::ERROR_LIMIT, &what, &mut patience);
        let body = match attempts.within(self.timing.header, &what, reading).await {
            Ok(Ok(body)) => body,
            _ => Bytes::new(),
        };
        let refused = if call.writes() { refusal::of_write } else { answer::refused };
        refused(&what, status, &headers, &body, answer.elsewhere.is_none())
    }

    async fn authorized(&self, call: &Call, attempts: &Attempts) -> Result<ResponseHead, Failure> {
        if let Some(url) = &call.shortcut {
            match self.follow(call, url.clone(), None, true, attempts).await {
                Ok(answer) if answer.response.status().is_success() => return Ok(answer),
                // The shortcut was only a guess: the registry knows where the blob is now.
                Ok(_) | Err(Failure::Passing { .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        // A credential helper has its own limit, and so does a token request.
        let limit = attempts.patience();
        let mut sent: Option<Authorization> =
            attempts.within(limit, &call.what, self.authorizer.known(&call.scope, &self.clients)).await??;
        // A first contact takes one challenge, a token revoked meanwhile a second.
        for _ in 0..2 {
            let answer = self.follow(call, call.url.clone(), sent.as_ref(), false, attempts).await?;
            if answer.response.status() != StatusCode::UNAUTHORIZED || answer.elsewhere.is_some() {
                return Ok(answer);
            }
            let headers = answer.response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
            let challenges = challenge::parse(headers);
            let renewing = self.authorizer.renewed(&call.scope, &challenges, sent.as_ref(), &self.clients);
            match attempts.within(limit, &call.what, renewing).await?? {
                Some(renewed) => sent = Some(renewed),
                None => return Ok(answer),
            }
        }
        self.follow(call, call.url.clone(), sent.as_ref(), false, attempts).await
    }

    /// Sends and follows redirects. With `left_home`, another host chose `start`.
    async fn follow(
        &self,
        call: &Call,
        start: Url,
        authorization: Option<&Authorization>,
        mut left_home: bool,
        attempts: &Attempts,
    ) -> Result<ResponseHead, Failure> {
        let mut url = start;
        left_home |= Origin::of(&url).as_ref() != Some(&self.own);
        let mut trail = Vec::new();
        loop {
            let response = self.send(call, &url, authorization, left_home, attempts).await?;
            let location = match response.status().as_u16() {
                // Only these two statuses guarantee that the same request is repeated there.
                307 | 308 => response.headers().get(LOCATION).and_then(|location| location.to_str().ok()),
                301..=303 if !call.writes() => response.headers().get(LOCATION).and_then(|location| location.to_str().ok()),
                _ => None,
            };
            let Some(location) = location else {
                return Ok(ResponseHead { response, elsewhere: left_home.then_some(url) });
            };
            trail.push(origin::shown(&url));
            let bad = |why: &str| Failure::Final(Error::new(ErrorKind::Unreachable, format!("{}: {why}", call.what)));
            if trail.len() > REDIRECTS {
                return Err(bad(&format!("more than {REDIRECTS} redirects: {}", trail.join(" → "))));
            }
            let next = origin::redirect(&url, location).map_err(|why| bad(&why))?;
            if call.writes() && Origin::of(&next) != Origin::of(&url) {
                return Err(bad(&format!("the write is redirected to {}; refusing to follow", origin::shown(&next))));
            }
            url = next;
            let origin = Origin::of(&url);
            left_home |= origin.as_ref() != Some(&self.own);
            if left_home && origin.is_some_and(|origin| !origin.is_tls() && !origin.is_loopback()) {
                self.strayed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The URL with the registry that is meant, for one that stands in for several.
    fn named(&self, url: &Url, left_home: bool) -> Url {
        let mut named = url.clone();
        if let Some(namespace) = self.namespace.as_ref().filter(|_| !left_home && url.query_pairs().all(|(name, _)| name != "ns")) {
            named.query_pairs_mut().append_pair("ns", namespace);
        }
        named
    }

    async fn send(
        &self,
        call: &Call,
        url: &Url,
        authorization: Option<&Authorization>,
        left_home: bool,
        attempts: &Attempts,
    ) -> Result<Response, Failure> {
        let origin = Origin::of(url).ok_or_else(|| Failure::Final(Error::new(ErrorKind::Invalid, "a URL without a host")))?;
        let client = self.clients.in_lane(&origin, !left_home, call.lane).map_err(Failure::Final)?;
        let authorization = authorization.filter(|_| !left_home);
        let mut request = client.request(call.method.clone(), self.named(url, left_home)).header(ACCEPT_ENCODING, "identity");
        if let Some(accept) = &call.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = &call.range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization.header.clone());
        }
        let what = if origin == self.own { call.what.clone() } else { format!("{} at {origin}", call.what) };
        let sent = match &call.payload {
            Some(payload) => payload.answered(payload.load(request).send(), attempts.patience(), &what).await?,
            None => {
                if call.method == Method::POST {
                    // Proxies require a length even for an empty body.
                    request = request.header(CONTENT_LENGTH, 0);
                }
                let sent = attempts.within(self.timing.header, &what, request.send()).await?;
                sent.map_err(|error| answer::unanswered(&what, &error))?
            }
        };
        let (authorized, status) = (authorization.is_some(), sent.status().as_u16());
        tracing::trace!(method = %call.method, url = origin::shown(url), range = ?call.range, authorized, status, "request");
        Ok(sent)
    }
}
