//! Writes manifests: JSON with members in the order that every tool uses, preserving unknown members.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Descriptor, Digest, InvalidManifest, Manifest, media_type};

/// Members in the specification's order; others follow by name.
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

/// The content of an empty config or layer.
pub const EMPTY: &[u8] = b"{}";

/// Serialises a JSON value without whitespace.
pub fn text(value: &Value) -> String {
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
pub fn descriptor(descriptor: &Descriptor) -> Value {
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
    if let Some(platform) = &descriptor.platform {
        let mut value = json!({"architecture": platform.architecture, "os": platform.os});
        if !platform.variant.is_empty() {
            value["variant"] = json!(platform.variant);
        }
        members.insert("platform".to_owned(), value);
    }
    Value::Object(members)
}

/// The descriptor of the empty config, with its content.
pub fn empty() -> Value {
    let mut value = descriptor(&Descriptor::new(media_type::OCI_EMPTY, Digest::of(EMPTY), EMPTY.len() as u64));
    if let Some(members) = value.as_object_mut() {
        members.insert("data".to_owned(), json!("e30="));
    }
    value
}

/// The members of an existing manifest.
///
/// # Errors
/// It is not a JSON object.
pub fn members(manifest: &Manifest) -> Result<Map<String, Value>, InvalidManifest> {
    match serde_json::from_slice(&manifest.raw) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(InvalidManifest::Json("not a JSON object".to_owned())),
    }
}

/// Builds a manifest from its members.
///
/// # Errors
/// They do not form a manifest.
pub fn manifest(members: Map<String, Value>) -> Result<Manifest, InvalidManifest> {
    let raw = Bytes::from(text(&Value::Object(members)));
    let digest = Digest::of(&raw);
    Manifest::parse(raw, digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_in_specification_order_and_unknown_ones_are_kept() {
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
