//! Spans: which range of a logical stream comes from which range of the blob, and where decoding can begin.

use std::ops::Range;

/// Compression of the blob, told by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// The stream is the blob.
    Identity,
    /// gzip, one or more members.
    Gzip,
    /// zstd, one or more frames.
    Zstd,
}

/// How decoding can begin at a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Not here: decode from the closest earlier span that can, through to this one.
    No,
    /// At the first byte of the blob range, with nothing else (identity, member, frame).
    Clean,
    /// Inside deflate: with the window that the index keeps and this many bits of the first byte used (0–7).
    Window {
        /// Bits of the first byte that belong to the previous span.
        bits: u8,
    },
}

/// One span: the unit of the cache, of verification, and (where it can restart) of fetching. At most 4 MiB of
/// stream, about 1 MiB as written by a scan.
///
/// The blob ranges ascend. Neighbours share a byte where deflate blocks meet inside one, and where a span that
/// cannot restart follows. Between them, in front of the first and behind the last may lie bytes without content
/// (skippable frames, final zeros). A blob range is at most 8 MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Range of the logical stream.
    pub stream: Range<u64>,
    /// Range of the blob that is fed to the decoder for it; consecutive spans may share one byte.
    pub blob: Range<u64>,
    /// Whether decoding can begin here.
    pub restart: Restart,
    /// SHA-256 of the bytes of `blob`, once a verified pass recorded it.
    pub digest: Option<[u8; 32]>,
}
