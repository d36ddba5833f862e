//! Manifests and configs as bytes: deterministic JSON in the member order of all tools, new or edited from existing bytes with everything unknown
//! preserved.

pub(super) mod files;
pub(super) mod image;
pub(super) mod index;
pub(super) mod listing;
pub(super) mod metadata;
pub(super) mod oci_sync;
pub(super) mod referrer;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, InvalidManifest, Manifest, document};
use crate::registry::MANIFEST_LIMIT;

pub(super) use crate::oci::document::{EMPTY, descriptor, empty, text};

/// A descriptor with annotations.
pub(super) fn described(media_type: &str, (digest, size): (Digest, u64), annotations: &[(&str, &str)]) -> Descriptor {
    let mut descriptor = Descriptor::new(media_type, digest, size);
    descriptor.annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
    descriptor
}

/// Replaces a manifest's config. Annotations of the old descriptor stay; an embedded copy of its bytes would be wrong.
pub(super) fn set_config(manifest: &mut Map<String, Value>, config: &Descriptor) {
    let mut described = descriptor(config);
    if let (Some(Value::Object(before)), Some(now)) = (manifest.get("config"), described.as_object_mut())
        && let Some(annotations) = before.get("annotations")
    {
        now.insert("annotations".to_owned(), annotations.clone());
    }
    manifest.insert("config".to_owned(), described);
}

/// The members of an existing manifest.
pub(super) fn members(manifest: &Manifest) -> Result<Map<String, Value>, Error> {
    document::members(manifest).map_err(invalid)
}

/// The layers of a manifest, verbatim.
pub(super) fn layers(manifest: &Manifest) -> Result<Vec<Value>, Error> {
    Ok(match members(manifest)?.remove("layers") {
        Some(Value::Array(layers)) => layers,
        _ => Vec::new(),
    })
}

/// Builds a manifest from its members. It must be small enough for every registry.
pub(super) fn finish(members: Map<String, Value>) -> Result<Arc<Manifest>, Error> {
    of_text(text(&Value::Object(members)))
}

/// A manifest that cannot be edited, or would be invalid afterwards.
fn invalid(error: InvalidManifest) -> Error {
    Error::new(ErrorKind::Invalid, error.to_string()).caused_by(error)
}

fn of_text(text: String) -> Result<Arc<Manifest>, Error> {
    let raw = Bytes::from(text);
    if raw.len() as u64 > MANIFEST_LIMIT {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the manifest would have {} bytes, but registries accept at most 4 MiB: publish it as several tags", raw.len()),
        ));
    }
    let digest = Digest::of(&raw);
    Manifest::parse(raw, digest).map(Arc::new).map_err(invalid)
}
