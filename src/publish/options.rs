//! Options of a publish. Plain values with stable names: they are sent between processes.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::layer;
use crate::view::ArtifactKind;

/// How a tree is cut into layers and a layer into spans. Only the defaults give the digests that every other machine gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// A file of so many bytes is a layer of its own, in a tree that is not huge.
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
    /// Publish in clear what encrypted artifacts hold.
    pub plaintext: bool,
    /// Publish ignored files too: editor leftovers and what `.ocifsignore` names.
    pub no_ignore: bool,
}
