//! The bytes of a tree: header, fixed-size records, heap, and the validation that makes later access infallible.
//!
//! All numbers are little endian. Layout: header (80 bytes) · node records · name records · extents · xattr records · heap, ending with warnings. The
//! names of a directory are contiguous and sorted by bytes. The header's checksum covers all other bytes. A reader that finds another [`VERSION`]
//! rebuilds the tree; nothing is ever converted.

use xxhash_rust::xxh3::Xxh3;

use super::Kind;
use crate::error::{Error, ErrorKind};
use crate::layer::{Extent, Metadata};

/// Version of the format and of the rules behind it; part of the key under which trees are stored.
pub const VERSION: u32 = 4;

pub(super) const MAGIC: [u8; 8] = *b"ocifstre";
pub(super) const HEADER: usize = 80;
pub(super) const NODE: usize = 104;
pub(super) const NAME: usize = 12;
pub(super) const EXTENT: usize = 24;
pub(super) const XATTR: usize = 16;
/// Position of the checksum in the header.
pub(super) const CHECKSUM_AT: std::ops::Range<usize> = 16..24;
/// Unit of [`NodeRecord::blocks`] in bytes.
pub(super) const BLOCK: u64 = 512;

pub(super) const HAS_MODE: u8 = 1;
pub(super) const HAS_OWNER: u8 = 2;
pub(super) const HAS_MTIME: u8 = 4;
pub(super) const HAS_SHA256: u8 = 8;
/// One extent covers the whole file, and `first` is its stream offset.
pub(super) const SINGLE: u8 = 16;

/// Counts and offsets of the sections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub nodes: u32,
    pub names: u32,
    pub extents: u64,
    pub xattrs: u32,
    pub heap: u64,
    /// Bytes at the end of the heap that hold warnings, one per line.
    pub warnings: u32,
    /// Offsets of names, extents, xattrs and heap; nodes follow the header.
    pub names_at: u64,
    pub extents_at: u64,
    pub xattrs_at: u64,
    pub heap_at: u64,
}

impl Header {
    /// Places the sections one after the other. `None` on overflow.
    pub fn place(nodes: u32, names: u32, extents: u64, xattrs: u32, heap: u64, warnings: u32) -> Option<Self> {
        let names_at = (HEADER as u64).checked_add(u64::from(nodes).checked_mul(NODE as u64)?)?;
        let extents_at = names_at.checked_add(u64::from(names).checked_mul(NAME as u64)?)?;
        let xattrs_at = extents_at.checked_add(extents.checked_mul(EXTENT as u64)?)?;
        let heap_at = xattrs_at.checked_add(u64::from(xattrs).checked_mul(XATTR as u64)?)?;
        heap_at.checked_add(heap)?;
        (u64::from(warnings) <= heap).then_some(())?;
        Some(Self { nodes, names, extents, xattrs, heap, warnings, names_at, extents_at, xattrs_at, heap_at })
    }

    /// The header's bytes, with a zero checksum.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(24, &self.nodes.to_le_bytes());
        put(28, &self.names.to_le_bytes());
        put(32, &self.extents.to_le_bytes());
        put(40, &self.xattrs.to_le_bytes());
        put(48, &self.heap.to_le_bytes());
        put(56, &self.warnings.to_le_bytes());
        bytes
    }
}

/// One node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeRecord {
    /// `None` only in unvalidated bytes.
    pub kind: Option<Kind>,
    /// [`HAS_SHA256`] and [`SINGLE`].
    pub flags: u8,
    /// Includes a device number only for a device.
    pub metadata: Metadata,
    pub links: u32,
    pub size: u64,
    /// File: blob. Directory: parent.
    pub extra: u32,
    /// File: first extent, or stream offset with [`SINGLE`]. Directory: first name. Symlink: heap offset.
    pub first: u64,
    /// File: extents. Directory: names. Symlink: length of the target.
    pub count: u32,
    pub xattrs: u32,
    pub first_xattr: u32,
    /// Blocks occupied by a file's extents, at most `u32::MAX`. Unused with [`SINGLE`].
    pub blocks: u32,
    pub sha256: [u8; 32],
}

impl NodeRecord {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn to_bytes(self) -> [u8; NODE] {
        let mut bytes = [0; NODE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let Metadata { mode, owner, mtime, device } = self.metadata;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let set = flag(mode.is_some(), HAS_MODE) | flag(owner.is_some(), HAS_OWNER) | flag(mtime.is_some(), HAS_MTIME);
        put(0, &[self.kind.map_or(u8::MAX, Kind::code), self.flags | set]);
        let ((uid, gid), (seconds, nanoseconds)) = (owner.unwrap_or_default(), mtime.unwrap_or_default());
        let (extra, minor) = if self.kind.is_some_and(Kind::is_device) { device } else { (self.extra, 0) };
        for (at, value) in [(4, mode.unwrap_or_default()), (8, uid), (12, gid), (24, nanoseconds), (28, self.links), (40, extra)] {
            put(at, &value.to_le_bytes());
        }
        put(16, &seconds.to_le_bytes());
        put(32, &self.size.to_le_bytes());
        put(44, &minor.to_le_bytes());
        put(48, &self.first.to_le_bytes());
        for (at, value) in [(56, self.count), (60, self.xattrs), (64, self.first_xattr), (68, self.blocks)] {
            put(at, &value.to_le_bytes());
        }
        put(72, &self.sha256);
        bytes
    }

    fn read(record: &[u8]) -> Self {
        let kind = record.first().copied().and_then(Kind::from_code);
        let flags = record.get(1).copied().unwrap_or_default();
        let has = |flag: u8| flags & flag != 0;
        let is_device = kind.is_some_and(Kind::is_device);
        Self {
            kind,
            flags: flags & (HAS_SHA256 | SINGLE),
            metadata: Metadata {
                mode: has(HAS_MODE).then(|| u32_at(record, 4)),
                owner: has(HAS_OWNER).then(|| (u32_at(record, 8), u32_at(record, 12))),
                mtime: has(HAS_MTIME).then(|| (u64_at(record, 16).cast_signed(), u32_at(record, 24))),
                device: if is_device { (u32_at(record, 40), u32_at(record, 44)) } else { (0, 0) },
            },
            links: u32_at(record, 28),
            size: u64_at(record, 32),
            extra: u32_at(record, 40),
            first: u64_at(record, 48),
            count: u32_at(record, 56),
            xattrs: u32_at(record, 60),
            first_xattr: u32_at(record, 64),
            blocks: u32_at(record, 68),
            sha256: record.get(72..104).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default(),
        }
    }
}

/// One name of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameRecord {
    pub text: u32,
    pub length: u16,
    pub node: u32,
}

impl NameRecord {
    pub fn to_bytes(self) -> [u8; NAME] {
        let mut bytes = [0; NAME];
        for (place, value) in bytes.chunks_exact_mut(4).zip([self.text, self.node, u32::from(self.length)]) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    pub fn read(record: &[u8]) -> Self {
        Self { text: u32_at(record, 0), node: u32_at(record, 4), length: u16::try_from(u32_at(record, 8)).unwrap_or(u16::MAX) }
    }
}

/// Typed access to the bytes; anything out of range is `None`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub bytes: &'a [u8],
    pub header: &'a Header,
}

impl<'a> View<'a> {
    fn slice(&self, at: u64, length: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(at).ok()?;
        let end = usize::try_from(at.checked_add(length)?).ok()?;
        self.bytes.get(start..end)
    }

    fn element(&self, section: u64, size: usize, number: u64, count: u64) -> Option<&'a [u8]> {
        (number < count).then_some(())?;
        self.slice(section.checked_add(number.checked_mul(size as u64)?)?, size as u64)
    }

    pub fn node(&self, number: u32) -> Option<NodeRecord> {
        self.element(HEADER as u64, NODE, u64::from(number), u64::from(self.header.nodes)).map(NodeRecord::read)
    }

    pub fn name(&self, number: u64) -> Option<NameRecord> {
        self.element(self.header.names_at, NAME, number, u64::from(self.header.names)).map(NameRecord::read)
    }

    pub fn text(&self, name: &NameRecord) -> &'a [u8] {
        self.heap(u64::from(name.text), u64::from(name.length)).unwrap_or_default()
    }

    pub fn extent(&self, number: u64) -> Option<Extent> {
        let record = self.element(self.header.extents_at, EXTENT, number, self.header.extents)?;
        Some(Extent { file: u64_at(record, 0), stream: u64_at(record, 8), length: u64_at(record, 16) })
    }

    pub fn xattr(&self, number: u32) -> Option<(&'a [u8], &'a [u8])> {
        let record = self.element(self.header.xattrs_at, XATTR, u64::from(number), u64::from(self.header.xattrs))?;
        let part = |at: usize| self.heap(u64::from(u32_at(record, at)), u64::from(u32_at(record, at + 4)));
        Some((part(0)?, part(8)?))
    }

    pub fn warnings(&self) -> &'a str {
        let length = u64::from(self.header.warnings);
        let text = self.header.heap.checked_sub(length).and_then(|at| self.heap(at, length));
        text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }

    pub fn heap(&self, at: u64, length: u64) -> Option<&'a [u8]> {
        (at.checked_add(length)? <= self.header.heap).then_some(())?;
        self.slice(self.header.heap_at.checked_add(at)?, length)
    }
}

/// Validates everything that later access relies on.
pub(super) fn check(bytes: &[u8]) -> Result<Header, Error> {
    let broken = |what: &str| Error::new(ErrorKind::Integrity, format!("stored tree is not usable: {what}"));
    if bytes.get(..8) != Some(&MAGIC[..]) || bytes.len() < HEADER || u32_at(bytes, 8) != VERSION {
        return Err(broken("other format or version"));
    }
    let header =
        Header::place(u32_at(bytes, 24), u32_at(bytes, 28), u64_at(bytes, 32), u32_at(bytes, 40), u64_at(bytes, 48), u32_at(bytes, 56))
            .ok_or_else(|| broken("sizes overflow"))?;
    if header.heap_at.checked_add(header.heap) != Some(bytes.len() as u64) {
        return Err(broken("length differs from its header"));
    }
    if checksum(bytes) != u64_at(bytes, CHECKSUM_AT.start) {
        return Err(broken("checksum differs"));
    }
    let view = View { bytes, header: &header };
    if view.node(0).and_then(|root| root.kind) != Some(Kind::Directory) {
        return Err(broken("root is not a directory"));
    }
    for number in 0..header.nodes {
        node_is_sound(&view, number).ok_or_else(|| broken("a node points outside"))?;
    }
    Ok(header)
}

/// The checksum of all bytes except its own.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    let mut state = Xxh3::new();
    state.update(bytes.get(..CHECKSUM_AT.start).unwrap_or_default());
    state.update(bytes.get(CHECKSUM_AT.end..).unwrap_or_default());
    state.digest()
}

fn node_is_sound(view: &View<'_>, number: u32) -> Option<()> {
    let node = view.node(number)?;
    match node.kind? {
        Kind::Directory => {
            (node.extra < view.header.nodes).then_some(())?;
            let end = node.first.checked_add(u64::from(node.count))?;
            (end <= u64::from(view.header.names)).then_some(())?;
            let mut previous: &[u8] = b"";
            for position in node.first..end {
                let name = view.name(position)?;
                let text = view.heap(u64::from(name.text), u64::from(name.length))?;
                (name.node < view.header.nodes && text > previous).then_some(())?;
                previous = text;
            }
        }
        Kind::File if node.has(SINGLE) => {
            node.first.checked_add(node.size)?;
        }
        Kind::File => {
            let mut reached = 0;
            for position in 0..u64::from(node.count) {
                let extent = view.extent(node.first.checked_add(position)?)?;
                let end = extent.file.checked_add(extent.length)?;
                extent.stream.checked_add(extent.length)?;
                (extent.file >= reached && end <= node.size).then_some(())?;
                reached = end;
            }
        }
        Kind::Symlink => {
            view.heap(node.first, u64::from(node.count))?;
        }
        Kind::CharDevice | Kind::BlockDevice | Kind::Fifo | Kind::Socket => {}
    }
    for position in 0..node.xattrs {
        view.xattr(node.first_xattr.checked_add(position)?)?;
    }
    Some(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
