//! One span as raw deflate that stands alone, and the frame of the gzip member around all of them.
//!
//! Promises: the output is a function of the span's bytes alone, ends at a byte border, needs nothing of the spans before it, and is
//! never longer than the span stored as it is. What does not shrink is not tried: a sample decides.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::sample;
use crate::layer::Error;

/// Level of the compressor: part of the format, since another one would give other bytes.
const LEVEL: u32 = 6;

/// Most bytes of a stored block.
const STORED: usize = 65_535;

/// Header of the member: deflate, no flags, no time, no hints, no system.
pub(super) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The end of the member.
pub(super) fn trailer(crc: u32, length: u32) -> [u8; 8] {
    let mut trailer = [0; 8];
    for (space, byte) in trailer.iter_mut().zip(crc.to_le_bytes().into_iter().chain(length.to_le_bytes())) {
        *space = byte;
    }
    trailer
}

/// A compressor, kept from span to span for its memory only.
pub(super) struct Deflater {
    compress: Compress,
    sampler: sample::Sampler,
}

impl Deflater {
    pub(super) fn new() -> Self {
        Self { compress: Compress::new(Compression::new(LEVEL), false), sampler: sample::Sampler::new() }
    }

    /// Appends a span; the last one of a member closes the deflate stream.
    pub(super) fn span(&mut self, data: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        let before = out.len();
        if self.sampler.shrinks(data, sample::SPAN)? && self.compress(data, last, out)? {
            return Ok(());
        }
        out.truncate(before);
        store(data, last, out);
        Ok(())
    }

    /// Compresses, unless that takes as much room as storing.
    fn compress(&mut self, data: &[u8], last: bool, out: &mut Vec<u8>) -> Result<bool, Error> {
        self.compress.reset();
        let mut packed = Vec::with_capacity(stored_length(data.len()));
        let flush = if last { FlushCompress::Finish } else { FlushCompress::Full };
        let status = self
            .compress
            .compress_vec(data, &mut packed, flush)
            .map_err(|error| Error::other(format!("a span cannot be compressed: {error}")))?;
        // With room left everything was taken and flushed.
        let complete = if last { status == Status::StreamEnd } else { packed.len() < packed.capacity() };
        if complete && packed.len() < stored_length(data.len()) {
            out.extend_from_slice(&packed);
            return Ok(true);
        }
        Ok(false)
    }
}

/// Bytes that a span takes when stored.
fn stored_length(data: usize) -> usize {
    data + data.div_ceil(STORED).max(1) * 5
}

/// Appends stored blocks. Each begins and ends at a byte border, so that no flush is needed behind them.
fn store(data: &[u8], last: bool, out: &mut Vec<u8>) {
    out.reserve(stored_length(data.len()));
    let mut rest = data;
    loop {
        let (now, later) = rest.split_at(rest.len().min(STORED));
        let length = u16::try_from(now.len()).unwrap_or(u16::MAX);
        out.push(u8::from(last && later.is_empty()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(now);
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}
