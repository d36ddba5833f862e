//! Cuts the stream of a pass into spans, and hashes the blob bytes that each one needs.
//!
//! A span ends at the first restart point after [`TARGET`] bytes; if there is none, it ends when the buffer is full, and the next one cannot restart.
//! The cutter holds one span of the stream, never the blob.

use sha2::{Digest as _, Sha256};

use super::build::Builder;
use super::sink::SpanSink;
use super::step::{Boundary, Step};
use super::window_probe::WindowProbe;
use super::{Codec, RAW_SPAN, Restart, Span};
use crate::error::Error;

/// Stream length from which a span ends at the next restart point.
pub(super) const TARGET: usize = RAW_SPAN as usize;
/// Most stream bytes in a gzip span.
const MOST: usize = 4 << 20;
/// A span that took this many blob bytes ends at the next restart point, however little it contains.
const BLOB_TARGET: u64 = 4 << 20;
/// Most blob bytes per span. Reached only by compressed data crafted to contain nothing.
const BLOB_MOST: u64 = 8 << 20;
/// Compression level of windows.
const WINDOW_LEVEL: i32 = 3;

/// The span being filled.
pub(super) struct Cutter {
    /// Uncompressed: decoding can start anywhere.
    seekable: bool,
    buffer: Box<[u8]>,
    filled: usize,
    stream_start: u64,
    blob_start: u64,
    blob_position: u64,
    restart: Restart,
    /// The stream before the span, if decoding starts inside deflate.
    window: Vec<u8>,
    /// Determines whether the span needs it.
    probe: WindowProbe,
    hasher: Sha256,
    last_byte: u8,
}

/// Where a span ends.
enum End {
    /// At a restart point, with the stream before it.
    Restart(Boundary, Vec<u8>),
    /// In the middle, with the following blob byte if already known: a decoder may need to see it before it returns the last bytes.
    Middle(Option<u8>),
    /// Where no preparation is needed: a gap, the end, anything uncompressed.
    Anywhere,
}

impl Cutter {
    /// Starts at the beginning of a blob.
    pub(super) fn new(codec: Codec) -> Self {
        let capacity = if codec == Codec::Gzip { MOST } else { TARGET };
        Self {
            seekable: codec == Codec::Identity,
            buffer: vec![0; capacity].into_boxed_slice(),
            filled: 0,
            stream_start: 0,
            blob_start: 0,
            blob_position: 0,
            restart: Restart::Clean,
            window: Vec::new(),
            probe: WindowProbe::default(),
            hasher: Sha256::new(),
            last_byte: 0,
        }
    }

    /// Room for the next stream bytes, never empty.
    pub(super) fn room(&mut self, until_target: bool) -> &mut [u8] {
        let end = if until_target && self.filled < TARGET - 1 { TARGET - 1 } else { self.buffer.len() };
        self.buffer.get_mut(self.filled..end).unwrap_or_default()
    }

    /// The bytes written by the last step.
    pub(super) fn fresh(&self, produced: usize) -> &[u8] {
        self.buffer.get(self.filled..self.filled + produced).unwrap_or_default()
    }

    /// Whether the decoder should stop at restart points. Starts one byte before the target, or a block ending exactly there would be missed: a decoder
    /// with full output reads on until it needs room.
    pub(super) fn looks_for_end(&self) -> bool {
        self.filled >= TARGET - 1 || self.wants_end()
    }

    /// Whether a restart point would end the span.
    fn wants_end(&self) -> bool {
        self.filled >= TARGET || self.blob_position - self.blob_start >= BLOB_TARGET
    }

    /// Stream length so far.
    pub(super) fn stream_position(&self) -> u64 {
        self.stream_start + self.filled as u64
    }

    /// Blob bytes taken so far.
    pub(super) fn blob_position(&self) -> u64 {
        self.blob_position
    }

    /// Records a step. `consumed` are the bytes it took, `next` is the byte after them. `history` returns the window of the boundary just reported.
    pub(super) fn advance(
        &mut self,
        step: &Step,
        consumed: &[u8],
        next: Option<u8>,
        history: impl FnOnce() -> Result<Vec<u8>, Error>,
        builder: &mut Builder,
        sink: &mut dyn SpanSink,
    ) -> Result<(), Error> {
        if step.gap && self.filled > 0 {
            self.cut(End::Anywhere, builder, sink)?;
        }
        self.blob_position += consumed.len() as u64;
        self.filled += step.produced;
        if step.gap {
            return self.begin_after_gap(step);
        }
        self.hasher.update(consumed);
        self.probe.feed(consumed);
        if let Some(last) = consumed.last() {
            self.last_byte = *last;
        }
        match step.boundary {
            Some(boundary) if self.filled == 0 || self.wants_end() => {
                let window = if boundary == Boundary::Clean { Vec::new() } else { history()? };
                let end = End::Restart(boundary, window);
                if self.filled == 0 { self.begin(end)? } else { self.cut(end, builder, sink)? }
            }
            _ if self.filled == self.buffer.len() && self.seekable => self.cut(End::Anywhere, builder, sink)?,
            _ if self.filled == self.buffer.len() => self.cut(End::Middle(next), builder, sink)?,
            _ => {}
        }
        if self.blob_position - self.blob_start > BLOB_MOST {
            let (from, to) = (self.blob_start, self.blob_position);
            return Err(Error::integrity(format!("bytes {from} to {to} of the blob are compressed data without content")));
        }
        Ok(())
    }

    /// Ends the last span.
    pub(super) fn finish(&mut self, builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        if self.filled > 0 { self.cut(End::Anywhere, builder, sink) } else { Ok(()) }
    }

    fn cut(&mut self, end: End, builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        let mut blob_end = self.blob_position;
        if let End::Middle(Some(next)) = end {
            self.hasher.update([next]);
            blob_end += 1;
        }
        let span = Span {
            stream: self.stream_start..self.stream_position(),
            blob: self.blob_start..blob_end,
            restart: self.restart,
            digest: Some(self.hasher.finalize_reset().into()),
        };
        let number = builder.span_count();
        let needed = !self.window.is_empty() && self.probe.needs_window();
        builder.span(&span, &if needed { compress(&self.window)? } else { Vec::new() })?;
        sink.span(number, span.stream.clone(), self.buffer.get(..self.filled).unwrap_or_default())?;
        self.stream_start = span.stream.end;
        self.filled = 0;
        self.begin(end)
    }

    /// Starts an empty span at the current blob position.
    fn begin(&mut self, end: End) -> Result<(), Error> {
        self.hasher.reset();
        self.probe.stop();
        self.blob_start = self.blob_position;
        self.window = Vec::new();
        match end {
            End::Restart(Boundary::Clean, _) | End::Anywhere => self.restart = Restart::Clean,
            End::Middle(_) => self.restart = Restart::No,
            End::Restart(Boundary::Block { unused_bits: 0 }, window) => {
                self.restart = Restart::Window { bits: 0 };
                self.window = window;
                self.probe.start(0, 0)?;
            }
            End::Restart(Boundary::Block { unused_bits }, window) => {
                // The last byte taken belongs to both spans.
                let bits = 8 - unused_bits;
                self.restart = Restart::Window { bits };
                self.window = window;
                self.blob_start -= 1;
                self.hasher.update([self.last_byte]);
                self.probe.start(unused_bits, self.last_byte >> bits)?;
            }
        }
        Ok(())
    }

    /// After a gap (or inside a continuing one) the next span starts at its end.
    fn begin_after_gap(&mut self, step: &Step) -> Result<(), Error> {
        if step.boundary.is_some() { self.begin(End::Anywhere) } else { Ok(()) }
    }
}

fn compress(window: &[u8]) -> Result<Vec<u8>, Error> {
    zstd::bulk::compress(window, WINDOW_LEVEL).map_err(|error| Error::other(format!("a window cannot be compressed: {error}")))
}
