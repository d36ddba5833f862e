//! Errors in the format of the distribution specification: a status, an error code, and a message.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

use crate::error::ErrorKind;

/// The specification's error codes, and common additional ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PaginationNumberInvalid,
    SizeInvalid,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unknown,
    Unsupported,
}

impl Code {
    fn text(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
            Self::Unsupported => "UNSUPPORTED",
        }
    }
}

/// Why a request cannot be answered as asked.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// An error. Text of a client or registry in the message is escaped by JSON encoding.
    pub(super) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// 400.
    pub(super) fn bad(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404.
    pub(super) fn not_found(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 405.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message)
    }

    /// 429, with the time to wait if known.
    pub(super) fn too_many(message: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_secs().max(1);
        Self::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, message).with(header::RETRY_AFTER, seconds.into())
    }

    /// Converts an error from the modules below; `absent` is the code for not found.
    pub(super) fn of(kind: ErrorKind, message: impl Into<String>, absent: Code) -> Self {
        let (status, code) = match kind {
            ErrorKind::NotFound | ErrorKind::Gone | ErrorKind::NotDirectory => (StatusCode::NOT_FOUND, absent),
            ErrorKind::Denied | ErrorKind::NotPermitted | ErrorKind::KeyMissing | ErrorKind::KeyWrong => {
                (StatusCode::FORBIDDEN, Code::Denied)
            }
            ErrorKind::Unreachable | ErrorKind::Integrity => (StatusCode::BAD_GATEWAY, Code::Unavailable),
            ErrorKind::TimedOut => (StatusCode::GATEWAY_TIMEOUT, Code::Unavailable),
            ErrorKind::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, Code::Unknown),
            ErrorKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            ErrorKind::Unsupported | ErrorKind::ReadOnly => (StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported),
            ErrorKind::Conflict => (StatusCode::CONFLICT, Code::Denied),
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, Code::ManifestInvalid),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown),
        };
        Self::new(status, code, message)
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let body = json!({"errors": [{"code": self.code.text(), "message": self.message, "detail": null}]}).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().extend(self.headers);
        response
    }
}
