//! Referrers on registries without the API: an index under a tag, which is read, extended, put and confirmed.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#referrers-tag-schema>. Registries have no compare-and-swap, so
//! the tag is compared just before the put, and an entry that another writer overwrote is added again, a few times. One client's changes
//! are serialised.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::MANIFEST_LIMIT;
use super::shared::Http;
use super::{manifest, pages, put};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Version, document, media_type};

/// How often an overwritten entry is added again.
const ROUNDS: u32 = 10;
/// Longest wait before that, in milliseconds.
const PAUSE: u64 = 200;

/// Ensures that a referrer is listed.
pub(super) async fn link(http: &Http, repository: &Repository, subject: &Digest, referrer: &Descriptor) -> Result<(), Error> {
    if http.linked.has(repository, &referrer.digest) || pages::keeps_referrers(http, repository, subject).await? {
        return Ok(());
    }
    let wanted = referrer.digest.to_string();
    change(http, repository, subject, |entries| {
        let is_new = !entries.iter().any(|entry| digest_of(entry) == Some(&wanted));
        if is_new {
            entries.push(document::descriptor(referrer));
        }
        is_new
    })
    .await
}

/// Ensures that a deleted manifest is no longer listed as a referrer.
pub(super) async fn unlink(http: &Http, repository: &Repository, subject: &Digest, referrer: &Digest) -> Result<(), Error> {
    if pages::keeps_referrers(http, repository, subject).await? {
        return Ok(());
    }
    let gone = referrer.to_string();
    change(http, repository, subject, |entries| {
        let before = entries.len();
        entries.retain(|entry| digest_of(entry) != Some(&gone));
        entries.len() != before
    })
    .await
}

/// Changes the referrers list until `edit` finds nothing left to change.
async fn change(http: &Http, repository: &Repository, subject: &Digest, edit: impl Fn(&mut Vec<Value>) -> bool) -> Result<(), Error> {
    let version = Version::Tag(pages::fallback(subject)?);
    let _turn = http.linked.changing.lock().await;
    for round in 0..ROUNDS {
        if round > 1 {
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..PAUSE))).await;
        }
        let (mut index, held) = read(http, repository, &version).await?;
        let entries = index.get_mut("manifests").and_then(Value::as_array_mut);
        let Some(entries) = entries else { return Err(occupied(http, repository, &version)) };
        if !edit(entries) {
            return Ok(());
        }
        if manifest::held(http, repository, &version).await? != held {
            continue;
        }
        match store(http, repository, &version, &index).await {
            // docker-registry requires every member to exist, but some may have been deleted.
            Err(error) if error.kind == ErrorKind::Invalid => {
                drop_missing(http, repository, &mut index).await?;
                store(http, repository, &version, &index).await?;
            }
            other => other?,
        }
    }
    Err(Error::new(
        ErrorKind::Busy,
        format!("referrers of {}/{repository}@{subject}: other writers keep changing their list", http.registry),
    ))
}

fn digest_of(entry: &Value) -> Option<&str> {
    entry.get("digest").and_then(Value::as_str)
}

/// The current index and its digest, or a new one.
async fn read(http: &Http, repository: &Repository, version: &Version) -> Result<(Value, Option<Digest>), Error> {
    match manifest::read(http, repository, version).await {
        Ok(manifest) if manifest.index().is_some() => {
            let mut index: Value = serde_json::from_slice(&manifest.raw).map_err(|_| occupied(http, repository, version))?;
            if index.get("manifests").is_none_or(Value::is_null)
                && let Some(members) = index.as_object_mut()
            {
                members.insert("manifests".to_owned(), json!([]));
            }
            Ok((index, Some(manifest.digest)))
        }
        Ok(_) => Err(occupied(http, repository, version)),
        Err(error) if error.kind == ErrorKind::NotFound => {
            Ok((json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}), None))
        }
        Err(error) => Err(error),
    }
}

fn occupied(http: &Http, repository: &Repository, version: &Version) -> Error {
    let message = format!("{}/{repository}{version} should hold the referrers list, but holds something else", http.registry);
    Error::new(ErrorKind::Conflict, message)
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
        let digest = digest_of(&entry).and_then(|digest| Digest::parse(digest).ok());
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
