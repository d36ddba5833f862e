//! Bytes of a layer to entries and spans, and back: tar, gzip, zstd, the LayerIndex. Pure: no files, no network.

mod index;
mod scan;
mod span;

pub use index::{Entry, Extent, FileKind, LayerIndex};
pub use scan::{Form, Limits, Scan, SpanSink};
pub use span::{Codec, Restart, Span, SpanDecoder};

use crate::error::ErrorKind;

/// Why a layer cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Integrity for a broken frame; Other where a sink failed.
    pub kind: ErrorKind,
    /// What is wrong and where (stream or blob offset).
    pub message: String,
}
