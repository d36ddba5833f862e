//! The files of a layout: opened without leaving it, read in pieces.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::super::{BlobStream, MANIFEST_LIMIT, of_manifest};
use super::directory::Directory;
use super::local::local;
use super::place::{Place, Stamp};
use super::slice::Slice;
use crate::blocking::spawn_blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Hasher, Manifest};

/// Piece size of a blob stream, in bytes: a span of a raw blob is one piece.
const PIECE: u64 = 1 << 20;

/// The path of a blob below the layout.
pub(super) fn path(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// The files of one layout.
pub(super) struct Blobs {
    place: Place,
    /// Whether an `index.json` ever existed; before that its absence means a layout without tags.
    begun: AtomicBool,
    /// The layout's name in error messages.
    name: String,
}

impl Blobs {
    /// The files of a place.
    pub(super) fn new(place: Place, name: String) -> Self {
        Self { place, begun: AtomicBool::new(false), name }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn set_begun(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// The name of the layout, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the files are.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The layout's directory; an archive cannot back a registry.
    pub(super) fn directory(&self) -> Result<&Directory, Error> {
        match &self.place {
            Place::Directory(directory) => Ok(directory),
            Place::Archive(_) => Err(Error::new(ErrorKind::Unsupported, format!("{} is an archive", self.name))),
        }
    }

    pub(super) fn open(&self, path: &Path) -> Result<(Slice, Stamp), Error> {
        let opened = self.place.open(path).and_then(|slice| Stamp::of(&slice).map(|stamp| (slice, stamp)));
        opened.map_err(|error| self.failed(path, &error))
    }

    pub(super) fn failed(&self, path: &Path, error: &io::Error) -> Error {
        local(&format!("{}/{}", self.name, path.display()), error)
    }

    /// The stamp of a file, which must exist.
    pub(super) fn stamp(&self, path: &Path) -> Result<Stamp, Error> {
        self.open(path).map(|(_, stamp)| stamp)
    }

    /// Reads a small file whole, and its stamp from before the read.
    pub(super) fn small(&self, path: &Path, limit: u64) -> Result<(Stamp, Vec<u8>), Error> {
        let (slice, stamp) = self.open(path)?;
        let bytes = slice.small(limit).map_err(|error| self.failed(path, &error))?;
        let large = || {
            let message = format!("{}/{} is larger than {} MiB", self.name, path.display(), limit >> 20);
            Error::new(ErrorKind::Integrity, message)
        };
        bytes.map(|bytes| (stamp, bytes)).ok_or_else(large)
    }

    /// Reads a manifest by digest and hashes it.
    pub(super) fn manifest(&self, digest: &Digest) -> Result<Manifest, Error> {
        let (_, raw) = self.small(&path(digest), MANIFEST_LIMIT)?;
        let what = || format!("manifest {digest} of {}", self.name);
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&raw);
        if hasher.finish() != *digest {
            return Err(Error::new(ErrorKind::Integrity, format!("{}: its bytes do not match its digest", what())));
        }
        Manifest::parse(Bytes::from(raw), *digest).map_err(|error| of_manifest(&what(), error))
    }

    /// Opens a blob, which must have the size of its descriptor. Its reader verifies it.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Slice, Error> {
        let digest = descriptor.digest;
        let (slice, stamp) = self.open(&path(&digest))?;
        if stamp.size == descriptor.size {
            return Ok(slice);
        }
        Err(Error::new(
            ErrorKind::Integrity,
            format!("blob {digest} of {} has {} bytes instead of {}", self.name, stamp.size, descriptor.size),
        ))
    }
}

/// The bytes of a range, in pieces; a truncated file ends the stream with an error.
pub(super) fn stream(slice: Slice, digest: Digest, range: Range<u64>) -> BlobStream {
    let start = Some((slice, range));
    stream::unfold(start, move |state| async move {
        let (slice, range) = state.filter(|(_, range)| range.start < range.end)?;
        let end = range.end.min(range.start.saturating_add(PIECE));
        let piece = range.start..end;
        let reading = slice.clone();
        let read = spawn_blocking(move || read_piece(&reading, piece)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        match read {
            Ok(bytes) => Some((Ok(bytes), Some((slice, end..range.end)))),
            Err(error) => Some((Err(local(&format!("blob {digest}"), &error)), None)),
        }
    })
    .boxed()
}

fn read_piece(slice: &Slice, piece: Range<u64>) -> io::Result<Bytes> {
    // At most `PIECE` bytes, so the conversion is lossless.
    let mut bytes = vec![0; piece.end.saturating_sub(piece.start).min(PIECE) as usize];
    slice.read_exact_at(&mut bytes, piece.start)?;
    Ok(bytes.into())
}
