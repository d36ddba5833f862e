//! Serves blobs: the head at once, then the bytes as they arrive and are verified. If a blob turns out to be wrong or short, the connection ends
//! before the last byte.

use std::io;
use std::ops::Range;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use futures_util::stream;

use super::manifests::{DIGEST, digest_value, etag};
use super::metrics::{Kind, Source};
use super::problem::Problem;
use super::respond;
use super::upstream::{Upstream, piece_end};
use crate::content::ContentStream;
use crate::oci::{Digest, Repository};

/// Serves a blob of an upstream.
pub(super) async fn of_upstream(
    upstream: &Upstream,
    repository: &Repository,
    digest: &Digest,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    let (size, mut source) = upstream.blob_size(repository, digest).await?;
    let (mut response, range) = head(request, digest, size);
    if let Some(range) = range {
        let blob = upstream.blob(repository, digest, size).await?;
        if !blob.holds(&range) {
            source = Source::Upstream;
        }
        let first = upstream.first(&blob, range.start, range.end).await?;
        let metrics = upstream.metrics.clone();
        *response.body_mut() = content(blob, range, first, move |bytes| metrics.sent(bytes));
    }
    upstream.metrics.answered(Kind::Blob, source);
    response.extensions_mut().insert(source);
    Ok(response)
}

/// The head of a blob response, and the range of bytes to send; `None` for HEAD, for content the client already has and for an empty range.
pub(super) fn head(request: &Parts, digest: &Digest, size: u64) -> (Response<Body>, Option<Range<u64>>) {
    let (mut response, range) = respond::ranged(request, &etag(digest), size);
    let is_success = response.status().is_success();
    let headers = response.headers_mut();
    headers.insert(DIGEST, digest_value(digest));
    if is_success {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(respond::IMMUTABLE));
    }
    (response, range)
}

/// A range of content as a body; `first` holds its first bytes, if already read. `sent` counts bytes.
pub(super) fn content(content: ContentStream, range: Range<u64>, first: Option<Bytes>, sent: impl Fn(u64) + Send + 'static) -> Body {
    let first = first.filter(|first| !first.is_empty());
    let state = Some((content, range, first, sent));
    Body::from_stream(stream::unfold(state, |state| async move {
        let (content, range, first, sent) = state.filter(|(_, range, ..)| range.start < range.end)?;
        let piece = match first {
            Some(first) => Ok(first),
            None => content.read(range.start..piece_end(range.start, range.end)).await,
        };
        match piece {
            Ok(bytes) if !bytes.is_empty() => {
                let length = bytes.len() as u64;
                sent(length);
                Some((Ok(bytes), Some((content, range.start + length..range.end, None, sent))))
            }
            Ok(_) => Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), None)),
            Err(error) => {
                tracing::warn!("cutting off a blob at byte {}: {error}", range.start);
                Some((Err(io::Error::other(error)), None))
            }
        }
    }))
}
