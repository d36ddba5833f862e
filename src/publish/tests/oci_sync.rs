//! oci-sync: kind, labels and encryption are preserved. Sealed content is opened here with the primitives alone, not with our reader.

use std::io::Read;

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use serde_json::Value;

use super::fixture::{Edit, PublishFixture};
use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::publish::ArtifactKind;

const PASSPHRASE: &str = "open sesame";

fn manifest(fixture: &PublishFixture, digest: &Digest) -> Value {
    serde_json::from_slice(&fixture.registry.held("app")[digest]).unwrap()
}

fn layer(fixture: &PublishFixture, manifest: &Value) -> Vec<u8> {
    let digest = Digest::parse(manifest["layers"][0]["digest"].as_str().unwrap()).unwrap();
    fixture.registry.held("app")[&digest].to_vec()
}

fn opened(envelope: &[u8], passphrase: &str) -> Vec<u8> {
    let (salt, nonce, message) = (&envelope[..32], &envelope[32..44], &envelope[44..]);
    let mut key = [0; 32];
    scrypt::scrypt(passphrase.as_bytes(), salt, &scrypt::Params::new(15, 8, 1).unwrap(), &mut key).unwrap();
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
    cipher.decrypt(&Nonce::try_from(nonce).unwrap(), message).unwrap()
}

/// Names and contents of a tar.gz, read by independent code.
fn unpacked(packed: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (path, bytes)
    });
    entries.collect()
}

fn has(files: &[(String, Vec<u8>)], path: &str, bytes: &[u8]) -> bool {
    files.iter().any(|(name, content)| name == path && content == bytes)
}

#[tokio::test]
async fn a_new_plain_artifact_has_the_fields_of_the_tool() {
    let fixture = PublishFixture::with(ArtifactKind::OciSync, None);
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let staged = fixture.staged(&overlay).await;
    let digest = fixture.published(&overlay).await;
    assert_eq!(fixture.seen(&digest).await, staged);
    let manifest = manifest(&fixture, &digest);
    assert_eq!(manifest["annotations"]["io.oci-sync.encrypted"], "false");
    assert_eq!(manifest["config"]["digest"], Digest::of(b"{}").to_string());
    assert_eq!(manifest["layers"][0]["mediaType"], "application/octet-stream");
    assert!(has(&unpacked(&layer(&fixture, &manifest)), "docs/a.txt", b"hello"));
}

#[tokio::test]
async fn a_new_artifact_is_sealed_where_there_is_a_passphrase() {
    let fixture = PublishFixture::with(ArtifactKind::OciSync, Some(PASSPHRASE));
    let overlay = fixture.empty("v1").await;
    let edit = Edit(&fixture, &overlay);
    edit.sample().await;
    let staged = fixture.staged(&overlay).await;
    let digest = fixture.published(&overlay).await;
    assert_eq!(fixture.seen(&digest).await, staged);
    let first = manifest(&fixture, &digest);
    assert_eq!(first["annotations"]["io.oci-sync.encrypted"], "true");
    assert_eq!(first["layers"][0].get("annotations"), None, "an index would give the names away");
    assert!(has(&unpacked(&opened(&layer(&fixture, &first), PASSPHRASE)), "docs/a.txt", b"hello"));
    // An edit is resealed with another salt, and no plaintext is left anywhere.
    edit.file("docs/secret", b"TOP-SECRET-WORDS").await;
    let staged = fixture.staged(&overlay).await;
    let digest = fixture.published(&overlay).await;
    assert_eq!(fixture.seen(&digest).await, staged);
    let second = manifest(&fixture, &digest);
    let (one, two) = (layer(&fixture, &first), layer(&fixture, &second));
    assert_ne!(one[..44], two[..44]);
    assert!(has(&unpacked(&opened(&two, PASSPHRASE)), "docs/secret", b"TOP-SECRET-WORDS"));
    for blob in fixture.registry.held("app").values() {
        assert!(!blob.windows(16).any(|window| window == b"TOP-SECRET-WORDS" || window == b"docs/nothing\0\0\0\0"));
    }
}

#[tokio::test]
async fn labels_and_version_of_an_edited_artifact_stay() {
    let fixture = PublishFixture::new();
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o600);
    header.set_mtime(1000);
    archive.append_data(&mut header, "base/file", &b"hello"[..]).unwrap();
    let packed = archive.into_inner().unwrap().finish().unwrap();
    let annotations = [("io.oci-sync.version", "7.7"), ("io.oci-sync.encrypted", "false"), ("team", "<x>")];
    let config = (crate::oci::media_type::OCI_CONFIG, &b"{}"[..]);
    let digest = fixture.registry.add_artifact("app", "v1", config, &[("application/octet-stream", &packed, &[])], &annotations);
    let overlay = fixture.over("v1", digest).await;
    Edit(&fixture, &overlay).file("base/file", b"other").await;
    let digest = fixture.published(&overlay).await;
    let manifest = manifest(&fixture, &digest);
    for (key, value) in annotations {
        assert_eq!(manifest["annotations"][key], value);
    }
    assert!(has(&unpacked(&layer(&fixture, &manifest)), "base/file", b"other"));
}

#[tokio::test]
async fn a_sealed_artifact_is_never_published_without_its_passphrase() {
    let fixture = PublishFixture::with(ArtifactKind::OciSync, Some(PASSPHRASE));
    let overlay = fixture.empty("v1").await;
    Edit(&fixture, &overlay).sample().await;
    let digest = fixture.published(&overlay).await;
    let held = fixture.registry.held("app");
    drop(overlay);
    let stranger = PublishFixture::with(ArtifactKind::OciSync, None);
    for (digest, bytes) in held {
        stranger.registry.add_blob_as("app", digest, bytes.clone());
        if bytes.starts_with(b"{\"schema") {
            stranger.registry.add_manifest("app", bytes);
        }
    }
    stranger.registry.tag("app", "v1", digest);
    let error = stranger
        .publisher
        .context
        .artifacts
        .artifact(&super::fixture::repository(), &digest, crate::artifact::ViewMode::Merged, false)
        .await;
    assert_eq!(error.err().map(|error| error.kind), Some(ErrorKind::KeyMissing));
}
