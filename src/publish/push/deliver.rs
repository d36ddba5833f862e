//! Sends everything except the tag: blobs while they are packed, then manifests by digest.

use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Repository, Version};
use crate::publish::Publisher;
use crate::publish::disk;
use crate::publish::kinds::work::{Built, Work};
use crate::publish::pack::store;
use crate::publish::progress::Progress;

/// The destination of an artifact.
pub(in crate::publish) struct Delivery<'a> {
    pub publisher: &'a Publisher,
    pub repository: &'a Repository,
    pub progress: &'a Progress,
    /// Send nothing.
    pub dry_run: bool,
}

impl Delivery<'_> {
    /// Packs and sends everything except the tag, and removes unneeded packed layers of earlier attempts.
    pub async fn send(&self, work: &mut Work) -> Result<Built, Error> {
        let sent = self.build(work).await;
        prune(work).await;
        sent
    }

    async fn build(&self, work: &mut Work) -> Result<Built, Error> {
        let built = work.build().await?;
        match self.manifests(&built).await {
            Err(error) if error.kind == ErrorKind::Invalid => {
                // A blob may have disappeared since it was seen: check all again.
                tracing::warn!("{}: {error}; checking its blobs again", self.progress.reference());
                work.doubt();
                let built = work.build().await?;
                self.manifests(&built).await?;
                Ok(built)
            }
            other => other.map(|()| built),
        }
    }

    /// Sends the manifests of an artifact whose blobs are present.
    pub async fn manifests(&self, built: &Built) -> Result<(), Error> {
        if self.dry_run {
            return Ok(());
        }
        let push = &self.publisher.push;
        for manifest in built.before.iter().chain([&built.top]) {
            push.push_manifest(self.repository, &Version::Digest(manifest.digest), manifest).await?;
            if let Some(subject) = manifest.subject() {
                self.noted(push.link_referrer(self.repository, &subject.digest, &manifest.descriptor()).await, &subject.digest)?;
            }
        }
        for (subject, referrer) in &built.referrers {
            let pushed = async {
                push.push_manifest(self.repository, &Version::Digest(referrer.digest), referrer).await?;
                push.link_referrer(self.repository, subject, &referrer.descriptor()).await
            };
            self.noted(pushed.await, subject)?;
        }
        Ok(())
    }

    /// Continues, with a note, if a registry does not support referrers.
    fn noted(&self, linked: Result<(), Error>, subject: &Digest) -> Result<(), Error> {
        match linked {
            Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Invalid) => {
                self.progress.note(format!(
                    "the registry does not support referrers, so manifests that refer to {subject} may not be found there: {error}"
                ));
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

/// Keeps only the packed layers of this publish, which the next attempt may need.
async fn prune(work: &Work) {
    let (directory, used) = (work.store.clone(), std::sync::Arc::clone(&work.used));
    let pruned =
        blocking(move || store::prune(&directory, &used).map_err(|error| disk::failed("removing packed layers in", &directory, error)));
    if let Err(error) = pruned.await {
        tracing::warn!("{error}");
    }
}
