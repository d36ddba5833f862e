//! Sends a file of an artifact: fetches only what the range needs, and cuts the connection before the last byte if the content turns out
//! wrong.

use std::io;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use futures_util::stream;

use super::address::Address;
use super::kinds::{disposition, kind};
use super::opened::Opened;
use crate::artifact::{Artifact, NodeId};
use crate::content::Verified;
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;
use crate::serve::manifests::etag;
use crate::serve::metrics::UpstreamMetrics;
use crate::serve::problem::Problem;
use crate::serve::respond;
use crate::serve::upstream::piece_end;
use crate::view::Reader;

/// For untrusted files: however a browser interprets them, they run nothing, load nothing and have no origin.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

/// The response to a request for a regular file.
pub(super) async fn file(
    opened: &Opened<'_>,
    artifact: &Artifact,
    node: NodeId,
    address: &Address,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    let size = artifact.tree.node(node).map(|node| node.size).unwrap_or_default();
    let (mut response, range) = respond::ranged(request, &etag(&identity(artifact, node, address)), size);
    let name = address.path.last().map(Vec::as_slice).unwrap_or_default();
    describe(&mut response, name, address.is_pinned());
    if let Some(modified) = modified(artifact, node) {
        response.headers_mut().insert(header::LAST_MODIFIED, modified);
    }
    if let Some(range) = range {
        let reader = opened.reader(artifact, node).await?;
        let sending = Sending { reader, is_whole: range == (0..size), range, metrics: opened.metrics() };
        let first = sending.next().await.map_err(|error| opened.problem(&error))?;
        *response.body_mut() = sending.body(first);
    }
    Ok(response)
}

/// Sets the media type of a file and how a browser treats it.
pub(super) fn describe(response: &mut Response<Body>, name: &[u8], is_pinned: bool) {
    let kind = kind(name);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.media_type));
    headers.insert(header::CONTENT_DISPOSITION, disposition(name, kind.is_harmless));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // A tag may move; the entity tag shows it.
    let caching = if is_pinned { respond::IMMUTABLE } else { "private, no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
}

/// The time of a file, unless that is in the future, which HTTP forbids. Not for comparisons: a tag may move to older content.
fn modified(artifact: &Artifact, node: NodeId) -> Option<HeaderValue> {
    let (seconds, _) = artifact.tree.node(node)?.metadata.mtime?;
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))?;
    let shown = (time <= SystemTime::now()).then(|| httpdate::fmt_http_date(time))?;
    HeaderValue::from_str(&shown).ok()
}

/// A digest that identifies the bytes of a file: their own if known, else one of everything that determines them.
fn identity(artifact: &Artifact, node: NodeId, address: &Address) -> Digest {
    let sha256 = artifact.tree.content(node).and_then(|content| content.sha256);
    let derived = || {
        let manifest = artifact.shown.digest.to_string();
        Digest::of(&[manifest.as_bytes(), b"\n", &address.path.join(&b'/')].concat())
    };
    sha256.map_or_else(derived, Digest::from_sha256)
}

/// A range of a file being sent.
struct Sending {
    reader: Reader,
    range: Range<u64>,
    /// Whether it covers the whole file.
    is_whole: bool,
    /// Counts the bytes sent.
    metrics: Option<UpstreamMetrics>,
}

impl Sending {
    /// The next bytes; empty only at the end.
    async fn next(&self) -> Result<Bytes, Error> {
        let end = piece_end(self.range.start, self.range.end);
        let length = end.saturating_sub(self.range.start);
        let bytes = self.reader.read(self.range.start, u32::try_from(length).unwrap_or(u32::MAX)).await?;
        if bytes.is_empty() && length > 0 {
            return Err(Error::new(ErrorKind::Integrity, "a file of the artifact is shorter than its recorded size"));
        }
        // If the blob is served while being verified, its last read waits for the digest.
        if self.is_whole && end == self.range.end && self.reader.verified() == Verified::Partial {
            return Err(Error::new(ErrorKind::Integrity, "a file of the artifact was read completely but not verified"));
        }
        Ok(bytes)
    }

    /// The body; `first` are its first bytes.
    fn body(self, first: Bytes) -> Body {
        Body::from_stream(stream::unfold(Some((self, Some(first))), |state| async move {
            let (mut sending, first) = state.filter(|(sending, _)| !sending.range.is_empty())?;
            let piece = match first {
                Some(first) => Ok(first),
                None => sending.next().await,
            };
            match piece {
                Ok(bytes) => {
                    sending.range.start += bytes.len() as u64;
                    if let Some(metrics) = &sending.metrics {
                        metrics.sent(bytes.len() as u64);
                    }
                    Some((Ok(bytes), Some((sending, None))))
                }
                Err(error) => {
                    tracing::warn!("cutting off a file at byte {}: {error}", sending.range.start);
                    Some((Err(io::Error::other(error)), None))
                }
            }
        }))
    }
}
