//! HTTP in: the distribution API as a cache in front of other registries, and as a registry of its own on a directory.
//!
//! Owns what a request means, who answers it and how it is answered. Resolving, caching, single flight and checks are those of the
//! modules below, as a mount uses them; nothing here knows FUSE. Every string of a client follows its grammar before anything is done
//! with it, every wait has an end, and memory does not grow with what a client sends.

mod api;
mod blobs;
mod config;
mod guard;
mod hosted;
mod listen;
mod lists;
mod manifests;
mod pages;
mod problem;
mod range;
mod respond;
mod route;
mod sizes;
mod stall;
mod state;
mod store;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract;
use axum::http::{Request, Response};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use tokio::net::TcpListener;

pub use config::{Config, Hosts, Limits, UpstreamConfig, check_prefixes};
use state::State;
pub use store::Store;

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
}

impl Server {
    /// Serves over a socket that listens.
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

    /// Serves until `stop` completes, then lets requests end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let limits = self.state.limits;
        let upstreams: Vec<_> = self.state.upstreams.iter().map(|upstream| upstream.artifacts.clone()).collect();
        listen::serve(self.listener, routes(self.state), limits, stop).await;
        for artifacts in upstreams {
            artifacts.flush().await;
        }
    }
}

fn routes(state: Arc<State>) -> Router {
    Router::new().fallback(answer).layer(from_fn_with_state(Arc::clone(&state), guarded)).with_state(state)
}

async fn answer(extract::State(state): extract::State<Arc<State>>, request: Request<Body>) -> Response<Body> {
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
