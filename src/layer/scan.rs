//! The single streaming pass over a blob: decompress, find restart points, walk the tar, hash files.

use std::sync::Arc;

use super::build::Builder;
use super::cut::Cutter;
use super::decode::Reader;
use super::format::Blob;
use super::sink::SpanSink;
use super::step::Step;
use super::tar::Walker;
use super::zstandard::Zstandard;
use super::{Codec, LayerIndex, RAW_SPAN, Resources, Restart, Span, Windows};
use crate::error::Error;
use crate::oci::Digest;

/// Bytes needed to detect the compression.
const MAGIC: usize = 10;
/// Compressions that are recognised but not supported. Their magic is longer than a tar could start with by chance.
const UNREAD: [(&[u8], &str); 13] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh11AY&SY", "bzip2"),
    (b"BZh21AY&SY", "bzip2"),
    (b"BZh31AY&SY", "bzip2"),
    (b"BZh41AY&SY", "bzip2"),
    (b"BZh51AY&SY", "bzip2"),
    (b"BZh61AY&SY", "bzip2"),
    (b"BZh71AY&SY", "bzip2"),
    (b"BZh81AY&SY", "bzip2"),
    (b"BZh91AY&SY", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"LZIP\x01", "lzip"),
    (b"PK\x03\x04", "zip"),
];

/// How to interpret the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A tar, possibly compressed (detected by content).
    Archive,
    /// The raw bytes: spans of fixed size, no entries.
    Raw,
}

/// The codec gets blocks of this size, aligned within the blob, so that spans do not depend on the pieces in which the blob arrives.
const BLOCK: usize = 64 * 1024;

/// A scan in progress.
pub struct Scan {
    form: Form,
    builder: Builder,
    windows: Arc<dyn Windows>,
    stage: Stage,
}

enum Stage {
    /// Too few bytes yet to detect the codec.
    Sniffing(Vec<u8>),
    /// Scanning.
    Running(Box<Running>),
    /// An error ended the scan.
    Failed(Error),
}

struct Running {
    codec: Codec,
    reader: Reader,
    cutter: Cutter,
    walker: Option<Walker>,
    /// Compressed bytes of an incomplete block.
    block: Vec<u8>,
}

impl Scan {
    /// Starts a scan.
    pub fn new(form: Form, resources: &Resources) -> Self {
        let windows = Arc::clone(&resources.windows);
        Self { form, builder: Builder::new(resources), windows, stage: Stage::Sniffing(Vec::new()) }
    }

    /// Feeds blob bytes.
    pub fn push(&mut self, blob: &[u8], sink: &mut dyn SpanSink) -> Result<(), Error> {
        let result = self.take(blob, sink);
        if let Err(error) = &result {
            self.stage = Stage::Failed(error.clone());
        }
        result
    }

    fn take(&mut self, blob: &[u8], sink: &mut dyn SpanSink) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Failed(error) => Err(error.clone()),
            Stage::Running(running) => running.push(blob, &mut self.builder, sink),
            Stage::Sniffing(start) => {
                start.extend_from_slice(blob);
                if start.len() < MAGIC {
                    return Ok(());
                }
                let start = std::mem::take(start);
                self.begin(&start, sink)
            }
        }
    }

    fn begin(&mut self, start: &[u8], sink: &mut dyn SpanSink) -> Result<(), Error> {
        let codec = if self.form == Form::Raw { Codec::Identity } else { codec_of(start) };
        if self.form == Form::Archive
            && codec == Codec::Identity
            && let Some((_, name)) = UNREAD.iter().find(|(magic, _)| start.starts_with(magic))
        {
            return Err(Error::unsupported(format!("it is compressed with {name}, which is not supported (gzip and zstd are)")));
        }
        let mut running = Box::new(Running {
            codec,
            reader: Reader::new(codec, &self.windows)?,
            cutter: Cutter::new(codec),
            walker: (self.form == Form::Archive).then(Walker::new),
            block: Vec::new(),
        });
        let result = running.push(start, &mut self.builder, sink);
        self.stage = Stage::Running(running);
        result
    }

    /// Ends the scan; `digest` is the blob's, verified by the caller.
    pub fn finish(mut self, digest: Digest, sink: &mut dyn SpanSink) -> Result<LayerIndex, Error> {
        if let Stage::Sniffing(start) = &mut self.stage {
            let start = std::mem::take(start);
            self.begin(&start, sink)?;
        }
        match self.stage {
            Stage::Failed(error) => Err(error),
            Stage::Running(running) => running.finish(digest, self.builder, sink),
            Stage::Sniffing(_) => Err(Error::other("the scan did not begin".to_owned())),
        }
    }
}

/// The index of a raw blob whose spans of [`RAW_SPAN`] bytes were hashed: what a [`Scan`] of its bytes makes.
pub fn raw_index(digest: Digest, length: u64, spans: &[[u8; 32]], resources: &Resources) -> Result<LayerIndex, Error> {
    let mut builder = Builder::new(resources);
    for (start, digest) in (0..length).step_by(RAW_SPAN as usize).zip(spans) {
        let range = start..length.min(start + RAW_SPAN);
        builder.span(&Span { stream: range.clone(), blob: range, restart: Restart::Clean, digest: Some(*digest) }, &[])?;
    }
    builder.finish(&Blob {
        digest,
        stream_length: length,
        blob_length: length,
        codec: Codec::Identity,
        is_archive: false,
        of_content: false,
    })
}

/// The codec detected from an archive's first bytes.
fn codec_of(start: &[u8]) -> Codec {
    match start {
        [0x1f, 0x8b, ..] => Codec::Gzip,
        [a, b, c, d, ..] if Zstandard::recognises([*a, *b, *c, *d]) => Codec::Zstd,
        _ => Codec::Identity,
    }
}

impl Running {
    fn push(&mut self, mut blob: &[u8], builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        if self.codec == Codec::Identity {
            return self.feed(blob, builder, sink);
        }
        while !blob.is_empty() {
            if self.block.is_empty() && blob.len() >= BLOCK {
                let (now, later) = blob.split_at(BLOCK);
                self.feed(now, builder, sink)?;
                blob = later;
                continue;
            }
            let (now, later) = blob.split_at(blob.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            blob = later;
            if self.block.len() == BLOCK {
                self.feed_block(builder, sink)?;
            }
        }
        Ok(())
    }

    fn feed_block(&mut self, builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        let mut block = std::mem::take(&mut self.block);
        self.feed(&block, builder, sink)?;
        block.clear();
        self.block = block;
        Ok(())
    }

    /// Decodes a piece completely.
    fn feed(&mut self, mut input: &[u8], builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        let mut pending = false;
        while !input.is_empty() || pending {
            let looks_for_end = self.cutter.looks_for_end();
            let room = self.cutter.room(self.codec == Codec::Gzip);
            let available = room.len();
            let step = self.reader.step(input, room, looks_for_end)?;
            if !step.moved() {
                break;
            }
            pending = step.produced == available;
            self.walk(&step, builder, sink)?;
            let (consumed, rest) = input.split_at(step.consumed.min(input.len()));
            let reader = &mut self.reader;
            self.cutter.advance(&step, consumed, rest.first().copied(), || reader.history(), builder, sink)?;
            input = rest;
        }
        if input.is_empty() {
            Ok(())
        } else {
            Err(Error::integrity(format!("the data makes no progress at byte {} of the blob", self.cutter.blob_position())))
        }
    }

    fn walk(&mut self, step: &Step, builder: &mut Builder, sink: &mut dyn SpanSink) -> Result<(), Error> {
        match &mut self.walker {
            Some(walker) => walker.push(self.cutter.fresh(step.produced), builder, sink),
            None => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>, digest: Digest, mut builder: Builder, sink: &mut dyn SpanSink) -> Result<LayerIndex, Error> {
        self.feed_block(&mut builder, sink)?;
        self.reader.finish()?;
        if let Some(walker) = &mut self.walker {
            walker.finish(&mut builder)?;
        }
        self.cutter.finish(&mut builder, sink)?;
        let blob = Blob {
            digest,
            stream_length: self.cutter.stream_position(),
            blob_length: self.cutter.blob_position(),
            codec: self.codec,
            is_archive: self.walker.is_some(),
            of_content: false,
        };
        builder.finish(&blob)
    }
}
