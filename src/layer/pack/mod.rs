//! Writes layers: entries and file bytes as a deterministic tar, compressed span by span on all cores, and indexed at the same time.
//!
//! The same entries give the same bytes: no clock, fixed compressor settings, spans cut at fixed stream offsets. A gzip layer is one member with a full
//! flush at the end of each span, so that any tool reads it and a span needs no window. The bytes are specified in `FORMAT.md`.

mod attached_index;
mod compressor;
mod deflate;
mod entry;
mod header;
mod pipeline;
mod sample;
mod splice;
mod stage;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::num::NonZeroUsize;

pub(in crate::layer) use self::attached_index::decompress;
pub use self::attached_index::{ATTACHED_INDEX_MOST, attached_index_memory, decode_attached, encode_attached, open_attached};
pub use self::entry::{PackEntry, Packing};
use self::header::BLOCK;
pub(super) use self::header::headers;
use self::pipeline::Pipeline;
pub use self::sample::{compressible, sample_ranges};
use super::build::{Builder, NewContent, NewEntry};
use super::format::Blob;
use super::{Codec, FileKind, LayerIndex, Metadata, RAW_SPAN, Resources};
use crate::error::Error;
use crate::oci::Digest;

/// Length of every span except the last, the same as in a scan.
pub const SPAN: NonZeroUsize = NonZeroUsize::new(RAW_SPAN as usize).unwrap();

/// A finished layer.
#[derive(Debug)]
pub struct Packed {
    /// Digest and length of the blob as stored.
    pub blob: (Digest, u64),
    /// Digest and length of the uncompressed stream (`diff_id` of an image).
    pub stream: (Digest, u64),
    /// The index of the layer, with a digest for each span and a SHA-256 for each file.
    pub index: LayerIndex,
}

/// A layer being written. Memory is bounded by a few spans per core, whatever the sizes.
///
/// Threads run from the second span on; all have ended when the packer is finished or dropped. A dropped packer leaves a useless partial output. After
/// an error it can only be dropped.
pub struct Packer {
    packing: Packing,
    pipeline: Pipeline,
    resources: Resources,
    /// Bytes of the current file still missing, and the zeros after them up to the next block.
    missing: u64,
    padding: usize,
    /// Name of the current entry.
    current: Vec<u8>,
    /// The single entry of a raw layer.
    raw: Option<PackEntry>,
}

impl Packer {
    /// Starts a layer whose index is built on the heap. `workers` threads compress (at least one); the blob is written to `output` in order.
    pub fn new(packing: Packing, workers: usize, output: Box<dyn Write + Send>) -> Self {
        Self::with_span(packing, workers, SPAN, &Resources::default(), output)
    }

    /// The same with spans of another length, at most 4 MiB, and an index built with these resources. Another length gives other bytes.
    pub fn with_span(packing: Packing, workers: usize, span: NonZeroUsize, resources: &Resources, output: Box<dyn Write + Send>) -> Self {
        let pipeline = Pipeline::new(packing, workers, span, resources, output);
        Self { packing, pipeline, resources: resources.clone(), missing: 0, padding: 0, current: Vec::new(), raw: None }
    }

    /// Memory needed to write a layer in bytes, besides its index.
    pub fn memory(workers: usize, span: NonZeroUsize) -> u64 {
        pipeline::memory(workers, span)
    }

    /// Starts an entry. The bytes of the previous one must be complete.
    ///
    /// # Errors
    /// Invalid for a name or value that tar cannot represent, naming the entry (see [`PackEntry::check`]), and if bytes of the previous entry are missing;
    /// NoSpace or Other if the output cannot be written.
    pub fn begin(&mut self, entry: &PackEntry) -> Result<(), Error> {
        self.end_entry()?;
        let headers = header::headers(entry)?;
        let size = if entry.kind == FileKind::File { entry.size } else { 0 };
        if self.packing == Packing::Raw {
            if entry.kind != FileKind::File || self.raw.is_some() {
                return Err(invalid(&entry.path, "a layer without an archive holds one regular file"));
            }
            self.raw = Some(entry.clone());
        } else {
            self.pipeline.push(&headers)?;
            self.padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        }
        self.missing = size;
        self.current.clone_from(&entry.path);
        Ok(())
    }

    /// Adds bytes of the current regular file.
    ///
    /// # Errors
    /// Invalid for more bytes than its size; NoSpace or Other if the output cannot be written.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(missing) = self.missing.checked_sub(bytes.len() as u64) else {
            return Err(invalid(&self.current, "it gave more bytes than its size"));
        };
        self.pipeline.push(bytes)?;
        self.missing = missing;
        Ok(())
    }

    fn end_entry(&mut self) -> Result<(), Error> {
        if self.missing > 0 {
            return Err(invalid(&self.current, "it gave fewer bytes than its size"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.pipeline.push([0; BLOCK].get(..padding).unwrap_or_default())
    }

    /// Ends the layer (two zero blocks and nothing after them) and waits until the output is written (not synced).
    ///
    /// # Errors
    /// Invalid if bytes of the last file are missing; NoSpace or Other if the output cannot be written.
    pub fn finish(mut self) -> Result<Packed, Error> {
        self.end_entry()?;
        if self.packing == Packing::Raw {
            if self.raw.is_none() {
                return Err(invalid(b"", "a layer without an archive holds one regular file"));
            }
        } else {
            self.pipeline.push(&[0; 2 * BLOCK])?;
        }
        let output = self.pipeline.finish()?;
        let written = output.written;
        let mut builder = match (output.builder, &self.raw) {
            (Some(builder), _) => builder,
            (None, Some(entry)) => raw_entry(entry, &written.digest, &self.resources)?,
            (None, None) => return Err(Error::other("a layer has no entries".to_owned())),
        };
        if let Some(warning) = builder.first_warning() {
            return Err(Error::other(format!("a layer was packed incorrectly: {warning}")));
        }
        for span in &written.spans {
            builder.span(span, &[])?;
        }
        let index = builder.finish(&Blob {
            digest: written.digest,
            stream_length: written.stream_length,
            blob_length: written.length,
            codec: if self.packing == Packing::GzipTar { Codec::Gzip } else { Codec::Identity },
            is_archive: self.packing != Packing::Raw,
            of_content: false,
        })?;
        Ok(Packed { blob: (written.digest, written.length), stream: (output.stream, written.stream_length), index })
    }
}

/// The entry of a raw layer, whose attributes are only in the index.
fn raw_entry(entry: &PackEntry, blob: &Digest, resources: &Resources) -> Result<Builder, Error> {
    let mut builder = Builder::new(resources);
    builder.entry(&NewEntry {
        path: &entry.path,
        kind: FileKind::File,
        metadata: Metadata { device: (0, 0), ..entry.metadata },
        size: entry.size,
        link: &[],
        sha256: blob.as_bytes().try_into().ok(),
        content: NewContent::Whole(0),
        xattrs: &entry.xattrs,
    })?;
    Ok(builder)
}

fn invalid(path: &[u8], problem: &str) -> Error {
    Error::new(crate::error::ErrorKind::Invalid, format!("{} cannot be packed: {problem}", header::shown(path)))
}
