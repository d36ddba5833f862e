//! Open staged files: positional writes, counted against the quota.
//!
//! A failed write leaves all earlier bytes and the length unchanged.
//!
//! The extent lock is taken before the database lock.

use std::fs::{File, FileTimes};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::error::system;
use super::state::{Base, Extent, Layer, Staged, Store, Under};
use super::{DataAttributes, DataId, bases};
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::sys::extent::{next_data, next_hole};
use crate::sys::space::{KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, allocate_as};

/// Assumed block size of file systems; a larger one is corrected after the write.
const BLOCK: u64 = 4096;

impl Staged {
    /// Opens an existing file that is already in the account.
    pub fn open(store: Arc<Store>, id: DataId, file: File) -> Result<Self, Error> {
        let metadata = file.metadata().map_err(|error| system("cannot read", &store.path(id), &error))?;
        let sizes = (metadata.len(), durable::occupied(&metadata));
        Ok(Self::new(store, id, file, Under::Unknown, sizes, false))
    }

    /// A new empty file.
    pub fn create(store: Arc<Store>, id: DataId, file: File) -> Self {
        Self::new(store, id, file, Under::Nothing, (0, 0), true)
    }

    fn new(store: Arc<Store>, id: DataId, file: File, under: Under, (length, occupied): (u64, u64), is_new: bool) -> Self {
        let extent = Extent { length, under, writes: 0, unsynced: is_new.then_some(true), spoiled: 0 };
        let flag = AtomicBool::new;
        let (whole, sealed, loose) = (flag(is_new), flag(false), flag(is_new));
        let (removed, fresh, failed) = (flag(false), flag(true), flag(false));
        let occupied = AtomicU64::new(occupied);
        Self { store, id, file, extent: Mutex::new(extent), whole, sealed, loose, removed, occupied, fresh, failed }
    }

    /// A commit now refers to it.
    pub fn set_referred(&self) {
        self.loose.store(false, Ordering::Release);
    }

    pub fn is_fixed(&self) -> bool {
        self.sealed.load(Ordering::Acquire) || self.store.is_frozen(self.id)
    }

    pub fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// As [`Staged::set_removed`], when the whole account was emptied.
    pub fn set_removed_with_upper(&self) {
        if !self.removed.swap(true, Ordering::AcqRel) {
            self.store.account.add(self.occupied.load(Ordering::Acquire));
        }
    }

    pub fn error(&self, what: &str, error: &io::Error) -> Error {
        system(what, &self.store.path(self.id), error)
    }

    /// Corrects the account after a change for which `reserved` bytes were counted in advance.
    pub fn recount(&self, extent: &mut Extent, reserved: u64) {
        let before = self.occupied.load(Ordering::Acquire);
        let mut occupied = before;
        if let Ok(metadata) = self.file.metadata() {
            (extent.length, occupied) = (metadata.len(), durable::occupied(&metadata));
        }
        self.occupied.store(occupied, Ordering::Release);
        self.store.account.add(occupied.saturating_sub(before));
        self.store.account.remove(reserved.saturating_add(before.saturating_sub(occupied)));
    }

    /// Reserves the space that a write to a range needs, or refuses.
    pub fn reserve(&self, extent: &Extent, offset: u64, end: u64) -> Result<u64, Error> {
        let account = &self.store.account;
        let bound = (end.next_multiple_of(BLOCK)).saturating_sub(offset / BLOCK * BLOCK);
        if !self.store.has_room(bound) && self.missing(extent, offset, end).map_err(|error| self.error("cannot write", &error))? > 0 {
            self.store.shared()?.collect()?;
            if !self.store.has_room(bound) {
                return Err(self.error("cannot write", &io::ErrorKind::StorageFull.into()));
            }
        }
        if account.reserve(bound) {
            return Ok(bound);
        }
        let missing = self.missing(extent, offset, end).map_err(|error| self.error("cannot write", &error))?;
        if account.reserve(missing) {
            return Ok(missing);
        }
        // Released bytes that are not unlinked yet still count: free them now.
        self.store.shared()?.collect()?;
        if account.reserve(missing) {
            return Ok(missing);
        }
        Err(self.quota_error())
    }

    fn quota_error(&self) -> Error {
        let budget = self.store.account.budget();
        let quota = budget.quota.unwrap_or(u64::MAX);
        Error::new(
            ErrorKind::NoSpace,
            format!("{} of {quota} bytes are staged: publish with `ocifs sync`, or raise --staging-size", budget.used()),
        )
    }

    /// Bytes of a range that are in holes or beyond the end.
    fn missing(&self, extent: &Extent, offset: u64, end: u64) -> io::Result<u64> {
        let mut missing = 0;
        let mut at = offset / BLOCK * BLOCK;
        while at < end {
            let hole = if at < extent.length { next_hole(&self.file, at)?.unwrap_or(at) } else { at };
            if hole >= end {
                break;
            }
            let data = if hole < extent.length { next_data(&self.file, hole)?.unwrap_or(end) } else { end }.clamp(hole, end);
            missing += data.next_multiple_of(BLOCK) - hole / BLOCK * BLOCK;
            at = data.max(at + 1);
        }
        Ok(missing)
    }

    /// Changes bytes of a range and updates the account. On error the length is restored. `owns`: the range then belongs to the file itself.
    fn change(&self, offset: u64, length: u64, owns: bool, what: &str, work: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        let Some(end) = end else {
            return Err(Error::new(ErrorKind::Invalid, format!("no file reaches from {offset} over {length} bytes")));
        };
        let mut extent = self.begin()?;
        let reserved = self.reserve(&extent, offset, end)?;
        self.finish(&mut extent, reserved, what, work)?;
        if owns { self.own(&mut extent, offset..end) } else { Ok(()) }
    }

    /// Starts a change: refuses if the bytes are fixed. Records that a power cut may now lose bytes, and that the time is new.
    fn begin(&self) -> Result<parking_lot::MutexGuard<'_, Extent>, Error> {
        let mut extent = self.extent()?;
        if self.is_fixed() {
            return Err(Error::new(ErrorKind::Busy, format!("the staged bytes {} are fixed; create a new file over them", self.id)));
        }
        if extent.unsynced != Some(true) {
            self.store.note("cannot write", |connection| bases::set_unsynced(connection, self.id, true))?;
            extent.unsynced = Some(true);
        }
        extent.writes += 1;
        self.store.forget_time(self.id)?;
        Ok(extent)
    }

    fn finish(&self, extent: &mut Extent, reserved: u64, what: &str, work: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
        let result = work();
        if result.is_err() {
            extent.spoiled += 1;
            // Old bytes stay; only growth is undone.
            let grown = self.file.metadata().is_ok_and(|metadata| metadata.len() > extent.length);
            let cut = if grown { self.file.set_len(extent.length) } else { Ok(()) };
            cut.map_err(|error| self.error("cannot cut", &error))?;
        }
        self.recount(extent, reserved);
        result.map_err(|error| self.error(what, &error))
    }
}

impl Staged {
    /// Remembers the visible times before they are disturbed.
    pub fn keep_times(&self) -> Result<(), Error> {
        let metadata = self.file.metadata().map_err(|error| self.error("cannot read", &error))?;
        self.store.keep_times(self.id, &metadata);
        Ok(())
    }

    /// Restores the remembered modification time, as far as the disk can represent it.
    pub fn restore_mtime(&self) -> io::Result<()> {
        let Some(time) = self.store.kept_mtime(self.id).and_then(system_time) else { return Ok(()) };
        self.file.set_times(FileTimes::new().set_modified(time))
    }

    /// Makes the bytes and the name survive a power cut.
    pub fn sync_bytes(&self) -> Result<(), Error> {
        if self.failed.load(Ordering::Acquire) {
            return Err(self.error("cannot sync", &io::Error::other("an earlier sync failed, and it is unknown which bytes it lost")));
        }
        self.file.sync_all().map_err(|error| {
            self.failed.store(true, Ordering::Release);
            self.error("cannot sync", &error)
        })?;
        if self.fresh.load(Ordering::Acquire) {
            self.store.sync_names()?;
            self.fresh.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Syncs the file and its base, and records that.
    fn sync(&self) -> Result<(), Error> {
        let (writes, below) = {
            let extent = self.extent()?;
            let below = match &extent.under {
                Under::Over(Layer { base: Base::Data(below), .. }) => Some(Arc::clone(below)),
                _ => None,
            };
            (extent.writes, below)
        };
        below.map_or(Ok(()), |below| below.sync())?;
        self.sync_bytes()?;
        let mut extent = self.extent()?;
        // Writes made meanwhile are left for a later sync.
        if extent.writes == writes && extent.unsynced != Some(false) && !self.loose.load(Ordering::Acquire) {
            self.store.note("cannot sync", |connection| bases::set_unsynced(connection, self.id, false))?;
            extent.unsynced = Some(false);
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let mut extent = self.extent.lock();
        // File systems allocate lazily; from here on the count matches what unlinking frees.
        self.recount(&mut extent, 0);
        let mut is_gone = self.removed.load(Ordering::Acquire);
        if !is_gone && self.loose.load(Ordering::Acquire) {
            is_gone = std::fs::remove_file(self.store.path(self.id)).is_ok();
        }
        if is_gone {
            self.store.account.remove(self.occupied.load(Ordering::Acquire));
        }
        drop(extent);
        self.store.forget(self.id);
    }
}

/// An open staged file. Growth counts against the quota, and NoSpace comes before the disk is full. Positional reads and writes; freely shared. A
/// new file that no commit refers to is unlinked with its last user.
#[derive(Clone)]
pub struct DataFile {
    pub(super) staged: Arc<Staged>,
}

impl DataFile {
    pub(super) fn new(staged: Arc<Staged>) -> Self {
        Self { staged }
    }

    /// Its number.
    pub fn id(&self) -> DataId {
        self.staged.id
    }

    /// Writes all bytes at an offset.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.staged.change(offset, bytes.len() as u64, true, "cannot write", || self.staged.file.write_all_at(bytes, offset))
    }

    /// Truncates or extends.
    pub fn set_length(&self, length: u64) -> Result<(), Error> {
        if i64::try_from(length).is_err() {
            return Err(Error::new(ErrorKind::Invalid, format!("invalid file length {length}")));
        }
        let staged = &self.staged;
        let mut extent = staged.begin()?;
        let is_cut = staged.begin_cut(&mut extent, length)?;
        staged.finish(&mut extent, 0, "cannot set the length of", || staged.file.set_len(length))?;
        if is_cut {
            staged.end_cut(&mut extent)?;
        }
        if length == 0 { staged.store.clear_suspect(staged.id) } else { Ok(()) }
    }

    /// `fallocate(2)` with these mode bits (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE …); Unsupported for others.
    pub fn allocate(&self, mode: i32, offset: u64, length: u64) -> Result<(), Error> {
        let staged = &self.staged;
        let unsupported = || Error::new(ErrorKind::Unsupported, format!("fallocate mode {mode:#x} is not supported"));
        let mut refused = false;
        let work = || loop {
            match allocate_as(&staged.file, mode, offset, length) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.inspect_err(|error| refused = durable::is_unsupported(error)),
            }
        };
        let result = match mode & !KEEP_SIZE {
            0 => staged.change(offset, length, false, "cannot allocate", work),
            ZERO_RANGE => staged.change(offset, length, true, "cannot allocate", work),
            PUNCH_HOLE if mode & KEEP_SIZE != 0 => staged.punch(offset..offset.saturating_add(length), work),
            _ => Err(unsupported()),
        };
        if refused { Err(unsupported()) } else { result }
    }

    /// Length.
    pub fn length(&self) -> Result<u64, Error> {
        Ok(self.staged.file.metadata().map_err(|error| self.staged.error("cannot read", &error))?.len())
    }

    /// Size and times.
    pub fn attributes(&self) -> Result<DataAttributes, Error> {
        let metadata = self.staged.file.metadata().map_err(|error| self.staged.error("cannot read", &error))?;
        Ok(self.staged.store.shown(self.staged.id, &metadata))
    }

    /// Sets the modification time.
    pub fn set_mtime(&self, mtime: (i64, u32)) -> Result<(), Error> {
        let Some(time) = system_time(mtime) else {
            return Err(Error::new(ErrorKind::Invalid, format!("invalid time {}.{:09}", mtime.0, mtime.1)));
        };
        let staged = &self.staged;
        let _extent = staged.begin()?;
        let set = staged.file.set_times(FileTimes::new().set_modified(time)).and_then(|()| staged.file.metadata());
        let metadata = set.map_err(|error| staged.error("cannot set the time of", &error))?;
        staged.store.set_time(staged.id, mtime, &metadata)
    }

    /// Makes the bytes and the name survive a power cut.
    pub fn sync(&self) -> Result<(), Error> {
        self.staged.sync()
    }
}

impl Staged {
    /// Punches a hole, which needs no space.
    fn punch(&self, range: Range<u64>, work: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
        let mut extent = self.begin()?;
        self.finish(&mut extent, 0, "cannot punch", work)?;
        self.own(&mut extent, range)
    }
}

/// Bytes of a range, zeros beyond the end of the file.
pub(super) fn read_exact_or_zeros(file: &File, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, range.start + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer)
}

fn system_time((seconds, nanoseconds): (i64, u32)) -> Option<SystemTime> {
    if nanoseconds >= 1_000_000_000 {
        return None;
    }
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) }?;
    base.checked_add(Duration::from_nanos(u64::from(nanoseconds)))
}
