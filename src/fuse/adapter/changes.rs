//! The longer translations, mostly of requests that change something.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use fuser::{Errno, FileHandle, FopenFlags, INodeNo, ReplyCreate, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyWrite, Request};

use super::Adapter;
use super::arguments::caller;
use super::operations::{panicked, respond};
use super::replies::{GENERATION, answer_found, shorter};
use crate::fs::{Need, NewName};
use crate::fuse::attributes::of_entry;

/// `setxattr`: create only, replace only.
const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;
/// `lseek`: to data, to a hole.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
/// `open`: fail if the name is taken.
const EXCLUSIVE: i32 = 0o200;

impl Adapter {
    pub(super) fn make(&self, operation: &'static str, request: &Request, new: NewName, reply: ReplyEntry) {
        let (caller, parent) = (caller(request), INodeNo(new.directory));
        let work = self.admitted(request, parent, Need::Write, move |file_system| async move { file_system.make(caller, new).await });
        self.operations.change(operation, parent, reply, work, |reply, entry| answer_found(reply, &entry));
    }

    pub(super) fn create_file(&self, request: &Request, new: NewName, flags: i32, reply: ReplyCreate) {
        let (caller, parent) = (caller(request), INodeNo(new.directory));
        let work = self.admitted(request, parent, Need::Write, move |file_system| async move {
            file_system.create(caller, new, flags & EXCLUSIVE != 0).await
        });
        self.operations.change("create", parent, reply, work, |reply, (entry, open)| {
            let mut flags = FopenFlags::empty();
            flags.set(FopenFlags::FOPEN_KEEP_CACHE, open.keep_cache);
            reply.created(&shorter(&entry), &of_entry(&entry), GENERATION, FileHandle(open.handle), flags);
        });
    }

    /// The caller lends the bytes: they are copied only if they cannot be written at once.
    pub(super) fn write_bytes(&self, inode: INodeNo, to: (FileHandle, u64), data: &[u8], strip: bool, reply: ReplyWrite) {
        let (handle, offset) = (to.0.0, to.1);
        // The kernel was told to send less than 4 GiB.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let answer = move |reply: ReplyWrite, ()| reply.written(length);
        let polled = self.operations.poll(pin!(self.file_system.write(handle, offset, data, strip)));
        match polled {
            Ok(Poll::Ready(result)) => respond("write", inode, reply, result, answer),
            Err(()) => panicked("write", inode, reply),
            Ok(Poll::Pending) => {
                let (file_system, data) = (Arc::clone(&self.file_system), data.to_vec());
                let work = async move { file_system.write(handle, offset, &data, strip).await };
                self.operations.change("write", inode, reply, work, answer);
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
        // The answer has 32 bits; the caller continues after the copied part.
        let length = length.min(u64::from(u32::MAX >> 1));
        let work = async move { file_system.copy_range(caller, (from.0.0, from.1), (to.0.0, to.1), length).await };
        self.operations.change("copy_file_range", inode, reply, work, |reply, copied| {
            reply.written(u32::try_from(copied).unwrap_or(u32::MAX));
        });
    }

    pub(super) fn seek(&self, inode: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let (Ok(offset), SEEK_DATA | SEEK_HOLE) = (u64::try_from(offset), whence) else { return reply.error(Errno::EINVAL) };
        let file_system = Arc::clone(&self.file_system);
        let (by_inode, data) = (self.skips_opens, whence == SEEK_DATA);
        let work = async move {
            match by_inode {
                true => file_system.seek_unopened(inode.0, offset, data).await,
                false => file_system.seek(handle.0, offset, data).await,
            }
        };
        self.operations.change("lseek", inode, reply, work, |reply, found| match found.and_then(|offset| i64::try_from(offset).ok()) {
            Some(offset) => reply.offset(offset),
            None => reply.error(Errno::ENXIO),
        });
    }

    pub(super) fn set_xattr(&self, request: &Request, inode: INodeNo, name: &OsStr, value: &[u8], flags: i32, reply: ReplyEmpty) {
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        let (create, replace) = (flags & XATTR_CREATE != 0, flags & XATTR_REPLACE != 0);
        let work = self.admitted(request, inode, Need::Write, move |file_system| async move {
            file_system.setxattr(inode.0, &name, &value, create, replace).await
        });
        self.operations.change("setxattr", inode, reply, work, |reply, ()| reply.ok());
    }
}
