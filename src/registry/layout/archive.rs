//! A layout in a tar archive, read where it lies and written anew.
//!
//! An archive is never changed in place: what is added goes into `FILE.partial`, and [`Archive::finish`] copies the rest over and gives
//! it the name of the archive, so nobody ever sees half of it. A partial file that a stopped command left is taken up: blobs in it whose
//! digest holds are not fetched again. Blobs arrive in any order, several at once, each in a region of its own, whose header is written
//! last. Everything here blocks the thread.

use std::collections::HashMap;
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
use crate::layer::{ARCHIVE_END, ArchiveMember, archive_header, archive_members, archive_padding};
use crate::oci::{Digest, Hasher};

/// Ending of the name of an archive on its way.
const PARTIAL: &str = ".partial";
/// Bytes that are hashed at once.
const PIECE: u64 = 1 << 20;
/// How deep links lead to links.
const LINKS: usize = 8;
/// First bytes of compressed files, and what makes them.
const COMPRESSED: [(&[u8], &str); 4] = [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

/// The archive of a layout.
pub(super) struct Archive(Arc<Shared>);

struct Shared {
    path: PathBuf,
    is_writable: bool,
    state: Mutex<State>,
    /// Locked by those who change the index; before `state`.
    index: Mutex<()>,
}

#[derive(Default)]
struct State {
    members: HashMap<PathBuf, Slice>,
    partial: Option<Partial>,
}

/// An archive on its way.
struct Partial {
    path: PathBuf,
    file: Arc<File>,
    /// Where the next header goes.
    end: u64,
    /// Whether the archive lacks anything of it.
    is_changed: bool,
    /// Regions whose file did not arrive, with others behind them.
    holes: usize,
    _lock: RangeLock,
}

/// Room for a file in an archive on its way.
pub(super) struct Region {
    archive: Arc<Shared>,
    header: Vec<u8>,
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
    /// Opens an archive to read it.
    pub(super) fn open_file(path: PathBuf) -> io::Result<Self> {
        let members = members(File::open(&path)?)?;
        Ok(Self::new(path, false, State { members, partial: None }))
    }

    /// Opens an archive, or a place where there is none yet, to add to it.
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

    /// Makes room for a file.
    pub(super) fn receive(&self, path: &Path, size: u64) -> io::Result<Region> {
        let header = archive_header(path.as_os_str().as_bytes(), size).map_err(of_layer)?;
        let mut state = self.0.state();
        let partial = self.0.partial(&mut state)?;
        let header_at = partial.end;
        let start = header_at + header.len() as u64;
        partial.end = start + size + archive_padding(size);
        partial.is_changed = true;
        let content = Slice { file: Arc::clone(&partial.file), start, size };
        Ok(Region { archive: Arc::clone(&self.0), header, header_at, content, written: 0, is_placed: false })
    }

    pub(super) fn put(&self, path: &Path, bytes: &[u8], replace: bool) -> io::Result<Slice> {
        if path == Path::new(INDEX) || path == Path::new(MARKER) {
            return self.put_aside(path, bytes, replace);
        }
        // What has a digest for a name has its bytes.
        if let Ok(slice) = self.open(path)
            && (!replace || slice.small(bytes.len() as u64)?.is_some_and(|known| known == bytes))
        {
            return Ok(slice);
        }
        let mut region = self.receive(path, bytes.len() as u64)?;
        region.write(bytes)?;
        region.place(path)
    }

    /// What may change again is written at the end.
    fn put_aside(&self, path: &Path, bytes: &[u8], replace: bool) -> io::Result<Slice> {
        let mut state = self.0.state();
        if !replace && let Some(known) = state.members.get(path) {
            return Ok(known.clone());
        }
        self.0.partial(&mut state)?.is_changed = true;
        let mut file = tempfile::tempfile_in(self.0.directory())?;
        file.write_all(bytes)?;
        let slice = Slice::whole(file)?;
        state.members.insert(path.to_owned(), slice.clone());
        Ok(slice)
    }

    pub(super) fn lock(&self) -> io::Result<MutexGuard<'_, ()>> {
        self.0.check_writable()?;
        Ok(self.0.index.lock())
    }

    /// Nothing is removed from an archive.
    pub(super) fn remove(&self) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "nothing is deleted from an archive"))
    }

    /// Gives the archive on its way the name of the archive, if there is one with changes.
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
            _ => Err(io::Error::other("not all of the archive arrived")),
        };
        if completed.is_err() {
            // The next attempt goes on with it.
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
            false => Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "an archive is not changed in place; `ocifs cp` adds to one")),
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
    /// A partial file of which nothing could be used again goes.
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
            return Err(invalid(format!("more than the {} bytes that were announced", self.content.size)));
        }
        self.content.file.write_all_at(bytes, self.content.start + self.written)?;
        self.written = end;
        Ok(())
    }

    /// Writes the header, by which a reader finds the bytes.
    pub(super) fn place(mut self, path: &Path) -> io::Result<Slice> {
        if self.written != self.content.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content.file.write_all_at(&self.header, self.header_at)?;
        self.archive.state().members.insert(path.to_owned(), self.content.clone());
        self.is_placed = true;
        Ok(self.content.clone())
    }
}

impl Drop for Region {
    /// The last region is given back, another one leaves a hole.
    fn drop(&mut self) {
        let mut state = self.archive.state();
        let Some(partial) = state.partial.as_mut().filter(|_| !self.is_placed) else { return };
        match partial.end == self.content.start + self.content.size + archive_padding(self.content.size) {
            true => partial.end = self.header_at,
            false => partial.holes += 1,
        }
    }
}

impl Partial {
    /// Opens or makes the partial file of an archive, for this process alone.
    fn begin(archive: &Path) -> io::Result<Self> {
        let path = partial_path(archive);
        let busy = || io::Error::new(io::ErrorKind::ResourceBusy, "another process writes this archive");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let lock = RangeLock::try_range(&path, 0..u64::MAX, Sharing::Exclusive)?.ok_or_else(busy)?;
        // Its writer may have finished meanwhile, and taken it away.
        if !lock.is_at(&path)? {
            return Err(busy());
        }
        Ok(Self { path, file: Arc::new(file), end: 0, is_changed: false, holes: 0, _lock: lock })
    }

    /// The blobs that a stopped command left, up to the first that is not whole; what follows is cut off.
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
            whole.insert(path, slice);
        }
        self.file.set_len(self.end)?;
        Ok(whole)
    }

    /// Adds what only the archive has and what was put aside, makes it durable and renames it.
    fn complete(&mut self, members: HashMap<PathBuf, Slice>, archive: &Path) -> io::Result<()> {
        let mut rest: Vec<_> = members.into_iter().filter(|(_, slice)| !Arc::ptr_eq(&slice.file, &self.file)).collect();
        // In order, the index last.
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

    fn append(&self, at: u64, path: &Path, slice: &Slice) -> io::Result<u64> {
        let header = archive_header(path.as_os_str().as_bytes(), slice.size).map_err(of_layer)?;
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

/// The files of an archive; of two with one name the last counts. Links stand for what they lead to.
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

/// The member that a link leads to.
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

/// The digest that the path of a blob names.
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
