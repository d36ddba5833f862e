//! The HTTP server: the distribution API as a cache in front of other registries, and as a registry on a directory.
//!
//! Decides what a request means, who answers it and how. Resolving, caching, single flight and verification are shared with mounts and live
//! in lower modules; nothing here knows FUSE. Every string from a client is parsed by its grammar before use, every wait has a limit, and memory does
//! not grow with what clients send.
//!
//! # Files
//!
//! - Connections: `listen`, `opening`, `stall`, `tls`; `guard` checks `Host` and `Origin`; `observe` counts and logs into `metrics` and `access_log`
//! - Requests: `route` parses, `api` dispatches, `state` is shared, `problem` and `respond` answer; `incoming`, `range` and `pages` are the details
//! - Who may: `access` (rules), `passwords` and `basic` (htpasswd), `passing` (logins passed on), `client`
//! - From an upstream: `upstream`, `manifests`, `blobs`, `lists`, `sizes`, `metered`
//! - The registry on a directory: `hosted` (requests), `store`
//! - For people: `files`
//! - `config`: the configuration

mod access;
mod access_log;
mod api;
mod basic;
mod blobs;
mod client;
mod config;
mod files;
mod guard;
mod hosted;
mod incoming;
mod listen;
mod lists;
mod manifests;
mod metered;
mod metrics;
mod observe;
mod opening;
mod pages;
mod passing;
mod passwords;
mod problem;
mod range;
mod respond;
mod route;
mod sizes;
mod stall;
mod state;
mod store;
mod tls;
mod upstream;

use crate::blocking::spawn_blocking;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use access::unknown_user;
pub use access::{Access, LiveRules, Right, Rules};
pub use access_log::{AccessFormat, AccessLog};
pub use config::{Config, Hosts, Limits, UpstreamConfig, check_prefixes};
pub use passing::{Account, Connect, PassCredentials};
pub use passwords::Passwords;
use problem::Problem;
use state::{State, Upstreams};
pub use store::Store;
pub use tls::Certificate;

const HOUR: Duration = Duration::from_secs(3600);
/// How long an upload may be idle.
const LEFT: Duration = Duration::from_secs(24 * 3600);

/// A listening server.
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
}

impl Server {
    /// Serves on a listening socket.
    pub fn new(listener: TcpListener, config: Config) -> Self {
        Self { listener, state: Arc::new(State::new(config)) }
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// That of the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` completes, then drains requests.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let state = Arc::clone(&self.state);
        let expiry = self.state.store.clone().map(|store| tokio::spawn(expire(store)));
        listen::serve(self.listener, routes(Arc::clone(&self.state)), self.state, stop).await;
        if let Some(expiry) = expiry {
            expiry.abort();
        }
        flush(&state.upstreams()).await;
    }

    /// A handle to change the upstreams while the server runs.
    pub fn live_upstreams(&self) -> LiveUpstreams {
        LiveUpstreams(Arc::clone(&self.state))
    }
}

/// Changes the upstreams of a running server.
pub struct LiveUpstreams(Arc<State>);

impl LiveUpstreams {
    /// Replaces all upstreams. Requests that have begun go on with the old ones. Not for a server that passes logins on.
    pub fn set(&self, upstreams: Vec<UpstreamConfig>, default: Option<String>) {
        let old = self.0.set_upstreams(upstreams, default);
        tokio::spawn(async move { flush(&old).await });
    }
}

/// Stores what is known about the upstreams.
async fn flush(upstreams: &Upstreams) {
    for upstream in &upstreams.all {
        upstream.artifacts.flush().await;
    }
}

/// Removes idle uploads periodically.
async fn expire(store: Arc<Store>) {
    let mut hours = tokio::time::interval(HOUR);
    loop {
        hours.tick().await;
        let store = Arc::clone(&store);
        let expired = spawn_blocking(move || store.uploads.expire(LEFT)).await;
        if let Ok(Err(error)) = expired {
            tracing::warn!(%error, "cannot remove idle uploads");
        }
    }
}

fn routes(state: Arc<State>) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(answer)
        .layer(from_fn_with_state(Arc::clone(&state), guarded))
        .layer(from_fn_with_state(Arc::clone(&state), observe::observed))
        .with_state(state)
}

async fn healthy() -> &'static str {
    "ok\n"
}

/// Ready means that requests can be answered. An unreachable upstream is reported, but its cached content is served.
async fn ready(extract::State(state): extract::State<Arc<State>>) -> Response<Body> {
    let readable = match &state.store {
        Some(store) => {
            let store = Arc::clone(store);
            spawn_blocking(move || store.repositories().is_ok()).await.unwrap_or(false)
        }
        None => true,
    };
    let mut text = String::from(if readable { "ready\n" } else { "the store cannot be read\n" });
    for upstream in state.upstreams().all.iter().filter(|upstream| upstream.is_away()) {
        text.push_str(&format!("{} does not answer; serving cached content\n", upstream.registry));
    }
    let status = if readable { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

/// The metrics, public if there are no passwords, else for users only: `--anonymous` permits pulling and nothing more.
async fn metrics(extract::State(state): extract::State<Arc<State>>, headers: HeaderMap) -> Result<Response<Body>, Problem> {
    if state.client(&headers).await?.user.is_none() && state.access.asks {
        return Err(unknown_user());
    }
    Ok(state.metrics.answer(&headers))
}

async fn answer(extract::State(state): extract::State<Arc<State>>, request: Request<Body>) -> Response<Body> {
    if files::serves(request.uri().path()) {
        return files::answer(&state, &request.into_parts().0).await;
    }
    api::answer(&state, request).await
}

async fn guarded(extract::State(state): extract::State<Arc<State>>, request: Request<Body>, next: Next) -> Response<Body> {
    match guard::check(&state.hosts, request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests;
