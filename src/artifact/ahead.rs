//! Read-ahead across the files of a mounted artifact: while small ones are opened in tree order, as by `cp -r`, the next ones are fetched, also those in
//! other layers.

use std::sync::Arc;

use super::artifacts::Artifacts;
use super::fill::Parts;
use super::loaded::Artifact;
use super::tree::NodeId;
use crate::content::BlobSource;
use crate::layer::Form;
use crate::oci::Repository;

/// Most bytes of a window of raw blobs.
const RAW_BYTES: u64 = 4 << 20;
/// Most bytes of a window of files in layers, with a cache of at least eight times that size.
const LAYER_BYTES: u64 = 16 << 20;
/// Larger files are read ahead by themselves.
const LARGE: u64 = 1 << 20;
/// Bytes between two files of a layer that are fetched with them: headers, and files that were skipped.
const GAP: u64 = 64 << 10;

impl Artifacts {
    /// Records that a file is opened, and fetches those that will probably be next. Returns at once.
    pub fn read_ahead(&self, repository: &Repository, artifact: &Arc<Artifact>, node: NodeId, strict: bool) {
        if self.follow_order(repository, artifact, node, strict) {
            return;
        }
        let strict = strict || self.options().strict;
        let source = |source: &BlobSource| BlobSource { repository: repository.clone(), strict, ..source.clone() };
        if small(artifact, node).is_some() {
            let ahead = artifact.raw_tracks.lock().opened(node);
            let sources = ahead.filter_map(|node| small(artifact, node)).scan(0, |bytes, found| {
                *bytes += found.descriptor.size;
                (*bytes <= RAW_BYTES).then(|| (source(found), 0..found.descriptor.size))
            });
            self.inner.contents.fetch_ahead(sources.collect());
        } else if packed(artifact, node).is_some() {
            // What is fetched must survive in the cache until it is read.
            let limit = LAYER_BYTES.min(self.inner.cache.size() / 8);
            let mut tracks = artifact.packed_tracks.lock();
            let (mut bytes, mut nodes) = (0, Vec::new());
            let ahead = tracks.opened(node);
            for next in node.saturating_add(1)..ahead.end {
                let Some(size) = packed(artifact, next) else { continue };
                bytes += size;
                if bytes > limit {
                    tracks.reached_only(next.max(ahead.start));
                    break;
                }
                // Those before are being fetched.
                if next >= ahead.start {
                    nodes.push(next);
                }
            }
            drop(tracks);
            let ranges = Parts::of_files(artifact, nodes.into_iter()).joined(GAP);
            let ranges = ranges.into_iter().filter_map(|(blob, range)| Some((source(artifact.source(blob)?), range)));
            self.inner.contents.fetch_ahead(ranges.collect());
        }
    }
}

/// The blob of a file, if it is a small raw one.
fn small(artifact: &Artifact, node: NodeId) -> Option<&BlobSource> {
    let source = artifact.source(artifact.tree.content(node)?.blob)?;
    (source.is_small() && !artifact.manifests.contains(&source.descriptor.digest)).then_some(source)
}

/// The size of a file, if it is a small one in a layer.
fn packed(artifact: &Artifact, node: NodeId) -> Option<u64> {
    let content = artifact.tree.content(node)?;
    let size = artifact.tree.node(node)?.size;
    (size < LARGE && artifact.source(content.blob)?.form == Form::Archive).then_some(size)
}
