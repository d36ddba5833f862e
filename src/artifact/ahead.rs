//! Read-ahead across the files of a mounted artifact: while small raw ones are opened in tree order, as by `cp -r`, the next ones are fetched.

use super::artifacts::Artifacts;
use super::loaded::Artifact;
use super::tree::NodeId;
use crate::content::BlobSource;
use crate::oci::Repository;

/// Most bytes of a window.
const BYTES: u64 = 4 << 20;

impl Artifacts {
    /// Records that a file is opened, and fetches those that will probably be next. Returns at once.
    pub fn read_ahead(&self, repository: &Repository, artifact: &Artifact, node: NodeId, strict: bool) {
        if small(artifact, node).is_none() {
            return;
        }
        let ahead = artifact.tracks.lock().opened(node);
        let strict = strict || self.options().strict;
        let sources = ahead.filter_map(|node| small(artifact, node)).scan(0, |bytes, source| {
            *bytes += source.descriptor.size;
            (*bytes <= BYTES).then(|| BlobSource { repository: repository.clone(), strict, ..source.clone() })
        });
        self.inner.contents.fetch_ahead(sources.collect());
    }
}

/// The blob of a file, if it is a small raw one.
fn small(artifact: &Artifact, node: NodeId) -> Option<&BlobSource> {
    let source = artifact.source(artifact.tree.content(node)?.blob)?;
    (source.is_small() && !artifact.manifests.contains(&source.descriptor.digest)).then_some(source)
}
