//! Serves manifests: bytes, type and digest, and their age if they could not be revalidated.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::metrics::Kind;
use super::problem::{Code, Problem};
use super::respond;
use super::upstream::Upstream;
use crate::oci::{Digest, Manifest, Repository, Version};

pub(super) const DIGEST: &str = "docker-content-digest";

/// Serves a manifest of an upstream.
pub(super) async fn of_upstream(
    upstream: &Upstream,
    repository: &Repository,
    version: &Version,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    let found = upstream.manifest(repository, version).await?;
    let mut response = answer(&found.manifest, request)?;
    upstream.metrics.answered(Kind::Manifest, found.source);
    if let Some(size) = response.body().size_hint().exact() {
        upstream.metrics.sent(size);
    }
    response.extensions_mut().insert(found.source);
    if let Some(age) = found.stale {
        mark_stale(&mut response, age, upstream.registry.as_str());
    }
    Ok(response)
}

/// Marks a response as the last known answer.
pub(super) fn mark_stale(response: &mut Response<Body>, age: Duration, registry: &str) {
    let warning = format!("299 - \"last known answer, because {registry} could not be reached\"");
    if let Ok(warning) = HeaderValue::from_str(&warning) {
        response.headers_mut().insert(header::WARNING, warning);
    }
    response.headers_mut().insert(header::AGE, age.as_secs().into());
}

/// The response for a manifest.
///
/// # Errors
/// 404 if the client does not accept its type.
pub(super) fn answer(manifest: &Manifest, request: &Parts) -> Result<Response<Body>, Problem> {
    if !accepts(&request.headers, &manifest.media_type) {
        let message = format!("the manifest has type {}, which the request does not accept", manifest.media_type);
        return Err(Problem::not_found(Code::ManifestUnknown, message));
    }
    let etag = etag(&manifest.digest);
    let mut response = if is_known(&request.headers, &etag) {
        respond::empty(StatusCode::NOT_MODIFIED)
    } else {
        let head = request.method == Method::HEAD;
        let mut response = Response::new(if head { Body::empty() } else { Body::from(manifest.raw.clone()) });
        response.headers_mut().insert(header::CONTENT_LENGTH, manifest.raw.len().into());
        response
    };
    let headers = response.headers_mut();
    for (name, value) in [(header::CONTENT_TYPE, manifest.media_type.clone()), (header::ETAG, etag)] {
        headers.insert(name, HeaderValue::from_str(&value).map_err(|error| Problem::bad(Code::ManifestInvalid, error.to_string()))?);
    }
    headers.insert(DIGEST, digest_value(&manifest.digest));
    Ok(response)
}

/// The entity tag of content.
pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client already has the content (`If-None-Match`, RFC 9110, section 13.1.2).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let mut values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.any(|tags| tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag))
}

/// A digest as a header value; always valid by its grammar.
pub(super) fn digest_value(digest: &Digest) -> HeaderValue {
    HeaderValue::from_str(&digest.to_string()).unwrap_or(HeaderValue::from_static(""))
}

/// Whether a client accepts a type. One that names no type accepts any.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let fits = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|parameter| matches!(parameter.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        !refused && (name == "*/*" || name == "application/*" || name.eq_ignore_ascii_case(media_type))
    };
    values.is_empty() || values.iter().flat_map(|value| value.split(',')).any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::{DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST};

    #[test]
    fn the_accept_header_is_respected() {
        let accepted = |values: &[&str], media_type| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            accepts(&headers, media_type)
        };
        assert!(accepted(&[], OCI_INDEX));
        assert!(accepted(&["*/*"], OCI_INDEX) && accepted(&["text/html, application/*;q=0.5"], OCI_INDEX));
        assert!(accepted(&[OCI_MANIFEST, OCI_INDEX], OCI_INDEX));
        assert!(!accepted(&[OCI_MANIFEST, DOCKER_INDEX], OCI_INDEX));
        assert!(!accepted(&[&format!("{OCI_INDEX}; q=0")], OCI_INDEX));
    }
}
