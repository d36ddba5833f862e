//! Attributes in fuser's types.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::artifact::Kind;
use crate::fs::Entry;

/// The attributes of an entry.
pub fn of_entry(entry: &Entry) -> FileAttr {
    let attributes = &entry.attributes;
    FileAttr {
        ino: INodeNo(entry.inode),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: time(attributes.atime),
        mtime: time(attributes.time),
        ctime: time(attributes.ctime),
        crtime: time(attributes.time),
        kind: file_type(attributes.kind),
        // Twelve bits.
        perm: (attributes.mode & 0o7777) as u16,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: device(attributes.device),
        blksize: 4096,
        flags: 0,
    }
}

/// A cacheable negative answer: attributes of inode 0.
pub fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

/// A time before or after the epoch; the epoch if the system cannot represent it.
fn time((seconds, nanoseconds): (i64, u32)) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.and_then(|base| base.checked_add(Duration::from_nanos(nanoseconds.into()))).unwrap_or(UNIX_EPOCH)
}

/// A device number as the kernel packs it into 32 bits.
fn device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        let half = time((-2, 500_000_000));
        assert_eq!(UNIX_EPOCH.duration_since(half).unwrap(), Duration::from_millis(1500));
        assert_eq!(time((i64::MIN, 0)), UNIX_EPOCH.checked_sub(Duration::from_secs(1 << 63)).unwrap_or(UNIX_EPOCH));
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_reads_them() {
        assert_eq!(device((1, 3)), 0x103);
        assert_eq!(device((8, 0x101)), 0x10_0801);
        assert_eq!(device((u32::MAX, u32::MAX)), u32::MAX);
    }
}
