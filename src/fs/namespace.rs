//! The namespace of a mount: which names exist, under which numbers the kernel knows them, and what they show.
//!
//! Owns the views, the locations above tags and the table of staged tags, each with its own lock. Reads only: what changes a tag
//! is in `staged_tags`, what is open in `open_files`.

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
    /// The view whose directory is the root, where the root is content. Held for a copy only.
    pub(super) root_view: RwLock<Option<Arc<View>>>,
    /// Tags with edits, and repositories that were made here.
    pub(super) staged: TagTable,
    /// Whether the one warning about a hidden repository was given.
    pub(super) warned: AtomicBool,
    /// Whether SOURCE is a repository with tags, and when that was asked. Held for copying only.
    pub(super) source_tags: Mutex<Option<(Instant, bool)>>,
    pub(super) kernel: OnceLock<Arc<dyn KernelCache>>,
}

impl Namespace {
    /// Sets the channel through which the kernel is told to forget. The first one counts.
    pub(super) fn set_kernel_cache(&self, kernel: Arc<dyn KernelCache>) {
        // A second session on one file system does not exist; the first one keeps its notifications.
        let _ = self.kernel.set(kernel);
    }

    /// Bytes received and decoded so far, to tell a slow operation from a stuck one.
    pub(super) fn progress(&self) -> u64 {
        self.context.artifacts.progress()
    }

    /// Makes the next use of tags and lists ask the registry (all, or of one repository).
    pub(super) fn refresh(&self, repository: Option<&Repository>) {
        self.context.artifacts.refresh(repository);
        self.locations.unconfirm();
        *self.source_tags() = None;
    }

    /// Waits until what was seen is stored for offline use; awaited when a mount ends.
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

    /// The view whose directory is the root, where the root is content.
    pub(super) fn root_view(&self) -> Option<Arc<View>> {
        self.root_view.read().clone()
    }

    /// The inode behind a number of the kernel.
    pub(super) fn inode(&self, number: u64) -> Inode {
        let root = if number == ROOT { self.root_view() } else { None };
        root.map_or_else(|| Inode::decode(number), |view| Inode::of_view(view.number(), 0))
    }

    /// The number by which the kernel knows an inode.
    pub(super) fn number(&self, inode: Inode) -> u64 {
        let is_root = inode.node() == 0 && self.root_view().is_some_and(|view| view.number() == inode.view());
        if is_root { ROOT } else { inode.encode() }
    }

    pub(super) fn view(&self, inode: Inode) -> Result<Arc<View>, Error> {
        self.views.get(inode.view()).filter(|view| !view.is_closed()).ok_or_else(stale)
    }

    /// Whether an inode is the directory of a tag of which nothing was asked beyond its name. What is known of it without that needs no view.
    pub(super) fn is_only_named(&self, inode: Inode) -> bool {
        inode.node() == 0 && self.views.is_only_named(inode.view())
    }

    pub(super) fn location(&self, inode: Inode) -> Result<Arc<Location>, Error> {
        self.locations.get(inode.node()).ok_or_else(stale)
    }
}
