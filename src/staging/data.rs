//! Staged bytes that are open: positional reads and writes, counted against the quota.
//!
//! A write that fails leaves all earlier bytes as they were and the file as long as it was.

use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::DataId;
use super::error::Error;
use super::store::{Store, lock};
use crate::durable;
use crate::error::ErrorKind;
use crate::sys::copy::{copy, share};
use crate::sys::extent::{next_data, next_hole};
use crate::sys::space::{KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, allocate_as};

/// File systems allocate in blocks; a larger one is corrected after the write.
const BLOCK: u64 = 4096;

/// One file with staged bytes, shared by all who have it open.
pub(super) struct Staged {
    store: Arc<Store>,
    id: DataId,
    file: File,
    extent: Mutex<Extent>,
    /// Grows with every change of the bytes.
    version: AtomicU64,
    /// Copies of a frozen generation do not count.
    counted: bool,
    removed: AtomicBool,
    /// Its name may be lost in a power cut.
    fresh: AtomicBool,
    /// A sync failed: see [`super::log::Log`].
    failed: AtomicBool,
}

/// What the file is known to occupy. Held during a change, so that the account is exact.
struct Extent {
    length: u64,
    occupied: u64,
}

impl Staged {
    /// A file that was just made or opened; a new one is empty, one that exists is in the account already.
    pub fn new(store: Arc<Store>, id: DataId, file: File, counted: bool) -> Result<Self, Error> {
        let metadata = file.metadata().map_err(|error| Error::system("cannot read", &store.path(id), &error))?;
        let extent = Mutex::new(Extent { length: metadata.len(), occupied: durable::occupied(&metadata) });
        let flag = || AtomicBool::new(false);
        Ok(Self {
            store,
            id,
            file,
            extent,
            version: AtomicU64::new(0),
            counted,
            removed: flag(),
            fresh: AtomicBool::new(true),
            failed: flag(),
        })
    }

    pub fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// As [`Staged::set_removed`], where the whole account was emptied.
    pub fn set_removed_with_upper(&self) {
        let extent = lock(&self.extent);
        if !self.removed.swap(true, Ordering::AcqRel) && self.counted {
            self.store.account.add(extent.occupied);
        }
    }

    fn error(&self, what: &str, error: &io::Error) -> Error {
        Error::system(what, &self.store.path(self.id), error)
    }

    /// Corrects the account after a change, `reserved` bytes of which were counted before it.
    fn recount(&self, extent: &mut Extent, reserved: u64) {
        let before = extent.occupied;
        if let Ok(metadata) = self.file.metadata() {
            *extent = Extent { length: metadata.len(), occupied: durable::occupied(&metadata) };
        }
        if self.counted {
            self.store.account.add(extent.occupied.saturating_sub(before));
            self.store.account.remove(reserved.saturating_add(before.saturating_sub(extent.occupied)));
        }
    }

    /// Counts what a write to a range will occupy, or refuses it.
    fn reserve(&self, extent: &Extent, offset: u64, end: u64) -> Result<u64, Error> {
        let account = &self.store.account;
        let bound = (end.next_multiple_of(BLOCK)).saturating_sub(offset / BLOCK * BLOCK);
        if self.counted
            && !self.store.has_room(bound)
            && self.missing(extent, offset, end).map_err(|error| self.error("cannot write", &error))? > 0
        {
            self.store.collect()?;
            if !self.store.has_room(bound) {
                return Err(self.error("cannot write", &io::ErrorKind::StorageFull.into()));
            }
        }
        if !self.counted || account.reserve(bound) {
            return Ok(if self.counted { bound } else { 0 });
        }
        let missing = self.missing(extent, offset, end).map_err(|error| self.error("cannot write", &error))?;
        if account.reserve(missing) {
            return Ok(missing);
        }
        // Bytes that were given up and are not unlinked yet count: now they are needed.
        self.store.collect()?;
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

    /// Bytes of a range that lie in holes or behind the end.
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

    /// Changes bytes of a range under the account. On an error the file gets its length back.
    fn change(&self, offset: u64, length: u64, what: &str, work: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        let Some(end) = end else {
            return Err(Error::new(ErrorKind::Invalid, format!("no file reaches from {offset} over {length} bytes")));
        };
        let mut extent = lock(&self.extent);
        let reserved = self.reserve(&extent, offset, end)?;
        self.finish(&mut extent, reserved, what, work)
    }

    fn refuse_frozen(&self) -> Result<(), Error> {
        if self.store.ask_pins(|pins| pins.is_sorted_out && pins.is_fixed(self.id)) {
            return Err(Error::new(ErrorKind::Busy, format!("the staged bytes {} are being published; write to a clone", self.id)));
        }
        Ok(())
    }

    fn finish(&self, extent: &mut Extent, reserved: u64, what: &str, work: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
        self.refuse_frozen().inspect_err(|_| self.store.account.remove(reserved))?;
        self.version.fetch_add(1, Ordering::AcqRel);
        let result = work();
        if result.is_err() {
            // What was there before keeps its bytes; only the attempt behind the end is cut off again.
            let grown = self.file.metadata().is_ok_and(|metadata| metadata.len() > extent.length);
            let cut = if grown { self.file.set_len(extent.length) } else { Ok(()) };
            cut.map_err(|error| self.error("cannot cut", &error))?;
        }
        self.recount(extent, reserved);
        result.map_err(|error| self.error(what, &error))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let mut extent = lock(&self.extent);
        // File systems allocate late: what is counted from now on is what an unlinking will find.
        self.recount(&mut extent, 0);
        if self.removed.load(Ordering::Acquire) && self.counted {
            self.store.account.remove(extent.occupied);
        }
        drop(extent);
        self.store.forget(self.id);
    }
}

/// Staged bytes that are open. Counts what it adds against the quota and answers NoSpace before the disk does. Positional
/// reads and writes; shared freely.
///
/// New bytes that shall replace published ones (a copy-up) must be made durable with [`DataFile::sync`] before a node is put that
/// refers to them: else a power cut could keep the node and lose the bytes.
#[derive(Clone)]
pub struct DataFile {
    staged: Arc<Staged>,
}

impl DataFile {
    pub(super) fn new(staged: Arc<Staged>) -> Self {
        Self { staged }
    }

    /// How often the bytes were changed since they were opened first.
    pub(super) fn version(&self) -> u64 {
        self.staged.version.load(Ordering::Acquire)
    }

    /// Fills this empty file with the bytes and the modification time of another. A writer of the other goes on meanwhile, but what
    /// is copied is one state of it: after two attempts the writer has to wait.
    pub(super) fn copy_all(&self, source: &Self) -> Result<u64, Error> {
        for _ in 0..2 {
            let version = source.version();
            self.copy_once(source)?;
            if source.version() == version {
                return Ok(version);
            }
            self.set_length(0)?;
        }
        let _writers_wait = lock(&source.staged.extent);
        self.copy_once(source)?;
        Ok(source.version())
    }

    fn copy_once(&self, source: &Self) -> Result<(), Error> {
        let (from, to) = (&source.staged, &self.staged);
        let metadata = from.file.metadata().map_err(|error| from.error("cannot read", &error))?;
        let mut extent = lock(&to.extent);
        let reserved = if to.counted { durable::occupied(&metadata) } else { 0 };
        if reserved > 0 && !to.store.account.reserve(reserved) {
            to.store.collect()?;
            if !to.store.account.reserve(reserved) {
                return Err(to.quota_error());
            }
        }
        to.version.fetch_add(1, Ordering::AcqRel);
        let copied = copy_extents(&from.file, &to.file, metadata.len());
        to.recount(&mut extent, reserved);
        copied.map_err(|error| to.error("cannot copy staged bytes to", &error))?;
        drop(extent);
        self.set_mtime((metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0)))
    }

    /// Its number.
    pub fn id(&self) -> DataId {
        self.staged.id
    }

    /// Bytes at an offset, fewer only at the end.
    pub fn read_at(&self, offset: u64, length: u32) -> Result<Bytes, Error> {
        let failed = |error: io::Error| self.staged.error("cannot read", &error);
        // Never more than there is, whatever was asked for.
        let there = self.staged.file.metadata().map_err(failed)?.len().saturating_sub(offset);
        let wanted = usize::try_from(there.min(u64::from(length))).unwrap_or(usize::MAX);
        let mut buffer = vec![0; wanted];
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.staged.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        buffer.truncate(filled);
        Ok(buffer.into())
    }

    /// Writes all of it at an offset.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.staged.change(offset, bytes.len() as u64, "cannot write", || self.staged.file.write_all_at(bytes, offset))
    }

    /// Cuts or extends.
    pub fn set_length(&self, length: u64) -> Result<(), Error> {
        if i64::try_from(length).is_err() {
            return Err(Error::new(ErrorKind::Invalid, format!("no file is {length} bytes long")));
        }
        let mut extent = lock(&self.staged.extent);
        self.staged.finish(&mut extent, 0, "cannot set the length of", || self.staged.file.set_len(length))
    }

    /// `fallocate(2)` with these mode bits (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE …); Unsupported for others.
    pub fn allocate(&self, mode: i32, offset: u64, length: u64) -> Result<(), Error> {
        let staged = &self.staged;
        let unsupported = || Error::new(ErrorKind::Unsupported, format!("fallocate with mode {mode:#x} is not possible here"));
        let mut refused = false;
        let work = || loop {
            match allocate_as(&staged.file, mode, offset, length) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.inspect_err(|error| refused = durable::is_unsupported(error)),
            }
        };
        let result = match mode & !KEEP_SIZE {
            0 | ZERO_RANGE => staged.change(offset, length, "cannot allocate", work),
            PUNCH_HOLE if mode & KEEP_SIZE != 0 => staged.finish(&mut lock(&staged.extent), 0, "cannot punch", work),
            _ => Err(unsupported()),
        };
        if refused { Err(unsupported()) } else { result }
    }

    /// `lseek(2)` with SEEK_DATA (`data`) or SEEK_HOLE; `None` beyond the end.
    pub fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        if i64::try_from(offset).is_err() {
            return Ok(None);
        }
        let found = if data { next_data(&self.staged.file, offset) } else { next_hole(&self.staged.file, offset) };
        found.map_err(|error| self.staged.error("cannot seek in", &error))
    }

    /// Size and modification time.
    pub fn attributes(&self) -> Result<(u64, (i64, u32)), Error> {
        let metadata = self.staged.file.metadata().map_err(|error| self.staged.error("cannot read", &error))?;
        Ok((metadata.len(), (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0))))
    }

    /// Sets the modification time.
    pub fn set_mtime(&self, mtime: (i64, u32)) -> Result<(), Error> {
        let Some(time) = system_time(mtime) else {
            return Err(Error::new(ErrorKind::Invalid, format!("{}.{:09} is no time", mtime.0, mtime.1)));
        };
        self.staged.refuse_frozen()?;
        self.staged.version.fetch_add(1, Ordering::AcqRel);
        let set = self.staged.file.set_times(FileTimes::new().set_modified(time));
        set.map_err(|error| self.staged.error("cannot set the time of", &error))
    }

    /// Makes its bytes, and its name, survive a power cut.
    pub fn sync(&self) -> Result<(), Error> {
        if self.staged.failed.load(Ordering::Acquire) {
            return Err(self.staged.error("cannot sync", &io::Error::other("an earlier sync failed, and what it left out is unknown")));
        }
        self.staged.file.sync_all().map_err(|error| {
            self.staged.failed.store(true, Ordering::Release);
            self.staged.error("cannot sync", &error)
        })?;
        if self.staged.fresh.load(Ordering::Acquire) {
            self.staged.store.sync_names()?;
            self.staged.fresh.store(false, Ordering::Release);
        }
        Ok(())
    }
}

/// Copies what lies in no hole.
fn copy_extents(from: &File, to: &File, length: u64) -> io::Result<()> {
    if share(from, to)? {
        return Ok(());
    }
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let Some(start) = next_data(from, at)?.filter(|start| *start < length) else { break };
        let end = next_hole(from, start)?.unwrap_or(length).min(length);
        at = start;
        while at < end {
            match copy(from, to, at, end - at) {
                // Somebody cut the source: the caller sees that it changed.
                Ok(0) => return Ok(()),
                Ok(copied) => at += copied,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn system_time((seconds, nanoseconds): (i64, u32)) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) }?;
    base.checked_add(Duration::from_nanos(u64::from(nanoseconds)))
}
