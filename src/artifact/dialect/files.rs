//! Titled layers: one file per layer, or a directory unpacked under the title.

use super::steps::{TITLE, content_layers, file_step, title_of, wanted};
use super::title::as_prefix;
use super::{Plan, Shape, Step, Title, blobs, modelpack};
use crate::artifact::Dialect;
use crate::artifact::merge::Placing;
use crate::content::Sealing;
use crate::oci::{Descriptor, ImageManifest, Manifest};
use crate::path::join;

/// ORAS: the layer is a tar of a directory.
const UNPACK: &str = "io.deis.oras.content.unpack";

/// The plan, if any layer names its path.
pub(super) fn plan(manifest: &Manifest, image: &ImageManifest, base: &[u8]) -> Option<Plan> {
    content_layers(image).any(|layer| title_of(layer).is_some()).then(|| {
        let layers = content_layers(image).map(|layer| step(layer, base));
        // ORAS treats anything with a title as a file, including the manifest.
        let itself = image.annotations.get(TITLE).map(|title| {
            let step = file_step(&manifest.descriptor(), Title::parse(title), base);
            Step { is_manifest: true, ..step }
        });
        Plan { dialect: Dialect::Files, steps: layers.chain(itself).collect() }
    })
}

fn step(layer: &Descriptor, base: &[u8]) -> Step {
    match title_of(layer) {
        None => file_step(layer, blobs::title(layer), base),
        Some(title) if is_directory(layer) => directory(layer, title, base),
        Some(title) => {
            let mut step = file_step(layer, Title::parse(title), base);
            if let Shape::File(wanted) = &mut step.shape {
                modelpack::describe(layer, &mut wanted.raw);
            }
            step
        }
    }
}

fn is_directory(layer: &Descriptor) -> bool {
    layer.annotation(UNPACK) == Some("true") || modelpack::is_archive(layer)
}

/// If a directory's title cannot be a path, it gets the name that a file would have.
fn directory(layer: &Descriptor, text: &str, base: &[u8]) -> Step {
    let title = Title::parse(text);
    let at = match &title.path {
        Some(path) => join(base, path),
        None => title.places(base, &layer.digest).next().unwrap_or_default(),
    };
    let instead = Some(wanted(layer, title.refused(), base));
    let placing = Placing { at, strip: as_prefix(text), ..Placing::default() };
    Step { descriptor: layer.clone(), sealing: Sealing::None, shape: Shape::Archive { placing, instead }, is_manifest: false, guide: None }
}
