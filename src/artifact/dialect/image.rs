//! Container images: root file system layers on top of each other.

use serde_json::Value;

use super::Plan;
use super::steps::{archive_step, title_of};
use crate::artifact::Dialect;
use crate::artifact::merge::Placing;
use crate::oci::{Descriptor, ImageManifest, media_type};

/// The annotation that binds an eStargz layer's table of contents.
const STARGZ: &str = "containerd.io/snapshot/stargz/toc.digest";

/// Whether only the config blob distinguishes an image from titled files: `oras push --artifact-platform` writes an image's media types, with a
/// config that lists no layers.
pub(in crate::artifact) fn needs_config(image: &ImageManifest) -> bool {
    has_image_types(image) && image.layers.iter().any(|layer| title_of(layer).is_some())
}

/// The plan, if config and layers are an image's.
pub(super) fn plan(image: &ImageManifest, config: Option<&[u8]>, base: &[u8]) -> Option<Plan> {
    if !has_image_types(image) || needs_config(image) && !lists_layers(config?, image.layers.len()) {
        return None;
    }
    let steps = image.layers.iter().map(|layer| archive_step(layer, placing(layer, base))).collect();
    Some(Plan { dialect: Dialect::Image, steps })
}

fn placing(layer: &Descriptor, base: &[u8]) -> Placing {
    Placing { at: base.to_vec(), whiteouts: true, estargz: layer.annotation(STARGZ).is_some(), ..Placing::default() }
}

fn has_image_types(image: &ImageManifest) -> bool {
    media_type::is_image_config(&image.config.media_type) && image.layers.iter().all(|layer| media_type::is_rootfs_layer(&layer.media_type))
}

fn lists_layers(config: &[u8], layers: usize) -> bool {
    serde_json::from_slice::<Value>(config)
        .ok()
        .and_then(|config| config.get("rootfs")?.get("diff_ids")?.as_array().map(Vec::len))
        .is_some_and(|listed| listed == layers)
}
