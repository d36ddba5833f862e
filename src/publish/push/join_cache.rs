//! Adds packed layers to the cache, read from the pack store instead of the registry, so that they are never fetched.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};

use crate::artifact::{Artifact, Artifacts};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, LayoutForm, Manifest, Repository, Version};
use crate::publish::pack::made::Made;
use crate::publish::pack::store::file_source;
use crate::registry::{BlobStream, Page, Pull, Push, Resolved, Trust, UploadSource};

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;

/// The registry, with the packed blobs at hand.
struct AtHand {
    packed: HashMap<Digest, PathBuf>,
    push: Arc<dyn Push>,
}

/// Adds the packed layers to the cache. A failure only costs a fetch later.
pub(in crate::publish) async fn join_cache(artifacts: &Artifacts, artifact: &Artifact, made: &[Made], push: &Arc<dyn Push>) {
    let packed: HashMap<Digest, PathBuf> = made
        .iter()
        .filter_map(|made| match made {
            Made::Packed(ready) => Some((ready.blob.0, ready.path.clone())),
            Made::Remote(_) => None,
        })
        .collect();
    // A layout is read in place.
    if packed.is_empty() || LayoutForm::of_text(push.origin()).is_some() {
        return;
    }
    let digests: HashSet<Digest> = packed.keys().copied().collect();
    let at_hand = Arc::new(AtHand { packed, push: Arc::clone(push) });
    if let Err(error) = artifacts.join_cache(artifact, at_hand, &digests).await {
        tracing::warn!("cannot add all published layers to the cache: {error}");
    }
}

#[async_trait]
impl Pull for AtHand {
    fn origin(&self) -> &str {
        self.push.origin()
    }

    fn trust(&self) -> Trust {
        self.push.trust()
    }

    async fn ping(&self, about: Option<&Repository>) -> Result<(), Error> {
        self.push.ping(about).await
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        self.push.resolve(repository, version).await
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        self.push.manifest(repository, version).await
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        let Some(path) = self.packed.get(&descriptor.digest) else { return self.push.blob(repository, descriptor, range).await };
        let source = Arc::new(file_source(path, descriptor.size).map_err(|error| error.with_kind(ErrorKind::Other))?);
        let pieces = stream::iter((range.start..range.end).step_by(PIECE as usize));
        Ok(pieces
            .then(move |start| {
                let (source, length) = (Arc::clone(&source), PIECE.min(range.end - start));
                async move {
                    let read = source.read(start, usize::try_from(length).unwrap_or(usize::MAX)).await;
                    read.map_err(|error| Error::new(ErrorKind::Other, format!("reading a packed layer: {error}")))
                }
            })
            .boxed())
    }

    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
        self.push.tags(repository, after).await
    }

    async fn repositories(&self, after: Option<&str>) -> Result<Page, Error> {
        self.push.repositories(after).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.push.referrers(repository, subject).await
    }
}
