//! The in-memory registry behaves as a test plans, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{FutureExt, TryStreamExt};

use super::*;
use crate::registry::{Pull, Push, Uploaded};

fn repository() -> Repository {
    Repository::parse("team/app").unwrap()
}

async fn read(memory: &Memory, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let stream = memory.blob(&repository(), descriptor, 0..descriptor.size).await?;
    stream
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

#[tokio::test]
async fn planned_faults_hit_only_their_requests() {
    let memory = Memory::new();
    let blob = memory.add_blob("team/app", "a/b", vec![7; 100_000]);
    memory.plan(RequestKind::Blob, 1, 1, Fault::Error(ErrorKind::Unreachable));
    memory.plan(RequestKind::Blob, 2, 1, Fault::Flipped(99_999));
    memory.plan(RequestKind::Blob, 3, 1, Fault::Short(5, ErrorKind::TimedOut));
    assert_eq!(read(&memory, &blob).await.unwrap(), vec![7; 100_000]);
    assert_eq!(read(&memory, &blob).await.unwrap_err().kind, ErrorKind::Unreachable);
    assert_eq!(read(&memory, &blob).await.unwrap()[99_999], 6);
    assert_eq!(read(&memory, &blob).await.unwrap_err().kind, ErrorKind::TimedOut);
    assert_eq!(read(&memory, &blob).await.unwrap(), vec![7; 100_000]);
    assert_eq!(memory.count(RequestKind::Blob), 5);
    assert_eq!(memory.requests()[0].range, Some(0..100_000));
}

#[tokio::test]
async fn stalled_requests_continue_when_released() {
    let memory = Memory::new();
    let blob = memory.add_blob("team/app", "a/b", vec![7; 100]);
    memory.plan(RequestKind::Blob, 0, 1, Fault::StallAfter(10));
    let mut waiting = Box::pin(read(&memory, &blob));
    assert!(waiting.as_mut().now_or_never().is_none());
    memory.release();
    assert_eq!(waiting.await.unwrap(), vec![7; 100]);
}

#[tokio::test]
async fn a_flipped_manifest_is_an_integrity_error() {
    let memory = Memory::new();
    let digest = memory.add_artifact("team/app", "v1", ("a/b", b"{}"), &[("c/d", b"data", &[("k", "v")])], &[]);
    let tag = Version::Tag(crate::oci::Tag::parse("v1").unwrap());
    let manifest = memory.manifest(&repository(), &tag).await.unwrap();
    assert_eq!((manifest.digest, manifest.image().unwrap().layers[0].annotation("k")), (digest, Some("v")));
    memory.plan(RequestKind::Manifest, 0, 1, Fault::Flipped(3));
    assert_eq!(memory.manifest(&repository(), &tag).await.unwrap_err().kind, ErrorKind::Integrity);
}

fn silent() -> Uploaded {
    Arc::new(|_| {})
}

#[tokio::test]
async fn a_lost_answer_is_an_error_of_something_that_was_done() {
    let memory = Memory::new();
    let data = Bytes::from_static(b"data");
    let blob = Descriptor::new("a/b", Digest::of(&data), 4);
    memory.plan(RequestKind::PushBlob, 0, 1, Fault::LostAnswer(ErrorKind::Unreachable));
    let error = memory.push_blob(&repository(), &blob, Arc::new(data), silent()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(memory.has_blob(&repository(), &blob).await.unwrap());
}

#[tokio::test]
async fn an_upload_fails_or_stalls_as_planned() {
    let memory = Memory::new();
    let data = Bytes::from(vec![7; 200_000]);
    let blob = Descriptor::new("a/b", Digest::of(&data), 200_000);
    let reached = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&reached);
    let uploaded: Uploaded = Arc::new(move |offset| told.store(offset, Ordering::SeqCst));
    memory.plan(RequestKind::PushBlob, 0, 1, Fault::Short(100_000, ErrorKind::NoSpace));
    memory.plan(RequestKind::PushBlob, 1, 1, Fault::StallAfter(70_000));
    let source = || Arc::new(data.clone());
    let error = memory.push_blob(&repository(), &blob, source(), uploaded.clone()).await.unwrap_err();
    assert_eq!((error.kind, reached.load(Ordering::SeqCst)), (ErrorKind::NoSpace, 100_000));
    let repository = repository();
    let mut waiting = Box::pin(memory.push_blob(&repository, &blob, source(), uploaded));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(reached.load(Ordering::SeqCst), 70_000);
    assert!(!memory.held("team/app").contains_key(&blob.digest));
    memory.release();
    waiting.await.unwrap();
    assert_eq!(memory.held("team/app")[&blob.digest], data);
}

#[tokio::test]
async fn a_manifest_without_its_blobs_and_a_blob_of_other_bytes_are_refused() {
    let other = Memory::new();
    let digest = other.add_artifact("team/app", "v1", ("a/b", b"{}"), &[("c/d", b"data", &[])], &[]);
    let tag = Version::Tag(crate::oci::Tag::parse("v1").unwrap());
    let manifest = other.manifest(&repository(), &tag).await.unwrap();
    let memory = Memory::new();
    assert_eq!(memory.push_manifest(&repository(), &tag, &manifest).await.unwrap_err().kind, ErrorKind::Invalid);
    let wrong = Descriptor::new("a/b", Digest::of(b"other"), 4);
    let sent = Arc::new(Bytes::from_static(b"data"));
    assert_eq!(memory.push_blob(&repository(), &wrong, sent, silent()).await.unwrap_err().kind, ErrorKind::Integrity);
    memory.add_blob("team/app", "a/b", Bytes::from_static(b"{}"));
    memory.add_blob("team/app", "a/b", Bytes::from_static(b"data"));
    memory.push_manifest(&repository(), &tag, &manifest).await.unwrap();
    assert_eq!(memory.tagged("team/app")["v1"], digest);
}
