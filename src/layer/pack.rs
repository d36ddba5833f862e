//! Writing layers: entries and file bytes to a deterministic tar, compressed span by span on all cores, indexed on the way.
//!
//! The same entries give the same bytes: no clock, fixed compressor settings, spans cut at fixed stream offsets. A gzip layer
//! is one member with a full flush at each span's end, so that any tool reads it and a span needs no window.

use std::io::Write;

use super::{Error, FileKind, LayerIndex};
use crate::oci::Digest;

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// One gzip member around a tar.
    GzipTar,
    /// A tar as it is.
    Tar,
    /// The bytes of one file, no archive: `begin` is called once, with a regular file.
    Raw,
}

/// One entry to be written; plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// Relative path as it shall stand in the index, without `./`.
    pub path: Vec<u8>,
    /// Kind; a hard link's `link` is the path of its target, which came before in the same layer.
    pub kind: FileKind,
    /// Permission bits including setuid, setgid and sticky.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds since the epoch, may be negative, and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of a regular file; exactly so many must follow.
    pub size: u64,
    /// Major and minor of a device.
    pub device: (u32, u32),
    /// Target of a symlink or hard link.
    pub link: Vec<u8>,
    /// Extended attributes with their namespace, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What was written.
#[derive(Debug)]
pub struct Packed {
    /// Digest and length of the blob as stored.
    pub blob: (Digest, u64),
    /// Digest and length of the uncompressed stream (`diff_id` of an image).
    pub stream: (Digest, u64),
    /// The index of the layer, with a digest for each span and a SHA-256 for each file.
    pub index: LayerIndex,
}

/// A layer that is being written. Memory is bounded by a few spans a core, whatever the sizes.
pub struct Packer {
    _private: (),
}

impl Packer {
    /// Begins a layer. `workers` threads compress; the blob goes to `output` in order.
    pub fn new(_packing: Packing, _workers: usize, _output: Box<dyn Write + Send>) -> Self {
        todo!()
    }

    /// Begins an entry. The bytes of the one before must be complete.
    ///
    /// # Errors
    /// Invalid for a name or value that tar cannot hold, with the name; Other if the output cannot be written.
    pub fn begin(&mut self, _entry: &PackEntry) -> Result<(), Error> {
        todo!()
    }

    /// Bytes of the current regular file.
    ///
    /// # Errors
    /// Invalid for more bytes than its size; Other if the output cannot be written.
    pub fn data(&mut self, _bytes: &[u8]) -> Result<(), Error> {
        todo!()
    }

    /// Ends the layer (two zero blocks and nothing behind them) and waits for the output to be written (not synced).
    ///
    /// # Errors
    /// Invalid if bytes of the last file are missing; Other if the output cannot be written.
    pub fn finish(self) -> Result<Packed, Error> {
        todo!()
    }
}

/// The travelling form of an index: what an index layer holds. Deterministic.
pub fn travelling(_index: &LayerIndex) -> Result<Vec<u8>, Error> {
    todo!()
}

/// Opens a travelling index that is meant for this blob; everything in it is checked, nothing is trusted.
///
/// # Errors
/// Integrity for broken bytes or another blob's index; Unsupported for a newer version.
pub fn arrived(_bytes: &[u8], _blob: &Digest) -> Result<LayerIndex, Error> {
    todo!()
}
