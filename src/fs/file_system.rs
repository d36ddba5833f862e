//! One mount: its parts, the root, and the numbers of inodes.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Semaphore;

use super::config::{Config, KernelCache, Root};
use super::handle::Handles;
use super::location::{Location, Locations};
use super::refusals::stale;
use super::staged::Staged;
use super::{Error, Inode, ROOT};
use crate::artifact::Artifacts;
use crate::oci::{Repository, Version};
use crate::publish::{Publisher, Sizes};
use crate::view::{Context, Key, Origin, View, Views};

/// One mount.
pub struct FileSystem {
    pub(super) config: Config,
    pub(super) context: Arc<Context>,
    pub(super) views: Views,
    pub(super) locations: Locations,
    pub(super) handles: Handles,
    /// The view whose directory is the root, where the root is content. Held for a copy only.
    pub(super) root_view: RwLock<Option<Arc<View>>>,
    /// Tags with edits, and repositories that were made here.
    pub(super) staged: Staged,
    /// `None` where nothing can be written.
    pub(super) publisher: Option<Publisher>,
    /// One publish at a time: a command and the end of the mount may ask together.
    pub(super) publishing: Semaphore,
    /// Whether the one warning about a hidden repository was given.
    pub(super) warned: AtomicBool,
    /// Whether SOURCE is a repository with tags, and when that was asked. Held for copying only.
    pub(super) source_tags: Mutex<Option<(Instant, bool)>>,
    pub(super) kernel: OnceLock<Arc<dyn KernelCache>>,
}

impl FileSystem {
    /// A file system; nothing is asked yet.
    ///
    /// # Errors
    /// None in practice: a fresh table of views has numbers to give.
    pub fn new(config: Config, artifacts: Artifacts) -> Result<Self, Error> {
        let context = Arc::new(Context {
            artifacts,
            meaning: config.meaning.clone(),
            defaults: config.defaults,
            authority: config.authority.clone(),
            tag_ttl: config.tag_ttl,
            staging: config.writing.as_ref().map(|writing| Arc::clone(&writing.uppers)),
        });
        let publisher = config.writing.as_ref().map(|writing| Publisher {
            context: Arc::clone(&context),
            push: Arc::clone(&writing.push),
            kind: config.meaning.kind,
            concurrency: writing.concurrency,
            sizes: Sizes::default(),
            attach_index: writing.attach_index,
        });
        let views = Views::default();
        let root_view = match &config.root {
            Root::Prefix(_) | Root::Layout(_) => None,
            Root::Content(repository, version) => Some(name_version(&views, repository, version)?),
        };
        let path = match &config.root {
            Root::Prefix(path) => path.clone(),
            Root::Layout(repository) | Root::Content(repository, _) => Some(repository.clone()),
        };
        let locations = Locations::new(Location::Directory(path));
        Ok(Self {
            config,
            context,
            views,
            locations,
            handles: Handles::default(),
            root_view: RwLock::new(root_view),
            staged: Staged::default(),
            publisher,
            publishing: Semaphore::new(1),
            warned: AtomicBool::new(false),
            source_tags: Mutex::new(None),
            kernel: OnceLock::new(),
        })
    }

    /// Sets the channel through which the kernel is told to forget. The first one counts.
    pub fn set_kernel_cache(&self, kernel: Arc<dyn KernelCache>) {
        // A second session on one file system does not exist; the first one keeps its notifications.
        let _ = self.kernel.set(kernel);
    }

    /// The channel through which the kernel is told to forget.
    #[cfg(test)]
    pub(crate) fn kernel_cache(&self) -> Option<&Arc<dyn KernelCache>> {
        self.kernel.get()
    }

    /// Whether anything can be written.
    pub fn is_writable(&self) -> bool {
        self.publisher.is_some()
    }

    /// Bytes received and decoded so far, to tell a slow operation from a stuck one.
    pub fn progress(&self) -> u64 {
        self.context.artifacts.progress()
    }

    /// Makes the next use of tags and lists ask the registry (all, or of one repository).
    pub fn refresh(&self, repository: Option<&Repository>) {
        self.context.artifacts.refresh(repository);
        self.locations.unconfirm();
        *self.source_tags() = None;
    }

    /// Waits until what was seen is stored for offline use; awaited when a mount ends.
    pub async fn flush(&self) {
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

/// The view of the artifact that a SOURCE names, known for ever.
fn name_version(views: &Views, repository: &Repository, version: &Version) -> Result<Arc<View>, Error> {
    match version {
        Version::Tag(tag) => views.name(Key::Tag(repository.clone(), tag.clone()), || Origin::Tag(repository.clone(), tag.clone())),
        Version::Digest(digest) => views.name(Key::Digest(repository.clone(), *digest), || Origin::Digest(repository.clone(), *digest)),
    }
}
