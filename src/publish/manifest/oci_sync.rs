//! Manifests of oci-sync, field by field as that tool writes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::{EMPTY, descriptor, of_text, text};
use crate::error::Error;
use crate::oci::{Descriptor, Digest, Manifest, media_type};

const VERSION: &str = "io.oci-sync.version";
const ENCRYPTED: &str = "io.oci-sync.encrypted";
/// The version written into new artifacts: oci-sync's own.
const TOOL: &str = "0.1.0-dev";

/// A single-layer manifest with these labels, which may be all annotations of an earlier one.
pub(in crate::publish) fn manifest(layer: &Descriptor, sealed: bool, labels: &BTreeMap<String, String>) -> Result<Arc<Manifest>, Error> {
    let mut annotations = labels.clone();
    annotations.entry(VERSION.to_owned()).or_insert_with(|| TOOL.to_owned());
    annotations.insert(ENCRYPTED.to_owned(), sealed.to_string());
    let config = Descriptor::new(media_type::OCI_CONFIG, Digest::of(EMPTY), EMPTY.len() as u64);
    let written = text(&json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(&config),
        "layers": [descriptor(layer)],
        "annotations": annotations,
    }));
    // Escaped like Go's JSON.
    let escaped = [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    of_text(escaped.iter().fold(written, |text, (from, to)| text.replace(*from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_manifest_matches_the_tool_s_byte_for_byte() {
        let layer = Descriptor::new("application/octet-stream", Digest::of(b"x"), 1);
        let manifest = manifest(&layer, false, &BTreeMap::new()).unwrap();
        assert_eq!(manifest.raw.len(), 460);
        assert_eq!(manifest.digest.to_string(), "sha256:0b6b5e7aa98f588ba978ed50494fca8547a3f9dbcfc925924a693a55349d7b89");
    }

    #[test]
    fn labels_and_version_stay() {
        let layer = Descriptor::new("application/octet-stream", Digest::of(b"x"), 1);
        let first = manifest(&layer, true, &BTreeMap::new()).unwrap();
        let labelled = std::str::from_utf8(&first.raw).unwrap().replace("0.1.0-dev\"", "9.9\",\"team\":\"a\\u0026b\"");
        let base = Manifest::parse(labelled.clone().into(), Digest::of(labelled.as_bytes())).unwrap();
        let edited = manifest(&layer, true, base.annotations()).unwrap();
        assert_eq!(edited.annotations()["team"], "a&b");
        assert_eq!(edited.annotations()[VERSION], "9.9");
        assert_eq!(edited.annotations()[ENCRYPTED], "true");
        assert!(std::str::from_utf8(&edited.raw).unwrap().contains("a\\u0026b"));
    }
}
