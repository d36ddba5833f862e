//! Options of a mount, and how it shows artifacts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::oci::{Platform, Repository};

/// How an artifact is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViewMode {
    /// As its dialect implies.
    #[default]
    Merged,
    /// One directory per layer, with visible whiteouts.
    Layers,
    /// One file per blob, as stored.
    Blobs,
}

/// Options for the whole life of a mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a tag's digest or a list stays fresh.
    pub tag_ttl: Duration,
    /// The platform to choose from an index.
    pub platform: Platform,
    /// How to show tags and digests.
    pub view: ViewMode,
    /// Send no request to the registry.
    pub offline: bool,
    /// The user trusts digests (`--verify strict`, or mounted by digest).
    pub strict: bool,
    /// Use indexes that only referrers of a manifest name.
    pub trust_referrers: bool,
    /// Remember in which order files are opened, and fetch them ahead in this order.
    pub access_order: bool,
    /// Repositories named by the user, for registries without a catalog.
    pub repositories: Vec<Repository>,
}
