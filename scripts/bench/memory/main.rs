//! A FUSE file system without storage: names, attributes and bytes are in maps. `scripts/bench/write` measures ocifs against it, to see
//! what staging costs beyond FUSE itself.
//!
//! It asks the kernel for the same as a writable mount of ocifs (`src/fuse/adapter/negotiation.rs`), serves with as many threads, and
//! gives answers that are kept as long. Nothing is omitted that a file system with storage would have to answer. Hard links, devices
//! and extended attributes are refused.
//!
//!     memory MOUNTPOINT

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, MountOption, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr, Request, Session, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

const KEPT: Duration = Duration::from_secs(u32::MAX as u64);
const GENERATION: Generation = Generation(0);

struct Node {
    attributes: FileAttr,
    bytes: Vec<u8>,
    names: BTreeMap<OsString, u64>,
}

struct Memory {
    nodes: Mutex<HashMap<u64, Node>>,
    next: AtomicU64,
}

fn attributes(inode: u64, kind: FileType, mode: u32, owner: (u32, u32)) -> FileAttr {
    let now = SystemTime::now();
    FileAttr {
        ino: INodeNo(inode),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm: (mode & 0o7777) as u16,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: owner.0,
        gid: owner.1,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn time(set: TimeOrNow) -> SystemTime {
    match set {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Memory {
    fn new() -> Self {
        let root = Node { attributes: attributes(1, FileType::Directory, 0o755, (0, 0)), bytes: Vec::new(), names: BTreeMap::new() };
        Self { nodes: Mutex::new(HashMap::from([(1, root)])), next: AtomicU64::new(2) }
    }

    fn add(&self, request: &Request, parent: INodeNo, name: &OsStr, kind: FileType, mode: u32, bytes: &[u8]) -> Result<FileAttr, Errno> {
        let inode = self.next.fetch_add(1, Ordering::Relaxed);
        let mut made = attributes(inode, kind, mode, (request.uid(), request.gid()));
        made.size = bytes.len() as u64;
        let mut nodes = self.nodes.lock();
        let directory = nodes.get_mut(&parent.0).ok_or(Errno::ESTALE)?;
        if directory.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        directory.names.insert(name.to_owned(), inode);
        directory.attributes.mtime = made.mtime;
        directory.attributes.ctime = made.ctime;
        directory.attributes.nlink += u32::from(kind == FileType::Directory);
        nodes.insert(inode, Node { attributes: made, bytes: bytes.to_vec(), names: BTreeMap::new() });
        Ok(made)
    }

    /// Removes a name; its node, which the kernel may still use, stays.
    fn remove(&self, parent: INodeNo, name: &OsStr, is_directory: bool) -> Result<(), Errno> {
        let mut nodes = self.nodes.lock();
        let inode = *nodes.get(&parent.0).and_then(|directory| directory.names.get(name)).ok_or(Errno::ENOENT)?;
        let node = nodes.get_mut(&inode).ok_or(Errno::ESTALE)?;
        match (is_directory, node.attributes.kind == FileType::Directory) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ if !node.names.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => node.attributes.nlink = 0,
        }
        let directory = nodes.get_mut(&parent.0).ok_or(Errno::ESTALE)?;
        directory.names.remove(name);
        directory.attributes.mtime = SystemTime::now();
        directory.attributes.ctime = directory.attributes.mtime;
        directory.attributes.nlink -= u32::from(is_directory);
        Ok(())
    }

    fn change<T>(&self, inode: INodeNo, work: impl FnOnce(&mut Node) -> T) -> Result<T, Errno> {
        self.nodes.lock().get_mut(&inode.0).map(work).ok_or(Errno::ESTALE)
    }
}

fn enter(reply: ReplyEntry, made: Result<FileAttr, Errno>) {
    match made {
        Ok(attributes) => reply.entry(&KEPT, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn end(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Memory {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_WRITEBACK_CACHE,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ] {
            config.add_capabilities(wanted).map_err(|_| io::Error::other(format!("the kernel does not support {wanted:?}")))?;
        }
        let _ = config.set_max_write(1 << 20);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let nodes = self.nodes.lock();
        let inode = nodes.get(&parent.0).and_then(|directory| directory.names.get(name));
        let found = inode.and_then(|inode| nodes.get(inode)).map(|node| node.attributes);
        drop(nodes);
        enter(reply, found.ok_or(Errno::ENOENT));
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.change(inode, |node| node.attributes) {
            Ok(attributes) => reply.attr(&KEPT, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = self.change(inode, |node| {
            if let Some(size) = size {
                node.bytes.resize(usize::try_from(size).unwrap_or(usize::MAX), 0);
            }
            let attributes = &mut node.attributes;
            attributes.perm = mode.map_or(attributes.perm, |mode| (mode & 0o7777) as u16);
            attributes.uid = uid.unwrap_or(attributes.uid);
            attributes.gid = gid.unwrap_or(attributes.gid);
            attributes.size = size.unwrap_or(attributes.size);
            attributes.atime = atime.map_or(attributes.atime, time);
            attributes.mtime = mtime.map_or(attributes.mtime, time);
            attributes.ctime = SystemTime::now();
            *attributes
        });
        match set {
            Ok(attributes) => reply.attr(&KEPT, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        match self.change(inode, |node| node.bytes.clone()) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        enter(reply, self.add(request, parent, name, FileType::Directory, mode, &[]));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_encoded_bytes();
        enter(reply, self.add(request, parent, name, FileType::Symlink, 0o777, target));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        end(reply, self.remove(parent, name, false));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        end(reply, self.remove(parent, name, true));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let mut nodes = self.nodes.lock();
        let moved = nodes.get_mut(&parent.0).and_then(|directory| directory.names.remove(name));
        let result = match (moved, nodes.get_mut(&new_parent.0)) {
            (Some(inode), Some(directory)) => {
                directory.names.insert(new_name.to_owned(), inode);
                Ok(())
            }
            _ => Err(Errno::ENOENT),
        };
        drop(nodes);
        end(reply, result);
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, _flags: i32, reply: ReplyCreate) {
        match self.add(request, parent, name, FileType::RegularFile, mode, &[]) {
            Ok(attributes) => reply.created(&KEPT, &attributes, GENERATION, FileHandle(attributes.ino.0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mut answer = FopenFlags::FOPEN_KEEP_CACHE;
        answer.set(FopenFlags::FOPEN_NOFLUSH, flags.acc_mode() == OpenAccMode::O_RDONLY);
        reply.opened(FileHandle(inode.0), answer);
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.change(inode, |node| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(node.bytes.len());
            let to = from.saturating_add(size as usize).min(node.bytes.len());
            node.bytes.get(from..to).unwrap_or_default().to_vec()
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.change(inode, |node| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let to = from.saturating_add(data.len());
            if node.bytes.len() < to {
                node.bytes.resize(to, 0);
            }
            if let Some(range) = node.bytes.get_mut(from..to) {
                range.copy_from_slice(data);
            }
            node.attributes.size = node.bytes.len() as u64;
            node.attributes.blocks = node.attributes.size.div_ceil(512);
            node.attributes.mtime = SystemTime::now();
        });
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdirplus(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let nodes = self.nodes.lock();
        let names = nodes.get(&inode.0).map(|directory| &directory.names);
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (position, (name, inode)) in names.into_iter().flatten().enumerate().skip(skipped) {
            let Some(node) = nodes.get(inode) else { continue };
            if reply.add(INodeNo(*inode), position as u64 + 1, name, &KEPT, &node.attributes, GENERATION) {
                break;
            }
        }
        drop(nodes);
        reply.ok();
    }

    fn access(&self, _request: &Request, _inode: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn getxattr(&self, _request: &Request, _inode: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::NO_XATTR);
    }
}

fn main() -> io::Result<()> {
    let point = std::env::args_os().nth(1).map(PathBuf::from).ok_or_else(|| io::Error::other("usage: memory MOUNTPOINT"))?;
    let mut config = fuser::Config::default();
    config.mount_options = vec![MountOption::FSName("memory".to_owned()), MountOption::NoSuid, MountOption::NoDev];
    config.n_threads = Some(std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 4));
    Session::new(Memory::new(), &point, &config)?.run()
}
