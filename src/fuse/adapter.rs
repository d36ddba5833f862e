//! Translates kernel requests to calls of the file system, and results to replies. `operations` runs those calls,
//! `negotiation` agrees with the kernel on how it sends them; the longer translations are in `changes` and `opening`.

mod arguments;
mod changes;
mod negotiation;
mod opening;
mod operations;
mod replies;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags, KernelConfig, LockOwner,
    OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use super::attributes::of_entry;
use super::caller::asker;
use super::errno::errno;
use super::passthrough::Passthrough;
use super::watchdog::Watchdog;
use crate::artifact::Kind;
use crate::error::Error;
use crate::fs::{FileSystem, Need};
use crate::view::SetAttributes;
use arguments::{caller, kind_of_mode, new_name, of_device, of_time, replace_of};
use operations::{Operations, log, respond};
use replies::{GENERATION, answer_attributes, answer_entry, answer_found, answer_space, answer_xattr, open_flags, shorter};

/// Translates between fuser and the file system.
pub struct Adapter {
    file_system: Arc<FileSystem>,
    operations: Operations,
    /// OPEN is answered "not implemented": reads come without a handle.
    skips_opens: bool,
    /// `None` where the kernel must not read files by itself.
    passthrough: Option<Arc<Passthrough>>,
}

impl Adapter {
    /// An adapter; operations that wait do so on the runtime.
    pub fn new(file_system: Arc<FileSystem>, runtime: Handle, watchdog: Watchdog) -> Self {
        Self { file_system, operations: Operations::new(runtime, watchdog), skips_opens: false, passthrough: None }
    }

    /// Admits the caller to an inode, then calls the file system.
    fn admitted<T, W, C>(
        &self,
        request: &Request,
        inode: INodeNo,
        need: Need,
        call: C,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<T, W, C>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        C: FnOnce(Arc<FileSystem>) -> W + Send + 'static,
    {
        let (file_system, asker) = (Arc::clone(&self.file_system), asker(request));
        async move {
            file_system.admit(&asker, inode.0, need).await?;
            call(file_system).await
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.negotiate(config);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        let work =
            self.admitted(request, parent, Need::Search, move |file_system| async move { file_system.lookup(parent.0, &name).await });
        self.operations.run(request, "lookup", parent, reply, work, answer_entry);
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        self.file_system.forget(inode.0, lookups);
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let file_system = Arc::clone(&self.file_system);
        let work = async move { file_system.getattr(inode.0).await };
        self.operations.run(request, "getattr", inode, reply, work, |reply, entry| answer_attributes(reply, &entry));
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let result = self.file_system.readlink(inode.0);
        self.operations.run(request, "readlink", inode, reply, std::future::ready(result), |reply, target| reply.data(&target));
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
        self.operations.run(request, "open", inode, reply, work, move |reply, open| {
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
        self.operations.run(request, "read", inode, reply, work, |reply, bytes| reply.data(&bytes));
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
        self.operations.change("fsync", inode, reply, async move { file_system.fsync(handle.0).await }, |reply, ()| reply.ok());
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
            let _runtime = self.operations.enter();
            self.file_system.release(handle.0);
        }
        if let Some(passthrough) = &self.passthrough {
            passthrough.release(inode);
        }
        reply.ok();
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let work = self.admitted(request, inode, Need::Read, move |file_system| async move { file_system.opendir(inode.0).await });
        self.operations.run(request, "opendir", inode, reply, work, |reply, open| {
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
        self.operations.change("fsyncdir", inode, reply, async move { file_system.fsyncdir(inode.0).await }, |reply, ()| reply.ok());
    }

    fn lseek(&self, _request: &Request, inode: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.seek(inode, handle, offset, whence, reply);
    }

    fn statfs(&self, request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        let file_system = Arc::clone(&self.file_system);
        self.operations.run(request, "statfs", inode, reply, async move { file_system.statfs().await }, answer_space);
    }

    /// Programs check of every file that they open whether it is a terminal.
    fn ioctl(&self, _: &Request, _: INodeNo, _: FileHandle, _: IoctlFlags, _: u32, _: &[u8], _: u32, reply: ReplyIoctl) {
        reply.error(Errno::ENOTTY);
    }

    fn getxattr(&self, request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (file_system, name) = (Arc::clone(&self.file_system), name.as_bytes().to_vec());
        let work = async move { file_system.getxattr(inode.0, &name).await };
        self.operations.run(request, "getxattr", inode, reply, work, move |reply, value| match value {
            Some(value) => answer_xattr(reply, &value, size, Errno::E2BIG),
            None => reply.error(Errno::NO_XATTR),
        });
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let result = self.file_system.listxattr(inode.0);
        self.operations.run(request, "listxattr", inode, reply, std::future::ready(result), move |reply, names| {
            let list: Vec<u8> = names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect();
            answer_xattr(reply, &list, size, Errno::E2BIG);
        });
    }

    fn access(&self, request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let file_system = Arc::clone(&self.file_system);
        let (write, execute) = (mask.contains(AccessFlags::W_OK), mask.contains(AccessFlags::X_OK));
        let work = async move { file_system.access(inode.0, write, execute).await };
        self.operations.run(request, "access", inode, reply, work, |reply, ()| reply.ok());
    }

    fn setxattr(&self, request: &Request, inode: INodeNo, name: &OsStr, value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty) {
        self.set_xattr(request, inode, name, value, flags, reply);
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        let work =
            self.admitted(request, inode, Need::Write, move |file_system| async move { file_system.removexattr(inode.0, &name).await });
        self.operations.change("removexattr", inode, reply, work, |reply, ()| reply.ok());
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
        let caller = caller(request);
        let writes_back = ctime.is_some() && mode.is_none() && uid.is_none() && gid.is_none() && size.is_none();
        let need = if mode.or(uid).or(gid).is_some() { Need::Own } else { Need::Write };
        let work = self.admitted(request, inode, need, move |file_system| async move {
            match writes_back {
                true => file_system.write_back_times(caller, inode.0, set).await,
                false => file_system.setattr(caller, inode.0, set).await,
            }
        });
        self.operations.change("setattr", inode, reply, work, |reply, entry| answer_attributes(reply, &entry));
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
        let name = name.as_bytes().to_vec();
        let work = self.admitted(request, parent, Need::Write, move |file_system| async move { file_system.unlink(parent.0, &name).await });
        self.operations.change("unlink", parent, reply, work, |reply, ()| reply.ok());
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        let work = self.admitted(request, parent, Need::Write, move |file_system| async move { file_system.rmdir(parent.0, &name).await });
        self.operations.change("rmdir", parent, reply, work, |reply, ()| reply.ok());
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
        let (name, to, asker) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec(), asker(request));
        let work = self.admitted(request, parent, Need::Write, move |file_system| async move {
            file_system.admit(&asker, new_parent.0, Need::Write).await?;
            file_system.rename((parent.0, &name), (new_parent.0, &to), replace).await
        });
        self.operations.change("rename", parent, reply, work, |reply, ()| reply.ok());
    }

    fn link(&self, request: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        let work =
            self.admitted(request, parent, Need::Write, move |file_system| async move { file_system.link(inode.0, parent.0, &name).await });
        self.operations.change("link", inode, reply, work, |reply, entry| answer_found(reply, &entry));
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
        self.operations.change("fallocate", inode, reply, work, |reply, ()| reply.ok());
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
