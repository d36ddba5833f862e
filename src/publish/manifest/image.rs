//! Manifests and configs of container images: a new single-layer image, or an additional layer on an image.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{finish, members, set_config, text};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Platform, media_type};

/// Marks a layer added by an edit, so that later edits can be merged with it.
pub(in crate::publish) const EDIT: &str = "dev.ocifs.edit";
const CREATED_BY: &str = "ocifs";

/// Media type of a gzip layer in this manifest, or in a new one.
pub(in crate::publish) fn layer_type(base: Option<&Manifest>) -> &'static str {
    match base {
        Some(base) if base.media_type == media_type::DOCKER_MANIFEST => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        _ => "application/vnd.oci.image.layer.v1.tar+gzip",
    }
}

/// The config of a new image. It contains no time: the same tree gives the same image.
pub(in crate::publish) fn new_config(platform: &Platform, diff_id: &Digest) -> Bytes {
    let mut config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
        "history": [{"created_by": CREATED_BY}],
    });
    if !platform.variant.is_empty()
        && let Some(members) = config.as_object_mut()
    {
        members.insert("variant".to_owned(), json!(platform.variant));
    }
    text(&config).into()
}

/// A config with its last `dropped` layers replaced by one; everything else is kept.
pub(in crate::publish) fn edited_config(config: &[u8], dropped: usize, diff_id: &Digest) -> Result<Bytes, Error> {
    let refused = || Error::new(ErrorKind::Integrity, "cannot parse the config of the image to edit it");
    let mut config: Value = serde_json::from_slice(config).map_err(|_| refused())?;
    let all = config.as_object_mut().ok_or_else(refused)?;
    let rootfs = all.entry("rootfs").or_insert_with(|| json!({"type": "layers", "diff_ids": []}));
    let diff_ids = rootfs.as_object_mut().ok_or_else(refused)?.entry("diff_ids").or_insert_with(|| json!([]));
    let diff_ids = diff_ids.as_array_mut().ok_or_else(refused)?;
    diff_ids.truncate(diff_ids.len().saturating_sub(dropped));
    let is_first = diff_ids.is_empty();
    diff_ids.push(json!(diff_id.to_string()));
    match all.get_mut("history").and_then(Value::as_array_mut) {
        Some(history) if is_first || !history.is_empty() => {
            let mut left = dropped;
            history.reverse();
            history.retain(|step| {
                let is_layer = step.get("empty_layer").and_then(Value::as_bool) != Some(true);
                let goes = is_layer && left > 0;
                left -= usize::from(goes);
                !goes
            });
            history.reverse();
            history.push(json!({"created_by": CREATED_BY}));
        }
        // A history that does not list the layers is left out.
        _ => {}
    }
    Ok(text(&config).into())
}

/// The manifest: a new one, or `base` with another config and other layers.
pub(in crate::publish) fn manifest(
    config: (Digest, u64),
    layers: Vec<Value>,
    base: Option<&Manifest>,
) -> Result<(Arc<Manifest>, Descriptor), Error> {
    let config_type = match base {
        Some(base) => base.image().map_or(media_type::OCI_CONFIG, |image| image.config.media_type.as_str()),
        None => media_type::OCI_CONFIG,
    };
    let config = Descriptor::new(config_type, config.0, config.1);
    let mut all = match base {
        Some(base) => members(base)?,
        None => {
            let mut all = Map::new();
            all.insert("schemaVersion".to_owned(), json!(2));
            all.insert("mediaType".to_owned(), json!(media_type::OCI_MANIFEST));
            all
        }
    };
    set_config(&mut all, &config);
    all.insert("layers".to_owned(), Value::Array(layers));
    Ok((finish(all)?, config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_config_names_platform_and_layer_and_no_time() {
        let config = new_config(&"linux/arm/v7".parse().unwrap(), &Digest::of(b"x"));
        let value: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!((&value["os"], &value["architecture"], &value["variant"]), (&json!("linux"), &json!("arm"), &json!("v7")));
        assert_eq!(value["rootfs"]["diff_ids"], json!([Digest::of(b"x").to_string()]));
        assert!(!std::str::from_utf8(&config).unwrap().contains("created\""));
    }

    #[test]
    fn an_edited_config_keeps_unknown_fields_and_gets_a_layer() {
        let base = br#"{"x":{"y":[1]},"created":"2020","rootfs":{"type":"layers","diff_ids":["a"]},"history":[{"created_by":"z"},{"empty_layer":true}]}"#;
        let value: Value = serde_json::from_slice(&edited_config(base, 0, &Digest::of(b"x")).unwrap()).unwrap();
        assert_eq!((&value["x"]["y"], &value["created"]), (&json!([1]), &json!("2020")));
        assert_eq!(value["rootfs"]["diff_ids"], json!(["a", Digest::of(b"x").to_string()]));
        assert_eq!(value["history"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn layers_that_become_one_leave_config_and_history() {
        let base = br#"{"rootfs":{"diff_ids":["a","b","c"]},"history":[{"n":1},{"n":2,"empty_layer":true},{"n":3},{"n":4}]}"#;
        let value: Value = serde_json::from_slice(&edited_config(base, 2, &Digest::of(b"x")).unwrap()).unwrap();
        assert_eq!(value["rootfs"]["diff_ids"], json!(["a", Digest::of(b"x").to_string()]));
        assert_eq!(value["history"], json!([{"n":1}, {"n":2,"empty_layer":true}, {"created_by": "ocifs"}]));
    }

    #[test]
    fn a_config_without_history_gets_none_and_a_broken_one_is_refused() {
        let value: Value =
            serde_json::from_slice(&edited_config(br#"{"rootfs":{"diff_ids":["a"]}}"#, 0, &Digest::of(b"x")).unwrap()).unwrap();
        assert_eq!(value.get("history"), None);
        assert!(edited_config(b"[]", 0, &Digest::of(b"x")).is_err());
    }
}
