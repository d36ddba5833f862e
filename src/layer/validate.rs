//! Validates index bytes once, so that no later access can fail: [`super::LayerIndex`] reads anything that passes here without an error, even if the
//! bytes are crafted.

use xxhash_rust::xxh3::xxh3_64;

use super::Codec;
use super::format::{self, Counts, Record, Sections, entry, header, record, span};
use super::inflate::WINDOW;
use super::kind::FileKind;
use super::tar::path::is_clean;
use crate::error::Error;
use crate::oci::Digest;

/// Longest span in stream bytes.
const SPAN_MOST: u64 = 4 << 20;

/// The validated header.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) counts: Counts,
    pub(super) sections: Sections,
    pub(super) digest: Digest,
    pub(super) codec: Codec,
    pub(super) is_archive: bool,
    pub(super) of_content: bool,
    pub(super) stream_length: u64,
    pub(super) blob_length: u64,
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
    let record = Record(bytes.get(..format::HEADER).ok_or_else(|| bad("too short"))?);
    if record.bytes(header::MAGIC) != format::MAGIC {
        return Err(bad("not an index"));
    }
    if record.u32(header::VERSION) != format::VERSION {
        return Err(Error::unsupported(format!(
            "the index has version {}, but this program supports {}",
            record.u32(header::VERSION),
            format::VERSION
        )));
    }
    let counts = Counts {
        entries: record.u32(header::ENTRIES),
        spans: record.u32(header::SPANS),
        extents: record.u32(header::EXTENTS),
        xattrs: record.u32(header::XATTRS),
        warnings: record.u32(header::WARNINGS),
        windows: record.u64(header::WINDOWS),
        strings: record.u64(header::STRINGS),
    };
    let sections = Sections::of(&counts).filter(|sections| sections.end == bytes.len()).ok_or_else(|| bad("wrong length"))?;
    if record.u64(header::TOTAL) != bytes.len() as u64 {
        return Err(bad("wrong length"));
    }
    if record.u64(header::CHECKSUM) != xxh3_64(bytes.get(header::CHECKED..).unwrap_or_default()) {
        return Err(bad("wrong checksum"));
    }
    Ok(Layout {
        counts,
        sections,
        digest: digest(record).ok_or_else(|| bad("no digest"))?,
        codec: match record.u8(header::CODEC) {
            0 => Codec::Identity,
            1 => Codec::Gzip,
            2 => Codec::Zstd,
            _ => return Err(bad("unknown codec")),
        },
        is_archive: record.u32(header::FLAGS) & header::IS_ARCHIVE != 0,
        of_content: record.u32(header::FLAGS) & header::OF_CONTENT != 0,
        stream_length: record.u64(header::STREAM_LENGTH),
        blob_length: record.u64(header::BLOB_LENGTH),
    })
}

fn digest(record: Record<'_>) -> Option<Digest> {
    let raw: [u8; 64] = record.bytes(header::DIGEST);
    let (name, length) = match record.u8(header::ALGORITHM) {
        0 => ("sha256", 32),
        1 => ("sha512", 64),
        _ => return None,
    };
    let hex: String = raw.iter().take(length).map(|byte| format!("{byte:02x}")).collect();
    Digest::parse(&format!("{name}:{hex}")).ok()
}

struct Checker<'a> {
    bytes: &'a [u8],
    layout: &'a Layout,
}

impl<'a> Checker<'a> {
    fn string(&self, offset: u64, length: u32) -> Result<&'a [u8], Error> {
        let outside = || bad("a string is out of bounds");
        offset.checked_add(u64::from(length)).filter(|end| *end <= self.layout.counts.strings).ok_or_else(outside)?;
        let start = usize::try_from(offset).ok().and_then(|offset| self.layout.sections.strings.checked_add(offset)).ok_or_else(outside)?;
        self.bytes.get(start..).and_then(|rest| rest.get(..length as usize)).ok_or_else(outside)
    }

    fn inside(&self, start: u64, length: u64) -> bool {
        start.checked_add(length).is_some_and(|end| end <= self.layout.stream_length)
    }

    fn record(&self, section: usize, length: usize, number: u32) -> Record<'a> {
        record(self.bytes, section, length, number)
    }

    fn entries(&self) -> Result<(), Error> {
        for number in 0..self.layout.counts.entries {
            self.entry(self.record(self.layout.sections.entries, format::ENTRY, number))?;
        }
        Ok(())
    }

    fn entry(&self, record: Record<'_>) -> Result<(), Error> {
        let path = self.string(record.u64(entry::PATH), record.u32(entry::PATH_LENGTH))?;
        let link = self.string(record.u64(entry::LINK), record.u32(entry::LINK_LENGTH))?;
        let kind = FileKind::from_code(record.u8(entry::KIND)).ok_or_else(|| bad("unknown kind of entry"))?;
        let named = is_clean(path) && (!path.is_empty() || kind == FileKind::Directory);
        let linked = match kind {
            FileKind::HardLink => !link.is_empty() && is_clean(link),
            FileKind::Symlink => !link.is_empty() && !link.contains(&0),
            _ => true,
        };
        if !named || !linked {
            return Err(bad("a name leaves the tree"));
        }
        if record.u16(entry::MODE) > 0o7777 || record.u32(entry::MTIME_NANOSECONDS) > 999_999_999 {
            return Err(bad("an attribute is out of range"));
        }
        range(record.u32(entry::XATTR_FIRST).into(), record.u32(entry::XATTR_COUNT), self.layout.counts.xattrs)?;
        let (place, size, count) = (record.u64(entry::PLACE), record.u64(entry::SIZE), record.u32(entry::EXTENT_COUNT));
        if record.u8(entry::FLAGS) & entry::LISTED == 0 {
            return if kind.has_content() && size > 0 && !self.inside(place, size) {
                Err(bad("a file is outside the stream"))
            } else {
                Ok(())
            };
        }
        range(place, count, self.layout.counts.extents)?;
        let first = u32::try_from(place).map_err(|_| bad("an extent is out of bounds"))?;
        let mut position = 0;
        for number in first..first + count {
            let record = self.record(self.layout.sections.extents, format::EXTENT, number);
            let (file, length) = (record.u64(0), record.u64(16));
            let end = file.checked_add(length).filter(|end| *end <= size);
            position = end.filter(|_| file >= position && length > 0).ok_or_else(|| bad("extents are out of order"))?;
        }
        Ok(())
    }

    fn spans(&self) -> Result<(), Error> {
        let (mut stream, mut blob) = (0, 0..0);
        for number in 0..self.layout.counts.spans {
            let record = self.record(self.layout.sections.spans, format::SPAN, number);
            let end = record.u64(span::STREAM_END);
            let next = record.u64(span::BLOB_START)..record.u64(span::BLOB_END);
            if end <= stream || end - stream > SPAN_MOST {
                return Err(bad("spans are out of order"));
            }
            // A span may start with the last byte of the previous one.
            if next.end < next.start
                || next.start < blob.start
                || next.start.saturating_add(1) < blob.end
                || next.end < blob.end
                || next.end > self.layout.blob_length
            {
                return Err(bad("spans are out of order in the blob"));
            }
            self.restart(number, record)?;
            (stream, blob) = (end, next);
        }
        if stream != self.layout.stream_length { Err(bad("spans do not cover the stream")) } else { Ok(()) }
    }

    fn restart(&self, number: u32, record: Record<'_>) -> Result<(), Error> {
        let (start, length) = (record.u64(span::WINDOW), record.u32(span::WINDOW_LENGTH));
        let fits = start.checked_add(length.into()).is_some_and(|end| end <= self.layout.counts.windows);
        let (restart, bits) = (record.u8(span::RESTART), record.u8(span::BITS));
        let possible = match restart {
            0 => number > 0,
            1 => true,
            2 => self.layout.codec == Codec::Gzip && bits < 8 && length as usize <= 2 * WINDOW,
            _ => false,
        };
        if fits && possible && record.u8(span::HAS_DIGEST) < 2 { Ok(()) } else { Err(bad("a span cannot be decoded")) }
    }

    fn extents_and_xattrs(&self) -> Result<(), Error> {
        for number in 0..self.layout.counts.extents {
            let record = self.record(self.layout.sections.extents, format::EXTENT, number);
            if !self.inside(record.u64(8), record.u64(16)) {
                return Err(bad("an extent is outside the stream"));
            }
        }
        for number in 0..self.layout.counts.xattrs {
            let record = self.record(self.layout.sections.xattrs, format::XATTR, number);
            self.string(record.u64(0), record.u32(16))?;
            self.string(record.u64(8), record.u32(20))?;
        }
        Ok(())
    }

    fn warnings(&self) -> Result<(), Error> {
        for number in 0..self.layout.counts.warnings {
            let record = self.record(self.layout.sections.warnings, format::WARNING, number);
            if std::str::from_utf8(self.string(record.u64(0), record.u32(8))?).is_err() {
                return Err(bad("a warning is not text"));
            }
        }
        Ok(())
    }
}

/// Checks that the records of a valid index are consecutive and do not overlap, and that it has no warnings. So the total size of everything in its
/// records is no more than its length.
pub(super) fn check_packed(bytes: &[u8], layout: &Layout) -> Result<(), Error> {
    let (mut strings, mut extents, mut xattrs) = (0_u64, 0_u64, 0_u32);
    let mut next = |record: Record<'_>, at: usize, length: usize| {
        let follows = record.u64(at) == strings;
        strings = strings.saturating_add(record.u32(length).into());
        if follows { Ok(()) } else { Err(bad("names are not in order")) }
    };
    for number in 0..layout.counts.entries {
        let entry = record(bytes, layout.sections.entries, format::ENTRY, number);
        next(entry, entry::PATH, entry::PATH_LENGTH)?;
        next(entry, entry::LINK, entry::LINK_LENGTH)?;
        let listed = entry.u8(entry::FLAGS) & entry::LISTED != 0;
        if (listed && entry.u64(entry::PLACE) != extents) || entry.u32(entry::XATTR_FIRST) != xattrs {
            return Err(bad("records are not in order"));
        }
        extents += if listed { u64::from(entry.u32(entry::EXTENT_COUNT)) } else { 0 };
        for _ in 0..entry.u32(entry::XATTR_COUNT) {
            let xattr = record(bytes, layout.sections.xattrs, format::XATTR, xattrs);
            next(xattr, 0, 16)?;
            next(xattr, 8, 20)?;
            xattrs = xattrs.saturating_add(1);
        }
    }
    let mut windows = 0_u64;
    for number in 0..layout.counts.spans {
        let span = record(bytes, layout.sections.spans, format::SPAN, number);
        if span.u64(span::WINDOW) != windows {
            return Err(bad("windows are not in order"));
        }
        windows = windows.saturating_add(span.u32(span::WINDOW_LENGTH).into());
    }
    let counts = &layout.counts;
    let all = strings == counts.strings && extents == u64::from(counts.extents) && xattrs == counts.xattrs;
    if all && counts.warnings == 0 && counts.windows == windows { Ok(()) } else { Err(bad("unreferenced records")) }
}

fn range(first: u64, count: u32, of: u32) -> Result<(), Error> {
    match first.checked_add(u64::from(count)) {
        Some(end) if end <= u64::from(of) => Ok(()),
        _ => Err(bad("a record is out of bounds")),
    }
}
