//! Writing to a registry in memory, with the planned faults.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Fault, Memory, RequestKind, wait_for_release};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Hasher, Manifest, Repository, Tag, Version};
use crate::registry::{Push, TagDeletion, UploadSource, Uploaded};

/// Uploads are read in pieces of this size.
const PIECE: usize = 64 << 10;

impl Memory {
    /// Ends a completed request: returns its answer, unless a fault loses or delays it.
    async fn answer<T: Send>(&self, fault: Option<Fault>, value: T) -> Result<T, Error> {
        match fault {
            Some(Fault::LostAnswer(kind)) => Err(Error::new(kind, format!("planned loss of an answer of {}", self.origin))),
            Some(Fault::StallAnswer) => {
                wait_for_release(self.released.subscribe()).await;
                Ok(value)
            }
            _ => Ok(value),
        }
    }

    /// Reads an upload, up to the point where a fault cuts it.
    async fn receive(&self, source: &dyn UploadSource, uploaded: &Uploaded, fault: Option<&Fault>) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while (whole.len() as u64) < source.length() {
            let stop = match fault {
                Some(Fault::Short(length, _) | Fault::StallAfter(length)) => Some(*length),
                _ => None,
            };
            if stop.is_some_and(|stop| whole.len() as u64 >= stop) {
                match fault {
                    Some(Fault::Short(_, kind)) => return Err(Error::new(*kind, format!("planned end of an upload to {}", self.origin))),
                    _ => wait_for_release(self.released.subscribe()).await,
                }
            }
            let room = stop.map(|stop| stop.saturating_sub(whole.len() as u64)).filter(|room| *room > 0);
            let piece = room.and_then(|room| usize::try_from(room).ok()).unwrap_or(PIECE).min(PIECE);
            let read = source.read(whole.len() as u64, piece).await;
            let read = read.map_err(|error| Error::new(ErrorKind::Other, format!("reading what is uploaded: {error}")))?;
            if read.is_empty() {
                break;
            }
            whole.extend_from_slice(&read);
            uploaded(whole.len() as u64);
        }
        Ok(whole.freeze())
    }

    /// Objects that a manifest refers to and the repository lacks.
    fn missing(&self, repository: &Repository, manifest: &Manifest) -> Option<Digest> {
        let state = self.state.lock();
        let contents = state.repositories.get(repository.as_str());
        let blobs = manifest.image().into_iter().flat_map(|image| image.layers.iter().chain([&image.config]));
        let members = manifest.index().into_iter().flat_map(|index| &index.manifests);
        let mut lacking = blobs
            .filter(|blob| !contents.is_some_and(|contents| contents.blobs.contains_key(&blob.digest)))
            .chain(members.filter(|member| !contents.is_some_and(|contents| contents.manifests.contains_key(&member.digest))));
        lacking.next().map(|descriptor| descriptor.digest)
    }
}

/// The digest of bytes, in the algorithm of the expected digest.
fn hashed(like: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}

#[async_trait]
impl Push for Memory {
    async fn has_blob(&self, repository: &Repository, descriptor: &Descriptor) -> Result<bool, Error> {
        let fault = self.enter(RequestKind::HasBlob, repository.as_str(), descriptor.digest.to_string(), None).await?;
        let found = {
            let state = self.state.lock();
            let blob = state.repositories.get(repository.as_str()).and_then(|contents| contents.blobs.get(&descriptor.digest));
            blob.is_some_and(|blob| blob.len() as u64 == descriptor.size)
        };
        self.answer(fault, found).await
    }

    async fn mount_blob(&self, repository: &Repository, descriptor: &Descriptor, from: &Repository) -> Result<bool, Error> {
        let fault = self.enter(RequestKind::MountBlob, repository.as_str(), descriptor.digest.to_string(), None).await?;
        let mounted = {
            let mut state = self.state.lock();
            let blob = state.repositories.get(from.as_str()).and_then(|contents| contents.blobs.get(&descriptor.digest).cloned());
            let blob = blob.filter(|blob| blob.len() as u64 == descriptor.size);
            blob.map(|blob| state.repositories.entry(repository.to_string()).or_default().blobs.insert(descriptor.digest, blob)).is_some()
        };
        self.answer(fault, mounted).await
    }

    async fn push_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        source: Arc<dyn UploadSource>,
        uploaded: Uploaded,
    ) -> Result<(), Error> {
        let fault = self.enter(RequestKind::PushBlob, repository.as_str(), descriptor.digest.to_string(), None).await?;
        let data = self.receive(&*source, &uploaded, fault.as_ref()).await?;
        if data.len() as u64 != descriptor.size || hashed(&descriptor.digest, &data) != descriptor.digest {
            let message = format!("blob {} of {repository} in {}: the bytes sent are others", descriptor.digest, self.origin);
            return Err(Error::new(ErrorKind::Integrity, message));
        }
        self.add_blob_as(repository.as_str(), descriptor.digest, data);
        self.answer(fault, ()).await
    }

    async fn push_manifest(&self, repository: &Repository, version: &Version, manifest: &Manifest) -> Result<(), Error> {
        let kind = match version {
            Version::Tag(_) => RequestKind::PushTag,
            Version::Digest(_) => RequestKind::PushManifest,
        };
        let fault = self.enter(kind, repository.as_str(), version.to_path(), None).await?;
        let refused = |why: String| Error::new(ErrorKind::Invalid, format!("manifest {repository}{version} of {}: {why}", self.origin));
        let digest = match version {
            Version::Digest(digest) => *digest,
            Version::Tag(_) => manifest.digest,
        };
        if hashed(&digest, &manifest.raw) != digest {
            return Err(refused("its bytes have another digest".to_owned()));
        }
        if let Some(missing) = self.missing(repository, manifest) {
            return Err(refused(format!("it names {missing}, which was not pushed")));
        }
        {
            let mut state = self.state.lock();
            let contents = state.repositories.entry(repository.to_string()).or_default();
            contents.manifests.insert(digest, manifest.raw.clone());
            if let Version::Tag(tag) = version {
                contents.tags.insert(tag.to_string(), digest);
            }
        }
        self.answer(fault, ()).await
    }

    async fn delete_tag(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<TagDeletion, Error> {
        let fault = self.enter(RequestKind::DeleteTag, repository.as_str(), tag.to_string(), None).await?;
        let deletion = {
            let mut state = self.state.lock();
            let deletion = state.deletion;
            let tags = state.repositories.get_mut(repository.as_str()).map(|contents| &mut contents.tags);
            let found = tags.and_then(|tags| tags.get(tag.as_str()).copied().map(|found| (tags, found)));
            match found {
                Some((tags, found)) if found == *digest => {
                    tags.remove(tag.as_str());
                    deletion
                }
                Some((_, found)) => {
                    let message = format!("tag {repository}:{tag} of {} holds {found} and not {digest}", self.origin);
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                None => return Err(Error::new(ErrorKind::NotFound, format!("tag {repository}:{tag} does not exist in {}", self.origin))),
            }
        };
        self.answer(fault, deletion).await
    }

    async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let fault = self.enter(RequestKind::DeleteManifest, repository.as_str(), digest.to_string(), None).await?;
        let found = {
            let mut state = self.state.lock();
            let contents = state.repositories.entry(repository.to_string()).or_default();
            contents.tags.retain(|_, held| held != digest);
            contents.manifests.remove(digest).is_some()
        };
        if !found {
            return Err(Error::new(ErrorKind::NotFound, format!("manifest {repository}@{digest} does not exist in {}", self.origin)));
        }
        self.answer(fault, ()).await
    }

    async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let fault = self.enter(RequestKind::DeleteBlob, repository.as_str(), digest.to_string(), None).await?;
        let found = self.state.lock().repositories.entry(repository.to_string()).or_default().blobs.remove(digest).is_some();
        if !found {
            return Err(Error::new(ErrorKind::NotFound, format!("blob {repository}@{digest} does not exist in {}", self.origin)));
        }
        self.answer(fault, ()).await
    }

    /// Only logs: referrers are found by their subject.
    async fn link_referrer(&self, repository: &Repository, subject: &Digest, _referrer: &Descriptor) -> Result<(), Error> {
        let fault = self.enter(RequestKind::LinkReferrer, repository.as_str(), subject.to_string(), None).await?;
        self.answer(fault, ()).await
    }

    async fn may_push(&self, _repository: &Repository) -> Result<(), Error> {
        Ok(())
    }
}
