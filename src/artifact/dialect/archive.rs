//! A single untitled archive: Helm charts, Flux artifacts, KitOps kits.

use super::steps::{archive_step, content_layers, file_step};
use super::{Plan, Step, Title, blobs};
use crate::artifact::Dialect;
use crate::artifact::merge::Placing;
use crate::oci::{Descriptor, ImageManifest, media_type};

const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
const HELM_CONTENT: [&str; 2] = ["application/vnd.cncf.helm.chart.content.v1.tar+gzip", "application/tar+gzip"];
const HELM_PROVENANCE: &str = "application/vnd.cncf.helm.chart.provenance.v1.prov";
const KITOPS_CONFIG: &str = "application/vnd.kitops.modelkit.config.v1+json";

/// The plan, if there is one archive, or the config says which layers are archives. Titled layers are handled by an earlier rule.
pub(super) fn plan(image: &ImageManifest, base: &[u8]) -> Option<Plan> {
    let layers: Vec<&Descriptor> = content_layers(image).collect();
    let unpacked: Vec<bool> = match image.config.media_type.as_str() {
        HELM_CONFIG => layers.iter().map(|layer| HELM_CONTENT.contains(&layer.media_type.as_str())).collect(),
        KITOPS_CONFIG => layers.iter().map(|layer| media_type::is_tar_like(&layer.media_type)).collect(),
        _ => layers.iter().map(|layer| layers.len() == 1 && media_type::is_tar_like(&layer.media_type)).collect(),
    };
    unpacked.contains(&true).then(|| {
        let steps = layers.iter().zip(unpacked).map(|(layer, unpack)| step(image, layer, unpack, base));
        Plan { dialect: Dialect::Archive, steps: steps.collect() }
    })
}

fn step(image: &ImageManifest, layer: &Descriptor, unpack: bool, base: &[u8]) -> Step {
    if unpack {
        return archive_step(layer, Placing { at: base.to_vec(), ..Placing::default() });
    }
    let title = if layer.media_type == HELM_PROVENANCE { provenance(image) } else { blobs::title(layer) };
    file_step(layer, title, base)
}

/// The name used by `helm pull --prov`.
fn provenance(image: &ImageManifest) -> Title {
    let annotation = |key: &str| image.annotations.get(key).map_or("chart", String::as_str);
    let name = format!("{}-{}.tgz.prov", annotation("org.opencontainers.image.title"), annotation("org.opencontainers.image.version"));
    let title = Title::parse(&name);
    if name.contains('/') { title.refused() } else { title }
}
