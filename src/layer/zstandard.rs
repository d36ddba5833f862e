//! zstd framing: frames, skippable frames and trailing zeros around the library's streaming decoder.
//!
//! Guarantees: frame checksums are verified, memory for a window is granted before it is taken (at most 128 MiB), skippable frames are skipped without
//! being held, and anything else between frames is an error.

use std::sync::Arc;

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::step::{Boundary, Step};
use super::{WINDOW_MOST, Windows};
use crate::error::Error;

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
const SKIPPABLE_MASK: u32 = 0xffff_fff0;

/// Longest frame header, including its magic number.
const HEADER_MOST: usize = 18;
/// Memory of a decoder besides the window: a block, and as much again of input.
const BESIDE: u64 = 512 << 10;

/// Skippable frames of at least this size are excluded from the spans.
const GAP: u32 = 64 * 1024;

/// The position in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameState {
    /// The magic number of a frame, with this many bytes read.
    Magic(u8),
    /// The length of a skippable frame, with this many bytes read.
    SkipLength(u8),
    /// Content of a skippable frame: bytes left, and whether it counts as a gap.
    Skip(u32, bool),
    /// Header of a frame, with this many bytes read, including the magic number.
    Header(u8),
    /// A frame.
    Frame,
    /// Zeros after the last frame.
    Padding,
}

/// A zstd stream being decoded.
pub(super) struct Zstandard {
    decoder: Decoder<'static>,
    windows: Arc<dyn Windows>,
    /// The granted window size, and the grant.
    granted: Option<(u64, Box<dyn Send>)>,
    state: FrameState,
    field: [u8; HEADER_MOST],
    /// Offset in the blob (or from where decoding started), for messages.
    offset: u64,
    /// Whether a frame has ended, so that zeros may follow.
    complete: bool,
}

impl Zstandard {
    /// Starts at the first byte of a frame.
    pub(super) fn new(windows: &Arc<dyn Windows>) -> Result<Self, Error> {
        let (windows, field) = (Arc::clone(windows), [0; HEADER_MOST]);
        Ok(Self { decoder: decoder()?, windows, granted: None, state: FrameState::Magic(0), field, offset: 0, complete: false })
    }

    /// Whether these are the first bytes of a zstd stream.
    pub(super) fn recognises(start: [u8; 4]) -> bool {
        let magic = u32::from_le_bytes(start);
        magic == MAGIC || magic & SKIPPABLE_MASK == SKIPPABLE
    }

    /// Decodes a piece; see [`super::decode::Reader::step`].
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        let step = match self.state {
            FrameState::Frame => self.frame(input, output)?,
            FrameState::Skip(left, gap) => self.skip(input, left, gap),
            FrameState::Padding => self.padding(input)?,
            FrameState::Magic(_) | FrameState::SkipLength(_) | FrameState::Header(_) => self.framing(input)?,
        };
        self.offset += step.consumed as u64;
        Ok(step)
    }

    fn frame(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        let (consumed, produced, left) = self.run(input, output)?;
        let boundary = (left == 0).then(|| {
            self.state = FrameState::Magic(0);
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
            self.state = FrameState::Magic(0);
            self.complete = true;
            Boundary::Clean
        });
        if left > 0 {
            self.state = FrameState::Skip(left, gap);
        }
        Step { consumed, boundary, gap, ..Step::default() }
    }

    fn padding(&self, input: &[u8]) -> Result<Step, Error> {
        Step::padding(input).map_err(|at| {
            let at = self.offset + at as u64;
            Error::integrity(format!("zstd: bytes that are neither zeros nor a frame follow the last frame, at byte {at}"))
        })
    }

    fn framing(&mut self, input: &[u8]) -> Result<Step, Error> {
        let mut consumed = 0;
        for &byte in input {
            if self.state == FrameState::Magic(0) && self.complete && byte == 0 {
                self.state = FrameState::Padding;
                return if consumed == 0 { self.padding(input) } else { Ok(Step { consumed, ..Step::default() }) };
            }
            consumed += 1;
            let at = match self.state {
                FrameState::Magic(at) | FrameState::SkipLength(at) | FrameState::Header(at) => at,
                FrameState::Skip(..) | FrameState::Frame | FrameState::Padding => break,
            };
            if let Some(slot) = self.field.get_mut(usize::from(at)) {
                *slot = byte;
            }
            match self.state {
                FrameState::Magic(at @ 0..3) => self.state = FrameState::Magic(at + 1),
                FrameState::SkipLength(at @ 0..3) => self.state = FrameState::SkipLength(at + 1),
                FrameState::Header(at) if usize::from(at) + 1 < header_length(&self.field) => self.state = FrameState::Header(at + 1),
                FrameState::Header(_) => {
                    self.begin_frame()?;
                    return Ok(Step { consumed, ..Step::default() });
                }
                _ => {
                    if let Some(boundary) = self.field_complete()? {
                        return Ok(Step { consumed, boundary: Some(boundary), ..Step::default() });
                    }
                    if !matches!(self.state, FrameState::Header(_)) {
                        return Ok(Step { consumed, ..Step::default() });
                    }
                }
            }
        }
        Ok(Step { consumed, ..Step::default() })
    }

    /// Acts on a complete magic number or length.
    fn field_complete(&mut self) -> Result<Option<Boundary>, Error> {
        let value = u32::from_le_bytes(self.field.first_chunk().copied().unwrap_or_default());
        if matches!(self.state, FrameState::SkipLength(_)) {
            if value == 0 {
                self.state = FrameState::Magic(0);
                self.complete = true;
                return Ok(Some(Boundary::Clean));
            }
            self.state = FrameState::Skip(value, value >= GAP);
            return Ok(None);
        }
        if value & SKIPPABLE_MASK == SKIPPABLE {
            self.state = FrameState::SkipLength(0);
            return Ok(None);
        }
        if value != MAGIC {
            return Err(self.broken(if self.complete {
                "bytes that are neither zeros nor a frame follow the last frame"
            } else {
                "no frame header"
            }));
        }
        self.state = FrameState::Header(4);
        Ok(None)
    }

    /// Starts a frame whose header was read, once there is memory for its window.
    fn begin_frame(&mut self) -> Result<(), Error> {
        let window = window(&self.field);
        if window > WINDOW_MOST {
            let message = format!("zstd: a frame needs a window of {window} bytes, more than the {WINDOW_MOST} that are supported");
            return Err(Error::unsupported(message));
        }
        if self.granted.as_ref().is_none_or(|(granted, _)| *granted < window) {
            // Hold nothing while waiting for more.
            self.granted = None;
            self.decoder = decoder()?;
            self.granted = Some((window, self.windows.grant(window + BESIDE)?));
        }
        self.state = FrameState::Frame;
        let (field, length) = (self.field, header_length(&self.field));
        match self.run(field.get(..length).unwrap_or_default(), &mut [])? {
            (consumed, 0, left) if consumed == length && left > 0 => Ok(()),
            _ => Err(self.broken("no frame header")),
        }
    }

    /// Checks that the blob may end here.
    pub(super) fn finish(&self) -> Result<(), Error> {
        match self.state {
            FrameState::Magic(0) if self.complete => Ok(()),
            FrameState::Padding => Ok(()),
            _ => Err(self.broken("the data ends inside a frame")),
        }
    }

    fn broken(&self, what: &str) -> Error {
        Error::integrity(format!("zstd: {what}, near byte {}", self.offset))
    }
}

fn decoder() -> Result<Decoder<'static>, Error> {
    let failed = |error: std::io::Error| Error::other(format!("zstd cannot be set up: {error}"));
    let mut decoder = Decoder::new().map_err(failed)?;
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_MOST.ilog2())).map_err(failed)?;
    Ok(decoder)
}

/// Lengths of the frame header fields after its first byte: window, dictionary, content size.
fn header_fields(field: &[u8; HEADER_MOST]) -> (usize, usize, usize) {
    let [_, _, _, _, flags, ..] = *field;
    let single_segment = flags & 0x20 != 0;
    let dictionary = [0, 1, 2, 4].get(usize::from(flags & 3)).copied().unwrap_or_default();
    let content = match flags >> 6 {
        0 => usize::from(single_segment),
        power => 1 << power,
    };
    (usize::from(!single_segment), dictionary, content)
}

/// Length of a header, given its first byte after the magic number.
fn header_length(field: &[u8; HEADER_MOST]) -> usize {
    let (window, dictionary, content) = header_fields(field);
    5 + window + dictionary + content
}

/// Bytes of content that a decoder must hold.
fn window(field: &[u8; HEADER_MOST]) -> u64 {
    let (descriptor, dictionary, content) = header_fields(field);
    if descriptor == 1 {
        let [_, _, _, _, _, descriptor, ..] = *field;
        let base = 1_u64 << (10 + (descriptor >> 3));
        return base + base / 8 * u64::from(descriptor & 7);
    }
    let mut size = [0; 8];
    let start = 5 + dictionary;
    if let (Some(place), Some(bytes)) = (size.get_mut(..content), field.get(start..start + content)) {
        place.copy_from_slice(bytes);
    }
    // Two-byte sizes start at 256.
    u64::from_le_bytes(size) + if content == 2 { 256 } else { 0 }
}
