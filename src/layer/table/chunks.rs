//! The chunks of all files: checks that they cover each file and lie apart in the blob, and lays them out in the stream.

use std::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::document::{self, Written};
use super::limits::unusable;
use crate::error::Error;
use crate::layer::build::{Builder, unkept};
use crate::layer::{Extent, Restart, Span};
use crate::oci::{Algorithm, Digest};
use crate::sys::array::{Array, Scratch};

/// Longest chunk: what a span may hold.
const CHUNK_MOST: u64 = 4 << 20;
/// Most bytes of a blob that a chunk may take beyond its length: what is not compressible grows a little.
const EXTRA: u64 = 64 << 10;

/// A chunk.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Chunk {
    /// Offset in its file.
    file_offset: u64,
    /// At most [`CHUNK_MOST`].
    length: u64,
    /// Offset in the blob.
    blob: u64,
    /// Offset in the stream, once laid out.
    stream: u64,
    digest: [u8; 32],
}

/// The chunks of all files of a table, in its order.
pub(super) struct Chunks {
    chunks: Array<Chunk>,
    /// For each file with content, where its chunks end in `chunks`.
    ends: Array<u32>,
}

/// A file whose chunks are being read.
struct OpenFile {
    name: String,
    size: u64,
    /// Up to where its chunks were seen.
    covered: u64,
    digest: Option<[u8; 32]>,
}

impl Chunks {
    /// Reads the chunks of a table.
    pub(super) fn collect(text: &[u8], scratch: &Scratch) -> Result<Self, Error> {
        let (mut all, mut open) = (Self { chunks: Array::new(scratch), ends: Array::new(scratch) }, None::<OpenFile>);
        document::read(text, |entry| {
            if !entry.is_chunk() {
                all.close(open.take())?;
                if !entry.is_file() || entry.size == 0 {
                    return Ok(());
                }
                let digest = entry.digest.as_deref().map(sha256).transpose()?;
                open = Some(OpenFile { name: entry.name.clone().into_owned(), size: entry.size, covered: 0, digest });
            }
            let file = open.as_mut().ok_or_else(|| unusable("a chunk belongs to no file"))?;
            if entry.is_chunk() && !entry.name.is_empty() && entry.name != file.name.as_str() {
                return Err(unusable("a chunk belongs to another file than the one before it"));
            }
            file.chunk(entry)?.map_or(Ok(()), |chunk| all.chunks.push(chunk).map_err(unkept))
        })?;
        all.close(open)?;
        Ok(all)
    }

    fn close(&mut self, file: Option<OpenFile>) -> Result<(), Error> {
        let Some(file) = file else { return Ok(()) };
        if file.covered != file.size {
            return Err(unusable("the chunks of a file do not cover it"));
        }
        let end = u32::try_from(self.chunks.len()).map_err(|_| unusable("it has too many chunks"))?;
        self.ends.push(end).map_err(unkept)
    }

    /// Records a span for each chunk, in the order of the blob; returns the length of the stream.
    pub(super) fn lay_out(&mut self, chunks_end: u64, scratch: &Scratch, builder: &mut Builder) -> Result<u64, Error> {
        let mut order = Array::<[u64; 2]>::new(scratch);
        for (number, chunk) in (0..).zip(self.chunks.iter()) {
            order.push([chunk.blob, number]).map_err(unkept)?;
        }
        order.sort_unstable();
        let mut stream = 0;
        let mut order = order.iter().peekable();
        while let Some([_, number]) = order.next() {
            let next = order.peek().map_or(chunks_end, |[blob, _]| *blob);
            let chunk = usize::try_from(*number).ok().and_then(|number| self.chunks.get_mut(number));
            let chunk = chunk.ok_or_else(|| unusable("it has too many chunks"))?;
            if chunk.blob == 0 || next <= chunk.blob {
                return Err(unusable("chunks overlap, or lie outside the layer"));
            }
            chunk.stream = stream;
            let blob = chunk.blob..next.min(chunk.blob.saturating_add(chunk.length + chunk.length / 8 + EXTRA));
            let span = Span { stream: stream..stream + chunk.length, blob, restart: Restart::Clean, digest: Some(chunk.digest) };
            stream = span.stream.end;
            builder.span(&span, &[])?;
        }
        Ok(stream)
    }

    /// Where the content of a file is: the file with this number among those with content. Consecutive chunks are one extent.
    pub(super) fn extents(&self, file: usize) -> Vec<Extent> {
        let chunks = self.range(file).and_then(|range| self.chunks.get(range)).unwrap_or_default();
        let mut extents: Vec<Extent> = Vec::new();
        for chunk in chunks {
            match extents.last_mut() {
                Some(last) if last.file + last.length == chunk.file_offset && last.stream + last.length == chunk.stream => {
                    last.length += chunk.length;
                }
                _ => extents.push(Extent { file: chunk.file_offset, stream: chunk.stream, length: chunk.length }),
            }
        }
        extents
    }

    fn range(&self, file: usize) -> Option<Range<usize>> {
        let start = file.checked_sub(1).map_or(Some(&0), |before| self.ends.get(before))?;
        Some(*start as usize..*self.ends.get(file)? as usize)
    }
}

impl OpenFile {
    /// The next chunk; `None` for a hole.
    fn chunk(&mut self, entry: &Written<'_>) -> Result<Option<Chunk>, Error> {
        let rest = self.size - self.covered;
        let length = if entry.chunk_size == 0 { rest } else { entry.chunk_size };
        if entry.chunk_offset != self.covered || length == 0 || length > rest {
            return Err(unusable("the chunks of a file do not follow each other"));
        }
        let file_offset = self.covered;
        self.covered += length;
        match entry.chunk_type.as_deref() {
            Some("zeros") => return Ok(None),
            None | Some("") => {}
            Some(_) => return Err(unusable("a chunk is of an unknown type")),
        }
        if entry.inner_offset != 0 {
            return Err(unusable("several chunks are compressed together"));
        }
        if length > CHUNK_MOST {
            return Err(unusable("a chunk has more than 4 MiB"));
        }
        let own = entry.chunk_digest.as_deref().filter(|text| !text.is_empty()).map(sha256).transpose()?;
        let whole = self.digest.filter(|_| length == self.size);
        if own.zip(whole).is_some_and(|(own, whole)| own != whole) {
            return Err(unusable("a file and its only chunk have different digests"));
        }
        let digest = own.or(whole).ok_or_else(|| unusable("a chunk has no digest"))?;
        Ok(Some(Chunk { file_offset, length, blob: entry.offset, stream: 0, digest }))
    }
}

/// A SHA-256 digest.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], Error> {
    let digest = Digest::parse(text).ok().filter(|digest| digest.algorithm() == Algorithm::Sha256);
    digest.and_then(|digest| digest.as_bytes().try_into().ok()).ok_or_else(|| unusable("a digest is no SHA-256"))
}
