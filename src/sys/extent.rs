//! Where a sparse file has data.
//!
//! Moves the position of the opened file, which is never used here: all reads and writes name their offset.

use std::fs::File;
use std::io;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The first offset at or behind `offset` that holds data; `None` if there is none.
pub fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, SeekFrom::Data(offset))
}

/// The first offset at or behind `offset` that holds none, at the latest the end; `None` if `offset` is not inside the file.
pub fn next_hole(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, SeekFrom::Hole(offset))
}

fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
