//! The files dialect: new tags, edits, what is sent.

use super::world::{Edit, World, digest_of, subject};
use crate::artifact::Kind;
use crate::publish::{ArtifactKind, Next, Outcome};
use crate::registry::RequestKind;
use crate::staging::{Binding, Subject};
use crate::view::NewNode;

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

#[tokio::test]
async fn layers_of_another_repository_are_taken_over() {
    let world = World::new();
    let overlay = world.empty("v1").await;
    Edit(&world, &overlay).sample().await;
    let digest = world.published(&overlay).await;
    let other = Subject { repository: "team/other".to_owned(), ..subject("v1") };
    let copy = world.begin_at(&other, Binding::default()).await;
    Edit(&world, &copy).sample().await;
    world.registry.forget_requests();
    assert_eq!(world.published(&copy).await, digest);
    assert_eq!(world.registry.count(RequestKind::MountBlob), 2, "layer and index");
    assert_eq!(world.registry.count(RequestKind::PushBlob), 1, "the empty config");
    assert_eq!(world.registry.tagged("team/other").get("v1"), Some(&digest));
}

#[tokio::test]
async fn an_edit_sends_only_what_changed() {
    let world = World::new();
    let overlay = world.empty("v1").await;
    let edit = Edit(&world, &overlay);
    for number in 0..4_u8 {
        edit.file(&format!("large{number}"), &vec![number; 5 << 20]).await;
    }
    edit.file("small", b"1").await;
    world.published(&overlay).await;
    edit.file("large2", &vec![9; 5 << 20]).await;
    let staged = world.staged(&overlay).await;
    world.registry.forget_requests();
    let (report, _) = world.publish(&overlay).await.unwrap();
    assert_eq!(report.changes, (0, 1, 0));
    assert_eq!(report.sent.1, 2, "the layer and its index: {report:?}");
    assert_eq!(world.registry.count(RequestKind::Blob), 0, "nothing unchanged is read");
    let seen = world.seen(&digest_of(&report)).await;
    assert!(seen[1..] == staged[1..]);
}

#[tokio::test]
async fn what_was_published_is_read_without_asking_for_it() {
    for (kind, passphrase) in [
        (ArtifactKind::Files, None),
        (ArtifactKind::Image, None),
        (ArtifactKind::OciSync, None),
        (ArtifactKind::OciSync, Some("tell nobody")),
    ] {
        let world = World::with(kind, passphrase);
        let overlay = world.empty("v1").await;
        let edit = Edit(&world, &overlay);
        edit.sample().await;
        edit.file("large", &vec![7; 5 << 20]).await;
        let noise: Vec<u8> = (0..5_u64 << 17).flat_map(|number| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()).to_le_bytes()).collect();
        edit.file("noise", &noise).await;
        let digest = world.published(&overlay).await;
        world.read_here(&digest).await;
        assert_eq!(world.registry.count(RequestKind::Blob), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn what_no_archive_can_hold_is_left_out_by_name_and_the_rest_is_published() {
    let world = World::new();
    let overlay = world.empty("v1").await;
    let edit = Edit(&world, &overlay);
    edit.file("kept", b"1").await;
    edit.file("rich", b"2").await;
    for number in 0..20 {
        overlay.set_xattr(edit.find("rich"), format!("user.{number}").as_bytes(), &[b'x'; 60_000], false, false).unwrap();
    }
    edit.file("was", b"3").await;
    let device = NewNode { kind: Kind::CharDevice, mode: 0o600, owner: (0, 0), device: (1 << 22, 0), target: Vec::new() };
    overlay.create(&world.publisher.context, 0, b"device", &device).unwrap();
    let (report, _) = world.publish(&overlay).await.unwrap();
    let names = |seen: Vec<super::world::Seen>| seen.into_iter().map(|seen| seen.path).collect::<Vec<_>>();
    assert_eq!(names(world.seen(&digest_of(&report)).await), ["", "kept", "rich", "was"]);
    let told =
        |report: &crate::publish::Report, words: &[&str]| report.notes.iter().any(|note| words.iter().all(|word| note.contains(word)));
    assert_eq!(report.ignored, 1, "{report:?}");
    assert!(told(&report, &["`device`", "device number", "left out"]), "{report:?}");
    assert!(told(&report, &["`rich`", "attributes", "left out"]), "{report:?}");
    // It takes the place of something that everybody sees: that is said.
    edit.remove("was");
    overlay.create(&world.publisher.context, 0, b"was", &device).unwrap();
    let (report, _) = world.publish(&overlay).await.unwrap();
    assert!(told(&report, &["`was`", "removed"]), "{report:?}");
    assert_eq!(names(world.seen(&digest_of(&report)).await), ["", "kept", "rich"]);
}
