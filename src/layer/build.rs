//! Collects entries and spans in growing tables, and assembles an index from them.
//!
//! No heap object per entry: each table is an array that moves off the heap once it is large, and so is the index.

use std::io;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::format::{self, Counts, Draft, Record, Sections, entry, header, span};
use super::kind::FileKind;
use super::limits::Limits;
use super::{Codec, Extent, LayerIndex, Metadata, Resources, Restart, Span};
use crate::error::Error;
use crate::oci::{Algorithm, Digest};
use crate::sys::array::{Array, Scratch};

/// Most warnings kept.
pub(super) const WARNINGS: usize = 100;

/// Appends bytes to a table; returns their offset.
fn append(table: &mut Array<u8>, bytes: &[u8]) -> Result<u64, Error> {
    let at = table.len() as u64;
    table.extend_from_slice(bytes).map_err(unkept)?;
    Ok(at)
}

/// The error if there is no room to build an index.
pub(super) fn unkept(error: io::Error) -> Error {
    Error::io("cannot build the index of the layer", error)
}

/// Everything about an entry, ready to be recorded.
pub(super) struct NewEntry<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: FileKind,
    pub(super) metadata: Metadata,
    pub(super) size: u64,
    pub(super) link: &'a [u8],
    pub(super) sha256: Option<[u8; 32]>,
    pub(super) content: NewContent<'a>,
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Where an entry's content is.
pub(super) enum NewContent<'a> {
    /// Contiguous, from this stream offset.
    Whole(u64),
    /// In extents with holes in between.
    Pieces(&'a [Extent]),
}

/// An index being built.
pub(super) struct Builder {
    limits: Limits,
    counts: Counts,
    scratch: Scratch,
    entries: Array<u8>,
    spans: Array<u8>,
    extents: Array<u8>,
    xattrs: Array<u8>,
    windows: Array<u8>,
    /// Windows seen so far, and the interval at which they are kept.
    windows_seen: u64,
    window_stride: u64,
    strings: Array<u8>,
    warnings: Vec<String>,
}

/// Facts about the blob, known at its end.
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) stream_length: u64,
    pub(super) blob_length: u64,
    pub(super) codec: Codec,
    pub(super) is_archive: bool,
    /// Digests of spans are those of the stream, not of the blob.
    pub(super) of_content: bool,
}

impl Builder {
    pub(super) fn new(resources: &Resources) -> Self {
        let table = || Array::new(&resources.scratch);
        Self {
            limits: resources.limits,
            counts: Counts::default(),
            scratch: resources.scratch.clone(),
            entries: table(),
            spans: table(),
            extents: table(),
            xattrs: table(),
            windows: table(),
            windows_seen: 0,
            window_stride: 1,
            strings: table(),
            warnings: Vec::new(),
        }
    }

    /// Limits of the whole pass.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Records a warning, if there is still room. The text is built only then.
    pub(super) fn warn(&mut self, text: impl FnOnce() -> String) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push(text());
        }
    }

    fn check_size(&self) -> Result<(), Error> {
        let tables = [&self.entries, &self.spans, &self.extents, &self.xattrs, &self.windows, &self.strings];
        let total: u64 = tables.iter().map(|table| table.len() as u64).sum();
        let Limits { index_bytes, index_reason, text_bytes, .. } = self.limits;
        if total > index_bytes {
            let message = format!("the index of the layer would take more than {index_bytes} bytes, the most that {index_reason} allows");
            return Err(Error::unsupported(message));
        }
        if self.strings.len() as u64 > text_bytes {
            return Err(Error::unsupported(format!("the layer has more than {text_bytes} bytes of names and extended attributes")));
        }
        Ok(())
    }

    /// Records an entry.
    pub(super) fn entry(&mut self, new: &NewEntry<'_>) -> Result<(), Error> {
        if self.counts.entries >= self.limits.entries {
            return Err(Error::unsupported(format!("the layer has more than {} entries", self.limits.entries)));
        }
        let mut draft = Draft::<{ format::ENTRY }>::new();
        draft.u64(entry::PATH, append(&mut self.strings, new.path)?);
        draft.u32(entry::PATH_LENGTH, length(new.path)?);
        draft.u64(entry::LINK, append(&mut self.strings, new.link)?);
        draft.u32(entry::LINK_LENGTH, length(new.link)?);
        draft.u64(entry::SIZE, new.size);
        let Metadata { mode, owner, mtime, device } = new.metadata;
        let (mode, owner, mtime) = (mode.unwrap_or_default(), owner.unwrap_or_default(), mtime.unwrap_or_default());
        draft.put(entry::MTIME, &mtime.0.to_le_bytes());
        draft.u32(entry::MTIME_NANOSECONDS, mtime.1);
        draft.u16(entry::MODE, (mode & 0o7777) as u16);
        draft.u8(entry::KIND, new.kind.code());
        draft.u32(entry::UID, owner.0);
        draft.u32(entry::GID, owner.1);
        let mut flags = 0;
        if let Some(sha256) = &new.sha256 {
            flags |= entry::HAS_SHA256;
            draft.put(entry::SHA256, sha256);
        }
        match new.content {
            _ if matches!(new.kind, FileKind::CharDevice | FileKind::BlockDevice) => {
                draft.u64(entry::PLACE, u64::from(device.0) | u64::from(device.1) << 32);
            }
            NewContent::Whole(stream) => draft.u64(entry::PLACE, stream),
            NewContent::Pieces(pieces) => {
                flags |= entry::LISTED;
                draft.u64(entry::PLACE, u64::from(self.counts.extents));
                draft.u32(entry::EXTENT_COUNT, self.pieces(pieces)?);
            }
        }
        draft.u8(entry::FLAGS, flags);
        draft.u32(entry::XATTR_FIRST, self.counts.xattrs);
        draft.u32(entry::XATTR_COUNT, self.attributes(new.xattrs)?);
        append(&mut self.entries, &draft.0)?;
        self.counts.entries += 1;
        self.check_size()
    }

    fn pieces(&mut self, pieces: &[Extent]) -> Result<u32, Error> {
        for piece in pieces {
            let mut draft = Draft::<{ format::EXTENT }>::new();
            draft.u64(0, piece.file);
            draft.u64(8, piece.stream);
            draft.u64(16, piece.length);
            append(&mut self.extents, &draft.0)?;
        }
        let count = count(pieces.len())?;
        self.counts.extents = self.counts.extents.checked_add(count).ok_or_else(too_many)?;
        Ok(count)
    }

    fn attributes(&mut self, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<u32, Error> {
        for (name, value) in xattrs {
            let mut draft = Draft::<{ format::XATTR }>::new();
            draft.u64(0, append(&mut self.strings, name)?);
            draft.u64(8, append(&mut self.strings, value)?);
            draft.u32(16, length(name)?);
            draft.u32(20, length(value)?);
            append(&mut self.xattrs, &draft.0)?;
        }
        let count = count(xattrs.len())?;
        self.counts.xattrs = self.counts.xattrs.checked_add(count).ok_or_else(too_many)?;
        Ok(count)
    }

    /// Records a span, with the compressed window of a restart inside deflate; empty if the span needs nothing before it. If windows take too much space,
    /// some are dropped, and decoding starts at an earlier span.
    pub(super) fn span(&mut self, new: &Span, mut window: &[u8]) -> Result<(), Error> {
        let mut restart = new.restart;
        if !window.is_empty() {
            if !self.windows_seen.is_multiple_of(self.window_stride) {
                (restart, window) = (Restart::No, &[]);
            }
            self.windows_seen += 1;
        }
        let mut draft = Draft::<{ format::SPAN }>::new();
        draft.u64(span::STREAM_END, new.stream.end);
        draft.u64(span::BLOB_START, new.blob.start);
        draft.u64(span::BLOB_END, new.blob.end);
        draft.u64(span::WINDOW, append(&mut self.windows, window)?);
        draft.u32(span::WINDOW_LENGTH, length(window)?);
        let (restart, bits) = match restart {
            Restart::No => (0, 0),
            Restart::Clean => (1, 0),
            Restart::Window { bits } => (2, bits),
        };
        draft.u8(span::RESTART, restart);
        draft.u8(span::BITS, bits);
        if let Some(digest) = &new.digest {
            draft.u8(span::HAS_DIGEST, 1);
            draft.put(span::DIGEST, digest);
        }
        append(&mut self.spans, &draft.0)?;
        self.counts.spans = self.counts.spans.checked_add(1).ok_or_else(too_many)?;
        while self.windows.len() as u64 > self.limits.window_bytes && self.windows_seen > self.window_stride {
            self.drop_windows()?;
        }
        self.check_size()
    }

    /// Drops every other window: decoding can no longer start at those spans.
    fn drop_windows(&mut self) -> Result<(), Error> {
        let mut kept = Array::new(&self.scratch);
        let mut keeps = false;
        for record in self.spans.chunks_exact_mut(format::SPAN) {
            let read = Record(record);
            let start = usize::try_from(read.u64(span::WINDOW)).unwrap_or(usize::MAX);
            let window = self.windows.get(start..start.saturating_add(read.u32(span::WINDOW_LENGTH) as usize)).unwrap_or_default();
            keeps ^= !window.is_empty();
            if !window.is_empty() && !keeps {
                put(record, span::WINDOW, &[0; span::HAS_DIGEST - span::WINDOW]);
            }
            // Even if there is none: the offset must be within what remains.
            let place = append(&mut kept, if keeps { window } else { &[] })?;
            put(record, span::WINDOW, &place.to_le_bytes());
        }
        self.windows = kept;
        self.window_stride *= 2;
        Ok(())
    }

    /// The first warning, if any.
    pub(super) fn first_warning(&self) -> Option<&str> {
        self.warnings.first().map(String::as_str)
    }

    /// Number of spans recorded.
    pub(super) fn span_count(&self) -> u32 {
        self.counts.spans
    }

    /// Assembles the index.
    pub(super) fn finish(mut self, blob: &Blob) -> Result<LayerIndex, Error> {
        let mut warnings = Vec::with_capacity(self.warnings.len() * format::WARNING);
        for warning in std::mem::take(&mut self.warnings) {
            let mut draft = Draft::<{ format::WARNING }>::new();
            draft.u64(0, append(&mut self.strings, warning.as_bytes())?);
            draft.u32(8, length(warning.as_bytes())?);
            warnings.extend_from_slice(&draft.0);
            self.counts.warnings += 1;
        }
        self.counts.windows = self.windows.len() as u64;
        self.counts.strings = self.strings.len() as u64;
        let sections = Sections::of(&self.counts).ok_or_else(too_many)?;
        let mut bytes = Array::new(&self.scratch);
        append(&mut bytes, &header(blob, &self.counts, sections.end as u64).0)?;
        // Each table is freed once it is copied.
        let Self { entries, spans, extents, xattrs, windows, strings, .. } = self;
        for table in [entries, spans, extents, xattrs] {
            append(&mut bytes, &table)?;
        }
        append(&mut bytes, &warnings)?;
        for table in [windows, strings] {
            append(&mut bytes, &table)?;
        }
        sealed(bytes)
    }
}

pub(super) fn header(blob: &Blob, counts: &Counts, total: u64) -> Draft<{ format::HEADER }> {
    let mut draft = Draft::new();
    draft.put(header::MAGIC, &format::MAGIC);
    draft.u32(header::VERSION, format::VERSION);
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    draft.u32(header::FLAGS, flag(blob.is_archive, header::IS_ARCHIVE) | flag(blob.of_content, header::OF_CONTENT));
    draft.u64(header::TOTAL, total);
    let algorithm = match blob.digest.algorithm() {
        Algorithm::Sha256 => 0,
        Algorithm::Sha512 => 1,
    };
    draft.u8(header::ALGORITHM, algorithm);
    let codec = match blob.codec {
        Codec::Identity => 0,
        Codec::Gzip => 1,
        Codec::Zstd => 2,
    };
    draft.u8(header::CODEC, codec);
    draft.put(header::DIGEST, blob.digest.as_bytes());
    draft.u64(header::STREAM_LENGTH, blob.stream_length);
    draft.u64(header::BLOB_LENGTH, blob.blob_length);
    draft.u32(header::ENTRIES, counts.entries);
    draft.u32(header::SPANS, counts.spans);
    draft.u32(header::EXTENTS, counts.extents);
    draft.u32(header::XATTRS, counts.xattrs);
    draft.u32(header::WARNINGS, counts.warnings);
    draft.u64(header::WINDOWS, counts.windows);
    draft.u64(header::STRINGS, counts.strings);
    draft
}

/// Fills in the checksum and opens the assembled bytes.
pub(super) fn sealed(mut bytes: Array<u8>) -> Result<LayerIndex, Error> {
    let checksum = xxh3_64(bytes.get(header::CHECKED..).unwrap_or_default());
    if let Some(place) = bytes.get_mut(header::CHECKSUM..header::CHECKED) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    LayerIndex::open(Arc::new(bytes))
}

fn put(record: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = record.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn length(bytes: &[u8]) -> Result<u32, Error> {
    count(bytes.len())
}

fn count(number: usize) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| too_many())
}

fn too_many() -> Error {
    Error::unsupported("the layer has more parts than an index can hold".to_owned())
}
