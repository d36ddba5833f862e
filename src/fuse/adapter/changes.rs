//! Requests that change something: what they carry, as plain values, and those that need more than a line.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileHandle, FopenFlags, INodeNo, RenameFlags, ReplyCreate, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyWrite, Request, TimeOrNow,
};

use super::replies::{GENERATION, answer_found, shorter};
use super::{Adapter, panicked, respond};
use crate::artifact::Kind;
use crate::fs::{Caller, Need, NewName};
use crate::fuse::attributes::of_entry;
use crate::fuse::caller::asker;
use crate::view::Replace;

/// Bits of a mode that say the kind, and their values.
const KIND_MASK: u32 = 0o170_000;
/// `setxattr`: only make, only replace.
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;
/// `lseek`: to data, to a hole.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
/// `open`: fail where the name is taken.
const EXCLUSIVE: i32 = 0o200;

impl Adapter {
    pub(super) fn make(&self, operation: &'static str, request: &Request, new: NewName, reply: ReplyEntry) {
        let (file_system, caller, parent) = (Arc::clone(&self.file_system), caller(request), INodeNo(new.directory));
        let asker = asker(request);
        let work = async move {
            file_system.admit(&asker, new.directory, Need::Write).await?;
            file_system.make(caller, new).await
        };
        self.change(operation, parent, reply, work, |reply, entry| answer_found(reply, &entry));
    }

    pub(super) fn create_file(&self, request: &Request, new: NewName, flags: i32, reply: ReplyCreate) {
        let (file_system, caller, parent) = (Arc::clone(&self.file_system), caller(request), INodeNo(new.directory));
        let asker = asker(request);
        let work = async move {
            file_system.admit(&asker, new.directory, Need::Write).await?;
            file_system.create(caller, new, flags & EXCLUSIVE != 0).await
        };
        self.change("create", parent, reply, work, |reply, (entry, open)| {
            let mut flags = FopenFlags::empty();
            flags.set(FopenFlags::FOPEN_KEEP_CACHE, open.keep_cache);
            reply.created(&shorter(&entry), &of_entry(&entry), GENERATION, FileHandle(open.handle), flags);
        });
    }

    /// The bytes are lent by the caller: they are copied only where they cannot be written at once.
    pub(super) fn write_bytes(&self, inode: INodeNo, to: (FileHandle, u64), data: &[u8], strip: bool, reply: ReplyWrite) {
        let (handle, offset) = (to.0.0, to.1);
        // The kernel was told to send less than 4 GiB.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let answer = move |reply: ReplyWrite, ()| reply.written(length);
        let polled = self.poll(pin!(self.file_system.write(handle, offset, data, strip)));
        match polled {
            Ok(Poll::Ready(result)) => respond("write", inode, reply, result, answer),
            Err(()) => panicked("write", inode, reply),
            Ok(Poll::Pending) => {
                let (file_system, data) = (Arc::clone(&self.file_system), data.to_vec());
                let work = async move { file_system.write(handle, offset, &data, strip).await };
                self.change("write", inode, reply, work, answer);
            }
        }
    }

    pub(super) fn copy_range(
        &self,
        request: &Request,
        inode: INodeNo,
        from: (FileHandle, u64),
        to: (FileHandle, u64),
        length: u64,
        reply: ReplyWrite,
    ) {
        let (file_system, caller) = (Arc::clone(&self.file_system), caller(request));
        // The answer has 32 bits; the caller goes on behind what was copied.
        let length = length.min(u64::from(u32::MAX >> 1));
        let work = async move { file_system.copy_range(caller, (from.0.0, from.1), (to.0.0, to.1), length).await };
        self.change("copy_file_range", inode, reply, work, |reply, copied| {
            reply.written(u32::try_from(copied).unwrap_or(u32::MAX));
        });
    }

    pub(super) fn seek(&self, inode: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let (Ok(offset), SEEK_DATA | SEEK_HOLE) = (u64::try_from(offset), whence) else { return reply.error(Errno::EINVAL) };
        let file_system = Arc::clone(&self.file_system);
        let work = async move { file_system.seek(handle.0, offset, whence == SEEK_DATA).await };
        self.change("lseek", inode, reply, work, |reply, found| match found.and_then(|offset| i64::try_from(offset).ok()) {
            Some(offset) => reply.offset(offset),
            None => reply.error(Errno::ENXIO),
        });
    }

    pub(super) fn set_xattr(&self, request: &Request, inode: INodeNo, name: &OsStr, value: &[u8], flags: i32, reply: ReplyEmpty) {
        let (file_system, name, value) = (Arc::clone(&self.file_system), name.as_bytes().to_vec(), value.to_vec());
        let (create, replace) = (flags & XATTR_CREATE != 0, flags & XATTR_REPLACE != 0);
        let asker = asker(request);
        let work = async move {
            file_system.admit(&asker, inode.0, Need::Write).await?;
            file_system.setxattr(inode.0, &name, &value, create, replace).await
        };
        self.change("setxattr", inode, reply, work, |reply, ()| reply.ok());
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

/// A regular file, to be changed by the caller where it is none.
pub(super) fn new_name(parent: INodeNo, name: &OsStr, mode: u32) -> NewName {
    let (directory, name) = (parent.0, name.as_bytes().to_vec());
    NewName { directory, name, kind: Kind::File, mode: mode & 0o7777, device: (0, 0), target: Vec::new() }
}

/// The kind that `mknod` asks for.
pub(super) fn kind_of_mode(mode: u32) -> Option<Kind> {
    match mode & KIND_MASK {
        0 | 0o100_000 => Some(Kind::File),
        0o020_000 => Some(Kind::CharDevice),
        0o060_000 => Some(Kind::BlockDevice),
        0o010_000 => Some(Kind::Fifo),
        0o140_000 => Some(Kind::Socket),
        _ => None,
    }
}

/// Major and minor of a device number as the kernel packs it into 32 bits.
pub(super) fn of_device(packed: u32) -> (u32, u32) {
    (packed >> 8 & 0xfff, packed & 0xff | packed >> 12 & 0xf_ff00)
}

/// What `rename` may do with a name that exists.
pub(super) fn replace_of(flags: RenameFlags) -> Option<Replace> {
    match flags {
        flags if flags.is_empty() => Some(Replace::Yes),
        RenameFlags::RENAME_NOREPLACE => Some(Replace::No),
        RenameFlags::RENAME_EXCHANGE => Some(Replace::Exchange),
        _ => None,
    }
}

/// Seconds since the epoch, may be negative, and nanoseconds that count forward from there.
pub(super) fn of_time(time: TimeOrNow) -> (i64, u32) {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        // fuser 0.18 takes the fraction away where it has to be added (its `system_time_from_time`), so whole seconds and fraction
        // of its distance to the epoch are just what the kernel sent.
        Err(before) => {
            let distance = before.duration();
            (i64::try_from(distance.as_secs()).map_or(i64::MIN, |seconds| -seconds), distance.subsec_nanos())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn device_numbers_are_read_as_the_kernel_packs_them() {
        assert_eq!(of_device(0x103), (1, 3));
        assert_eq!(of_device(0x10_0801), (8, 0x101));
    }

    #[test]
    fn kinds_are_read_from_the_mode_of_mknod() {
        assert_eq!(kind_of_mode(0o644), Some(Kind::File));
        assert_eq!(kind_of_mode(0o010_600), Some(Kind::Fifo));
        assert_eq!(kind_of_mode(0o140_777), Some(Kind::Socket));
        assert_eq!(kind_of_mode(0o040_755), None, "directories have a call of their own");
    }

    #[test]
    fn times_before_the_epoch_are_read_as_the_kernel_sent_them() {
        // Half a second before the epoch is -1 s and 500,000,000 ns.
        let as_fuser_hands_it_on = UNIX_EPOCH - Duration::new(1, 500_000_000);
        assert_eq!(of_time(TimeOrNow::SpecificTime(as_fuser_hands_it_on)), (-1, 500_000_000));
        assert_eq!(of_time(TimeOrNow::SpecificTime(UNIX_EPOCH + Duration::new(7, 5))), (7, 5));
    }

    #[test]
    fn a_rename_that_leaves_a_whiteout_is_refused() {
        assert_eq!(replace_of(RenameFlags::empty()), Some(Replace::Yes));
        assert_eq!(replace_of(RenameFlags::RENAME_EXCHANGE), Some(Replace::Exchange));
        assert_eq!(replace_of(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(replace_of(RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE), None);
    }
}
