//! Copies one artifact from a source to a destination: reads the root manifest, places its blobs and members, then the manifest itself, then
//! its referrers, and finally the tags.
//!
//! A manifest that the destination already has is assumed to have its blobs, as registries demand. Copying several versions with one `Copier`
//! transfers shared content once. Manifests nest no deeper than `DEPTH`.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::remote_blob::{RemoteBlob, read_small};
use super::tally::Tally;
use super::{Destination, Source};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Platform, Repository, Tag, Version, media_type};
use crate::registry::{BlobPlacer, UploadSource};

/// Deepest nesting of indexes and referrers.
const DEPTH: usize = 16;

/// Suffixes of the tags that cosign attaches to a manifest.
const COSIGN: [&str; 3] = ["sig", "att", "sbom"];

/// Options of a copy.
#[derive(Clone, Debug)]
pub struct Options {
    /// Blobs in flight at once.
    pub concurrency: NonZeroUsize,
    /// Also copy the referrers of each manifest, and cosign's signature tags.
    pub referrers: bool,
    /// Copy only the member of an index for this platform.
    pub platform: Option<Platform>,
}

/// The result of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The root manifest's digest, equal on both sides.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
}

/// The member of an index that best fits a platform; the manifest itself if it is not an index.
///
/// # Errors
/// NotFound, naming the available platforms.
pub fn member_for(manifest: &Manifest, platform: &Platform) -> Result<Digest, Error> {
    let Some(index) = manifest.index() else { return Ok(manifest.digest) };
    let known = || index.manifests.iter().filter_map(|member| member.platform.as_ref().map(|theirs| (member, theirs)));
    let best = known().filter_map(|(member, theirs)| Some((platform.rank(theirs)?, member.digest))).min_by_key(|(rank, _)| *rank);
    best.map(|(_, digest)| digest).ok_or_else(|| {
        let known: Vec<String> = known().map(|(_, theirs)| theirs.to_string()).collect();
        let known = known.join(", ");
        Error::new(ErrorKind::NotFound, format!("index {} has no member for {platform}; it has {}", manifest.digest, known.escape_debug()))
    })
}

/// The same for any manifest: one that is not an index must not name another platform in its config.
///
/// # Errors
/// NotFound, naming the available platforms; those of reading the config.
pub async fn fitting(source: &Source, manifest: &Manifest, platform: &Platform) -> Result<Digest, Error> {
    let is_config = |kind: &str| matches!(kind, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG);
    if let Some(image) = manifest.image().filter(|image| is_config(&image.config.media_type)) {
        let config = read_small(source, &image.config).await?;
        if let Some(found) = Platform::of_config(&config).filter(|found| platform.rank(found).is_none()) {
            let found = found.to_string();
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{} is for {}, not for {platform}", manifest.digest, found.escape_debug()),
            ));
        }
    }
    member_for(manifest, platform)
}

impl Source {
    /// The manifest of a version; for a platform, the member of an index that fits it best.
    ///
    /// # Errors
    /// As [`fitting`]; those of the source.
    pub async fn manifest(&self, version: &Version, platform: Option<&Platform>) -> Result<Manifest, Error> {
        let manifest = self.pull.manifest(&self.repository, version).await?;
        let Some(platform) = platform else { return Ok(manifest) };
        match fitting(self, &manifest, platform).await? {
            digest if digest == manifest.digest => Ok(manifest),
            digest => self.pull.manifest(&self.repository, &Version::Digest(digest)).await,
        }
    }
}

/// Sets a tag on a manifest at the destination, and verifies it.
///
/// # Errors
/// Those of the destination; Conflict if the tag holds something else right after.
pub async fn put_tag(destination: &Destination, manifest: &Manifest, tag: &Tag) -> Result<(), Error> {
    let Destination { push, repository } = destination;
    let version = Version::Tag(tag.clone());
    push.push_manifest(repository, &version, manifest).await?;
    let now = push.resolve(repository, &version).await?.digest;
    if now != manifest.digest {
        let message = format!("{repository}:{tag} was set to {} but now holds {now}: another writer moved it", manifest.digest);
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    Ok(())
}

/// Copies versions from one repository to another.
pub struct Copier {
    source: Source,
    destination: Destination,
    options: Options,
    blobs: BlobPlacer,
    manifests: Mutex<HashMap<Digest, Arc<OnceCell<()>>>>,
    tally: Arc<Tally>,
    /// The source, if it is a repository of the destination's registry.
    sibling: Option<Repository>,
}

impl Copier {
    /// Copies from one repository to another.
    pub fn new(source: Source, destination: Destination, options: Options) -> Arc<Self> {
        let blobs = BlobPlacer::new(Arc::clone(&destination.push), destination.repository.clone(), options.concurrency);
        let sibling = (source.pull.origin() == destination.push.origin()).then(|| source.repository.clone());
        Arc::new(Self { source, destination, options, blobs, manifests: Mutex::default(), tally: Arc::default(), sibling })
    }

    /// The progress of the copies.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Copies a version, then sets `tags` on it; without tags it is reachable by digest only.
    ///
    /// # Errors
    /// Those of both sides; Integrity if the source's bytes do not match their digest. Content that arrived stays, untagged.
    pub async fn copy(self: &Arc<Self>, version: &Version, tags: &[Tag]) -> Result<Copied, Error> {
        let root = self.source.manifest(version, self.options.platform.as_ref()).await?;
        self.place(root.clone(), 0).await?;
        if self.options.referrers {
            self.place_referrers(root.clone()).await?;
        }
        for tag in tags {
            put_tag(&self.destination, &root, tag).await?;
        }
        Ok(Copied { digest: root.digest, media_type: root.media_type.clone(), size: root.raw.len() as u64 })
    }

    /// Places a manifest with everything below it, once. Digests form no cycles, so no call waits for itself.
    fn place(self: &Arc<Self>, manifest: Manifest, depth: usize) -> BoxFuture<'static, Result<(), Error>> {
        let this = Arc::clone(self);
        Box::pin(async move {
            this.check_depth(&manifest, depth)?;
            let cell = {
                let mut manifests = this.manifests.lock();
                Arc::clone(manifests.entry(manifest.digest).or_default())
            };
            cell.get_or_try_init(|| this.place_once(&manifest, depth)).await.copied()
        })
    }

    async fn place_once(self: &Arc<Self>, manifest: &Manifest, depth: usize) -> Result<(), Error> {
        let Destination { push, repository } = &self.destination;
        let version = Version::Digest(manifest.digest);
        match push.resolve(repository, &version).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let members = self.members(manifest).await?;
        self.concurrently(members.into_iter().map(|member| self.place(member, depth + 1))).await?;
        let blobs = manifest.image().into_iter().flat_map(|image| image.layers.iter().chain([&image.config]));
        let blobs: Vec<Descriptor> = blobs.filter(|blob| !media_type::is_elsewhere(&blob.media_type)).cloned().collect();
        self.tally.total.fetch_add(blobs.iter().map(|blob| blob.size).sum(), Ordering::Relaxed);
        self.concurrently(blobs.into_iter().map(|blob| self.place_blob(blob))).await?;
        push.push_manifest(repository, &version, manifest).await?;
        self.tally.manifests.fetch_add(1, Ordering::Relaxed);
        match manifest.subject() {
            Some(subject) => Ok(push.link_referrer(repository, &subject.digest, &manifest.descriptor()).await?),
            None => Ok(()),
        }
    }

    /// Places the referrers of a manifest and its members, recursively.
    async fn place_referrers(self: &Arc<Self>, root: Manifest) -> Result<(), Error> {
        let Source { pull, repository } = &self.source;
        let mut seen = HashSet::from([root.digest]);
        let mut next = vec![(root, 0)];
        while let Some((manifest, depth)) = next.pop() {
            self.check_depth(&manifest, depth)?;
            let referrers = self.fetched(&pull.referrers(repository, &manifest.digest).await?).await?;
            self.concurrently(referrers.clone().into_iter().map(|referrer| self.place(referrer, 0))).await?;
            let signatures = self.place_signatures(&manifest).await?;
            let members = self.members(&manifest).await?;
            let reached = referrers.into_iter().chain(signatures).chain(members);
            next.extend(reached.filter(|manifest| seen.insert(manifest.digest)).map(|manifest| (manifest, depth + 1)));
        }
        Ok(())
    }

    /// Places cosign's tags for a manifest.
    async fn place_signatures(self: &Arc<Self>, manifest: &Manifest) -> Result<Vec<Manifest>, Error> {
        let mut placed = Vec::new();
        for suffix in COSIGN {
            let Ok(tag) = Tag::parse(&format!("{}.{suffix}", manifest.digest.path_name())) else { continue };
            match self.source.pull.manifest(&self.source.repository, &Version::Tag(tag.clone())).await {
                Ok(signature) => {
                    self.place(signature.clone(), 0).await?;
                    put_tag(&self.destination, &signature, &tag).await?;
                    placed.push(signature);
                }
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(placed)
    }

    fn check_depth(&self, manifest: &Manifest, depth: usize) -> Result<(), Error> {
        if depth <= DEPTH {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, format!("manifest {} is nested more than {DEPTH} deep", manifest.digest)))
    }

    /// The members of an index, read from the source; empty for any other manifest.
    async fn members(&self, manifest: &Manifest) -> Result<Vec<Manifest>, Error> {
        self.fetched(manifest.index().map(|index| index.manifests.as_slice()).unwrap_or_default()).await
    }

    async fn fetched(&self, manifests: &[Descriptor]) -> Result<Vec<Manifest>, Error> {
        let Source { pull, repository } = &self.source;
        let digests: Vec<Digest> = manifests.iter().map(|descriptor| descriptor.digest).collect();
        let reading = digests.into_iter().map(|digest| async move { pull.manifest(repository, &Version::Digest(digest)).await });
        stream::iter(reading).buffered(self.options.concurrency.get()).try_collect().await
    }

    async fn concurrently(&self, work: impl Iterator<Item = impl Future<Output = Result<(), Error>>>) -> Result<(), Error> {
        stream::iter(work).buffer_unordered(self.options.concurrency.get()).try_collect().await
    }

    async fn place_blob(&self, blob: Descriptor) -> Result<(), Error> {
        let remote = Arc::new(RemoteBlob::new(self.source.clone(), blob.clone()));
        match self.place_remote(&blob, &remote).await {
            Err(_) if remote.is_elsewhere() => {
                self.place_remote(&blob, &Arc::new(RemoteBlob::new(self.source.clone(), blob.clone()))).await
            }
            placed => placed,
        }
    }

    async fn place_remote(&self, blob: &Descriptor, remote: &Arc<RemoteBlob>) -> Result<(), Error> {
        let open = || Ok(Arc::clone(remote) as Arc<dyn UploadSource>);
        // The destination only knows that its upload broke.
        let placed = self.tally.place(&self.blobs, blob, self.sibling.as_ref(), open).await;
        placed.map_err(|error| remote.failure().unwrap_or(error))
    }
}
