//! Options of a mount, and the form in which it shows artifacts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::oci::{Platform, Repository};

/// Which form of an artifact is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViewMode {
    /// As its dialect says.
    #[default]
    Merged,
    /// A directory a layer, whiteouts visible.
    Layers,
    /// A file a blob, as stored.
    Blobs,
}

/// Options that hold for the whole life of a mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a tag's digest or a list is fresh.
    pub tag_ttl: Duration,
    /// The platform chosen from an index.
    pub platform: Platform,
    /// Form of tag and digest directories.
    pub view: ViewMode,
    /// Never ask the registry.
    pub offline: bool,
    /// Digests are what the user trusts (`--verify strict`, or mounted by digest).
    pub strict: bool,
    /// Repositories the user named, for registries without a catalog.
    pub repositories: Vec<Repository>,
}
