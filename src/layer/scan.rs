//! The one streaming pass over a blob: decompress, find restart points, walk the tar, hash files.

use std::ops::Range;

use super::{Error, LayerIndex};
use crate::oci::Digest;

/// How the blob is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A tar, perhaps compressed (told by content).
    Archive,
    /// The bytes as they are: spans of fixed size, no entries.
    Raw,
}

/// Bounds of a scan, all with generous defaults.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most entries of one layer.
    pub entries: u32,
    /// Longest PAX record, long name or link in bytes.
    pub header_bytes: u32,
    /// Most bytes of index (paths, xattrs, windows).
    pub index_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 20_000_000, header_bytes: 1 << 20, index_bytes: 4 << 30 }
    }
}

/// Takes what a scan produces, in order. An error ends the scan with that error.
pub trait SpanSink {
    /// The content of a regular file of at least 1 MiB begins: this range of the stream will follow.
    fn member(&mut self, stream: Range<u64>) -> Result<(), Error>;
    /// A span is complete.
    fn span(&mut self, number: u32, stream: Range<u64>, data: &[u8]) -> Result<(), Error>;
}

/// A scan in progress.
pub struct Scan {
    _state: (),
}

impl Scan {
    /// Begins a scan. `sha256_files` is whether each file's content is hashed.
    pub fn new(_form: Form, _limits: Limits) -> Self {
        todo!()
    }

    /// Feeds bytes of the blob.
    pub fn push(&mut self, _blob: &[u8], _sink: &mut dyn SpanSink) -> Result<(), Error> {
        todo!()
    }

    /// Ends the scan; `digest` is that of the blob, which the caller has checked.
    pub fn finish(self, _digest: Digest, _sink: &mut dyn SpanSink) -> Result<LayerIndex, Error> {
        todo!()
    }
}
