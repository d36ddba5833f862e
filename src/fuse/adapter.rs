//! Translates kernel requests to calls of the file system, and results to replies. Requests that change anything are in `changes`.

mod arguments;
mod changes;
mod replies;

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use super::attributes::of_entry;
use super::caller::{asker, is_privileged};
use super::errno::{errno, level};
use super::passthrough::Passthrough;
use super::watchdog::{Ending, Watchdog};
use crate::artifact::Kind;
use crate::error::{Error, ErrorKind};
use crate::fs::{FileSystem, Need, OpenFile};
use crate::view::SetAttributes;
use arguments::{caller, kind_of_mode, new_name, of_device, of_time, replace_of};
use replies::{GENERATION, Refuse, answer_attributes, answer_entry, answer_found, answer_xattr, shorter};

/// Largest request in either direction; reads never request more.
const LARGEST_REQUEST: u32 = 1 << 20;
/// Requests that the kernel keeps in flight in the background, mostly read-ahead.
const BACKGROUND: u16 = 64;
/// Block size that `statfs` counts in.
const BLOCK: u32 = 4096;

/// Translates between fuser and the file system.
pub struct Adapter {
    file_system: Arc<FileSystem>,
    runtime: Handle,
    watchdog: Arc<Watchdog>,
    /// OPEN is answered "not implemented": reads come without a handle.
    skips_opens: bool,
    /// `None` where the kernel must not read files by itself.
    passthrough: Option<Arc<Passthrough>>,
}

impl Adapter {
    /// An adapter; operations that wait do so on the runtime.
    pub fn new(file_system: Arc<FileSystem>, runtime: Handle, watchdog: Watchdog) -> Self {
        Self { file_system, runtime, watchdog: Arc::new(watchdog), skips_opens: false, passthrough: None }
    }

    /// Runs an operation without local effect to completion: at once if possible, else on the runtime, watched by the watchdog.
    fn run<R, T, W, A>(&self, request: &Request, name: &'static str, inode: INodeNo, reply: R, work: W, answer: A)
    where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        let Some((reply, answer, mut work)) = self.begin(name, inode, reply, work, answer) else { return };
        let mut watched = self.watchdog.watch(request.pid());
        self.runtime.spawn(async move {
            let result = tokio::select! {
                biased;
                result = &mut work => result,
                ending = watched.ending() => Err(ended(ending)),
            };
            respond(name, inode, reply, result, answer);
        });
    }

    /// Runs an operation that changes something. It is never left half done: what it waits for has deadlines of its own.
    fn change<R, T, W, A>(&self, name: &'static str, inode: INodeNo, reply: R, work: W, answer: A)
    where
        R: Refuse,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        A: FnOnce(R, T) + Send + 'static,
    {
        let Some((reply, answer, work)) = self.begin(name, inode, reply, work, answer) else { return };
        self.runtime.spawn(async move { respond(name, inode, reply, work.await, answer) });
    }

    /// Lets the kernel read files by itself. Depth 1 permits a cache on any file system that is not itself stacked.
    fn request_passthrough(&mut self, config: &mut KernelConfig) {
        if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(1).is_ok() {
            self.passthrough = Some(Arc::default());
        }
    }

    fn open_backed(&self, request: &Request, inode: INodeNo, passthrough: Arc<Passthrough>, reply: ReplyOpen) {
        let file_system = Arc::clone(&self.file_system);
        let wants = passthrough.wants(inode);
        let work = async move {
            match wants {
                true => file_system.open_backed(inode.0).await,
                false => file_system.open(inode.0, false).await.map(|open| (open, None)),
            }
        };
        self.run(request, "open", inode, reply, work, move |reply, (open, file)| {
            let (handle, flags) = (FileHandle(open.handle), open_flags(&open, false));
            match open.direct {
                true => reply.opened(handle, flags),
                false => passthrough.answer(inode, handle, flags, file.as_ref(), reply),
            }
        });
    }

    /// Polls an operation once, on this thread. Returns it if unfinished.
    fn begin<R, T, W, A>(&self, name: &'static str, inode: INodeNo, reply: R, work: W, answer: A) -> Option<(R, A, Pin<Box<W>>)>
    where
        R: Refuse,
        W: Future<Output = Result<T, Error>>,
        A: FnOnce(R, T),
    {
        let mut work = Box::pin(work);
        match self.poll(work.as_mut()) {
            Ok(Poll::Ready(result)) => respond(name, inode, reply, result, answer),
            Ok(Poll::Pending) => return Some((reply, answer, work)),
            Err(()) => panicked(name, inode, reply),
        }
        None
    }

    /// A panic must cost one operation, not the thread that serves all others.
    fn poll<W: Future>(&self, work: Pin<&mut W>) -> Result<Poll<W::Output>, ()> {
        let _runtime = self.runtime.enter();
        let mut context = task::Context::from_waker(Waker::noop());
        catch_unwind(AssertUnwindSafe(|| work.poll(&mut context))).map_err(|_| ())
    }
}

fn open_flags(open: &OpenFile, write: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, open.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, open.direct);
    // Closing a file open only for reading has nothing to report.
    flags.set(FopenFlags::FOPEN_NOFLUSH, !write);
    flags
}

fn panicked(name: &'static str, inode: INodeNo, reply: impl Refuse) {
    tracing::error!(operation = name, inode = inode.0, "the operation panicked");
    reply.refuse(Errno::EIO);
}

fn ended(ending: Ending) -> Error {
    match ending {
        Ending::Interrupted => Error::new(ErrorKind::Interrupted, "the caller was interrupted"),
        Ending::Stuck => Error::new(ErrorKind::TimedOut, "nothing was received for the whole I/O timeout"),
    }
}

fn respond<R: Refuse, T>(name: &'static str, inode: INodeNo, reply: R, result: Result<T, Error>, answer: impl FnOnce(R, T)) {
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

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_CACHE_SYMLINKS] {
            if config.add_capabilities(wanted).is_err() {
                tracing::info!(?wanted, "the kernel does not support this capability");
            }
        }
        if self.file_system.is_writable() {
            // Without the second the kernel requests a file's capabilities at every single write.
            for wanted in [InitFlags::FUSE_WRITEBACK_CACHE, InitFlags::FUSE_HANDLE_KILLPRIV_V2] {
                if config.add_capabilities(wanted).is_err() {
                    tracing::info!(?wanted, "the kernel does not support this capability; small writes are slow");
                }
            }
        }
        if self.file_system.skips_opens() {
            // Pages of generated files, which would otherwise stay for ever, are dropped when their time changes.
            let wanted = InitFlags::FUSE_AUTO_INVAL_DATA;
            self.skips_opens = config.capabilities().contains(InitFlags::FUSE_NO_OPEN_SUPPORT) && config.add_capabilities(wanted).is_ok();
            if !self.skips_opens {
                tracing::warn!("the kernel cannot skip opens; every file is opened as usual");
            }
        }
        if !self.file_system.is_writable() && !self.skips_opens && is_privileged() {
            self.request_passthrough(config);
        }
        // Both reject only zero and values that are too large.
        let _ = config.set_max_write(LARGEST_REQUEST);
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (file_system, name) = (Arc::clone(&self.file_system), name.as_bytes().to_vec());
        let asker = asker(request);
        let work = async move {
            file_system.admit(&asker, parent.0, Need::Search).await?;
            file_system.lookup(parent.0, &name).await
        };
        self.run(request, "lookup", parent, reply, work, answer_entry);
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        self.file_system.forget(inode.0, lookups);
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let file_system = Arc::clone(&self.file_system);
        let work = async move { file_system.getattr(inode.0).await };
        self.run(request, "getattr", inode, reply, work, |reply, entry| answer_attributes(reply, &entry));
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let result = self.file_system.readlink(inode.0);
        self.run(request, "readlink", inode, reply, std::future::ready(result), |reply, target| reply.data(&target));
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let file_system = Arc::clone(&self.file_system);
        let write = flags.acc_mode() != OpenAccMode::O_RDONLY;
        if self.skips_opens && !write {
            // For the rest of the connection the kernel sends no OPEN and no RELEASE, and keeps pages across opens.
            return reply.error(Errno::ENOSYS);
        }
        if let Some(passthrough) = self.passthrough.as_ref().filter(|_| !write) {
            return self.open_backed(request, inode, Arc::clone(passthrough), reply);
        }
        let work = async move { file_system.open(inode.0, write).await };
        self.run(request, "open", inode, reply, work, move |reply, open| {
            reply.opened(FileHandle(open.handle), open_flags(&open, write));
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
        let by_inode = self.skips_opens;
        let work = async move {
            match by_inode {
                true => file_system.read_unopened(inode.0, offset, size).await,
                false => file_system.read(handle.0, offset, size).await,
            }
        };
        self.run(request, "read", inode, reply, work, |reply, bytes| reply.data(&bytes));
    }

    fn flush(&self, _request: &Request, inode: INodeNo, handle: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        if self.skips_opens {
            // Nothing is ever written, so the kernel need not ask again.
            return reply.error(Errno::ENOSYS);
        }
        respond("flush", inode, reply, self.file_system.close_report(handle.0), |reply, ()| reply.ok());
    }

    fn fsync(&self, _request: &Request, inode: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        if self.skips_opens {
            return reply.error(Errno::ENOSYS);
        }
        let file_system = Arc::clone(&self.file_system);
        self.change("fsync", inode, reply, async move { file_system.fsync(handle.0).await }, |reply, ()| reply.ok());
    }

    fn release(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        {
            // Remaining disk work is done there.
            let _runtime = self.runtime.enter();
            self.file_system.release(handle.0);
        }
        if let Some(passthrough) = &self.passthrough {
            passthrough.release(inode);
        }
        reply.ok();
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (file_system, asker) = (Arc::clone(&self.file_system), asker(request));
        let work = async move {
            file_system.admit(&asker, inode.0, Need::Read).await?;
            file_system.opendir(inode.0).await
        };
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
            let ttl = shorter(&found.entry);
            let attributes = of_entry(&found.entry);
            let full = reply.add(attributes.ino, found.cookie, OsStr::from_bytes(found.name), &ttl, &attributes, GENERATION);
            some |= !full;
            !full
        });
        match result {
            // The kernel knows the names returned so far; it gets the error when it continues after them.
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

    fn fsyncdir(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let file_system = Arc::clone(&self.file_system);
        self.change("fsyncdir", inode, reply, async move { file_system.fsyncdir(inode.0).await }, |reply, ()| reply.ok());
    }

    fn lseek(&self, _request: &Request, inode: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.seek(inode, handle, offset, whence, reply);
    }

    fn statfs(&self, request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        let file_system = Arc::clone(&self.file_system);
        self.run(request, "statfs", inode, reply, async move { file_system.statfs().await }, |reply, space| {
            let (total, free) = (space.total / u64::from(BLOCK), space.free / u64::from(BLOCK));
            reply.statfs(total, free, free, 0, 0, BLOCK, 255, BLOCK);
        });
    }

    /// Programs check of every file that they open whether it is a terminal.
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

    fn setxattr(&self, request: &Request, inode: INodeNo, name: &OsStr, value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty) {
        self.set_xattr(request, inode, name, value, flags, reply);
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (file_system, name, asker) = (Arc::clone(&self.file_system), name.as_bytes().to_vec(), asker(request));
        let work = async move {
            file_system.admit(&asker, inode.0, Need::Write).await?;
            file_system.removexattr(inode.0, &name).await
        };
        self.change("removexattr", inode, reply, work, |reply, ()| reply.ok());
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        // Every change sets it here; no program can, only the kernel that writes times back.
        ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttributes { mode, uid, gid, size, mtime: mtime.map(of_time), atime: atime.map(of_time) };
        let (file_system, caller, asker) = (Arc::clone(&self.file_system), caller(request), asker(request));
        let writes_back = ctime.is_some() && mode.is_none() && uid.is_none() && gid.is_none() && size.is_none();
        let need = if mode.or(uid).or(gid).is_some() { Need::Own } else { Need::Write };
        let work = async move {
            file_system.admit(&asker, inode.0, need).await?;
            match writes_back {
                true => file_system.write_back_times(caller, inode.0, set).await,
                false => file_system.setattr(caller, inode.0, set).await,
            }
        };
        self.change("setattr", inode, reply, work, |reply, entry| answer_attributes(reply, &entry));
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, rdev: u32, reply: ReplyEntry) {
        match kind_of_mode(mode) {
            Some(kind) => {
                let mut new = new_name(parent, name, kind, mode);
                new.node.metadata.device = of_device(rdev);
                self.make("mknod", request, new, reply);
            }
            None => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        self.make("mkdir", request, new_name(parent, name, Kind::Directory, mode), reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (file_system, name, asker) = (Arc::clone(&self.file_system), name.as_bytes().to_vec(), asker(request));
        let work = async move {
            file_system.admit(&asker, parent.0, Need::Write).await?;
            file_system.unlink(parent.0, &name).await
        };
        self.change("unlink", parent, reply, work, |reply, ()| reply.ok());
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (file_system, name, asker) = (Arc::clone(&self.file_system), name.as_bytes().to_vec(), asker(request));
        let work = async move {
            file_system.admit(&asker, parent.0, Need::Write).await?;
            file_system.rmdir(parent.0, &name).await
        };
        self.change("rmdir", parent, reply, work, |reply, ()| reply.ok());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let mut new = new_name(parent, name, Kind::Symlink, 0o777);
        new.node.target = target.as_os_str().as_bytes().to_vec();
        self.make("symlink", request, new, reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(replace) = replace_of(flags) else { return reply.error(Errno::EINVAL) };
        let (file_system, name, to) = (Arc::clone(&self.file_system), name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        let asker = asker(request);
        let work = async move {
            file_system.admit(&asker, parent.0, Need::Write).await?;
            file_system.admit(&asker, new_parent.0, Need::Write).await?;
            file_system.rename((parent.0, &name), (new_parent.0, &to), replace).await
        };
        self.change("rename", parent, reply, work, |reply, ()| reply.ok());
    }

    fn link(&self, request: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (file_system, name) = (Arc::clone(&self.file_system), name.as_bytes().to_vec());
        let asker = asker(request);
        let work = async move {
            file_system.admit(&asker, parent.0, Need::Write).await?;
            file_system.link(inode.0, parent.0, &name).await
        };
        self.change("link", inode, reply, work, |reply, entry| answer_found(reply, &entry));
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, flags: i32, reply: ReplyCreate) {
        self.create_file(request, new_name(parent, name, Kind::File, mode), flags, reply);
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _open_flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let strip = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        self.write_bytes(inode, (handle, offset), data, strip, reply);
    }

    fn fallocate(&self, request: &Request, inode: INodeNo, handle: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        let (file_system, caller) = (Arc::clone(&self.file_system), caller(request));
        let work = async move { file_system.allocate(caller, handle.0, mode, offset, length).await };
        self.change("fallocate", inode, reply, work, |reply, ()| reply.ok());
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _inode_in: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        inode_out: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.copy_range(request, inode_out, (handle_in, offset_in), (handle_out, offset_out), length, reply);
    }
}
