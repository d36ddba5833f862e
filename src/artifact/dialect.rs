//! Dialects: from a manifest to the list of parts of its tree. Pure: fetches nothing.
//!
//! The first matching rule applies, in the order of [`plan`]. A media type alone never decides: ORAS labels raw files as tars, and oci-sync labels
//! an empty config as an image config.

mod archive;
mod blobs;
mod files;
mod image;
mod index;
mod modelpack;
mod oci_sync;
mod steps;
mod title;

pub(super) use image::needs_config;
pub(super) use index::{candidates, member_name, members, only_without_platform};
pub use steps::Dialect;
pub(super) use steps::{Plan, Shape, Step, Wanted};
pub(super) use title::Title;

use std::collections::BTreeMap;

use super::attached_index::index_of;
use super::table::table_of;
use steps::{archive_step, file_step, title_of, wanted};

use super::ViewMode;
use super::merge::Placing;
use crate::content::{BlobSource, Guide, Sealing};
use crate::oci::{Descriptor, Digest, ImageManifest, Manifest, time};
use crate::seal::SEAL_ANNOTATION;

/// The manifest annotation with the creation time.
const CREATED: &str = "org.opencontainers.image.created";

/// The plan for the content of an oci-sync envelope.
pub(super) fn encrypted(manifest: &Manifest) -> Option<Plan> {
    oci_sync::plan(manifest.image()?, b"").filter(|plan| plan.steps.iter().any(|step| step.sealing != Sealing::None))
}

/// Whether files of an artifact that is read from these blobs are encrypted.
pub(super) fn is_encrypted(dialect: Dialect, sources: &[BlobSource]) -> bool {
    dialect == Dialect::Sealed || sources.iter().any(BlobSource::is_sealed)
}

/// Whether the artifact is sealed by ocifs.
pub(super) fn is_sealed(manifest: &Manifest) -> bool {
    manifest.annotations().contains_key(SEAL_ANNOTATION)
}

/// How to read an image manifest. `config` is the config blob if [`needs_config`] asked for it. Everything is placed below `base`. `None` for an
/// index.
pub(super) fn plan(manifest: &Manifest, config: Option<&[u8]>, view: ViewMode, base: &[u8]) -> Option<Plan> {
    let image = manifest.image()?;
    let plan = match view {
        ViewMode::Merged => with_indexes(merged(manifest, image, config, base), image),
        ViewMode::Layers => layers(with_indexes(merged(manifest, image, config, base), image), base),
        ViewMode::Blobs => blobs::as_stored(image, base),
    };
    Some(dated(plan, image))
}

/// A manifest's creation time in seconds since 1970.
pub(super) fn created(annotations: &BTreeMap<String, String>) -> Option<i64> {
    moment(annotations).map(|(seconds, _)| seconds)
}

/// Parses an RFC 3339 time to seconds since 1970.
pub(super) fn time_of(text: &str) -> Option<i64> {
    time::parse(text).map(|(seconds, _)| seconds)
}

fn moment(annotations: &BTreeMap<String, String>) -> Option<(i64, u32)> {
    annotations.get(CREATED).and_then(|text| time::parse(text))
}

/// Gives files without a time of their own the manifest's creation time.
fn dated(mut plan: Plan, image: &ImageManifest) -> Plan {
    let created = moment(&image.annotations);
    for step in &mut plan.steps {
        if let Shape::File(wanted) | Shape::Archive { instead: Some(wanted), .. } = &mut step.shape {
            wanted.raw.metadata.mtime = wanted.raw.metadata.mtime.or(created);
        }
    }
    plan
}

fn merged(manifest: &Manifest, image: &ImageManifest, config: Option<&[u8]>, base: &[u8]) -> Plan {
    oci_sync::plan(image, base)
        .or_else(|| image::plan(image, config, base))
        .or_else(|| files::plan(manifest, image, base))
        .or_else(|| archive::plan(image, base))
        .unwrap_or_else(|| blobs::plan(image, base))
}

/// The digests of steps that are manifests and no blobs.
pub(super) fn manifests(steps: &[Step]) -> Vec<Digest> {
    steps.iter().filter(|step| step.is_manifest).map(|step| step.descriptor.digest).collect()
}

/// Finds the index attached to each layer. Steps are in the order of the layers.
fn with_indexes(mut plan: Plan, image: &ImageManifest) -> Plan {
    let mut steps = plan.steps.iter_mut().filter(|step| !step.is_manifest).peekable();
    for (number, layer) in image.layers.iter().enumerate() {
        if let Some(step) = steps.next_if(|step| step.descriptor == *layer) {
            let table = || table_of(layer).filter(|_| matches!(step.shape, Shape::Archive { .. })).map(Guide::Table);
            let guide = index_of(&image.layers, number).map(Guide::Index).or_else(table);
            step.guide = guide.filter(|_| step.sealing == Sealing::None);
        }
    }
    plan
}

/// One directory per layer: archives are unpacked separately with visible whiteouts, everything else is a file.
fn layers(mut plan: Plan, base: &[u8]) -> Plan {
    for (number, step) in plan.steps.iter_mut().enumerate() {
        let name = format!("{number:02}-{}", step.descriptor.digest.short());
        step.shape = match &step.shape {
            Shape::Archive { .. } => alone(&step.descriptor, &name, base),
            Shape::File(_) => Shape::File(wanted(&step.descriptor, Title::name(&name), base)),
        };
    }
    plan
}

fn alone(descriptor: &Descriptor, name: &str, base: &[u8]) -> Shape {
    let at = crate::path::join(base, name.as_bytes());
    let instead = Some(wanted(descriptor, Title::name(name), base));
    Shape::Archive { placing: Placing { at, ..Placing::default() }, instead }
}

/// The plan for a single layer at the root: unpacked if the full plan unpacks it, with visible whiteouts.
pub(super) fn one_layer(whole: &Plan, layer: &Descriptor) -> Plan {
    let known = whole.steps.iter().find(|step| step.descriptor.digest == layer.digest);
    let step = match known {
        Some(Step { sealing, shape: Shape::Archive { .. }, .. }) => {
            let mut step = archive_step(layer, Placing::default());
            step.sealing = *sealing;
            step
        }
        _ => {
            let mut step = file_step(layer, title_of(layer).map_or_else(|| blobs::title(layer), Title::parse), b"");
            if let (Shape::File(alone), Some(Shape::File(among))) = (&mut step.shape, known.map(|step| &step.shape)) {
                alone.raw = among.raw.clone();
            }
            step
        }
    };
    let step = Step { guide: known.and_then(|known| known.guide.clone()), ..step };
    Plan { dialect: whole.dialect, steps: vec![step] }
}

#[cfg(test)]
mod tests;
