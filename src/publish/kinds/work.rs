//! The work on one artifact, and the steps common to all kinds.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::new_artifact::NewArtifact;
use crate::artifact::{Artifact, Artifacts};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Platform, Repository, media_type};
use crate::publish::manifest::EMPTY;
use crate::publish::pack::made::Made;
use crate::publish::pack::produce::Producer;
use crate::publish::pack::sealed::Sealed;
use crate::publish::pack::store::{Store, Used};
use crate::publish::plan::files::is_silent;
use crate::publish::plan::identity::LayerIdentities;
use crate::publish::plan::path_set::PathSet;
use crate::publish::plan::survey::Survey;
use crate::publish::progress::Progress;
use crate::publish::push::upload::{BlobBytes, Uploader};
use crate::publish::source::without::Without;
use crate::view::snapshot::{Entries, Snapshot};

/// Largest config that is edited, in bytes.
pub(super) const CONFIG_LIMIT: u64 = 8 << 20;

/// The inputs of building an artifact.
pub(in crate::publish) struct Work {
    pub artifacts: Artifacts,
    pub repository: Repository,
    /// The artifact that the tag is expected to hold.
    pub base: Option<Arc<Artifact>>,
    /// The platform of a new image.
    pub platform: Platform,
    /// The entries to publish, without ignored ones.
    pub snapshot: Arc<dyn Snapshot>,
    pub survey: Survey,
    pub store: PathBuf,
    /// Packed layers used by this publish.
    pub used: Used,
    pub uploader: Option<Arc<Uploader>>,
    pub progress: Arc<Progress>,
    /// Whether to check every blob, even those seen before.
    pub doubtful: bool,
    /// An artifact whose layers may be reused.
    pub known: Option<Arc<Artifact>>,
    /// Identities of layers computed so far.
    pub identities: Arc<LayerIdentities>,
    /// The artifact to build if there is no base.
    pub new: NewArtifact,
    /// Whether to attach indexes as referrers.
    pub attach_index: bool,
}

/// A finished artifact, with all its blobs in the registry.
pub(in crate::publish) struct Built {
    /// The manifest for the tag.
    pub top: Arc<Manifest>,
    /// Manifests to push before it, in this order.
    pub before: Vec<Arc<Manifest>>,
    /// Manifests that refer to one of those or to `top`, pushed last.
    pub referrers: Vec<(Digest, Arc<Manifest>)>,
    /// The packed layers.
    pub made: Vec<Made>,
}

impl Work {
    /// Called when the registry reports a missing blob: check every blob again.
    pub fn doubt(&mut self) {
        self.doubtful = true;
        if let Some(uploader) = &self.uploader {
            self.uploader = Some(Arc::new(uploader.restarted()));
        }
    }

    pub(super) fn producer(&self, snapshot: Arc<dyn Snapshot>, sealed: Option<Sealed>, with_index: bool) -> Result<Producer, Error> {
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
    pub(super) fn without(&self, paths: PathSet) -> Arc<dyn Snapshot> {
        Without::paths(&self.snapshot, paths)
    }

    /// The tag's own directory, if only its time is known: archived, it would belong to root, and the tag's author could no longer write there.
    pub(super) async fn silent_root(&self) -> Result<PathSet, Error> {
        let mut silent = PathSet::default();
        if let Some(root) = Entries::of(&self.snapshot).next().await?
            && root.path.is_empty()
            && is_silent(&root)
        {
            silent.insert(b"");
        }
        Ok(silent)
    }

    /// Directories without own attributes: the tag's root, and the parents of named paths.
    pub(super) async fn silent(&self) -> Result<PathSet, Error> {
        let mut silent = self.silent_root().await?;
        for path in &self.new.implied {
            silent.insert(path);
        }
        Ok(silent)
    }

    /// Sends a small blob generated here.
    pub(super) async fn send(&self, media_type: &str, bytes: Bytes) -> Result<(Digest, u64), Error> {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        if let Some(uploader) = &self.uploader {
            uploader.send(&descriptor, &BlobBytes::Bytes(bytes)).await?;
        }
        Ok((descriptor.digest, descriptor.size))
    }

    /// Sends the empty config.
    pub(super) async fn send_empty(&self) -> Result<(), Error> {
        self.send(media_type::OCI_EMPTY, Bytes::from_static(EMPTY)).await.map(drop)
    }

    /// The config of an image.
    pub(super) async fn config(&self, config: &Descriptor) -> Result<Bytes, Error> {
        if config.size > CONFIG_LIMIT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the config of the image has {} bytes, which is too large to edit", config.size),
            ));
        }
        let stream = self.artifacts.blob(&self.repository, config, true).await?;
        stream.read(0..config.size).await
    }
}
