//! Documents in the budget: counted together with spans, and evicted by age once no span is left to evict.
//!
//! The time of last use is the file's modification time, with a resolution of an hour. Pinned documents stay, and so do those mapped by a
//! process: removing them would free nothing but no longer be counted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, Metadata};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::pins::Pinned;
use super::shared::{Shared, failed};
use crate::durable;
use crate::error::Error;

/// Resolution of the time of last use.
const STEP: Duration = Duration::from_secs(3600);

/// Calls `visit` for every document, including unfinished ones, with its kind.
pub fn each_document(shared: &Shared, mut visit: impl FnMut(&OsStr, &DirEntry) -> Result<(), Error>) -> Result<(), Error> {
    let root = shared.root.join("documents");
    for kind in fs::read_dir(&root).map_err(failed("list", &root))?.flatten() {
        for entry in fs::read_dir(kind.path()).map_err(failed("list", &kind.path()))?.flatten() {
            visit(&kind.file_name(), &entry)?;
        }
    }
    Ok(())
}

/// Records a use of a document, unless one was recorded within the hour.
pub fn touch(file: &File) -> io::Result<()> {
    let now = SystemTime::now();
    let used = file.metadata()?.modified()?;
    if used > now || now.duration_since(used).is_ok_and(|age| age >= STEP) {
        file.set_modified(now)?;
    }
    Ok(())
}

/// Disk usage of the documents, in bytes.
pub fn count(shared: &Shared) -> Result<u64, Error> {
    let mut total = 0_u64;
    each_document(shared, |_, entry| {
        total = total.saturating_add(entry.metadata().map_or(0, |metadata| durable::occupied(&metadata)));
        Ok(())
    })?;
    Ok(total)
}

/// Removes documents, least recently used first, until `goal` bytes are free or only `pinned` or mapped ones are left. Returns the bytes freed.
pub fn remove_oldest(shared: &Shared, pinned: &Pinned, goal: u64) -> Result<u64, Error> {
    // Two walks and no list of names: the first sums bytes by age, the second removes everything older than the age that suffices.
    let mut ages: BTreeMap<u64, u64> = BTreeMap::new();
    each_document(shared, |kind, entry| {
        if let Some((age, size)) = removable(kind, entry, pinned) {
            let sum = ages.entry(age).or_insert(0);
            *sum = sum.saturating_add(size);
        }
        Ok(())
    })?;
    let mut planned = 0_u64;
    let Some(oldest) = ages.into_iter().find_map(|(age, size)| {
        planned = planned.saturating_add(size);
        (planned >= goal).then_some(age)
    }) else {
        return remove(shared, pinned, u64::MAX, u64::MAX);
    };
    remove(shared, pinned, oldest, goal)
}

fn remove(shared: &Shared, pinned: &Pinned, oldest: u64, goal: u64) -> Result<u64, Error> {
    let mut freed = 0_u64;
    for of_oldest in [false, true] {
        each_document(shared, |kind, entry| {
            let due = removable(kind, entry, pinned).filter(|(age, _)| *age < oldest || of_oldest && *age == oldest);
            if let Some((_, size)) = due.filter(|_| freed < goal)
                && fs::remove_file(entry.path()).is_ok()
            {
                freed = freed.saturating_add(size);
            }
            Ok(())
        })?;
    }
    Ok(freed)
}

/// Age in steps and disk usage of a document that may be removed.
fn removable(kind: &OsStr, entry: &DirEntry, pinned: &Pinned) -> Option<(u64, u64)> {
    let name = entry.file_name();
    let (kind, name) = (kind.to_str()?, name.to_str()?);
    if name.starts_with(durable::TEMPORARY) || pinned.has_document(kind, name) {
        return None;
    }
    let metadata: Metadata = entry.metadata().ok()?;
    let used = metadata.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    if durable::is_used(&entry.path()).unwrap_or(true) {
        return None;
    }
    Some((used.as_secs() / STEP.as_secs(), durable::occupied(&metadata)))
}
