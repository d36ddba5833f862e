//! A layout in a tar archive, read in place (`members`) and rewritten on change (`partial`).
//!
//! An archive is never changed in place: additions go into `FILE.partial`; [`Archive::finish`] copies the rest there and renames it to the
//! archive, so readers never see half of it. A partial file left by a stopped command is resumed: verified blobs in it are not fetched
//! again. One process at a time writes, and only to the archive that it has read. Blobs arrive in any order, several at once, each in its
//! own region, whose header is written last. Everything here blocks the thread.

mod members;
mod partial;

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::members::{invalid, members};
use self::partial::{Partial, partial_path};
use super::local::{INDEX, MARKER};
use super::slice::Slice;
use crate::durable;
use crate::layer::archive_padding;
use crate::sys::beneath::open_regular;

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
    /// The archive that they were read from, if it existed.
    source: Option<FileIdentity>,
    partial: Option<Partial>,
}

/// Device and inode.
type FileIdentity = (u64, u64);

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

impl Archive {
    /// Opens an archive for reading.
    pub(super) fn open_file(path: PathBuf) -> io::Result<Self> {
        let members = members(open_regular(&path)?)?;
        Ok(Self::new(path, false, State { members, ..State::default() }))
    }

    /// Opens an archive, or a path for a new one, for writing.
    pub(super) fn open_or_begin(path: PathBuf) -> io::Result<Self> {
        let mut state = State::default();
        match open_regular(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => {
                let file = file?;
                state.source = Some(identity_of(&file.metadata()?));
                state.members = members(file)?;
            }
        }
        let archive = Self::new(path, true, state);
        if partial_path(&archive.0.path).symlink_metadata().is_ok() {
            let mut state = archive.0.state();
            let found = archive.0.partial(&mut state)?.take_up()?;
            for (path, slice) in found {
                state.members.entry(path).or_insert(slice);
            }
        }
        Ok(archive)
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
        let mut file = tempfile::tempfile_in(durable::directory_of(&self.0.path))?;
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
        let mut state = self.0.state();
        match &completed {
            Ok(()) => state.source = Some(identity_of(&partial.file.metadata()?)),
            // The next attempt resumes with it.
            Err(_) => state.partial = Some(partial),
        }
        completed
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
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
            let partial = Partial::begin(&self.path)?;
            // Under the lock of the partial file the archive stays as it is. Another process may have replaced it before.
            let now = match self.path.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                found => Some(identity_of(&found?)),
            };
            if now != state.source {
                // With what a stopped command left, it is for the next one.
                if partial.file.metadata()?.len() == 0 {
                    std::fs::remove_file(&partial.path)?;
                }
                let message = "another process has changed this archive meanwhile; run the command again";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
            }
            state.partial = Some(partial);
        }
        state.partial.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn identity_of(metadata: &Metadata) -> FileIdentity {
    (metadata.dev(), metadata.ino())
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
