//! A reverse proxy in front of a plain registry: records every request, and corrupts the responses a test chooses. Everything else passes unchanged:
//! hosts, bodies and lengths.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A running proxy.
pub struct Proxy {
    address: SocketAddr,
    inner: Arc<Inner>,
    task: Mutex<tokio::task::JoinHandle<()>>,
}

struct Inner {
    upstream: String,
    client: reqwest::Client,
    seen: Mutex<Vec<Arc<Entry>>>,
    arrived: Condvar,
    faults: Mutex<Vec<Planned>>,
    held: tokio::sync::Notify,
    /// Broken connections.
    down: tokio::sync::watch::Sender<bool>,
}

struct Entry {
    method: String,
    path: String,
    range: Option<String>,
    authorized: bool,
    received: Arc<AtomicU64>,
    sent: AtomicU64,
}

/// One request as the proxy saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// GET, HEAD, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether it had credentials.
    pub authorized: bool,
    /// Bytes of the request body received so far.
    pub received: u64,
    /// Bytes of the response body sent so far.
    pub sent: u64,
}

/// A fault of a response.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Flips one bit of this byte of the body.
    Flip(u64),
    /// Breaks the connection after this many bytes of the body.
    Cut(u64),
    /// Sends nothing more after this many bytes of the body, and keeps the connection open.
    Stall(u64),
    /// Sends this many bytes of the body per second.
    Trickle(u64),
    /// Answers with this status and an empty body; the registry is not asked.
    Status(u16),
    /// The same for every other request.
    EveryOther(u16),
    /// Answers with this status and an error body as registries word it; the registry is not asked.
    Refuse(u16, &'static str),
    /// Lets the registry act, then breaks the connection before any response.
    LoseAnswer,
    /// The same, and breaks every later connection without asking the registry.
    LoseAllFromHere,
    /// Asks the registry, and holds its response until [`Proxy::release`].
    HoldAnswer,
    /// Breaks the connection; the registry is not asked.
    Break,
    /// Answers 307 to this location; the registry is not asked.
    Redirect(String),
    /// Answers 200 with this body of this media type, under its digest; the registry is not asked.
    Answer(String, Bytes),
}

struct Planned {
    /// Any method if empty.
    method: &'static str,
    part_of_path: String,
    times: usize,
    fault: Fault,
}

impl Proxy {
    /// Starts in front of `http://host:port`.
    pub fn start(upstream: String) -> Self {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        let inner = Arc::new(Inner {
            upstream,
            client,
            seen: Mutex::default(),
            arrived: Condvar::new(),
            faults: Mutex::default(),
            held: tokio::sync::Notify::new(),
            down: tokio::sync::watch::Sender::new(false),
        });
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let task = Mutex::new(serve(listener, &inner));
        Self { address, inner, task }
    }

    /// Breaks all connections, and refuses new ones until [`Proxy::listen_again`].
    pub fn refuse(&self) {
        self.task.lock().abort();
        self.inner.down.send_replace(true);
    }

    /// Ends [`Proxy::refuse`].
    pub fn listen_again(&self) {
        self.inner.down.send_replace(false);
        *self.task.lock() = serve(std::net::TcpListener::bind(self.address).unwrap(), &self.inner);
    }

    /// `127.0.0.1:port`, the host of references.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Corrupts the next `times` responses to requests whose path contains the text.
    pub fn spoil(&self, part_of_path: &str, times: usize, fault: Fault) {
        self.spoil_method("", part_of_path, times, fault);
    }

    /// As [`Proxy::spoil`], for requests with this method only.
    pub fn spoil_method(&self, method: &'static str, part_of_path: &str, times: usize, fault: Fault) {
        self.inner.faults.lock().push(Planned { method, part_of_path: part_of_path.to_owned(), times, fault });
    }

    /// Releases the held responses.
    pub fn release(&self) {
        self.inner.held.notify_waiters();
    }

    /// Passes everything through unchanged again.
    pub fn mend(&self) {
        self.inner.faults.lock().clear();
    }

    /// All requests so far, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        let seen = self.inner.seen.lock();
        seen.iter()
            .map(|entry| Recorded {
                method: entry.method.clone(),
                path: entry.path.clone(),
                range: entry.range.clone(),
                authorized: entry.authorized,
                received: entry.received.load(Ordering::Relaxed),
                sent: entry.sent.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// Returns once a request with this method and this text in its path has arrived.
    pub fn wait_for(&self, method: &str, part_of_path: &str) {
        let missing = |seen: &mut Vec<Arc<Entry>>| !seen.iter().any(|entry| entry.method == method && entry.path.contains(part_of_path));
        let mut seen = self.inner.seen.lock();
        let waited = self.inner.arrived.wait_while_for(&mut seen, missing, Duration::from_secs(60));
        assert!(!waited.timed_out(), "no {method} of {part_of_path} ever came");
    }

    /// Clears the recorded requests.
    pub fn forget(&self) {
        self.inner.seen.lock().clear();
    }

    /// Bytes sent so far in responses to requests with the text in their path.
    pub fn sent(&self, part_of_path: &str) -> u64 {
        self.requests().iter().filter(|request| request.path.contains(part_of_path)).map(|request| request.sent).sum()
    }

    /// Bytes received so far in requests of this method.
    pub fn received(&self, method: &str) -> u64 {
        self.requests().iter().filter(|request| request.method == method).map(|request| request.received).sum()
    }

    /// The number of requests with this method and the text in their path.
    pub fn count(&self, method: &str, part_of_path: &str) -> usize {
        self.requests().iter().filter(|request| request.method == method && request.path.contains(part_of_path)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.get_mut().abort();
    }
}

fn serve(listener: std::net::TcpListener, inner: &Arc<Inner>) -> tokio::task::JoinHandle<()> {
    listener.set_nonblocking(true).unwrap();
    let app = axum::Router::new().fallback(unless_down).with_state(inner.clone());
    super::runtime().spawn(async move {
        axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await.unwrap();
    })
}

async fn unless_down(State(inner): State<Arc<Inner>>, request: Request) -> Response<Body> {
    let mut down = inner.down.subscribe();
    tokio::select! {
        answer = forward(State(inner), request) => answer,
        _ = down.wait_for(|down| *down) => break_connection(),
    }
}

impl Inner {
    fn record(&self, request: &Request, path: &str) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            method: request.method().to_string(),
            path: path.to_owned(),
            range: request.headers().get(header::RANGE).and_then(|range| range.to_str().ok()).map(str::to_owned),
            authorized: request.headers().contains_key(header::AUTHORIZATION),
            received: Arc::default(),
            sent: AtomicU64::new(0),
        });
        self.seen.lock().push(entry.clone());
        self.arrived.notify_all();
        entry
    }

    fn fault(&self, method: &str, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let matches = |planned: &&mut Planned| {
            planned.times > 0 && (planned.method.is_empty() || planned.method == method) && path.contains(&planned.part_of_path)
        };
        let planned = faults.iter_mut().find(matches)?;
        planned.times -= 1;
        let passes = matches!(planned.fault, Fault::EveryOther(_)) && planned.times % 2 == 1;
        (!passes).then(|| planned.fault.clone())
    }
}

async fn forward(State(inner): State<Arc<Inner>>, request: Request) -> Response<Body> {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let entry = inner.record(&request, &path);
    let fault = inner.fault(request.method().as_str(), &path);
    let request = match fault {
        Some(Fault::Status(_) | Fault::EveryOther(_) | Fault::Refuse(..)) => drained(request, &entry).await,
        _ => request,
    };
    match &fault {
        Some(Fault::Status(status) | Fault::EveryOther(status)) => return empty(StatusCode::from_u16(*status).unwrap(), None),
        Some(Fault::Refuse(status, body)) => return refusal(*status, body),
        Some(Fault::Break) => break_connection(),
        Some(Fault::Redirect(location)) => return empty(StatusCode::TEMPORARY_REDIRECT, Some(location)),
        Some(Fault::Answer(media_type, body)) => return invented(media_type, body.clone()),
        _ => {}
    }
    let (head, body) = request.into_parts();
    // The host stays the proxy's own, so that locations in responses lead through the proxy again.
    let asked = inner.client.request(head.method, format!("{}{path}", inner.upstream)).headers(end_to_end(&head.headers));
    let received = entry.received.clone();
    let body = body.into_data_stream().inspect(move |piece| {
        received.fetch_add(piece.as_ref().map_or(0, |piece| piece.len() as u64), Ordering::Relaxed);
    });
    let Ok(answer) = asked.body(reqwest::Body::wrap_stream(body)).send().await else {
        return empty(StatusCode::BAD_GATEWAY, None);
    };
    match fault {
        Some(Fault::LoseAnswer) => break_connection(),
        Some(Fault::HoldAnswer) => inner.held.notified().await,
        Some(Fault::LoseAllFromHere) => {
            let all = Planned { method: "", part_of_path: String::new(), times: usize::MAX, fault: Fault::Break };
            inner.faults.lock().insert(0, all);
            break_connection();
        }
        _ => {}
    }
    let mut response = Response::builder().status(answer.status());
    response.headers_mut().unwrap().extend(end_to_end(answer.headers()));
    response.body(Body::from_stream(spoiled(answer.bytes_stream(), fault, entry))).unwrap()
}

/// The request once its body has arrived completely: a client answered earlier may see the connection break.
async fn drained(request: Request, entry: &Entry) -> Request {
    let (head, body) = request.into_parts();
    let mut body = body.into_data_stream();
    while let Some(Ok(piece)) = body.next().await {
        entry.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    Request::from_parts(head, Body::empty())
}

fn empty(status: StatusCode, location: Option<&str>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(location).unwrap());
    }
    response
}

/// Ends the task of this connection, which closes it. Unlike a panic, prints nothing.
fn break_connection() -> ! {
    std::panic::resume_unwind(Box::new("the connection breaks"))
}

fn refusal(status: u16, body: &'static str) -> Response<Body> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(body.into()).unwrap()
}

fn invented(media_type: &str, body: Bytes) -> Response<Body> {
    use sha2::{Digest, Sha256};
    let hex: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let response = Response::builder().header(header::CONTENT_TYPE, media_type).header("docker-content-digest", format!("sha256:{hex}"));
    response.body(body.into()).unwrap()
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        kept.remove(name);
    }
    kept
}

/// The body with the fault applied; counts sent bytes.
fn spoiled(
    body: impl Stream<Item = reqwest::Result<Bytes>> + Send + Unpin + 'static,
    fault: Option<Fault>,
    entry: Arc<Entry>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let begun = tokio::time::Instant::now();
    futures_util::stream::unfold((body, 0u64), move |(mut body, at)| {
        let (fault, entry) = (fault.clone(), entry.clone());
        async move {
            match fault {
                Some(Fault::Cut(after)) if at >= after => return Some((Err(std::io::Error::other("cut")), (body, at))),
                Some(Fault::Stall(after)) if at >= after => std::future::pending::<()>().await,
                _ => {}
            }
            if let Some(Fault::Trickle(rate)) = fault {
                // Bytes already sent are accounted for.
                let due = Duration::from_secs_f64(at as f64 / rate as f64);
                tokio::time::sleep_until(begun + due).await;
            }
            let chunk = match body.next().await? {
                Ok(chunk) => damaged(chunk, at, fault.as_ref()),
                Err(error) => return Some((Err(std::io::Error::other(error)), (body, at))),
            };
            entry.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            let next = at + chunk.len() as u64;
            Some((Ok(chunk), (body, next)))
        }
    })
}

/// One piece of a body that begins at `at`. A cut or stalled piece ends where the fault begins.
fn damaged(chunk: Bytes, at: u64, fault: Option<&Fault>) -> Bytes {
    match fault {
        Some(Fault::Flip(byte)) if (at..at + chunk.len() as u64).contains(byte) => {
            let mut bytes = chunk.to_vec();
            bytes[(byte - at) as usize] ^= 1;
            bytes.into()
        }
        Some(Fault::Cut(after) | Fault::Stall(after)) if at + chunk.len() as u64 > *after => chunk.slice(..(after - at) as usize),
        _ => chunk,
    }
}
