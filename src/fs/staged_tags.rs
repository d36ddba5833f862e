//! The tags of a mount that are edited, published or deleted here.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::handle::Handles;
use super::namespace::Namespace;
use crate::publish::Publisher;

/// Changes tags. Its state is in the table of staged tags of the namespace, and in their views.
pub(super) struct StagedTags {
    pub(super) namespace: Arc<Namespace>,
    /// `None` where nothing can be written.
    pub(super) publisher: Option<Publisher>,
    /// One publish at a time: a command and the end of the mount may ask together.
    pub(super) publishing: Semaphore,
    /// Files that are open keep their pages.
    pub(super) handles: Arc<Handles>,
}

impl StagedTags {
    /// Whether anything can be written.
    pub(super) fn is_writable(&self) -> bool {
        self.publisher.is_some()
    }
}
