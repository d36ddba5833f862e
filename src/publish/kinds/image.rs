//! Container images: a new one with a single layer, or an additional layer on an existing one.

use std::collections::HashMap;
use std::sync::Arc;

use super::work::{Built, Work};
use crate::artifact::{Artifact, attached_index};
use crate::error::{Error, ErrorKind};
use crate::layer::Packing;
use crate::oci::{Descriptor, Manifest, media_type};
use crate::publish::manifest::{descriptor, image, layers, referrer};
use crate::publish::pack::made::Made;
use crate::publish::pack::store::Ready;
use crate::publish::plan::diff::Earlier;
use crate::publish::plan::layers::Plan;
use crate::publish::plan::{diff, whole};
use crate::view::snapshot::Snapshot;

/// Number of layers beyond which the edits' layers are merged: overlay mounts are limited to 127.
const LAYERS: usize = 100;

impl Work {
    pub(super) async fn new_image(&self) -> Result<Built, Error> {
        let snapshot = self.without(self.silent().await?);
        let plan = whole::plan(&snapshot, None, Packing::GzipTar, Vec::new()).await?;
        let (layer, index, made, ready) = self.image_layer(None, snapshot, plan).await?;
        let config = self.send(media_type::OCI_CONFIG, image::new_config(&self.platform, &ready.diff_id)).await?;
        let (top, _) = image::manifest(config, vec![descriptor(&layer)], None)?;
        image_built(self.new.metadata.applied(&top)?, index, made)
    }

    pub(super) async fn edit_image(&self, base: &Arc<Artifact>) -> Result<Built, Error> {
        let shown = &base.shown;
        let before = shown.image().ok_or_else(|| Error::other("an image without layers"))?;
        let mut layers = layers(shown)?;
        let ours = before.layers.iter().rev().take_while(|layer| layer.annotation(image::EDIT).is_some()).count();
        let dropped = if before.layers.len() >= LAYERS { ours } else { 0 };
        let mut earlier = Earlier::default();
        for number in before.layers.len() - dropped..before.layers.len() {
            if let Some(index) = self.artifacts.layer_index(&self.repository, base, number, false).await? {
                earlier.add(&index);
            }
        }
        let plan = diff::plan(&self.snapshot, &self.survey.paths, &self.survey.removed, &earlier).await?;
        let (mut layer, index, made, ready) = self.image_layer(Some(shown), Arc::clone(&self.snapshot), plan).await?;
        if shown.media_type != media_type::DOCKER_MANIFEST {
            layer.annotations.insert(image::EDIT.to_owned(), "1".to_owned());
        }
        let config = image::edited_config(&self.config(&before.config).await?, dropped, &ready.diff_id)?;
        let config = self.send(&before.config.media_type, config).await?;
        layers.truncate(before.layers.len() - dropped);
        layers.push(descriptor(&layer));
        let (top, _) = image::manifest(config, layers, Some(shown))?;
        image_built(top, index, made)
    }

    async fn image_layer(
        &self,
        base: Option<&Manifest>,
        snapshot: Arc<dyn Snapshot>,
        plan: Plan,
    ) -> Result<(Descriptor, Option<Descriptor>, Vec<Made>, Ready), Error> {
        let with_index = self.attach_index && base.is_none_or(|base| base.media_type != media_type::DOCKER_MANIFEST);
        let made = self.producer(snapshot, None, with_index)?.produce(plan, &HashMap::new()).await?;
        let Some(Made::Packed(ready)) = made.first().cloned() else {
            return Err(Error::new(ErrorKind::Other, "a layer was not packed"));
        };
        let mut layer = Descriptor::new(image::layer_type(base), ready.blob.0, ready.blob.1);
        let index =
            ready.attached_index.as_ref().map(|(digest, size, _)| Descriptor::new(attached_index::INDEX_MEDIA_TYPE, *digest, *size));
        if let Some(index) = &index {
            attached_index::bind(&mut layer, index.digest, index.size);
            self.send_empty().await?;
        }
        Ok((layer, index, made, ready))
    }
}

fn image_built(top: Arc<Manifest>, index: Option<Descriptor>, made: Vec<Made>) -> Result<Built, Error> {
    let referrers = match index {
        Some(index) => vec![(top.digest, referrer::manifest(&top, &[index])?)],
        None => Vec::new(),
    };
    Ok(Built { top, before: Vec::new(), referrers, made })
}
