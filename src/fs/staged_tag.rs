//! One staged tag, as `status` shows it.

use serde::{Deserialize, Serialize};

/// One tag with edits. Keys are stable: scripts read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StagedTag {
    /// Its reference.
    pub reference: String,
    /// Its path below the mount; empty for the mount itself.
    pub path: String,
    /// Differs from the last published state.
    pub edited: bool,
    /// Names that upstream lacks.
    pub added: u64,
    /// Names whose content or attributes differ.
    pub changed: u64,
    /// Names removed here.
    pub removed: u64,
    /// Staged bytes.
    pub bytes: u64,
    /// Names that a sync skips: leftovers such as `.DS_Store`, matches of `.ocifsignore`, sockets.
    #[serde(rename = "ignored")]
    pub ignored: u64,
    /// The tag was deleted here.
    pub deleted: bool,
    /// Files are open for writing.
    pub writers: bool,
    /// The artifact upstream is encrypted; the edits are not until they are published.
    pub encrypted: bool,
    /// Paths of files whose bytes a power cut may have damaged; a sync requires `--force`.
    pub suspects: Vec<String>,
    /// Why the last sync refused, if the tag moved upstream.
    pub conflict: Option<String>,
    /// A remark if the meaning of its edits differs from this mount's flags.
    pub as_staged: Option<String>,
    /// The figures come from the staged edits alone, since the artifact below cannot be fetched now.
    pub estimated: bool,
    /// Why it cannot be read, if so. The figures are then 0.
    pub error: Option<String>,
}
