//! oci-sync: the first layer is a tar.gz, sealed in an envelope if the manifest says so.

use super::{Plan, Shape, Step};
use crate::artifact::Dialect;
use crate::artifact::merge::Placing;
use crate::content::Sealing;
use crate::oci::ImageManifest;

const VERSION: &str = "io.oci-sync.version";
const ENCRYPTED: &str = "io.oci-sync.encrypted";

/// The plan, if the manifest carries an oci-sync version.
pub(super) fn plan(image: &ImageManifest, base: &[u8]) -> Option<Plan> {
    image.annotations.get(VERSION)?;
    let encrypted = image.annotations.get(ENCRYPTED).is_some_and(|value| value == "true");
    let sealing = if encrypted { Sealing::OciSync } else { Sealing::None };
    let placing = Placing { at: base.to_vec(), ..Placing::default() };
    let steps = image.layers.first().map(|layer| Step {
        descriptor: layer.clone(),
        sealing,
        shape: Shape::Archive { placing, instead: None },
        is_manifest: false,
        guide: None,
    });
    Some(Plan { dialect: Dialect::OciSync, steps: steps.into_iter().collect() })
}
