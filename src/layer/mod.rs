//! Bytes of a layer to entries and spans, and back: tar, gzip, zstd, the LayerIndex. Pure: no network, and no files but the
//! scratch space that a caller provides.
//!
//! [`Scan`] is the one streaming pass over a blob; it ends in a [`LayerIndex`]. [`SpanDecoder`] decodes single spans
//! again later. Nothing here fetches, stores or trusts: hostile bytes cost an [`Error`] or a warning in the index,
//! never a panic, and never memory in proportion to what they declare.

mod build;
mod cut;
mod decode;
mod format;
mod gzip;
mod index;
mod inflate;
mod kind;
mod limits;
mod metadata;
mod pack;
mod rewrite;
mod scan;
mod sink;
mod span;
mod span_decoder;
mod step;
mod tar;
#[cfg(test)]
pub(crate) mod tests;
mod validate;
mod window_probe;
mod zstandard;

pub use index::{Entry, Extent, LayerIndex};
pub use kind::{FileKind, NodeKind};
pub use limits::{Limits, Resources, WINDOW_MOST, Windows, WindowsUpTo};
pub use metadata::Metadata;
pub use pack::{
    ATTACHED_INDEX_MOST, PackEntry, Packed, Packer, Packing, SPAN, attached_index_memory, compressible, decode_attached, encode_attached,
    sample_ranges,
};
pub use scan::{Form, Scan};
pub use sink::SpanSink;
pub use span::{Codec, Restart, Span};
pub use span_decoder::SpanDecoder;
pub use tar::path::safe_name;
pub use tar::{ARCHIVE_END, ArchiveMember, archive_header, archive_members, archive_padding};

/// A regular file of at least this many bytes, stored in one piece, is a member: [`SpanSink::member`] announces it
/// and [`LayerIndex::members`] lists it.
pub const MEMBER_MINIMUM: u64 = 1 << 20;

/// Length of every span but the last of a stream that is not compressed.
pub const RAW_SPAN: u64 = 1 << 20;
