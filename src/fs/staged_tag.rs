//! One staged tag, as `status` shows it.

use serde::{Deserialize, Serialize};

/// One tag with edits. Keys are stable: scripts read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StagedTag {
    /// Its reference.
    pub reference: String,
    /// Where it is below the mount; empty for the mount itself.
    pub path: String,
    /// Something differs from what was published last.
    pub edited: bool,
    /// Names that upstream lacks.
    pub added: u64,
    /// Names whose content or attributes differ.
    pub changed: u64,
    /// Names that are gone here.
    pub removed: u64,
    /// Staged bytes.
    pub bytes: u64,
    /// Names that a sync leaves out: leftovers such as `.DS_Store`, what `.ocifsignore` names, sockets.
    #[serde(rename = "droppings")]
    pub ignored: u64,
    /// The tag was deleted here.
    pub deleted: bool,
    /// Files that are open for writing.
    pub writers: bool,
    /// The artifact upstream is encrypted; the edits are not until they are published.
    pub encrypted: bool,
    /// Paths of files whose bytes a power cut may have damaged; a sync asks for `--force`.
    pub suspects: Vec<String>,
    /// Why the last sync refused, where the tag moved upstream.
    pub conflict: Option<String>,
    /// A remark if its edits mean something else than this mount's flags say.
    pub as_staged: Option<String>,
    /// The figures come from the staged edits alone, since the artifact that they change cannot be fetched now.
    pub estimated: bool,
    /// Why it cannot be read, where that is so. The figures are 0 then.
    pub error: Option<String>,
}
