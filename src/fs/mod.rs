//! The file system in plain values: names, attributes, handles and bytes, without any FUSE type.
//!
//! Owns the namespace above tags, the meaning of every name in it, open handles, and how long the kernel may
//! keep what it was told. Everything that may wait for a registry is async and completes at once when the answer
//! is known here. What is promised to a user stands in `SEMANTICS.md` beside this file.

mod access;
mod adoption;
mod changes;
mod config;
mod directory;
mod editing;
mod entry;
mod files;
mod handle;
mod inode;
mod listing;
mod location;
mod names;
mod resolve;
mod selection;
mod staged;
mod status;
mod syncing;
mod tag_state;
mod tags;
mod window;
mod writing;
mod xattr;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub use access::{Asker, Credentials, Need, Others};
pub use changes::{Caller, NewName};
pub use config::{Config, KernelCache, Made, Root, Space};
pub use directory::DirectoryEntry;
pub use entry::{Entry, Lookup};
pub use handle::{OpenDirectory, OpenFile};
pub use inode::{Inode, ROOT};
pub use selection::{Scope, Selection, tag_of};
pub use staged::TagName;
pub use status::StagedTag;
pub use syncing::several_under_one_name;
pub use writing::Writing;

use crate::artifact::{Artifacts, Kind};
use crate::error::ErrorKind;
use crate::oci::{Repository, Version};
use crate::publish::{Publisher, Sizes};
pub use crate::view::Error;
use crate::view::{Attributes, Context, Found, Key, Origin, Shown, View, Views};
use handle::Handles;
use location::{Location, Locations};
use resolve::Finding;
use staged::Staged;

/// How long the kernel keeps what can never change.
pub const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// The longest that the kernel keeps the name of a tag or repository, so that a move needs no notification.
pub const NAME_TTL: Duration = Duration::from_secs(1);
/// How long the kernel takes an absent name for absent.
pub const ABSENT_TTL: Duration = Duration::from_secs(5);
/// Longest name that is made; an artifact may have longer ones.
pub const NAME_LIMIT: usize = 255;

/// One mount.
pub struct FileSystem {
    config: Config,
    context: Arc<Context>,
    views: Views,
    locations: Locations,
    handles: Handles,
    /// The view whose directory is the root, where the root is content. Held for a copy only.
    root_view: RwLock<Option<Arc<View>>>,
    /// Tags with edits, and repositories that were made here.
    staged: Staged,
    /// `None` where nothing can be written.
    publisher: Option<Publisher>,
    /// One publish at a time: a command and the end of the mount may ask together.
    publishing: Semaphore,
    /// Whether the one warning about a hidden repository was given.
    warned: AtomicBool,
    /// Whether SOURCE is a repository with tags, and when that was asked. Held for copying only.
    source_tags: Mutex<Option<(Instant, bool)>>,
    kernel: OnceLock<Arc<dyn KernelCache>>,
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

    /// Names who tells the kernel what to forget. The first one counts.
    pub fn set_kernel_cache(&self, kernel: Arc<dyn KernelCache>) {
        // A second session on one file system does not exist; the first one keeps its notifications.
        let _ = self.kernel.set(kernel);
    }

    /// Who tells the kernel what to forget.
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

    fn source_tags(&self) -> MutexGuard<'_, Option<(Instant, bool)>> {
        self.source_tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_layout(&self) -> bool {
        matches!(self.config.root, Root::Layout(_))
    }

    /// Whether a path is SOURCE itself.
    fn is_source(&self, path: &Option<Repository>) -> bool {
        match &self.config.root {
            Root::Prefix(root) => root == path,
            Root::Layout(root) => Some(root) == path.as_ref(),
            Root::Content(..) => false,
        }
    }

    /// The view whose directory is the root, where the root is content.
    fn root_view(&self) -> Option<Arc<View>> {
        self.root_view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The inode behind a number of the kernel.
    fn inode(&self, number: u64) -> Inode {
        let root = if number == ROOT { self.root_view() } else { None };
        root.map_or_else(|| Inode::decode(number), |view| Inode::of_view(view.number(), 0))
    }

    /// The number by which the kernel knows an inode.
    fn number(&self, inode: Inode) -> u64 {
        let is_root = inode.node() == 0 && self.root_view().is_some_and(|view| view.number() == inode.view());
        if is_root { ROOT } else { inode.encode() }
    }

    fn view(&self, inode: Inode) -> Result<Arc<View>, Error> {
        self.views.get(inode.view()).filter(|view| !view.is_closed()).ok_or_else(stale)
    }

    /// Whether an inode is the directory of a tag of which nothing was asked beyond its name. What is known of it without that needs no view.
    fn is_only_named(&self, inode: Inode) -> bool {
        inode.node() == 0 && self.views.is_only_named(inode.view())
    }

    fn location(&self, inode: Inode) -> Result<Arc<Location>, Error> {
        self.locations.get(inode.node()).ok_or_else(stale)
    }

    /// Looks up a name in a directory; the result counts one lookup more.
    ///
    /// # Errors
    /// Why the registry or the artifact did not answer. A name that does not exist is not an error.
    pub async fn lookup(&self, directory: u64, name: &[u8]) -> Result<Lookup, Error> {
        let inode = self.inode(directory);
        if inode.view() != 0 {
            let view = self.view(inode)?;
            self.enter(&view).await?;
            return match view.lookup(&self.context, inode.node(), name).await? {
                Some(Found::Node(node)) => Ok(Lookup::Found(self.node_entry(&view, node)?)),
                Some(Found::View(key, origin)) => Ok(Lookup::Found(self.view_entry(key, origin)?)),
                None if name.len() > NAME_LIMIT => Err(too_long()),
                None => Ok(Lookup::Absent(ABSENT_TTL)),
            };
        }
        let location = self.location(inode)?;
        let finding = match location.as_ref() {
            Location::Directory(path) => self.find(path, name).await?,
            location if location.is_directory() => self.find_in_window(location, name).await?,
            _ => return Err(Error::new(ErrorKind::NotDirectory, "not a directory")),
        };
        match finding {
            Finding::Nothing(ttl) => Ok(Lookup::Absent(ttl)),
            Finding::Item { item, guessed } => Ok(Lookup::Found(self.item_entry(item, guessed)?)),
        }
    }

    /// Binds a view to its digest. The kernel forgets the attributes that its directory had before.
    async fn enter<'view>(&self, view: &'view Arc<View>) -> Result<&'view Shown, Error> {
        if let Some(shown) = view.shown() {
            return Ok(shown);
        }
        let shown = view.enter(&self.context).await?;
        // A kernel that checks modes has asked for them just now, and would drop the answer; else they last no longer than the name.
        if !self.admits_others()
            && let Some(kernel) = self.kernel.get()
        {
            kernel.forget_inode(self.number(Inode::of_view(view.number(), 0)));
        }
        if let Key::Tag(repository, tag) = view.key()
            && let Some(last) = self.context.artifacts.last_known(&repository, &tag)
        {
            // While the artifact was fetched, the registry may have said that the tag holds another one.
            self.answered(&(repository, tag), view, Some(last)).await;
        }
        Ok(shown)
    }

    /// Takes back lookups that the kernel has forgotten.
    pub fn forget(&self, number: u64, lookups: u64) {
        if number == ROOT {
            return;
        }
        let inode = Inode::decode(number);
        match inode.view() {
            0 => self.locations.forget(inode.node(), lookups),
            view => drop(self.views.forget(view, lookups)),
        }
    }

    /// Attributes of an inode and how long they may be kept.
    ///
    /// # Errors
    /// Gone for an inode that the kernel was told to forget.
    pub async fn getattr(&self, number: u64) -> Result<Entry, Error> {
        let inode = self.inode(number);
        if inode.view() == 0 {
            let location = self.location(inode)?;
            return Ok(self.location_attributes(number, &location));
        }
        if self.is_only_named(inode) && !self.admits_others() {
            return Ok(self.named_attributes(inode.view()));
        }
        let view = self.view(inode)?;
        if number == ROOT || inode.node() == 0 && self.admits_others() {
            // The root is entered by being mounted, without a lookup. Where the kernel checks modes, it asks for those of a directory
            // that was not entered when they refuse an access.
            self.enter(&view).await?;
        }
        match self.attributes_of(&view, inode.node()) {
            Err(error) if error.kind == ErrorKind::Gone => self.open_attributes(number).ok_or(error),
            entry => entry,
        }
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// Invalid for anything but a link.
    pub fn readlink(&self, number: u64) -> Result<Vec<u8>, Error> {
        let inode = self.inode(number);
        if inode.view() != 0 {
            return self.view(inode)?.target(inode.node());
        }
        match self.location(inode)?.link() {
            Some(target) => Ok(target.into_bytes()),
            None => Err(Error::new(ErrorKind::Invalid, "not a symbolic link")),
        }
    }

    /// Whether an access is allowed as far as this mount decides: the kernel checks modes where other users are
    /// admitted, else everything is readable.
    ///
    /// # Errors
    /// ReadOnly for writing a read-only object, Denied for executing a file without execute permission.
    pub async fn access(&self, number: u64, write: bool, execute: bool) -> Result<(), Error> {
        if write {
            self.check_writable(number).await?;
        }
        if execute {
            let attributes = self.getattr(number).await?.attributes;
            if attributes.kind != Kind::Directory && attributes.mode & 0o111 == 0 {
                return Err(Error::new(ErrorKind::Denied, "the file is not executable"));
            }
        }
        Ok(())
    }

    /// Figures for `df`: room for edits on a mount that can be written to, else the cache budget and what of it is unused.
    ///
    /// # Errors
    /// Errors of the disk that holds the edits.
    pub async fn statfs(&self) -> Result<Space, Error> {
        let Some(uppers) = self.context.staging.clone() else { return Ok((self.config.space)()) };
        let (total, free) = files::blocking(move || Ok(uppers.room()?)).await?;
        Ok(Space { total, free })
    }
}

/// The view of the artifact that a SOURCE names, known for ever.
fn name_version(views: &Views, repository: &Repository, version: &Version) -> Result<Arc<View>, Error> {
    match version {
        Version::Tag(tag) => views.name(Key::Tag(repository.clone(), tag.clone()), || Origin::Tag(repository.clone(), tag.clone())),
        Version::Digest(digest) => views.name(Key::Digest(repository.clone(), *digest), || Origin::Digest(repository.clone(), *digest)),
    }
}

fn stale() -> Error {
    Error::new(ErrorKind::Gone, "the file is not there any more")
}

fn too_long() -> Error {
    Error::new(ErrorKind::TooLong, "a name has at most 255 bytes")
}

/// The error for every attempt to change a read-only object.
fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "nothing can be changed here")
}
