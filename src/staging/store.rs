//! The files with staged bytes of one upper: where they are, which are open, which are frozen.
//!
//! Knows no nodes. A file is never written again while a frozen generation has it, and never unlinked before the commit that
//! gave it up is durable (`waste.rs`).

use std::collections::{BTreeSet, HashMap};
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use super::budget::Account;
use super::data::{DataFile, Staged};
use super::error::{Error, shown};
use super::log::Log;
use super::waste::Waste;
use super::{DataId, Subject};
use crate::durable;
use crate::error::ErrorKind;

/// Where an upper is and whose it is; both change when it is moved.
#[derive(Clone)]
pub(super) struct Place {
    pub subject: Subject,
    pub directory: PathBuf,
}

impl Place {
    pub fn database(&self) -> PathBuf {
        self.directory.join("upper.db")
    }
}

/// What a frozen generation has.
#[derive(Default)]
pub(super) struct Pins {
    /// All staged bytes of its rows, sorted: none is unlinked.
    pub all: Vec<DataId>,
    /// Those that were open for writing, sorted: the generation has copies, their writers go on.
    pub copied: Vec<DataId>,
    /// Whether `copied` is known. Until then nobody is refused a write.
    pub is_sorted_out: bool,
}

impl Pins {
    /// Whether these bytes must not change.
    pub fn is_fixed(&self, id: DataId) -> bool {
        self.all.binary_search(&id).is_ok() && self.copied.binary_search(&id).is_err()
    }
}

/// The staged bytes of one upper. Locks: each is held for a moment, none while another of them is taken.
pub(super) struct Store {
    place: RwLock<Place>,
    pub account: Account,
    pub log: Log,
    /// The number of the next file.
    pub next: AtomicU64,
    open: Mutex<HashMap<DataId, Weak<Staged>>>,
    /// Directories of `data` with names that a power cut would lose; 256 stands for `data` itself.
    fresh: Mutex<BTreeSet<u64>>,
    /// Held while `fresh` is worked off, so that nobody takes the empty set of one who is not done for success.
    naming: Mutex<()>,
    pub waste: Mutex<Waste>,
    pins: Mutex<Option<Pins>>,
    /// Bytes written since the disk was last asked for its room.
    unasked: AtomicU64,
    /// The upper was removed: what is open stays usable, nothing else is.
    removed: AtomicBool,
    /// The upper is that of no tag any more, and is not changed again.
    retired: AtomicBool,
}

/// `data` itself among its directories.
const ROOT: u64 = 256;

/// What staged bytes leave free on the disk, so that the database can still record that a file was removed: whoever fills the disk
/// must be able to make room again.
const ROOM: u64 = 256 << 10;
/// The disk is asked for its room again after so many bytes.
const ASK_AFTER: u64 = 64 << 10;

/// A lock whose holder never leaves a half-made state.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub fn new(place: Place, account: Account, log: Log, next: DataId) -> Self {
        Self {
            place: RwLock::new(place),
            account,
            log,
            next: AtomicU64::new(next),
            open: Mutex::default(),
            fresh: Mutex::default(),
            naming: Mutex::default(),
            waste: Mutex::default(),
            pins: Mutex::default(),
            // The first write asks.
            unasked: AtomicU64::new(ASK_AFTER),
            removed: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        }
    }

    pub fn place(&self) -> Place {
        self.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The upper was renamed.
    pub fn set_place(&self, place: Place) {
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Gone once the upper was removed.
    pub fn check(&self) -> Result<(), Error> {
        if self.removed.load(Ordering::Acquire) {
            let text = format!("the edits of {} were removed", self.place().subject.shown());
            return Err(Error::new(ErrorKind::Gone, text));
        }
        Ok(())
    }

    /// The upper belongs to no tag any more.
    pub fn set_retired(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Gone once the upper belongs to no tag any more.
    pub fn check_current(&self) -> Result<(), Error> {
        if self.retired.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Gone, "the tag has moved since this directory was opened; open it again to change it"));
        }
        Ok(())
    }

    /// Whether the disk has room for so many bytes more and for what the database needs. A disk that cannot be asked has.
    pub fn has_room(&self, bytes: u64) -> bool {
        if self.unasked.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) < ASK_AFTER {
            return true;
        }
        let room = durable::free(&self.place().directory).map_or(u64::MAX, |free| free.available);
        let has_room = room >= bytes.saturating_add(ROOM);
        // A full disk is asked each time.
        self.unasked.store(if has_room { 0 } else { ASK_AFTER }, Ordering::Relaxed);
        has_room
    }

    /// The upper was removed with all its files. Bytes of those that are open count until they are closed.
    pub fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
        lock(&self.fresh).clear();
        self.forget_waste();
        self.account.remove(u64::MAX);
        let open: Vec<Arc<Staged>> = lock(&self.open).values().filter_map(Weak::upgrade).collect();
        for staged in open {
            staged.set_removed_with_upper();
        }
    }

    fn with_directory<T>(&self, work: impl FnOnce(&Path) -> T) -> T {
        work(&self.place.read().unwrap_or_else(PoisonError::into_inner).directory)
    }

    pub fn path(&self, id: DataId) -> PathBuf {
        self.with_directory(|directory| path(directory, id))
    }

    /// An error of the database, named with its place.
    pub fn database_error(&self, what: &str, error: &rusqlite::Error) -> Error {
        Error::database(what, &self.place().database(), error)
    }

    /// A new empty file, mode 0600, and its number.
    pub fn create(self: &Arc<Self>, counted: bool) -> Result<DataFile, Error> {
        self.check()?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path(id);
        let file = self.create_file(id, &path).map_err(|error| Error::system("cannot stage bytes in", &path, &error))?;
        let staged = Arc::new(Staged::new(self.clone(), id, file, counted)?);
        if counted {
            lock(&self.open).insert(id, Arc::downgrade(&staged));
        }
        Ok(DataFile::new(staged))
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
                lock(&self.fresh).insert(ROOT);
                options.open(path)?
            }
            other => other?,
        };
        lock(&self.fresh).insert(group(id));
        Ok(file)
    }

    /// Staged bytes for reading and writing. All who open the same bytes share their account.
    pub fn data(self: &Arc<Self>, id: DataId) -> Result<DataFile, Error> {
        let mut open = lock(&self.open);
        if let Some(staged) = open.get(&id).and_then(Weak::upgrade) {
            return Ok(DataFile::new(staged));
        }
        self.check()?;
        let path = self.path(id);
        let file = durable::open_private(&path, false).map_err(|error| open_error(id, &path, &error))?;
        let staged = Arc::new(Staged::new(self.clone(), id, file, true)?);
        open.insert(id, Arc::downgrade(&staged));
        drop(open);
        Ok(DataFile::new(staged))
    }

    pub fn open_for_reading(&self, id: DataId) -> Result<File, Error> {
        self.check()?;
        let path = self.path(id);
        File::open(&path).map_err(|error| open_error(id, &path, &error))
    }

    pub fn metadata(&self, id: DataId) -> Result<Metadata, Error> {
        self.check()?;
        let path = self.path(id);
        std::fs::symlink_metadata(&path).map_err(|error| open_error(id, &path, &error))
    }

    /// The last user of staged bytes is gone.
    pub fn forget(&self, id: DataId) {
        let mut open = lock(&self.open);
        if open.get(&id).is_some_and(|staged| staged.strong_count() == 0) {
            open.remove(&id);
        }
    }

    /// Unlinks a file. Its bytes are given back when its last user is gone.
    pub fn unlink(&self, id: DataId) -> Result<(), Error> {
        let path = self.path(id);
        let open = lock(&self.open);
        let occupied = match open.get(&id).and_then(Weak::upgrade) {
            Some(staged) => {
                drop(open);
                staged.set_removed();
                0
            }
            None => std::fs::symlink_metadata(&path).map_or(0, |metadata| durable::occupied(&metadata)),
        };
        match std::fs::remove_file(&path) {
            Ok(()) => {
                self.account.remove(occupied);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::system("cannot remove", &path, &error)),
        }
    }

    /// A directory of `data` that an earlier process may have left unsynced.
    pub fn add_fresh(&self, group: u64) {
        lock(&self.fresh).extend([group, ROOT]);
    }

    /// Makes the names of all new files survive a power cut.
    pub fn sync_names(&self) -> Result<(), Error> {
        let _turn = lock(&self.naming);
        let fresh = std::mem::take(&mut *lock(&self.fresh));
        for directory in &fresh {
            let path = self.with_directory(|upper| if *directory == ROOT { upper.join("data") } else { group_path(upper, *directory) });
            if let Err(error) = durable::sync_directory(&path) {
                lock(&self.fresh).extend(&fresh);
                return Err(Error::system("cannot sync", &path, &error));
            }
        }
        Ok(())
    }

    /// Pins what a frozen generation has, or (`None`) lets it go.
    pub fn pin(&self, pins: Option<Pins>) {
        *lock(&self.pins) = pins;
    }

    /// Asks the pins; `false` without any.
    pub fn ask_pins(&self, question: impl FnOnce(&Pins) -> bool) -> bool {
        lock(&self.pins).as_ref().is_some_and(question)
    }

    /// Says of which bytes the frozen generation will have copies.
    pub fn set_copied(&self, copied: Vec<DataId>) {
        if let Some(pins) = lock(&self.pins).as_mut() {
            pins.copied = copied;
            pins.is_sorted_out = true;
        }
    }

    /// Whether a generation is frozen.
    pub fn is_pinned(&self) -> bool {
        self.ask_pins(|_| true)
    }
}

fn open_error(id: DataId, path: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) {
        return Error::new(
            ErrorKind::Gone,
            format!("the staged bytes {id} ({}) were given up meanwhile; look at the node again", shown(path)),
        );
    }
    Error::system("cannot open staged bytes", path, error)
}

/// 256 files in a row share a directory.
fn group(id: DataId) -> u64 {
    id >> 8 & 0xff
}

fn group_path(upper: &Path, group: u64) -> PathBuf {
    upper.join("data").join(format!("{group:02x}"))
}

/// Where staged bytes lie.
pub(super) fn path(upper: &Path, id: DataId) -> PathBuf {
    group_path(upper, group(id)).join(id.to_string())
}
