//! Decodes a blob from a span that can restart.

use std::sync::Arc;

use super::decode::Reader;
use super::gzip::Gzip;
use super::{LayerIndex, Restart, Windows};
use crate::error::Error;

/// Decodes from one restart point onwards.
///
/// Feed it the blob from [`SpanDecoder::blob_position`] on. Given the bytes up to a span's `blob.end`, it returns all of the stream up to that span's
/// `stream.end`. It may be kept and fed further for the next sequential reader.
pub struct SpanDecoder {
    start: Start,
    reader: Reader,
    blob_position: u64,
    stream_position: u64,
    /// The reader may hold output for which there was no room.
    pending: bool,
}

/// Whether the first byte must still be split between the previous span and this one.
enum Start {
    Begun,
    Inside { bits: u8, window: Vec<u8> },
}

impl SpanDecoder {
    /// A decoder that starts at span `number`, which must be able to restart. `windows` grants memory for zstd frames.
    pub fn new(index: &LayerIndex, number: u32, windows: &Arc<dyn Windows>) -> Result<Self, Error> {
        let span = index.span(number).ok_or_else(|| Error::other(format!("the layer has no span {number}")))?;
        let start = match span.restart {
            Restart::No => return Err(Error::other(format!("decoding cannot begin at span {number} of the layer"))),
            Restart::Clean => Start::Begun,
            Restart::Window { bits } => Start::Inside { bits, window: index.window(number)? },
        };
        let reader = Reader::new(index.codec(), windows)?;
        Ok(Self { start, reader, blob_position: span.blob.start, stream_position: span.stream.start, pending: false })
    }

    /// Blob offset of the next byte to feed.
    pub fn blob_position(&self) -> u64 {
        self.blob_position
    }

    /// Stream offset of the next byte returned.
    pub fn stream_position(&self) -> u64 {
        self.stream_position
    }

    /// Feeds blob bytes, in order from that span's `blob.start`, and appends the decoded bytes. Never produces more than `limit` bytes per call: call again
    /// with the rest. Returns the number of bytes consumed.
    pub fn decode(&mut self, blob: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<usize, Error> {
        let mut input = blob;
        if let Start::Inside { bits, window } = &self.start {
            let Some((first, rest)) = input.split_first() else { return Ok(0) };
            let (unused, value) = if *bits == 0 { (0, 0) } else { (8 - bits, first >> bits) };
            self.reader = Reader::Gzip(Box::new(Gzip::resume(unused, value, window)?));
            if *bits != 0 {
                input = rest;
            }
            self.start = Start::Begun;
        }
        let begin = out.len();
        let mut filled = begin;
        // Grows with the actual output, so that a large limit alone costs nothing.
        while filled - begin < limit && (!input.is_empty() || self.pending) {
            let room = (limit - (filled - begin)).min(STEP);
            out.resize(filled + room, 0);
            let step = self.reader.step(input, out.get_mut(filled..).unwrap_or_default(), false)?;
            input = input.get(step.consumed..).unwrap_or_default();
            filled += step.produced;
            self.pending = step.produced == room;
            if !step.moved() {
                break;
            }
        }
        out.truncate(filled);
        let consumed = blob.len() - input.len();
        self.blob_position += consumed as u64;
        self.stream_position += (filled - begin) as u64;
        Ok(consumed)
    }
}

/// Most bytes by which the output grows at a time.
const STEP: usize = 1 << 20;
