//! The records of an index, as specified in `FORMAT.md`. Ignores how fields relate: `build` writes them, `validate` checks them.

use std::mem::offset_of;

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Codec;
use super::records::{ExtentRecord, Pair, Section, Time};
use crate::oci::{Algorithm, Digest};

/// First bytes of an index.
pub(super) const MAGIC: [u8; 8] = *b"ocifsLIX";
/// Version of the format. Any change to the meaning of a byte is a new version.
pub(super) const VERSION: u32 = 1;

/// The start of an index.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub magic: [u8; 8],
    pub version: U32,
    pub reserved: [u8; 4],
    pub checksum: U64,
    pub total: U64,
    pub algorithm: u8,
    pub codec: u8,
    pub reserved_2: [u8; 2],
    /// [`IS_ARCHIVE`] and [`OF_CONTENT`].
    pub flags: U32,
    pub digest: [u8; 64],
    pub stream_length: U64,
    pub blob_length: U64,
    pub entries: U32,
    pub spans: U32,
    pub extents: U32,
    pub xattrs: U32,
    pub warnings: U32,
    pub reserved_3: [u8; 4],
    pub windows: U64,
    pub strings: U64,
}

/// Flag of a header: the stream is a tar.
const IS_ARCHIVE: u32 = 1;
/// Flag of a header: digests of spans are those of the stream.
const OF_CONTENT: u32 = 2;

/// Facts about the indexed blob.
#[derive(Clone, Copy)]
pub(super) struct Blob {
    pub digest: Digest,
    pub stream_length: u64,
    pub blob_length: u64,
    pub codec: Codec,
    pub is_archive: bool,
    /// Digests of spans are those of the stream, not of the blob.
    pub of_content: bool,
}

impl Header {
    /// The header of an index without records.
    pub fn of(blob: &Blob) -> Self {
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let mut header = Self {
            magic: MAGIC,
            version: VERSION.into(),
            codec: blob.codec.code(),
            flags: (flag(blob.is_archive, IS_ARCHIVE) | flag(blob.of_content, OF_CONTENT)).into(),
            stream_length: blob.stream_length.into(),
            blob_length: blob.blob_length.into(),
            ..Self::new_zeroed()
        };
        header.set_digest(&blob.digest);
        header
    }

    /// Changes the digest of the blob.
    pub fn set_digest(&mut self, digest: &Digest) {
        self.algorithm = match digest.algorithm() {
            Algorithm::Sha256 => 0,
            Algorithm::Sha512 => 1,
        };
        self.digest = [0; 64];
        self.digest.iter_mut().zip(digest.as_bytes()).for_each(|(field, byte)| *field = *byte);
    }

    /// The facts in it. `None` for an unknown algorithm or codec.
    pub fn blob(&self) -> Option<Blob> {
        let algorithm = match self.algorithm {
            0 => Algorithm::Sha256,
            1 => Algorithm::Sha512,
            _ => return None,
        };
        let hex: String = self.digest.iter().take(algorithm.length()).map(|byte| format!("{byte:02x}")).collect();
        Some(Blob {
            digest: Digest::parse(&format!("{}:{hex}", algorithm.name())).ok()?,
            stream_length: self.stream_length.get(),
            blob_length: self.blob_length.get(),
            codec: Codec::from_code(self.codec)?,
            is_archive: self.flags.get() & IS_ARCHIVE != 0,
            of_content: self.flags.get() & OF_CONTENT != 0,
        })
    }
}

/// The checksum of index bytes: it covers everything behind its own field.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes.get(offset_of!(Header, total)..).unwrap_or_default())
}

/// An entry.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct EntryRecord {
    pub path: U64,
    pub link: U64,
    pub path_length: U32,
    pub link_length: U32,
    pub size: U64,
    /// Offset in the stream, number of the first extent with [`LISTED`], or numbers of a device.
    pub place: U64,
    pub mtime: Time,
    pub mode: U16,
    pub kind: u8,
    /// [`HAS_SHA256`] and [`LISTED`].
    pub flags: u8,
    pub owner: Pair,
    pub extent_count: U32,
    pub xattr_first: U32,
    pub xattr_count: U32,
    pub reserved: [u8; 4],
    pub sha256: [u8; 32],
}

/// Flag of an entry: the SHA-256 is present.
pub(super) const HAS_SHA256: u8 = 1;
/// Flag of an entry: the extents are records; otherwise a single extent covers the file.
pub(super) const LISTED: u8 = 2;

impl EntryRecord {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A span.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SpanRecord {
    pub stream_end: U64,
    pub blob_start: U64,
    pub blob_end: U64,
    pub window: U64,
    pub window_length: U32,
    pub restart: u8,
    pub bits: u8,
    pub has_digest: u8,
    pub reserved: u8,
    pub digest: [u8; 32],
}

/// An extended attribute.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct XattrRecord {
    pub name: U64,
    pub value: U64,
    pub name_length: U32,
    pub value_length: U32,
}

/// A warning.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct WarningRecord {
    pub text: U64,
    pub length: U32,
    pub reserved: [u8; 4],
}

/// The sections of an index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sections {
    pub entries: Section<EntryRecord>,
    pub spans: Section<SpanRecord>,
    pub extents: Section<ExtentRecord>,
    pub xattrs: Section<XattrRecord>,
    pub warnings: Section<WarningRecord>,
    pub windows: Section<u8>,
    pub strings: Section<u8>,
    /// Length of the index.
    pub end: usize,
}

impl Sections {
    /// Places the sections one after the other. `None` if they exceed the address space.
    pub fn of(header: &Header) -> Option<Self> {
        let mut end = size_of::<Header>();
        Some(Self {
            entries: Section::place(&mut end, header.entries)?,
            spans: Section::place(&mut end, header.spans)?,
            extents: Section::place(&mut end, header.extents)?,
            xattrs: Section::place(&mut end, header.xattrs)?,
            warnings: Section::place(&mut end, header.warnings)?,
            windows: Section::place(&mut end, header.windows)?,
            strings: Section::place(&mut end, header.strings)?,
            end,
        })
    }
}
