//! Puts manifests.
//!
//! After a lost answer, a put by digest is checked and repeated. A put under a tag is checked, and repeated only if the registry answered:
//! another writer may have moved the tag meanwhile, and only the caller knows what it was compared with.

use reqwest::Method;

use super::super::MANIFEST_LIMIT;
use super::answer;
use super::authorize::Scope;
use super::exchange::{Call, Whole};
use super::manifest::{broken, claimed};
use super::payload::Payload;
use super::retry::{Attempts, Cause, Failure};
use super::shared::Http;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Hasher, Manifest, Repository, Version};

/// The header by which a registry says that it links the referrer to this subject itself.
const SUBJECT_HEADER: &str = "oci-subject";

/// Puts a manifest by digest or under a tag.
pub(super) async fn manifest(http: &Http, repository: &Repository, version: &Version, manifest: &Manifest) -> Result<(), Error> {
    let what = format!("manifest {}/{repository}{version}", http.registry);
    let digest = match version {
        Version::Digest(digest) => *digest,
        Version::Tag(_) => manifest.digest,
    };
    check(&what, &digest, manifest)?;
    let url = http.url(&format!("v2/{repository}/manifests/{}", version.to_path()))?;
    let payload = Some(Payload::whole(&manifest.media_type, manifest.raw.clone()));
    let call = Call { payload, ..Call::new(what, Method::PUT, url, Scope::Push(repository.clone())) };
    let mut attempts = http.exchange.attempts_to_write();
    loop {
        let failure = match send(http, &call, &mut attempts).await {
            Ok(answer) => return accepted(http, &call, &answer, repository, &digest).await,
            Err(failure) => failure,
        };
        let Failure::Passing { error, cause, .. } = &failure else { return http.exchange.pause(&mut attempts, failure).await };
        // Formatted before the check below, in case that gets no answer either.
        let unanswered = error.clone().append("; whether the registry accepted it is unknown");
        let may_repeat = matches!(version, Version::Digest(_)) || *cause != Cause::Silent;
        match super::manifest::resolve_within(http, repository, version, http.exchange.attempts_to_write().at_most(1)).await {
            Ok(resolved) if resolved.digest == digest => return Ok(()),
            _ if !may_repeat => return Err(unanswered),
            _ => http.exchange.pause(&mut attempts, failure).await?,
        }
    }
}

/// Rejects a manifest that the registry would refuse, before sending it.
fn check(what: &str, digest: &Digest, manifest: &Manifest) -> Result<(), Error> {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(&manifest.raw);
    if hasher.finish() != *digest {
        return Err(Error::new(ErrorKind::Invalid, format!("{what}: its bytes do not match digest {digest}")));
    }
    if manifest.raw.len() as u64 > MANIFEST_LIMIT {
        let message = format!("{what}: its {} bytes exceed the {} MiB that registries accept", manifest.raw.len(), MANIFEST_LIMIT >> 20);
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

async fn send(http: &Http, call: &Call, attempts: &mut Attempts) -> Result<Whole, Failure> {
    let answer = http.exchange.attempt(call, attempts).await?;
    http.exchange.whole(call, answer, answer::ERROR_LIMIT, attempts).await
}

async fn accepted(http: &Http, call: &Call, answer: &Whole, repository: &Repository, digest: &Digest) -> Result<(), Error> {
    if !answer.status.is_success() {
        let error = http.exchange.refused_write(call, answer).await;
        // A manifest's bytes are as they are, so a digest refusal means that the manifest is not accepted.
        let kind = if error.kind == ErrorKind::Integrity { ErrorKind::Invalid } else { error.kind };
        return Err(Error::new(kind, error.message));
    }
    match claimed(&answer.headers, &call.what)? {
        Some(named) if named != *digest && named.algorithm() == digest.algorithm() => {
            return Err(broken(&call.what, &format!("the registry stored it as {named} instead of {digest}")));
        }
        _ => {}
    }
    if answer.headers.contains_key(SUBJECT_HEADER) {
        http.linked.put(repository, *digest);
    }
    Ok(())
}
