//! Manifests and configs as bytes: deterministic JSON in the order in which every tool writes it, made anew or from what was there
//! with everything unknown kept.

pub(super) mod files;
pub(super) mod image;
pub(super) mod index;
pub(super) mod listing;
pub(super) mod oci_sync;
pub(super) mod referrer;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Error;
use crate::error::ErrorKind;
use crate::oci::{Descriptor, Digest, Manifest, media_type};
use crate::registry::MANIFEST_LIMIT;

/// Members in the order of the specification's types; what is not here follows by name.
const ORDER: [&str; 15] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "digest",
    "size",
    "config",
    "layers",
    "manifests",
    "subject",
    "urls",
    "annotations",
    "data",
    "platform",
    "architecture",
    "os",
];

/// The two bytes that stand for "no config" and "no layer".
pub(super) const EMPTY: &[u8] = b"{}";

/// The text of a JSON value, without whitespace.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let rank = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_by_key(|name| (rank(name), *name));
            out.push('{');
            for (number, name) in names.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(members.get(name).unwrap_or(&Value::Null), out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// A descriptor as JSON.
pub(super) fn descriptor(descriptor: &Descriptor) -> Value {
    let mut members = Map::new();
    members.insert("mediaType".to_owned(), json!(descriptor.media_type));
    members.insert("digest".to_owned(), json!(descriptor.digest.to_string()));
    members.insert("size".to_owned(), json!(descriptor.size));
    if !descriptor.annotations.is_empty() {
        members.insert("annotations".to_owned(), json!(descriptor.annotations));
    }
    if let Some(artifact_type) = &descriptor.artifact_type {
        members.insert("artifactType".to_owned(), json!(artifact_type));
    }
    Value::Object(members)
}

/// A descriptor with annotations.
pub(super) fn described(media_type: &str, (digest, size): (Digest, u64), annotations: &[(&str, &str)]) -> Descriptor {
    let mut descriptor = Descriptor::new(media_type, digest, size);
    descriptor.annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
    descriptor
}

/// Gives a manifest another config. Annotations of the old descriptor stay; a copy of its bytes would be wrong.
pub(super) fn set_config(manifest: &mut Map<String, Value>, config: &Descriptor) {
    let mut described = descriptor(config);
    if let (Some(Value::Object(before)), Some(now)) = (manifest.get("config"), described.as_object_mut())
        && let Some(annotations) = before.get("annotations")
    {
        now.insert("annotations".to_owned(), annotations.clone());
    }
    manifest.insert("config".to_owned(), described);
}

/// The descriptor of the empty config, with its content.
pub(super) fn empty() -> Value {
    let mut value = descriptor(&empty_descriptor());
    if let Some(members) = value.as_object_mut() {
        members.insert("data".to_owned(), json!("e30="));
    }
    value
}

/// The descriptor of the empty config.
pub(super) fn empty_descriptor() -> Descriptor {
    Descriptor::new(media_type::OCI_EMPTY, Digest::of(EMPTY), EMPTY.len() as u64)
}

/// The members of a manifest that is there.
pub(super) fn members(manifest: &Manifest) -> Result<Map<String, Value>, Error> {
    match serde_json::from_slice(&manifest.raw) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(Error::new(ErrorKind::Integrity, format!("manifest {} cannot be read", manifest.digest))),
    }
}

/// The layers of a manifest as they stand there.
pub(super) fn layers(manifest: &Manifest) -> Result<Vec<Value>, Error> {
    Ok(match members(manifest)?.remove("layers") {
        Some(Value::Array(layers)) => layers,
        _ => Vec::new(),
    })
}

/// A manifest from its members. It must be small enough for every registry.
pub(super) fn finish(members: Map<String, Value>) -> Result<Arc<Manifest>, Error> {
    of_text(text(&Value::Object(members)))
}

fn of_text(text: String) -> Result<Arc<Manifest>, Error> {
    let raw = Bytes::from(text);
    if raw.len() as u64 > MANIFEST_LIMIT {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the manifest would have {} bytes, and registries take 4 MiB: publish it as several tags", raw.len()),
        ));
    }
    let digest = Digest::of(&raw);
    Ok(Arc::new(Manifest::parse(raw, digest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stand_in_the_order_of_the_specification_and_unknown_ones_are_kept() {
        let value = json!({
            "annotations": {"b": "1", "a": "2"}, "layers": [], "zzz": [1, {"size": 2, "digest": "x", "mediaType": "m"}], "schemaVersion": 2,
            "mediaType": "t", "config": {"size": 2, "mediaType": "m"}, "aaa": null,
        });
        assert_eq!(
            text(&value),
            r#"{"schemaVersion":2,"mediaType":"t","config":{"mediaType":"m","size":2},"layers":[],"annotations":{"a":"2","b":"1"},"aaa":null,"zzz":[1,{"mediaType":"m","digest":"x","size":2}]}"#
        );
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(text(&json!({"a\"\n": "\u{7f}\\<"})), "{\"a\\\"\\n\":\"\u{7f}\\\\<\"}");
    }
}
