//! The server over in-memory registries, tested with an HTTP client that follows no redirects.

mod access;
mod bad_input;
mod cold;
mod files;
mod hosting;
mod observing;
mod page;
mod passing;
mod reading;
mod storing;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::cache::{self, SpanCache};
use crate::content::{Budget, MEMORY_LIMIT};
use crate::oci::{Digest, Registry};
use crate::registry::{Memory, Pull, Trust};

/// Default tag lifetime in tests.
const FRESH: Duration = Duration::from_secs(3600);

/// A running server.
struct TestServer {
    base: String,
    client: reqwest::Client,
    _directory: Arc<TempDir>,
    /// Dropping it stops the server.
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<()>,
}

/// The parts of a test server.
struct Setup {
    upstreams: Vec<(&'static str, &'static str, Arc<Memory>)>,
    tag_ttl: Duration,
    default_upstream: Option<String>,
    directory: Arc<TempDir>,
    has_store: bool,
    access: Access,
    passwords: Option<Passwords>,
    certificate: Option<Certificate>,
    limits: Limits,
    access_log: Option<AccessLog>,
    /// For the first upstream.
    pass_credentials: Option<PassCredentials>,
}

impl Setup {
    /// A server for these upstreams: prefix, host and content.
    fn of(upstreams: &[(&'static str, &'static str, &Arc<Memory>)]) -> Self {
        let upstreams = upstreams.iter().map(|(prefix, host, memory)| (*prefix, *host, Arc::clone(memory))).collect();
        let directory = Arc::new(TempDir::new().unwrap());
        Self {
            upstreams,
            tag_ttl: FRESH,
            default_upstream: None,
            directory,
            has_store: false,
            access: Access::default(),
            passwords: None,
            certificate: None,
            limits: Limits::default(),
            access_log: None,
            pass_credentials: None,
        }
    }

    /// A server with an empty store.
    fn hosting() -> Self {
        Self { has_store: true, ..Self::of(&[]) }
    }

    async fn start(mut self) -> TestServer {
        let config = cache::Config { directory: self.directory.path().join("cache"), size: 1 << 30, min_free: 0 };
        let cache = SpanCache::open(config).unwrap();
        let upstream = |(prefix, host, memory): (&str, &str, Arc<Memory>)| {
            let pull: Arc<dyn Pull> = memory;
            let (budget, io_timeout) = (Budget::new(MEMORY_LIMIT), Duration::from_secs(20));
            let (prefix, registry) = (prefix.to_owned(), Registry::parse(host).unwrap());
            UpstreamConfig {
                prefix,
                registry,
                pull,
                budget,
                io_timeout,
                tag_ttl: self.tag_ttl,
                pass_credentials: self.pass_credentials.take(),
            }
        };
        let upstreams = self.upstreams.into_iter().map(upstream).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = self.has_store.then(|| Store::open(&self.directory.path().join("store")).unwrap());
        let (default_upstream, hosts, limits) = (self.default_upstream, Hosts::default(), self.limits);
        let (access, passwords, certificate, access_log) = (self.access, self.passwords, self.certificate, self.access_log);
        let budget = Budget::new(MEMORY_LIMIT);
        let config =
            Config { upstreams, default_upstream, cache, budget, store, access, passwords, certificate, hosts, limits, access_log };
        let server = Server::new(listener, config);
        let base = format!("http://{}", server.address().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async move { drop(stopped.await) }));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        TestServer { base, client, _directory: self.directory, stop, running }
    }
}

impl TestServer {
    /// Stops it and waits for its end.
    async fn stop(self) {
        // The server would wait for kept-alive connections.
        drop((self.client, self.stop));
        self.running.await.unwrap();
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn head(&self, path: &str) -> Response {
        self.request(Method::HEAD, path).send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }
}

/// Status and error code of a response.
async fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["errors"][0]["code"].as_str().unwrap().to_owned())
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// An upstream with a trusted transport.
fn memory(origin: &str) -> Arc<Memory> {
    Arc::new(Memory::with_origin(origin, Trust::Transport))
}

/// Bytes without repetition.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    data
}

/// Adds a single-layer image.
fn add_image(memory: &Memory, repository: &str, tag: &str, layer: &[u8]) -> Digest {
    let config = ("application/vnd.oci.image.config.v1+json", &b"{}"[..]);
    memory.add_artifact(repository, tag, config, &[("application/vnd.oci.image.layer.v1.tar", layer, &[])], &[])
}
