//! Validates index bytes once, so that no later access can fail: [`super::LayerIndex`] reads anything that passes here without an error, even if the
//! bytes are crafted.

use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use super::format::{self, Blob, EntryRecord, Header, LISTED, Sections, SpanRecord};
use super::inflate::WINDOW;
use super::kind::FileKind;
use super::records::{Record, Section};
use super::tar::path::is_clean;
use super::{Codec, Extent};
use crate::error::Error;

/// Longest span in stream bytes.
const SPAN_MOST: u64 = 4 << 20;

/// The validated header.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) blob: Blob,
    pub(super) sections: Sections,
}

/// Validates everything and returns the header's content.
pub(super) fn check(bytes: &[u8]) -> Result<Layout, Error> {
    let layout = check_header(bytes)?;
    let checker = Checker { bytes, layout: &layout };
    checker.entries()?;
    checker.spans()?;
    checker.extents_and_xattrs()?;
    checker.warnings()?;
    Ok(layout)
}

fn bad(what: &str) -> Error {
    Error::integrity(format!("the index is damaged: {what}"))
}

fn check_header(bytes: &[u8]) -> Result<Layout, Error> {
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| bad("too short"))?;
    if header.magic != format::MAGIC {
        return Err(bad("not an index"));
    }
    if header.version != format::VERSION {
        let (found, known) = (header.version, format::VERSION);
        return Err(Error::unsupported(format!("the index has version {found}, but this program supports {known}")));
    }
    let sections = Sections::of(header).filter(|sections| sections.end == bytes.len()).ok_or_else(|| bad("wrong length"))?;
    if header.total != bytes.len() as u64 {
        return Err(bad("wrong length"));
    }
    if header.checksum != format::checksum(bytes) {
        return Err(bad("wrong checksum"));
    }
    Ok(Layout { blob: header.blob().ok_or_else(|| bad("no digest, or unknown codec"))?, sections })
}

struct Checker<'a> {
    bytes: &'a [u8],
    layout: &'a Layout,
}

impl<'a> Checker<'a> {
    fn string(&self, offset: U64, length: U32) -> Result<&'a [u8], Error> {
        self.layout.sections.strings.range(self.bytes, offset, length).ok_or_else(|| bad("a string is out of bounds"))
    }

    fn range<T: Record>(&self, section: Section<T>, first: impl Into<u64>, count: U32) -> Result<&'a [T], Error> {
        section.range(self.bytes, first, count).ok_or_else(|| bad("a record is out of bounds"))
    }

    fn inside(&self, start: u64, length: u64) -> bool {
        start.checked_add(length).is_some_and(|end| end <= self.layout.blob.stream_length)
    }

    fn entries(&self) -> Result<(), Error> {
        self.layout.sections.entries.of(self.bytes).iter().try_for_each(|record| self.entry(record))
    }

    fn entry(&self, record: &EntryRecord) -> Result<(), Error> {
        let path = self.string(record.path, record.path_length)?;
        let link = self.string(record.link, record.link_length)?;
        let kind = FileKind::from_code(record.kind).ok_or_else(|| bad("unknown kind of entry"))?;
        let named = is_clean(path) && (!path.is_empty() || kind == FileKind::Directory);
        let linked = match kind {
            FileKind::HardLink => !link.is_empty() && is_clean(link),
            FileKind::Symlink => !link.is_empty() && !link.contains(&0),
            _ => true,
        };
        if !named || !linked {
            return Err(bad("a name leaves the tree"));
        }
        let (_, nanoseconds) = record.mtime.into();
        if record.mode.get() > 0o7777 || nanoseconds > 999_999_999 {
            return Err(bad("an attribute is out of range"));
        }
        self.range(self.layout.sections.xattrs, record.xattr_first, record.xattr_count)?;
        let size = record.size.get();
        if !record.has(LISTED) {
            return if kind.has_content() && size > 0 && !self.inside(record.place.get(), size) {
                Err(bad("a file is outside the stream"))
            } else {
                Ok(())
            };
        }
        let mut position = 0;
        for extent in self.range(self.layout.sections.extents, record.place, record.extent_count)? {
            let Extent { file, length, .. } = (*extent).into();
            let end = file.checked_add(length).filter(|end| *end <= size);
            position = end.filter(|_| file >= position && length > 0).ok_or_else(|| bad("extents are out of order"))?;
        }
        Ok(())
    }

    fn spans(&self) -> Result<(), Error> {
        let (mut stream, mut blob) = (0, 0..0);
        for (number, record) in self.layout.sections.spans.of(self.bytes).iter().enumerate() {
            let end = record.stream_end.get();
            let next = record.blob_start.get()..record.blob_end.get();
            if end <= stream || end - stream > SPAN_MOST {
                return Err(bad("spans are out of order"));
            }
            // A span may start with the last byte of the previous one.
            if next.end < next.start
                || next.start < blob.start
                || next.start.saturating_add(1) < blob.end
                || next.end < blob.end
                || next.end > self.layout.blob.blob_length
            {
                return Err(bad("spans are out of order in the blob"));
            }
            self.restart(number, record)?;
            (stream, blob) = (end, next);
        }
        if stream != self.layout.blob.stream_length { Err(bad("spans do not cover the stream")) } else { Ok(()) }
    }

    fn restart(&self, number: usize, record: &SpanRecord) -> Result<(), Error> {
        let window = self.range(self.layout.sections.windows, record.window, record.window_length)?;
        let possible = match record.restart {
            0 => number > 0,
            1 => true,
            2 => self.layout.blob.codec == Codec::Gzip && record.bits < 8 && window.len() <= 2 * WINDOW,
            _ => false,
        };
        if possible && record.has_digest < 2 { Ok(()) } else { Err(bad("a span cannot be decoded")) }
    }

    fn extents_and_xattrs(&self) -> Result<(), Error> {
        for record in self.layout.sections.extents.of(self.bytes) {
            let Extent { stream, length, .. } = (*record).into();
            if !self.inside(stream, length) {
                return Err(bad("an extent is outside the stream"));
            }
        }
        for record in self.layout.sections.xattrs.of(self.bytes) {
            self.string(record.name, record.name_length)?;
            self.string(record.value, record.value_length)?;
        }
        Ok(())
    }

    fn warnings(&self) -> Result<(), Error> {
        for record in self.layout.sections.warnings.of(self.bytes) {
            if std::str::from_utf8(self.string(record.text, record.length)?).is_err() {
                return Err(bad("a warning is not text"));
            }
        }
        Ok(())
    }
}

/// Checks that the records of a valid index are consecutive and do not overlap, and that it has no warnings. So the total size of everything in its
/// records is no more than its length.
pub(super) fn check_packed(bytes: &[u8], sections: &Sections) -> Result<(), Error> {
    let (mut strings, mut extents, mut xattrs) = (0_u64, 0_u64, 0_u64);
    let mut next = |start: U64, length: U32| {
        let follows = start == strings;
        strings = strings.saturating_add(length.into());
        if follows { Ok(()) } else { Err(bad("names are not in order")) }
    };
    for entry in sections.entries.of(bytes) {
        next(entry.path, entry.path_length)?;
        next(entry.link, entry.link_length)?;
        if (entry.has(LISTED) && entry.place != extents) || u64::from(entry.xattr_first) != xattrs {
            return Err(bad("records are not in order"));
        }
        extents += if entry.has(LISTED) { entry.extent_count.into() } else { 0 };
        for xattr in sections.xattrs.range(bytes, entry.xattr_first, entry.xattr_count).unwrap_or_default() {
            next(xattr.name, xattr.name_length)?;
            next(xattr.value, xattr.value_length)?;
        }
        xattrs += u64::from(entry.xattr_count);
    }
    let mut windows = 0_u64;
    for span in sections.spans.of(bytes) {
        if span.window != windows {
            return Err(bad("windows are not in order"));
        }
        windows = windows.saturating_add(span.window_length.into());
    }
    let used = [strings, extents, xattrs, windows, 0];
    let Sections { strings, extents, xattrs, windows, warnings, .. } = sections;
    let all = [strings.len(), extents.len(), xattrs.len(), windows.len(), warnings.len()];
    if used == all.map(|length| length as u64) { Ok(()) } else { Err(bad("unreferenced records")) }
}
