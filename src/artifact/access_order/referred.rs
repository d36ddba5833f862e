//! The access order that a referrer of a manifest publishes. A hint by anybody: bounded, and its bytes are compared with its digest.

use std::sync::Arc;

use crate::artifact::artifacts::Inner;
use crate::content::{BlobSource, Sealing};
use crate::error::{Error, ErrorKind};
use crate::layer::{ACCESS_ORDER_MOST, Form};
use crate::oci::{Descriptor, Repository};

/// Artifact type of the referrer, and media type of its one layer.
pub const ACCESS_ORDER_TYPE: &str = "application/vnd.ocifs.access-order.v1";

impl Inner {
    /// The order that the last of these referrers with one publishes, encoded.
    pub(super) async fn referred_order(
        self: &Arc<Self>,
        repository: &Repository,
        referrers: &[Descriptor],
    ) -> Result<Option<Vec<u8>>, Error> {
        let of_type = |referrer: &&Descriptor| referrer.artifact_type.as_deref() == Some(ACCESS_ORDER_TYPE);
        let Some(referrer) = referrers.iter().rfind(of_type) else { return Ok(None) };
        let referrer = self.registry_cache.named_manifest(repository, &referrer.digest).await?;
        let layers = referrer.image().map(|image| image.layers.as_slice()).unwrap_or_default();
        let Some(layer) = layers.first().filter(|layer| layer.media_type == ACCESS_ORDER_TYPE) else { return Ok(None) };
        if layer.size > ACCESS_ORDER_MOST {
            return Err(Error::new(ErrorKind::Unsupported, format!("the access order {} is too large", layer.digest)));
        }
        let (repository, descriptor) = (repository.clone(), layer.clone());
        let source = BlobSource { repository, descriptor, form: Form::Raw, sealing: Sealing::None, strict: true, guide: None };
        Ok(Some(self.contents.open(&source).await?.read(0..layer.size).await?.to_vec()))
    }
}
