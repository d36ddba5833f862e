//! Bytes of a staged file together with what lies below it, read as one file.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::Overlay;
use super::file::{Blobs, Lower, seek};
use crate::content::Verified;
use crate::staging::{DataFile, Error as Fault, Held, TreeNode};
use crate::view::reader::Pieces;
use crate::view::{Error, Reader};

/// A staged file with what lies below it.
pub(super) struct Layered {
    pub data: DataFile,
    /// The file of a tree that lies below, once it was asked for. Held for copying only.
    lower: Mutex<Option<Arc<Lower>>>,
}

/// A part of a range, where it is read.
enum Piece {
    Here(Bytes),
    Lower { lower: Arc<Lower>, offset: u64, length: u64 },
}

/// The parts of a range. Reading them needs no overlay.
pub(super) struct Plan(Vec<Piece>);

impl Layered {
    pub fn new(data: DataFile) -> Self {
        Self { data, lower: Mutex::new(None) }
    }

    /// Over a file of a tree that is open.
    pub fn over(data: DataFile, lower: Option<Arc<Lower>>) -> Self {
        Self { data, lower: Mutex::new(lower) }
    }

    /// How far the bytes that are not staged are checked against the digest that they come from.
    pub fn verified(&self) -> Verified {
        let lower = self.lower.lock().clone();
        match lower.as_ref().and_then(|lower| lower.opened()) {
            Some(reader) if !self.data.is_whole().unwrap_or(false) => reader.verified(),
            _ => Verified::Whole,
        }
    }

    fn lower(&self, overlay: &Overlay, node: &TreeNode) -> Result<Arc<Lower>, Fault> {
        let mut known = self.lower.lock();
        if let Some(lower) = known.as_ref().filter(|lower| (lower.artifact.manifest.digest, lower.node) == (node.manifest, node.node)) {
            return Ok(Arc::clone(lower));
        }
        let lower = Arc::new(overlay.lower_of(node)?);
        *known = Some(Arc::clone(&lower));
        Ok(lower)
    }

    /// Reads what is here of a range, and says where the rest is. Fewer bytes only at the end of the file.
    pub fn plan(&self, overlay: &Overlay, offset: u64, length: u32) -> Result<Plan, Fault> {
        let end = offset.saturating_add(length.into()).min(self.data.length()?);
        let (mut pieces, mut at) = (Vec::new(), offset);
        while at < end {
            let segment = self.data.segment(at, end)?;
            at = segment.range.end;
            pieces.push(match segment.held {
                Held::Here(file) => Piece::Here(file.read(&segment.range)?.into()),
                Held::Tree(node) => {
                    let (offset, length) = (segment.range.start, segment.range.end - segment.range.start);
                    Piece::Lower { lower: self.lower(overlay, &node)?, offset, length }
                }
            });
        }
        Ok(Plan(pieces))
    }

    /// SEEK_DATA and SEEK_HOLE; `None` where there is no such place.
    pub fn seek(&self, overlay: &Overlay, offset: u64, data: bool) -> Result<Option<u64>, Fault> {
        let size = self.data.length()?;
        let mut at = offset;
        while at < size {
            let segment = self.data.segment(at, size)?;
            let found = match segment.held {
                Held::Here(file) => file.seek(at, data)?,
                Held::Tree(node) => self.lower(overlay, &node)?.seek(at, data),
            };
            let end = segment.range.end;
            match found {
                Some(found) if found < end => return Ok(Some(found)),
                // A file may end before what lies below it does.
                None if !data => return Ok(Some(at)),
                _ => at = end,
            }
        }
        Ok(if data || offset >= size { None } else { Some(size) })
    }
}

impl Plan {
    /// The bytes.
    pub async fn read(self, blobs: &Blobs) -> Result<Bytes, Error> {
        let mut pieces = Vec::with_capacity(self.0.len());
        for piece in self.0 {
            pieces.push(match piece {
                Piece::Here(bytes) => bytes,
                Piece::Lower { lower, offset, length } => lower.read_exactly(blobs, offset, length).await?,
            });
        }
        if pieces.len() == 1 {
            return Ok(pieces.pop().unwrap_or_default());
        }
        let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Ok(whole.freeze())
    }
}

/// A staged file that does not change, as a reader of its own.
struct Fixed {
    overlay: Arc<Overlay>,
    blobs: Blobs,
    layered: Layered,
}

#[async_trait]
impl Pieces for Fixed {
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Error> {
        self.layered.plan(&self.overlay, offset, length)?.read(&self.blobs).await
    }
}

impl Overlay {
    /// A reader of a staged file that is not written meanwhile, or of whose writing the caller does not care.
    pub(super) fn reader_of(self: &Arc<Self>, data: DataFile, blobs: Blobs) -> Result<Reader, Fault> {
        let size = data.length()?;
        Ok(match data.whole_file()? {
            Some(file) => Reader::of_file(size, file),
            None => Reader::of_pieces(size, Box::new(Fixed { overlay: Arc::clone(self), blobs, layered: Layered::new(data) })),
        })
    }
}

impl Lower {
    /// SEEK_DATA and SEEK_HOLE.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let extents = self.content().map(|content| content.extents).unwrap_or_default();
        let ranges = extents.iter().map(|extent| (extent.file, extent.file.saturating_add(extent.length).min(self.size)));
        seek(ranges, self.size, offset, data)
    }

    /// All bytes of a range, which lies inside the file.
    async fn read_exactly(&self, blobs: &Blobs, offset: u64, length: u64) -> Result<Bytes, Error> {
        let bytes = self.reader(blobs).await?.read(offset, u32::try_from(length).unwrap_or(u32::MAX)).await?;
        if bytes.len() as u64 != length {
            return Err(Error::new(crate::error::ErrorKind::Integrity, "a file of the tree is shorter than its archive says"));
        }
        Ok(bytes)
    }
}
