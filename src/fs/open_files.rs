//! The open files and directories of a mount.

use std::sync::Arc;

use super::handle::Handles;
use super::namespace::Namespace;
use super::ready_files::ReadyFiles;
use super::staged_tags::StagedTags;

/// Operations on handles, and those that depend on open handles.
pub(super) struct OpenFiles {
    pub(super) namespace: Arc<Namespace>,
    pub(super) tags: Arc<StagedTags>,
    pub(super) handles: Arc<Handles>,
    /// Files read without a handle, if the kernel opens none.
    pub(super) unopened: ReadyFiles,
}
