//! Referrers where the registry has no API for them: an index under a tag, read, extended, put and confirmed.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#referrers-tag-schema>. No registry compares and swaps, so
//! whoever writes at the same time may win; then the entry is added again, a few times.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::{Error, MANIFEST_LIMIT};
use super::{Http, manifest, pages, put};
use crate::error::ErrorKind;
use crate::oci::{Descriptor, Digest, Manifest, Repository, Version, media_type};

/// How often an entry is added again that somebody else overwrote.
const ROUNDS: u32 = 5;
/// Manifests that are remembered.
const KNOWN: usize = 4096;

/// Manifests whose registry said that it keeps their subject itself.
#[derive(Default)]
pub(super) struct Linked {
    /// Never held across an await.
    known: Mutex<HashSet<(Repository, Digest)>>,
}

impl Linked {
    pub(super) fn put(&self, repository: &Repository, referrer: Digest) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert((repository.clone(), referrer));
    }

    fn has(&self, repository: &Repository, referrer: &Digest) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&(repository.clone(), *referrer))
    }
}

/// Makes sure that a referrer is found.
pub(super) async fn link(http: &Http, repository: &Repository, subject: &Digest, referrer: &Descriptor) -> Result<(), Error> {
    if http.linked.has(repository, &referrer.digest) || pages::keeps_referrers(http, repository, subject).await? {
        return Ok(());
    }
    let version = Version::Tag(pages::fallback(subject)?);
    for _ in 0..ROUNDS {
        let mut index = read(http, repository, &version).await?;
        let entries = index.get_mut("manifests").and_then(Value::as_array_mut);
        let Some(entries) = entries else { return Err(occupied(http, repository, &version)) };
        let wanted = referrer.digest.to_string();
        if entries.iter().any(|entry| entry.get("digest").and_then(Value::as_str) == Some(&wanted)) {
            return Ok(());
        }
        entries.push(entry(referrer));
        match store(http, repository, &version, &index).await {
            // docker-registry wants every member to exist, and some may have been deleted.
            Err(error) if error.kind == ErrorKind::Invalid => {
                drop_missing(http, repository, &mut index).await?;
                store(http, repository, &version, &index).await?;
            }
            other => other?,
        }
    }
    Err(Error::new(
        ErrorKind::Busy,
        format!("referrers of {}/{repository}@{subject}: others change their list all the time", http.registry),
    ))
}

/// The index as it is, or a new one.
async fn read(http: &Http, repository: &Repository, version: &Version) -> Result<Value, Error> {
    match manifest::read(http, repository, version).await {
        Ok(manifest) if manifest.index().is_some() => {
            let mut index: Value = serde_json::from_slice(&manifest.raw).map_err(|_| occupied(http, repository, version))?;
            if index.get("manifests").is_none_or(Value::is_null)
                && let Some(members) = index.as_object_mut()
            {
                members.insert("manifests".to_owned(), json!([]));
            }
            Ok(index)
        }
        Ok(_) => Err(occupied(http, repository, version)),
        Err(error) if error.kind == ErrorKind::NotFound => {
            Ok(json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}))
        }
        Err(error) => Err(error),
    }
}

fn occupied(http: &Http, repository: &Repository, version: &Version) -> Error {
    let message = format!("{}/{repository}{version} is where referrers are listed, and it holds something else", http.registry);
    Error::new(ErrorKind::Conflict, message)
}

fn entry(referrer: &Descriptor) -> Value {
    let mut entry = json!({"mediaType": referrer.media_type, "digest": referrer.digest.to_string(), "size": referrer.size});
    if let Some(artifact_type) = &referrer.artifact_type {
        entry["artifactType"] = json!(artifact_type);
    }
    if !referrer.annotations.is_empty() {
        entry["annotations"] = json!(referrer.annotations);
    }
    entry
}

async fn store(http: &Http, repository: &Repository, version: &Version, index: &Value) -> Result<(), Error> {
    let raw = Bytes::from(index.to_string());
    if raw.len() as u64 > MANIFEST_LIMIT {
        let message = format!("{}/{repository}{version}: the list of referrers would become too large", http.registry);
        return Err(Error::new(ErrorKind::NoSpace, message));
    }
    let digest = Digest::of(&raw);
    let manifest = Manifest::parse(raw, digest).map_err(|error| Error::new(ErrorKind::Other, error.to_string()))?;
    put::manifest(http, repository, version, &manifest).await
}

/// Drops the entries whose manifests are gone.
async fn drop_missing(http: &Http, repository: &Repository, index: &mut Value) -> Result<(), Error> {
    let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) else { return Ok(()) };
    let mut kept = Vec::new();
    for entry in std::mem::take(entries) {
        let digest = entry.get("digest").and_then(Value::as_str).and_then(|digest| Digest::parse(digest).ok());
        let Some(digest) = digest else { continue };
        match manifest::resolve(http, repository, &Version::Digest(digest)).await {
            Err(error) if error.kind == ErrorKind::NotFound => {}
            other => {
                other?;
                kept.push(entry);
            }
        }
    }
    *entries = kept;
    Ok(())
}
