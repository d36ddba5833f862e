//! The parts of a tree: one step per blob, which says how the blob is shown.

use super::modelpack;
use super::title::Title;
use crate::artifact::attached_index::is_index_layer;
use crate::artifact::merge::{Placing, RawFile};
use crate::content::{Guide, Sealing};
use crate::oci::{Algorithm, Descriptor, ImageManifest, media_type};

/// The rule for reading an artifact; shown as `user.oci.view`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// oci-sync, plain or sealed.
    OciSync,
    /// Sealed by `dev.ocifs.seal`: recognised, but fails with KeyMissing.
    Sealed,
    /// An index without a matching platform: a directory of its members.
    Members,
    /// Root file system layers.
    Image,
    /// Titled layers.
    Files,
    /// A single untitled archive.
    Archive,
    /// Anything else.
    Blobs,
}

/// The annotation with the path of a layer's file, written by ORAS and many others.
pub(super) const TITLE: &str = "org.opencontainers.image.title";

/// Annotations with the names of the files that `docker compose publish` writes.
const COMPOSE: [&str; 2] = ["com.docker.compose.file", "com.docker.compose.envfile"];

/// The plan of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::artifact) struct Plan {
    /// The rule that matched.
    pub dialect: Dialect,
    /// In manifest order. The position of a step is the number of its blob.
    pub steps: Vec<Step>,
}

/// A blob and how it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::artifact) struct Step {
    /// The blob.
    pub descriptor: Descriptor,
    /// How it is sealed.
    pub sealing: Sealing,
    /// Its form in the tree.
    pub shape: Shape,
    /// Whether it is a manifest, which registries do not store as a blob.
    pub is_manifest: bool,
    /// Lets the blob be read by ranges at once.
    pub guide: Option<Guide>,
}

/// How a blob appears in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::artifact) enum Shape {
    /// Its entries are merged into the tree. With `instead`, a blob that turns out not to be an archive becomes that file; without, the artifact fails.
    Archive {
        /// Where and how to merge.
        placing: Placing,
        /// The file to show if it cannot be unpacked.
        instead: Option<Wanted>,
    },
    /// It is one file.
    File(Wanted),
}

/// A file and its preferred path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::artifact) struct Wanted {
    /// Directory of the tree that names are relative to.
    pub base: Vec<u8>,
    /// The requested name.
    pub title: Title,
    /// Known attributes.
    pub raw: RawFile,
}

/// The layers with content: without our indexes and the empty placeholder.
pub(super) fn content_layers(image: &ImageManifest) -> impl Iterator<Item = &Descriptor> {
    image.layers.iter().filter(|layer| {
        let placeholder = layer.media_type == media_type::OCI_EMPTY && title_of(layer).is_none();
        !placeholder && !is_index_layer(layer)
    })
}

pub(super) fn title_of(layer: &Descriptor) -> Option<&str> {
    layer.annotation(TITLE).or_else(|| modelpack::path(layer)).or_else(|| COMPOSE.iter().find_map(|key| layer.annotation(key)))
}

/// A blob as a file with a requested name.
pub(super) fn wanted(descriptor: &Descriptor, title: Title, base: &[u8]) -> Wanted {
    let sha256 = match descriptor.digest.algorithm() {
        Algorithm::Sha256 => descriptor.digest.as_bytes().try_into().ok(),
        Algorithm::Sha512 => None,
    };
    let title_text = title_of(descriptor).map(str::to_owned);
    Wanted { base: base.to_vec(), title, raw: RawFile { size: descriptor.size, sha256, title: title_text, ..RawFile::default() } }
}

pub(super) fn file_step(descriptor: &Descriptor, title: Title, base: &[u8]) -> Step {
    Step {
        descriptor: descriptor.clone(),
        sealing: Sealing::None,
        shape: Shape::File(wanted(descriptor, title, base)),
        is_manifest: false,
        guide: None,
    }
}

pub(super) fn archive_step(descriptor: &Descriptor, placing: Placing) -> Step {
    Step {
        descriptor: descriptor.clone(),
        sealing: Sealing::None,
        shape: Shape::Archive { placing, instead: None },
        is_manifest: false,
        guide: None,
    }
}
