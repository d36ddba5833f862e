//! An artifact that a client may read, from an upstream or the store.
//!
//! The cache holds blobs regardless of repository, so an artifact is read only if its own repository has every blob it names. Otherwise
//! anybody who may push a manifest could read other people's blobs through it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::address::Address;
use crate::artifact::{Artifact, Artifacts, Description, Dialect, NodeId, ViewMode};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Platform, Repository, Version};
use crate::registry::Pull;
use crate::serve::api::Place;
use crate::serve::metrics::UpstreamMetrics;
use crate::serve::problem::{Code, Problem};
use crate::serve::state::State;
use crate::serve::{hosted, store};
use crate::transfer;
use crate::view::Reader;

/// Blobs looked up at an upstream concurrently.
const ASKED: usize = 8;

/// A readable artifact.
pub(super) struct Opened<'a> {
    place: &'a Place<'a>,
    artifacts: Artifacts,
    /// The repository's name at the upstream or in the store.
    repository: Repository,
    /// The description from its manifests.
    pub(super) description: Description,
    /// The age of the manifest, if the upstream could not confirm it.
    pub(super) stale: Option<Duration>,
    /// Set if the client asked by digest: then nothing is sent before the whole blob is verified.
    strict: bool,
}

impl<'a> Opened<'a> {
    /// Finds an artifact, and its member for the platform if one is given.
    ///
    /// # Errors
    /// 404 if there is no such artifact or platform; those of an upstream.
    pub(super) async fn find(
        state: &State,
        place: &'a Place<'a>,
        address: &Address,
        version: &Version,
        platform: Option<&Platform>,
    ) -> Result<Self, Problem> {
        let (artifacts, repository, digest, stale, trusted) = match place {
            Place::Upstream(upstream, repository) => {
                let found = upstream.manifest(repository, version).await?;
                (&upstream.artifacts, repository.clone(), found.manifest.digest, found.stale, upstream.is_trusted())
            }
            Place::Store(store) => {
                let manifest = hosted::manifest(store, &address.repository, version).await?;
                let stored = state.stored.as_ref();
                let stored = stored.ok_or_else(|| Problem::not_found(Code::NameUnknown, "this server has no store"))?;
                (stored, address.repository.clone(), manifest.digest, None, false)
            }
        };
        let artifacts = platform.map_or_else(|| artifacts.clone(), |platform| artifacts.for_platform(platform));
        let described = artifacts.describe(&repository, &digest).await;
        let description = described.map_err(|error| problem(place, &error))?;
        let opened = Self { place, artifacts, repository, description, stale, strict: address.is_pinned() || !trusted };
        match platform {
            Some(platform) => opened.check_platform(platform).map(|()| opened),
            None => Ok(opened),
        }
    }

    /// Refuses an index without a member for the platform, which would otherwise show as a directory of all members.
    fn check_platform(&self, platform: &Platform) -> Result<(), Problem> {
        if self.description.dialect != Dialect::Members || self.platforms().is_empty() {
            return Ok(());
        }
        let member = transfer::member_for(&self.description.manifest, platform);
        member.map(drop).map_err(|error| Problem::not_found(Code::ManifestUnknown, error.to_string()))
    }

    /// The platforms of an index.
    pub(super) fn platforms(&self) -> Vec<&Platform> {
        let members = self.description.manifest.index().map(|index| index.manifests.as_slice()).unwrap_or_default();
        members.iter().filter_map(|member| member.platform.as_ref()).filter(|platform| !platform.is_unknown()).collect()
    }

    /// Whether its repository has every blob it consists of.
    async fn check_held(&self) -> Result<(), Problem> {
        let blobs = self.description.sources.iter().map(|source| source.descriptor.digest);
        let blobs: BTreeSet<Digest> = blobs.filter(|digest| !self.description.manifests.contains(digest)).collect();
        match self.place {
            Place::Upstream(upstream, repository) => {
                let asked = stream::iter(blobs).map(|digest| async move { upstream.blob_size(repository, &digest).await.map(drop) });
                asked.buffer_unordered(ASKED).try_collect().await
            }
            Place::Store(store) => {
                let (store, repository) = (Arc::clone(store), self.repository.clone());
                hosted::blocking(move || blobs.iter().try_for_each(|digest| store.blob(&repository, digest).map(drop))).await
            }
        }
    }

    /// Its files. The first call reads archives completely.
    ///
    /// # Errors
    /// 403 if a key is needed; also read errors.
    pub(super) async fn tree(&self) -> Result<Arc<Artifact>, Problem> {
        self.check_held().await?;
        let digest = &self.description.manifest.digest;
        let read = self.artifacts.artifact(&self.repository, digest, ViewMode::Merged, self.strict).await;
        read.map_err(|error| self.problem(&error))
    }

    /// A regular file of it.
    ///
    /// # Errors
    /// Read errors.
    pub(super) async fn reader(&self, artifact: &Artifact, node: NodeId) -> Result<Reader, Problem> {
        let reader = Reader::of_tree(&self.artifacts, &self.repository, artifact, node, self.strict).await;
        reader.map_err(|error| self.problem(&error))
    }

    /// The counters of its upstream, if it comes from one.
    pub(super) fn metrics(&self) -> Option<UpstreamMetrics> {
        match self.place {
            Place::Upstream(upstream, _) => Some(upstream.metrics.clone()),
            Place::Store(_) => None,
        }
    }

    /// Maps an error from reading one of its files to a response.
    pub(super) fn problem(&self, error: &Error) -> Problem {
        problem(self.place, error)
    }

    /// The manifests that refer to it.
    ///
    /// # Errors
    /// Those of the upstream or the store.
    pub(super) async fn referrers(&self) -> Result<Arc<[Descriptor]>, Problem> {
        let digest = &self.description.manifest.digest;
        match self.place {
            Place::Upstream(upstream, repository) => upstream.referrers(repository, digest).await,
            Place::Store(store) => {
                let found = store.existing(&self.repository)?.referrers(&self.repository, digest).await;
                found.map(Into::into).map_err(|error| store::problem(&error, Code::ManifestUnknown))
            }
        }
    }
}

fn problem(place: &Place<'_>, error: &Error) -> Problem {
    match (error.kind, place) {
        (ErrorKind::KeyMissing | ErrorKind::KeyWrong, _) => {
            let message = "the artifact is encrypted, and this server has no key for it; mount or pull it with the passphrase";
            Problem::of(error.kind, message, Code::Denied)
        }
        // The request is valid, but this version cannot read the content.
        (ErrorKind::Unsupported, _) => Problem::new(StatusCode::NOT_IMPLEMENTED, Code::Unsupported, error.to_string()),
        (kind, Place::Upstream(upstream, _)) => upstream.problem(kind, &error.message, Code::NameUnknown),
        (_, Place::Store(_)) => store::problem(error, Code::NameUnknown),
    }
}
