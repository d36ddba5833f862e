//! Deletes one tag and no other tag of the same manifest; on request, also whole manifests and blobs.
//!
//! To delete a tag, a user's manifest is never deleted, since that would delete all its tags. If a registry refuses to delete a tag
//! (docker-registry 2.8), the tag is moved to a unique manifest, which is then deleted by digest together with this one tag. Before the tag
//! is touched, a probe checks that the registry deletes by digest at all.

use bytes::Bytes;
use reqwest::Method;
use serde_json::json;

use super::super::{Push, TagDeletion};
use super::answer;
use super::authorize::Scope;
use super::exchange::{Call, Whole};
use super::shared::Http;
use super::{HttpRegistry, manifest, put};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag, Version, media_type};

/// The config type of a throw-away manifest.
const THROW_AWAY: &str = "application/vnd.ocifs.throw-away.v1";
/// The annotation with the digest that the tag held before.
const REPLACES: &str = "dev.ocifs.throw-away.replaces";
/// The config and layer of a throw-away manifest.
const EMPTY: &[u8] = b"{}";

/// Deletes a tag that holds `digest`.
pub(super) async fn tag(registry: &HttpRegistry, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<TagDeletion, Error> {
    let http = &*registry.http;
    let version = Version::Tag(tag.clone());
    let what = format!("tag {}/{repository}{version}", http.registry);
    let held = manifest::resolve(http, repository, &version).await?.digest;
    if held != *digest {
        // A throw-away manifest left by an interruption stands for the one it replaced.
        if is_left_over(http, repository, &held, digest).await? {
            let run = ThrowAway { registry, repository, version: &version, what: &what, old: digest };
            return run.finish(&held).await;
        }
        return Err(moved(&what, &held, digest));
    }
    let answer = delete(http, repository, &version).await?;
    match answer.status.as_u16() {
        200..=299 => return gone(http, repository, &version, &what).await.map(|()| TagDeletion::Direct),
        404 if manifest::held(http, repository, &version).await?.is_none() => return Ok(TagDeletion::Direct),
        400 | 404 | 405 | 501 => {}
        _ => {
            let error = refusal(http, repository, &version, &answer).await;
            if error.kind != ErrorKind::Unsupported {
                return Err(error);
            }
        }
    }
    ThrowAway { registry, repository, version: &version, what: &what, old: digest }.run().await
}

/// Deletes a manifest and all tags that point to it.
pub(super) async fn manifest(http: &Http, repository: &Repository, digest: &Digest) -> Result<(), Error> {
    let version = Version::Digest(*digest);
    let answer = delete(http, repository, &version).await?;
    if !answer.status.is_success() {
        return Err(refusal(http, repository, &version, &answer).await);
    }
    gone(http, repository, &version, &format!("manifest {}/{repository}{version}", http.registry)).await
}

/// Deletes a blob.
pub(super) async fn blob(http: &Http, repository: &Repository, digest: &Digest) -> Result<(), Error> {
    let url = http.url(&format!("v2/{repository}/blobs/{digest}"))?;
    let what = format!("deleting blob {}/{repository}@{digest}", http.registry);
    let call = Call::new(what, Method::DELETE, url, Scope::Delete(repository.clone()));
    let answer = http.exchange.fetch(&call, answer::ERROR_LIMIT).await?;
    if answer.status.is_success() { Ok(()) } else { Err(http.exchange.refused_write(&call, &answer).await) }
}

fn moved(what: &str, held: &Digest, expected: &Digest) -> Error {
    Error::new(ErrorKind::Conflict, format!("{what} holds {held}, not {expected}; not deleted"))
}

async fn gone(http: &Http, repository: &Repository, version: &Version, what: &str) -> Result<(), Error> {
    match manifest::held(http, repository, version).await? {
        None => Ok(()),
        Some(held) => Err(Error::new(ErrorKind::Other, format!("{what}: the registry reports it deleted, but it still holds {held}"))),
    }
}

fn call(http: &Http, repository: &Repository, version: &Version) -> Result<Call, Error> {
    let url = http.url(&format!("v2/{repository}/manifests/{}", version.to_path()))?;
    let what = format!("deleting {}/{repository}{version}", http.registry);
    Ok(Call::new(what, Method::DELETE, url, Scope::Delete(repository.clone())))
}

async fn delete(http: &Http, repository: &Repository, version: &Version) -> Result<Whole, Error> {
    http.exchange.fetch(&call(http, repository, version)?, answer::ERROR_LIMIT).await
}

async fn refusal(http: &Http, repository: &Repository, version: &Version, answer: &Whole) -> Error {
    match call(http, repository, version) {
        Ok(call) => http.exchange.refused_write(&call, answer).await,
        Err(error) => error,
    }
}

async fn is_left_over(http: &Http, repository: &Repository, held: &Digest, replaced: &Digest) -> Result<bool, Error> {
    let manifest = match manifest::read(http, repository, &Version::Digest(*held)).await {
        // Whatever it is, it is not one of ours.
        Err(error) if matches!(error.kind, ErrorKind::Integrity | ErrorKind::NotFound) => return Ok(false),
        other => other?,
    };
    let replaces = manifest.annotations().get(REPLACES);
    Ok(manifest.artifact_type() == Some(THROW_AWAY) && replaces.is_some_and(|replaces| *replaces == replaced.to_string()))
}

/// A unique manifest, made so by 128 random bits.
fn unique(old: &Digest) -> Result<Manifest, Error> {
    let empty = json!({"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(EMPTY).to_string(), "size": EMPTY.len()});
    let raw = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": THROW_AWAY, "config": empty, "layers": [empty],
        "annotations": {REPLACES: old.to_string(), "dev.ocifs.throw-away.unique": format!("{:032x}", rand::random::<u128>())},
    });
    let raw = Bytes::from(raw.to_string());
    let digest = Digest::of(&raw);
    Manifest::parse(raw, digest).map_err(|error| Error::new(ErrorKind::Other, error.to_string()))
}

/// The deletion of one tag through a throw-away manifest.
struct ThrowAway<'a> {
    registry: &'a HttpRegistry,
    repository: &'a Repository,
    version: &'a Version,
    what: &'a str,
    /// The digest that the tag holds, or held before a throw-away manifest took it.
    old: &'a Digest,
}

impl ThrowAway<'_> {
    async fn run(&self) -> Result<TagDeletion, Error> {
        let (http, repository) = (&*self.registry.http, self.repository);
        let manifest = unique(self.old)?;
        let by_digest = Version::Digest(manifest.digest);
        // It does not exist yet: only a registry that deletes by digest answers not found.
        let answer = delete(http, repository, &by_digest).await?;
        if answer.status.as_u16() != 404 {
            return Err(self.impossible(refusal(http, repository, &by_digest, &answer).await));
        }
        let empty = Descriptor::new(media_type::OCI_EMPTY, Digest::of(EMPTY), EMPTY.len() as u64);
        if !self.registry.has_blob(repository, &empty).await? {
            let source = std::sync::Arc::new(Bytes::from_static(EMPTY));
            self.registry.push_blob(repository, &empty, source, std::sync::Arc::new(|_| {})).await?;
        }
        // Check again just before the tag is taken.
        match manifest::held(http, repository, self.version).await? {
            Some(held) if held == *self.old => {}
            Some(held) => return Err(moved(self.what, &held, self.old)),
            None => return Ok(TagDeletion::Direct),
        }
        if let Err(error) = put::manifest(http, repository, self.version, &manifest).await {
            // The manifest may have arrived although the answer was lost.
            return Err(self.put_back(&manifest.digest, error).await);
        }
        self.finish(&manifest.digest).await
    }

    /// Deletes the manifest that took the tag.
    async fn finish(&self, throw_away: &Digest) -> Result<TagDeletion, Error> {
        let (http, repository) = (&*self.registry.http, self.repository);
        match manifest::held(http, repository, self.version).await? {
            Some(held) if held == *throw_away => {}
            None => return Ok(TagDeletion::ByThrowAway),
            // Another writer took the tag meanwhile; the manifest has no tag any more.
            Some(held) => {
                delete(http, repository, &Version::Digest(*throw_away)).await?;
                return Err(moved(self.what, &held, self.old));
            }
        }
        let by_digest = Version::Digest(*throw_away);
        let outcome = match delete(http, repository, &by_digest).await {
            // A repeat after a lost answer finds nothing.
            Ok(answer) if answer.status.is_success() || answer.status.as_u16() == 404 => {
                gone(http, repository, self.version, self.what).await
            }
            Ok(answer) => Err(self.impossible(refusal(http, repository, &by_digest, &answer).await)),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => Ok(TagDeletion::ByThrowAway),
            Err(error) => Err(self.put_back(throw_away, error).await),
        }
    }

    /// Points the tag back at its old manifest if the throw-away manifest has it, and extends the error with the outcome.
    async fn put_back(&self, throw_away: &Digest, error: Error) -> Error {
        let (http, repository) = (&*self.registry.http, self.repository);
        let restored = async {
            match manifest::held(http, repository, self.version).await? {
                Some(held) if held == *throw_away => {}
                _ => return Ok(()),
            }
            let old = manifest::read(http, repository, &Version::Digest(*self.old)).await?;
            put::manifest(http, repository, self.version, &old).await
        };
        match restored.await {
            Ok(()) => error,
            Err(second) => Error::new(
                error.kind,
                format!(
                    "{}; the tag may now hold the empty manifest {throw_away} instead of {}, since restoring it failed: {}; delete the tag again to resume",
                    error.message, self.old, second.message
                ),
            ),
        }
    }

    fn impossible(&self, error: Error) -> Error {
        match error.kind {
            ErrorKind::Denied | ErrorKind::Unreachable | ErrorKind::TimedOut => error,
            _ => Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} cannot be deleted: the registry deletes neither tags nor manifests (docker-registry does with \
                     REGISTRY_STORAGE_DELETE_ENABLED=true); delete it there by other means ({})",
                    self.what, error.message
                ),
            ),
        }
    }
}
