//! The file system in plain values: names, attributes, handles and bytes, without any FUSE type.
//!
//! Owns the namespace above tags, the meaning of every name in it, open handles, and how long the kernel may
//! keep what it was told. Everything that may wait for a registry is async and completes at once when the answer
//! is known here. What is promised to a user stands in `SEMANTICS.md` beside this file. Nothing can be written.

mod directory;
mod entry;
mod handle;
mod inode;
mod listing;
mod names;
mod place;
mod resolve;
mod window;
mod writing;
mod xattr;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use directory::DirectoryEntry;
pub use entry::{Entry, Lookup};
pub use handle::{OpenDirectory, OpenFile};
pub use inode::{Inode, ROOT};
pub use writing::{Selection, StagedTag, Writing};

use crate::artifact::{Artifacts, Kind, ViewMode};
use crate::error::ErrorKind;
use crate::oci::{Platform, Repository, Version};
pub use crate::view::Error;
use crate::view::{Attributes, Authority, Context, Defaults, Found, Key, Origin, Shown, View, Views};
use handle::Handles;
use place::{Place, Places};
use resolve::Finding;

/// How long the kernel keeps what can never change.
pub const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// The longest that the kernel keeps the name of a tag or repository, so that a move needs no notification.
pub const NAME_TTL: Duration = Duration::from_secs(1);
/// How long the kernel takes an absent name for absent.
pub const ABSENT_TTL: Duration = Duration::from_secs(5);

/// What the root of the mount is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// A registry (`None`) or a prefix of it, which may be a repository as well.
    Prefix(Option<Repository>),
    /// The names of a layout; the repository is the one that stands for it.
    Layout(Repository),
    /// The content of one artifact.
    Content(Repository, Version),
}

/// Figures for `statfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all; the cache budget.
    pub total: u64,
    /// Bytes of it that are unused.
    pub free: u64,
}

/// Bytes of a file that is made when it is read.
pub type Made = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// What does not change during a mount.
pub struct Config {
    /// What the root is.
    pub root: Root,
    /// The registry or layout as written in references.
    pub authority: Authority,
    /// Attributes where an archive says nothing, and overrides.
    pub defaults: Defaults,
    /// Form of tag and digest directories.
    pub view: ViewMode,
    /// The platform that is chosen from an index.
    pub platform: Platform,
    /// Only digests are trusted.
    pub strict: bool,
    /// How long tags and lists are fresh.
    pub tag_ttl: Duration,
    /// Content of `.oci/mount.json` at the root.
    pub mount_json: Vec<u8>,
    /// Content of `.oci/status.json` at the root.
    pub status_json: Made,
    /// What `df` shows.
    pub space: Arc<dyn Fn() -> Space + Send + Sync>,
    /// How edits are staged and published; `None` where nothing can be written.
    pub writing: Option<Writing>,
}

/// What the kernel must forget. Never called from a thread that answers the kernel.
pub trait KernelCache: Send + Sync {
    /// Drops pages and attributes of an inode.
    fn forget_inode(&self, inode: u64);
    /// Drops a name in a directory.
    fn forget_name(&self, directory: u64, name: &[u8]);
}

/// One mount.
pub struct FileSystem {
    config: Config,
    context: Context,
    views: Views,
    places: Places,
    handles: Handles,
    /// The view whose directory is the root, where the root is content.
    root_view: Option<Arc<View>>,
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
        let context = Context {
            artifacts,
            mode: config.view,
            platform: config.platform.clone(),
            strict: config.strict,
            defaults: config.defaults,
            authority: config.authority.clone(),
            tag_ttl: config.tag_ttl,
            staging: None,
        };
        let views = Views::default();
        let root_view = match &config.root {
            Root::Prefix(_) | Root::Layout(_) => None,
            Root::Content(repository, version) => Some(name_version(&views, repository, version)?),
        };
        let path = match &config.root {
            Root::Prefix(path) => path.clone(),
            Root::Layout(repository) | Root::Content(repository, _) => Some(repository.clone()),
        };
        let places = Places::new(Place::Directory(path));
        Ok(Self {
            config,
            context,
            views,
            places,
            handles: Handles::default(),
            root_view,
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

    /// Bytes received and decoded so far, for whoever must tell a slow operation from a stuck one.
    pub fn progress(&self) -> u64 {
        self.context.artifacts.progress()
    }

    /// Makes the next use of tags and lists ask the registry (all, or of one repository).
    pub fn refresh(&self, repository: Option<&Repository>) {
        self.context.artifacts.refresh(repository);
        self.places.unsettle();
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

    /// The inode behind a number of the kernel.
    fn inode(&self, number: u64) -> Inode {
        match &self.root_view {
            Some(view) if number == ROOT => Inode::of_view(view.number(), 0),
            _ => Inode::decode(number),
        }
    }

    /// The number by which the kernel knows an inode.
    fn number(&self, inode: Inode) -> u64 {
        match &self.root_view {
            Some(view) if inode == Inode::of_view(view.number(), 0) => ROOT,
            _ => inode.encode(),
        }
    }

    fn view(&self, inode: Inode) -> Result<Arc<View>, Error> {
        self.views.get(inode.view()).ok_or_else(stale)
    }

    fn place(&self, inode: Inode) -> Result<Arc<Place>, Error> {
        self.places.get(inode.node()).ok_or_else(stale)
    }

    /// What a name in a directory leads to, with one lookup more on what is found.
    ///
    /// # Errors
    /// Why the registry or the artifact did not answer. A name that does not exist is no error.
    pub async fn lookup(&self, directory: u64, name: &[u8]) -> Result<Lookup, Error> {
        let inode = self.inode(directory);
        if inode.view() != 0 {
            let view = self.view(inode)?;
            self.enter(&view).await?;
            return match view.lookup(&self.context, inode.node(), name).await? {
                Some(Found::Node(node)) => Ok(Lookup::Found(self.node_entry(&view, node)?)),
                Some(Found::View(key, origin)) => Ok(Lookup::Found(self.view_entry(key, origin)?)),
                None => Ok(Lookup::Absent(ABSENT_TTL)),
            };
        }
        let place = self.place(inode)?;
        let finding = match place.as_ref() {
            Place::Directory(path) => self.find(path, name).await?,
            Place::Window(_) | Place::Repositories(_) | Place::Tags(_) => self.find_in_window(&place, name).await?,
            Place::File(..) | Place::RepositoryLink(_) | Place::Pasted(..) => {
                return Err(Error::new(ErrorKind::NotDirectory, "not a directory"));
            }
        };
        match finding {
            Finding::Nothing(ttl) => Ok(Lookup::Absent(ttl)),
            Finding::Item { item, guessed } => Ok(Lookup::Found(self.item_entry(item, guessed)?)),
        }
    }

    /// Binds a view to its digest. The kernel forgets the attributes that its directory had before.
    async fn enter<'view>(&self, view: &'view View) -> Result<&'view Shown, Error> {
        let known = view.shown().is_some();
        let shown = view.enter(&self.context).await?;
        if !known && let Some(kernel) = self.kernel.get() {
            kernel.forget_inode(self.number(Inode::of_view(view.number(), 0)));
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
            0 => self.places.forget(inode.node(), lookups),
            view => self.views.forget(view, lookups),
        }
    }

    /// Attributes of an inode and how long they may be kept.
    ///
    /// # Errors
    /// Gone for an inode that the kernel was told to forget.
    pub async fn getattr(&self, number: u64) -> Result<Entry, Error> {
        let inode = self.inode(number);
        if inode.view() == 0 {
            let place = self.place(inode)?;
            return Ok(self.place_attributes(number, &place));
        }
        let view = self.view(inode)?;
        if number == ROOT {
            // The root is entered by being mounted; nobody looks it up.
            self.enter(&view).await?;
        }
        self.attributes_of(&view, inode.node())
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// Invalid for what is no link.
    pub fn readlink(&self, number: u64) -> Result<Vec<u8>, Error> {
        let inode = self.inode(number);
        if inode.view() != 0 {
            return self.view(inode)?.target(inode.node());
        }
        match self.place(inode)?.link() {
            Some(target) => Ok(target.into_bytes()),
            None => Err(Error::new(ErrorKind::Invalid, "not a symbolic link")),
        }
    }

    /// Opens a file for reading; its bytes stay those of the digest that its view is bound to.
    ///
    /// # Errors
    /// ReadOnly for a writer; else what opening the blob says.
    pub async fn open(&self, number: u64, write: bool) -> Result<OpenFile, Error> {
        if write {
            return Err(read_only());
        }
        let inode = self.inode(number);
        if inode.view() == 0 {
            let Place::File(path, file) = self.place(inode)?.as_ref().clone() else {
                return Err(Error::new(ErrorKind::IsDirectory, "a directory cannot be read as a file"));
            };
            return Ok(self.handles.open_made(number, self.window_file(&path, file)));
        }
        let view = self.view(inode)?;
        let reader = view.open(&self.context, inode.node()).await?;
        let keep = view.keeps_pages(inode.node(), reader.verified());
        Ok(self.handles.open_file(number, view, reader, keep))
    }

    /// Bytes of an open file, fewer than asked for only at its end.
    ///
    /// # Errors
    /// What the registry or the check of the bytes says.
    pub async fn read(&self, handle: u64, offset: u64, length: u32) -> Result<Bytes, Error> {
        let file = self.handles.file(handle)?;
        let result = file.reader.read(offset, length).await;
        if let Err(error) = &result
            && error.kind == ErrorKind::Integrity
            && let Some(kernel) = self.kernel.get()
        {
            // Pages of the same file that came before the mismatch was seen must not be served from memory.
            kernel.forget_inode(file.number);
        }
        result
    }

    /// Closes a file.
    pub fn release(&self, handle: u64) {
        self.handles.close(handle);
    }

    /// Whether an access is allowed as far as this mount decides: the kernel checks modes where other users are
    /// admitted, else everything is readable.
    ///
    /// # Errors
    /// ReadOnly for writing, Denied for executing a file that nobody may execute.
    pub async fn access(&self, number: u64, write: bool, execute: bool) -> Result<(), Error> {
        if write {
            return Err(read_only());
        }
        if execute {
            let attributes = self.getattr(number).await?.attributes;
            if attributes.kind != Kind::Directory && attributes.mode & 0o111 == 0 {
                return Err(Error::new(ErrorKind::Denied, "the file is not executable"));
            }
        }
        Ok(())
    }

    /// Figures for `df`: the cache budget and what of it is unused.
    pub fn statfs(&self) -> Space {
        (self.config.space)()
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

/// The answer to every attempt to change something.
pub fn read_only() -> Error {
    Error::new(ErrorKind::ReadOnly, "this mount is read-only")
}
