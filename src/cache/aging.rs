//! Documents in the budget: counted with the spans, and removed by age once no span is left to go.
//!
//! The time of last use is the modification time of the file, kept to the hour. What a pin names stays, and so does what
//! a process has mapped: removing that would free nothing and no longer count.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, Metadata};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::pins::Pinned;
use super::shared::{Shared, failed};
use crate::durable;
use crate::error::Error;

/// How exactly the time of last use is kept.
const STEP: Duration = Duration::from_secs(3600);

/// Calls `visit` for every document, unfinished ones among them, with its kind.
pub fn each_document(shared: &Shared, mut visit: impl FnMut(&OsStr, &DirEntry) -> Result<(), Error>) -> Result<(), Error> {
    let root = shared.root.join("documents");
    for kind in fs::read_dir(&root).map_err(failed("list", &root))?.flatten() {
        for entry in fs::read_dir(kind.path()).map_err(failed("list", &kind.path()))?.flatten() {
            visit(&kind.file_name(), &entry)?;
        }
    }
    Ok(())
}

/// Notes that a document is used, unless that was noted within the hour.
pub fn touch(file: &File) -> io::Result<()> {
    let now = SystemTime::now();
    let used = file.metadata()?.modified()?;
    if used > now || now.duration_since(used).is_ok_and(|age| age >= STEP) {
        file.set_modified(now)?;
    }
    Ok(())
}

/// Bytes that the documents occupy.
pub fn count(shared: &Shared) -> Result<u64, Error> {
    let mut total = 0_u64;
    each_document(shared, |_, entry| {
        total = total.saturating_add(entry.metadata().map_or(0, |metadata| durable::occupied(&metadata)));
        Ok(())
    })?;
    Ok(total)
}

/// Removes documents, those first that were not used for longest, until `goal` bytes are free or only `pinned` ones
/// or mapped ones are left. Returns the bytes that they occupied.
pub fn remove_oldest(shared: &Shared, pinned: &Pinned, goal: u64) -> Result<u64, Error> {
    // Two walks and no list of names: the first sums bytes by age, the second removes what is older than the step that
    // suffices.
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

/// Age in steps and occupied bytes of a document that may go.
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
