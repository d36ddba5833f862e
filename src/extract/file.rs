//! Writes one file: its bytes into an unnamed file, its attributes, then its name.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use sha2::{Digest as _, Sha256};

use super::Source;
use super::directory::Directory;
use super::files::Job;
use super::of_disk;
use super::place::{Placed, own_name, place, replace};
use super::run::Work;
use crate::artifact::{Node, NodeId};
use crate::content::{Download, Verified};
use crate::error::{Error, ErrorKind};
use crate::sys::entry;
use crate::view::Reader;

/// Bytes read and written at a time.
const STEP: u32 = 1 << 20;

/// A file being written, without its final name. Removed unless placed.
struct Unplaced<'a> {
    file: File,
    directory: &'a Directory,
    /// Its temporary name, on file systems without unnamed files.
    own: Option<String>,
}

impl<'a> Unplaced<'a> {
    fn new(directory: &'a Directory, mode: u32) -> io::Result<Self> {
        if let Some(file) = entry::unnamed_file(&directory.file, mode)? {
            return Ok(Self { file, directory, own: None });
        }
        let own = own_name();
        let file = entry::make_file(&directory.file, OsStr::new(&own), mode)?;
        Ok(Self { file, directory, own: Some(own) })
    }

    fn place(mut self, name: &OsStr, keep: bool) -> io::Result<Placed> {
        let directory = &self.directory.file;
        let Some(own) = &self.own else { return place(directory, name, keep, &|name| entry::name_file(&self.file, directory, name)) };
        let moved = if keep { entry::rename(directory, OsStr::new(own), name, false) } else { replace(directory, OsStr::new(own), name) };
        match moved {
            Ok(()) => {
                self.own = None;
                Ok(Placed::New)
            }
            Err(error) if keep && error.kind() == io::ErrorKind::AlreadyExists => Ok(Placed::Kept),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Unplaced<'_> {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            // Best effort.
            let _ = entry::remove(&self.directory.file, OsStr::new(own));
        }
    }
}

impl Work<'_> {
    /// Extracts one file, unless it is up to date.
    pub(super) fn file(&self, job: &Job) -> Result<(), Error> {
        let name = OsStr::from_bytes(&job.name);
        let shown = || job.directory.join(name);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty => Error::new(
                ErrorKind::NotEmpty,
                format!("{} is a non-empty directory, but not in the artifact; move it away", shown().display()),
            ),
            _ => of_disk(format_args!("write {}", shown().display()), error),
        };
        let node = self.node(job.node)?;
        if !job.directory.made {
            if self.keep() && entry::status(&job.directory.file, name).map_err(failed)?.is_some() {
                self.note_kept(job.node, &node, &|| shown().display().to_string());
                self.tally.done.fetch_add(node.size, Ordering::Relaxed);
                return Ok(());
            }
            if self.is_there(job, &node) {
                self.notes.note(|summary| summary.unchanged += 1);
                self.tally.done.fetch_add(node.size, Ordering::Relaxed);
                return Ok(());
            }
        }
        let unplaced = Unplaced::new(&job.directory, self.first_mode(job.node, &node)).map_err(failed)?;
        match self.wait(self.source.download(job.node, &node))? {
            Some(download) => self.write_download(download, &unplaced.file, &failed)?,
            None => self.write(&self.wait(self.source.open(job.node))?, &unplaced.file, &failed)?,
        }
        self.describe_file(&unplaced.file, job.node, &node, &|| shown().display().to_string()).map_err(failed)?;
        let placed = unplaced.place(name, self.keep()).map_err(failed)?;
        match placed {
            Placed::New => self.notes.note(|summary| {
                summary.files += 1;
                summary.bytes += node.size;
            }),
            Placed::Kept => self.note_kept(job.node, &node, &|| shown().display().to_string()),
        }
        Ok(())
    }

    /// Writes a whole blob as it arrives.
    fn write_download(&self, mut download: Download, file: &File, failed: &dyn Fn(io::Error) -> Error) -> Result<(), Error> {
        let mut at = 0;
        while let Some(bytes) = self.wait(download.next())? {
            file.write_all_at(&bytes, at).map_err(failed)?;
            at += bytes.len() as u64;
            self.tally.done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes data; the rest stays a hole.
    fn write(&self, reader: &Reader, file: &File, failed: &dyn Fn(io::Error) -> Error) -> Result<(), Error> {
        let (size, mut end) = (reader.size(), 0);
        while let Some(start) = reader.seek(end, true) {
            let mut at = start;
            end = reader.seek(start, false).unwrap_or(size);
            while at < end {
                self.check_stopped()?;
                let wanted = u32::try_from(end - at).unwrap_or(STEP).min(STEP);
                let bytes = self.wait(reader.read(at, wanted))?;
                if bytes.is_empty() {
                    return Err(Error::new(ErrorKind::Integrity, "a file of the artifact ended early"));
                }
                file.write_all_at(&bytes, at).map_err(failed)?;
                at += bytes.len() as u64;
                self.tally.done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        if end < size {
            file.set_len(size).map_err(failed)?;
        }
        // If a blob was used while being verified, its last read waits for the digest.
        match reader.verified() {
            Verified::Partial => Err(Error::new(ErrorKind::Integrity, "a file of the artifact was read but not verified")),
            Verified::Whole | Verified::Index | Verified::Unread => Ok(()),
        }
    }

    /// Whether the file exists with the same bytes; if so, sets its attributes.
    fn is_there(&self, job: &Job, node: &Node) -> bool {
        let name = OsStr::from_bytes(&job.name);
        let Some(expected) = self.source.artifact.tree.content(job.node).and_then(|content| content.sha256) else { return false };
        let alike = entry::status(&job.directory.file, name).ok().flatten();
        if !alike.is_some_and(|status| status.is_file && status.size == node.size && status.links == 1) || node.links > 1 {
            return false;
        }
        let Ok(file) = entry::open_file(&job.directory.file, name) else { return false };
        if self.hash(&file, node.size).ok() != Some(expected) {
            return false;
        }
        self.describe_file(&file, job.node, node, &|| job.directory.join(name).display().to_string()).is_ok()
    }

    fn hash(&self, file: &File, size: u64) -> io::Result<[u8; 32]> {
        let (mut hasher, mut at) = (Sha256::new(), 0);
        let mut buffer = vec![0; usize::try_from(size.min(STEP.into())).unwrap_or_default()];
        while at < size && !self.is_stopped() {
            let read = file.read_at(&mut buffer, at)?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
            at += read as u64;
        }
        Ok(hasher.finalize().into())
    }
}

/// Passes the bytes of one file to `write`, in order, until the end or until `write` returns false.
///
/// # Errors
/// Those of reading and of `write`. Bytes passed before an error may be wrong, unless the source is strict.
pub async fn stream(source: &Source, node: NodeId, write: &mut (dyn FnMut(&[u8]) -> io::Result<bool> + Send)) -> Result<(), Error> {
    let mut write = |bytes: &[u8]| write(bytes).map_err(|error| of_disk("write to standard output", error));
    let is_strict = source.strict || source.artifacts.options().strict;
    if let Some(file) = source.artifact.tree.node(node).filter(|_| !is_strict)
        && let Some(mut download) = source.download(node, &file).await?
    {
        while let Some(bytes) = download.next().await? {
            if !write(&bytes)? {
                break;
            }
        }
        return Ok(());
    }
    let reader = source.open(node).await?;
    let mut at = 0;
    while at < reader.size() {
        let bytes = reader.read(at, STEP).await?;
        if bytes.is_empty() {
            return Err(Error::new(ErrorKind::Integrity, "a file of the artifact ended early"));
        }
        at += bytes.len() as u64;
        if !write(&bytes)? {
            return Ok(());
        }
    }
    Ok(())
}
