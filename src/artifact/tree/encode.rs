//! Writes the bytes of a tree from placed nodes and the indexes they came from.
//!
//! Attributes, extents and xattrs are read from the indexes only here, node by node, so that building holds no copy of them. The result depends only
//! on the input.

use std::io;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::format::{self, Header, NameRecord, NodeRecord, SINGLE, XattrRecord};
use super::{Kind, NodeId};
use crate::artifact::merge::{Entries, MergeSource, RawFile};
use crate::error::{Error, ErrorKind};
use crate::layer::records::ExtentRecord;
use crate::layer::{Entry, Extent, FileKind, Metadata};
use crate::sys::array::{Array, Scratch};

/// How a node is described by its entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(transparent)]
pub(in crate::artifact) struct Form(u32);

impl Form {
    /// A file of any kind, with the entry's kind and attributes.
    pub const FILE: Self = Self(0);
    /// A directory with the entry's attributes.
    pub const DIRECTORY: Self = Self(1);
    /// A directory that no entry describes: only owner and time are taken from the entry, which is below it.
    pub const IMPLIED: Self = Self(2);

    /// Whether it is a directory.
    pub fn is_directory(self) -> bool {
        self != Self::FILE
    }
}

/// A node with its final number, before its attributes are looked up.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(in crate::artifact) struct Placed {
    /// Number of the describing source.
    pub source: u32,
    /// Entry in that source.
    pub entry: u32,
    /// How the entry describes it.
    pub form: Form,
    /// Hard links of a file, subdirectories + 2 of a directory.
    pub links: u32,
    /// The parent directory, for a directory.
    pub parent: NodeId,
    /// First name of a directory.
    pub first: u32,
    /// Number of names of a directory.
    pub count: u32,
}

/// Nodes in final order, and names with their text.
#[derive(Debug)]
pub(in crate::artifact) struct Draft {
    scratch: Scratch,
    /// Node 0 is the root.
    nodes: Array<Placed>,
    names: Array<NameRecord>,
    heap: Array<u8>,
}

impl Draft {
    /// No nodes yet.
    pub fn new(scratch: &Scratch) -> Self {
        let (nodes, names, heap) = (Array::new(scratch), Array::new(scratch), Array::new(scratch));
        Self { scratch: scratch.clone(), nodes, names, heap }
    }

    /// Adds the next node.
    pub fn node(&mut self, placed: &Placed) -> Result<(), Error> {
        self.nodes.push(*placed).map_err(no_room)
    }

    /// Changes a node, if the number exists.
    pub fn change(&mut self, number: u32, change: impl FnOnce(&mut Placed)) {
        if let Some(placed) = self.nodes.get_mut(number as usize) {
            change(placed);
        }
    }

    /// Adds the next name of the directory being listed.
    pub fn name(&mut self, text: &[u8], node: NodeId) -> Result<(), Error> {
        let (at, length) = append(&mut self.heap, text)?;
        self.names.push(NameRecord { text: narrow(at)?, node: node.into(), length }).map_err(no_room)
    }

    /// Number of names so far.
    pub fn name_count(&self) -> u32 {
        self.names.len() as u32
    }
}

/// Sections that grow while nodes are written.
pub(in crate::artifact) struct Encoder {
    extents: Array<ExtentRecord>,
    xattrs: Array<XattrRecord>,
    heap: Array<u8>,
}

impl Encoder {
    /// The bytes of the tree.
    pub fn encode(draft: Draft, sources: &[MergeSource<'_>], warnings: &[String]) -> Result<Array<u8>, Error> {
        let Draft { scratch, nodes, names, heap } = draft;
        let mut encoder = Self { extents: Array::new(&scratch), xattrs: Array::new(&scratch), heap };
        let mut header = Header::new();
        (header.nodes, header.names) = (narrow(nodes.len() as u64)?, narrow(names.len() as u64)?);
        let mut out = Array::new(&scratch);
        out.extend_from_slice(header.as_bytes()).map_err(no_room)?;
        for placed in nodes.iter() {
            let source = sources.get(placed.source as usize).unwrap_or(&MergeSource::Bare);
            let (mut record, mut metadata) = encoder.node(placed, source)?;
            if let MergeSource::Bare = source {
                metadata.mtime = time_below(placed, (&nodes, &names), sources);
            }
            record.set_metadata(&metadata);
            out.extend_from_slice(record.as_bytes()).map_err(no_room)?;
        }
        drop(nodes);
        let warnings: Vec<String> = warnings.iter().map(|warning| warning.replace('\n', " ")).collect();
        (_, header.warnings) = append(&mut encoder.heap, warnings.join("\n").as_bytes())?;
        header.extents = (encoder.extents.len() as u64).into();
        header.xattrs = narrow(encoder.xattrs.len() as u64)?;
        header.heap = (encoder.heap.len() as u64).into();
        for section in [names.as_ref(), encoder.extents.as_ref(), encoder.xattrs.as_ref(), encoder.heap.as_ref()] {
            out.extend_from_slice(section).map_err(no_room)?;
        }
        write_header(&mut out, header);
        header.checksum = format::checksum(&out).into();
        write_header(&mut out, header);
        Ok(out)
    }

    /// A node without its attributes, and these.
    fn node(&mut self, placed: &Placed, source: &MergeSource<'_>) -> Result<(NodeRecord, Metadata), Error> {
        let mut record = NodeRecord::new(Kind::Directory);
        let mut metadata = Metadata::default();
        match source {
            MergeSource::Bare => {}
            // Only owner and time, as for every implied directory.
            MergeSource::Raw(raw) if placed.form.is_directory() => metadata = Metadata { mode: None, ..raw.metadata },
            MergeSource::Raw(raw) => {
                record = self.raw(raw, placed.source)?;
                metadata = raw.metadata;
            }
            MergeSource::Layer { entries, image } => {
                let entry = entries.entry(placed.entry).ok_or_else(too_large)?;
                metadata = entry.metadata;
                if placed.form == Form::IMPLIED {
                    metadata.mode = Some(0o755);
                    metadata.owner = if *image { Some((0, 0)) } else { metadata.owner };
                } else {
                    if placed.form == Form::FILE {
                        record = NodeRecord::new(kind_of(entry.kind));
                    }
                    self.xattrs(entries.xattrs(entry.number).into_iter().filter(|(name, _)| !is_ours(name)), &mut record)?;
                    self.content(*entries, &entry, placed.source, &mut record)?;
                }
            }
        }
        metadata.mode = metadata.mode.map(|mode| mode & 0o7777);
        record.links = placed.links.into();
        if placed.form.is_directory() {
            (record.extra, record.first, record.count) = (placed.parent.into(), u64::from(placed.first).into(), placed.count.into());
        }
        Ok((record, metadata))
    }

    fn content(&mut self, layer: &dyn Entries, entry: &Entry<'_>, blob: u32, record: &mut NodeRecord) -> Result<(), Error> {
        match record.kind() {
            Some(Kind::Symlink) => {
                let (at, length) = append(&mut self.heap, entry.link)?;
                (record.first, record.count, record.size) = (at.into(), length, u64::from(length).into());
            }
            Some(Kind::File) => {
                (record.extra, record.size) = (blob.into(), entry.size.into());
                record.set_sha256(entry.sha256);
                self.extents(&layer.extents(entry.number), record)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn raw(&mut self, raw: &RawFile, blob: u32) -> Result<NodeRecord, Error> {
        let mut record = NodeRecord::new(Kind::File);
        (record.extra, record.size) = (blob.into(), raw.size.into());
        record.set_sha256(raw.sha256);
        let whole = Extent { file: 0, stream: 0, length: raw.size };
        // Also for empty content: opening it verifies that its digest is that of no bytes.
        self.extents(std::slice::from_ref(&whole), &mut record)?;
        let title = raw.title.as_ref().map(|title| (&b"user.oci.title"[..], title.as_bytes()));
        let others = raw.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).filter(|(name, _)| !is_ours(name));
        self.xattrs(title.into_iter().chain(others), &mut record)?;
        Ok(record)
    }

    fn extents(&mut self, extents: &[Extent], record: &mut NodeRecord) -> Result<(), Error> {
        if let [only] = extents
            && only.file == 0
            && record.size == only.length
        {
            record.flags |= SINGLE;
            (record.first, record.count) = (only.stream.into(), 1.into());
            return Ok(());
        }
        record.first = (self.extents.len() as u64).into();
        record.count = narrow(extents.len() as u64)?;
        let stored: u64 = extents.iter().map(|extent| extent.length).sum();
        record.blocks = u32::try_from(stored.div_ceil(format::BLOCK)).unwrap_or(u32::MAX).into();
        extents.iter().try_for_each(|extent| self.extents.push((*extent).into()).map_err(no_room))
    }

    fn xattrs<'a>(&mut self, xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>, record: &mut NodeRecord) -> Result<(), Error> {
        let first = self.xattrs.len() as u64;
        for (name, value) in xattrs {
            let (name, value) = (append(&mut self.heap, name)?, append(&mut self.heap, value)?);
            let xattr = XattrRecord { name: [narrow(name.0)?, name.1], value: [narrow(value.0)?, value.1] };
            self.xattrs.push(xattr).map_err(no_room)?;
        }
        (record.first_xattr, record.xattrs) = (narrow(first)?, narrow(self.xattrs.len() as u64 - first)?);
        Ok(())
    }
}

fn kind_of(kind: FileKind) -> Kind {
    match kind {
        FileKind::Symlink => Kind::Symlink,
        FileKind::CharDevice => Kind::CharDevice,
        FileKind::BlockDevice => Kind::BlockDevice,
        FileKind::Fifo => Kind::Fifo,
        FileKind::Socket => Kind::Socket,
        FileKind::File | FileKind::Directory | FileKind::HardLink => Kind::File,
    }
}

/// Adds to the heap: offset and length.
fn append(heap: &mut Array<u8>, text: &[u8]) -> Result<(u64, U32), Error> {
    let place = (heap.len() as u64, narrow(text.len() as u64)?);
    heap.extend_from_slice(text).map_err(no_room)?;
    Ok(place)
}

fn narrow(number: u64) -> Result<U32, Error> {
    u32::try_from(number).map(U32::new).map_err(|_| too_large())
}

fn write_header(bytes: &mut [u8], header: Header) {
    if let Ok((place, _)) = Header::mut_from_prefix(bytes) {
        *place = header;
    }
}

/// The time of the first entry in a directory that no entry describes.
fn time_below(placed: &Placed, (nodes, names): (&[Placed], &[NameRecord]), sources: &[MergeSource<'_>]) -> Option<(i64, u32)> {
    let mut placed = *placed;
    loop {
        match sources.get(placed.source as usize) {
            Some(MergeSource::Layer { entries, .. }) => {
                return entries.entry(placed.entry).and_then(|entry| entry.metadata.mtime);
            }
            Some(MergeSource::Raw(raw)) => return raw.metadata.mtime,
            Some(MergeSource::Bare) | None if placed.count == 0 => return None,
            Some(MergeSource::Bare) | None => {
                placed = *nodes.get(names.get(placed.first as usize)?.node.get() as usize)?;
            }
        }
    }
}

/// Names of attributes provided by the mount itself; an archive cannot set them.
fn is_ours(name: &[u8]) -> bool {
    name.starts_with(b"user.oci.") || name.starts_with(b"user.ocifs.")
}

/// The error if there is no room to build a tree.
pub(in crate::artifact) fn no_room(error: io::Error) -> Error {
    Error::io("cannot build the tree of the artifact", error)
}

fn too_large() -> Error {
    Error::new(ErrorKind::Unsupported, "artifact has too many or too long names for one tree")
}
