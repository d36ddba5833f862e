//! Counts the bytes of files, and how many of them are on this machine. Reads, fetches and uses nothing.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

use super::loaded::Artifact;
use super::{Artifacts, Kind, NodeId};
use crate::content::{BlobSource, Presence};
use crate::oci::{Digest, Repository};

/// Streams looked at before they are forgotten: each has its table mapped.
const STREAMS: usize = 64;

/// Bytes of files, and those that a read gets without a request. Shown as `CACHED/TOTAL`.
pub struct CachedBytes {
    artifacts: Artifacts,
    repository: Repository,
    cached: u64,
    total: u64,
    /// The present bytes of the blobs looked at last, by manifest and number.
    streams: HashMap<(Digest, u32), Presence>,
}

impl CachedBytes {
    /// No file yet.
    pub fn new(artifacts: &Artifacts, repository: &Repository) -> Self {
        Self { artifacts: artifacts.clone(), repository: repository.clone(), cached: 0, total: 0, streams: HashMap::new() }
    }

    /// Counts bytes that are here.
    pub fn add_local(&mut self, bytes: u64) {
        self.cached = self.cached.saturating_add(bytes);
        self.total = self.total.saturating_add(bytes);
    }

    /// Counts a range of a file. Its holes are here. Blocks on the disk.
    pub fn add_range(&mut self, artifact: &Artifact, file: NodeId, range: &Range<u64>) {
        let mut missing = 0;
        for (blob, extent) in artifact.tree.content(file).into_iter().flat_map(|content| {
            let blob = content.blob;
            content.extents.into_iter().map(move |extent| (blob, extent))
        }) {
            let start = extent.file.max(range.start);
            let end = extent.file.saturating_add(extent.length).min(range.end);
            if start < end {
                let stream = extent.stream.saturating_add(start - extent.file);
                missing += end - start - self.presence(artifact, blob).of(&(stream..stream.saturating_add(end - start)));
            }
        }
        let length = range.end.saturating_sub(range.start);
        self.total = self.total.saturating_add(length);
        self.cached = self.cached.saturating_add(length.saturating_sub(missing));
    }

    /// Counts a file, or all files below a directory, each once however many names it has. Blocks on the disk.
    pub fn add(&mut self, artifact: &Artifact, node: NodeId) {
        let (mut rest, mut linked) = (vec![node], BTreeSet::new());
        while let Some(node) = rest.pop() {
            let Some(found) = artifact.tree.node(node) else { continue };
            match found.kind {
                Kind::Directory => rest.extend(artifact.tree.children(node, 0).map(|child| child.node)),
                Kind::File if found.links < 2 || linked.insert(node) => self.add_range(artifact, node, &(0..found.size)),
                _ => {}
            }
        }
    }

    fn presence(&mut self, artifact: &Artifact, blob: u32) -> &Presence {
        let key = (artifact.manifest.digest, blob);
        if self.streams.len() >= STREAMS && !self.streams.contains_key(&key) {
            self.streams.clear();
        }
        let (artifacts, repository) = (&self.artifacts, &self.repository);
        self.streams.entry(key).or_insert_with(|| match artifact.source(blob) {
            Some(source) if !artifact.manifests.contains(&source.descriptor.digest) => {
                artifacts.inner.contents.presence(&BlobSource { repository: repository.clone(), ..source.clone() })
            }
            _ => Presence::whole(),
        })
    }
}

impl fmt::Display for CachedBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.cached, self.total)
    }
}
