//! The LayerIndex: entries and spans of one logical stream, as versioned bytes that can be memory-mapped.

use std::ops::Range;
use std::sync::Arc;

use super::{Codec, Error, Span};
use crate::oci::Digest;

/// Kind of an entry, as archived; whiteouts are still ordinary names here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; the target is data.
    Symlink,
    /// A further name of another entry, by path.
    HardLink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

/// One piece of a file's content. What no extent covers is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub file: u64,
    /// Offset in the logical stream.
    pub stream: u64,
    /// Length in bytes.
    pub length: u64,
}

/// One entry, borrowed from the index.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Cleaned relative path (no leading `/`, no `.`, `..` clamped), never empty except for the root itself.
    pub path: &'a [u8],
    /// Kind.
    pub kind: FileKind,
    /// Permission bits including setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since the epoch, may be negative.
    pub mtime: i64,
    /// Nanoseconds, 0–999,999,999.
    pub mtime_nanoseconds: u32,
    /// Size of the file in bytes (with holes), or length of the symlink target.
    pub size: u64,
    /// Device number, major and minor.
    pub device: (u32, u32),
    /// Target of a symlink (as is), or cleaned path of a hard link's target.
    pub link: &'a [u8],
    /// SHA-256 of the content of a regular file, where computed.
    pub sha256: Option<[u8; 32]>,
    /// Position in the index; handle for extents and xattrs.
    pub number: u32,
}

/// Entries and spans of one layer or raw blob. Immutable; cheap to clone.
#[derive(Clone)]
pub struct LayerIndex {
    _bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

impl LayerIndex {
    /// Opens index bytes (a mapped file or memory) after checking version, bounds and checksum, so that no
    /// later access can fail or panic.
    pub fn open(_bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, Error> {
        todo!()
    }

    /// The bytes, for the index store.
    pub fn as_bytes(&self) -> &[u8] {
        todo!()
    }

    /// Digest of the blob that was indexed (for an encrypted layer: of the blob as stored).
    pub fn blob_digest(&self) -> Digest {
        todo!()
    }

    /// Length of the logical stream.
    pub fn stream_length(&self) -> u64 {
        todo!()
    }

    /// Length of the (decrypted) compressed blob that the spans refer to.
    pub fn blob_length(&self) -> u64 {
        todo!()
    }

    /// Compression.
    pub fn codec(&self) -> Codec {
        todo!()
    }

    /// Whether the stream is a tar with entries (false: a raw blob).
    pub fn is_archive(&self) -> bool {
        todo!()
    }

    /// Number of entries.
    pub fn entry_count(&self) -> u32 {
        todo!()
    }

    /// An entry in the order of the archive. Out of range is `None`.
    pub fn entry(&self, _number: u32) -> Option<Entry<'_>> {
        todo!()
    }

    /// The extents of a file, in file order.
    pub fn extents(&self, _number: u32) -> Vec<Extent> {
        todo!()
    }

    /// Extended attributes of an entry, names with their namespace (`user.x`, `security.capability`).
    pub fn xattrs(&self, _number: u32) -> Vec<(&[u8], &[u8])> {
        todo!()
    }

    /// Things that cost a value or an entry, for people; at most 100 are kept.
    pub fn warnings(&self) -> Vec<&str> {
        todo!()
    }

    /// Number of spans.
    pub fn span_count(&self) -> u32 {
        todo!()
    }

    /// A span.
    pub fn span(&self, _number: u32) -> Option<Span> {
        todo!()
    }

    /// Numbers of the spans that a range of the stream touches.
    pub fn spans_of(&self, _stream: Range<u64>) -> Range<u32> {
        todo!()
    }

    /// The span at or before `number` at which decoding can begin.
    pub fn restart_for(&self, _number: u32) -> u32 {
        todo!()
    }

    /// The decompressed 32 KiB (or less) in front of a span that restarts with a window.
    pub fn window(&self, _number: u32) -> Result<Vec<u8>, Error> {
        todo!()
    }
}
