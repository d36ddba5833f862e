//! The walk over a tar: takes headers and content in arbitrary pieces, and adds entries to the index.
//!
//! Reads v7, ustar, star, GNU and PAX. Guarantees: a broken frame (checksum, size, truncation, header syntax) is an error with its stream offset; a bad
//! value costs that value or its entry, with a warning; only one header and its extended headers are held. Names are only cleaned, never interpreted:
//! whiteouts are ordinary here.

mod entry;
mod header;
mod members;
pub(super) mod path;
mod pax;
mod sparse;
mod sparse_content;
#[cfg(test)]
mod tests;

use self::entry::{ExtendedValues, Pending};
use self::header::{BLOCK, Header};
pub use self::members::{ARCHIVE_END, ArchiveMember, archive_directory, archive_header, archive_members, archive_padding};
use self::pax::Records;
pub(in crate::layer) use self::pax::{XATTR_NAME, XATTR_VALUE, XATTRS};
use self::sparse::{LeadingMap, Piece};
use super::build::Builder;
use super::sink::SpanSink;
use crate::error::Error;

/// The part of the archive the next byte belongs to.
enum ArchiveState {
    /// A header block.
    Header,
    /// A header block, after one block of zeros.
    AfterZeros,
    /// The payload of the extended header at this offset: its type, bytes left, padding.
    Extended { at: u64, type_flag: u8, left: u64, padding: u64 },
    /// A further block of an old GNU sparse file's map.
    OldSparse { pieces: Vec<Piece>, size: u64, stored: u64, pending: Box<Pending> },
    /// Blocks of the map before a sparse file's content.
    LeadingMap { map: LeadingMap, size: u64, stored: u64, pending: Box<Pending> },
    /// The block after a hard link with a size: its content, or the next header.
    LinkContent { stored: u64, pending: Box<Pending> },
    /// Content of an entry.
    Content { left: u64, padding: u64, pending: Box<Pending> },
    /// Zeros up to the next block.
    Padding(u64),
    /// After the end of the archive.
    End,
}

/// A walk in progress.
pub(super) struct Walker {
    state: ArchiveState,
    /// Stream offset of the next byte.
    position: u64,
    block: [u8; BLOCK],
    block_filled: usize,
    /// Payload of the extended header being read.
    text: Vec<u8>,
    names: ExtendedValues,
    global: Records,
    /// Zeros of holes that may still be hashed in this pass.
    hole_budget: u64,
}

/// Most zeros of holes hashed in one pass: a map of a few bytes can claim any number.
const HOLE_BUDGET: u64 = 256 << 20;

impl Walker {
    pub(super) fn new() -> Self {
        Self {
            state: ArchiveState::Header,
            position: 0,
            block: [0; BLOCK],
            block_filled: 0,
            text: Vec::new(),
            names: ExtendedValues::default(),
            global: Records::default(),
            hole_budget: HOLE_BUDGET,
        }
    }

    /// Takes the next bytes of the stream.
    pub(super) fn push(&mut self, mut bytes: &[u8], builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                ArchiveState::End => bytes.len(),
                ArchiveState::Padding(left) => {
                    let taken = limited(bytes, *left);
                    *left -= taken.len() as u64;
                    let taken = taken.len();
                    if matches!(self.state, ArchiveState::Padding(0)) {
                        self.state = ArchiveState::Header;
                    }
                    taken
                }
                ArchiveState::Content { left, pending, .. } => {
                    let taken = limited(bytes, *left);
                    *left -= taken.len() as u64;
                    pending.content(taken);
                    let (taken, done) = (taken.len(), *left == 0);
                    if done {
                        self.content_ends(builder)?;
                    }
                    taken
                }
                ArchiveState::Extended { left, .. } => {
                    let taken = limited(bytes, *left);
                    *left -= taken.len() as u64;
                    self.text.extend_from_slice(taken);
                    let (taken, done) = (taken.len(), *left == 0);
                    if done {
                        self.extended_ends()?;
                    }
                    taken
                }
                _ => self.collect(bytes, builder, sink)?,
            };
            self.position += taken as u64;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Collects a block and acts on it when complete. Returns the bytes consumed.
    fn collect(&mut self, bytes: &[u8], builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<usize, Error> {
        if self.block_filled == 0
            && let Some(block) = bytes.first_chunk::<BLOCK>()
        {
            self.block_complete(block, builder, sink)?;
            return Ok(BLOCK);
        }
        let taken = bytes.len().min(BLOCK - self.block_filled);
        if let (Some(target), Some(source)) = (self.block.get_mut(self.block_filled..self.block_filled + taken), bytes.get(..taken)) {
            target.copy_from_slice(source);
        }
        self.block_filled += taken;
        if self.block_filled == BLOCK {
            let block = self.block;
            // The block started with bytes of earlier pieces.
            let before = self.position;
            self.position -= (BLOCK - taken) as u64;
            self.block_complete(&block, builder, sink)?;
            self.position = before;
            self.block_filled = 0;
        }
        Ok(taken)
    }

    /// Acts on a block that starts at `self.position`.
    fn block_complete(&mut self, block: &[u8; BLOCK], builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, ArchiveState::Header) {
            ArchiveState::AfterZeros if is_zero(block) => {
                if self.names.any() {
                    let position = self.position;
                    builder.warn(|| format!("the archive ends at byte {position} after an extended header"));
                }
                self.state = ArchiveState::End;
                Ok(())
            }
            ArchiveState::AfterZeros => Err(self.broken("a single block of zeros inside the archive")),
            ArchiveState::OldSparse { pieces, size, stored, pending } => self.old_sparse(block, pieces, size, stored, pending, builder),
            ArchiveState::LeadingMap { map, size, stored, pending } => self.leading_map(block, map, size, stored, pending, builder),
            ArchiveState::LinkContent { stored, pending } => self.link_content(block, stored, pending, builder, sink),
            _ => self.header(block, builder, sink),
        }
    }

    fn header(&mut self, block: &[u8; BLOCK], builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        if is_zero(block) {
            self.state = ArchiveState::AfterZeros;
            return Ok(());
        }
        let Some(header) = Header::parse(block) else { return Err(self.broken("no tar header, or one whose checksum does not match")) };
        let size = header.size(self.position)?;
        let type_flag = header.type_flag();
        match type_flag {
            b'x' | b'X' | b'g' | b'L' | b'K' => {
                if size > u64::from(builder.limits().header_bytes) {
                    return Err(self.broken("an extended header is too long"));
                }
                self.text.clear();
                self.state = ArchiveState::Extended { at: self.position, type_flag, left: size, padding: padding(size) };
                if size == 0 { self.extended_ends() } else { Ok(()) }
            }
            // Volume labels, continued files, old name lists, Solaris access lists: not entries.
            b'V' | b'M' | b'N' | b'A' => {
                let position = self.position;
                builder.warn(|| format!("skipped a header of type `{}` at byte {position} of the stream", type_flag.escape_ascii()));
                self.names = ExtendedValues::default();
                self.begin_content(Box::new(Pending::passed_over()), size, builder)
            }
            _ => self.entry(&header, size, builder, sink),
        }
    }

    /// An entry's own header.
    fn entry(&mut self, header: &Header<'_>, size: u64, builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        let mut names = std::mem::take(&mut self.names);
        let records = std::mem::take(&mut names.records).apply_over(&self.global);
        let stored = records.size.unwrap_or(size);
        let mut pending = Box::new(Pending::new(header, &names, records, self.position, builder));
        if header.type_flag() == b'S' {
            let Some((pieces, more, real)) = header.old_sparse() else { return Err(self.broken("the map of a sparse file is malformed")) };
            if more {
                self.state = ArchiveState::OldSparse { pieces, size: real, stored, pending };
                return Ok(());
            }
            return self.begin_sparse(pending, &pieces, real, stored, self.position + BLOCK as u64, builder);
        }
        if pending.is_hard_link() && stored > 0 {
            self.state = ArchiveState::LinkContent { stored, pending };
            return Ok(());
        }
        if !pending.has_content() {
            // Of all other types, only the directories of GNU's incremental dumps are followed by bytes.
            return self.begin_content(pending, if header.type_flag() == b'D' { stored } else { 0 }, builder);
        }
        let sparse = std::mem::take(&mut pending.sparse);
        let map = sparse.map().map_err(|()| self.broken("the map of a sparse file is malformed"))?;
        if sparse.has_leading_map() || map.is_some() {
            let Some(real) = sparse.size else { return Err(self.broken("a sparse file has no size")) };
            let Some(pieces) = map.filter(|_| !sparse.has_leading_map()) else {
                self.state = ArchiveState::LeadingMap { map: LeadingMap::default(), size: real, stored, pending };
                return if stored < BLOCK as u64 { Err(self.broken("the map of a sparse file is truncated")) } else { Ok(()) };
            };
            return self.begin_sparse(pending, &pieces, real, stored, self.position + BLOCK as u64, builder);
        }
        self.check_end(stored)?;
        if let Some(member) = pending.whole(self.position + BLOCK as u64, stored) {
            sink.member(member)?;
        }
        self.begin_content(pending, stored, builder)
    }

    /// Old archives give hard links the size of their target but no content; PAX archives may store it. A block that is a header (or the end of the archive)
    /// is not content.
    fn link_content(
        &mut self,
        block: &[u8; BLOCK],
        stored: u64,
        mut pending: Box<Pending>,
        builder: &mut Builder,
        sink: &mut dyn SpanSink,
    ) -> Result<(), Error> {
        if is_zero(block) || Header::parse(block).is_some() {
            pending.finish(&mut self.hole_budget, builder)?;
            return self.header(block, builder, sink);
        }
        self.check_end(stored)?;
        pending.whole(self.position, stored);
        let first = limited(block, stored);
        pending.content(first);
        self.state = ArchiveState::Content { left: stored - first.len() as u64, padding: padding(stored), pending };
        if stored <= BLOCK as u64 {
            // The block included the padding.
            self.content_ends(builder)?;
            self.state = ArchiveState::Header;
        }
        Ok(())
    }

    fn begin_content(&mut self, pending: Box<Pending>, stored: u64, builder: &mut Builder) -> Result<(), Error> {
        self.check_end(stored)?;
        self.state = ArchiveState::Content { left: stored, padding: padding(stored), pending };
        if stored == 0 { self.content_ends(builder) } else { Ok(()) }
    }

    fn content_ends(&mut self, builder: &mut Builder) -> Result<(), Error> {
        if let ArchiveState::Content { padding, mut pending, .. } = std::mem::replace(&mut self.state, ArchiveState::Header) {
            pending.finish(&mut self.hole_budget, builder)?;
            if padding > 0 {
                self.state = ArchiveState::Padding(padding);
            }
        }
        Ok(())
    }

    fn extended_ends(&mut self) -> Result<(), Error> {
        let ArchiveState::Extended { at, type_flag, padding, .. } = std::mem::replace(&mut self.state, ArchiveState::Header) else {
            return Ok(());
        };
        let text = std::mem::take(&mut self.text);
        let result = match type_flag {
            b'L' => {
                self.names.path = Some(until_nul(text));
                Ok(())
            }
            b'K' => {
                self.names.link = Some(until_nul(text));
                Ok(())
            }
            b'g' => self.global.add_global(&text),
            _ => {
                self.names.records = Records::default();
                self.names.any_records = true;
                self.names.records.add(&text)
            }
        };
        result.map_err(|pax::Malformed(what)| Error::integrity(format!("tar: {what}, at byte {at} of the stream")))?;
        if padding > 0 {
            self.state = ArchiveState::Padding(padding);
        }
        Ok(())
    }

    /// Ends the walk at the end of the stream.
    pub(super) fn finish(&mut self, builder: &mut Builder) -> Result<(), Error> {
        let partial = self.block.get(..self.block_filled).unwrap_or_default();
        match std::mem::replace(&mut self.state, ArchiveState::End) {
            ArchiveState::End => return Ok(()),
            ArchiveState::AfterZeros if partial.iter().all(|byte| *byte == 0) => return Ok(()),
            ArchiveState::Header | ArchiveState::Padding(_) if partial.is_empty() && !self.names.any() => {}
            ArchiveState::LinkContent { mut pending, .. } if partial.is_empty() => pending.finish(&mut self.hole_budget, builder)?,
            _ => return Err(Error::integrity(format!("tar: the archive is truncated at byte {} of the stream", self.position))),
        }
        // Some writers omit the end marker; nothing is lost.
        Ok(())
    }

    /// Rejects sizes that exceed any stream.
    fn check_end(&self, stored: u64) -> Result<(), Error> {
        match self.position.checked_add(stored).and_then(|end| end.checked_add(4 * BLOCK as u64)) {
            Some(end) if end <= i64::MAX as u64 => Ok(()),
            _ => Err(self.broken("an impossible size")),
        }
    }

    fn broken(&self, what: &str) -> Error {
        Error::integrity(format!("tar: {what}, at byte {} of the stream", self.position))
    }
}

/// Name and size of the entry that a header block describes; `None` if it is no header.
pub(super) fn described(block: &[u8; BLOCK]) -> Option<(Vec<u8>, u64)> {
    let header = Header::parse(block)?;
    Some((header.name(), header.size(0).ok()?))
}

fn limited(bytes: &[u8], most: u64) -> &[u8] {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(..length).unwrap_or_default()
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    let length = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text.truncate(length);
    text
}
