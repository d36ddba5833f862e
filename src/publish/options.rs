//! Options of a publish. Plain values with stable names: they are sent between processes.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::layer;
use crate::view::ArtifactKind;

/// How a tree is cut into layers and a layer into spans. Only the defaults give the digests that every other machine gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Files of this size get a layer of their own, in a tree that is not huge.
    pub large: u64,
    /// Bytes of a group of smaller files, in a tree that is not huge.
    pub group: u64,
    /// Bytes of a span of a layer's stream; see [`crate::layer::Packer`].
    pub span: NonZeroUsize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { large: 4 << 20, group: 16 << 20, span: layer::SPAN }
    }
}

/// Options of a publish. Stable keys: they are sent to the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Report what would happen, change nothing.
    pub dry_run: bool,
    /// Publish under this tag instead.
    pub as_tag: Option<String>,
    /// Overwrite a tag that moved; override the safety checks.
    pub force: bool,
    /// Drop the edits of tags that moved.
    pub theirs: bool,
    /// Rebase the edits of tags that moved.
    pub rebase: bool,
    /// Deleting tags upstream is allowed.
    pub allow_delete: bool,
    /// Kind of new artifacts.
    pub as_kind: Option<ArtifactKind>,
    /// Blobs sent at a time.
    pub concurrency: Option<NonZeroUsize>,
    /// Publish the content of encrypted artifacts in clear.
    pub plaintext: bool,
    /// Publish ignored files too: editor leftovers and `.ocifsignore` matches.
    pub no_ignore: bool,
}
