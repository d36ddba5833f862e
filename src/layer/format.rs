//! The offsets of all fields in index bytes, as specified in `FORMAT.md`, and access to single records. Ignores how fields relate: `build` writes them,
//! `validate` checks them.

/// First bytes of an index.
pub(super) const MAGIC: [u8; 8] = *b"ocifsLIX";
/// Version of the format. Any change to the meaning of a byte is a new version.
pub(super) const VERSION: u32 = 1;

/// Length of the header.
pub(super) const HEADER: usize = 160;
/// Length of an entry record.
pub(super) const ENTRY: usize = 112;
/// Length of a span record.
pub(super) const SPAN: usize = 72;
/// Length of an extent record.
pub(super) const EXTENT: usize = 24;
/// Length of an extended attribute record.
pub(super) const XATTR: usize = 24;
/// Length of a warning record.
pub(super) const WARNING: usize = 16;

/// Fields of the header.
pub(super) mod header {
    pub(in crate::layer) const MAGIC: usize = 0;
    pub(in crate::layer) const VERSION: usize = 8;
    pub(in crate::layer) const CHECKSUM: usize = 16;
    /// The checksum covers everything from here on.
    pub(in crate::layer) const CHECKED: usize = 24;
    pub(in crate::layer) const TOTAL: usize = 24;
    pub(in crate::layer) const ALGORITHM: usize = 32;
    pub(in crate::layer) const CODEC: usize = 33;
    pub(in crate::layer) const FLAGS: usize = 36;
    pub(in crate::layer) const DIGEST: usize = 40;
    pub(in crate::layer) const STREAM_LENGTH: usize = 104;
    pub(in crate::layer) const BLOB_LENGTH: usize = 112;
    pub(in crate::layer) const ENTRIES: usize = 120;
    pub(in crate::layer) const SPANS: usize = 124;
    pub(in crate::layer) const EXTENTS: usize = 128;
    pub(in crate::layer) const XATTRS: usize = 132;
    pub(in crate::layer) const WARNINGS: usize = 136;
    pub(in crate::layer) const WINDOWS: usize = 144;
    pub(in crate::layer) const STRINGS: usize = 152;

    /// Flag: the stream is a tar.
    pub(in crate::layer) const IS_ARCHIVE: u32 = 1;
    /// Flag: digests of spans are those of the stream.
    pub(in crate::layer) const OF_CONTENT: u32 = 2;
}

/// Fields of an entry record.
pub(super) mod entry {
    pub(in crate::layer) const PATH: usize = 0;
    pub(in crate::layer) const LINK: usize = 8;
    pub(in crate::layer) const PATH_LENGTH: usize = 16;
    pub(in crate::layer) const LINK_LENGTH: usize = 20;
    pub(in crate::layer) const SIZE: usize = 24;
    pub(in crate::layer) const PLACE: usize = 32;
    pub(in crate::layer) const MTIME: usize = 40;
    pub(in crate::layer) const MTIME_NANOSECONDS: usize = 48;
    pub(in crate::layer) const MODE: usize = 52;
    pub(in crate::layer) const KIND: usize = 54;
    pub(in crate::layer) const FLAGS: usize = 55;
    pub(in crate::layer) const UID: usize = 56;
    pub(in crate::layer) const GID: usize = 60;
    pub(in crate::layer) const EXTENT_COUNT: usize = 64;
    pub(in crate::layer) const XATTR_FIRST: usize = 68;
    pub(in crate::layer) const XATTR_COUNT: usize = 72;
    pub(in crate::layer) const SHA256: usize = 80;

    /// Flag: the SHA-256 is present.
    pub(in crate::layer) const HAS_SHA256: u8 = 1;
    /// Flag: the extents are records; otherwise a single extent covers the file.
    pub(in crate::layer) const LISTED: u8 = 2;
}

/// Fields of a span record.
pub(super) mod span {
    pub(in crate::layer) const STREAM_END: usize = 0;
    pub(in crate::layer) const BLOB_START: usize = 8;
    pub(in crate::layer) const BLOB_END: usize = 16;
    pub(in crate::layer) const WINDOW: usize = 24;
    pub(in crate::layer) const WINDOW_LENGTH: usize = 32;
    pub(in crate::layer) const RESTART: usize = 36;
    pub(in crate::layer) const BITS: usize = 37;
    pub(in crate::layer) const HAS_DIGEST: usize = 38;
    pub(in crate::layer) const DIGEST: usize = 40;
}

/// Offsets of the sections of an index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sections {
    pub(super) entries: usize,
    pub(super) spans: usize,
    pub(super) extents: usize,
    pub(super) xattrs: usize,
    pub(super) warnings: usize,
    pub(super) windows: usize,
    pub(super) strings: usize,
    pub(super) end: usize,
}

/// Record counts and heap lengths, which determine the sections' offsets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) entries: u32,
    pub(super) spans: u32,
    pub(super) extents: u32,
    pub(super) xattrs: u32,
    pub(super) warnings: u32,
    pub(super) windows: u64,
    pub(super) strings: u64,
}

impl Sections {
    /// Places the sections one after the other. `None` if they exceed the address space.
    pub(super) fn of(counts: &Counts) -> Option<Self> {
        let after = |at: usize, count: u32, record: usize| at.checked_add((count as usize).checked_mul(record)?);
        let entries = HEADER;
        let spans = after(entries, counts.entries, ENTRY)?;
        let extents = after(spans, counts.spans, SPAN)?;
        let xattrs = after(extents, counts.extents, EXTENT)?;
        let warnings = after(xattrs, counts.xattrs, XATTR)?;
        let windows = after(warnings, counts.warnings, WARNING)?;
        let strings = windows.checked_add(usize::try_from(counts.windows).ok()?)?;
        let end = strings.checked_add(usize::try_from(counts.strings).ok()?)?;
        Some(Self { entries, spans, extents, xattrs, warnings, windows, strings, end })
    }
}

/// Reads fields of a record; anything out of range reads as zero, which `validate` rules out.
#[derive(Clone, Copy)]
pub(super) struct Record<'a>(pub(super) &'a [u8]);

impl<'a> Record<'a> {
    pub(super) fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
    }

    pub(super) fn u8(self, at: usize) -> u8 {
        u8::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u16(self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(super) fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    pub(super) fn i64(self, at: usize) -> i64 {
        i64::from_le_bytes(self.bytes(at))
    }
}

/// Record `number` of a section.
pub(super) fn record(bytes: &[u8], section: usize, length: usize, number: u32) -> Record<'_> {
    let start = section.saturating_add((number as usize).saturating_mul(length));
    Record(bytes.get(start..start.saturating_add(length)).unwrap_or_default())
}

/// Writes fields of a record of `N` bytes. The offsets are constants of this file, all in range.
pub(super) struct Draft<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Draft<N> {
    pub(super) fn new() -> Self {
        Self([0; N])
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, at: usize, value: u8) {
        self.0[at] = value;
    }

    pub(super) fn u16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }
}
