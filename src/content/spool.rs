//! Whole blobs that were read once to index them while the cache is not being filled: they wait in unnamed files, so that their content can be
//! decoded later without another transfer. The system frees them when the process ends, however it ends.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use crate::blocking::blocking;
use crate::durable;
use crate::error::Error;
use crate::oci::Digest;
use crate::registry::BlobStream;

/// Bytes read at a time.
const PIECE: u64 = 256 << 10;

/// How much room there must be for a blob, as a multiple of its size: its content goes to the same disk, and comes first.
const SPARE: u64 = 5;

/// The blobs of a process.
pub(super) struct Spool {
    /// A directory on the file system that holds them. Without one, content is fetched again.
    directory: Option<PathBuf>,
    /// Verified blobs. Locked for map operations only.
    blobs: Mutex<HashMap<Digest, Arc<File>>>,
}

/// A blob being received.
pub(super) struct Spooled {
    file: File,
    length: u64,
}

impl Spool {
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, blobs: Mutex::default() }
    }

    /// An empty file for a blob of this size. `None` if there is no place for it beside its content.
    pub(super) fn begin(&self, size: u64) -> Option<Spooled> {
        let directory = self.directory.as_deref()?;
        if durable::free(directory).is_ok_and(|free| free.available < size.saturating_mul(SPARE)) {
            return None;
        }
        match tempfile::tempfile_in(directory) {
            Ok(file) => Some(Spooled { file, length: 0 }),
            Err(error) => {
                tracing::debug!(%error, "no room for whole blobs in {}", directory.display());
                None
            }
        }
    }

    /// Adds a verified blob.
    pub(super) fn add(&self, digest: Digest, spooled: Spooled) {
        self.blobs.lock().insert(digest, Arc::new(spooled.file));
    }

    /// A range of a blob, if it is here.
    pub(super) fn stream(&self, digest: &Digest, range: Range<u64>) -> Option<BlobStream> {
        let file = Arc::clone(self.blobs.lock().get(digest)?);
        let pieces = stream::try_unfold(range.start, move |at| {
            let file = Arc::clone(&file);
            let end = range.end.min(at + PIECE);
            async move {
                if at >= end {
                    return Ok(None);
                }
                let read = blocking(move || {
                    // At most `PIECE` bytes, so the conversion is lossless.
                    let mut bytes = vec![0; (end - at) as usize];
                    file.read_exact_at(&mut bytes, at).map_err(|error| Error::io("cannot reread a blob that was received", error))?;
                    Ok(Bytes::from(bytes))
                });
                Ok(Some((read.await?, end)))
            }
        });
        Some(pieces.boxed())
    }
}

impl Spooled {
    /// The file with these bytes appended; `None` if there is no room, so that content is fetched again.
    pub(super) fn with(mut self, piece: &[u8]) -> Option<Self> {
        if let Err(error) = self.file.write_all_at(piece, self.length) {
            tracing::debug!(%error, "no room for a whole blob; its content will be fetched again");
            return None;
        }
        self.length += piece.len() as u64;
        Some(self)
    }
}
