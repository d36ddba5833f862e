//! Fetches parts of an artifact into the cache before anybody reads them.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::loaded::Artifact;
use super::{Artifacts, NodeId};
use crate::error::Error;
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
        let mut ranges: Vec<(u32, Range<u64>)> = Vec::new();
        for content in nodes.filter_map(|node| artifact.tree.content(node)) {
            let range = |extent: &crate::layer::Extent| extent.stream..extent.stream.saturating_add(extent.length);
            ranges.extend(content.extents.iter().map(|extent| (content.blob, range(extent))));
        }
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

    /// Their length in bytes.
    pub fn length(&self) -> u64 {
        self.0.iter().map(|(_, range)| range.end - range.start).sum()
    }
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
