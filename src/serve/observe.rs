//! Counts and logs every request, whatever its outcome.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use axum::middleware::Next;
use http_body::{Frame, SizeHint};

use super::access_log::Entry;
use super::metrics::{Kind, Source};
use super::state::State;

/// The status logged when a client leaves before its response, as web servers do.
const LEFT: u16 = 499;
/// Characters logged of an upload's id: the full id would let others continue it.
const SESSION: usize = 8;

/// A client's address, added to every request by its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A request's user, added to the response by handlers.
#[derive(Clone, Debug)]
pub(super) struct User(pub(super) String);

/// Counts and logs a request.
pub(super) async fn observed(extract::State(state): extract::State<Arc<State>>, request: Request<Body>, next: Next) -> Response<Body> {
    let mut observation = Observation::new(state, &request);
    let response = next.run(request).await;
    observation.head(&response);
    if observation.state.access_log.is_none() {
        return response;
    }
    let whole = length(&observation.entry.method, response.headers(), response.body());
    response.map(|body| Body::new(Watched { body, whole, observation }))
}

/// Length of a body, if known.
fn length(method: &Method, headers: &HeaderMap, body: &Body) -> Option<u64> {
    if *method == Method::HEAD {
        return Some(0);
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    announced.or_else(|| body.size_hint().exact())
}

/// A request in progress. Counted when its response starts; logged when that ends or the client leaves.
struct Observation {
    state: Arc<State>,
    began: Instant,
    has_head: bool,
    entry: Entry,
}

impl Observation {
    fn new(state: Arc<State>, request: &Request<Body>) -> Self {
        let path = request.uri().path();
        let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let entry = Entry {
            began: SystemTime::now(),
            client: request.extensions().get::<Peer>().map(|peer| peer.0),
            user: None,
            method: request.method().clone(),
            path: logged(path),
            version: request.version(),
            agent: agent.map(str::to_owned),
            kind: usual_kind(path),
            status: StatusCode::from_u16(LEFT).unwrap_or(StatusCode::REQUEST_TIMEOUT),
            bytes: 0,
            took: std::time::Duration::ZERO,
            is_whole: false,
            source: None,
        };
        Self { state, began: Instant::now(), has_head: false, entry }
    }

    fn head(&mut self, response: &Response<Body>) {
        let said = response.extensions();
        self.entry.kind = said.get::<Kind>().copied().unwrap_or(self.entry.kind);
        self.entry.user = said.get::<User>().map(|user| user.0.clone());
        self.entry.source = said.get::<Source>().copied();
        self.entry.status = response.status();
        self.count();
    }

    fn count(&mut self) {
        self.has_head = true;
        self.state.metrics.answered(&self.entry.method, self.entry.kind, self.entry.status, self.began.elapsed());
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if !self.has_head {
            self.count();
        }
        self.entry.took = self.began.elapsed();
        if let Some(log) = &self.state.access_log
            && !log.write(&self.entry)
        {
            self.state.metrics.lost_lines().inc();
        }
    }
}

/// The kind implied by a path, if no handler sets it.
fn usual_kind(path: &str) -> Kind {
    match path {
        "/healthz" | "/readyz" | "/metrics" => Kind::Probe,
        "/" => Kind::Page,
        path if path.starts_with("/files/") => Kind::Page,
        _ => Kind::Other,
    }
}

/// A path in its logged form.
fn logged(path: &str) -> String {
    match path.rsplit_once("/blobs/uploads/") {
        Some((before, session)) if session.len() > SESSION => {
            let begin: String = session.chars().take(SESSION).collect();
            format!("{before}/blobs/uploads/{begin}...")
        }
        _ => path.to_owned(),
    }
}

/// A body that counts its bytes.
struct Watched {
    body: Body,
    /// The expected total.
    whole: Option<u64>,
    observation: Observation,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.observation.entry.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Poll::Ready(None) => self.observation.entry.is_whole = true,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let entry = &mut self.observation.entry;
        entry.is_whole |= self.whole == Some(entry.bytes) || self.body.is_end_stream();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_ids_are_logged_truncated() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(logged(&format!("/v2/team/app/blobs/uploads/{id}")), "/v2/team/app/blobs/uploads/01234567...");
        assert_eq!(logged("/v2/app/blobs/uploads/"), "/v2/app/blobs/uploads/");
        assert_eq!(logged("/v2/app/tags/list"), "/v2/app/tags/list");
    }
}
