//! The tags of a mount that are edited, published or deleted here.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::handle::Handles;
use super::namespace::Namespace;
use crate::publish::Publisher;

/// Changes tags. Its state is in the table of staged tags of the namespace, and in their views.
pub(super) struct StagedTags {
    pub(super) namespace: Arc<Namespace>,
    /// `None` if nothing is writable.
    pub(super) publisher: Option<Publisher>,
    /// One publish at a time: a command and the end of the mount may request one together.
    pub(super) publishing: Semaphore,
    /// Open files keep their pages.
    pub(super) handles: Arc<Handles>,
}

impl StagedTags {
    /// Whether the mount is writable.
    pub(super) fn is_writable(&self) -> bool {
        self.publisher.is_some()
    }
}
