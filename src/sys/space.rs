//! Disk space of files: holes, allocation, free space of the file system.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FallocateFlags;

/// Flag of `open(2)` that rejects a symlink as the last component.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;

/// Frees the blocks of a range, which then reads as zeros. The file keeps its length. Only whole blocks are freed; the rest is zeroed.
pub fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    let length = range.end.saturating_sub(range.start);
    if length == 0 {
        return Ok(());
    }
    Ok(rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range.start, length)?)
}

/// Allocates the blocks of a range and extends the file to at least its end; new bytes are zero.
pub fn allocate(file: &File, range: Range<u64>) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), range.start, range.end.saturating_sub(range.start))?)
}

/// `fallocate(2)` with an application's mode bits. `InvalidInput` for unknown bits.
pub fn allocate_as(file: &File, mode: i32, offset: u64, length: u64) -> io::Result<()> {
    let flags = u32::try_from(mode).ok().and_then(FallocateFlags::from_bits).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::fs::fallocate(file, flags, offset, length)?)
}

/// Mode bit of `fallocate(2)`: keeps the file length.
pub const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
/// Mode bit of `fallocate(2)`: frees the range.
pub const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE;
/// Mode bit of `fallocate(2)`: the range reads as zeros and stays allocated.
pub const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;

/// Bytes that a file occupies on disk, by the block count of `stat(2)`.
pub fn occupied(metadata: &std::fs::Metadata) -> u64 {
    metadata.blocks().saturating_mul(512)
}

/// Free space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Total bytes.
    pub total: u64,
    /// Bytes available to this user.
    pub available: u64,
    /// Block size.
    pub block: u64,
}

/// Queries the file system that holds `path`.
pub fn free(path: &Path) -> io::Result<Free> {
    let answer = rustix::fs::statvfs(path)?;
    let block = answer.f_frsize.max(1);
    Ok(Free { total: answer.f_blocks.saturating_mul(block), available: answer.f_bavail.saturating_mul(block), block })
}

/// Whether an error means no space: disk full, quota exceeded, or file too large.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

/// Whether an error means that the file exceeds the limit of this process or the file system.
pub fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EFBIG)
}

/// Whether an error means that the file system does not support the operation.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV))
}
