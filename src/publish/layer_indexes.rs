//! Publishes what makes the artifacts of others faster to read, as referrers of their manifests: the indexes of their layers, and the order in which
//! their files are opened.

use std::sync::Arc;

use bytes::Bytes;

use super::manifest::{EMPTY, referrer};
use crate::artifact::attached_index::index_layer;
use crate::artifact::{ACCESS_ORDER_TYPE, Artifacts};
use crate::blocking::blocking;
use crate::content::{BlobSource, Use};
use crate::error::{Error, ErrorKind};
use crate::layer::{LayerIndex, attached_index_memory, encode_attached};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Version, media_type};
use crate::registry::Push;

/// The index of a layer, ready to be attached.
pub struct OwnIndex {
    /// The index, built here from all bytes of the layer.
    pub index: LayerIndex,
    /// Its attached form.
    pub attached: Bytes,
}

impl OwnIndex {
    /// Builds the index of a layer in one pass over it, unless that was done here before.
    ///
    /// # Errors
    /// The layer cannot be read or is no archive; or its index cannot be attached.
    pub async fn of(artifacts: &Artifacts, source: &BlobSource) -> Result<Self, Error> {
        let index = artifacts.own_index(source).await?;
        let _memory = artifacts.budget().take(Use::Packing, attached_index_memory(&index)).await?;
        let (scratch, encoded) = (artifacts.resources(source.is_sealed()).scratch, index.clone());
        let attached = blocking(move || encode_attached(&encoded, &scratch)).await?;
        Ok(Self { index, attached: Bytes::from_owner(attached) })
    }

    /// The index as a layer of a referrer.
    fn layer(&self) -> Descriptor {
        index_layer(&self.index.blob_digest(), Digest::of(&self.attached), self.attached.len() as u64)
    }

    /// Sends the index, unless the registry has it.
    ///
    /// # Errors
    /// Readers would refuse an index of this size; or errors of the registry.
    pub async fn send(self, push: &dyn Push, repository: &Repository) -> Result<Descriptor, Error> {
        let layer = self.layer();
        if layer.size > Artifacts::LARGEST_INDEX {
            let (blob, size) = (self.index.blob_digest(), layer.size);
            return Err(Error::new(ErrorKind::Unsupported, format!("the index of {blob} has {size} bytes, more than readers accept")));
        }
        send(push, repository, &layer, self.attached).await?;
        Ok(layer)
    }
}

async fn send(push: &dyn Push, repository: &Repository, blob: &Descriptor, bytes: Bytes) -> Result<(), Error> {
    if push.has_blob(repository, blob).await? {
        return Ok(());
    }
    push.push_blob(repository, blob, Arc::new(bytes), Arc::new(|_| {})).await
}

/// Publishes the referrer of a manifest that holds these indexes, which the registry has. Returns the referrer, which is still to be linked
/// ([`Push::link_referrer`]). The same indexes give the same referrer.
///
/// # Errors
/// Errors of the registry.
pub async fn refer_to(
    push: &dyn Push,
    repository: &Repository,
    subject: &Manifest,
    indexes: &[Descriptor],
) -> Result<Arc<Manifest>, Error> {
    send_referrer(push, repository, referrer::manifest(subject, indexes)?).await
}

/// Publishes the referrer of a manifest that holds the order in which its files are opened ([`crate::layer::encode_access_order`]). As [`refer_to`].
///
/// # Errors
/// Errors of the registry.
pub async fn refer_access_order(
    push: &dyn Push,
    repository: &Repository,
    subject: &Manifest,
    order: Bytes,
) -> Result<Arc<Manifest>, Error> {
    let layer = Descriptor::new(ACCESS_ORDER_TYPE, Digest::of(&order), order.len() as u64);
    send(push, repository, &layer, order).await?;
    send_referrer(push, repository, referrer::of_type(ACCESS_ORDER_TYPE, subject, &[layer], None)?).await
}

async fn send_referrer(push: &dyn Push, repository: &Repository, manifest: Arc<Manifest>) -> Result<Arc<Manifest>, Error> {
    let empty = Descriptor::new(media_type::OCI_EMPTY, Digest::of(EMPTY), EMPTY.len() as u64);
    send(push, repository, &empty, Bytes::from_static(EMPTY)).await?;
    push.push_manifest(repository, &Version::Digest(manifest.digest), &manifest).await?;
    Ok(manifest)
}
