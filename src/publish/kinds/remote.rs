//! Layers that a registry already has, by content.

use std::collections::{HashMap, HashSet};

use super::work::Work;
use crate::artifact::{Artifact, ArtifactLayer, Artifacts, ViewMode};
use crate::error::Error;
use crate::layer::Packing;
use crate::oci::Repository;
use crate::publish::manifest::files as titled;
use crate::publish::pack::made::RemoteLayer;
use crate::publish::plan::identity::{Identity, LayerIdentities, LayerKey, of_index};

/// Most manifests of a repository, besides the tag's, and most other repositories searched for layers.
const LOOKED_AT: usize = 8;

/// The identities of the layers of an artifact, if none has to be read for that.
pub(super) fn settled_layers(artifacts: &Artifacts, artifact: &Artifact, identities: &LayerIdentities) -> Option<HashSet<Identity>> {
    let mut settled = HashSet::new();
    for layer in artifact.layers() {
        if let Some(key) = key(&layer) {
            settled.extend(identities.get(&key).filter(|_| is_trusted(artifacts, artifact, &layer))?);
        }
    }
    Some(settled)
}

/// The facts about a layer with an index that determine its identity.
fn key(layer: &ArtifactLayer) -> Option<LayerKey> {
    let (Some(_), Some(attached_index)) = (layer.blob, &layer.index) else { return None };
    let title = layer.descriptor.annotation(titled::TITLE).filter(|_| !layer.unpacked);
    let packing = if layer.unpacked { Packing::GzipTar } else { Packing::Raw };
    Some((layer.descriptor.digest, attached_index.digest, packing, title.map(str::to_owned)))
}

/// Whether the index of a layer has not turned out wrong: then it says nothing any more.
fn is_trusted(artifacts: &Artifacts, artifact: &Artifact, layer: &ArtifactLayer) -> bool {
    layer.blob.and_then(|blob| artifact.source(blob)).is_some_and(|source| artifacts.trusts(source))
}

/// Known layers, by content.
type Found = HashMap<Identity, RemoteLayer>;

impl Work {
    /// Layers written by ocifs that a registry has, by content: in the tag itself, other artifacts of the repository, and other repositories seen by
    /// this process.
    pub(super) async fn remote_layers(&self) -> Result<Found, Error> {
        let mut found = Found::default();
        for other in self.artifacts.seen_repositories().iter().filter(|other| **other != self.repository).take(LOOKED_AT) {
            self.add_repository(other, &mut found).await?;
        }
        self.add_repository(&self.repository, &mut found).await?;
        for artifact in self.base.iter().chain(&self.known) {
            let from = Some(&self.repository).filter(|_| self.doubtful);
            self.add_remote_layers(artifact, &self.repository, from, &mut found).await?;
        }
        Ok(found)
    }

    async fn add_repository(&self, repository: &Repository, found: &mut Found) -> Result<(), Error> {
        for manifest in self.artifacts.known_artifacts(repository).await.into_iter().take(LOOKED_AT) {
            if manifest.image().is_none_or(|image| image.artifact_type.as_deref() != Some(titled::ARTIFACT_TYPE)) {
                continue;
            }
            match self.artifacts.artifact(repository, &manifest.digest, ViewMode::Merged, false).await {
                Ok(artifact) => self.add_remote_layers(&artifact, repository, Some(repository), found).await?,
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
        found: &mut Found,
    ) -> Result<(), Error> {
        for layer in artifact.layers() {
            let (Some(key), Some(attached_index)) = (key(&layer), &layer.index) else { continue };
            let trusted = is_trusted(&self.artifacts, artifact, &layer);
            let identity = match self.identities.get(&key).filter(|_| trusted) {
                Some(known) => known,
                None => {
                    let index = self.artifacts.layer_index(repository, artifact, layer.number, false).await?;
                    let identity = index.and_then(|index| of_index(&index, key.2, key.3.as_deref()));
                    if trusted {
                        self.identities.put(key, identity);
                    }
                    identity
                }
            };
            if let Some(identity) = identity {
                let (layer, index) = (layer.descriptor.clone(), Some(attached_index.clone()));
                found.insert(identity, RemoteLayer { layer, index, repository: from.cloned() });
            }
        }
        Ok(())
    }
}
