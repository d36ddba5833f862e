//! Reads ranges of one file through its extents. Gaps between extents are holes and read as zeros.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::artifact::{Artifact, Artifacts, Kind, NodeId};
use crate::content::{ContentStream, Verified};
use crate::error::{Error, ErrorKind};
use crate::layer::Extent;
use crate::oci::Repository;

/// Maximum bytes per read. The kernel is configured to request less.
pub const READ_LIMIT: u32 = 4 << 20;

/// An open file: always the bytes it had when opened.
pub struct Reader {
    size: u64,
    source: ReaderSource,
}

enum ReaderSource {
    Hole,
    Memory(Bytes),
    File(File),
    Stream { stream: ContentStream, extents: Vec<Extent> },
    Pieces(Box<dyn Pieces>),
}

/// A file whose bytes are in several places.
#[async_trait]
pub trait Pieces: Send + Sync {
    /// The bytes of a range, fewer only at the end of the file.
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Error>;
}

impl Reader {
    /// A regular file of a tree. `strict`: serves nothing before the whole blob that holds it is verified.
    ///
    /// # Errors
    /// Gone for anything but a regular file; errors of opening its stream.
    pub async fn of_tree(
        artifacts: &Artifacts,
        repository: &Repository,
        artifact: &Artifact,
        node: NodeId,
        strict: bool,
    ) -> Result<Self, Error> {
        let file = artifact.tree.node(node).filter(|node| node.kind == Kind::File).ok_or_else(super::no_node)?;
        match artifact.tree.content(node) {
            Some(content) if !content.extents.is_empty() => {
                let stream = artifacts.stream(repository, artifact, content.blob, strict).await?;
                Ok(Self::of_stream(file.size, stream, content.extents))
            }
            _ => Ok(Self::of_hole(file.size)),
        }
    }

    /// A file of zeros.
    pub fn of_hole(size: u64) -> Self {
        Self { size, source: ReaderSource::Hole }
    }

    /// A file in memory.
    pub fn of_memory(bytes: Bytes) -> Self {
        Self { size: bytes.len() as u64, source: ReaderSource::Memory(bytes) }
    }

    /// A local file that does not change.
    pub fn of_file(size: u64, file: File) -> Self {
        Self { size, source: ReaderSource::File(file) }
    }

    /// A file whose pieces are in a stream, in file order.
    pub fn of_stream(size: u64, stream: ContentStream, extents: Vec<Extent>) -> Self {
        Self { size, source: ReaderSource::Stream { stream, extents } }
    }

    /// A file whose bytes are in several places and do not change.
    pub fn of_pieces(size: u64, pieces: Box<dyn Pieces>) -> Self {
        Self { size, source: ReaderSource::Pieces(pieces) }
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How far the bytes are verified against the digest.
    pub fn verified(&self) -> Verified {
        match &self.source {
            ReaderSource::Hole | ReaderSource::Memory(_) | ReaderSource::File(_) | ReaderSource::Pieces(_) => Verified::Whole,
            ReaderSource::Stream { stream, .. } => stream.verified(),
        }
    }

    /// Its bytes as one range of a stream, if they are one and present.
    pub fn whole(&self) -> Option<(&ContentStream, Range<u64>)> {
        let ReaderSource::Stream { stream, extents } = &self.source else { return None };
        let [Extent { file: 0, stream: start, length }] = extents.as_slice() else { return None };
        let range = *start..start.checked_add(*length)?;
        (*length == self.size && stream.holds(&range)).then_some((stream, range))
    }

    /// The start of the next data (or hole) at or after an offset; the end of the file counts as a hole. `None` beyond the end.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let extents = match &self.source {
            ReaderSource::Hole => &[],
            ReaderSource::Memory(_) | ReaderSource::File(_) | ReaderSource::Pieces(_) => {
                return Some(if data { offset } else { self.size });
            }
            ReaderSource::Stream { extents, .. } => extents.as_slice(),
        };
        if data {
            let next = extents.iter().find(|extent| extent.file.saturating_add(extent.length) > offset)?;
            return Some(next.file.max(offset)).filter(|start| *start < self.size);
        }
        let mut hole = offset;
        for extent in extents.iter().filter(|extent| extent.length > 0) {
            let end = extent.file.saturating_add(extent.length);
            if end > hole && extent.file > hole {
                break;
            }
            hole = hole.max(end);
        }
        Some(hole.min(self.size))
    }

    /// The bytes of a range, fewer only at the end of the file.
    ///
    /// # Errors
    /// Errors of the stream; Invalid for more than `READ_LIMIT` bytes.
    pub async fn read(&self, offset: u64, length: u32) -> Result<Bytes, Error> {
        if length > READ_LIMIT {
            return Err(Error::new(ErrorKind::Invalid, "a single read is limited to 4 MiB"));
        }
        let start = offset.min(self.size);
        let end = start.saturating_add(length.into()).min(self.size);
        match &self.source {
            ReaderSource::Hole => Ok(zeros(start, end).freeze()),
            ReaderSource::Memory(bytes) => Ok(within(bytes, start, end)),
            ReaderSource::File(file) => read_file(file, start, end),
            ReaderSource::Stream { stream, extents } => read_extents(stream, extents, start, end).await,
            ReaderSource::Pieces(pieces) => pieces.read(start, u32::try_from(end - start).unwrap_or(u32::MAX)).await,
        }
    }
}

/// The part of a file between two offsets, both at most its length.
fn within(bytes: &Bytes, start: u64, end: u64) -> Bytes {
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) => bytes.slice(start..end),
        _ => Bytes::new(),
    }
}

/// Reads a range of a local file; an early end means that the file was truncated, which is an error.
fn read_file(file: &File, start: u64, end: u64) -> Result<Bytes, Error> {
    let mut buffer = zeros(start, end);
    let read = file.read_exact_at(&mut buffer, start);
    read.map_err(|error| Error::new(ErrorKind::Other, format!("a staged file cannot be read: {error}")))?;
    Ok(buffer.freeze())
}

/// A buffer for the range; its length is bounded by [`READ_LIMIT`].
fn zeros(start: u64, end: u64) -> BytesMut {
    BytesMut::zeroed(usize::try_from(end - start).unwrap_or(0))
}

async fn read_extents(stream: &ContentStream, extents: &[Extent], start: u64, end: u64) -> Result<Bytes, Error> {
    let pieces = pieces(extents, start, end);
    if let [only] = pieces.as_slice()
        && only.length == end - start
    {
        return stream.read(only.stream..only.stream + only.length).await;
    }
    let mut buffer = zeros(start, end);
    for piece in pieces {
        let data = stream.read(piece.stream..piece.stream + piece.length).await?;
        let target = usize::try_from(piece.file - start).ok().and_then(|at| buffer.get_mut(at..)?.get_mut(..data.len()));
        let Some(target) = target else {
            return Err(Error::new(ErrorKind::Other, "a stream returned more than was requested"));
        };
        target.copy_from_slice(&data);
    }
    Ok(buffer.freeze())
}

/// The parts of extents that overlap a range of the file, in file order.
fn pieces(extents: &[Extent], start: u64, end: u64) -> Vec<Extent> {
    let first = extents.partition_point(|extent| extent.file.saturating_add(extent.length) <= start);
    let cut = |extent: &Extent| {
        let from = extent.file.max(start);
        let to = extent.file.saturating_add(extent.length).min(end);
        let stream = extent.stream.checked_add(from - extent.file)?;
        let length = to.checked_sub(from).filter(|length| *length > 0)?;
        stream.checked_add(length)?;
        Some(Extent { file: from, stream, length })
    };
    extents.iter().skip(first).take_while(|extent| extent.file < end).filter_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(file: u64, stream: u64, length: u64) -> Extent {
        Extent { file, stream, length }
    }

    #[test]
    fn a_range_covers_exactly_the_parts_of_extents_inside_it() {
        let extents = [extent(0, 100, 10), extent(20, 110, 10), extent(40, 500, 5)];
        assert_eq!(pieces(&extents, 0, 45), extents);
        assert_eq!(pieces(&extents, 5, 25), [extent(5, 105, 5), extent(20, 110, 5)]);
        assert_eq!(pieces(&extents, 10, 20), []);
        assert_eq!(pieces(&extents, 29, 41), [extent(29, 119, 1), extent(40, 500, 1)]);
        assert_eq!(pieces(&extents, 45, 45), []);
    }

    #[test]
    fn extents_at_the_end_of_numbers_are_dropped_not_wrapped() {
        assert_eq!(pieces(&[extent(0, u64::MAX - 1, 10)], 0, 10), []);
        assert_eq!(pieces(&[extent(u64::MAX - 1, 0, 10)], 0, 10), []);
    }

    #[tokio::test]
    async fn holes_read_as_zeros_up_to_the_end_of_the_file() {
        let hole = Reader::of_hole(10);
        assert_eq!(hole.read(4, 100).await.unwrap().as_ref(), [0; 6]);
        assert_eq!(hole.read(10, 1).await.unwrap().as_ref(), [0; 0]);
        assert_eq!(hole.read(u64::MAX, 1).await.unwrap().as_ref(), [0; 0]);
    }

    #[tokio::test]
    async fn a_read_larger_than_the_limit_is_refused_not_shortened() {
        let error = Reader::of_hole(u64::MAX).read(0, READ_LIMIT + 1).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
    }

    #[test]
    fn data_and_holes_follow_the_extents() {
        let extents = vec![extent(0, 0, 10), extent(10, 10, 5), extent(40, 15, 5)];
        let stream = ContentStream::of_bytes(Bytes::from(vec![1; 20]));
        let file = Reader::of_stream(60, stream, extents);
        let data = |offset| file.seek(offset, true);
        let hole = |offset| file.seek(offset, false);
        assert_eq!([data(0), data(14), data(15), data(44), data(45), data(60)], [Some(0), Some(14), Some(40), Some(44), None, None]);
        assert_eq!([hole(0), hole(15), hole(40), hole(59), hole(60)], [Some(15), Some(15), Some(45), Some(59), None]);
        assert_eq!((Reader::of_hole(5).seek(0, true), Reader::of_hole(5).seek(2, false)), (None, Some(2)));
        let memory = Reader::of_memory(Bytes::from_static(b"hello"));
        assert_eq!((memory.seek(2, true), memory.seek(2, false)), (Some(2), Some(5)));
    }

    #[tokio::test]
    async fn memory_is_read_by_range() {
        let reader = Reader::of_memory(Bytes::from_static(b"hello"));
        assert_eq!(reader.read(1, 3).await.unwrap(), "ell");
        assert_eq!(reader.read(9, 3).await.unwrap(), "");
    }
}
