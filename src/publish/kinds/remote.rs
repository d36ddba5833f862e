//! Layers that a registry already has, by content.

use std::collections::HashMap;

use super::work::Work;
use crate::artifact::{Artifact, ViewMode};
use crate::error::Error;
use crate::layer::Packing;
use crate::oci::Repository;
use crate::publish::manifest::files as titled;
use crate::publish::pack::made::RemoteLayer;
use crate::publish::plan::identity::{Identity, of_index};

/// Most manifests of a repository, besides the tag's, and most other repositories searched for layers.
const LOOKED_AT: usize = 8;

impl Work {
    /// Layers written by ocifs that a registry has, by content: in the tag itself, other artifacts of the repository, and other repositories seen by
    /// this process.
    pub(super) async fn remote_layers(&self) -> Result<HashMap<Identity, RemoteLayer>, Error> {
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
                Err(error) => tracing::debug!("ignoring layers of {}: {error}", manifest.digest),
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
