//! The contract of [`Push`], for all implementations, observed through [`Pull`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::json;

use super::{collect, repository, tag};
use crate::error::ErrorKind;
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag, Version, media_type};
use crate::registry::{Layout, Memory, Pull, Push, TagDeletion, Uploaded};

/// How the implementations differ.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// Several repositories, between which blobs are mounted.
    pub(super) mounts: bool,
    /// How tags are deleted, if at all.
    pub(super) deletion: Option<TagDeletion>,
    /// Size of a blob that counts as large, in bytes.
    pub(super) large: usize,
}

pub(super) fn source(data: &[u8]) -> Arc<Bytes> {
    Arc::new(Bytes::copy_from_slice(data))
}

pub(super) fn silent() -> Uploaded {
    Arc::new(|_| {})
}

pub(super) fn descriptor(data: &[u8]) -> Descriptor {
    Descriptor::new("application/vnd.example", Digest::of(data), data.len() as u64)
}

/// A manifest over these blobs, made unique by a note.
pub(super) fn manifest(layers: &[&[u8]], note: &str, subject: Option<&Manifest>) -> Manifest {
    let plain = |data: &&[u8]| json!({"mediaType": "application/vnd.example", "digest": Digest::of(data).to_string(), "size": data.len()});
    let mut value = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/vnd.example.kind",
        "config": {"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}").to_string(), "size": 2},
        "layers": layers.iter().map(plain).collect::<Vec<_>>(), "annotations": {"note": note},
    });
    if let Some(subject) = subject {
        value["subject"] = json!({"mediaType": subject.media_type, "digest": subject.digest.to_string(), "size": subject.raw.len()});
    }
    let raw = Bytes::from(value.to_string());
    let digest = Digest::of(&raw);
    Manifest::parse(raw, digest).unwrap()
}

pub(super) fn name(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

async fn digest_of(push: &dyn Push, version: &Version) -> Option<Digest> {
    match push.resolve(&repository(), version).await {
        Ok(resolved) => Some(resolved.digest),
        Err(error) => {
            assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
            None
        }
    }
}

/// Runs the whole suite over an empty repository.
pub(super) async fn takes(push: &dyn Push, manner: Manner) {
    blobs_arrive_whole_or_not_at_all(push, manner.large).await;
    if manner.mounts {
        blobs_are_mounted_from_where_they_are(push).await;
    }
    manifests_arrive_and_tags_move(push).await;
    tags_are_deleted_alone(push, manner.deletion).await;
    referrers_are_found(push).await;
}

async fn blobs_arrive_whole_or_not_at_all(push: &dyn Push, large: usize) {
    let large: Vec<u8> = (0..large).map(|number| (number * 31 % 257) as u8).collect();
    for data in [b"{}".as_slice(), b"", b"small", &large] {
        let blob = descriptor(data);
        assert!(!push.has_blob(&repository(), &blob).await.unwrap());
        let reached = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&reached);
        let uploaded: Uploaded = Arc::new(move |offset| told.store(offset, Ordering::SeqCst));
        push.push_blob(&repository(), &blob, source(data), uploaded).await.unwrap();
        assert!(push.has_blob(&repository(), &blob).await.unwrap());
        assert_eq!(reached.load(Ordering::SeqCst), blob.size);
        let stored = push.blob(&repository(), &blob, 0..blob.size).await.unwrap();
        assert!(collect(stored).await.unwrap() == data);
        // A repeat does no harm.
        push.push_blob(&repository(), &blob, source(data), silent()).await.unwrap();
    }
    let longer = Descriptor { size: 6, ..descriptor(b"small") };
    assert!(!push.has_blob(&repository(), &longer).await.unwrap(), "another size is another blob");
    let mut flipped = large.clone();
    flipped[7] ^= 1;
    for (wanted, sent) in [(b"right".as_slice(), b"wrong".as_slice()), (&flipped, &large)] {
        let wanted = descriptor(wanted);
        let error = push.push_blob(&repository(), &wanted, source(sent), silent()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
        assert!(!push.has_blob(&repository(), &wanted).await.unwrap());
    }
}

async fn blobs_are_mounted_from_where_they_are(push: &dyn Push) {
    let other = Repository::parse("team/other").unwrap();
    let blob = descriptor(b"mounted");
    assert!(!push.mount_blob(&repository(), &blob, &other).await.unwrap());
    assert!(!push.has_blob(&repository(), &blob).await.unwrap());
    push.push_blob(&other, &blob, source(b"mounted"), silent()).await.unwrap();
    assert!(push.mount_blob(&repository(), &blob, &other).await.unwrap());
    assert!(push.has_blob(&repository(), &blob).await.unwrap());
}

async fn manifests_arrive_and_tags_move(push: &dyn Push) {
    let (one, two) = (manifest(&[b"small"], "one", None), manifest(&[b"small", b""], "two", None));
    push.push_manifest(&repository(), &Version::Digest(one.digest), &one).await.unwrap();
    assert_eq!(digest_of(push, &Version::Digest(one.digest)).await, Some(one.digest));
    assert_eq!(digest_of(push, &tag("v1")).await, None);
    for manifest in [&one, &two, &two] {
        push.push_manifest(&repository(), &tag("v1"), manifest).await.unwrap();
        let read = push.manifest(&repository(), &tag("v1")).await.unwrap();
        assert_eq!((read.digest, &read.raw), (manifest.digest, &manifest.raw));
    }
    let lacking = manifest(&[b"never pushed"], "three", None);
    for version in [tag("v1"), Version::Digest(lacking.digest)] {
        let error = push.push_manifest(&repository(), &version, &lacking).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    }
    assert_eq!(digest_of(push, &tag("v1")).await, Some(two.digest));
    let error = push.push_manifest(&repository(), &Version::Digest(one.digest), &two).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    let names = push.tags(&repository(), None).await.unwrap().names;
    assert!(names.contains(&"v1".to_owned()), "{names:?}");
}

async fn tags_are_deleted_alone(push: &dyn Push, deletion: Option<TagDeletion>) {
    let one = manifest(&[b"small"], "one", None);
    for sibling in ["v2", "v3"] {
        push.push_manifest(&repository(), &tag(sibling), &one).await.unwrap();
    }
    let moved = push.delete_tag(&repository(), &name("v2"), &Digest::of(b"another")).await.unwrap_err();
    assert_eq!(moved.kind, ErrorKind::Conflict, "{moved}");
    let deleted = push.delete_tag(&repository(), &name("v2"), &one.digest).await;
    match (deletion, deleted) {
        (Some(expected), deleted) => {
            assert_eq!(deleted.unwrap(), expected);
            assert_eq!(digest_of(push, &tag("v2")).await, None);
            let again = push.delete_tag(&repository(), &name("v2"), &one.digest).await.unwrap_err();
            assert_eq!(again.kind, ErrorKind::NotFound, "{again}");
        }
        (None, deleted) => {
            assert_eq!(deleted.unwrap_err().kind, ErrorKind::Unsupported);
            assert_eq!(digest_of(push, &tag("v2")).await, Some(one.digest), "it holds what it held");
        }
    }
    for version in [tag("v3"), Version::Digest(one.digest)] {
        assert_eq!(digest_of(push, &version).await, Some(one.digest));
    }
}

async fn referrers_are_found(push: &dyn Push) {
    let subject = manifest(&[b"small"], "subject", None);
    push.push_manifest(&repository(), &tag("v9"), &subject).await.unwrap();
    let mut expected = Vec::new();
    for note in ["first", "second"] {
        let referrer = manifest(&[b"small"], note, Some(&subject));
        for _ in 0..2 {
            push.push_manifest(&repository(), &Version::Digest(referrer.digest), &referrer).await.unwrap();
            push.link_referrer(&repository(), &subject.digest, &referrer.descriptor()).await.unwrap();
        }
        expected.push((referrer.digest, Some("application/vnd.example.kind".to_owned()), Some(note.to_owned())));
        let found = push.referrers(&repository(), &subject.digest).await.unwrap();
        let mut found: Vec<_> = found
            .into_iter()
            .map(|found| (found.digest, found.artifact_type.clone(), found.annotation("note").map(str::to_owned)))
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn memory_conforms_to_pushes() {
    let manner = Manner { mounts: true, deletion: Some(TagDeletion::Direct), large: 1 << 20 };
    takes(&Memory::new(), manner).await;
}

#[tokio::test]
async fn an_archive_conforms_to_pushes_once_finished() {
    let directory = tempfile::tempdir().unwrap();
    let manner = Manner { mounts: false, deletion: Some(TagDeletion::Direct), large: 9 << 20 };
    let path = directory.path().join("new.tar");
    let archive = Layout::open_or_begin_archive(&path).unwrap();
    takes(&archive, manner).await;
    assert!(!path.exists());
    archive.finish().await.unwrap();
    let finished = Layout::open_archive(&path).unwrap();
    assert_eq!(finished.tags(&repository(), None).await.unwrap().names, ["v1", "v3", "v9"]);
    assert!(finished.has_blob(&repository(), &descriptor(b"small")).await.unwrap());
}

#[tokio::test]
async fn a_layout_conforms_to_pushes_even_if_created_by_them() {
    let directory = tempfile::tempdir().unwrap();
    let manner = Manner { mounts: false, deletion: Some(TagDeletion::Direct), large: 9 << 20 };
    let path = directory.path().join("new");
    takes(&Layout::open_or_begin(&path).unwrap(), manner).await;
    let names = Layout::open(&path).unwrap().tags(&repository(), None).await.unwrap().names;
    assert_eq!(names, ["v1", "v3", "v9"]);
}
