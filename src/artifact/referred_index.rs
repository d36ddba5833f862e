//! Indexes that only referrers of a manifest name, for `--trust-index referrer`.
//!
//! The manifest does not vouch for them: their authors could attach them, and that is all. The bytes fetched of a layer are compared with the digests in
//! the index, and everything else is its author's word: names, attributes, and the content too, since an index says where decoding starts, and with
//! which window.

use std::sync::Arc;

use super::Dialect;
use super::artifacts::Inner;
use super::attached_index::{INDEX_ARTIFACT_TYPE, layer_of, listed};
use super::build::source_of;
use super::dialect::{Plan, Shape, Step};
use crate::content::{BlobSource, Guide, Sealing};
use crate::error::Error;
use crate::oci::{Descriptor, Manifest, Repository};

/// Most referrers with indexes that are looked at.
const REFERRERS: usize = 8;

impl Inner {
    /// Names the referred index of each archive of a manifest that has no guide and was not indexed here. Without an answer there is none: the layers are
    /// read whole.
    pub(super) async fn refer(self: &Arc<Self>, plan: &mut Plan, shown: &Manifest, repository: &Repository) {
        // The members of an index have referrers of their own.
        if plan.dialect == Dialect::Members || !plan.steps.iter().any(|step| self.lacks_guide(step, repository)) {
            return;
        }
        if self.contents.is_strict() {
            tracing::warn!(
                "not using indexes of referrers for {repository}@{}: it is verified whole, since only its digests are trusted",
                shown.digest
            );
            return;
        }
        let found = match self.referred_indexes(repository, shown).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("reading {repository}@{} without the indexes of its referrers: {error}", shown.digest);
                return;
            }
        };
        for step in &mut plan.steps {
            let of_layer = found.iter().filter(|index| layer_of(index) == Some(step.descriptor.digest));
            let mut guided = of_layer.map(|index| {
                let guide = Some(Guide::Referred(index.clone()));
                BlobSource { guide, ..source_of(step, repository, false) }
            });
            if let Some(source) = guided.find(|source| self.contents.follows(source))
                && self.lacks_guide(step, repository)
            {
                step.guide = source.guide;
            }
        }
    }

    fn lacks_guide(&self, step: &Step, repository: &Repository) -> bool {
        let is_archive = matches!(step.shape, Shape::Archive { .. }) && step.sealing == Sealing::None && !step.is_manifest;
        is_archive && step.guide.is_none() && !self.contents.is_indexed(&source_of(step, repository, false))
    }

    /// All index layers of the referrers of a manifest.
    async fn referred_indexes(self: &Arc<Self>, repository: &Repository, shown: &Manifest) -> Result<Vec<Descriptor>, Error> {
        let referrers = self.registry_cache.referrers(repository, &shown.digest).await?;
        let with_indexes = referrers.iter().filter(|referrer| referrer.artifact_type.as_deref() == Some(INDEX_ARTIFACT_TYPE));
        let mut found = Vec::new();
        for referrer in with_indexes.take(REFERRERS) {
            match listed(referrer) {
                Some(indexes) => found.extend(indexes),
                None => {
                    let manifest = self.registry_cache.named_manifest(repository, &referrer.digest).await?;
                    let layers = manifest.image().map(|image| image.layers.as_slice()).unwrap_or_default();
                    found.extend(layers.iter().filter(|layer| layer_of(layer).is_some()).cloned());
                }
            }
        }
        Ok(found)
    }
}
