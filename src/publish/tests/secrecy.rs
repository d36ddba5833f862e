//! What is encrypted in one tag is published in clear by another only where that is meant.

use super::world::{Edit, World, digest_of};
use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::publish::{ArtifactKind, Options, Outcome};
use crate::registry::RequestKind;

const MAP: &[u8] = b"the treasure map";

/// A world whose tag `sealed` is encrypted, and that makes plain tags.
async fn world() -> (World, Digest) {
    let mut world = World::with(ArtifactKind::OciSync, Some("tell nobody"));
    let sealed = world.empty("sealed").await;
    fill(&world, &sealed).await;
    let digest = world.published(&sealed).await;
    drop(sealed);
    world.publisher.kind = ArtifactKind::Files;
    (world, digest)
}

async fn fill(world: &World, overlay: &std::sync::Arc<crate::view::Overlay>) {
    let edit = Edit(world, overlay);
    edit.sample().await;
    edit.file("map", MAP).await;
    edit.times().await;
}

fn is_public(world: &World) -> bool {
    let shows = |bytes: &[u8]| {
        let mut plain = Vec::new();
        let unpacked = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut plain).is_ok();
        (if unpacked { &plain[..] } else { bytes }).windows(MAP.len()).any(|window| window == MAP)
    };
    world.registry.held("app").values().any(|blob| shows(blob))
}

#[tokio::test]
async fn a_copy_of_an_encrypted_tag_is_a_retag_and_nothing_is_sent() {
    let (world, digest) = world().await;
    let copy = world.empty("copy").await;
    fill(&world, &copy).await;
    world.registry.forget_requests();
    let (report, _) = world.publish(&copy).await.unwrap();
    assert!(matches!(report.outcome, Outcome::Published { known: true, .. }), "{report:?}");
    assert_eq!((digest_of(&report), world.tagged("copy")), (digest, Some(digest)));
    assert_eq!(world.registry.count(RequestKind::PushBlob), 0);
    assert!(!is_public(&world));
}

#[tokio::test]
async fn files_of_an_encrypted_tag_are_refused_by_name_until_plain_is_meant() {
    let (mut world, _) = world().await;
    for is_later in [false, true] {
        if is_later {
            world.restart().await;
        }
        let tag = if is_later { "later" } else { "part" };
        let part = world.empty(tag).await;
        let edit = Edit(&world, &part);
        edit.file("copied", MAP).await;
        edit.file("empty", b"").await;
        let error = world.publish(&part).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::KeyMissing, "{error}");
        assert!(error.message.contains("`copied`") && !error.message.contains("`empty`"), "{error}");
        assert!(error.message.contains("app@sha256:") && error.message.contains("--plaintext"), "{error}");
        assert!(world.tagged(tag).is_none() && !is_public(&world));
    }
    let meant = world.empty("meant").await;
    Edit(&world, &meant).file("copied", MAP).await;
    world.publish_with(&meant, Options { plaintext: true, ..Options::default() }).await.unwrap();
    assert!(is_public(&world));
    // What everybody can read is no secret any more.
    let again = world.empty("again").await;
    Edit(&world, &again).file("elsewhere", MAP).await;
    world.publish(&again).await.unwrap();
}

#[tokio::test]
async fn a_plain_tag_takes_no_file_of_an_encrypted_one_and_an_encrypted_tag_does() {
    let (world, _) = world().await;
    let plain = world.empty("plain").await;
    let edit = Edit(&world, &plain);
    edit.file("public", b"for everybody").await;
    world.published(&plain).await;
    edit.file("map", MAP).await;
    assert_eq!(world.publish(&plain).await.unwrap_err().kind, ErrorKind::KeyMissing);
    let sealed = world.empty("other").await;
    Edit(&world, &sealed).file("map", MAP).await;
    world.publish_with(&sealed, Options { as_kind: Some(ArtifactKind::OciSync), ..Options::default() }).await.unwrap();
    assert!(!is_public(&world));
}

#[tokio::test]
async fn a_copy_that_is_meant_to_be_plain_is_no_retag() {
    let (world, digest) = world().await;
    let copy = world.empty("copy").await;
    fill(&world, &copy).await;
    let (report, _) = world.publish_with(&copy, Options { plaintext: true, ..Options::default() }).await.unwrap();
    assert_ne!(digest_of(&report), digest);
    assert!(is_public(&world));
}

#[tokio::test]
async fn an_archive_of_oci_sync_without_a_passphrase_is_said_to_be_plain() {
    let world = World::with(ArtifactKind::OciSync, None);
    let overlay = world.empty("v1").await;
    Edit(&world, &overlay).sample().await;
    let (report, _) = world.publish(&overlay).await.unwrap();
    assert!(report.notes.iter().any(|note| note.contains("not encrypted")), "{report:?}");
}
