//! Content encrypted in one tag is published unencrypted by another only on request.

use super::fixture::{Edit, PublishFixture, digest_of};
use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::publish::{ArtifactKind, Options, Outcome};
use crate::registry::RequestKind;

const MAP: &[u8] = b"the treasure map";

/// A fixture whose tag `sealed` is encrypted, and that creates plain tags.
async fn fixture() -> (PublishFixture, Digest) {
    let mut fixture = PublishFixture::with(ArtifactKind::OciSync, Some("tell nobody"));
    let sealed = fixture.empty("sealed").await;
    fill(&fixture, &sealed).await;
    let digest = fixture.published(&sealed).await;
    drop(sealed);
    fixture.publisher.kind = ArtifactKind::Files;
    (fixture, digest)
}

async fn fill(fixture: &PublishFixture, overlay: &std::sync::Arc<crate::view::Overlay>) {
    let edit = Edit(fixture, overlay);
    edit.sample().await;
    edit.file("map", MAP).await;
    edit.times().await;
}

fn is_public(fixture: &PublishFixture) -> bool {
    let shows = |bytes: &[u8]| {
        let mut plain = Vec::new();
        let unpacked = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut plain).is_ok();
        (if unpacked { &plain[..] } else { bytes }).windows(MAP.len()).any(|window| window == MAP)
    };
    fixture.registry.held("app").values().any(|blob| shows(blob))
}

#[tokio::test]
async fn a_copy_of_an_encrypted_tag_is_a_retag_and_nothing_is_sent() {
    let (fixture, digest) = fixture().await;
    let copy = fixture.empty("copy").await;
    fill(&fixture, &copy).await;
    fixture.registry.forget_requests();
    let (report, _) = fixture.publish(&copy).await.unwrap();
    assert!(matches!(report.outcome, Outcome::Published { known: true, .. }), "{report:?}");
    assert_eq!((digest_of(&report), fixture.tagged("copy")), (digest, Some(digest)));
    assert_eq!(fixture.registry.count(RequestKind::PushBlob), 0);
    assert!(!is_public(&fixture));
}

#[tokio::test]
async fn files_of_an_encrypted_tag_are_refused_by_name_without_plaintext() {
    let (mut fixture, _) = fixture().await;
    for is_later in [false, true] {
        if is_later {
            fixture.restart().await;
        }
        let tag = if is_later { "later" } else { "part" };
        let part = fixture.empty(tag).await;
        let edit = Edit(&fixture, &part);
        edit.file("copied", MAP).await;
        edit.file("empty", b"").await;
        let error = fixture.publish(&part).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::KeyMissing, "{error}");
        assert!(error.message.contains("`copied`") && !error.message.contains("`empty`"), "{error}");
        assert!(error.message.contains("app@sha256:") && error.message.contains("--plaintext"), "{error}");
        assert!(fixture.tagged(tag).is_none() && !is_public(&fixture));
    }
    let meant = fixture.empty("meant").await;
    Edit(&fixture, &meant).file("copied", MAP).await;
    fixture.publish_with(&meant, Options { plaintext: true, ..Options::default() }).await.unwrap();
    assert!(is_public(&fixture));
    // Content that everyone can read is no longer secret.
    let again = fixture.empty("again").await;
    Edit(&fixture, &again).file("elsewhere", MAP).await;
    fixture.publish(&again).await.unwrap();
}

#[tokio::test]
async fn an_encrypted_file_may_go_into_an_encrypted_tag_but_not_a_plain_one() {
    let (fixture, _) = fixture().await;
    let plain = fixture.empty("plain").await;
    let edit = Edit(&fixture, &plain);
    edit.file("public", b"for everybody").await;
    fixture.published(&plain).await;
    edit.file("map", MAP).await;
    assert_eq!(fixture.publish(&plain).await.unwrap_err().kind, ErrorKind::KeyMissing);
    let sealed = fixture.empty("other").await;
    Edit(&fixture, &sealed).file("map", MAP).await;
    fixture.publish_with(&sealed, Options { as_kind: Some(ArtifactKind::OciSync), ..Options::default() }).await.unwrap();
    assert!(!is_public(&fixture));
}

#[tokio::test]
async fn a_copy_published_as_plaintext_is_not_a_retag() {
    let (fixture, digest) = fixture().await;
    let copy = fixture.empty("copy").await;
    fill(&fixture, &copy).await;
    let (report, _) = fixture.publish_with(&copy, Options { plaintext: true, ..Options::default() }).await.unwrap();
    assert_ne!(digest_of(&report), digest);
    assert!(is_public(&fixture));
}

#[tokio::test]
async fn an_oci_sync_archive_without_a_passphrase_is_reported_as_unencrypted() {
    let fixture = PublishFixture::with(ArtifactKind::OciSync, None);
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let (report, _) = fixture.publish(&overlay).await.unwrap();
    assert!(report.notes.iter().any(|note| note.contains("not encrypted")), "{report:?}");
}
