//! Finds the data and holes of a sparse file.
//!
//! Moves the file position, which is not used otherwise: all reads and writes are positional.

use std::fs::File;
use std::io;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The first offset at or after `offset` with data; `None` if there is none.
pub fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, SeekFrom::Data(offset))
}

/// The first offset at or after `offset` in a hole, at the latest the end of file; `None` if `offset` is beyond the end.
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
