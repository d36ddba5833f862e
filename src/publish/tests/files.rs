//! The files dialect: new tags, edits, what is sent.

use super::fixture::{Edit, PublishFixture, digest_of, noise, tag_key};
use crate::artifact::{Kind, ViewMode};
use crate::layer::{Metadata, Packing};
use crate::oci::Repository;
use crate::publish::plan::identity::of_index;
use crate::publish::{ArtifactKind, Next, Outcome};
use crate::registry::RequestKind;
use crate::staging::{Binding, TagKey};
use crate::view::NewNode;

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

#[tokio::test]
async fn another_reader_of_a_new_tag_sees_the_staged_tree() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let staged = fixture.staged(&overlay).await;
    let digest = fixture.published(&overlay).await;
    assert_eq!(fixture.tagged("v1"), Some(digest));
    assert_eq!(fixture.seen(&digest).await, staged);
    assert_eq!(overlay.binding().expected, Some(digest));
}

#[tokio::test]
async fn a_sync_without_a_change_sends_nothing() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    fixture.published(&overlay).await;
    fixture.registry.forget_requests();
    let (report, next) = fixture.publish(&overlay).await.unwrap();
    assert_eq!((report.outcome, next), (Outcome::Unchanged, Next::Continues { clean: true }));
    assert!(fixture.registry.requests().iter().all(|request| request.kind == RequestKind::Resolve), "{:?}", fixture.registry.requests());
}

#[tokio::test]
async fn the_same_tree_is_the_same_digest_on_any_machine() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let fixture = PublishFixture::new();
        let overlay = fixture.empty("v1").await;
        Edit(&fixture, &overlay).sample().await;
        digests.push(fixture.published(&overlay).await);
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn a_copy_of_a_known_tag_is_a_retag_and_no_blob_is_sent() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let digest = fixture.published(&overlay).await;
    let copy = fixture.empty("v2").await;
    Edit(&fixture, &copy).sample().await;
    fixture.registry.forget_requests();
    let (report, _) = fixture.publish(&copy).await.unwrap();
    assert_eq!(digest_of(&report), digest);
    assert!(matches!(report.outcome, Outcome::Published { known: true, .. }));
    assert_eq!(fixture.registry.count(RequestKind::PushBlob) + fixture.registry.count(RequestKind::HasBlob), 0);
    assert_eq!(fixture.tagged("v2"), Some(digest));
}

#[tokio::test]
async fn the_next_process_finds_staged_edits() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    edit.file("a", b"1").await;
    edit.times().await;

    let staged = fixture.staged(&overlay).await;

    let overlay = fixture.again(overlay).await;

    assert_eq!(fixture.staged(&overlay).await, staged);
}

#[tokio::test]
async fn layers_of_another_repository_are_mounted() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let digest = fixture.published(&overlay).await;
    let other = TagKey { repository: "team/other".to_owned(), ..tag_key("v1") };
    let copy = fixture.begin_at(&other, Binding::default()).await;
    Edit(&fixture, &copy).sample().await;
    fixture.registry.forget_requests();
    assert_eq!(fixture.published(&copy).await, digest);
    assert_eq!(fixture.registry.count(RequestKind::MountBlob), 2, "layer and index");
    assert_eq!(fixture.registry.count(RequestKind::PushBlob), 1, "the empty config");
    assert_eq!(fixture.registry.tagged("team/other").get("v1"), Some(&digest));
}

#[tokio::test]
async fn an_edit_sends_only_changed_layers() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    for number in 0..4_u8 {
        edit.file(&format!("large{number}"), &vec![number; 5 << 20]).await;
    }
    edit.file("small", b"1").await;
    fixture.published(&overlay).await;
    edit.file("large2", &vec![9; 5 << 20]).await;
    let staged = fixture.staged(&overlay).await;
    fixture.registry.forget_requests();
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert_eq!(report.changes, (0, 1, 0));
    assert_eq!(report.sent.1, 2, "the layer and its index: {report:?}");
    assert_eq!(fixture.registry.count(RequestKind::Blob), 0, "nothing unchanged is read");
    let seen = fixture.seen(&digest_of(&report)).await;
    assert!(seen[1..] == staged[1..]);
}

#[tokio::test]
async fn layers_packed_by_this_process_are_identified_already() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    edit.file("large", &noise(1, 5 << 20)).await;
    edit.file("small", b"1").await;
    let digest = fixture.published(&overlay).await;
    let artifacts = &fixture.publisher.context.artifacts;
    let artifact = artifacts.artifact(&repository("app"), &digest, ViewMode::Merged, false).await.unwrap();
    let layers: Vec<_> = artifact.layers().into_iter().filter(|layer| layer.index.is_some()).collect();
    assert_eq!(layers.len(), 2);
    for layer in layers {
        let packing = if layer.unpacked { Packing::GzipTar } else { Packing::Raw };
        let title = layer.descriptor.annotation("org.opencontainers.image.title").filter(|_| !layer.unpacked);
        let index = artifacts.layer_index(&repository("app"), &artifact, layer.number, false).await.unwrap().unwrap();
        let key = (layer.descriptor.digest, layer.index.unwrap().digest, packing, title.map(str::to_owned));
        assert_eq!(fixture.publisher.identities.get(&key), Some(of_index(&index, packing, title)));
    }
}

#[tokio::test]
async fn an_edit_beside_large_files_fetches_nothing_that_is_not_sent() {
    let mut fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    edit.dir("data");
    for number in 0..3_u64 {
        edit.file(&format!("data/noise{number}"), &noise(number, 5 << 20)).await;
        edit.file(&format!("data/zeros{number}"), &vec![number as u8; 5 << 20]).await;
    }
    edit.file("README.md", b"read me\n").await;
    let digest = fixture.published(&overlay).await;
    drop(overlay);
    fixture.move_elsewhere().await;
    let overlay = fixture.over("v1", digest).await;
    Edit(&fixture, &overlay).file("README.md", b"read me again\n").await;
    fixture.registry.forget_requests();
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    let fetched: u64 =
        fixture.registry.requests().into_iter().filter_map(|request| request.range).map(|range| range.end - range.start).sum();
    assert!(report.sent.0 < 4096 && fetched <= report.sent.0, "{fetched} bytes fetched: {report:?}");
}

#[tokio::test]
async fn published_files_are_read_without_a_request() {
    for (kind, passphrase) in [
        (ArtifactKind::Files, None),
        (ArtifactKind::Image, None),
        (ArtifactKind::OciSync, None),
        (ArtifactKind::OciSync, Some("tell nobody")),
    ] {
        let fixture = PublishFixture::with(kind, passphrase);
        let overlay = fixture.empty("v1").await;
        let edit = Edit(&fixture, &overlay);
        edit.sample().await;
        edit.file("large", &vec![7; 5 << 20]).await;
        edit.file("noise", &noise(0, 5 << 20)).await;
        let digest = fixture.published(&overlay).await;
        fixture.read_here(&digest).await;
        assert_eq!(fixture.registry.count(RequestKind::Blob), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn unarchivable_entries_are_named_and_left_out_and_the_rest_is_published() {
    let fixture = PublishFixture::new();
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    edit.file("kept", b"1").await;
    edit.file("rich", b"2").await;
    for number in 0..20 {
        overlay.set_xattr(edit.find("rich"), format!("user.{number}").as_bytes(), &[b'x'; 60_000], false, false).unwrap();
    }
    edit.file("was", b"3").await;
    let metadata = Metadata { mode: Some(0o600), owner: Some((0, 0)), mtime: None, device: (1 << 22, 0) };
    let device = NewNode { kind: Kind::CharDevice, metadata, target: Vec::new() };
    overlay.create(&fixture.publisher.context, 0, b"device", &device).unwrap();
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    let names = |seen: Vec<super::fixture::Seen>| seen.into_iter().map(|seen| seen.path).collect::<Vec<_>>();
    assert_eq!(names(fixture.seen(&digest_of(&report)).await), ["", "kept", "rich", "was"]);
    let told =
        |report: &crate::publish::Report, words: &[&str]| report.notes.iter().any(|note| words.iter().all(|word| note.contains(word)));
    assert_eq!(report.ignored, 1, "{report:?}");
    assert!(told(&report, &["`device`", "device number", "left out"]), "{report:?}");
    assert!(told(&report, &["`rich`", "attributes", "left out"]), "{report:?}");
    // It replaces something visible to everyone, so there is a note.
    edit.remove("was");
    overlay.create(&fixture.publisher.context, 0, b"was", &device).unwrap();
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert!(told(&report, &["`was`", "removed"]), "{report:?}");
    assert_eq!(names(fixture.seen(&digest_of(&report)).await), ["", "kept", "rich"]);
}
