//! Resolves versions and reads manifests.
//!
//! A body is hashed. It must match the digest it was requested by; if requested by tag, the registry's digest header, if any. Its shape
//! must not contradict the `Content-Type` header.

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};

use super::super::{MANIFEST_LIMIT, Resolved};
use super::authorize::Scope;
use super::exchange::{Call, Whole};
use super::retry::Attempts;
use super::shared::Http;
use crate::error::{Error, ErrorKind};
use crate::oci::{Algorithm, Digest, Hasher, Manifest, Repository, Version, media_type};
use crate::registry::of_manifest;

const DIGEST_HEADER: &str = "docker-content-digest";

/// Requests the digest of a version.
pub(super) async fn resolve(http: &Http, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
    resolve_within(http, repository, version, http.exchange.attempts()).await
}

/// The digest that a version has now, if it exists.
pub(super) async fn held(http: &Http, repository: &Repository, version: &Version) -> Result<Option<Digest>, Error> {
    match resolve(http, repository, version).await {
        Ok(resolved) => Ok(Some(resolved.digest)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same as [`resolve`] with the caller's attempts.
pub(super) async fn resolve_within(http: &Http, repository: &Repository, version: &Version, attempts: Attempts) -> Result<Resolved, Error> {
    let call = call(http, Method::HEAD, repository, version)?;
    let Whole { status, headers, .. } = http.exchange.fetch_within(&call, 0, attempts).await?;
    let named = claimed(&headers, &call.what);
    match (status.as_u16(), named, version) {
        (200, Ok(Some(digest)), Version::Digest(asked)) if digest != *asked && digest.algorithm() == asked.algorithm() => {
            Err(broken(&call.what, &format!("the registry returned {digest}")))
        }
        (200, _, Version::Digest(digest)) => Ok(resolved(*digest, &headers)),
        (200, Ok(Some(digest)), Version::Tag(_)) => Ok(resolved(digest, &headers)),
        // The registry does not support HEAD, or sends no digest with it: read the body instead.
        (200 | 400 | 405 | 501, _, _) => {
            let manifest = read(http, repository, version).await?;
            let size = Some(manifest.raw.len() as u64);
            Ok(Resolved { digest: manifest.digest, media_type: Some(manifest.media_type), size })
        }
        _ => Err(http.exchange.refused(&call, status, &headers, b"").await),
    }
}

/// Reads a manifest and checks it.
pub(super) async fn read(http: &Http, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
    let call = call(http, Method::GET, repository, version)?;
    let Whole { status, headers, body, .. } = http.exchange.fetch(&call, MANIFEST_LIMIT).await?;
    if status.as_u16() != 200 {
        return Err(http.exchange.refused(&call, status, &headers, &body).await);
    }
    let hash = |algorithm: Algorithm| {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&body);
        hasher.finish()
    };
    let expected = match version {
        Version::Digest(asked) => Some(*asked),
        Version::Tag(_) => claimed(&headers, &call.what)?,
    };
    let digest = hash(expected.map_or(Algorithm::Sha256, |digest| digest.algorithm()));
    if let Some(expected) = expected
        && digest != expected
    {
        return Err(broken(&call.what, &format!("the bytes have digest {digest} instead of {expected}")));
    }
    let manifest = Manifest::parse(body, digest).map_err(|error| of_manifest(&call.what, error))?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let is_index = |media_type: &str| matches!(media_type, media_type::OCI_INDEX | media_type::DOCKER_INDEX);
    if media_type::MANIFESTS.contains(&content_type) && is_index(content_type) != manifest.index().is_some() {
        return Err(broken(&call.what, &format!("the registry labels it {content_type}, but its content is not")));
    }
    Ok(manifest)
}

fn call(http: &Http, method: Method, repository: &Repository, version: &Version) -> Result<Call, Error> {
    let what = format!("manifest {}/{repository}{version}", http.registry);
    let url = http.url(&format!("v2/{repository}/manifests/{}", version.to_path()))?;
    let accept = Some(media_type::MANIFESTS.join(", "));
    Ok(Call { accept, ..Call::new(what, method, url, Scope::Content(repository.clone())) })
}

/// The digest that the registry claims; `None` if there is none or its algorithm is unknown.
pub(super) fn claimed(headers: &HeaderMap, what: &str) -> Result<Option<Digest>, Error> {
    let Some(value) = headers.get(DIGEST_HEADER) else { return Ok(None) };
    let text = value.to_str().map_err(|_| broken(what, "the registry sent a digest that is not text"))?;
    match Digest::parse(text) {
        Ok(digest) => Ok(Some(digest)),
        Err(_) if !text.starts_with("sha256:") && !text.starts_with("sha512:") => Ok(None),
        Err(error) => Err(broken(what, &format!("the registry sent an invalid digest: {error}"))),
    }
}

fn resolved(digest: Digest, headers: &HeaderMap) -> Resolved {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    Resolved {
        digest,
        media_type: text(CONTENT_TYPE).map(|value| value.chars().take(255).collect()),
        size: text(CONTENT_LENGTH).and_then(|value| value.parse().ok()),
    }
}

pub(super) fn broken(what: &str, why: &str) -> Error {
    Error::new(ErrorKind::Integrity, format!("{what}: {why}"))
}
