//! zstd framing: frames, skippable frames and final zeros around the library's streaming decoder.
//!
//! Promises: a frame's checksum counts, windows above 128 MiB are refused, skippable frames are passed over without
//! being held, and anything else between frames is a broken frame.

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::Error;
use super::step::{Boundary, Step};

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
const SKIPPABLE_MASK: u32 = 0xffff_fff0;

/// Largest window accepted: 128 MiB.
const WINDOW_LOG: u32 = 27;

/// Skippable frames from here on are left out of the spans.
const GAP: u32 = 64 * 1024;

/// Where the next byte lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Magic number of a frame, so many of its bytes are here.
    Magic(u8),
    /// Length of a skippable frame, so many of its bytes are here.
    SkipLength(u8),
    /// Content of a skippable frame: bytes left, and whether it counts as a gap.
    Skip(u32, bool),
    /// A frame.
    Frame,
    /// Zeros behind the last frame.
    Padding,
}

/// A zstd stream being decoded.
pub(super) struct Zstandard {
    decoder: Decoder<'static>,
    state: State,
    field: [u8; 4],
    /// Offset in the blob (or from where decoding began), for messages.
    offset: u64,
    /// Whether a frame has ended, so that zeros may follow.
    complete: bool,
}

impl Zstandard {
    /// At the first byte of a frame.
    pub(super) fn new() -> Result<Self, Error> {
        let mut decoder = Decoder::new().map_err(|error| Error::other(format!("zstd cannot be set up: {error}")))?;
        decoder
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
            .map_err(|error| Error::other(format!("zstd cannot be set up: {error}")))?;
        Ok(Self { decoder, state: State::Magic(0), field: [0; 4], offset: 0, complete: false })
    }

    /// Whether these are the first bytes of a zstd stream.
    pub(super) fn recognises(start: [u8; 4]) -> bool {
        let magic = u32::from_le_bytes(start);
        magic == MAGIC || magic & SKIPPABLE_MASK == SKIPPABLE
    }

    /// Decodes a piece; see [`super::decode::Reader::step`].
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        let step = match self.state {
            State::Frame => self.frame(input, output)?,
            State::Skip(left, gap) => self.skip(input, left, gap),
            State::Padding => self.padding(input)?,
            State::Magic(_) | State::SkipLength(_) => self.framing(input)?,
        };
        self.offset += step.consumed as u64;
        Ok(step)
    }

    fn frame(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        let (consumed, produced, left) = self.run(input, output)?;
        let boundary = (left == 0).then(|| {
            self.state = State::Magic(0);
            self.complete = true;
            Boundary::Clean
        });
        Ok(Step { consumed, produced, boundary, gap: false })
    }

    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize, usize), Error> {
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(output);
        let left = self.decoder.run(&mut source, &mut target).map_err(|error| self.broken(&error.to_string()))?;
        let (consumed, produced) = (source.pos(), target.pos());
        Ok((consumed, produced, left))
    }

    fn skip(&mut self, input: &[u8], left: u32, gap: bool) -> Step {
        let consumed = input.len().min(left as usize);
        let left = left - consumed as u32;
        let boundary = (left == 0).then(|| {
            self.state = State::Magic(0);
            self.complete = true;
            Boundary::Clean
        });
        if left > 0 {
            self.state = State::Skip(left, gap);
        }
        Step { consumed, boundary, gap, ..Step::default() }
    }

    fn padding(&self, input: &[u8]) -> Result<Step, Error> {
        match input.iter().position(|byte| *byte != 0) {
            None => Ok(Step { consumed: input.len(), gap: true, ..Step::default() }),
            Some(at) => Err(Error::broken(format!(
                "zstd: bytes that are neither zeros nor a frame follow the last frame, at byte {}",
                self.offset + at as u64
            ))),
        }
    }

    fn framing(&mut self, input: &[u8]) -> Result<Step, Error> {
        let mut consumed = 0;
        for &byte in input {
            if self.state == State::Magic(0) && self.complete && byte == 0 {
                self.state = State::Padding;
                return if consumed == 0 { self.padding(input) } else { Ok(Step { consumed, ..Step::default() }) };
            }
            consumed += 1;
            let at = match self.state {
                State::Magic(at) | State::SkipLength(at) => at,
                State::Skip(..) | State::Frame | State::Padding => break,
            };
            if let Some(slot) = self.field.get_mut(usize::from(at)) {
                *slot = byte;
            }
            if at < 3 {
                self.state = if matches!(self.state, State::Magic(_)) { State::Magic(at + 1) } else { State::SkipLength(at + 1) };
                continue;
            }
            let boundary = self.field_complete()?;
            return Ok(Step { consumed, boundary, ..Step::default() });
        }
        Ok(Step { consumed, ..Step::default() })
    }

    /// Acts on a whole magic number or length.
    fn field_complete(&mut self) -> Result<Option<Boundary>, Error> {
        let value = u32::from_le_bytes(self.field);
        if matches!(self.state, State::SkipLength(_)) {
            if value == 0 {
                self.state = State::Magic(0);
                self.complete = true;
                return Ok(Some(Boundary::Clean));
            }
            self.state = State::Skip(value, value >= GAP);
            return Ok(None);
        }
        if value & SKIPPABLE_MASK == SKIPPABLE {
            self.state = State::SkipLength(0);
            return Ok(None);
        }
        if value != MAGIC {
            return Err(self.broken(if self.complete {
                "bytes that are neither zeros nor a frame follow the last frame"
            } else {
                "no frame header"
            }));
        }
        self.state = State::Frame;
        // The decoder has to see the magic number too.
        let field = self.field;
        match self.run(&field, &mut [])? {
            (4, 0, left) if left > 0 => Ok(None),
            _ => Err(self.broken("no frame header")),
        }
    }

    /// Checks that the blob may end here.
    pub(super) fn finish(&self) -> Result<(), Error> {
        match self.state {
            State::Magic(0) if self.complete => Ok(()),
            State::Padding => Ok(()),
            _ => Err(self.broken("the data ends inside a frame")),
        }
    }

    fn broken(&self, what: &str) -> Error {
        Error::broken(format!("zstd: {what}, near byte {}", self.offset))
    }
}
