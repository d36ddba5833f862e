//! A case-insensitive file system: names are stored in lower case. It has neither unnamed files nor hard links. Served by this process, unmounted
//! when dropped.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use parking_lot::Mutex;

/// A mounted instance.
pub struct Folding {
    session: Option<BackgroundSession>,
    point: PathBuf,
}

impl Folding {
    /// Mounts one on a new directory `point`; its files are in a new directory `store`.
    pub fn mount(point: PathBuf, store: PathBuf) -> Self {
        std::fs::create_dir(&point).unwrap();
        std::fs::create_dir(&store).unwrap();
        let files = Files { paths: Mutex::new(Paths { by_number: vec![store.clone()], numbers: [(store, 0)].into() }) };
        let session = Some(fuser::spawn_mount(files, &point, &Config::default()).unwrap());
        Self { session, point }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for Folding {
    fn drop(&mut self) {
        drop(self.session.take());
    }
}

/// Every path seen has a number.
#[derive(Default)]
struct Paths {
    by_number: Vec<PathBuf>,
    numbers: HashMap<PathBuf, u64>,
}

struct Files {
    paths: Mutex<Paths>,
}

impl Files {
    fn path(&self, number: INodeNo) -> PathBuf {
        self.paths.lock().by_number[number.0 as usize - 1].clone()
    }

    fn below(&self, parent: INodeNo, name: &OsStr) -> PathBuf {
        self.path(parent).join(name.to_str().unwrap_or_default().to_lowercase())
    }

    fn number(&self, path: &Path) -> u64 {
        let mut paths = self.paths.lock();
        let next = paths.by_number.len() as u64;
        let number = *paths.numbers.entry(path.to_owned()).or_insert(next);
        if number == next {
            paths.by_number.push(path.to_owned());
        }
        number + 1
    }

    fn attributes(&self, path: &Path) -> io::Result<FileAttr> {
        let metadata = path.symlink_metadata()?;
        Ok(attributes(self.number(path), &metadata))
    }

    fn answer(&self, path: io::Result<PathBuf>, reply: ReplyEntry) {
        match path.and_then(|path| self.attributes(&path)) {
            Ok(attributes) => reply.entry(&Duration::ZERO, &attributes, Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }
}

fn attributes(number: u64, metadata: &Metadata) -> FileAttr {
    let time = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(number),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: FileType::from_std(metadata.file_type()).unwrap(),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn done(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.answer(Ok(self.below(parent, name)), reply);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(&self.path(number)) {
            Ok(attributes) => reply.attr(&Duration::ZERO, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let path = self.path(number);
        let set = || {
            if let Some(mode) = mode {
                std::fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777))?;
            }
            if let Some(size) = size {
                OpenOptions::new().write(true).open(&path)?.set_len(size)?;
            }
            if let Some(TimeOrNow::SpecificTime(time)) = modified {
                File::open(&path)?.set_modified(time)?;
            }
            self.attributes(&path)
        };
        match set() {
            Ok(attributes) => reply.attr(&Duration::ZERO, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match std::fs::read_link(self.path(number)) {
            Ok(target) => reply.data(target.as_os_str().as_encoded_bytes()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let path = self.below(parent, name);
        self.answer(std::fs::DirBuilder::new().mode(mode).create(&path).map(|()| path), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(std::fs::remove_file(self.below(parent, name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(std::fs::remove_dir(self.below(parent, name)), reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let path = self.below(parent, name);
        self.answer(std::os::unix::fs::symlink(target, &path).map(|()| path), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (self.below(parent, name), self.below(new_parent, new_name));
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && to.symlink_metadata().is_ok() {
            return reply.error(Errno::EEXIST);
        }
        let renamed = std::fs::rename(&from, &to);
        if renamed.is_ok() {
            // Handles of the moved file continue by its number.
            let mut paths = self.paths.lock();
            if let Some(number) = paths.numbers.remove(&from) {
                paths.by_number[number as usize] = to.clone();
                paths.numbers.insert(to, number);
            }
        }
        done(renamed, reply);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        let path = self.below(parent, name);
        let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).and_then(|_| self.attributes(&path));
        match made {
            Ok(attributes) => reply.created(&Duration::ZERO, &attributes, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut data = vec![0; size as usize];
        match File::open(self.path(number)).and_then(|file| file.read_at(&mut data, offset)) {
            Ok(read) => reply.data(&data[..read]),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match OpenOptions::new().write(true).open(self.path(number)).and_then(|file| file.write_all_at(data, offset)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let path = self.path(number);
        let Ok(entries) = std::fs::read_dir(&path) else { return reply.error(Errno::EIO) };
        for (place, entry) in entries.map(Result::unwrap).enumerate().skip(offset as usize) {
            let kind = FileType::from_std(entry.file_type().unwrap()).unwrap();
            if reply.add(INodeNo(self.number(&entry.path())), place as u64 + 1, kind, entry.file_name()) {
                break;
            }
        }
        reply.ok();
    }
}
