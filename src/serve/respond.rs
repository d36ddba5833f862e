//! Responses shared by several handlers.

use std::ops::Range;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};

use super::manifests::is_known;
use super::range::{Wanted, wanted};

/// `Cache-Control` of content addressed by digest.
pub(super) const IMMUTABLE: &str = "private, max-age=31536000, immutable";

/// Whether a request only reads.
pub(super) fn reads(request: &Parts) -> bool {
    matches!(request.method, Method::GET | Method::HEAD)
}

/// A JSON response, without body for HEAD.
pub(super) fn json(request: &Parts, text: impl Into<String>) -> Response<Body> {
    typed(request, "application/json", text)
}

/// A text response of a media type, without body for HEAD.
pub(super) fn typed(request: &Parts, media_type: &'static str, text: impl Into<String>) -> Response<Body> {
    let text = text.into();
    let length = HeaderValue::from(text.len());
    let body = if request.method == Method::HEAD { Body::empty() } else { Body::from(text) };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

/// A response without body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The head of a response with content of known size, and the range to send; `None` for HEAD, for content the client already has and for an
/// empty range.
pub(super) fn ranged(request: &Parts, etag: &str, size: u64) -> (Response<Body>, Option<Range<u64>>) {
    let is_get = request.method == Method::GET;
    let (status, range) = match if is_get { wanted(&request.headers, size, etag) } else { Wanted::Whole } {
        _ if is_known(&request.headers, etag) => (StatusCode::NOT_MODIFIED, None),
        Wanted::Whole => (StatusCode::OK, Some(0..size)),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, Some(range)),
        Wanted::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, None),
    };
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let content_range = match (status, &range) {
        (StatusCode::PARTIAL_CONTENT, Some(range)) => Some(format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))),
        (StatusCode::RANGE_NOT_SATISFIABLE, _) => Some(format!("bytes */{size}")),
        _ => None,
    };
    for (name, value) in [(header::ETAG, Some(etag.to_owned())), (header::CONTENT_RANGE, content_range)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    match &range {
        Some(range) => drop(headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into())),
        None if status == StatusCode::RANGE_NOT_SATISFIABLE => drop(headers.insert(header::CONTENT_LENGTH, 0_u64.into())),
        None => {}
    }
    (response, range.filter(|_| is_get))
}
