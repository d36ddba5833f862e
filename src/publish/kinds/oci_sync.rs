//! The single archive of oci-sync, sealed if it was before (or, for a new one, if there is a passphrase).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::work::{Built, Work};
use crate::artifact::{Artifact, attached_index};
use crate::error::{Error, ErrorKind};
use crate::layer::Packing;
use crate::oci::{Descriptor, media_type};
use crate::publish::manifest::{EMPTY, oci_sync, referrer};
use crate::publish::pack::made::Made;
use crate::publish::pack::sealed::Sealed;
use crate::publish::plan::whole;

impl Work {
    pub(super) async fn oci_sync(&self, base: Option<&Arc<Artifact>>) -> Result<Built, Error> {
        let sealed_source = base.and_then(|base| base.sources().iter().find(|source| source.is_sealed()).cloned());
        let was_sealed = sealed_source.is_some();
        let sealed = if base.is_some() && !was_sealed { None } else { Sealed::fresh(&self.artifacts, sealed_source).await? };
        if was_sealed && sealed.is_none() {
            return Err(Error::new(
                ErrorKind::KeyMissing,
                "it is encrypted and no passphrase was given; it is never published unencrypted",
            ));
        }
        let is_sealed = sealed.is_some();
        if base.is_none() && !is_sealed {
            self.progress.note("not encrypted: no passphrase was given for the new oci-sync archive");
        }
        let snapshot = self.without(self.silent().await?);
        let plan = whole::plan(&snapshot, None, Packing::GzipTar, Vec::new()).await?;
        let made = self.producer(snapshot, sealed, self.attach_index && !is_sealed)?.produce(plan, &HashMap::new()).await?;
        let Some(Made::Packed(ready)) = made.first() else { return Err(Error::other("an archive was not packed")) };
        let mut layer = Descriptor::new("application/octet-stream", ready.blob.0, ready.blob.1);
        let index =
            ready.attached_index.as_ref().map(|(digest, size, _)| Descriptor::new(attached_index::INDEX_MEDIA_TYPE, *digest, *size));
        if let Some(index) = &index {
            attached_index::bind(&mut layer, index.digest, index.size);
            self.send_empty().await?;
        }
        self.send(media_type::OCI_CONFIG, Bytes::from_static(EMPTY)).await?;
        let labels = base.map_or(&self.new.metadata.annotations, |base| base.shown.annotations());
        let top = oci_sync::manifest(&layer, is_sealed, labels)?;
        let referrers = match index {
            Some(index) => vec![(top.digest, referrer::manifest(&top, &[index])?)],
            None => Vec::new(),
        };
        Ok(Built { top, before: Vec::new(), referrers, made })
    }
}
