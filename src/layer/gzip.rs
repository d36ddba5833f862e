//! gzip framing (RFC 1952): members, headers and trailers around raw inflate.
//!
//! Guarantees: every member's CRC and length are verified (except for a member entered in the middle), zeros after the last member are ignored, and
//! anything else there is an error.

use flate2::Crc;

use super::inflate::{Inflate, Malformed, Stop};
use super::step::{Boundary, Step};
use crate::error::Error;

/// Largest member header in bytes; names and comments have no length field.
const HEADER_LIMIT: u64 = 1 << 20;

const FLAG_CHECKSUM: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0xe0;

/// The position within a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberState {
    /// The fixed header, with this many of its 10 bytes read.
    Fixed(u8),
    /// Length of the extra field, with this many of its 2 bytes read.
    ExtraLength(u8),
    /// The extra field, with this many bytes left.
    Extra(u16),
    /// The name, up to its NUL.
    Name,
    /// The comment, up to its NUL.
    Comment,
    /// The header checksum, with this many of its 2 bytes read.
    HeaderChecksum(u8),
    /// Deflate data.
    Body,
    /// The trailer, with this many of its 8 bytes read.
    Trailer(u8),
    /// Zeros after the last member.
    Padding,
}

/// A gzip stream being decoded.
pub(super) struct Gzip {
    inflate: Inflate,
    state: MemberState,
    /// Offset in the blob (or from where decoding started), for messages.
    offset: u64,
    flags: u8,
    /// Bytes of the field being collected.
    field: [u8; 10],
    header_length: u64,
    header_checksum: Crc,
    body_checksum: Crc,
    /// False inside a member entered in the middle.
    checked: bool,
    /// Whether a member has ended, so that zeros may follow.
    complete: bool,
}

impl Gzip {
    /// Starts at the first byte of a member.
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            inflate: Inflate::new().map_err(|error| malformed(&error, 0))?,
            state: MemberState::Fixed(0),
            offset: 0,
            flags: 0,
            field: [0; 10],
            header_length: 0,
            header_checksum: Crc::new(),
            body_checksum: Crc::new(),
            checked: true,
            complete: false,
        })
    }

    /// Starts inside a member, between two deflate blocks: the unused bits come first, then the following bytes.
    pub(super) fn resume(unused_bits: u8, value: u8, history: &[u8]) -> Result<Self, Error> {
        let mut gzip = Self::new()?;
        gzip.inflate.resume(unused_bits, value, history).map_err(|error| malformed(&error, 0))?;
        gzip.state = MemberState::Body;
        gzip.checked = false;
        Ok(gzip)
    }

    /// Decodes a piece; see [`super::decode::Reader::step`].
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8], stop_at_block: bool) -> Result<Step, Error> {
        let step = match self.state {
            MemberState::Body => self.body(input, output, stop_at_block)?,
            MemberState::Padding => self.padding(input)?,
            _ => self.framing(input)?,
        };
        self.offset += step.consumed as u64;
        Ok(step)
    }

    fn body(&mut self, input: &[u8], output: &mut [u8], stop_at_block: bool) -> Result<Step, Error> {
        let progress = self.inflate.run(input, output, stop_at_block).map_err(|error| malformed(&error, self.offset))?;
        if self.checked {
            self.body_checksum.update(output.get(..progress.produced).unwrap_or_default());
        }
        let boundary = match progress.stop {
            Stop::Exhausted | Stop::LastBlockEnd { .. } => None,
            Stop::BlockEnd { unused_bits } => Some(Boundary::Block { unused_bits }),
            Stop::StreamEnd => {
                self.state = MemberState::Trailer(0);
                if progress.consumed == 0 && progress.produced == 0 {
                    return self.framing(input);
                }
                None
            }
        };
        Ok(Step { consumed: progress.consumed, produced: progress.produced, boundary, gap: false })
    }

    fn padding(&self, input: &[u8]) -> Result<Step, Error> {
        Step::padding(input).map_err(|at| {
            let at = self.offset + at as u64;
            Error::integrity(format!("gzip: bytes that are neither zeros nor a member follow the last member, at byte {at}"))
        })
    }

    /// Processes header and trailer bytes; returns when the body starts, the member has ended, or the input is used up.
    fn framing(&mut self, input: &[u8]) -> Result<Step, Error> {
        let mut consumed = 0;
        for &byte in input {
            if self.state == MemberState::Fixed(0) && self.complete && byte == 0 {
                self.state = MemberState::Padding;
                break;
            }
            consumed += 1;
            self.frame_byte(byte)?;
            if self.state == MemberState::Fixed(0) {
                return Ok(Step { consumed, boundary: Some(Boundary::Clean), ..Step::default() });
            }
            if self.state == MemberState::Body {
                break;
            }
        }
        // Entering the padding consumes no byte: report it as a step of its own so that the caller continues.
        if self.state == MemberState::Padding && consumed == 0 {
            return self.padding(input);
        }
        Ok(Step { consumed, ..Step::default() })
    }

    fn frame_byte(&mut self, byte: u8) -> Result<(), Error> {
        if !matches!(self.state, MemberState::Trailer(_)) {
            self.header_length += 1;
            if self.header_length > HEADER_LIMIT {
                return Err(self.broken("header of more than 1 MiB"));
            }
            if !matches!(self.state, MemberState::HeaderChecksum(_)) {
                self.header_checksum.update(&[byte]);
            }
        }
        match self.state {
            MemberState::Fixed(at) => self.collect(at, 10, byte, MemberState::Fixed, Self::fixed_header)?,
            MemberState::ExtraLength(at) => self.collect(at, 2, byte, MemberState::ExtraLength, Self::extra_length)?,
            MemberState::Extra(left) if left > 1 => self.state = MemberState::Extra(left - 1),
            MemberState::Extra(_) => self.after_extra()?,
            MemberState::Name if byte == 0 => self.after_name()?,
            MemberState::Comment if byte == 0 => self.after_comment()?,
            MemberState::Name | MemberState::Comment => {}
            MemberState::HeaderChecksum(at) => self.collect(at, 2, byte, MemberState::HeaderChecksum, Self::check_header)?,
            MemberState::Trailer(at) => self.collect(at, 8, byte, MemberState::Trailer, Self::check_trailer)?,
            MemberState::Body | MemberState::Padding => {}
        }
        Ok(())
    }

    /// Adds a byte to a field of fixed length, and acts when it is complete.
    fn collect(
        &mut self,
        at: u8,
        length: u8,
        byte: u8,
        state: fn(u8) -> MemberState,
        act: fn(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(slot) = self.field.get_mut(usize::from(at)) {
            *slot = byte;
        }
        if at + 1 < length {
            self.state = state(at + 1);
            return Ok(());
        }
        act(self)
    }

    fn fixed_header(&mut self) -> Result<(), Error> {
        let [first, second, method, flags, ..] = self.field;
        if (first, second) != (0x1f, 0x8b) {
            let what = if self.complete { "bytes that are neither zeros nor a member follow the last member" } else { "no gzip header" };
            return Err(self.broken(what));
        }
        if method != 8 {
            return Err(self.broken("unknown compression method"));
        }
        if flags & FLAGS_RESERVED != 0 {
            return Err(self.broken("reserved header flags are set"));
        }
        self.flags = flags;
        if flags & FLAG_EXTRA != 0 {
            self.state = MemberState::ExtraLength(0);
            return Ok(());
        }
        self.after_extra()
    }

    fn extra_length(&mut self) -> Result<(), Error> {
        match u16::from_le_bytes([self.field[0], self.field[1]]) {
            0 => self.after_extra(),
            length => {
                self.state = MemberState::Extra(length);
                Ok(())
            }
        }
    }

    fn after_extra(&mut self) -> Result<(), Error> {
        if self.flags & FLAG_NAME != 0 {
            self.state = MemberState::Name;
            return Ok(());
        }
        self.after_name()
    }

    fn after_name(&mut self) -> Result<(), Error> {
        if self.flags & FLAG_COMMENT != 0 {
            self.state = MemberState::Comment;
            return Ok(());
        }
        self.after_comment()
    }

    fn after_comment(&mut self) -> Result<(), Error> {
        if self.flags & FLAG_CHECKSUM != 0 {
            self.state = MemberState::HeaderChecksum(0);
            return Ok(());
        }
        self.begin_body()
    }

    fn check_header(&mut self) -> Result<(), Error> {
        if u32::from(u16::from_le_bytes([self.field[0], self.field[1]])) != self.header_checksum.sum() & 0xffff {
            return Err(self.broken("header checksum does not match"));
        }
        self.begin_body()
    }

    fn begin_body(&mut self) -> Result<(), Error> {
        self.inflate.reset().map_err(|error| malformed(&error, self.offset))?;
        self.body_checksum.reset();
        self.checked = true;
        self.state = MemberState::Body;
        Ok(())
    }

    fn check_trailer(&mut self) -> Result<(), Error> {
        let [a, b, c, d, e, f, g, h, ..] = self.field;
        if self.checked {
            if u32::from_le_bytes([a, b, c, d]) != self.body_checksum.sum() {
                return Err(self.broken("CRC of a member does not match"));
            }
            if u32::from_le_bytes([e, f, g, h]) != self.body_checksum.amount() {
                return Err(self.broken("length of a member does not match"));
            }
        }
        self.complete = true;
        self.header_length = 0;
        self.header_checksum.reset();
        self.state = MemberState::Fixed(0);
        Ok(())
    }

    /// The last decoded bytes, for a restart at the block boundary just reported.
    pub(super) fn history(&mut self) -> Result<Vec<u8>, Error> {
        self.inflate.history().map_err(|error| malformed(&error, self.offset))
    }

    /// Checks that the blob may end here.
    pub(super) fn finish(&self) -> Result<(), Error> {
        match self.state {
            MemberState::Fixed(0) if self.complete => Ok(()),
            MemberState::Padding => Ok(()),
            _ => Err(self.broken("the data ends inside a member")),
        }
    }

    fn broken(&self, what: &str) -> Error {
        Error::integrity(format!("gzip: {what}, near byte {}", self.offset))
    }
}

fn malformed(error: &Malformed, offset: u64) -> Error {
    Error::integrity(format!("gzip: {}, near byte {offset}", error.0))
}
