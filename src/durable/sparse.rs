//! Sparse files: opening, holes, allocation, disk usage.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

pub use crate::sys::space::{Free, free, is_full, is_unsupported, occupied, punch};
use crate::sys::space::{NO_FOLLOW, allocate};

/// Opens a private file for reading and writing (creating it with mode 0600 if `create`). A symlink in its place is an error, so that no link
/// can redirect us.
pub fn open_private(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).custom_flags(NO_FOLLOW).open(path)
}

/// Allocates a range, so that later writes to it, also through a map, cannot fail for lack of space. If the file system does not support it,
/// writes zeros: only for new files.
pub fn make_room(file: &File, range: Range<u64>) -> io::Result<()> {
    match allocate(file, range.clone()) {
        Err(error) if is_unsupported(&error) => write_zeros(file, range),
        other => other,
    }
}

fn write_zeros(file: &File, range: Range<u64>) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut at = range.start;
    while at < range.end {
        let step = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all_at(ZEROS.get(..step).unwrap_or_default(), at)?;
        at += step as u64;
    }
    Ok(())
}
