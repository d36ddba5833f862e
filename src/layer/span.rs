//! Spans: which range of a logical stream comes from which range of the blob, and where decoding can start. Extents: which range of a file comes from
//! which range of the stream.

use std::ops::Range;

/// A contiguous piece of a file's content. Anything not covered by an extent is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub file: u64,
    /// Offset in the logical stream.
    pub stream: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Compression of the blob, detected by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// The stream is the blob.
    Identity,
    /// gzip, with one or more members.
    Gzip,
    /// zstd, with one or more frames.
    Zstd,
}

impl Codec {
    /// The number of the codec in index bytes. Never changes.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Identity => 0,
            Self::Gzip => 1,
            Self::Zstd => 2,
        }
    }

    /// The codec with a number in index bytes.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Identity, Self::Gzip, Self::Zstd].into_iter().find(|codec| codec.code() == code)
    }
}

/// How decoding can start at a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Not here: decode from the closest earlier span where it can.
    No,
    /// At the first byte of the blob range, without anything else (identity, member, frame).
    Clean,
    /// Inside deflate: with the window in the index and this many bits of the first byte already used (0–7).
    Window {
        /// Bits of the first byte that belong to the previous span.
        bits: u8,
    },
}

/// A span: the unit of the cache, of verification, and (if it can restart) of fetching. At most 4 MiB of the stream; a scan makes them about 1 MiB.
///
/// Blob ranges ascend. Neighbours share a byte where deflate blocks meet inside one, and before a span that cannot restart. Between them, before the
/// first and after the last there may be bytes without content (skippable frames, trailing zeros). A blob range is at most 8 MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Range of the logical stream.
    pub stream: Range<u64>,
    /// Range of the blob to feed to the decoder; consecutive spans may share one byte.
    pub blob: Range<u64>,
    /// Whether decoding can start here.
    pub restart: Restart,
    /// SHA-256 of the bytes of `blob`, once recorded by a verified pass; or of the bytes of `stream`, see [`super::LayerIndex::is_of_content`].
    pub digest: Option<[u8; 32]>,
}
