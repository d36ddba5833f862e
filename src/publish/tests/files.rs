//! The files dialect: new tags, edits, what is sent.

use super::world::{Edit, World, digest_of};
use crate::publish::{Next, Outcome};
use crate::registry::RequestKind;

#[tokio::test]
async fn a_new_tag_shows_another_reader_what_was_staged() {
    let world = World::new();
    let overlay = world.empty("v1").await;
    Edit(&world, &overlay).sample().await;
    let staged = world.staged(&overlay).await;
    let digest = world.published(&overlay).await;
    assert_eq!(world.tagged("v1"), Some(digest));
    assert_eq!(world.seen(&digest).await, staged);
    assert_eq!(overlay.binding().expected, Some(digest));
}

#[tokio::test]
async fn a_sync_without_a_change_sends_nothing() {
    let world = World::new();
    let overlay = world.empty("v1").await;
    Edit(&world, &overlay).sample().await;
    world.published(&overlay).await;
    world.registry.forget_requests();
    let (report, next) = world.publish(&overlay).await.unwrap();
    assert_eq!((report.outcome, next), (Outcome::Unchanged, Next::Continues { clean: true }));
    assert!(world.registry.requests().iter().all(|request| request.kind == RequestKind::Resolve), "{:?}", world.registry.requests());
}

#[tokio::test]
async fn the_same_tree_is_the_same_digest_on_any_machine() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let world = World::new();
        let overlay = world.empty("v1").await;
        Edit(&world, &overlay).sample().await;
        digests.push(world.published(&overlay).await);
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn a_copy_of_a_known_tag_is_a_retag_and_no_blob_is_sent() {
    let world = World::new();
    let overlay = world.empty("v1").await;
    Edit(&world, &overlay).sample().await;
    let digest = world.published(&overlay).await;
    let copy = world.empty("v2").await;
    Edit(&world, &copy).sample().await;
    world.registry.forget_requests();
    let (report, _) = world.publish(&copy).await.unwrap();
    assert_eq!(digest_of(&report), digest);
    assert!(matches!(report.outcome, Outcome::Published { known: true, .. }));
    assert_eq!(world.registry.count(RequestKind::PushBlob) + world.registry.count(RequestKind::HasBlob), 0);
    assert_eq!(world.tagged("v2"), Some(digest));
}

#[tokio::test]
async fn what_is_staged_is_there_for_the_next_process() {
    let world = World::new();
    let overlay = world.empty("v1").await;
    let edit = Edit(&world, &overlay);
    edit.file("a", b"1").await;
    edit.times().await;

    let staged = world.staged(&overlay).await;

    let overlay = world.again(overlay).await;

    assert_eq!(world.staged(&overlay).await, staged);
}
