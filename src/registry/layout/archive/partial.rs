//! An unfinished archive: the file beside it that additions go to, until it is complete and takes its place.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::members::of_layer;
use crate::durable::{self, RangeLock, Sharing};
use crate::layer::{ARCHIVE_END, archive_directory, archive_header, archive_members, archive_padding};
use crate::oci::{Digest, Hasher};
use crate::registry::layout::local::INDEX;
use crate::registry::layout::slice::Slice;

/// Name suffix of an unfinished archive.
const PARTIAL: &str = ".partial";
/// Bytes hashed at once.
const PIECE: u64 = 1 << 20;

/// An unfinished archive.
pub(super) struct Partial {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    /// Offset of the next header.
    pub(super) end: u64,
    /// Whether it has anything that the archive lacks.
    pub(super) is_changed: bool,
    /// Failed regions with others after them.
    pub(super) holes: usize,
    /// Directories that have an entry. Tools that unpack as another user (skopeo) fail on a file before its directory: they try to give the
    /// directory to root.
    pub(super) directories: HashSet<PathBuf>,
    _lock: RangeLock,
}

impl Partial {
    /// Opens or creates the partial file of an archive, for this process alone.
    pub(super) fn begin(archive: &Path) -> io::Result<Self> {
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
    pub(super) fn header(&mut self, path: &Path, size: u64) -> io::Result<(Vec<u8>, Vec<PathBuf>)> {
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
    pub(super) fn take_up(&mut self) -> io::Result<HashMap<PathBuf, Slice>> {
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
    pub(super) fn complete(&mut self, members: HashMap<PathBuf, Slice>, archive: &Path) -> io::Result<()> {
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

/// The path of the unfinished archive.
pub(super) fn partial_path(archive: &Path) -> PathBuf {
    let mut name = archive.file_name().map(OsString::from).unwrap_or_default();
    name.push(PARTIAL);
    archive.with_file_name(name)
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
