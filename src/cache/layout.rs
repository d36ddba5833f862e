//! Where the bytes of a stream lie: which span, which file, which offset. Pure arithmetic.
//!
//! A plain stream has a main file, in which a byte lies at its offset in the stream (with holes for members), and one
//! file per member of 1 MiB or more, which begins at offset 0. A sealed stream has the main file alone: its spans
//! follow each other, each as chunks with their tags.

use std::ops::Range;
use std::sync::Arc;

use sha2::Digest as _;

use super::error::Error;
use crate::error::ErrorKind;
use crate::seal::{CHUNK, CHUNK_TAG};

/// Members from this size on have a file of their own.
pub const MEMBER_FILE: u64 = 1 << 20;
/// No span is longer: one is held in memory while it is checked.
pub const LONGEST_SPAN: u64 = 64 << 20;

/// One file of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// The main file.
    Main,
    /// The file of the member with this number.
    Member(usize),
}

/// A run of bytes in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub file: Which,
    /// Offsets in it.
    pub at: Range<u64>,
}

/// The checked layout of a stream as it is stored.
#[derive(Clone, Debug)]
pub struct Geometry {
    starts: Arc<[u64]>,
    length: u64,
    members: Arc<[Range<u64>]>,
    /// Where each span begins in the main file of a sealed stream, and the end of the last one.
    sealed: Option<Arc<[u64]>>,
}

impl Geometry {
    /// Checks a layout. Members below 1 MiB, and all members of a sealed stream, stay in the main file.
    pub fn new(layout: &StreamLayout, sealed: bool) -> Result<Self, Error> {
        let invalid = |what: &str| Error { kind: ErrorKind::Invalid, message: format!("the layout of the stream is wrong: {what}") };
        let starts = &layout.starts;
        if u32::try_from(starts.len()).is_err() {
            return Err(invalid("too many spans"));
        }
        if layout.length > i64::MAX as u64 / 2 {
            return Err(invalid("it is too long"));
        }
        let ends = starts.iter().skip(1).chain(std::iter::once(&layout.length));
        if starts.first().is_some_and(|first| *first != 0) || (starts.is_empty() && layout.length != 0) {
            return Err(invalid("its spans do not begin at 0"));
        }
        if starts.iter().zip(ends).any(|(start, end)| end < start || end - start > LONGEST_SPAN) {
            return Err(invalid("a span ends before it begins or is too long"));
        }
        let mut end = 0;
        for member in layout.members.iter() {
            if member.start < end || member.end < member.start || member.end > layout.length {
                return Err(invalid("its members overlap or leave it"));
            }
            end = member.end;
        }
        let own_file = |member: &&Range<u64>| !sealed && member.end - member.start >= MEMBER_FILE;
        let members = layout.members.iter().filter(own_file).cloned().collect();
        let mut geometry = Self { starts: Arc::clone(starts), length: layout.length, members, sealed: None };
        if sealed {
            let mut at = 0;
            let mut stored = Vec::with_capacity(starts.len() + 1);
            stored.push(0);
            for span in 0..geometry.count() {
                at += sealed_length(geometry.stream(span).map_or(0, |range| range.end - range.start));
                stored.push(at);
            }
            geometry.sealed = Some(stored.into());
        }
        Ok(geometry)
    }

    /// Number of spans.
    pub fn count(&self) -> u32 {
        // `new` checked that it fits.
        self.starts.len() as u32
    }

    /// Start of every span.
    pub fn starts(&self) -> &[u64] {
        &self.starts
    }

    /// Length of the stream.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Members with a file of their own.
    pub fn members(&self) -> &[Range<u64>] {
        &self.members
    }

    /// Whether the stream is stored sealed.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The range of the stream that a span holds.
    pub fn stream(&self, span: u32) -> Option<Range<u64>> {
        let span = span as usize;
        let start = *self.starts.get(span)?;
        Some(start..self.starts.get(span + 1).copied().unwrap_or(self.length))
    }

    /// The range that a span takes as stored, in offsets that [`Geometry::pieces`] understands.
    pub fn stored(&self, span: u32) -> Option<Range<u64>> {
        match &self.sealed {
            None => self.stream(span),
            Some(sealed) => Some(*sealed.get(span as usize)?..*sealed.get(span as usize + 1)?),
        }
    }

    /// Splits a stored range at the borders of members.
    pub fn pieces(&self, stored: Range<u64>) -> Pieces<'_> {
        split(&self.members, stored)
    }

    /// A short name for this layout: streams of one blob that are cut differently are different objects.
    pub fn fingerprint(&self) -> String {
        let mut hasher = sha2::Sha256::new();
        hasher.update((self.starts.len() as u64).to_le_bytes());
        hasher.update(self.length.to_le_bytes());
        for word in self.starts.iter().copied().chain(self.members.iter().flat_map(|member| [member.start, member.end])) {
            hasher.update(word.to_le_bytes());
        }
        hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Length of `plain` bytes once sealed.
pub fn sealed_length(plain: u64) -> u64 {
    plain + plain.div_ceil(CHUNK as u64) * CHUNK_TAG as u64
}

/// Splits a range at the borders of members (ascending, none overlapping).
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

/// Bytes of the blocks that a piece touches.
pub fn blocks(at: &Range<u64>, block: u64) -> u64 {
    at.end.div_ceil(block) * block - at.start / block * block
}

/// Spans and members of a stream: what decides where bytes lie in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLayout {
    /// Start of every span, ascending from 0; the last ends at `length`.
    pub starts: Arc<[u64]>,
    /// Length of the stream.
    pub length: u64,
    /// Ranges of members of 1 MiB or more, ascending; each has a file of its own.
    pub members: Arc<[Range<u64>]>,
}
