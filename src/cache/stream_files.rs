//! The files of a stream: their names, and unlinking a stream.

use std::path::Path;
use std::{fs, io};

use super::layout::{Layout, Which};
use super::shared::{Shared, failed};
use super::table::{self, Identity, Table};
use crate::durable;
use crate::error::Error;

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
