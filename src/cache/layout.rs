//! Maps spans to files and offsets. Pure arithmetic.
//!
//! A plain stream has a main file, in which each byte is at its stream offset (with holes for members), and one file per member of 1 MiB or more,
//! which starts at offset 0. A sealed stream has only the main file: its spans follow each other, each as chunks with tags.

use std::ops::Range;
use std::sync::Arc;

use sha2::Digest as _;

use crate::error::{Error, ErrorKind};
use crate::seal::{CHUNK, CHUNK_TAG};

/// Members of at least this many bytes have their own file.
pub const MEMBER_FILE: u64 = 1 << 20;
/// Longest span in bytes: one is held in memory while it is checked.
pub const LONGEST_SPAN: u64 = 64 << 20;

/// One file of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// The main file.
    Main,
    /// The file of the member with this number.
    Member(usize),
}

/// A contiguous run of bytes in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub file: Which,
    /// Offsets in the file.
    pub at: Range<u64>,
}

/// The spans and large members of a logical stream, and where its bytes are stored. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Start of every span, ascending from 0; the last one ends at `length`.
    starts: Arc<[u64]>,
    length: u64,
    /// Members of 1 MiB or more, ascending; each has its own file, except in a sealed stream.
    members: Arc<[Range<u64>]>,
    /// For a sealed stream: where each span starts in the main file, and the end of the last one.
    sealed: Option<Arc<[u64]>>,
}

impl Layout {
    /// The layout of a stream of `length` bytes with spans at `starts`. The cache validates it before use.
    pub fn new(starts: impl Into<Arc<[u64]>>, length: u64, members: impl Into<Arc<[Range<u64>]>>) -> Self {
        Self { starts: starts.into(), length, members: members.into(), sealed: None }
    }

    /// The layout as stored. Members below 1 MiB, and all members of a sealed stream, stay in the main file.
    pub(super) fn stored_as(&self, is_sealed: bool) -> Result<Self, Error> {
        self.check()?;
        let own_file = |member: &&Range<u64>| !is_sealed && member.end - member.start >= MEMBER_FILE;
        let members = self.members.iter().filter(own_file).cloned().collect();
        let sealed = is_sealed.then(|| {
            let ends = (0..self.count()).scan(0, |at, span| {
                let Range { start, end } = self.span(span);
                *at += sealed_length(end - start);
                Some(*at)
            });
            std::iter::once(0).chain(ends).collect()
        });
        Ok(Self { members, sealed, ..self.clone() })
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |what: &str| Error::new(ErrorKind::Invalid, format!("invalid stream layout: {what}"));
        let starts = &self.starts;
        if u32::try_from(starts.len()).is_err() {
            return Err(invalid("too many spans"));
        }
        if self.length > i64::MAX as u64 / 2 {
            return Err(invalid("it is too long"));
        }
        let ends = starts.iter().skip(1).chain(std::iter::once(&self.length));
        if starts.first().is_some_and(|first| *first != 0) || (starts.is_empty() && self.length != 0) {
            return Err(invalid("its spans do not begin at 0"));
        }
        if starts.iter().zip(ends).any(|(start, end)| end < start || end - start > LONGEST_SPAN) {
            return Err(invalid("a span ends before it begins or is too long"));
        }
        let mut end = 0;
        for member in self.members.iter() {
            if member.start < end || member.end < member.start || member.end > self.length {
                return Err(invalid("its members overlap or leave it"));
            }
            end = member.end;
        }
        Ok(())
    }

    /// Number of spans.
    pub fn count(&self) -> u32 {
        u32::try_from(self.starts.len()).unwrap_or(u32::MAX)
    }

    /// Length of the stream in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The stream range of a span; empty beyond the last.
    pub fn span(&self, number: u32) -> Range<u64> {
        let at = |number: usize| self.starts.get(number).copied().unwrap_or(self.length);
        at(number as usize)..at(number as usize + 1)
    }

    /// The spans that overlap a stream range.
    pub fn spans_of(&self, range: &Range<u64>) -> Range<u32> {
        if range.is_empty() || range.start >= self.length {
            return 0..0;
        }
        let first = self.starts.partition_point(|start| *start <= range.start).saturating_sub(1);
        let end = self.starts.partition_point(|start| *start < range.end);
        let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        number(first)..number(end.max(first))
    }

    /// Where a sequential reader at `offset` stops at the latest: the end of its large member, else of the stream.
    pub fn end_of_member(&self, offset: u64) -> u64 {
        let place = self.members.partition_point(|member| member.end <= offset);
        match self.members.get(place) {
            Some(member) if member.start <= offset => member.end,
            _ => self.length,
        }
    }

    /// Start of every span.
    pub(super) fn starts(&self) -> &[u64] {
        &self.starts
    }

    /// The large members.
    pub(super) fn members(&self) -> &[Range<u64>] {
        &self.members
    }

    /// Whether the stream is stored sealed.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The stored range of a span, in offsets for [`Layout::pieces`].
    pub(super) fn stored(&self, span: u32) -> Option<Range<u64>> {
        if span >= self.count() {
            return None;
        }
        match &self.sealed {
            None => Some(self.span(span)),
            Some(sealed) => Some(*sealed.get(span as usize)?..*sealed.get(span as usize + 1)?),
        }
    }

    /// The file that holds just this range: that of a large member, or the main file if that is the whole stream.
    pub(super) fn file_of(&self, range: &Range<u64>) -> Option<Which> {
        if self.sealed.is_some() || range.end.saturating_sub(range.start) < MEMBER_FILE {
            return None;
        }
        if self.members.is_empty() {
            return (*range == (0..self.length)).then_some(Which::Main);
        }
        let place = self.members.partition_point(|member| member.start < range.start);
        self.members.get(place).filter(|member| *member == range).map(|_| Which::Member(place))
    }

    /// Splits a stored range at member boundaries.
    pub(super) fn pieces(&self, stored: Range<u64>) -> Pieces<'_> {
        split(&self.members, stored)
    }

    /// A short name for this layout: streams of one blob with different layouts are different objects.
    pub(super) fn fingerprint(&self) -> String {
        let mut hasher = sha2::Sha256::new();
        hasher.update((self.starts.len() as u64).to_le_bytes());
        hasher.update(self.length.to_le_bytes());
        for word in self.starts.iter().copied().chain(self.members.iter().flat_map(|member| [member.start, member.end])) {
            hasher.update(word.to_le_bytes());
        }
        hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Length of `plain` bytes after sealing.
pub fn sealed_length(plain: u64) -> u64 {
    plain + plain.div_ceil(CHUNK as u64) * CHUNK_TAG as u64
}

/// Splits a range at member boundaries (ascending, not overlapping).
pub fn split(members: &[Range<u64>], range: Range<u64>) -> Pieces<'_> {
    let next = members.partition_point(|member| member.end <= range.start);
    Pieces { members, next, rest: range }
}

/// The runs of a range, in order.
pub struct Pieces<'a> {
    members: &'a [Range<u64>],
    next: usize,
    rest: Range<u64>,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let Range { start, end } = self.rest;
        if start >= end {
            return None;
        }
        let (piece, until) = match self.members.get(self.next) {
            Some(member) if member.start <= start => {
                let until = member.end.min(end);
                let at = start - member.start..until - member.start;
                let file = Which::Member(self.next);
                if until == member.end {
                    self.next += 1;
                }
                (Piece { file, at }, until)
            }
            Some(member) => {
                let until = member.start.min(end);
                (Piece { file: Which::Main, at: start..until }, until)
            }
            None => (Piece { file: Which::Main, at: start..end }, end),
        };
        self.rest.start = until;
        Some(piece)
    }
}

/// Bytes of the blocks that a piece overlaps.
pub fn blocks(at: &Range<u64>, block: u64) -> u64 {
    at.end.div_ceil(block) * block - at.start / block * block
}
