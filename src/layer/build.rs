//! Collects entries and spans in growing tables, and assembles an index from them.
//!
//! No heap object per entry: each table is an array that moves off the heap once it is large, and so is the index.

use std::io;
use std::sync::Arc;

use zerocopy::{FromBytes, IntoBytes};

use super::format::{self, Blob, EntryRecord, HAS_SHA256, Header, LISTED, Sections, SpanRecord, WarningRecord, XattrRecord};
use super::kind::FileKind;
use super::limits::Limits;
use super::records::ExtentRecord;
use super::{Extent, LayerIndex, Metadata, Resources, Restart, Span};
use crate::error::Error;
use crate::sys::array::{Array, Scratch};

/// Most warnings kept.
pub(super) const WARNINGS: usize = 100;

/// Appends bytes to a heap; returns their offset.
fn append(heap: &mut Array<u8>, bytes: &[u8]) -> Result<u64, Error> {
    let at = heap.len() as u64;
    heap.extend_from_slice(bytes).map_err(unkept)?;
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
    scratch: Scratch,
    entries: Array<EntryRecord>,
    spans: Array<SpanRecord>,
    extents: Array<ExtentRecord>,
    xattrs: Array<XattrRecord>,
    windows: Array<u8>,
    /// Windows seen so far, and the interval at which they are kept.
    windows_seen: u64,
    window_stride: u64,
    strings: Array<u8>,
    warnings: Vec<String>,
}

impl Builder {
    pub(super) fn new(resources: &Resources) -> Self {
        let scratch = &resources.scratch;
        Self {
            limits: resources.limits,
            scratch: scratch.clone(),
            entries: Array::new(scratch),
            spans: Array::new(scratch),
            extents: Array::new(scratch),
            xattrs: Array::new(scratch),
            windows: Array::new(scratch),
            windows_seen: 0,
            window_stride: 1,
            strings: Array::new(scratch),
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
        let Self { entries, spans, extents, xattrs, windows, strings, .. } = self;
        let heaps = windows.len() + strings.len();
        let total = (size_of_val(&**entries) + size_of_val(&**spans) + size_of_val(&**extents) + size_of_val(&**xattrs) + heaps) as u64;
        let Limits { index_bytes, index_reason, text_bytes, .. } = self.limits;
        if total > index_bytes {
            let message = format!("the index of the layer would take more than {index_bytes} bytes, the most that {index_reason} allows");
            return Err(Error::unsupported(message));
        }
        if strings.len() as u64 > text_bytes {
            return Err(Error::unsupported(format!("the layer has more than {text_bytes} bytes of names and extended attributes")));
        }
        Ok(())
    }

    /// Records an entry.
    pub(super) fn entry(&mut self, new: &NewEntry<'_>) -> Result<(), Error> {
        if self.entries.len() >= self.limits.entries as usize {
            return Err(Error::unsupported(format!("the layer has more than {} entries", self.limits.entries)));
        }
        let Metadata { mode, owner, mtime, device } = new.metadata;
        let (place, extent_count, mut flags) = match new.content {
            _ if matches!(new.kind, FileKind::CharDevice | FileKind::BlockDevice) => {
                (u64::from(device.0) | u64::from(device.1) << 32, 0, 0)
            }
            NewContent::Whole(stream) => (stream, 0, 0),
            NewContent::Pieces(pieces) => (self.extents(pieces)?, count(pieces.len())?, LISTED),
        };
        if new.sha256.is_some() {
            flags |= HAS_SHA256;
        }
        let record = EntryRecord {
            path: append(&mut self.strings, new.path)?.into(),
            link: append(&mut self.strings, new.link)?.into(),
            path_length: count(new.path.len())?.into(),
            link_length: count(new.link.len())?.into(),
            size: new.size.into(),
            place: place.into(),
            mtime: mtime.unwrap_or_default().into(),
            mode: ((mode.unwrap_or_default() & 0o7777) as u16).into(),
            kind: new.kind.code(),
            flags,
            owner: owner.unwrap_or_default().into(),
            extent_count: extent_count.into(),
            xattr_first: count(self.xattrs.len())?.into(),
            xattr_count: count(new.xattrs.len())?.into(),
            reserved: [0; 4],
            sha256: new.sha256.unwrap_or_default(),
        };
        for (name, value) in new.xattrs {
            self.xattr(name, value)?;
        }
        self.entries.push(record).map_err(unkept)?;
        self.check_size()
    }

    /// Records the pieces of a file; returns the number of the first.
    fn extents(&mut self, pieces: &[Extent]) -> Result<u64, Error> {
        let first = self.extents.len() as u64;
        for piece in pieces {
            self.extents.push((*piece).into()).map_err(unkept)?;
        }
        Ok(first)
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let record = XattrRecord {
            name: append(&mut self.strings, name)?.into(),
            value: append(&mut self.strings, value)?.into(),
            name_length: count(name.len())?.into(),
            value_length: count(value.len())?.into(),
        };
        self.xattrs.push(record).map_err(unkept)
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
        let (restart, bits) = match restart {
            Restart::No => (0, 0),
            Restart::Clean => (1, 0),
            Restart::Window { bits } => (2, bits),
        };
        let record = SpanRecord {
            stream_end: new.stream.end.into(),
            blob_start: new.blob.start.into(),
            blob_end: new.blob.end.into(),
            window: append(&mut self.windows, window)?.into(),
            window_length: count(window.len())?.into(),
            restart,
            bits,
            has_digest: new.digest.is_some().into(),
            reserved: 0,
            digest: new.digest.unwrap_or_default(),
        };
        self.spans.push(record).map_err(unkept)?;
        while self.windows.len() as u64 > self.limits.window_bytes && self.windows_seen > self.window_stride {
            self.drop_windows()?;
        }
        self.check_size()
    }

    /// Drops every other window: decoding can no longer start at those spans.
    fn drop_windows(&mut self) -> Result<(), Error> {
        let mut kept = Array::new(&self.scratch);
        let mut keeps = false;
        for record in self.spans.iter_mut() {
            let start = usize::try_from(record.window.get()).unwrap_or(usize::MAX);
            let window = self.windows.get(start..start.saturating_add(record.window_length.get() as usize)).unwrap_or_default();
            keeps ^= !window.is_empty();
            if !window.is_empty() && !keeps {
                (record.window_length, record.restart, record.bits) = (0.into(), 0, 0);
            }
            // Even if there is none: the offset must be within what remains.
            record.window = append(&mut kept, if keeps { window } else { &[] })?.into();
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
        self.spans.len() as u32
    }

    /// Assembles the index.
    pub(super) fn finish(mut self, blob: &Blob) -> Result<LayerIndex, Error> {
        let mut warnings = Array::new(&self.scratch);
        for warning in std::mem::take(&mut self.warnings) {
            let text = append(&mut self.strings, warning.as_bytes())?.into();
            let record = WarningRecord { text, length: count(warning.len())?.into(), reserved: [0; 4] };
            warnings.push(record).map_err(unkept)?;
        }
        let Self { scratch, entries, spans, extents, xattrs, windows, strings, .. } = self;
        let header = Header {
            entries: count(entries.len())?.into(),
            spans: count(spans.len())?.into(),
            extents: count(extents.len())?.into(),
            xattrs: count(xattrs.len())?.into(),
            warnings: count(warnings.len())?.into(),
            windows: (windows.len() as u64).into(),
            strings: (strings.len() as u64).into(),
            ..Header::of(blob)
        };
        let sections: [Box<dyn AsRef<[u8]>>; 7] = [
            Box::new(entries),
            Box::new(spans),
            Box::new(extents),
            Box::new(xattrs),
            Box::new(warnings),
            Box::new(windows),
            Box::new(strings),
        ];
        assemble(header, sections, &scratch)
    }
}

/// Joins a header and the bytes of its sections, and opens the result. Each section is freed once it is copied.
pub(super) fn assemble<'a>(
    mut header: Header,
    sections: impl IntoIterator<Item = Box<dyn AsRef<[u8]> + 'a>>,
    scratch: &Scratch,
) -> Result<LayerIndex, Error> {
    header.total = (Sections::of(&header).ok_or_else(too_many)?.end as u64).into();
    let mut bytes = Array::new(scratch);
    append(&mut bytes, header.as_bytes())?;
    for section in sections {
        append(&mut bytes, (*section).as_ref())?;
    }
    let checksum = format::checksum(&bytes);
    if let Ok((header, _)) = Header::mut_from_prefix(&mut bytes) {
        header.checksum = checksum.into();
    }
    LayerIndex::open(Arc::new(bytes))
}

fn count(number: usize) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| too_many())
}

fn too_many() -> Error {
    Error::unsupported("the layer has more parts than an index can hold".to_owned())
}
