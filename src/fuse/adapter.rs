//! Requests of the kernel as calls of the file system, and its answers as replies.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use super::attributes::{absent, of_entry};
use super::errno::{errno, level};
use super::watchdog::{Ending, Watchdog};
use crate::error::ErrorKind;
use crate::fs::{Error, FileSystem, Lookup};

/// Largest request either way; reads are never asked for more.
const LARGEST_REQUEST: u32 = 1 << 20;
/// Requests that the kernel keeps under way in the background, mostly reading ahead.
const BACKGROUND: u16 = 64;
/// Block size that `statfs` counts in.
const BLOCK: u32 = 4096;
/// Longest list of attribute names that the kernel takes.
const XATTR_LIST_LIMIT: usize = 64 << 10;
/// What an inode number is never reused for: generations are not needed.
const GENERATION: Generation = Generation(0);

/// Translates between fuser and the file system.
pub struct Adapter {
    file_system: Arc<FileSystem>,
    runtime: Handle,
    watchdog: Arc<Watchdog>,
}

/// A reply that can say no.
trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => { $(impl Refuse for $reply { fn refuse(self, errno: Errno) { self.error(errno); } })* };
}
refuse!(ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyXattr);

impl Adapter {
    /// An adapter; operations that wait do so on the runtime.
    pub fn new(file_system: Arc<FileSystem>, runtime: Handle, watchdog: Watchdog) -> Self {
        Self { file_system, runtime, watchdog: Arc::new(watchdog) }
    }

    /// Runs an operation to its answer: at once if it can be, else on the runtime under the watchdog's eye.
    fn run<R, T, W, A>(&self, request: &Request, name: &'static str, inode: INodeNo, reply: R, work: W, answer: A)
    where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        let mut work = Box::pin(work);
        let _runtime = self.runtime.enter();
        let mut context = task::Context::from_waker(Waker::noop());
        // A panic must cost one operation, not the thread that serves all others.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context))) {
            Ok(Poll::Ready(result)) => settle(name, inode, reply, result, answer),
            Ok(Poll::Pending) => {
                let mut watched = self.watchdog.watch(request.pid());
                self.runtime.spawn(async move {
                    let result = tokio::select! {
                        biased;
                        result = &mut work => result,
                        ending = watched.ending() => Err(ended(ending)),
                    };
                    settle(name, inode, reply, result, answer);
                });
            }
            Err(_) => {
                tracing::error!(operation = name, inode = inode.0, "the operation panicked");
                reply.refuse(Errno::EIO);
            }
        }
    }
}

fn ended(ending: Ending) -> Error {
    match ending {
        Ending::Interrupted => Error::new(ErrorKind::Interrupted, "the caller was interrupted"),
        Ending::Stuck => Error::new(ErrorKind::TimedOut, "nothing was received for the whole I/O timeout"),
    }
}

fn settle<R: Refuse, T>(name: &'static str, inode: INodeNo, reply: R, result: Result<T, Error>, answer: impl FnOnce(R, T)) {
    match result {
        Ok(value) => answer(reply, value),
        Err(error) => {
            log(name, inode, &error);
            reply.refuse(errno(error.kind));
        }
    }
}

fn log(operation: &'static str, inode: INodeNo, error: &Error) {
    let inode = inode.0;
    match level(error.kind) {
        tracing::Level::ERROR => tracing::error!(operation, inode, "{error}"),
        tracing::Level::WARN => tracing::warn!(operation, inode, "{error}"),
        _ => tracing::debug!(operation, inode, "{error}"),
    }
}

fn answer_entry(reply: ReplyEntry, lookup: Lookup) {
    match lookup {
        Lookup::Found(entry) => reply.entry_with_ttls(&entry.attributes_ttl, &entry.name_ttl, &of_entry(&entry), GENERATION),
        Lookup::Absent(ttl) if ttl.is_zero() => reply.error(Errno::ENOENT),
        Lookup::Absent(ttl) => reply.entry(&ttl, &absent(), GENERATION),
    }
}

/// Answers the size that a caller needs, or the value if there is room for it.
fn answer_xattr(reply: ReplyXattr, value: &[u8], room: u32, too_long: Errno) {
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

fn refuse_change(reply: impl Refuse) {
    reply.refuse(Errno::EROFS);
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_CACHE_SYMLINKS] {
            if config.add_capabilities(wanted).is_err() {
                tracing::info!(?wanted, "the kernel does not know this capability");
            }
        }
        // Both refuse nothing but zero and too much.
        let _ = config.set_max_write(LARGEST_REQUEST);
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (file_system, name) = (Arc::clone(&self.file_system), name.as_bytes().to_vec());
        let work = async move { file_system.lookup(parent.0, &name).await };
        self.run(request, "lookup", parent, reply, work, answer_entry);
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        self.file_system.forget(inode.0, lookups);
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let file_system = Arc::clone(&self.file_system);
        let work = async move { file_system.getattr(inode.0).await };
        self.run(request, "getattr", inode, reply, work, |reply, entry| reply.attr(&entry.attributes_ttl, &of_entry(&entry)));
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let result = self.file_system.readlink(inode.0);
        self.run(request, "readlink", inode, reply, std::future::ready(result), |reply, target| reply.data(&target));
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let file_system = Arc::clone(&self.file_system);
        let write = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let work = async move { file_system.open(inode.0, write).await };
        self.run(request, "open", inode, reply, work, |reply, open| {
            let mut flags = FopenFlags::empty();
            flags.set(FopenFlags::FOPEN_KEEP_CACHE, open.keep_cache);
            flags.set(FopenFlags::FOPEN_DIRECT_IO, open.direct);
            // Nothing is written, so a close has nothing to report.
            flags.insert(FopenFlags::FOPEN_NOFLUSH);
            reply.opened(FileHandle(open.handle), flags);
        });
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file_system = Arc::clone(&self.file_system);
        let work = async move { file_system.read(handle.0, offset, size).await };
        self.run(request, "read", inode, reply, work, |reply, bytes| reply.data(&bytes));
    }

    fn flush(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.file_system.release(handle.0);
        reply.ok();
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let file_system = Arc::clone(&self.file_system);
        let work = async move { file_system.opendir(inode.0).await };
        self.run(request, "opendir", inode, reply, work, |reply, open| {
            let mut flags = FopenFlags::empty();
            if open.immutable {
                flags.insert(FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
            }
            reply.opened(FileHandle(open.handle), flags);
        });
    }

    fn readdirplus(&self, _request: &Request, inode: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let mut some = false;
        let result = self.file_system.readdirplus(handle.0, offset, &mut |found| {
            let ttl = found.entry.name_ttl.min(found.entry.attributes_ttl);
            let attributes = of_entry(&found.entry);
            let full = reply.add(attributes.ino, found.cookie, OsStr::from_bytes(found.name), &ttl, &attributes, GENERATION);
            some |= !full;
            !full
        });
        match result {
            // What was handed out so far is known to the kernel; the error comes when it goes on behind it.
            Err(error) if !some => {
                log("readdirplus", inode, &error);
                reply.error(errno(error.kind));
            }
            _ => reply.ok(),
        }
    }

    fn releasedir(&self, _request: &Request, _inode: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.file_system.releasedir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let space = self.file_system.statfs();
        let (total, free) = (space.total / u64::from(BLOCK), space.free / u64::from(BLOCK));
        reply.statfs(total, free, free, 0, 0, BLOCK, 255, BLOCK);
    }

    /// Programs ask every file that they open whether it is a terminal.
    fn ioctl(&self, _: &Request, _: INodeNo, _: FileHandle, _: IoctlFlags, _: u32, _: &[u8], _: u32, reply: ReplyIoctl) {
        reply.error(Errno::ENOTTY);
    }

    fn getxattr(&self, request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (file_system, name) = (Arc::clone(&self.file_system), name.as_bytes().to_vec());
        let work = async move { file_system.getxattr(inode.0, &name).await };
        self.run(request, "getxattr", inode, reply, work, move |reply, value| match value {
            Some(value) => answer_xattr(reply, &value, size, Errno::E2BIG),
            None => reply.error(Errno::NO_XATTR),
        });
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let result = self.file_system.listxattr(inode.0);
        self.run(request, "listxattr", inode, reply, std::future::ready(result), move |reply, names| {
            let list: Vec<u8> = names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect();
            answer_xattr(reply, &list, size, Errno::E2BIG);
        });
    }

    fn access(&self, request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let file_system = Arc::clone(&self.file_system);
        let (write, execute) = (mask.contains(AccessFlags::W_OK), mask.contains(AccessFlags::X_OK));
        let work = async move { file_system.access(inode.0, write, execute).await };
        self.run(request, "access", inode, reply, work, |reply, ()| reply.ok());
    }

    fn setxattr(&self, _request: &Request, _inode: INodeNo, name: &OsStr, _value: &[u8], _flags: i32, _position: u32, reply: ReplyEmpty) {
        reply.error(errno(self.file_system.refuse_xattr(name.as_bytes()).kind));
    }

    fn removexattr(&self, _request: &Request, _inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply.error(errno(self.file_system.refuse_xattr(name.as_bytes()).kind));
    }

    fn setattr(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        refuse_change(reply);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        refuse_change(reply);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        refuse_change(reply);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        refuse_change(reply);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        refuse_change(reply);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        refuse_change(reply);
    }

    fn rename(&self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        refuse_change(reply);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        refuse_change(reply);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        refuse_change(reply);
    }
}
