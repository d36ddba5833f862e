//! The files of a layout: opened without leaving it, hashed whole before use, read piece by piece.
//!
//! Files once hashed are remembered by inode, times and size, in memory only: a file that changed is hashed again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use super::super::{BlobStream, Error};
use super::local::local;
use crate::durable;
use crate::error::ErrorKind;
use crate::flight::Flight;
use crate::oci::{Descriptor, Digest, Hasher};
use crate::sys::beneath;

/// Ranges up to this size are read on the spot: they are in the page cache, since they were just hashed.
const INLINE: u64 = 1 << 20;
/// Piece of a blob stream.
const PIECE: u64 = 256 << 10;

/// Tells whether a file is still the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    pub(super) size: u64,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
        })
    }
}

/// The path of a blob below the layout.
pub(super) fn path(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// The files of one layout.
pub(super) struct Blobs {
    path: PathBuf,
    /// Empty as long as the directory does not exist, which is so of a layout that begins with its first push.
    root: OnceLock<File>,
    /// Whether there ever was an `index.json`; before that its absence means a layout without tags.
    begun: AtomicBool,
    origin: String,
    /// Blobs whose digest held when their file had this stamp. Never held across an await.
    verified: Arc<Mutex<HashMap<Digest, Stamp>>>,
    hashing: Flight<(Digest, u64), Result<(), Error>>,
}

impl Blobs {
    /// The files below a directory, which is opened when it is first needed.
    pub(super) fn new(path: PathBuf, origin: String) -> Self {
        Self { path, root: OnceLock::new(), begun: AtomicBool::new(false), origin, verified: Arc::default(), hashing: Flight::default() }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn set_begun(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// The name of the layout, for messages.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Where the layout's directory is or will be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The layout's directory.
    pub(super) fn root(&self) -> Result<&File, Error> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let root = File::open(&self.path).map_err(|error| local(&self.origin, &error))?;
        Ok(self.root.get_or_init(|| root))
    }

    /// The layout's directory, made if it does not exist.
    pub(super) fn made(&self) -> Result<&File, Error> {
        if self.root.get().is_none() {
            let made = std::fs::create_dir(&self.path).and_then(|()| self.path.parent().map_or(Ok(()), durable::sync_directory));
            match made {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(local(&self.origin, &error)),
                _ => {}
            }
        }
        self.root()
    }

    pub(super) fn open(&self, path: &Path) -> Result<(File, Stamp), Error> {
        let opened = beneath::open_linked_file(self.root()?, path).and_then(|file| Stamp::of(&file).map(|stamp| (file, stamp)));
        opened.map_err(|error| self.failed(path, &error))
    }

    /// Remembers the digest of a file that was hashed while it was written.
    pub(super) fn written(&self, digest: Digest, file: &File) {
        if let Ok(stamp) = Stamp::of(file) {
            self.verified.lock().insert(digest, stamp);
        }
    }

    pub(super) fn failed(&self, path: &Path, error: &io::Error) -> Error {
        local(&format!("{}/{}", self.origin, path.display()), error)
    }

    /// The stamp of a file, which must exist.
    pub(super) fn stamp(&self, path: &Path) -> Result<Stamp, Error> {
        self.open(path).map(|(_, stamp)| stamp)
    }

    /// A small file whole, and its stamp from before it was read.
    pub(super) fn small(&self, path: &Path, limit: u64) -> Result<(Stamp, Vec<u8>), Error> {
        let (file, stamp) = self.open(path)?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| self.failed(path, &error))?;
        if bytes.len() as u64 > limit {
            let message = format!("{}/{} is larger than {} MiB", self.origin, path.display(), limit >> 20);
            return Err(Error::new(ErrorKind::Integrity, message));
        }
        Ok((stamp, bytes))
    }

    /// Opens a blob whose digest holds, hashing it first where that is not known.
    pub(super) async fn verified(&self, descriptor: &Descriptor) -> Result<File, Error> {
        let digest = descriptor.digest;
        let (file, stamp) = self.open(&path(&digest))?;
        if stamp.size != descriptor.size {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("blob {digest} of {} has {} bytes instead of {}", self.origin, stamp.size, descriptor.size),
            ));
        }
        if self.known(&digest) == Some(stamp) {
            return Ok(file);
        }
        let again = file.try_clone().map_err(|error| self.failed(&path(&digest), &error))?;
        let (verified, origin) = (Arc::clone(&self.verified), self.origin.clone());
        let hashed = self.hashing.run((digest, stamp.inode), || async move {
            let task = tokio::task::spawn_blocking(move || check(&again, stamp, digest, &origin));
            let outcome = task.await.map_err(|error| Error::new(ErrorKind::Other, format!("hashing blob {digest}: {error}")))?;
            if outcome.is_ok() {
                verified.lock().insert(digest, stamp);
            }
            outcome
        });
        hashed.await.map_err(|error| Error::new(ErrorKind::Other, format!("hashing blob {digest}: {error}")))??;
        Ok(file)
    }

    fn known(&self, digest: &Digest) -> Option<Stamp> {
        self.verified.lock().get(digest).copied()
    }
}

/// Hashes a file whole; it must have the digest and must not have changed meanwhile.
fn check(file: &File, before: Stamp, digest: Digest, origin: &str) -> Result<(), Error> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; PIECE as usize];
    let mut offset = 0;
    let failed = |error: io::Error| local(&format!("blob {digest} of {origin}"), &error);
    loop {
        let read = file.read_at(&mut buffer, offset).map_err(failed)?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        offset += read as u64;
    }
    let found = hasher.finish();
    if found != digest {
        return Err(Error::new(ErrorKind::Integrity, format!("blob {digest} of {origin}: its bytes have the digest {found}")));
    }
    if Stamp::of(file).map_err(failed)? != before {
        return Err(Error::new(ErrorKind::Integrity, format!("blob {digest} of {origin} changed while it was hashed")));
    }
    Ok(())
}

/// The bytes of a range, piece by piece; a file that became shorter ends the stream with an error.
pub(super) fn stream(file: File, digest: Digest, range: Range<u64>) -> BlobStream {
    let inline = range.end.saturating_sub(range.start) <= INLINE;
    let start = Some((Arc::new(file), range));
    stream::unfold(start, move |state| async move {
        let (file, range) = state.filter(|(_, range)| range.start < range.end)?;
        let end = range.end.min(range.start.saturating_add(PIECE));
        let piece = range.start..end;
        let read = if inline {
            read_piece(&file, piece)
        } else {
            let file = Arc::clone(&file);
            tokio::task::spawn_blocking(move || read_piece(&file, piece)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        match read {
            Ok(bytes) => Some((Ok(bytes), Some((file, end..range.end)))),
            Err(error) => Some((Err(local(&format!("blob {digest}"), &error)), None)),
        }
    })
    .boxed()
}

fn read_piece(file: &File, piece: Range<u64>) -> io::Result<Bytes> {
    // At most `PIECE` bytes, so the conversion cannot lose anything.
    let mut bytes = vec![0; piece.end.saturating_sub(piece.start).min(PIECE) as usize];
    file.read_exact_at(&mut bytes, piece.start)?;
    Ok(bytes.into())
}
