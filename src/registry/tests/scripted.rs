//! A server that answers each request with scripted bytes, including wrong ones, and logs what it received.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A received request.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
    /// As text, lossily decoded.
    pub(super) body: String,
    pub(super) bytes: Vec<u8>,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Part of a response.
#[derive(Clone)]
pub(super) enum Part {
    Send(Vec<u8>),
    /// For tests about time itself.
    Wait(Duration),
    /// Send nothing more and keep the connection open.
    Hang,
}

/// A response; the connection closes after its parts.
#[derive(Clone)]
pub(super) struct Reply(pub(super) Vec<Part>);

/// A well-formed response.
pub(super) fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut all = headers.to_vec();
    let length = body.len().to_string();
    all.push(("Content-Length", &length));
    raw(status, &all, body)
}

/// A response with exactly these headers.
pub(super) fn raw(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut bytes = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    Reply(vec![Part::Send(bytes)])
}

impl Reply {
    pub(super) fn then(mut self, part: Part) -> Self {
        self.0.push(part);
        self
    }
}

pub(super) struct Server {
    pub(super) authority: String,
    log: Arc<Mutex<Vec<Received>>>,
    /// Certificates that clients presented.
    shown: Arc<Mutex<Vec<Vec<u8>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers with what `answer` returns for a request and the number of earlier ones. A HEAD gets only the head.
    pub(super) async fn start(answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_cutting(|_| usize::MAX, answer).await
    }

    /// The same, reading at most `limit` bytes of a request's body, as computed from its head.
    pub(super) async fn start_cutting(
        limit: impl Fn(&Received) -> usize + Send + Sync + 'static,
        answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_within(listener, None, limit, answer)
    }

    /// A server at an address of this machine.
    pub(super) async fn start_at(address: &str, answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind(address).await.unwrap(), answer)
    }

    /// A server on a listening socket.
    pub(super) fn start_on(listener: TcpListener, answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_within(listener, None, |_| usize::MAX, answer)
    }

    /// A server that speaks TLS.
    pub(super) async fn start_tls(tls: TlsAcceptor, answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_within(listener, Some(tls), |_| usize::MAX, answer)
    }

    fn start_within(
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        limit: impl Fn(&Received) -> usize + Send + Sync + 'static,
        answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let authority = listener.local_addr().unwrap().to_string();
        let log: Arc<Mutex<Vec<Received>>> = Arc::default();
        let shown: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (kept, answer, limit, certificates) = (Arc::clone(&log), Arc::new(answer), Arc::new(limit), Arc::clone(&shown));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (kept, answer, limit) = (Arc::clone(&kept), Arc::clone(&answer), Arc::clone(&limit));
                let (tls, certificates) = (tls.clone(), Arc::clone(&certificates));
                connections.spawn(async move {
                    let Some(tls) = tls else { return serve(stream, &kept, &*limit, &*answer).await };
                    // Some tests have clients that reject the certificate.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
                    certificates.lock().extend(peer);
                    serve(stream, &kept, &*limit, &*answer).await;
                });
            }
        });
        Self { authority, log, shown, task }
    }

    /// The certificates that clients presented.
    pub(super) fn certificates(&self) -> Vec<Vec<u8>> {
        self.shown.lock().clone()
    }

    pub(super) fn log(&self) -> Vec<Received> {
        self.log.lock().clone()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: &Mutex<Vec<Received>>,
    limit: &(dyn Fn(&Received) -> usize + Send + Sync),
    answer: &(dyn Fn(&Received, usize) -> Reply + Send + Sync),
) {
    let Some(received) = receive(&mut stream, limit).await else { return };
    let before = {
        let mut log = log.lock();
        log.push(received.clone());
        log.len() - 1
    };
    for part in answer(&received, before).0 {
        match part {
            Part::Send(bytes) => {
                let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
                let bytes = if received.method == "HEAD" { &bytes[..head.unwrap_or(0)] } else { &bytes };
                // A client may hang up when it has enough.
                if stream.write_all(bytes).await.is_err() {
                    return;
                }
            }
            Part::Wait(time) => tokio::time::sleep(time).await,
            Part::Hang => std::future::pending().await,
        }
    }
    let _ = stream.shutdown().await;
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), limit: &(dyn Fn(&Received) -> usize + Send + Sync)) -> Option<Received> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut received = Received { method, path, headers, body: String::new(), bytes: Vec::new() };
    let length = length.min(limit(&received));
    while bytes.len() < head + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    received.bytes = bytes[head + 4..head + 4 + length].to_vec();
    received.body = String::from_utf8_lossy(&received.bytes).into_owned();
    Some(received)
}
