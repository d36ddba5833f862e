//! The LayerIndex: entries and spans of one logical stream, as versioned bytes that can be memory-mapped.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::little_endian::{U32, U64};

use super::format::{EntryRecord, HAS_SHA256, LISTED, SpanRecord, WarningRecord, XattrRecord};
use super::inflate::WINDOW;
use super::kind::FileKind;
use super::records::{Record, Section};
use super::validate::{self, Layout};
use super::{Codec, Extent, MEMBER_MINIMUM, Metadata, Restart, Span};
use crate::error::Error;
use crate::oci::Digest;

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
        let Layout { blob, sections } = &self.layout;
        let (entries, spans) = (sections.entries.len(), sections.spans.len());
        write!(formatter, "LayerIndex({}, {:?}, {entries} entries, {spans} spans)", blob.digest, blob.codec)
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
        self.layout.blob.digest
    }

    /// Length of the logical stream.
    pub fn stream_length(&self) -> u64 {
        self.layout.blob.stream_length
    }

    /// Length of the (decrypted) compressed blob that the spans refer to.
    pub fn blob_length(&self) -> u64 {
        self.layout.blob.blob_length
    }

    /// Compression.
    pub fn codec(&self) -> Codec {
        self.layout.blob.codec
    }

    /// Whether the stream is a tar with entries (otherwise a raw blob).
    pub fn is_archive(&self) -> bool {
        self.layout.blob.is_archive
    }

    /// Whether the digest of a span is that of its part of the stream rather than of the blob, and the stream consists of the files' contents alone:
    /// it was made from a table of contents.
    pub fn is_of_content(&self) -> bool {
        self.layout.blob.of_content
    }

    /// Number of entries.
    pub fn entry_count(&self) -> u32 {
        self.layout.sections.entries.len() as u32
    }

    /// All records of a section.
    fn records<T: Record>(&self, section: Section<T>) -> &[T] {
        section.of(self.as_bytes())
    }

    /// Consecutive records of a section, which validation found to exist.
    fn range<T: Record>(&self, section: Section<T>, first: impl Into<u64>, count: impl Into<u64>) -> &[T] {
        section.range(self.as_bytes(), first, count).unwrap_or_default()
    }

    fn entry_record(&self, number: u32) -> Option<&EntryRecord> {
        self.layout.sections.entries.get(self.as_bytes(), number)
    }

    /// A slice of the string heap.
    fn string(&self, offset: U64, length: U32) -> &[u8] {
        self.range(self.layout.sections.strings, offset, length)
    }

    /// An entry by archive order. `None` if out of range.
    pub fn entry(&self, number: u32) -> Option<Entry<'_>> {
        let record = self.entry_record(number)?;
        let kind = FileKind::from_code(record.kind)?;
        let place = record.place.get();
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        Some(Entry {
            path: self.string(record.path, record.path_length),
            kind,
            metadata: Metadata {
                mode: Some(record.mode.into()),
                owner: Some(record.owner.into()),
                mtime: Some(record.mtime.into()),
                device: if is_device { (place as u32, (place >> 32) as u32) } else { (0, 0) },
            },
            size: record.size.get(),
            link: self.string(record.link, record.link_length),
            sha256: record.has(HAS_SHA256).then_some(record.sha256),
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
        if !FileKind::from_code(record.kind).is_some_and(FileKind::has_content) {
            return Vec::new();
        }
        if !record.has(LISTED) {
            let whole = Extent { file: 0, stream: record.place.get(), length: record.size.get() };
            return if whole.length == 0 { Vec::new() } else { vec![whole] };
        }
        let extents = self.range(self.layout.sections.extents, record.place, record.extent_count);
        extents.iter().map(|extent| (*extent).into()).collect()
    }

    /// Extended attributes of an entry, with namespaced names (`user.x`, `security.capability`).
    pub fn xattrs(&self, number: u32) -> Vec<(&[u8], &[u8])> {
        let Some(entry) = self.entry_record(number) else { return Vec::new() };
        let xattrs = self.range(self.layout.sections.xattrs, entry.xattr_first, entry.xattr_count);
        let text = |xattr: &XattrRecord| (self.string(xattr.name, xattr.name_length), self.string(xattr.value, xattr.value_length));
        xattrs.iter().map(text).collect()
    }

    /// Stream ranges of members, ascending: exactly those announced by the scan. A raw blob has none.
    pub fn members(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let entries = if self.is_archive() { self.records(self.layout.sections.entries) } else { &[] };
        entries.iter().filter_map(|record| {
            let (place, size) = (record.place.get(), record.size.get());
            let is_member = record.kind == FileKind::File.code() && !record.has(LISTED) && size >= MEMBER_MINIMUM;
            is_member.then(|| place..place.saturating_add(size))
        })
    }

    /// Why values or entries were dropped; at most 100 are kept.
    pub fn warnings(&self) -> Vec<&str> {
        let text = |record: &WarningRecord| std::str::from_utf8(self.string(record.text, record.length)).unwrap_or_default();
        self.records(self.layout.sections.warnings).iter().map(text).collect()
    }

    /// Whether no records overlap, and there are no warnings; see [`validate::check_packed`].
    pub(super) fn check_packed(&self) -> Result<(), Error> {
        validate::check_packed(self.as_bytes(), &self.layout.sections)
    }

    /// Number of spans.
    pub fn span_count(&self) -> u32 {
        self.spans().len() as u32
    }

    fn spans(&self) -> &[SpanRecord] {
        self.records(self.layout.sections.spans)
    }

    /// A span.
    pub fn span(&self, number: u32) -> Option<Span> {
        let spans = self.spans();
        let record = spans.get(number as usize)?;
        let before = number.checked_sub(1).and_then(|before| spans.get(before as usize));
        Some(Span {
            stream: before.map_or(0, |before| before.stream_end.get())..record.stream_end.get(),
            blob: record.blob_start.get()..record.blob_end.get(),
            restart: match record.restart {
                0 => Restart::No,
                1 => Restart::Clean,
                _ => Restart::Window { bits: record.bits },
            },
            digest: (record.has_digest != 0).then_some(record.digest),
        })
    }

    /// The number of the span with a stream byte; the number of spans if beyond the end.
    fn span_at(&self, position: u64) -> u32 {
        self.spans().partition_point(|span| span.stream_end.get() <= position) as u32
    }

    /// Numbers of the spans that overlap a stream range.
    pub fn spans_of(&self, stream: Range<u64>) -> Range<u32> {
        let Some(last) = stream.end.checked_sub(1).filter(|last| *last >= stream.start) else { return 0..0 };
        let first = self.span_at(stream.start);
        let end = self.span_at(last).saturating_add(1).min(self.span_count());
        first..end.max(first)
    }

    /// The last span at or before `number` where decoding can start.
    pub fn restart_for(&self, number: u32) -> u32 {
        let mut spans = self.spans().iter().take(number as usize + 1);
        spans.rposition(|span| span.restart != 0).unwrap_or_default() as u32
    }

    /// The decompressed window (at most 32 KiB) before a span that restarts with one.
    pub fn window(&self, number: u32) -> Result<Vec<u8>, Error> {
        let damaged = || Error::integrity(format!("the window of span {number} in the index of {} is damaged", self.blob_digest()));
        let record = self.spans().get(number as usize).ok_or_else(damaged)?;
        let packed = self.range(self.layout.sections.windows, record.window, record.window_length);
        zstd::bulk::decompress(packed, WINDOW).map_err(|_| damaged())
    }
}
