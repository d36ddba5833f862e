//! What a publish may do. Plain values with stable names: they travel between processes.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// What kind of artifact a new tag becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactKind {
    /// Titled layers, as ORAS reads them.
    #[default]
    Files,
    /// A container image.
    Image,
    /// One archive as oci-sync writes it, sealed where a passphrase is given.
    OciSync,
}

/// What a publish may do. Stable keys: it travels to the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Say what would happen, change nothing.
    pub dry_run: bool,
    /// Publish under this tag instead.
    pub as_tag: Option<String>,
    /// Overwrite a tag that moved; allow what safety would skip.
    pub force: bool,
    /// Drop the edits of tags that moved and show what is upstream.
    pub theirs: bool,
    /// Lay the edits of tags that moved over what is upstream now.
    pub rebase: bool,
    /// Deleting tags upstream is allowed.
    pub allow_delete: bool,
    /// Kind of artifact for what has none yet.
    pub as_kind: Option<ArtifactKind>,
    /// Blobs sent at a time.
    pub concurrency: Option<NonZeroUsize>,
    /// Publish droppings and what `.ocifsignore` names too.
    pub no_ignore: bool,
}
