//! Stages of a span: compress and hash it, hash the stream, walk the tar, write the blob.
//!
//! Plain values without threads: `pipeline` runs them in parallel, or in sequence if a layer is small.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use flate2::Crc;
use sha2::{Digest as _, Sha256};

use super::deflate::{self, Deflater};
use super::entry::Packing;
use crate::error::Error;
use crate::layer::build::Builder;
use crate::layer::tar::Walker;
use crate::layer::{Resources, Restart, Span, SpanSink};
use crate::oci::{Algorithm, Digest, Hasher};

/// The bytes of one span. Dropping the last reference returns the memory for reuse.
pub(super) struct Buffer {
    pub(super) data: Vec<u8>,
    pub(super) home: Sender<Vec<u8>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // If this fails, the receiver is gone.
        let _ = self.home.send(std::mem::take(&mut self.data));
    }
}

/// A span to compress.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) last: bool,
    pub(super) buffer: Arc<Buffer>,
}

/// A span ready to be written.
pub(super) struct Ready {
    number: u64,
    last: bool,
    buffer: Arc<Buffer>,
    /// The bytes to write; `None` if the span is written as it is.
    packed: Option<Vec<u8>>,
    /// Hash of the bytes to write; the last one lacks the trailer.
    hasher: Sha256,
    crc: Crc,
}

/// Compresses spans, in any order.
pub(super) struct Compressor {
    deflater: Option<Deflater>,
}

impl Compressor {
    pub(super) fn new(packing: Packing) -> Result<Self, Error> {
        Ok(Self { deflater: if packing == Packing::GzipTar { Some(Deflater::new()?) } else { None } })
    }

    pub(super) fn run(&mut self, job: Job) -> Result<Ready, Error> {
        let Job { number, last, buffer } = job;
        let (mut hasher, mut crc, mut packed) = (Sha256::new(), Crc::new(), None);
        if let Some(deflater) = &mut self.deflater {
            let mut out = if number == 0 { deflate::HEADER.to_vec() } else { Vec::new() };
            deflater.span(&buffer.data, last, &mut out)?;
            crc.update(&buffer.data);
            hasher.update(&out);
            packed = Some(out);
        } else {
            hasher.update(&buffer.data);
        }
        Ok(Ready { number, last, buffer, packed, hasher, crc })
    }
}

/// The written blob.
pub(super) struct Written {
    pub(super) digest: Digest,
    pub(super) length: u64,
    pub(super) stream_length: u64,
    pub(super) spans: Vec<Span>,
}

/// Orders spans, hashes the blob and writes it.
pub(super) struct Writer {
    output: Box<dyn Write + Send>,
    packing: Packing,
    waiting: BTreeMap<u64, Ready>,
    next: u64,
    hasher: Hasher,
    crc: Crc,
    blob: u64,
    stream: u64,
    spans: Vec<Span>,
}

impl Writer {
    pub(super) fn new(packing: Packing, output: Box<dyn Write + Send>) -> Self {
        Self {
            output,
            packing,
            waiting: BTreeMap::new(),
            next: 0,
            hasher: Hasher::new(Algorithm::Sha256),
            crc: Crc::new(),
            blob: 0,
            stream: 0,
            spans: Vec::new(),
        }
    }

    /// Takes a span, and writes it and those that waited for it.
    pub(super) fn accept(&mut self, ready: Ready) -> Result<(), Error> {
        self.waiting.insert(ready.number, ready);
        while let Some(ready) = self.waiting.remove(&self.next) {
            self.next += 1;
            self.write(ready)?;
        }
        Ok(())
    }

    /// Drops queued spans to free their memory.
    pub(super) fn give_up(&mut self) {
        self.waiting.clear();
    }

    fn write(&mut self, mut ready: Ready) -> Result<(), Error> {
        let start = (self.stream, self.blob);
        self.stream += ready.buffer.data.len() as u64;
        self.crc.combine(&ready.crc);
        let bytes = ready.packed.as_ref().unwrap_or(&ready.buffer.data);
        put(&mut *self.output, &mut self.hasher, &mut self.blob, bytes)?;
        if ready.last && self.packing == Packing::GzipTar {
            let trailer = deflate::trailer(self.crc.sum(), self.crc.amount());
            ready.hasher.update(trailer);
            put(&mut *self.output, &mut self.hasher, &mut self.blob, &trailer)?;
        }
        if self.stream > start.0 {
            self.spans.push(Span {
                stream: start.0..self.stream,
                blob: start.1..self.blob,
                restart: if self.packing == Packing::GzipTar && start.0 > 0 { Restart::Window { bits: 0 } } else { Restart::Clean },
                digest: Some(ready.hasher.finalize().into()),
            });
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Written, Error> {
        self.output.flush().map_err(unwritten)?;
        Ok(Written { digest: self.hasher.finish(), length: self.blob, stream_length: self.stream, spans: self.spans })
    }
}

fn put(output: &mut dyn Write, hasher: &mut Hasher, position: &mut u64, bytes: &[u8]) -> Result<(), Error> {
    hasher.update(bytes);
    output.write_all(bytes).map_err(unwritten)?;
    *position += bytes.len() as u64;
    Ok(())
}

fn unwritten(error: std::io::Error) -> Error {
    Error::io("cannot write the packed layer", error)
}

/// Builds the entries by reading the tar being written, exactly as a later scan of the blob does.
pub(super) struct Entries {
    walker: Walker,
    builder: Builder,
}

impl Entries {
    pub(super) fn new(resources: &Resources) -> Self {
        Self { walker: Walker::new(), builder: Builder::new(resources) }
    }

    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), Error> {
        self.walker.push(data, &mut self.builder, &mut NoSink)
    }

    pub(super) fn finish(mut self) -> Result<Builder, Error> {
        self.walker.finish(&mut self.builder)?;
        Ok(self.builder)
    }
}

/// Discards the stream.
struct NoSink;

impl SpanSink for NoSink {
    fn member(&mut self, _stream: Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    fn span(&mut self, _number: u32, _stream: Range<u64>, _data: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}
