//! The files of a stream: their names, making and unlinking a stream.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::layout::{Layout, Which};
use super::shared::{Shared, failed};
use super::table::{self, Identity, Table};
use crate::durable;
use crate::error::{Error, ErrorKind};

/// Name of a data file.
pub fn file_name(identity: Identity, layout: &Layout, which: Which) -> Option<String> {
    match which {
        Which::Main => Some(format!("{:016x}.main", identity.instance)),
        Which::Member(number) => layout.members().get(number).map(|member| member_file_name(identity, member.start)),
    }
}

/// Name of the data file of the member that starts here.
pub fn member_file_name(identity: Identity, start: u64) -> String {
    format!("{:016x}.{start:x}", identity.instance)
}

/// A registry may claim any blob size: its table must stay small relative to the budget.
pub(super) fn check_table_size(shared: &Shared, name: &str, layout: &Layout) -> Result<(), Error> {
    let (size, most) = (Table::size(layout), (shared.config.size / 16).max(4 << 20));
    if size <= most {
        return Ok(());
    }
    let message = format!("the stream {name} has too many spans for this cache: its table would take {size} bytes of {most}");
    Err(Error::new(ErrorKind::NoSpace, message))
}

/// Creates an empty stream. Under the structure lock.
pub(super) fn make(shared: &Shared, directory: &Path, name: &str, layout: &Layout) -> io::Result<()> {
    let work = shared.work_directory()?;
    let identity = Identity::random(layout.is_sealed());
    let made = Table::write(&work, name, layout, identity, &[], shared.ledger.now())
        .and_then(|()| durable::make_directory(directory.parent().unwrap_or(directory)))
        .and_then(|()| std::fs::rename(&work, directory));
    if made.is_err() {
        // Best effort: leftovers are removed by the next evictor once this process has ended.
        let _ = std::fs::remove_dir_all(&work);
    }
    made
}

/// Distinguishes a file from any later one of the same name, even with the same inode number. Never 0.
pub fn identity_of(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    let birth = metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(xxh3_64_with_seed(&birth.as_nanos().to_le_bytes(), metadata.ino()) | 1)
}

/// Unlinks a stream: first marks its table dead, then moves it away atomically, then removes its files. Under the structure lock. Open files keep
/// working. Returns the bytes that it occupied.
pub fn discard(shared: &Shared, directory: &Path) -> Result<u64, Error> {
    // Prepare the destination first: on a full disk a stream must not die in place.
    let grave = shared.work_directory().map_err(failed("make a directory in", &shared.root))?;
    if let Ok(Some(table)) = Table::open(directory) {
        table.kill();
    }
    match std::fs::rename(directory, &grave) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let _ = std::fs::remove_dir(&grave);
            return Err(failed("remove", directory)(error));
        }
    }
    let occupied = occupied_by(&grave).unwrap_or(0);
    std::fs::remove_dir_all(&grave).map_err(failed("remove", &grave))?;
    Ok(occupied)
}

/// Disk usage of the data files of one stream or fill, in bytes. The table is not data.
pub fn occupied_by(directory: &Path) -> io::Result<u64> {
    let mut total = 0_u64;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() != table::FILE
            && let Ok(metadata) = entry.metadata()
        {
            total = total.saturating_add(durable::occupied(&metadata));
        }
    }
    Ok(total)
}
