//! Tables of contents of eStargz and zstd:chunked layers: an index without a pass over the layer.
//!
//! A table lists the entries of an archive, and where in the blob each chunk of a file lies, compressed on its own, with its digest. The manifest names the
//! table's digest. The index made of it has one span per chunk, and its stream is the chunks one after the other: headers of the archive are in no span.
//! Nothing a table says is believed: a table that contradicts itself, or says less than is needed to verify each byte, is refused, and a reader then makes
//! a pass instead.
//!
//! - `frame` finds and unpacks the table, `document` parses it, `chunks` places its chunks, `entries` records everything else, `limits` refuses

mod chunks;
mod document;
mod entries;
mod frame;
mod limits;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::chunks::Chunks;
pub use self::limits::TABLE_MOST;
use self::limits::unusable;
use super::build::Builder;
use super::format::Blob;
use super::{Codec, LayerIndex, Resources};
use crate::error::Error;
use crate::oci::Digest;
use crate::sys::array::Array;

/// A table of contents, as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Table {
    /// Of eStargz: at the end, where a footer says.
    Estargz {
        /// Digest of the unpacked table.
        digest: Digest,
    },
    /// Of zstd:chunked.
    ZstdChunked {
        /// Digest of the packed table.
        digest: Digest,
        /// Where it is in the blob.
        place: Range<u64>,
        /// Its unpacked length, as claimed.
        length: u64,
    },
}

impl Table {
    /// Identifies the table and how it is read.
    pub fn key(&self) -> Digest {
        let text = match self {
            Self::Estargz { digest } => format!("estargz 1 {digest}"),
            Self::ZstdChunked { digest, place, length } => format!("zstd:chunked 1 {digest} {place:?} {length}"),
        };
        Digest::of(text.as_bytes())
    }

    /// The range of a blob of this length to fetch first.
    ///
    /// # Errors
    /// Unsupported if the table cannot be there.
    pub fn first(&self, blob_length: u64) -> Result<Range<u64>, Error> {
        match self {
            Self::Estargz { .. } => frame::tail(blob_length),
            Self::ZstdChunked { place, .. } => checked(place.clone(), blob_length),
        }
    }

    /// The range of the packed table, given the bytes of the first range.
    ///
    /// # Errors
    /// Unsupported if there is none.
    pub fn place(&self, first: &[u8], blob_length: u64) -> Result<Range<u64>, Error> {
        match self {
            Self::Estargz { .. } => checked(frame::of_footer(first, blob_length)?, blob_length),
            Self::ZstdChunked { place, .. } => checked(place.clone(), blob_length),
        }
    }

    /// The index of a blob, given the packed table at `place`.
    ///
    /// # Errors
    /// Integrity if the table does not match its digest; Unsupported if it cannot be used.
    pub fn index(&self, packed: &[u8], place: Range<u64>, blob: (Digest, u64), resources: &Resources) -> Result<LayerIndex, Error> {
        let text = match self {
            Self::Estargz { digest } => frame::unpack_gzip(packed, digest, &resources.scratch)?,
            Self::ZstdChunked { digest, length, .. } => frame::unpack_zstd(packed, digest, *length, &resources.scratch)?,
        };
        let codec = match self {
            Self::Estargz { .. } => Codec::Gzip,
            Self::ZstdChunked { .. } => Codec::Zstd,
        };
        index_of(&text, place.start, codec, blob, resources)
    }
}

/// The index that an unpacked table describes. Chunks lie before `chunks_end` in the blob.
fn index_of(
    text: &Array<u8>,
    chunks_end: u64,
    codec: Codec,
    (digest, blob_length): (Digest, u64),
    resources: &Resources,
) -> Result<LayerIndex, Error> {
    let mut builder = Builder::new(resources);
    let mut chunks = Chunks::collect(text, &resources.scratch)?;
    let stream_length = chunks.lay_out(chunks_end, &resources.scratch, &mut builder)?;
    entries::record(text, &chunks, &mut builder)?;
    builder.finish(&Blob { digest, stream_length, blob_length, codec, is_archive: true, of_content: true })
}

/// A place for a packed table.
fn checked(place: Range<u64>, blob_length: u64) -> Result<Range<u64>, Error> {
    if place.start >= place.end || place.end > blob_length || place.end - place.start > TABLE_MOST {
        return Err(unusable("it cannot be where it is said to be"));
    }
    Ok(place)
}
