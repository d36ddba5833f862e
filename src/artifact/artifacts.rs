//! The artifacts of one registry or layout, and cached facts about its tags and lists.

use std::sync::Arc;
use std::time::Duration;

use super::access_order::orders::Orders;
use super::error::of_blob;
use super::kept::{Kept, Key};
use super::loaded::Artifact;
use super::options::{Options, ViewMode};
use super::registry_cache::{Listing, RegistryCache};
use super::secrets::OpenedHere;
use crate::blocking::spawn_blocking;
use crate::cache::{Room, SpanCache};
use crate::content::{BlobSource, Budget, ContentStream, Contents, Download, Sealing};
use crate::error::{Error, ErrorKind};
use crate::flight::Flight;
use crate::layer::{Form, Resources};
use crate::oci::{Descriptor, Digest, Manifest, Platform, Repository, Tag, Version};
use crate::registry::Pull;

pub(super) struct Inner {
    pub(super) registry_cache: Arc<RegistryCache>,
    pub(super) contents: Contents,
    pub(super) cache: SpanCache,
    pub(super) kept: Kept,
    pub(super) opened_here: OpenedHere,
    pub(super) flight: Flight<Key, Result<Arc<Artifact>, Error>>,
    pub(super) orders: Orders,
}

/// The artifacts of one registry or layout, and cached facts about its tags and lists. Cheap to clone.
#[derive(Clone)]
pub struct Artifacts {
    pub(super) inner: Arc<Inner>,
    /// The platform to choose from an index.
    pub(super) platform: Arc<Platform>,
}

impl Artifacts {
    /// The artifacts of `pull`, read through `contents`; trees and registry answers are stored in `cache`, the answers even if it is not to be filled.
    pub fn new(pull: Arc<dyn Pull>, contents: Contents, cache: SpanCache, options: Options) -> Self {
        let platform = Arc::new(options.platform.clone());
        let registry_cache = Arc::new(RegistryCache::new(pull, cache.filled(), options));
        let (kept, opened_here, flight) = (Kept::default(), OpenedHere::default(), Flight::default());
        let orders = Orders::default();
        Self { inner: Arc::new(Inner { registry_cache, contents, cache, kept, opened_here, flight, orders }), platform }
    }

    /// The same for another platform.
    pub fn for_platform(&self, platform: &Platform) -> Self {
        Self { inner: Arc::clone(&self.inner), platform: Arc::new(platform.clone()) }
    }

    /// The platform to choose from an index.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Where everything comes from, as in [`Pull::origin`].
    pub fn origin(&self) -> &str {
        self.inner.registry_cache.pull.origin()
    }

    /// Options of the mount.
    pub fn options(&self) -> &Options {
        &self.inner.registry_cache.options
    }

    /// The digest of a tag: cached and fresh, else requested (HEAD; the first time a GET of the manifest, which is needed next), else the last known one
    /// while the registry is unreachable.
    ///
    /// # Errors
    /// NotFound only if the registry said so within 5 seconds, or offline for a tag that is in no list.
    pub async fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Digest, Error> {
        self.inner.registry_cache.tag(repository, tag).await
    }

    /// The digest that a tag or digest names: a tag as in [`Self::tag`], a digest if its manifest exists.
    ///
    /// # Errors
    /// NotFound if the registry has no such tag or manifest; those of reading either.
    pub async fn digest(&self, repository: &Repository, version: &Version) -> Result<Digest, Error> {
        match version {
            Version::Tag(tag) => self.tag(repository, tag).await,
            Version::Digest(digest) => Ok(self.manifest(repository, digest).await?.digest),
        }
    }

    /// The tags of a repository, without bookkeeping tags. NotFound if the repository does not exist.
    pub async fn tags(&self, repository: &Repository) -> Result<Listing, Error> {
        self.inner.registry_cache.tags(repository).await
    }

    /// All known repositories by their full names; partial where the registry has no catalog.
    pub async fn repositories(&self) -> Result<Listing, Error> {
        self.inner.registry_cache.repositories().await
    }

    /// Records that a repository exists.
    pub fn learned(&self, repository: &Repository) {
        self.inner.registry_cache.learned(repository);
    }

    /// Names in a repository that are full references rather than tags (a layout by `podman save`), with their manifests. They name artifacts by digest;
    /// nothing else is known about them.
    pub async fn odd_names(&self, repository: &Repository) -> Result<Arc<[(String, Descriptor)]>, Error> {
        Ok(self.inner.registry_cache.pull.odd_names(repository).await?.into())
    }

    /// A manifest by digest, cached on disk.
    pub async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Arc<Manifest>, Error> {
        self.inner.registry_cache.manifest(repository, digest).await
    }

    /// The same for one that a tag or index refers to: if it is missing, that is an error of the registry instead of NotFound.
    pub async fn named_manifest(&self, repository: &Repository, digest: &Digest) -> Result<Arc<Manifest>, Error> {
        self.inner.registry_cache.named_manifest(repository, digest).await
    }

    /// The artifact of a manifest, with its tree built or mapped.
    pub async fn artifact(&self, repository: &Repository, digest: &Digest, view: ViewMode, strict: bool) -> Result<Arc<Artifact>, Error> {
        self.get(self.key(repository, *digest, view, None), strict).await
    }

    /// A single layer of an image manifest, by position; an archive shows its whiteouts.
    pub async fn layer(&self, repository: &Repository, manifest: &Manifest, number: usize, strict: bool) -> Result<Arc<Artifact>, Error> {
        self.get(self.key(repository, manifest.digest, ViewMode::Merged, Some(number)), strict).await
    }

    pub(super) fn key(&self, repository: &Repository, manifest: Digest, view: ViewMode, layer: Option<usize>) -> Key {
        let referred = self.options().trust_referrers;
        Key { repository: repository.clone(), manifest, view, platform: Arc::clone(&self.platform), layer, referred }
    }

    pub(super) async fn get(&self, mut key: Key, strict: bool) -> Result<Arc<Artifact>, Error> {
        let strict = strict || self.options().strict;
        key.referred &= !strict;
        // A tree whose attached index turned out wrong is rebuilt.
        let trusted = |artifact: &Arc<Artifact>| !artifact.sources.iter().any(|source| self.inner.contents.is_known_wrong(source));
        let kept = || self.inner.kept.get(&key).filter(trusted);
        if let Some(artifact) = kept() {
            return Ok(artifact);
        }
        let built = self.inner.flight.run(
            key.clone(),
            || kept().map(Ok),
            || {
                let (inner, key) = (Arc::clone(&self.inner), key.clone());
                async move { inner.build(&key, strict).await }
            },
        );
        built.await.map_err(|error| Error::new(ErrorKind::Interrupted, format!("reading an artifact: {error}")))?
    }

    /// The manifests that refer to a digest.
    pub async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Arc<[Descriptor]>, Error> {
        self.inner.registry_cache.referrers(repository, subject).await
    }

    /// The stream that holds a file's content; `blob` is the number in [`Content`](super::Content).
    pub async fn stream(&self, repository: &Repository, artifact: &Artifact, blob: u32, strict: bool) -> Result<ContentStream, Error> {
        let mut source = artifact
            .source(blob)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Other, format!("artifact {} has no blob number {blob}", artifact.manifest.digest)))?;
        if artifact.manifests.contains(&source.descriptor.digest) {
            let manifest = self.manifest(repository, &source.descriptor.digest).await?;
            return Ok(ContentStream::of_bytes(manifest.raw.clone()));
        }
        source.repository = repository.clone();
        source.strict = strict || self.inner.registry_cache.options.strict;
        self.open(&source).await
    }

    /// Starts downloading a raw blob that is needed whole and once. `None` if [`Self::stream`] is better.
    ///
    /// # Errors
    /// Errors of the registry.
    pub async fn download(&self, repository: &Repository, artifact: &Artifact, blob: u32) -> Result<Option<Download>, Error> {
        let Some(source) = artifact.source(blob).filter(|source| Download::suits(source)) else { return Ok(None) };
        let digest = source.descriptor.digest;
        let is_shared = artifact.sources().iter().filter(|other| other.descriptor.digest == digest).nth(1).is_some();
        if is_shared || artifact.manifests.contains(&digest) {
            return Ok(None);
        }
        let source = BlobSource { repository: repository.clone(), ..source.clone() };
        self.inner.contents.download(&source).await.map_err(|error| of_blob("content", &source.descriptor, error))
    }

    /// A blob as stored, neither unpacked nor decrypted.
    pub async fn blob(&self, repository: &Repository, descriptor: &Descriptor, strict: bool) -> Result<ContentStream, Error> {
        let strict = strict || self.inner.registry_cache.options.strict;
        let (repository, descriptor) = (repository.clone(), descriptor.clone());
        self.open(&BlobSource { repository, descriptor, form: Form::Raw, sealing: Sealing::None, strict, guide: None }).await
    }

    pub(super) async fn open(&self, source: &BlobSource) -> Result<ContentStream, Error> {
        self.inner.contents.open(source).await.map_err(|error| of_blob("content", &source.descriptor, error))
    }

    /// Expires tags and lists (all, or of one repository), so that the next use asks the registry.
    pub fn refresh(&self, repository: Option<&Repository>) {
        self.inner.registry_cache.refresh(repository);
    }

    /// Releases unused trees, indexes and streams, and everything removed from the cache.
    pub fn let_go(&self) {
        drop(self.inner.kept.take());
        self.inner.contents.let_go();
        self.inner.cache.let_go();
    }

    /// Counts bytes outside the cache in its budget while the result is held; `None` if there is no room.
    pub async fn room(&self, bytes: u64) -> Option<Arc<Room>> {
        let cache = self.inner.cache.clone();
        spawn_blocking(move || cache.room(bytes)).await.ok().flatten().map(Arc::new)
    }

    /// Total bytes received and decoded, over all streams: stands still only if nothing moves.
    pub fn progress(&self) -> u64 {
        self.inner.contents.progress()
    }

    /// The memory budget shared by the whole process.
    pub fn budget(&self) -> &Budget {
        self.inner.contents.budget()
    }

    /// Resources for building the index of a layer; nothing of an encrypted one may reach the disk.
    pub fn resources(&self, encrypted: bool) -> Resources {
        self.inner.contents.resources(if encrypted { Sealing::OciSync } else { Sealing::None })
    }

    /// Whether the registry is known not to answer at the moment, or is never contacted, so that cached answers must do.
    pub fn is_away(&self) -> bool {
        self.inner.registry_cache.is_away()
    }

    /// Whether the last known list of a repository contains a tag. Makes no request.
    pub fn is_listed(&self, repository: &Repository, tag: &Tag) -> bool {
        self.inner.registry_cache.is_listed(repository, tag)
    }

    /// Whether the cached digest of a tag may be used without asking the registry.
    pub fn is_fresh(&self, repository: &Repository, tag: &Tag) -> bool {
        self.inner.registry_cache.is_tag_fresh(repository, tag)
    }

    /// The last known digest of a tag, however old.
    pub fn last_known(&self, repository: &Repository, tag: &Tag) -> Option<Digest> {
        self.inner.registry_cache.last_tag(repository, tag)
    }

    /// How long ago the registry reported a tag's digest; `None` if not in this process.
    pub fn tag_age(&self, repository: &Repository, tag: &Tag) -> Option<Duration> {
        self.inner.registry_cache.tag_age(repository, tag)
    }

    /// Waits until all cached answers are stored for offline use, and the order in which files were opened; awaited when a mount ends.
    pub async fn flush(&self) {
        self.store_orders().await;
        self.inner.registry_cache.flush().await;
    }
}
