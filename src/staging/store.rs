//! The staged files of one upper: their paths, which are open, which are frozen.
//!
//! Knows no nodes. A file is never written while a frozen generation may hold it, and never unlinked before the commit that released it is
//! durable (`pending_deletes.rs`).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, ErrorCode};

use super::budget::Account;
use super::error::{database, shown, system};
use super::log::Log;
use super::reserve::Room;
use super::state::{Shared, Staged, Standing, Store, UpperLocation};
use super::{DataAttributes, DataId};
use crate::durable;
use crate::error::{Error, ErrorKind};

/// Stands for `data` itself among its subdirectories.
const ROOT: u64 = 256;

impl Store {
    pub fn new(location: UpperLocation, account: Account, log: Log, next: DataId) -> Self {
        Self {
            location: RwLock::new(location),
            account,
            log,
            room: Room::default(),
            next: AtomicU64::new(next),
            open: Mutex::default(),
            fresh: Mutex::default(),
            naming: Mutex::default(),
            pending_deletes: Mutex::default(),
            frozen: AtomicU64::new(0),
            notes: Mutex::default(),
            shared: OnceLock::new(),
            removed: AtomicBool::new(false),
            disk_failed: AtomicBool::new(false),
            standing: Mutex::new(Standing::Current),
        }
    }

    pub fn location(&self) -> UpperLocation {
        self.location.read().clone()
    }

    /// Records that the upper was renamed.
    ///
    /// Its files are not in use while `rename` runs, which gets the new directory.
    pub fn move_to(&self, location: UpperLocation, rename: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
        let mut current = self.location.write();
        rename(&location.directory)?;
        *current = location;
        Ok(())
    }

    /// Renames the upper for removal. Its files are not in use meanwhile, and later calls fail.
    pub fn take_away(&self, rename: impl FnOnce(&Path) -> Result<PathBuf, Error>) -> Result<PathBuf, Error> {
        let location = self.location.write();
        let taken = rename(&location.directory)?;
        self.removed.store(true, Ordering::Release);
        Ok(taken)
    }

    /// Fails with Gone if the upper was removed.
    pub fn check(&self) -> Result<(), Error> {
        if self.removed.load(Ordering::Acquire) {
            let text = format!("the edits of {} were removed", self.location().tag_key.shown());
            return Err(Error::new(ErrorKind::Gone, text));
        }
        Ok(())
    }

    /// The relation of the upper to its tag.
    pub fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// Called under the database lock.
    pub fn set_standing(&self, standing: Standing) {
        *self.standing.lock() = standing;
    }

    /// Whether the disk has room for more bytes and the database. If that cannot be checked, assumes it has.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.with_directory(|directory| self.room.has(directory, bytes))
    }

    /// Records that the upper was removed with all its files. Bytes of open files count until they are closed.
    pub fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
        self.fresh.lock().clear();
        self.forget_pending_deletes();
        self.account.remove(u64::MAX);
        let open: Vec<Arc<Staged>> = self.open.lock().values().filter_map(Weak::upgrade).collect();
        for staged in open {
            staged.set_removed_with_upper();
        }
    }

    /// Works in the upper's directory, which is neither moved nor removed meanwhile. `work` must not ask for the location.
    pub fn with_directory<T>(&self, work: impl FnOnce(&Path) -> T) -> T {
        work(&self.location.read().directory)
    }

    pub fn path(&self, id: DataId) -> PathBuf {
        self.with_directory(|directory| path(directory, id))
    }

    /// As [`Store::with_directory`], but fails with Gone instead of a disk error if the upper was removed.
    pub fn in_directory<T>(&self, work: impl FnOnce(&Path) -> Result<T, Error>) -> Result<T, Error> {
        self.with_directory(work).or_else(|error| self.check().and(Err(error)))
    }

    /// Works on the path of staged bytes.
    fn at<T>(&self, id: DataId, work: impl FnOnce(&Path) -> Result<T, Error>) -> Result<T, Error> {
        self.in_directory(|directory| work(&path(directory, id)))
    }

    /// A database error, with the path.
    pub fn database_error(&self, what: &str, error: &rusqlite::Error) -> Error {
        let path = self.location().database();
        let told = database(what, &path, error);
        if told.kind == ErrorKind::Integrity && self.disk_failed.load(Ordering::Acquire) {
            // After a disk failure, SQLite's memory may not match the disk. The database itself is not damaged.
            let text = format!("{what} {}: the disk failed earlier; see the kernel log, then unmount and mount again", shown(&path));
            return Error::new(ErrorKind::Other, text);
        }
        if told.kind == ErrorKind::Other && error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
            self.disk_failed.store(true, Ordering::Release);
        }
        told
    }

    /// Creates an empty file, mode 0600, under a new number.
    pub fn create(self: &Arc<Self>) -> Result<Arc<Staged>, Error> {
        self.check()?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let create = |path: &Path| self.create_file(id, path).map_err(|error| system("cannot stage bytes in", path, &error));
        let file = self.at(id, create)?;
        let staged = Arc::new(Staged::create(self.clone(), id, file));
        self.open.lock().insert(id, Arc::downgrade(&staged));
        Ok(staged)
    }

    pub fn create_file(&self, id: DataId, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
                match DirBuilder::new().mode(0o700).create(parent) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
                self.fresh.lock().insert(ROOT);
                options.open(path)?
            }
            other => other?,
        };
        self.fresh.lock().insert(group(id));
        Ok(file)
    }

    /// Opens staged bytes for reading and writing. All openers of the same bytes share their account.
    pub fn data(self: &Arc<Self>, id: DataId) -> Result<Arc<Staged>, Error> {
        let mut open = self.open.lock();
        if let Some(staged) = open.get(&id).and_then(Weak::upgrade) {
            return Ok(staged);
        }
        self.check()?;
        let file = self.at(id, |path| durable::open_private(path, false).map_err(|error| open_error(id, path, &error)))?;
        let staged = Arc::new(Staged::open(self.clone(), id, file)?);
        open.insert(id, Arc::downgrade(&staged));
        Ok(staged)
    }

    /// Records that commits now refer to these files.
    pub fn set_referred(&self, ids: &[DataId]) {
        let staged: Vec<Arc<Staged>> = {
            let open = self.open.lock();
            ids.iter().filter_map(|id| open.get(id)?.upgrade()).collect()
        };
        // Dropped without the lock, which the last user of a file takes.
        staged.iter().for_each(|staged| staged.set_referred());
    }

    /// Visible attributes of staged bytes, which need not be open.
    pub fn attributes(&self, id: DataId) -> Result<DataAttributes, Error> {
        self.check()?;
        let open = self.open.lock().get(&id).and_then(Weak::upgrade);
        let metadata = match open {
            // Its path has many components.
            Some(staged) => staged.file.metadata().map_err(|error| staged.error("cannot read", &error))?,
            None => self.at(id, |path| std::fs::symlink_metadata(path).map_err(|error| open_error(id, path, &error)))?,
        };
        Ok(self.shown(id, &metadata))
    }

    /// Called when the last user of staged bytes is gone.
    pub fn forget(&self, id: DataId) {
        let mut open = self.open.lock();
        if open.get(&id).is_some_and(|staged| staged.strong_count() == 0) {
            open.remove(&id);
        }
    }

    /// Unlinks a file. Its bytes are released when its last user is gone.
    pub fn unlink(&self, id: DataId) -> Result<(), Error> {
        let path = self.path(id);
        let open = self.open.lock();
        let occupied = match open.get(&id).and_then(Weak::upgrade) {
            Some(staged) => {
                drop(open);
                staged.set_removed();
                0
            }
            None => std::fs::symlink_metadata(&path).map_or(0, |metadata| durable::occupied(&metadata)),
        };
        match self.with_directory(|directory| std::fs::remove_file(self::path(directory, id))) {
            Ok(()) => {
                self.account.remove(occupied);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(system("cannot remove", &path, &error)),
        }
    }

    /// Adds a subdirectory of `data` that an earlier process may have left unsynced.
    pub fn add_fresh(&self, group: u64) {
        self.fresh.lock().extend([group, ROOT]);
    }

    /// Makes the names of all new files survive a power cut.
    pub fn sync_names(&self) -> Result<(), Error> {
        let _turn = self.naming.lock();
        let fresh = std::mem::take(&mut *self.fresh.lock());
        for directory in &fresh {
            let synced = self.in_directory(|upper| {
                let path = if *directory == ROOT { upper.join("data") } else { group_path(upper, *directory) };
                durable::sync_directory(&path).map_err(|error| system("cannot sync", &path, &error))
            });
            if synced.is_err() {
                self.fresh.lock().extend(&fresh);
                return synced;
            }
        }
        Ok(())
    }

    /// Records that a generation is frozen, which has no file created from now on, or (`false`) that it ended.
    pub fn set_frozen(&self, is_frozen: bool) {
        let next = if is_frozen { self.next.load(Ordering::Acquire).max(1) } else { 0 };
        self.frozen.store(next, Ordering::Release);
    }

    /// Whether a frozen generation may hold a file.
    pub fn is_frozen(&self, id: DataId) -> bool {
        id < self.frozen.load(Ordering::Acquire)
    }

    /// Whether a generation is frozen.
    pub fn has_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire) > 0
    }

    /// Sets the owner.
    pub fn belong_to(&self, shared: &Arc<Shared>) {
        let _ = self.shared.set(Arc::downgrade(shared));
    }

    /// The owning upper with its database; Gone once it was closed.
    pub fn shared(&self) -> Result<Arc<Shared>, Error> {
        let gone = || Error::new(ErrorKind::Gone, format!("the edits of {} are not open here any more", self.location().tag_key.shown()));
        self.shared.get().and_then(Weak::upgrade).ok_or_else(gone)
    }

    /// Changes rows about staged bytes. No effect once the upper was removed: open files remain usable.
    pub fn note<T: Default>(&self, what: &str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        if self.check().is_err() {
            return Ok(T::default());
        }
        self.shared()?.transact(what, work)
    }
}

fn open_error(id: DataId, path: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) {
        return Error::new(
            ErrorKind::Gone,
            format!("the staged bytes {id} ({}) were released meanwhile; look the node up again", shown(path)),
        );
    }
    system("cannot open staged bytes", path, error)
}

/// Each 256 consecutive files share a directory.
fn group(id: DataId) -> u64 {
    id >> 8 & 0xff
}

fn group_path(upper: &Path, group: u64) -> PathBuf {
    upper.join("data").join(format!("{group:02x}"))
}

/// The path of staged bytes.
pub(super) fn path(upper: &Path, id: DataId) -> PathBuf {
    group_path(upper, group(id)).join(id.to_string())
}
