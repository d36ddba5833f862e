//! Answers that several handlers give.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};

/// Whether a request only reads.
pub(super) fn reads(request: &Parts) -> bool {
    matches!(request.method, Method::GET | Method::HEAD)
}

/// A JSON answer, without its body where only the head was asked for.
pub(super) fn json(request: &Parts, text: impl Into<String>) -> Response<Body> {
    let text = text.into();
    let length = HeaderValue::from(text.len());
    let body = if request.method == Method::HEAD { Body::empty() } else { Body::from(text) };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

/// An answer with a status and no body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
