//! One mount as its users call it: one interface to the names, the edited tags (`tags`) and the open files.

mod tags;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::access::{Asker, Need};
use super::changes::NewName;
use super::config::{Config, KernelCache, Root, Space};
use super::directory::DirectoryEntry;
use super::handle::{Handles, OpenDirectory, OpenFile};
use super::location::{Location, Locations};
use super::namespace::Namespace;
use super::open_files::OpenFiles;
use super::ready_files::ReadyFiles;
use super::staged_tags::StagedTags;
use super::tag_table::TagTable;
use super::{Caller, Entry, Lookup};
use crate::artifact::Artifacts;
use crate::error::Error;
use crate::oci::{Repository, Version};
use crate::publish::{Publisher, Sizes};
use crate::view::{Context, Key, Origin, SetAttributes, View, Views};

/// One mount.
pub struct FileSystem {
    pub(super) namespace: Arc<Namespace>,
    pub(super) tags: Arc<StagedTags>,
    pub(super) files: OpenFiles,
}

impl FileSystem {
    /// A file system; makes no request yet.
    ///
    /// # Errors
    /// None in practice: a fresh table of views has free numbers.
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
            identities: Arc::default(),
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
        let (warned, source_tags) = (AtomicBool::new(false), Mutex::new(None));
        let (root_view, staged, kernel) = (RwLock::new(root_view), TagTable::default(), OnceLock::new());
        let namespace = Arc::new(Namespace { config, context, views, locations, root_view, staged, warned, source_tags, kernel });
        let handles = Arc::new(Handles::default());
        let tags =
            StagedTags { namespace: Arc::clone(&namespace), publisher, publishing: Semaphore::new(1), handles: Arc::clone(&handles) };
        let tags = Arc::new(tags);
        let files = OpenFiles { namespace: Arc::clone(&namespace), tags: Arc::clone(&tags), handles, unopened: ReadyFiles::default() };
        Ok(Self { namespace, tags, files })
    }

    /// Checks a caller's access to an inode, as far as the kernel could not.
    ///
    /// # Errors
    /// Denied; `NotPermitted` if only the owner may do it; errors of entering the directory.
    pub async fn admit(&self, asker: &Asker, number: u64, need: Need) -> Result<(), Error> {
        self.namespace.admit(asker, number, need).await
    }

    /// Sets the channel for notifying the kernel. Only the first call has an effect.
    pub fn set_kernel_cache(&self, kernel: Arc<dyn KernelCache>) {
        self.namespace.set_kernel_cache(kernel)
    }

    /// The channel for notifying the kernel.
    #[cfg(test)]
    pub(crate) fn kernel_cache(&self) -> Option<&Arc<dyn KernelCache>> {
        self.namespace.kernel.get()
    }

    /// Bytes received and decoded so far, to distinguish a slow operation from a stuck one.
    pub fn progress(&self) -> u64 {
        self.namespace.progress()
    }

    /// Makes the next use of tags and lists request them from the registry (all, or those of one repository).
    pub fn refresh(&self, repository: Option<&Repository>) {
        self.namespace.refresh(repository)
    }

    /// Waits until everything seen is stored for offline use; awaited when a mount ends.
    pub async fn flush(&self) {
        self.namespace.flush().await
    }

    /// Looks up a name in a directory; a hit counts one more lookup.
    ///
    /// # Errors
    /// Errors of the registry or the artifact. A missing name is not an error.
    pub async fn lookup(&self, directory: u64, name: &[u8]) -> Result<Lookup, Error> {
        self.namespace.lookup(directory, name).await
    }

    /// Takes back lookups that the kernel has forgotten.
    pub fn forget(&self, number: u64, lookups: u64) {
        self.namespace.forget(number, lookups)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// Invalid unless it is a symlink.
    pub fn readlink(&self, number: u64) -> Result<Vec<u8>, Error> {
        self.namespace.readlink(number)
    }

    /// Figures for `df`: space for edits on a writable mount, else the cache budget and its unused part.
    ///
    /// # Errors
    /// Errors of the disk that holds the edits.
    pub async fn statfs(&self) -> Result<Space, Error> {
        self.namespace.statfs().await
    }

    /// The value of an extended attribute, `None` if it does not exist.
    ///
    /// # Errors
    /// Errors of the registry, for values that must be requested.
    pub async fn getxattr(&self, number: u64, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.namespace.getxattr(number, name).await
    }

    /// The listed names: those of the archive, none of ocifs's own.
    ///
    /// # Errors
    /// Gone for an inode that the kernel was told to forget.
    pub fn listxattr(&self, number: u64) -> Result<Vec<Vec<u8>>, Error> {
        self.namespace.listxattr(number)
    }

    /// Creates a regular file and opens it for writing. An existing one is opened, unless `exclusive`.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub async fn create(&self, caller: Caller, new: NewName, exclusive: bool) -> Result<(Entry, OpenFile), Error> {
        self.files.create(caller, new, exclusive).await
    }

    /// Keeps times of a regular file that the kernel writes back by itself, perhaps long after the file lost its last name.
    ///
    /// # Errors
    /// As [`Self::setattr`], but a removed file has no times to keep: that is not an error, or every
    /// `syncfs` after an `rm` would fail.
    pub async fn write_back_times(&self, caller: Caller, number: u64, set: SetAttributes) -> Result<Entry, Error> {
        self.files.write_back_times(caller, number, set).await
    }

    /// Opens a directory; every error of listing it is reported here.
    ///
    /// # Errors
    /// NotFound for a directory that turns out not to exist; else errors of the registry or artifact.
    pub async fn opendir(&self, number: u64) -> Result<OpenDirectory, Error> {
        self.files.opendir(number).await
    }

    /// Passes names after a cookie to `take` until it returns `false` because it is full and did not take the last one.
    ///
    /// # Errors
    /// Invalid for a handle that is not open. If no inode number is left, the listing ends with an error.
    pub fn readdirplus(&self, handle: u64, after: u64, take: &mut dyn FnMut(DirectoryEntry<'_>) -> bool) -> Result<(), Error> {
        self.files.readdirplus(handle, after, take)
    }

    /// Closes a directory.
    pub fn releasedir(&self, handle: u64) {
        self.files.releasedir(handle)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// For a writer: `ReadOnly` if nothing is writable, Busy if another process edits the tag, Gone in a directory of a tag that
    /// has moved; else errors of opening the blob.
    pub async fn open(&self, number: u64, write: bool) -> Result<OpenFile, Error> {
        self.files.open(number, write).await
    }

    /// Opens a file for reading, with the file of the cache that holds its bytes, if the kernel may read it by itself. Only on read-only
    /// mounts. Its open file description must last as long as the kernel does so.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_backed(&self, number: u64) -> Result<(OpenFile, Option<std::fs::File>), Error> {
        self.files.open_backed(number).await
    }

    /// Bytes of an open file, fewer than requested only at its end.
    ///
    /// # Errors
    /// Errors of the registry, or of verifying the bytes.
    pub async fn read(&self, handle: u64, offset: u64, length: u32) -> Result<Bytes, Error> {
        self.files.read(handle, offset, length).await
    }

    /// The same for a file that the kernel did not open; see [`Config::skips_opens`].
    ///
    /// # Errors
    /// Those of [`Self::open`] and [`Self::read`].
    pub async fn read_unopened(&self, number: u64, offset: u64, length: u32) -> Result<Bytes, Error> {
        self.files.read_unopened(number, offset, length).await
    }

    /// Writes all bytes at an offset. Completes immediately if nothing must be copied first. May be dropped and called again.
    /// `strip` is the kernel's flag on the write.
    ///
    /// # Errors
    /// `NoSpace` if the quota or the disk is full; else errors of reading the bytes below.
    pub async fn write(&self, handle: u64, offset: u64, bytes: &[u8], strip: bool) -> Result<(), Error> {
        self.files.write(handle, offset, bytes, strip).await
    }

    /// `fallocate(2)`.
    ///
    /// # Errors
    /// As [`Self::write`]; Unsupported for modes that the disk does not support.
    pub async fn allocate(&self, caller: Caller, handle: u64, mode: i32, offset: u64, length: u64) -> Result<(), Error> {
        self.files.allocate(caller, handle, mode, offset, length).await
    }

    /// The start of the next data (or hole) at or after an offset; `None` beyond the end.
    ///
    /// # Errors
    /// Errors of reading the layout of the file.
    pub async fn seek(&self, handle: u64, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        self.files.seek(handle, offset, data).await
    }

    /// The same for a file that the kernel did not open; see [`Config::skips_opens`].
    ///
    /// # Errors
    /// Those of [`Self::open`] and [`Self::seek`].
    pub async fn seek_unopened(&self, number: u64, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        self.files.seek_unopened(number, offset, data).await
    }

    /// Copies a range from one open file to another and returns the number of bytes copied.
    ///
    /// # Errors
    /// `CrossDevice` if the bytes are in another tag, so that the caller reads and writes them; else as [`Self::write`].
    pub async fn copy_range(&self, caller: Caller, from: (u64, u64), to: (u64, u64), length: u64) -> Result<u64, Error> {
        self.files.copy_range(caller, from, to, length).await
    }

    /// Reports the error of an earlier write to a close, once.
    ///
    /// # Errors
    /// That error.
    pub fn close_report(&self, handle: u64) -> Result<(), Error> {
        self.files.close_report(handle)
    }

    /// Makes the bytes of a file and all names of its tag survive a power cut.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn fsync(&self, handle: u64) -> Result<(), Error> {
        self.files.fsync(handle).await
    }

    /// Makes the names below a directory survive a power cut.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn fsyncdir(&self, number: u64) -> Result<(), Error> {
        self.files.fsyncdir(number).await
    }

    /// Closes a file.
    pub fn release(&self, handle: u64) {
        self.files.release(handle)
    }

    /// Attributes of an inode and how long they may be cached.
    ///
    /// # Errors
    /// Gone for an inode that the kernel was told to forget.
    pub async fn getattr(&self, number: u64) -> Result<Entry, Error> {
        self.files.getattr(number).await
    }

    /// Whether an access is allowed as far as this mount decides: the kernel checks modes if other users are
    /// admitted, else everything is readable.
    ///
    /// # Errors
    /// ReadOnly for writing a read-only object, Denied for executing a file without execute permission.
    pub async fn access(&self, number: u64, write: bool, execute: bool) -> Result<(), Error> {
        self.files.access(number, write, execute).await
    }

    /// Closes everything open, once the kernel sends no more requests, so that a disconnected writer keeps no tag from being
    /// published.
    pub fn disconnect(&self) {
        self.files.disconnect()
    }

    /// Removes staged tags without edits and makes the rest durable. The last action of a mount.
    pub async fn close(&self) {
        self.files.close().await
    }

    /// Whether the kernel need not open files; see [`Config::skips_opens`].
    pub fn skips_opens(&self) -> bool {
        self.namespace.config.skips_opens
    }

    /// Releases files that are kept ready for reads without a handle.
    pub fn let_go(&self) {
        self.files.unopened.clear()
    }
}

/// The view of the artifact that SOURCE refers to, which stays.
fn name_version(views: &Views, repository: &Repository, version: &Version) -> Result<Arc<View>, Error> {
    match version {
        Version::Tag(tag) => views.name(Key::Tag(repository.clone(), tag.clone()), || Origin::Tag(repository.clone(), tag.clone())),
        Version::Digest(digest) => views.name(Key::Digest(repository.clone(), *digest), || Origin::Digest(repository.clone(), *digest)),
    }
}
