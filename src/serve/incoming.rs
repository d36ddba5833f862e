//! Request bodies as they arrive, from clients that may stall, disconnect or never end.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{StatusCode, header};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::problem::{Code, Problem};

/// How long to wait for a body.
#[derive(Clone)]
pub(super) struct Patience {
    /// While the client sends nothing.
    pub(super) stall: Duration,
    /// True once the server must stop.
    pub(super) closing: watch::Receiver<bool>,
}

impl Patience {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// 408 if the client stalls or disconnects, 503 if the server must stop.
    pub(super) async fn next(&mut self, frames: &mut BodyDataStream) -> Result<Option<Bytes>, Problem> {
        tokio::select! {
            frame = tokio::time::timeout(self.stall, frames.next()) => match frame {
                Ok(Some(Ok(frame))) => Ok(Some(frame)),
                Ok(None) => Ok(None),
                Ok(Some(Err(_))) | Err(_) => {
                    Err(Problem::new(StatusCode::REQUEST_TIMEOUT, Code::BlobUploadInvalid, "the request body ended early"))
                }
            },
            _ = self.closing.wait_for(|closing| *closing) => {
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "the server is stopping; continue after its restart");
                Err(problem.with(header::RETRY_AFTER, 5.into()))
            }
        }
    }
}

/// Reads a small body whole.
///
/// # Errors
/// 413 if it is longer than `limit`; those of [`Patience::next`].
pub(super) async fn read_all(body: Body, limit: u64, mut patience: Patience) -> Result<Bytes, Problem> {
    let (mut frames, mut whole) = (body.into_data_stream(), BytesMut::new());
    while let Some(frame) = patience.next(&mut frames).await? {
        if (whole.len() + frame.len()) as u64 > limit {
            let message = format!("the body is larger than {limit} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message));
        }
        whole.extend_from_slice(&frame);
    }
    Ok(whole.freeze())
}
