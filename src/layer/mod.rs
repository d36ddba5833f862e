//! Converts layer bytes to entries and spans, and back: tar, gzip, zstd, the LayerIndex. Pure: no network, and no files except the caller's scratch
//! space.
//!
//! [`Scan`] is the single streaming pass over a blob, which yields a [`LayerIndex`]. [`SpanDecoder`] decodes single spans later. Nothing here fetches,
//! stores or trusts anything: hostile bytes cost an error or a warning in the index, never a panic, and never memory in proportion to declared
//! sizes.
//!
//! # Files
//!
//! - `scan` drives a pass: `gzip`, `inflate`, `zstandard`, `decode` and `step` decompress, `tar` finds entries, `cut` and `window_probe` find spans,
//!   `sink` receives them, `build` makes the index
//! - `index` reads an index: `records`, `format`, `validate`, `span`, `kind`, `metadata`; `rewrite` copies one with another header
//! - `table` makes an index of the table of contents of an eStargz or zstd:chunked layer, without a pass
//! - `span_decoder` decodes later; `pack` writes layers; `limits` bounds everything
//! - `access_order` is the form of a hint, in which order files are opened

mod access_order;
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
pub(crate) mod records;
mod rewrite;
mod scan;
mod sink;
mod span;
mod span_decoder;
mod step;
mod table;
mod tar;
#[cfg(test)]
pub(crate) mod tests;
mod validate;
mod window_probe;
mod zstandard;

pub use access_order::{ACCESS_ORDER_FILES, ACCESS_ORDER_MOST, encode_access_order, parse_access_order};
pub use index::{Entry, LayerIndex};
pub use kind::{FileKind, NodeKind};
pub use limits::{Limits, Resources, WINDOW_MOST, Windows, WindowsUpTo};
pub use metadata::{Metadata, Xattrs, owned_xattrs};
pub use pack::{
    ATTACHED_INDEX_MOST, PackEntry, Packed, Packer, Packing, SPAN, attached_index_memory, compressible, decode_attached, encode_attached,
    open_attached, sample_ranges,
};
pub use scan::{Form, Scan, raw_index};
pub use sink::SpanSink;
pub use span::{Codec, Extent, Restart, Span};
pub use span_decoder::SpanDecoder;
pub use table::{TABLE_MOST, Table};
pub use tar::path::safe_name;
pub use tar::{ARCHIVE_END, ArchiveMember, archive_directory, archive_header, archive_members, archive_padding};

/// A regular file of at least this many bytes, stored contiguously, is a member: announced by [`SpanSink::member`] and listed by
/// [`LayerIndex::members`].
pub const MEMBER_MINIMUM: u64 = 1 << 20;

/// Length of every span except the last in an uncompressed stream.
pub const RAW_SPAN: u64 = 1 << 20;
