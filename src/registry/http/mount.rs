//! Checks for blobs, and mounts them from another repository of the same registry.

use reqwest::Method;
use reqwest::header::CONTENT_LENGTH;

use super::answer;
use super::authorize::Scope;
use super::exchange::Call;
use super::retry::Attempts;
use super::session::Uploads;
use super::shared::Http;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Repository};

/// Whether a blob exists with the expected size.
pub(super) async fn has(http: &Http, repository: &Repository, descriptor: &Descriptor, attempts: Attempts) -> Result<bool, Error> {
    let uploads = Uploads::new(http, repository, &descriptor.digest);
    let url = http.url(&format!("v2/{repository}/blobs/{}", descriptor.digest))?;
    let call = uploads.call(Method::HEAD, url);
    let answer = http.exchange.fetch_within(&call, 0, attempts).await?;
    match answer.status.as_u16() {
        200 => {
            let length = answer.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            Ok(length.is_none_or(|length| length.parse() == Ok(descriptor.size)))
        }
        // Not there; or a storage host behind a redirect refuses HEAD, or the registry does not know it. Sending a blob again does no harm.
        404 | 400 | 405 | 501 => Ok(false),
        _ if answer.elsewhere => Ok(false),
        _ => Err(http.exchange.refused_write(&call, &answer).await),
    }
}

/// Asks the registry to mount a blob. Whatever the reason for a refusal, the blob can still be uploaded.
pub(super) async fn mount(http: &Http, repository: &Repository, descriptor: &Descriptor, from: &Repository) -> Result<bool, Error> {
    let uploads = Uploads::new(http, repository, &descriptor.digest);
    let mut url = http.url(&format!("v2/{repository}/blobs/uploads/"))?;
    url.query_pairs_mut().append_pair("mount", &descriptor.digest.to_string()).append_pair("from", from.as_str());
    let scope = Scope::Mount { to: repository.clone(), from: from.clone() };
    let call = Call { elsewhere_counts: true, ..Call::new(uploads.what.clone(), Method::POST, url, scope) };
    let answer = match http.exchange.fetch(&call, answer::ERROR_LIMIT).await {
        // The token server grants nothing for `from`.
        Err(error) if error.kind == ErrorKind::Denied => return Ok(false),
        other => other?,
    };
    match answer.status.as_u16() {
        201 => Ok(true),
        202 => {
            uploads.park(&descriptor.digest, &call.url, &answer).await;
            Ok(false)
        }
        // If the reason matters, the upload that follows fails with it.
        _ => Ok(false),
    }
}
