//! Connections: accepted up to a limit, each with deadlines, drained when the server stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::config::Limits;
use super::observe::Peer;
use super::opening::Opening;
use super::stall::Stalling;
use super::state::State;
use super::tls::Certificate;

/// Most headers per request.
const HEADERS: usize = 100;
/// Largest total size of a request's headers, in bytes.
const HEADER_BYTES: usize = 64 << 10;
/// How long interrupted uploads may take to store what has arrived.
const CLOSING: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted, mostly for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` completes, then drains requests for a while.
pub(super) async fn serve(listener: TcpListener, routes: Router, state: Arc<State>, stop: impl Future<Output = ()>) {
    let limits = state.limits;
    let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(limits.connections)));
    let builder = builder(limits);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut stop => break,
        };
        let (stream, client, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone().layer(Extension(Peer(client))));
        let connection = Connection { builder: builder.clone(), service, watcher: graceful.watcher(), head: limits.head };
        let acceptor = state.certificate.as_ref().map(Certificate::acceptor);
        tokio::spawn(async move {
            let _place = place;
            let stream = Stalling::new(stream, limits.stall);
            match acceptor {
                None => connection.serve(stream).await,
                Some(acceptor) => connection.serve_tls(acceptor, stream).await,
            }
        });
    }
    drop(listener);
    let mut ended = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(limits.drain, &mut ended).await.is_err() {
        tracing::warn!("cutting off requests that did not finish in time");
        // Uploads keep what has arrived.
        state.closing.send_replace(true);
        let _ = tokio::time::timeout(CLOSING, ended).await;
    }
}

/// Everything needed to serve a connection.
struct Connection {
    builder: Builder<TokioExecutor>,
    service: TowerToHyperService<Router>,
    watcher: Watcher,
    head: Duration,
}

impl Connection {
    async fn serve_tls(self, acceptor: TlsAcceptor, stream: Stalling<TcpStream>) {
        match tokio::time::timeout(self.head, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake timed out"),
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let stream = TokioIo::new(Opening::new(stream, self.head));
        let connection = self.builder.serve_connection(stream, self.service);
        if let Err(error) = self.watcher.watch(connection.into_owned()).await {
            tracing::debug!(error, "a connection ended early");
        }
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, client) = listener.accept().await?;
    // Small responses must not wait for each other.
    stream.set_nodelay(true)?;
    Ok((stream, client, place))
}

fn builder(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let mut http1 = builder.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(limits.head).max_headers(HEADERS).max_buf_size(HEADER_BYTES);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(limits.head).keep_alive_timeout(limits.stall);
    http2.max_concurrent_streams(128).max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX));
    builder
}
