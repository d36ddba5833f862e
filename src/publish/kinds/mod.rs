//! Kinds of artifacts: an edit keeps the kind of the artifact that it edits, a new tag gets the kind that was asked for.

mod files;
mod image;
mod layered;
mod new;
mod oci_sync;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::manifest::{self, EMPTY};
use super::plan::identity::{Identity, of_index};
use super::plan::{PathSet, Without};
use super::produce::{Made, Producer, RemoteLayer};
use super::report::Progress;
use super::seal::Sealed;
use super::snapshot::{Entries, Snapshot};
use super::store::{Store, Used};
use super::survey::{Remember, Survey};
use super::upload::{BlobBytes, Uploader};
use super::{ArtifactKind, Error, manifest::files as titled};
use crate::artifact::{Artifact, Artifacts, Dialect, ViewMode};
use crate::error::ErrorKind;
use crate::layer::Packing;
use crate::oci::{Descriptor, Digest, Manifest, Platform, Repository};
pub(super) use new::NewArtifact;
pub use new::NewKind;
pub(super) use new::Own;

/// Manifests of a repository, besides that of the tag, in which layers are looked for; and other repositories.
const LOOKED_AT: usize = 8;
/// Largest config that is edited.
const CONFIG_LIMIT: u64 = 8 << 20;

/// Everything that making an artifact needs.
pub(super) struct Work {
    pub artifacts: Artifacts,
    pub repository: Repository,
    /// The artifact that the tag is expected to hold.
    pub base: Option<Arc<Artifact>>,
    /// The platform of a new image.
    pub platform: Platform,
    /// The entries to publish, without those left out.
    pub snapshot: Arc<dyn Snapshot>,
    pub survey: Survey,
    pub store: std::path::PathBuf,
    /// Packed layers that this publish uses.
    pub used: Used,
    pub uploader: Option<Arc<Uploader>>,
    pub progress: Arc<Progress>,
    /// Whether nothing is taken for there without asking.
    pub doubtful: bool,
    /// An artifact whose layers may be named again.
    pub known: Option<Arc<Artifact>>,
    /// What is made where nothing is edited.
    pub new: NewArtifact,
    /// Whether indexes are attached as referrers.
    pub attach_index: bool,
}

/// The artifact, all of whose blobs are in the registry.
pub(super) struct Built {
    /// The manifest that the tag shall name.
    pub top: Arc<Manifest>,
    /// Manifests that must be there first, in this order.
    pub before: Vec<Arc<Manifest>>,
    /// Manifests that refer to one of those or to the top, pushed behind them.
    pub referrers: Vec<(Digest, Arc<Manifest>)>,
    /// Layers that were packed.
    pub made: Vec<Made>,
}

/// Which paths of a survey making the artifact needs.
pub(super) fn remembers(base: Option<&Artifact>) -> Remember {
    match base.map(|base| base.dialect) {
        None | Some(Dialect::OciSync | Dialect::Sealed | Dialect::Members) => Remember::Nothing,
        Some(Dialect::Image) => Remember::Changes,
        Some(Dialect::Files | Dialect::Archive | Dialect::Blobs) => Remember::Same,
    }
}

/// Refuses what cannot be edited, before anything is packed.
pub(super) fn check(base: &Artifact) -> Result<(), Error> {
    match base.dialect {
        Dialect::Sealed => {
            Err(Error::new(ErrorKind::KeyMissing, "it is sealed, and this version cannot seal it again: nothing was published"))
        }
        Dialect::Members => {
            Err(Error::new(ErrorKind::ReadOnly, "it is an index without an image for this platform: mount it with another --platform"))
        }
        _ => Ok(()),
    }
}

impl Work {
    /// Makes the artifact.
    pub async fn build(&self) -> Result<Built, Error> {
        let Some(base) = &self.base else {
            return match self.new.kind {
                NewKind::Editable(ArtifactKind::Files) => self.new_files().await,
                NewKind::Editable(ArtifactKind::Image) => self.new_image().await,
                NewKind::Editable(ArtifactKind::OciSync) => self.oci_sync(None).await,
                NewKind::Oras => self.new_oras().await,
            };
        };
        let built = match base.dialect {
            Dialect::Image => self.edit_image(base).await?,
            Dialect::OciSync => self.oci_sync(Some(base)).await?,
            Dialect::Files | Dialect::Archive | Dialect::Blobs => self.edit_layered(base).await?,
            Dialect::Sealed | Dialect::Members => return Err(Error::other("this artifact cannot be edited")),
        };
        if base.manifest.digest == base.shown.digest { Ok(built) } else { self.in_index(base, built).await }
    }

    /// The index with the edited member in the place of the shown one, also inside other indexes.
    async fn in_index(&self, base: &Artifact, mut built: Built) -> Result<Built, Error> {
        let mut stack: Vec<(Arc<Manifest>, usize)> = vec![(Arc::clone(&base.manifest), 0)];
        // The way from the top to the index that names the shown member.
        while let Some((index, next)) = stack.last_mut() {
            let index = Arc::clone(index);
            if let Some((edited, gone)) = manifest::index::replaced(&index, (&base.shown.digest, base.platform.as_ref()), &built.top)? {
                stack.pop();
                return self.replace_upwards(stack, index, edited, gone, built).await;
            }
            let inner = index.index().and_then(|index| {
                let is_index = |member: &&Descriptor| member.media_type.contains("index") || member.media_type.contains("manifest.list");
                index.manifests.iter().filter(is_index).nth(*next)
            });
            *next += 1;
            match inner {
                Some(inner) if stack.len() < 4 => {
                    let inner = self.artifacts.manifest(&self.repository, &inner.digest).await?;
                    stack.push((inner, 0));
                }
                _ => {
                    stack.pop();
                }
            }
        }
        built.before.clear();
        Err(Error::new(ErrorKind::Integrity, format!("index {} does not name the image that it shows", base.manifest.digest)))
    }

    async fn replace_upwards(
        &self,
        mut above: Vec<(Arc<Manifest>, usize)>,
        index: Arc<Manifest>,
        edited: Arc<Manifest>,
        mut gone: usize,
        mut built: Built,
    ) -> Result<Built, Error> {
        let (mut old, mut new) = (index.digest, edited);
        built.before.push(Arc::clone(&built.top));
        while let Some((outer, _)) = above.pop() {
            let Some((edited, more)) = manifest::index::replaced(&outer, (&old, None), &new)? else {
                return Err(Error::new(ErrorKind::Integrity, format!("index {} changed while it was read", outer.digest)));
            };
            built.before.push(new);
            gone += more;
            (old, new) = (outer.digest, edited);
        }
        if gone > 0 {
            self.progress.note(format!("{gone} attestation(s) of the image that was edited are not part of the new index"));
        }
        built.top = new;
        Ok(built)
    }

    /// After a registry said that something is missing: whatever was sent or seen is asked for again.
    pub fn doubt(&mut self) {
        self.doubtful = true;
        if let Some(uploader) = &self.uploader {
            self.uploader = Some(Arc::new(uploader.anew()));
        }
    }

    fn producer(&self, snapshot: Arc<dyn Snapshot>, sealed: Option<Sealed>, with_index: bool) -> Result<Producer, Error> {
        Ok(Producer {
            snapshot,
            store: Store::open(self.store.clone(), sealed.is_some(), Arc::clone(&self.used), self.artifacts.resources(sealed.is_some()))?,
            budget: self.artifacts.budget().clone(),
            artifacts: self.artifacts.clone(),
            uploader: self.uploader.clone(),
            progress: Arc::clone(&self.progress),
            sealed,
            with_index,
            span: self.survey.totals.sizes.span,
        })
    }

    /// The snapshot without these paths.
    fn without(&self, paths: PathSet) -> Arc<dyn Snapshot> {
        if paths.is_empty() {
            return Arc::clone(&self.snapshot);
        }
        Arc::new(Without { inner: Arc::clone(&self.snapshot), trees: Arc::default(), paths: Arc::new(paths) })
    }

    /// The tag's own directory, if nothing is known of it but its time: archived, it would belong to root, and
    /// the tag's author could no longer write there.
    async fn silent_root(&self) -> Result<PathSet, Error> {
        let mut silent = PathSet::default();
        if let Some(root) = Entries::of(Arc::clone(&self.snapshot)).next().await?
            && root.path.is_empty()
            && root.mode.is_none()
            && root.owner.is_none()
            && root.xattrs.is_empty()
        {
            silent.insert(b"");
        }
        Ok(silent)
    }

    /// Directories that nobody said anything about: the tag's own, and those above what was named.
    async fn silent(&self) -> Result<PathSet, Error> {
        let mut silent = self.silent_root().await?;
        for path in &self.new.implied {
            silent.insert(path);
        }
        Ok(silent)
    }

    /// Sends a small blob that was made here.
    async fn send(&self, media_type: &str, bytes: Bytes) -> Result<(Digest, u64), Error> {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        if let Some(uploader) = &self.uploader {
            uploader.send(&descriptor, &BlobBytes::Bytes(bytes)).await?;
        }
        Ok((descriptor.digest, descriptor.size))
    }

    /// Sends the config of artifacts that have none.
    async fn send_empty(&self) -> Result<(), Error> {
        self.send(crate::oci::media_type::OCI_EMPTY, Bytes::from_static(EMPTY)).await.map(drop)
    }

    /// The config of an image.
    async fn config(&self, config: &Descriptor) -> Result<Bytes, Error> {
        if config.size > CONFIG_LIMIT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the config of the image has {} bytes, too many to edit it", config.size),
            ));
        }
        let stream = self.artifacts.blob(&self.repository, config, true).await?;
        stream.read(0..config.size).await.map_err(|error| Error::new(error.kind, error.message))
    }

    /// Layers that ocifs wrote and a registry has, by what they contain: of the tag itself, of other artifacts
    /// of the repository, and of other repositories that this process has seen.
    async fn remote_layers(&self) -> Result<HashMap<Identity, RemoteLayer>, Error> {
        let mut remote = HashMap::new();
        for other in self.artifacts.seen_repositories().iter().filter(|other| **other != self.repository).take(LOOKED_AT) {
            self.add_repository(other, &mut remote).await?;
        }
        self.add_repository(&self.repository, &mut remote).await?;
        for artifact in self.base.iter().chain(&self.known) {
            let from = Some(&self.repository).filter(|_| self.doubtful);
            self.add_remote_layers(artifact, &self.repository, from, &mut remote).await?;
        }
        Ok(remote)
    }

    async fn add_repository(&self, repository: &Repository, remote: &mut HashMap<Identity, RemoteLayer>) -> Result<(), Error> {
        for manifest in self.artifacts.known_artifacts(repository).await.into_iter().take(LOOKED_AT) {
            if manifest.image().is_none_or(|image| image.artifact_type.as_deref() != Some(titled::ARTIFACT_TYPE)) {
                continue;
            }
            match self.artifacts.artifact(repository, &manifest.digest, ViewMode::Merged, false).await {
                Ok(artifact) => self.add_remote_layers(&artifact, repository, Some(repository), remote).await?,
                Err(error) => tracing::debug!("layers of {} are not looked at: {error}", manifest.digest),
            }
        }
        Ok(())
    }

    async fn add_remote_layers(
        &self,
        artifact: &Artifact,
        repository: &Repository,
        from: Option<&Repository>,
        remote: &mut HashMap<Identity, RemoteLayer>,
    ) -> Result<(), Error> {
        for layer in artifact.layers() {
            let (Some(_), Some(attached_index)) = (layer.blob, &layer.index) else { continue };
            let Some(index) = self.artifacts.layer_index(repository, artifact, layer.number, false).await? else { continue };
            let title = layer.descriptor.annotation(titled::TITLE).filter(|_| !layer.unpacked);
            let packing = if layer.unpacked { Packing::GzipTar } else { Packing::Raw };
            if let Some(identity) = of_index(&index, packing, title) {
                let (layer, index) = (layer.descriptor.clone(), Some(attached_index.clone()));
                remote.insert(identity, RemoteLayer { layer, index, repository: from.cloned() });
            }
        }
        Ok(())
    }
}
