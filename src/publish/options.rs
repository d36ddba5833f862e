//! Options of a publish. Plain values with stable names, sent between processes.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::layer;
use crate::view::ArtifactKind;

/// How a tree is split into layers and a layer into spans. Only the defaults give the same digests as other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Minimum size of a file with its own layer, unless the tree is huge.
    pub large: u64,
    /// Size of a group of smaller files, unless the tree is huge.
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
    /// Report what would happen; change nothing.
    pub dry_run: bool,
    /// Publish under this tag instead.
    pub as_tag: Option<String>,
    /// Overwrite a tag that moved; skip the safety checks.
    pub force: bool,
    /// Drop the edits of tags that moved.
    pub theirs: bool,
    /// Rebase the edits of tags that moved.
    pub rebase: bool,
    /// Allow deleting tags upstream.
    pub allow_delete: bool,
    /// Kind of new artifacts.
    pub as_kind: Option<ArtifactKind>,
    /// Concurrent uploads.
    pub concurrency: Option<NonZeroUsize>,
    /// Publish content of encrypted artifacts unencrypted.
    pub plaintext: bool,
    /// Also publish ignored files: editor leftovers and `.ocifsignore` matches.
    pub no_ignore: bool,
}
