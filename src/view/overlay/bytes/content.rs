//! Reads and hashes the bytes of the entries of a walk.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::staging::{DataFile, Rows};
use crate::view::overlay::Overlay;
use crate::view::overlay::bytes::layered::Layered;
use crate::view::reader::Pieces;
use crate::view::{EntryContent, Reader, TreeEntry};

/// Bytes hashed at a time.
const CHUNK: u32 = 1 << 20;
/// The same for a staged file, which may be one of very many small ones.
const FILE_CHUNK: usize = 64 << 10;

impl Overlay {
    /// A reader of an entry's bytes. Staged ones are not written meanwhile, or the caller tolerates it.
    ///
    /// # Errors
    /// Invalid for anything but a regular file of the tag; errors of the disk or the registry.
    pub(in crate::view::overlay) async fn open_entry(self: &Arc<Self>, rows: &dyn Rows, entry: &TreeEntry) -> Result<Reader, Error> {
        match &entry.content {
            EntryContent::Tree(artifact, node) => self.blobs.open(artifact, *node).await,
            EntryContent::Data(id) => Ok(self.reader_of(rows.open_data(*id)?)?),
            EntryContent::None | EntryContent::Disk => Err(no_content()),
        }
    }

    /// SHA-256 of an entry's bytes, computed if unknown.
    ///
    /// # Errors
    /// As [`Overlay::open_entry`].
    pub(in crate::view::overlay) async fn hash_entry(self: &Arc<Self>, rows: &dyn Rows, entry: &TreeEntry) -> Result<[u8; 32], Error> {
        if let Some(known) = entry.sha256 {
            return Ok(known);
        }
        let whole = match &entry.content {
            EntryContent::Data(id) => rows.open_data(*id)?.whole_file()?,
            _ => None,
        };
        match whole {
            Some(file) => blocking(move || hash_file(file).map_err(unreadable)).await,
            None => hash_reader(self.open_entry(rows, entry).await?).await,
        }
    }

    pub(in crate::view::overlay) fn reader_of(self: &Arc<Self>, data: DataFile) -> Result<Reader, Error> {
        let size = data.length()?;
        Ok(match data.whole_file()? {
            Some(file) => Reader::of_file(size, file),
            None => Reader::of_pieces(size, Box::new(Fixed { overlay: Arc::clone(self), layered: Layered::new(data) })),
        })
    }
}

/// An error of reading a staged file.
pub(in crate::view::overlay) fn unreadable(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Other, format!("staged bytes cannot be read: {error}"))
}

fn no_content() -> Error {
    Error::new(ErrorKind::Invalid, "only a regular file of the tag has content")
}

/// A staged file that does not change, with a reader of its own.
struct Fixed {
    overlay: Arc<Overlay>,
    layered: Layered,
}

#[async_trait]
impl Pieces for Fixed {
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Error> {
        self.layered.plan(&self.overlay.trees, offset, length)?.read(&self.overlay.blobs).await
    }
}

/// SHA-256 of a file from its current position to its end. Blocks on the disk.
///
/// # Errors
/// Errors of the disk.
pub fn hash_file(file: File) -> std::io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut BufReader::with_capacity(FILE_CHUNK, file), &mut Hashing(&mut hasher))?;
    Ok(hasher.finalize().into())
}

/// Makes a hash a writer.
struct Hashing<'hasher>(&'hasher mut Sha256);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// SHA-256 of all bytes of a reader, computed off the network threads.
async fn hash_reader(reader: Reader) -> Result<[u8; 32], Error> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < reader.size() {
        let bytes: Bytes = reader.read(at, CHUNK).await?;
        if bytes.is_empty() {
            return Err(Error::new(ErrorKind::Integrity, "a file ended before its size"));
        }
        at += bytes.len() as u64;
        hasher = blocking(move || {
            hasher.update(&bytes);
            Ok(hasher)
        })
        .await?;
    }
    Ok(hasher.finalize().into())
}
