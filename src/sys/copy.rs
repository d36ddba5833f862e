//! Copies inside the kernel: shared blocks where the file system can, else without a way through this process.

use std::fs::File;
use std::io;

use rustix::io::Errno;

/// Makes an empty file share all blocks of another. `false` where the file system cannot.
pub fn share(source: &File, target: &File) -> io::Result<bool> {
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::XDEV | Errno::INVAL | Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Copies at most `length` bytes at `offset` to the same place of another file and answers how many; 0 only at the end of the source.
pub fn copy(source: &File, target: &File, offset: u64, length: u64) -> io::Result<u64> {
    let (mut from, mut to) = (offset, offset);
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(1 << 30);
    match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), length) {
        Ok(copied) => Ok(copied as u64),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::XDEV | Errno::INVAL) => through(source, target, offset, length),
        Err(error) => Err(error.into()),
    }
}

/// Where the kernel cannot: one buffer full through this process.
fn through(source: &File, target: &File, offset: u64, length: usize) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; length.min(1 << 18)];
    let read = source.read_at(&mut buffer, offset)?;
    target.write_all_at(buffer.get(..read).unwrap_or_default(), offset)?;
    Ok(read as u64)
}
