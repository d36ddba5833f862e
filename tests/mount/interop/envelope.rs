//! oci-sync artifacts in a layout, opened by an own reading of the format: scrypt, one AES-GCM message by the crate that the
//! program does not use for it, and the crate `tar`.

use aes_gcm::aead::{Aead, KeyInit};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// The passphrase of the sealed fixtures.
pub const PASSPHRASE: &str = "correct horse battery staple";

fn blob(layout: &Path, digest: &str) -> Vec<u8> {
    std::fs::read(layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())).unwrap()
}

/// The manifest of a tag.
pub fn manifest(layout: &Path, tag: &str) -> Value {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
    let entry = index["manifests"].as_array().unwrap().iter().find(named).unwrap_or_else(|| panic!("no tag {tag}"));
    serde_json::from_slice(&blob(layout, entry["digest"].as_str().unwrap())).unwrap()
}

/// Asserts what oci-sync's readers depend on, and that only the layer changed.
pub fn assert_same_kind(before: &Value, after: &Value, sealed: bool) {
    assert_ne!(before["layers"], after["layers"]);
    for field in ["schemaVersion", "mediaType", "config", "annotations", "artifactType", "subject"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    let layers = after["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1, "its own readers take exactly one layer");
    assert_eq!(layers[0]["mediaType"], "application/octet-stream");
    assert_eq!(after["annotations"]["io.oci-sync.encrypted"], if sealed { "true" } else { "false" });
}

/// Path and bytes of every regular file in the only layer.
pub fn entries(layout: &Path, manifest: &Value, sealed: bool) -> Vec<(String, Vec<u8>)> {
    let stored = blob(layout, manifest["layers"][0]["digest"].as_str().unwrap());
    let packed = if sealed { open(&stored) } else { stored };
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let path = entry.path().unwrap().to_str().unwrap().trim_start_matches("./").to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.push((path, bytes));
        }
    }
    files
}

/// `salt 32 | nonce 12 | ciphertext | tag 16`, scrypt N=32768 r=8 p=1.
fn open(stored: &[u8]) -> Vec<u8> {
    let (salt, rest) = stored.split_at(32);
    let (nonce, message) = rest.split_at(12);
    let mut key = [0; 32];
    scrypt::scrypt(PASSPHRASE.as_bytes(), salt, &scrypt::Params::new(15, 8, 1).unwrap(), &mut key).unwrap();
    let nonce: [u8; 12] = nonce.try_into().unwrap();
    aes_gcm::Aes256Gcm::new(&key.into()).decrypt(&nonce.into(), message).expect("the passphrase opens the layer")
}
