//! Fetches parts of an artifact into the cache before anybody reads them.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::loaded::Artifact;
use super::{Artifacts, NodeId};
use crate::error::Error;
use crate::layer::Extent;
use crate::oci::Repository;

/// Streams read at once.
const STREAMS: usize = 8;
/// Bytes read at a time.
const STEP: u64 = 8 << 20;

/// Ranges of the streams of an artifact, by blob, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(Vec<(u32, Range<u64>)>);

impl Parts {
    /// The content of these files. Other nodes have none.
    pub fn of_files(artifact: &Artifact, nodes: impl Iterator<Item = NodeId>) -> Self {
        Self::of(nodes.flat_map(|node| starts(artifact, node, u64::MAX)).collect())
    }

    fn of(mut ranges: Vec<(u32, Range<u64>)>) -> Self {
        ranges.sort_by_key(|(blob, range)| (*blob, range.start));
        let mut parts: Vec<(u32, Range<u64>)> = Vec::new();
        for (blob, range) in ranges {
            match parts.last_mut() {
                Some((last, reached)) if *last == blob && range.start <= reached.end => reached.end = reached.end.max(range.end),
                _ => parts.push((blob, range)),
            }
        }
        Self(parts)
    }

    /// The ranges of each blob, joined where at most `gap` bytes lie between them.
    pub(super) fn joined(self, gap: u64) -> Vec<(u32, Range<u64>)> {
        let mut joined: Vec<(u32, Range<u64>)> = Vec::new();
        for (blob, range) in self.0 {
            match joined.last_mut() {
                Some((last, reached)) if *last == blob && range.start <= reached.end.saturating_add(gap) => reached.end = range.end,
                _ => joined.push((blob, range)),
            }
        }
        joined
    }

    /// The first bytes of each of these files, joined so, in the order of the files.
    pub(super) fn of_starts_in_order(artifact: &Artifact, files: &[NodeId], most: u64, gap: u64) -> Vec<(u32, Range<u64>)> {
        let starts: Vec<(u32, Range<u64>)> = files.iter().flat_map(|file| starts(artifact, *file, most)).collect();
        let mut joined: Vec<Option<(u32, Range<u64>)>> = Self::of(starts.clone()).joined(gap).into_iter().map(Some).collect();
        let places: Vec<(u32, u64)> = joined.iter().flatten().map(|(blob, range)| (*blob, range.start)).collect();
        let place = |(blob, range): &(u32, Range<u64>)| places.partition_point(|place| *place <= (*blob, range.start)).checked_sub(1);
        starts.iter().filter_map(place).filter_map(|place| joined.get_mut(place)?.take()).collect()
    }

    /// Their length in bytes.
    pub fn length(&self) -> u64 {
        self.0.iter().map(|(_, range)| range.end - range.start).sum()
    }
}

/// The ranges of the first bytes of a file.
pub(super) fn starts(artifact: &Artifact, file: NodeId, most: u64) -> Vec<(u32, Range<u64>)> {
    let Some(content) = artifact.tree.content(file) else { return Vec::new() };
    let range = |extent: &Extent| {
        let length = extent.length.min(most.saturating_sub(extent.file));
        (content.blob, extent.stream..extent.stream.saturating_add(length))
    };
    content.extents.iter().map(range).filter(|(_, range)| !range.is_empty()).collect()
}

impl Artifacts {
    /// All streams of an artifact.
    ///
    /// # Errors
    /// Those of opening a stream.
    pub async fn whole(&self, repository: &Repository, artifact: &Artifact, strict: bool) -> Result<Parts, Error> {
        let blobs = 0..u32::try_from(artifact.sources().len()).unwrap_or(u32::MAX);
        let lengths = stream::iter(blobs).map(|blob| async move {
            let stream = self.stream(repository, artifact, blob, strict).await?;
            Ok::<_, Error>((blob, 0..stream.length()))
        });
        Ok(Parts(lengths.buffered(STREAMS).try_collect().await?))
    }

    /// Reads parts of an artifact, which fills the cache; counts the bytes in `done`. Fetches nothing that is cached.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn fill(
        &self,
        repository: &Repository,
        artifact: &Artifact,
        parts: &Parts,
        strict: bool,
        done: &AtomicU64,
    ) -> Result<(), Error> {
        let reads = stream::iter(parts.0.chunk_by(|one, other| one.0 == other.0)).map(|ranges| async move {
            let Some((blob, _)) = ranges.first() else { return Ok(()) };
            let stream = self.stream(repository, artifact, *blob, strict).await?;
            for (_, range) in ranges {
                let mut offset = range.start;
                while offset < range.end {
                    let end = range.end.min(offset + STEP);
                    stream.read(offset..end).await?;
                    done.fetch_add(end - offset, Ordering::Relaxed);
                    offset = end;
                }
            }
            Ok::<_, Error>(())
        });
        reads.buffer_unordered(STREAMS).try_collect().await
    }
}
