//! A layout in a tar archive, read in place and rewritten on change.
//!
//! An archive is never changed in place: additions go into `FILE.partial`; [`Archive::finish`] copies the rest there and renames it to the
//! archive, so readers never see half of it. A partial file left by a stopped command is resumed: verified blobs in it are not fetched
//! again. Blobs arrive in any order, several at once, each in its own region, whose header is written last. Everything here blocks the
//! thread.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::local::{INDEX, MARKER};
use super::slice::Slice;
use crate::durable::{self, RangeLock, Sharing};
use crate::error::ErrorKind;
use crate::layer::{ARCHIVE_END, ArchiveMember, archive_directory, archive_header, archive_members, archive_padding};
use crate::oci::{Digest, Hasher};

/// Name suffix of an unfinished archive.
const PARTIAL: &str = ".partial";
/// Bytes hashed at once.
const PIECE: u64 = 1 << 20;
/// Most links followed in a chain.
const LINKS: usize = 8;
/// Magic numbers of compressed files, and the compressor.
const COMPRESSED: [(&[u8], &str); 4] = [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

/// The archive of a layout.
pub(super) struct Archive(Arc<Shared>);

struct Shared {
    path: PathBuf,
    is_writable: bool,
    state: Mutex<State>,
    /// Locked while the index is changed; before `state`.
    index: Mutex<()>,
}

#[derive(Default)]
struct State {
    members: HashMap<PathBuf, Slice>,
    partial: Option<Partial>,
}

/// An unfinished archive.
struct Partial {
    path: PathBuf,
    file: Arc<File>,
    /// Offset of the next header.
    end: u64,
    /// Whether it has anything that the archive lacks.
    is_changed: bool,
    /// Failed regions with others after them.
    holes: usize,
    /// Directories that have an entry. Tools that unpack as another user (skopeo) fail on a file before its directory: they try to give the
    /// directory to root.
    directories: HashSet<PathBuf>,
    _lock: RangeLock,
}

/// Space reserved for a file in an unfinished archive.
pub(super) struct Region {
    archive: Arc<Shared>,
    /// With the headers of its new directories in front.
    header: Vec<u8>,
    /// Those directories.
    directories: Vec<PathBuf>,
    header_at: u64,
    content: Slice,
    written: u64,
    is_placed: bool,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn of_layer(error: crate::error::Error) -> io::Error {
    match error.kind {
        ErrorKind::Integrity => invalid(error.message),
        _ => io::Error::other(error.message),
    }
}

impl Archive {
    /// Opens an archive for reading.
    pub(super) fn open_file(path: PathBuf) -> io::Result<Self> {
        let members = members(File::open(&path)?)?;
        Ok(Self::new(path, false, State { members, partial: None }))
    }

    /// Opens an archive, or a path for a new one, for writing.
    pub(super) fn open_or_begin(path: PathBuf) -> io::Result<Self> {
        let mut state = State::default();
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => state.members = members(file?)?,
        }
        if partial_path(&path).symlink_metadata().is_ok() {
            let mut partial = Partial::begin(&path)?;
            for (path, slice) in partial.take_up()? {
                state.members.entry(path).or_insert(slice);
            }
            state.partial = Some(partial);
        }
        Ok(Self::new(path, true, state))
    }

    fn new(path: PathBuf, is_writable: bool, state: State) -> Self {
        Self(Arc::new(Shared { path, is_writable, state: Mutex::new(state), index: Mutex::default() }))
    }

    /// Whether it has a file of this name.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.state().members.contains_key(Path::new(path))
    }

    pub(super) fn open(&self, path: &Path) -> io::Result<Slice> {
        self.0.state().members.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reserves space for a file.
    pub(super) fn receive(&self, path: &Path, size: u64) -> io::Result<Region> {
        let mut state = self.0.state();
        let partial = self.0.partial(&mut state)?;
        let (header, directories) = partial.header(path, size)?;
        let header_at = partial.end;
        let start = header_at + header.len() as u64;
        partial.end = start + size + archive_padding(size);
        partial.is_changed = true;
        let content = Slice { file: Arc::clone(&partial.file), start, size };
        Ok(Region { archive: Arc::clone(&self.0), header, directories, header_at, content, written: 0, is_placed: false })
    }

    pub(super) fn put(&self, path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
        if path == Path::new(INDEX) || path == Path::new(MARKER) {
            return self.put_aside(path, bytes, replace);
        }
        // A file named by its digest has the right bytes.
        if let Ok(slice) = self.open(path)
            && (!replace || slice.small(bytes.len() as u64)?.is_some_and(|known| known == bytes))
        {
            return Ok(());
        }
        let mut region = self.receive(path, bytes.len() as u64)?;
        region.write(bytes)?;
        region.place(path)
    }

    /// Files that may change again are written at the end.
    fn put_aside(&self, path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
        let mut state = self.0.state();
        if !replace && state.members.contains_key(path) {
            return Ok(());
        }
        self.0.partial(&mut state)?.is_changed = true;
        let mut file = tempfile::tempfile_in(self.0.directory())?;
        file.write_all(bytes)?;
        state.members.insert(path.to_owned(), Slice::whole(file)?);
        Ok(())
    }

    pub(super) fn lock(&self) -> io::Result<MutexGuard<'_, ()>> {
        self.0.check_writable()?;
        Ok(self.0.index.lock())
    }

    /// Nothing is removed from an archive.
    pub(super) fn remove(&self) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "cannot delete from an archive"))
    }

    /// Renames the unfinished archive to its final name, if it has changes.
    pub(super) fn finish(&self) -> io::Result<()> {
        let _index = self.0.index.lock();
        let (mut partial, members) = {
            let mut state = self.0.state();
            match state.partial.take() {
                Some(partial) => (partial, state.members.clone()),
                None => return Ok(()),
            }
        };
        if !partial.is_changed {
            return std::fs::remove_file(&partial.path);
        }
        let completed = match partial.holes {
            0 => partial.complete(members, &self.0.path),
            _ => Err(io::Error::other("the archive is incomplete")),
        };
        if completed.is_err() {
            // The next attempt resumes with it.
            self.0.state().partial = Some(partial);
        }
        completed
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn directory(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.is_writable {
            true => Ok(()),
            false => {
                Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "an archive cannot be changed in place; use `ocifs cp` to add to it"))
            }
        }
    }

    fn partial<'state>(&self, state: &'state mut State) -> io::Result<&'state mut Partial> {
        self.check_writable()?;
        if state.partial.is_none() {
            state.partial = Some(Partial::begin(&self.path)?);
        }
        state.partial.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Shared {
    /// Removes a partial file with nothing worth resuming.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(partial) = state.partial.as_ref().filter(|partial| partial.end == 0) {
            drop(std::fs::remove_file(&partial.path));
        }
    }
}

impl Region {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.written + bytes.len() as u64;
        if end > self.content.size {
            return Err(invalid(format!("more than the announced {} bytes", self.content.size)));
        }
        self.content.file.write_all_at(bytes, self.content.start + self.written)?;
        self.written = end;
        Ok(())
    }

    /// Writes the header, which makes the bytes visible to readers.
    pub(super) fn place(mut self, path: &Path) -> io::Result<()> {
        if self.written != self.content.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content.file.write_all_at(&self.header, self.header_at)?;
        self.archive.state().members.insert(path.to_owned(), self.content.clone());
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for Region {
    /// The last region is given back; any other leaves a hole.
    fn drop(&mut self) {
        let mut state = self.archive.state();
        let Some(partial) = state.partial.as_mut().filter(|_| !self.is_placed) else { return };
        match partial.end == self.content.start + self.content.size + archive_padding(self.content.size) {
            true => {
                partial.end = self.header_at;
                partial.directories.retain(|directory| !self.directories.contains(directory));
            }
            false => partial.holes += 1,
        }
    }
}

impl Partial {
    /// Opens or creates the partial file of an archive, for this process alone.
    fn begin(archive: &Path) -> io::Result<Self> {
        let path = partial_path(archive);
        let busy = || io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing this archive");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let lock = RangeLock::try_range(&path, 0..u64::MAX, Sharing::Exclusive)?.ok_or_else(busy)?;
        // Its writer may have finished meanwhile and renamed it.
        if !lock.is_at(&path)? {
            return Err(busy());
        }
        Ok(Self { path, file: Arc::new(file), end: 0, is_changed: false, holes: 0, directories: HashSet::new(), _lock: lock })
    }

    /// The header of a file, after those of its directories without an entry, which now have one and are returned too.
    fn header(&mut self, path: &Path, size: u64) -> io::Result<(Vec<u8>, Vec<PathBuf>)> {
        let (mut header, mut directories) = (Vec::new(), Vec::new());
        let parents: Vec<&Path> = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev().filter(|parent| !self.directories.contains(*parent)) {
            header.extend(archive_directory(parent.as_os_str().as_bytes()).map_err(of_layer)?);
            directories.push(parent.to_owned());
        }
        header.extend(archive_header(path.as_os_str().as_bytes(), size).map_err(of_layer)?);
        self.directories.extend(directories.iter().cloned());
        Ok((header, directories))
    }

    /// The complete blobs left by a stopped command; everything after them is cut off.
    fn take_up(&mut self) -> io::Result<HashMap<PathBuf, Slice>> {
        let (mut found, mut whole) = (Vec::new(), HashMap::new());
        let length = self.file.metadata()?.len();
        let walked = archive_members(length, |at, buffer| self.file.read_exact_at(buffer, at), |member| found.push(member));
        if let Err(error) = walked {
            tracing::debug!(%error, "the partial archive ends early");
        }
        for member in found {
            let path = PathBuf::from(OsStr::from_bytes(&member.path));
            let slice = Slice { file: Arc::clone(&self.file), start: member.offset, size: member.size };
            if !digest_of(&path).is_some_and(|digest| is_digest(&slice, digest).unwrap_or(false)) {
                break;
            }
            self.end = member.offset + member.size + archive_padding(member.size);
            self.directories.extend(path.ancestors().skip(1).map(Path::to_owned));
            whole.insert(path, slice);
        }
        self.file.set_len(self.end)?;
        Ok(whole)
    }

    /// Adds the files that only the archive has and the deferred ones, syncs and renames.
    fn complete(&mut self, members: HashMap<PathBuf, Slice>, archive: &Path) -> io::Result<()> {
        let mut rest: Vec<_> = members.into_iter().filter(|(_, slice)| !Arc::ptr_eq(&slice.file, &self.file)).collect();
        // Sorted, with the index last.
        rest.sort_by(|one, other| (one.0 == Path::new(INDEX), &one.0).cmp(&(other.0 == Path::new(INDEX), &other.0)));
        let mut at = self.end;
        for (path, slice) in rest {
            at = self.append(at, &path, &slice)?;
        }
        self.file.write_all_at(&ARCHIVE_END, at)?;
        self.file.set_len(at + ARCHIVE_END.len() as u64)?;
        self.file.sync_all()?;
        std::fs::rename(&self.path, archive)?;
        durable::sync_directory(archive.parent().unwrap_or(Path::new("/")))
    }

    fn append(&mut self, at: u64, path: &Path, slice: &Slice) -> io::Result<u64> {
        let (header, _) = self.header(path, slice.size)?;
        self.file.write_all_at(&header, at)?;
        let (mut from, mut to) = (&*slice.file, &*self.file);
        from.seek(SeekFrom::Start(slice.start))?;
        to.seek(SeekFrom::Start(at + header.len() as u64))?;
        if io::copy(&mut from.take(slice.size), &mut to)? != slice.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(at + header.len() as u64 + slice.size + archive_padding(slice.size))
    }
}

fn partial_path(archive: &Path) -> PathBuf {
    let mut name = archive.file_name().map(OsString::from).unwrap_or_default();
    name.push(PARTIAL);
    archive.with_file_name(name)
}

/// The files of an archive; if two have one name, the last counts. Links are resolved.
fn members(file: File) -> io::Result<HashMap<PathBuf, Slice>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(invalid("it is not a file"));
    }
    let file = Arc::new(file);
    let mut found: HashMap<Vec<u8>, ArchiveMember> = HashMap::new();
    let add = |member: ArchiveMember| drop(found.insert(member.path.clone(), member));
    let walked = archive_members(metadata.len(), |at, buffer| file.read_exact_at(buffer, at), add);
    if let Err(error) = walked {
        return Err(
            compression(&file).map_or_else(|| of_layer(error), |name| invalid(format!("it is compressed; unpack it with {name} first")))
        );
    }
    let slice = |member: &ArchiveMember| Slice { file: Arc::clone(&file), start: member.offset, size: member.size };
    let path = |path: &[u8]| PathBuf::from(OsStr::from_bytes(path));
    Ok(found.values().filter_map(|member| Some((path(&member.path), slice(followed(member, &found)?)))).collect())
}

/// The member that a link points to.
fn followed<'found>(mut member: &'found ArchiveMember, all: &'found HashMap<Vec<u8>, ArchiveMember>) -> Option<&'found ArchiveMember> {
    for _ in 0..LINKS {
        match &member.link {
            None => return Some(member),
            Some(target) => member = all.get(target)?,
        }
    }
    None
}

fn compression(file: &File) -> Option<&'static str> {
    let mut start = [0; 6];
    file.read_exact_at(&mut start, 0).ok()?;
    COMPRESSED.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| *name)
}

/// The digest in a blob's path.
fn digest_of(path: &Path) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs").ok()?.to_str()?.split_once('/')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

fn is_digest(slice: &Slice, digest: Digest) -> io::Result<bool> {
    let mut hasher = Hasher::new(digest.algorithm());
    let (mut at, mut buffer) = (0, vec![0; PIECE.min(slice.size) as usize]);
    while at < slice.size {
        buffer.truncate(PIECE.min(slice.size - at) as usize);
        slice.read_exact_at(&mut buffer, at)?;
        hasher.update(&buffer);
        at += buffer.len() as u64;
    }
    Ok(hasher.finish() == digest)
}
