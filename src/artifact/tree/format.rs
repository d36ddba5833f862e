//! The bytes of a tree: header, fixed-size records, heap, and the validation that makes later access infallible.
//!
//! All numbers are little endian. Layout: header · node records · name records · extents · xattr records · heap, ending with warnings. The names of a
//! directory are contiguous and sorted by bytes. The header's checksum covers all other bytes. A reader that finds another [`VERSION`] rebuilds the
//! tree; nothing is ever converted.

use std::mem::offset_of;

use xxhash_rust::xxh3::Xxh3;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Kind;
use crate::error::{Error, ErrorKind};
use crate::layer::records::{ExtentRecord, Pair, Record, Section, Time};
use crate::layer::{Extent, Metadata};

/// Version of the format and of the rules behind it; part of the key under which trees are stored.
pub const VERSION: u32 = 4;

const MAGIC: [u8; 8] = *b"ocifstre";
/// Unit of [`NodeRecord::blocks`] in bytes.
pub(super) const BLOCK: u64 = 512;

/// The start of a tree.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    magic: [u8; 8],
    version: U32,
    reserved: [u8; 4],
    pub checksum: U64,
    pub nodes: U32,
    pub names: U32,
    pub extents: U64,
    pub xattrs: U32,
    reserved_2: [u8; 4],
    pub heap: U64,
    /// Bytes at the end of the heap that hold warnings, one per line.
    pub warnings: U32,
    reserved_3: [u8; 20],
}

impl Header {
    /// The header of a tree without records.
    pub fn new() -> Self {
        Self { magic: MAGIC, version: VERSION.into(), ..Self::new_zeroed() }
    }
}

/// One node.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct NodeRecord {
    kind: u8,
    /// [`HAS_MODE`], [`HAS_OWNER`], [`HAS_MTIME`], [`HAS_SHA256`] and [`SINGLE`].
    pub flags: u8,
    reserved: [u8; 2],
    mode: U32,
    owner: Pair,
    mtime: Time,
    pub links: U32,
    pub size: U64,
    /// File: blob. Directory: parent. Device: major number.
    pub extra: U32,
    /// Device: minor number.
    minor: U32,
    /// File: first extent, or stream offset with [`SINGLE`]. Directory: first name. Symlink: heap offset.
    pub first: U64,
    /// File: extents. Directory: names. Symlink: length of the target.
    pub count: U32,
    pub xattrs: U32,
    pub first_xattr: U32,
    /// Blocks occupied by a file's extents, at most `u32::MAX`. Unused with [`SINGLE`].
    pub blocks: U32,
    sha256: [u8; 32],
}

const HAS_MODE: u8 = 1;
const HAS_OWNER: u8 = 2;
const HAS_MTIME: u8 = 4;
const HAS_SHA256: u8 = 8;
/// One extent covers the whole file, and `first` is its stream offset.
pub(super) const SINGLE: u8 = 16;

impl NodeRecord {
    /// A node without attributes or content.
    pub fn new(kind: Kind) -> Self {
        Self { kind: kind.code(), ..Self::new_zeroed() }
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// `None` only in unvalidated bytes.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_code(self.kind)
    }

    fn is_device(&self) -> bool {
        self.kind().is_some_and(Kind::is_device)
    }

    pub fn metadata(&self) -> Metadata {
        Metadata {
            mode: self.has(HAS_MODE).then_some(self.mode.get()),
            owner: self.has(HAS_OWNER).then_some(self.owner.into()),
            mtime: self.has(HAS_MTIME).then_some(self.mtime.into()),
            device: if self.is_device() { (self.extra.get(), self.minor.get()) } else { (0, 0) },
        }
    }

    /// Sets all attributes; the device numbers only of a device.
    pub fn set_metadata(&mut self, metadata: &Metadata) {
        let Metadata { mode, owner, mtime, device } = *metadata;
        for (is_set, flag) in [(mode.is_some(), HAS_MODE), (owner.is_some(), HAS_OWNER), (mtime.is_some(), HAS_MTIME)] {
            self.flags |= if is_set { flag } else { 0 };
        }
        self.mode = mode.unwrap_or_default().into();
        self.owner = owner.unwrap_or_default().into();
        self.mtime = mtime.unwrap_or_default().into();
        if self.is_device() {
            (self.extra, self.minor) = (device.0.into(), device.1.into());
        }
    }

    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.has(HAS_SHA256).then_some(self.sha256)
    }

    /// Whether two files are known to have the same bytes.
    pub fn has_bytes_of(&self, other: &Self) -> bool {
        self.size == other.size && (self.size.get() == 0 || self.sha256().is_some() && self.sha256() == other.sha256())
    }

    pub fn set_sha256(&mut self, sha256: Option<[u8; 32]>) {
        if let Some(sha256) = sha256 {
            self.flags |= HAS_SHA256;
            self.sha256 = sha256;
        }
    }
}

/// One name of a directory.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct NameRecord {
    pub text: U32,
    pub node: U32,
    pub length: U32,
}

/// An extended attribute: offset and length of its name and of its value.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct XattrRecord {
    pub name: [U32; 2],
    pub value: [U32; 2],
}

/// Where the sections are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sections {
    pub nodes: Section<NodeRecord>,
    pub names: Section<NameRecord>,
    pub extents: Section<ExtentRecord>,
    pub xattrs: Section<XattrRecord>,
    pub heap: Section<u8>,
    warnings: u32,
    end: usize,
}

impl Sections {
    /// Places the sections one after the other. `None` if they exceed the address space.
    fn of(header: &Header) -> Option<Self> {
        let mut end = size_of::<Header>();
        Some(Self {
            nodes: Section::place(&mut end, header.nodes)?,
            names: Section::place(&mut end, header.names)?,
            extents: Section::place(&mut end, header.extents)?,
            xattrs: Section::place(&mut end, header.xattrs)?,
            heap: Section::place(&mut end, header.heap)?,
            warnings: header.warnings.get(),
            end,
        })
    }
}

/// Typed access to the bytes; anything out of range is `None`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub bytes: &'a [u8],
    pub sections: &'a Sections,
}

impl<'a> View<'a> {
    pub fn node(&self, number: u32) -> Option<&'a NodeRecord> {
        self.sections.nodes.get(self.bytes, number)
    }

    fn range<T: Record>(&self, section: Section<T>, first: impl Into<u64>, count: U32) -> Option<&'a [T]> {
        section.range(self.bytes, first, count)
    }

    /// The names of a directory.
    pub fn names(&self, directory: &NodeRecord) -> Option<&'a [NameRecord]> {
        self.range(self.sections.names, directory.first, directory.count)
    }

    pub fn text(&self, name: &NameRecord) -> &'a [u8] {
        self.heap(name.text, name.length).unwrap_or_default()
    }

    /// The extents of a file without [`SINGLE`].
    pub fn extents(&self, file: &NodeRecord) -> Option<&'a [ExtentRecord]> {
        self.range(self.sections.extents, file.first, file.count)
    }

    /// The extended attributes of a node.
    pub fn xattrs(&self, node: &NodeRecord) -> Option<&'a [XattrRecord]> {
        self.range(self.sections.xattrs, node.first_xattr, node.xattrs)
    }

    pub fn xattr(&self, xattr: &XattrRecord) -> Option<(&'a [u8], &'a [u8])> {
        let ([name, name_length], [value, value_length]) = (xattr.name, xattr.value);
        Some((self.heap(name, name_length)?, self.heap(value, value_length)?))
    }

    pub fn warnings(&self) -> &'a str {
        let heap = self.sections.heap.of(self.bytes);
        let start = heap.len().checked_sub(self.sections.warnings as usize);
        start.and_then(|start| std::str::from_utf8(heap.get(start..)?).ok()).unwrap_or_default()
    }

    pub fn heap(&self, at: impl Into<u64>, length: U32) -> Option<&'a [u8]> {
        self.range(self.sections.heap, at, length)
    }
}

/// Validates everything that later access relies on.
pub(super) fn check(bytes: &[u8]) -> Result<Sections, Error> {
    let broken = |what: &str| Error::new(ErrorKind::Integrity, format!("stored tree is not usable: {what}"));
    let header = Header::ref_from_prefix(bytes).ok().map(|(header, _)| header);
    let header = header.filter(|header| header.magic == MAGIC && header.version == VERSION);
    let header = header.ok_or_else(|| broken("other format or version"))?;
    let sections = Sections::of(header).filter(|sections| sections.end == bytes.len() && sections.warnings as usize <= sections.heap.len());
    let sections = sections.ok_or_else(|| broken("length differs from its header"))?;
    if header.checksum != checksum(bytes) {
        return Err(broken("checksum differs"));
    }
    let view = View { bytes, sections: &sections };
    if view.node(0).and_then(NodeRecord::kind) != Some(Kind::Directory) {
        return Err(broken("root is not a directory"));
    }
    for node in sections.nodes.of(bytes) {
        node_is_sound(&view, node).ok_or_else(|| broken("a node points outside"))?;
    }
    Ok(sections)
}

/// The checksum of all bytes except its own.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    const START: usize = offset_of!(Header, checksum);
    let mut state = Xxh3::new();
    state.update(bytes.get(..START).unwrap_or_default());
    state.update(bytes.get(START + size_of::<U64>()..).unwrap_or_default());
    state.digest()
}

fn node_is_sound(view: &View<'_>, node: &NodeRecord) -> Option<()> {
    let is_node = |number: U32| (number.get() as usize) < view.sections.nodes.len();
    match node.kind()? {
        Kind::Directory => {
            is_node(node.extra).then_some(())?;
            let mut previous: &[u8] = b"";
            for name in view.names(node)? {
                let text = view.heap(name.text, name.length)?;
                (is_node(name.node) && text > previous).then_some(())?;
                previous = text;
            }
        }
        Kind::File if node.has(SINGLE) => {
            node.first.get().checked_add(node.size.get())?;
        }
        Kind::File => {
            let mut reached = 0;
            for extent in view.extents(node)? {
                let Extent { file, stream, length } = (*extent).into();
                let end = file.checked_add(length)?;
                stream.checked_add(length)?;
                (file >= reached && end <= node.size.get()).then_some(())?;
                reached = end;
            }
        }
        Kind::Symlink => {
            view.heap(node.first, node.count)?;
        }
        Kind::CharDevice | Kind::BlockDevice | Kind::Fifo | Kind::Socket => {}
    }
    view.xattrs(node)?.iter().try_for_each(|xattr| view.xattr(xattr).map(drop))
}
