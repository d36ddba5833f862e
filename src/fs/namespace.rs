//! The namespace of a mount: which names exist, their inode numbers, and what they show.
//!
//! Owns the views, the locations above tags and the table of staged tags, each with its own lock. Only reads: changes of tags
//! are in `staged_tags`, open handles in `open_files`.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::config::{Config, KernelCache, Root};
use super::location::{Location, Locations};
use super::refusals::stale;
use super::tag_table::TagTable;
use super::{Inode, ROOT};
use crate::error::Error;
use crate::oci::Repository;
use crate::view::{Context, View, Views};

/// The names of a mount.
pub(super) struct Namespace {
    pub(super) config: Config,
    pub(super) context: Arc<Context>,
    pub(super) views: Views,
    pub(super) locations: Locations,
    /// The view whose directory is the root, if the root is content. Held for copying only.
    pub(super) root_view: RwLock<Option<Arc<View>>>,
    /// Tags with edits, and repositories created here.
    pub(super) staged: TagTable,
    /// Whether the one warning about a hidden repository was given.
    pub(super) warned: AtomicBool,
    /// Whether SOURCE is a repository with tags, and when that was requested. Held for copying only.
    pub(super) source_tags: Mutex<Option<(Instant, bool)>>,
    pub(super) kernel: OnceLock<Arc<dyn KernelCache>>,
}

impl Namespace {
    /// Sets the channel for notifying the kernel. Only the first call has an effect.
    pub(super) fn set_kernel_cache(&self, kernel: Arc<dyn KernelCache>) {
        // There is never a second session on one file system; the first one keeps its notifications.
        let _ = self.kernel.set(kernel);
    }

    /// Bytes received and decoded so far, to distinguish a slow operation from a stuck one.
    pub(super) fn progress(&self) -> u64 {
        self.context.artifacts.progress()
    }

    /// Makes the next use of tags and lists request them from the registry (all, or those of one repository).
    pub(super) fn refresh(&self, repository: Option<&Repository>) {
        self.context.artifacts.refresh(repository);
        self.locations.unconfirm();
        *self.source_tags() = None;
    }

    /// Waits until everything seen is stored for offline use; awaited when a mount ends.
    pub(super) async fn flush(&self) {
        self.context.artifacts.flush().await;
    }

    pub(super) fn source_tags(&self) -> MutexGuard<'_, Option<(Instant, bool)>> {
        self.source_tags.lock()
    }

    pub(super) fn is_layout(&self) -> bool {
        matches!(self.config.root, Root::Layout(_))
    }

    /// Whether a path is SOURCE itself.
    pub(super) fn is_source(&self, path: &Option<Repository>) -> bool {
        match &self.config.root {
            Root::Prefix(root) => root == path,
            Root::Layout(root) => Some(root) == path.as_ref(),
            Root::Content(..) => false,
        }
    }

    /// The view whose directory is the root, if the root is content.
    pub(super) fn root_view(&self) -> Option<Arc<View>> {
        self.root_view.read().clone()
    }

    /// The inode for a number sent by the kernel.
    pub(super) fn inode(&self, number: u64) -> Inode {
        let root = if number == ROOT { self.root_view() } else { None };
        root.map_or_else(|| Inode::decode(number), |view| Inode::of_view(view.number(), 0))
    }

    /// The number of an inode for the kernel.
    pub(super) fn number(&self, inode: Inode) -> u64 {
        let is_root = inode.node() == 0 && self.root_view().is_some_and(|view| view.number() == inode.view());
        if is_root { ROOT } else { inode.encode() }
    }

    pub(super) fn view(&self, inode: Inode) -> Result<Arc<View>, Error> {
        self.views.get(inode.view()).filter(|view| !view.is_closed()).ok_or_else(stale)
    }

    /// Whether an inode is the directory of a tag of which only the name was requested. Needs no view.
    pub(super) fn is_only_named(&self, inode: Inode) -> bool {
        inode.node() == 0 && self.views.is_only_named(inode.view())
    }

    pub(super) fn location(&self, inode: Inode) -> Result<Arc<Location>, Error> {
        self.locations.get(inode.node()).ok_or_else(stale)
    }
}
