//! The space that files take: holes, allocation, what the file system has left.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FallocateFlags;

/// Flag of `open(2)` that refuses a symbolic link as the last component.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;

/// Frees the blocks of a range, which reads as zeros afterwards. The file keeps its length. Only whole blocks are
/// freed; the rest of the range is set to zeros.
pub fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    let length = range.end.saturating_sub(range.start);
    if length == 0 {
        return Ok(());
    }
    Ok(rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range.start, length)?)
}

/// Allocates the blocks of a range and makes the file at least that long; the new bytes are zeros.
pub fn allocate(file: &File, range: Range<u64>) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), range.start, range.end.saturating_sub(range.start))?)
}

/// `fallocate(2)` with the mode bits of an application. `InvalidInput` for bits that no version of this program knows.
pub fn allocate_as(file: &File, mode: i32, offset: u64, length: u64) -> io::Result<()> {
    let flags = u32::try_from(mode).ok().and_then(FallocateFlags::from_bits).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::fs::fallocate(file, flags, offset, length)?)
}

/// Mode bit of `fallocate(2)`: the length stays.
pub const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
/// Mode bit of `fallocate(2)`: frees the range.
pub const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE;
/// Mode bit of `fallocate(2)`: the range reads as zeros and stays allocated.
pub const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;

/// Bytes that a file occupies, as `stat(2)` counts its blocks.
pub fn occupied(metadata: &std::fs::Metadata) -> u64 {
    metadata.blocks().saturating_mul(512)
}

/// Free space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that this user may still write.
    pub available: u64,
    /// Size of a block.
    pub block: u64,
}

/// Asks the file system that holds `path`.
pub fn free(path: &Path) -> io::Result<Free> {
    let answer = rustix::fs::statvfs(path)?;
    let block = answer.f_frsize.max(1);
    Ok(Free { total: answer.f_blocks.saturating_mul(block), available: answer.f_bavail.saturating_mul(block), block })
}

/// Whether an error says that there is no space: disk full, quota, or beyond the largest file.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

/// Whether an error says that the file would be longer than this process or the file system allows.
pub fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EFBIG)
}

/// Whether an error says that the file system cannot do this at all.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV))
}
