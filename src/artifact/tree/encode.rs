//! Writes the bytes of a tree from placed nodes and the indexes they came from.
//!
//! Attributes, extents and xattrs are read from the indexes only here, node by node, so that building holds no copy of them. The result depends only
//! on the input.

use std::io;

use super::format::{self, CHECKSUM_AT, HAS_SHA256, Header, NameRecord, NodeRecord, SINGLE};
use super::{Kind, NodeId};
use crate::artifact::merge::{Entries, MergeSource, RawFile};
use crate::error::{Error, ErrorKind};
use crate::layer::{Entry, Extent, FileKind, Metadata};
use crate::sys::array::{Array, Scratch};

/// A node with its final number, before its attributes are looked up.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::artifact) struct Placed {
    /// Number of the describing source.
    pub source: u32,
    /// Entry in that source.
    pub entry: u32,
    /// Whether it is a directory.
    pub directory: bool,
    /// A directory that no entry describes: only owner and time are taken from the entry, which is below it.
    pub implied: bool,
    /// Hard links of a file, subdirectories + 2 of a directory.
    pub links: u32,
    /// The parent directory, for a directory.
    pub parent: NodeId,
    /// First name of a directory.
    pub first: u32,
    /// Number of names of a directory.
    pub count: u32,
}

impl Placed {
    fn to_words(self) -> [u32; 7] {
        let flags = u32::from(self.directory) | u32::from(self.implied) << 1;
        [self.source, self.entry, flags, self.links, self.parent, self.first, self.count]
    }

    fn from_words([source, entry, flags, links, parent, first, count]: [u32; 7]) -> Self {
        Self { source, entry, directory: flags & 1 != 0, implied: flags & 2 != 0, links, parent, first, count }
    }
}

/// Nodes in final order, and names with their text.
#[derive(Debug)]
pub(in crate::artifact) struct Draft {
    scratch: Scratch,
    /// Node 0 is the root.
    nodes: Array<[u32; 7]>,
    names: Array<u8>,
    name_count: u32,
    heap: Array<u8>,
}

impl Draft {
    /// No nodes yet.
    pub fn new(scratch: &Scratch) -> Self {
        let (nodes, names, heap) = (Array::new(scratch), Array::new(scratch), Array::new(scratch));
        Self { scratch: scratch.clone(), nodes, names, name_count: 0, heap }
    }

    /// Adds the next node.
    pub fn node(&mut self, placed: &Placed) -> Result<(), Error> {
        self.nodes.push(placed.to_words()).map_err(no_room)
    }

    /// Changes a node, if the number exists.
    pub fn change(&mut self, number: u32, change: impl FnOnce(&mut Placed)) {
        if let Some(words) = self.nodes.get_mut(number as usize) {
            let mut placed = Placed::from_words(*words);
            change(&mut placed);
            *words = placed.to_words();
        }
    }

    /// Adds the next name of the directory being listed.
    pub fn name(&mut self, text: &[u8], node: NodeId) -> Result<(), Error> {
        let record = NameRecord {
            text: u32::try_from(self.heap.len()).map_err(|_| too_large())?,
            length: u16::try_from(text.len()).map_err(|_| too_large())?,
            node,
        };
        self.names.extend_from_slice(&record.to_bytes()).map_err(no_room)?;
        self.heap.extend_from_slice(text).map_err(no_room)?;
        self.name_count = self.name_count.checked_add(1).ok_or_else(too_large)?;
        Ok(())
    }

    /// Number of names so far.
    pub fn name_count(&self) -> u32 {
        self.name_count
    }
}

/// Sections that grow while nodes are written.
pub(in crate::artifact) struct Encoder {
    extents: Array<u8>,
    extent_count: u64,
    xattrs: Array<u8>,
    xattr_count: u32,
    heap: Array<u8>,
}

impl Encoder {
    /// The bytes of the tree.
    pub fn encode(draft: Draft, sources: &[MergeSource<'_>], warnings: &[String]) -> Result<Array<u8>, Error> {
        let Draft { scratch, nodes, names, name_count, heap } = draft;
        let (extents, xattrs) = (Array::new(&scratch), Array::new(&scratch));
        let mut encoder = Self { extents, extent_count: 0, xattrs, xattr_count: 0, heap };
        let node_count = u32::try_from(nodes.len()).map_err(|_| too_large())?;
        let mut out = Array::new(&scratch);
        out.grow(format::HEADER, 0).map_err(no_room)?;
        for placed in nodes.iter().map(|words| Placed::from_words(*words)) {
            let source = sources.get(placed.source as usize).unwrap_or(&MergeSource::Bare);
            let mut record = encoder.node(&placed, source)?;
            if let (MergeSource::Bare, Some(time)) = (source, time_below(&placed, (&nodes, &names), sources)) {
                record.metadata.mtime = Some(time);
            }
            out.extend_from_slice(&record.to_bytes()).map_err(no_room)?;
        }
        drop(nodes);
        let warnings: Vec<String> = warnings.iter().map(|warning| warning.replace('\n', " ")).collect();
        let (_, warnings) = encoder.text(warnings.join("\n").as_bytes())?;
        let header = Header::place(node_count, name_count, encoder.extent_count, encoder.xattr_count, encoder.heap.len() as u64, warnings)
            .ok_or_else(too_large)?;
        for section in [names, encoder.extents, encoder.xattrs, encoder.heap] {
            out.extend_from_slice(&section).map_err(no_room)?;
        }
        if let Some(place) = out.get_mut(..format::HEADER) {
            place.copy_from_slice(&header.to_bytes());
        }
        let checksum = format::checksum(&out).to_le_bytes();
        if let Some(place) = out.get_mut(CHECKSUM_AT) {
            place.copy_from_slice(&checksum);
        }
        Ok(out)
    }

    fn node(&mut self, placed: &Placed, source: &MergeSource<'_>) -> Result<NodeRecord, Error> {
        let mut record = NodeRecord { links: placed.links, ..NodeRecord::default() };
        if placed.directory {
            record.kind = Some(Kind::Directory);
            record.extra = placed.parent;
            record.first = u64::from(placed.first);
            record.count = placed.count;
        }
        match source {
            MergeSource::Bare => {}
            // Only owner and time, as for every implied directory.
            MergeSource::Raw(raw) if placed.directory => record.metadata = Metadata { mode: None, ..raw.metadata },
            MergeSource::Raw(raw) => self.raw(raw, placed.source, &mut record)?,
            MergeSource::Layer { entries, image } => {
                let entry = entries.entry(placed.entry).ok_or_else(too_large)?;
                self.entry(*entries, &entry, placed, &mut record)?;
                if placed.implied && *image {
                    record.metadata.owner = Some((0, 0));
                }
            }
        }
        Ok(record)
    }

    fn entry(&mut self, layer: &dyn Entries, entry: &Entry<'_>, placed: &Placed, record: &mut NodeRecord) -> Result<(), Error> {
        record.metadata = entry.metadata;
        record.metadata.mode = if placed.implied { Some(0o755) } else { entry.metadata.mode.map(|mode| mode & 0o7777) };
        if !placed.implied {
            self.xattrs(layer.xattrs(entry.number).into_iter().filter(|(name, _)| !is_ours(name)), record)?;
        }
        if placed.directory {
            return Ok(());
        }
        record.kind = Some(match entry.kind {
            FileKind::Symlink => Kind::Symlink,
            FileKind::CharDevice => Kind::CharDevice,
            FileKind::BlockDevice => Kind::BlockDevice,
            FileKind::Fifo => Kind::Fifo,
            FileKind::Socket => Kind::Socket,
            FileKind::File | FileKind::Directory | FileKind::HardLink => Kind::File,
        });
        match record.kind {
            Some(Kind::Symlink) => {
                (record.first, record.count) = self.text(entry.link)?;
                record.size = entry.link.len() as u64;
            }
            Some(Kind::File) => {
                record.extra = placed.source;
                record.size = entry.size;
                if let Some(sha256) = entry.sha256 {
                    record.flags |= HAS_SHA256;
                    record.sha256 = sha256;
                }
                self.extents(&layer.extents(entry.number), record)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn raw(&mut self, raw: &RawFile, blob: u32, record: &mut NodeRecord) -> Result<(), Error> {
        record.kind = Some(Kind::File);
        record.extra = blob;
        record.size = raw.size;
        record.metadata = Metadata { mode: raw.metadata.mode.map(|mode| mode & 0o7777), ..raw.metadata };
        if let Some(sha256) = raw.sha256 {
            record.flags |= HAS_SHA256;
            record.sha256 = sha256;
        }
        let whole = Extent { file: 0, stream: 0, length: raw.size };
        // Also for empty content: opening it verifies that its digest is that of no bytes.
        self.extents(std::slice::from_ref(&whole), record)?;
        let title = raw.title.as_ref().map(|title| (&b"user.oci.title"[..], title.as_bytes()));
        let others = raw.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).filter(|(name, _)| !is_ours(name));
        self.xattrs(title.into_iter().chain(others), record)
    }

    fn extents(&mut self, extents: &[Extent], record: &mut NodeRecord) -> Result<(), Error> {
        if let [only] = extents
            && only.file == 0
            && only.length == record.size
        {
            record.flags |= SINGLE;
            record.first = only.stream;
            record.count = 1;
            return Ok(());
        }
        record.first = self.extent_count;
        record.count = u32::try_from(extents.len()).map_err(|_| too_large())?;
        let stored: u64 = extents.iter().map(|extent| extent.length).sum();
        record.blocks = u32::try_from(stored.div_ceil(format::BLOCK)).unwrap_or(u32::MAX);
        for extent in extents {
            for value in [extent.file, extent.stream, extent.length] {
                self.extents.extend_from_slice(&value.to_le_bytes()).map_err(no_room)?;
            }
        }
        self.extent_count += u64::from(record.count);
        Ok(())
    }

    fn xattrs<'a>(&mut self, xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>, record: &mut NodeRecord) -> Result<(), Error> {
        record.first_xattr = self.xattr_count;
        for (name, value) in xattrs {
            for part in [name, value] {
                let (at, length) = self.text(part)?;
                let at = u32::try_from(at).map_err(|_| too_large())?;
                self.xattrs.extend_from_slice(&at.to_le_bytes()).map_err(no_room)?;
                self.xattrs.extend_from_slice(&length.to_le_bytes()).map_err(no_room)?;
            }
            record.xattrs += 1;
            self.xattr_count = self.xattr_count.checked_add(1).ok_or_else(too_large)?;
        }
        Ok(())
    }

    fn text(&mut self, text: &[u8]) -> Result<(u64, u32), Error> {
        let place = (self.heap.len() as u64, u32::try_from(text.len()).map_err(|_| too_large())?);
        self.heap.extend_from_slice(text).map_err(no_room)?;
        Ok(place)
    }
}

/// The time of the first entry in a directory that no entry describes.
fn time_below(placed: &Placed, (nodes, names): (&[[u32; 7]], &[u8]), sources: &[MergeSource<'_>]) -> Option<(i64, u32)> {
    let mut placed = *placed;
    loop {
        match sources.get(placed.source as usize) {
            Some(MergeSource::Layer { entries, .. }) => {
                return entries.entry(placed.entry).and_then(|entry| entry.metadata.mtime);
            }
            Some(MergeSource::Raw(raw)) => return raw.metadata.mtime,
            Some(MergeSource::Bare) | None if placed.count == 0 => return None,
            Some(MergeSource::Bare) | None => {
                let first = names.get(placed.first as usize * format::NAME..)?.get(..format::NAME)?;
                placed = Placed::from_words(*nodes.get(NameRecord::read(first).node as usize)?);
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
