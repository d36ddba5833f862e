//! ModelPack (CNCF model-spec): the path of a layer, whether it is a tar, and its file's attributes.

use serde_json::Value;

use crate::artifact::merge::RawFile;
use crate::oci::{Descriptor, time};

/// The annotation with the path of the layer's file, under its current name and the one from before the CNCF adopted it.
const FILEPATH: [&str; 2] = ["org.cncf.model.filepath", "org.cnai.model.filepath"];
/// The annotation with the attributes of the layer's file, as JSON.
const METADATA: [&str; 2] = ["org.cncf.model.file.metadata+json", "org.cnai.model.file.metadata+json"];
/// Prefixes of the layers' media types; Docker uses the same annotations.
const LAYER: [&str; 3] = ["application/vnd.cncf.model.", "application/vnd.cnai.model.", "application/vnd.docker.ai."];

/// The path named by a layer.
pub(super) fn path(layer: &Descriptor) -> Option<&str> {
    FILEPATH.iter().find_map(|key| layer.annotation(key))
}

/// Whether the layer is a tar of the path it names, decided by path and media type together.
pub(super) fn is_archive(layer: &Descriptor) -> bool {
    let kind = LAYER.iter().find_map(|prefix| layer.media_type.strip_prefix(prefix)).unwrap_or_default();
    path(layer).is_some() && [".tar", ".tar+gzip", ".tar+zstd"].iter().any(|ending| kind.ends_with(ending))
}

/// Takes mode, owner and time from the layer's metadata; missing or invalid values are skipped.
pub(super) fn describe(layer: &Descriptor, raw: &mut RawFile) {
    let Some(metadata) = METADATA.iter().find_map(|key| layer.annotation(key)).and_then(|text| serde_json::from_str::<Value>(text).ok())
    else {
        return;
    };
    let number = |key: &str| metadata.get(key).and_then(Value::as_u64).and_then(|value| u32::try_from(value).ok());
    raw.metadata.mode = number("mode").map(|mode| mode & 0o7777);
    raw.metadata.owner = number("uid").zip(number("gid"));
    raw.metadata.mtime = metadata.get("mtime").and_then(Value::as_str).and_then(time::parse);
}
