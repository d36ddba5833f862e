//! Replies of fuser: those that can carry an error, and answers shared by several operations.

use std::time::Duration;

use fuser::{
    Errno, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr,
};

use crate::fs::{Entry, Lookup, OpenFile, Space};
use crate::fuse::attributes::{absent, of_entry};

/// Longest list of attribute names that the kernel accepts.
const XATTR_LIST_LIMIT: usize = 64 << 10;
/// Block size that `statfs` counts in.
const BLOCK: u32 = 4096;
/// Inode numbers are never reused, so one generation is enough.
pub(super) const GENERATION: Generation = Generation(0);

/// A reply that can carry an error.
pub(super) trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => { $(impl Refuse for $reply { fn refuse(self, errno: Errno) { self.error(errno); } })* };
}
refuse!(ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr);

pub(super) fn answer_entry(reply: ReplyEntry, lookup: Lookup) {
    match lookup {
        Lookup::Found(entry) => answer_found(reply, &entry),
        Lookup::Absent(ttl) if ttl.is_zero() => reply.error(Errno::ENOENT),
        Lookup::Absent(ttl) => reply.entry(&ttl, &absent(), GENERATION),
    }
}

/// Replies with the size needed, or with the value if it fits.
pub(super) fn answer_xattr(reply: ReplyXattr, value: &[u8], room: u32, too_long: Errno) {
    let Ok(length) =
        u32::try_from(value.len()).map_err(|_| ()).and_then(|length| if value.len() > XATTR_LIST_LIMIT { Err(()) } else { Ok(length) })
    else {
        return reply.error(too_long);
    };
    match room {
        0 => reply.size(length),
        room if room < length => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// Replies with the target of a name.
pub(super) fn answer_found(reply: ReplyEntry, entry: &Entry) {
    reply.entry_with_ttls(&entry.attributes_ttl, &entry.name_ttl, &of_entry(entry), GENERATION);
}

/// Replies with total and free space.
pub(super) fn answer_space(reply: ReplyStatfs, space: Space) {
    let (total, free) = (space.total / u64::from(BLOCK), space.free / u64::from(BLOCK));
    reply.statfs(total, free, free, 0, 0, BLOCK, 255, BLOCK);
}

/// Replies with all attributes.
pub(super) fn answer_attributes(reply: ReplyAttr, entry: &Entry) {
    reply.attr(&entry.attributes_ttl, &of_entry(entry));
}

/// The shorter of the cache times of name and attributes, for replies with a single one.
pub(super) fn shorter(entry: &Entry) -> Duration {
    entry.name_ttl.min(entry.attributes_ttl)
}

/// How the kernel treats an open file.
pub(super) fn open_flags(open: &OpenFile, write: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, open.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, open.direct);
    // Closing a file open only for reading has nothing to report.
    flags.set(FopenFlags::FOPEN_NOFLUSH, !write);
    flags
}
