//! Deleting one tag on registries that refuse to, and interruptions of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::scripted::{Received, Reply, Server};
use super::writable::{FULL, Manner, Writable, error, writer};
use super::writing::{descriptor, manifest, name, silent, source};
use super::{repository, tag};
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Manifest};
use crate::registry::{Push, TagDeletion};

const STUBBORN: Manner = Manner { tag_deletes: false, ..FULL };

/// A registry where `v1` and `v2` hold the same manifest.
async fn prepared(manner: Manner) -> (Writable, Manifest) {
    let registry = Writable::new(manner);
    let server = registry.serve(|_, _| None).await;
    let client = writer(&server.authority);
    client.push_blob(&repository(), &descriptor(b"{}"), source(b"{}"), silent()).await.unwrap();
    let one = manifest(&[b"{}"], "one", None);
    for sibling in ["v1", "v2"] {
        client.push_manifest(&repository(), &tag(sibling), &one).await.unwrap();
    }
    (registry, one)
}

/// The digests held by tags, `-` for a deleted tag.
fn tags(registry: &Writable) -> [String; 2] {
    let held = registry.held.lock();
    ["v1", "v2"].map(|name| held.tags.get(&("team/app".to_owned(), name.to_owned())).cloned().unwrap_or_else(|| "-".to_owned()))
}

async fn delete(server: &Server, digest: &Digest) -> Result<TagDeletion, Error> {
    writer(&server.authority).delete_tag(&repository(), &name("v1"), digest).await
}

fn deletes_digest(request: &Received) -> bool {
    request.method == "DELETE" && request.path.contains("/manifests/sha256:")
}

fn takes_tag(request: &Received) -> bool {
    request.method == "PUT" && request.path.ends_with("/manifests/v1")
}

#[tokio::test]
async fn a_tag_is_deleted_through_a_throwaway_manifest_that_leaves_no_trace() {
    let (registry, one) = prepared(STUBBORN).await;
    let server = registry.serve(|_, _| None).await;
    assert_eq!(delete(&server, &one.digest).await.unwrap(), TagDeletion::ByThrowAway);
    assert_eq!(tags(&registry), ["-".to_owned(), one.digest.to_string()]);
    assert_eq!(registry.held.lock().manifests.len(), 1);
    let never = one.digest.to_string();
    assert!(server.log().iter().all(|request| request.method != "DELETE" || !request.path.ends_with(&never)));
}

#[tokio::test]
async fn without_delete_support_the_tag_is_not_touched() {
    let (registry, one) = prepared(Manner { deletes: false, ..STUBBORN }).await;
    let server = registry.serve(|_, _| None).await;
    let refused = delete(&server, &one.digest).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unsupported);
    assert!(refused.message.contains("REGISTRY_STORAGE_DELETE_ENABLED"), "{refused}");
    assert_eq!(tags(&registry), [one.digest.to_string(), one.digest.to_string()]);
    assert!(server.log().iter().all(|request| request.method != "PUT"));
}

#[tokio::test]
async fn the_tag_is_restored_when_the_deletion_is_refused_late() {
    for (struck, expected) in [(error(405, "UNSUPPORTED"), ErrorKind::Unsupported), (error(403, "DENIED"), ErrorKind::Denied)] {
        let (registry, one) = prepared(STUBBORN).await;
        let seen = AtomicUsize::new(0);
        let server = registry
            .serve(move |request, _| (deletes_digest(request) && seen.fetch_add(1, Ordering::SeqCst) > 0).then(|| struck.clone()))
            .await;
        let refused = delete(&server, &one.digest).await.unwrap_err();
        assert_eq!(refused.kind, expected, "{refused}");
        assert_eq!(tags(&registry), [one.digest.to_string(), one.digest.to_string()]);
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_deletion_is_not_a_failure() {
    for lost in 0..2 {
        let (registry, one) = prepared(STUBBORN).await;
        let seen = AtomicUsize::new(0);
        let server = registry
            .serve(move |request, registry| {
                if !deletes_digest(request) || seen.fetch_add(1, Ordering::SeqCst) != lost {
                    return None;
                }
                registry.answer(request);
                Some(Reply(Vec::new()))
            })
            .await;
        assert_eq!(delete(&server, &one.digest).await.unwrap(), TagDeletion::ByThrowAway);
        assert_eq!(tags(&registry), ["-".to_owned(), one.digest.to_string()]);
    }
}

#[tokio::test]
async fn a_lost_answer_to_moving_the_tag_leaves_it_unchanged() {
    for done in [true, false] {
        let (registry, one) = prepared(STUBBORN).await;
        let seen = AtomicUsize::new(0);
        let server = registry
            .serve(move |request, registry| {
                if !takes_tag(request) || seen.fetch_add(1, Ordering::SeqCst) > 0 {
                    return None;
                }
                if done {
                    registry.answer(request);
                }
                Some(Reply(Vec::new()))
            })
            .await;
        match (done, delete(&server, &one.digest).await) {
            (true, deleted) => assert_eq!(deleted.unwrap(), TagDeletion::ByThrowAway),
            (false, deleted) => {
                assert_eq!(deleted.unwrap_err().kind, ErrorKind::Unreachable);
                assert_eq!(tags(&registry), [one.digest.to_string(), one.digest.to_string()]);
            }
        }
    }
}

#[tokio::test]
async fn a_tag_moved_by_somebody_else_meanwhile_stays_theirs() {
    let (registry, one) = prepared(STUBBORN).await;
    let two = manifest(&[], "two", None);
    let theirs = two.clone();
    // Someone moves the tag as soon as it holds the throw-away manifest.
    let server = registry
        .serve(move |request, registry| {
            takes_tag(request).then(|| {
                let taken = registry.answer(request);
                registry.answer(&Received { bytes: theirs.raw.to_vec(), ..request.clone() });
                taken
            })
        })
        .await;
    let moved = delete(&server, &one.digest).await.unwrap_err();
    assert_eq!(moved.kind, ErrorKind::Conflict, "{moved}");
    assert_eq!(tags(&registry), [two.digest.to_string(), one.digest.to_string()]);
    assert_eq!(registry.held.lock().manifests.len(), 2, "the throw-away manifest is gone");
}

#[tokio::test]
async fn an_interrupted_deletion_is_finished_by_the_next_one() {
    let (registry, one) = prepared(STUBBORN).await;
    // The registry becomes unreachable once the tag holds the throw-away manifest.
    let away = AtomicUsize::new(0);
    let server = registry
        .serve(move |request, registry| {
            if away.load(Ordering::SeqCst) > 0 {
                return Some(Reply(Vec::new()));
            }
            if takes_tag(request) {
                away.store(1, Ordering::SeqCst);
                return Some(registry.answer(request));
            }
            None
        })
        .await;
    let interrupted = delete(&server, &one.digest).await.unwrap_err();
    assert_eq!(interrupted.kind, ErrorKind::Unreachable, "{interrupted}");
    assert!(![one.digest.to_string(), "-".to_owned()].contains(&tags(&registry)[0]), "the throw-away manifest has it");
    let server = registry.serve(|_, _| None).await;
    assert_eq!(delete(&server, &one.digest).await.unwrap(), TagDeletion::ByThrowAway);
    assert_eq!(tags(&registry), ["-".to_owned(), one.digest.to_string()]);
}

#[tokio::test]
async fn a_registry_that_only_claims_to_delete_is_detected() {
    let (registry, one) = prepared(FULL).await;
    let server = registry.serve(|request, _| (request.method == "DELETE").then(|| super::scripted::reply(202, &[], b""))).await;
    let kept = delete(&server, &one.digest).await.unwrap_err();
    assert!(kept.message.contains("still holds"), "{kept}");
}
