//! A staged file and the file below it, read as one.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::content::Verified;
use crate::error::Error;
use crate::staging::{DataFile, Held, TreeNode};
use crate::view::overlay::bytes::lower::{Blobs, Lower};
use crate::view::overlay::names::trees::Trees;

/// A staged file with the file below it.
pub(in crate::view::overlay) struct Layered {
    pub data: DataFile,
    /// The tree file below, once requested. Held for copying only.
    lower: Mutex<Option<Arc<Lower>>>,
}

/// A part of a range, at its location.
enum Piece {
    Here(Bytes),
    Lower { lower: Arc<Lower>, offset: u64, length: u64 },
}

/// The parts of a range. Reading them needs no overlay.
pub(in crate::view::overlay) struct Plan(Vec<Piece>);

impl Layered {
    pub fn new(data: DataFile) -> Self {
        Self { data, lower: Mutex::new(None) }
    }

    /// A staged file over an open tree file.
    pub fn over(data: DataFile, lower: Option<Arc<Lower>>) -> Self {
        Self { data, lower: Mutex::new(lower) }
    }

    /// How far the bytes that are not staged are verified against their digest.
    pub fn verified(&self) -> Verified {
        let lower = self.lower.lock().clone();
        match lower.as_ref().and_then(|lower| lower.opened()) {
            Some(reader) if !self.data.is_whole().unwrap_or(false) => reader.verified(),
            _ => Verified::Whole,
        }
    }

    fn lower(&self, trees: &Trees, node: &TreeNode) -> Result<Arc<Lower>, Error> {
        let mut known = self.lower.lock();
        if let Some(lower) = known.as_ref().filter(|lower| (lower.artifact.manifest.digest, lower.node) == (node.manifest, node.node)) {
            return Ok(Arc::clone(lower));
        }
        let lower = Arc::new(trees.lower(node)?);
        *known = Some(Arc::clone(&lower));
        Ok(lower)
    }

    /// Reads the staged bytes of a range and locates the rest. Shorter only at the end of the file.
    pub fn plan(&self, trees: &Trees, offset: u64, length: u32) -> Result<Plan, Error> {
        let end = offset.saturating_add(length.into()).min(self.data.length()?);
        let (mut pieces, mut at) = (Vec::new(), offset);
        while at < end {
            let segment = self.data.segment(at, end)?;
            at = segment.range.end;
            pieces.push(match segment.held {
                Held::Here(file) => Piece::Here(file.read(&segment.range)?.into()),
                Held::Tree(node) => {
                    let (offset, length) = (segment.range.start, segment.range.end - segment.range.start);
                    Piece::Lower { lower: self.lower(trees, &node)?, offset, length }
                }
            });
        }
        Ok(Plan(pieces))
    }

    /// SEEK_DATA and SEEK_HOLE; `None` if there is no such place.
    pub fn seek(&self, trees: &Trees, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        let size = self.data.length()?;
        let mut at = offset;
        while at < size {
            let segment = self.data.segment(at, size)?;
            let found = match segment.held {
                Held::Here(file) => file.seek(at, data)?,
                Held::Tree(node) => self.lower(trees, &node)?.seek(at, data),
            };
            let end = segment.range.end;
            match found {
                Some(found) if found < end => return Ok(Some(found)),
                // A file may be shorter than the file below it.
                None if !data => return Ok(Some(at)),
                _ => at = end,
            }
        }
        Ok(if data || offset >= size { None } else { Some(size) })
    }
}

impl Plan {
    /// Reads the bytes.
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
