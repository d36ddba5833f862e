//! The LayerIndex: entries and spans of one logical stream, as versioned bytes that can be memory-mapped.

use std::ops::Range;
use std::sync::Arc;

use super::format::{self, Record, entry, record, span};
use super::inflate::WINDOW;
use super::kind::FileKind;
use super::validate::{self, Layout};
use super::{Codec, MEMBER_MINIMUM, Metadata, Restart, Span};
use crate::error::Error;
use crate::oci::Digest;

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

/// One entry, borrowed from the index.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Cleaned relative path (no leading `/`, no `.`, `..` clamped), empty only for the root.
    pub path: &'a [u8],
    /// Kind.
    pub kind: FileKind,
    /// Attributes.
    pub metadata: Metadata,
    /// Size of the file in bytes (with holes), or length of the symlink target. A hard link that carries its target's content has that size, and extents.
    pub size: u64,
    /// Target of a symlink (verbatim), or cleaned path of a hard link's target.
    pub link: &'a [u8],
    /// SHA-256 of a regular file's content, if computed.
    pub sha256: Option<[u8; 32]>,
    /// Position in the index, to query extents and xattrs.
    pub number: u32,
}

/// Entries and spans of one layer or raw blob. Immutable and cheap to clone.
#[derive(Clone)]
pub struct LayerIndex {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// Taken from the header when the bytes were validated.
    pub(super) layout: Layout,
}

impl std::fmt::Debug for LayerIndex {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Layout { counts, digest, codec, .. } = &self.layout;
        write!(formatter, "LayerIndex({digest}, {codec:?}, {} entries, {} spans)", counts.entries, counts.spans)
    }
}

impl LayerIndex {
    /// Opens index bytes (a mapped file or memory) after validating version, bounds and checksum, so that no later access can fail or panic.
    pub fn open(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, Error> {
        let layout = validate::check((*bytes).as_ref())?;
        Ok(Self { bytes, layout })
    }

    /// The bytes, for the index store.
    pub fn as_bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// Digest of the indexed blob (for an encrypted layer: as stored).
    pub fn blob_digest(&self) -> Digest {
        self.layout.digest
    }

    /// Length of the logical stream.
    pub fn stream_length(&self) -> u64 {
        self.layout.stream_length
    }

    /// Length of the (decrypted) compressed blob that the spans refer to.
    pub fn blob_length(&self) -> u64 {
        self.layout.blob_length
    }

    /// Compression.
    pub fn codec(&self) -> Codec {
        self.layout.codec
    }

    /// Whether the stream is a tar with entries (otherwise a raw blob).
    pub fn is_archive(&self) -> bool {
        self.layout.is_archive
    }

    /// Whether the digest of a span is that of its part of the stream rather than of the blob, and the stream consists of the files' contents alone:
    /// it was made from a table of contents.
    pub fn is_of_content(&self) -> bool {
        self.layout.of_content
    }

    /// Number of entries.
    pub fn entry_count(&self) -> u32 {
        self.layout.counts.entries
    }

    fn entry_record(&self, number: u32) -> Option<Record<'_>> {
        (number < self.layout.counts.entries).then(|| record(self.as_bytes(), self.layout.sections.entries, format::ENTRY, number))
    }

    /// A slice of the string heap.
    fn string(&self, offset: u64, length: u32) -> &[u8] {
        let start = self.layout.sections.strings.saturating_add(usize::try_from(offset).unwrap_or(usize::MAX));
        self.as_bytes().get(start..start.saturating_add(length as usize)).unwrap_or_default()
    }

    /// An entry by archive order. `None` if out of range.
    pub fn entry(&self, number: u32) -> Option<Entry<'_>> {
        let record = self.entry_record(number)?;
        let kind = FileKind::from_code(record.u8(entry::KIND))?;
        let place = record.u64(entry::PLACE);
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        Some(Entry {
            path: self.string(record.u64(entry::PATH), record.u32(entry::PATH_LENGTH)),
            kind,
            metadata: Metadata {
                mode: Some(u32::from(record.u16(entry::MODE))),
                owner: Some((record.u32(entry::UID), record.u32(entry::GID))),
                mtime: Some((record.i64(entry::MTIME), record.u32(entry::MTIME_NANOSECONDS))),
                device: if is_device { (place as u32, (place >> 32) as u32) } else { (0, 0) },
            },
            size: record.u64(entry::SIZE),
            link: self.string(record.u64(entry::LINK), record.u32(entry::LINK_LENGTH)),
            sha256: (record.u8(entry::FLAGS) & entry::HAS_SHA256 != 0).then(|| record.bytes(entry::SHA256)),
            number,
        })
    }

    /// All entries in archive order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.entry_count()).filter_map(|number| self.entry(number))
    }

    /// The extents of a file, in file order.
    pub fn extents(&self, number: u32) -> Vec<Extent> {
        let Some(record) = self.entry_record(number) else { return Vec::new() };
        if !FileKind::from_code(record.u8(entry::KIND)).is_some_and(FileKind::has_content) {
            return Vec::new();
        }
        let (place, size) = (record.u64(entry::PLACE), record.u64(entry::SIZE));
        if record.u8(entry::FLAGS) & entry::LISTED == 0 {
            return if size == 0 { Vec::new() } else { vec![Extent { file: 0, stream: place, length: size }] };
        }
        let first = u32::try_from(place).unwrap_or(u32::MAX);
        (0..record.u32(entry::EXTENT_COUNT)).map(|offset| self.extent(first.saturating_add(offset))).collect()
    }

    fn extent(&self, number: u32) -> Extent {
        let record = record(self.as_bytes(), self.layout.sections.extents, format::EXTENT, number);
        Extent { file: record.u64(0), stream: record.u64(8), length: record.u64(16) }
    }

    /// Extended attributes of an entry, with namespaced names (`user.x`, `security.capability`).
    pub fn xattrs(&self, number: u32) -> Vec<(&[u8], &[u8])> {
        let Some(entry_record) = self.entry_record(number) else { return Vec::new() };
        let first = entry_record.u32(entry::XATTR_FIRST);
        (0..entry_record.u32(entry::XATTR_COUNT))
            .map(|offset| {
                let record = record(self.as_bytes(), self.layout.sections.xattrs, format::XATTR, first.saturating_add(offset));
                (self.string(record.u64(0), record.u32(16)), self.string(record.u64(8), record.u32(20)))
            })
            .collect()
    }

    /// Stream ranges of members, ascending: exactly those announced by the scan. A raw blob has none.
    pub fn members(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let entries = if self.is_archive() { self.entry_count() } else { 0 };
        (0..entries).filter_map(|number| {
            let record = self.entry_record(number)?;
            let kind = FileKind::from_code(record.u8(entry::KIND))?;
            let (place, size) = (record.u64(entry::PLACE), record.u64(entry::SIZE));
            (kind == FileKind::File && record.u8(entry::FLAGS) & entry::LISTED == 0 && size >= MEMBER_MINIMUM)
                .then(|| place..place.saturating_add(size))
        })
    }

    /// Why values or entries were dropped; at most 100 are kept.
    pub fn warnings(&self) -> Vec<&str> {
        (0..self.layout.counts.warnings)
            .map(|number| {
                let record = record(self.as_bytes(), self.layout.sections.warnings, format::WARNING, number);
                std::str::from_utf8(self.string(record.u64(0), record.u32(8))).unwrap_or_default()
            })
            .collect()
    }

    /// Whether no records overlap, and there are no warnings; see [`validate::check_packed`].
    pub(super) fn check_packed(&self) -> Result<(), Error> {
        validate::check_packed(self.as_bytes(), &self.layout)
    }

    /// Number of spans.
    pub fn span_count(&self) -> u32 {
        self.layout.counts.spans
    }

    fn span_record(&self, number: u32) -> Option<Record<'_>> {
        (number < self.layout.counts.spans).then(|| record(self.as_bytes(), self.layout.sections.spans, format::SPAN, number))
    }

    /// The end of a span in the stream; 0 if it does not exist.
    fn span_end(&self, number: u32) -> u64 {
        self.span_record(number).map_or(0, |record| record.u64(span::STREAM_END))
    }

    /// A span.
    pub fn span(&self, number: u32) -> Option<Span> {
        let record = self.span_record(number)?;
        let start = number.checked_sub(1).map_or(0, |before| self.span_end(before));
        Some(Span {
            stream: start..record.u64(span::STREAM_END),
            blob: record.u64(span::BLOB_START)..record.u64(span::BLOB_END),
            restart: match record.u8(span::RESTART) {
                0 => Restart::No,
                1 => Restart::Clean,
                _ => Restart::Window { bits: record.u8(span::BITS) },
            },
            digest: (record.u8(span::HAS_DIGEST) != 0).then(|| record.bytes(span::DIGEST)),
        })
    }

    /// The number of the span with a stream byte; the number of spans if beyond the end.
    fn span_at(&self, position: u64) -> u32 {
        let (mut low, mut high) = (0, self.layout.counts.spans);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.span_end(middle) <= position { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Numbers of the spans that overlap a stream range.
    pub fn spans_of(&self, stream: Range<u64>) -> Range<u32> {
        let Some(last) = stream.end.checked_sub(1).filter(|last| *last >= stream.start) else { return 0..0 };
        let first = self.span_at(stream.start);
        let end = self.span_at(last).saturating_add(1).min(self.layout.counts.spans);
        first..end.max(first)
    }

    /// The last span at or before `number` where decoding can start.
    pub fn restart_for(&self, number: u32) -> u32 {
        let mut candidate = number.min(self.layout.counts.spans.saturating_sub(1));
        while candidate > 0 && self.span_record(candidate).is_some_and(|record| record.u8(span::RESTART) == 0) {
            candidate -= 1;
        }
        candidate
    }

    /// The decompressed window (at most 32 KiB) before a span that restarts with one.
    pub fn window(&self, number: u32) -> Result<Vec<u8>, Error> {
        let damaged = || Error::integrity(format!("the window of span {number} in the index of {} is damaged", self.layout.digest));
        let record = self.span_record(number).ok_or_else(damaged)?;
        let start = self.layout.sections.windows.saturating_add(usize::try_from(record.u64(span::WINDOW)).map_err(|_| damaged())?);
        let packed = self.as_bytes().get(start..start.saturating_add(record.u32(span::WINDOW_LENGTH) as usize)).ok_or_else(damaged)?;
        zstd::bulk::decompress(packed, WINDOW).map_err(|_| damaged())
    }
}
