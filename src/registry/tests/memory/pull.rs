//! Reading from a registry in memory.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{Fault, Memory, RequestKind, wait_for_release};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Hasher, Manifest, Repository, Version};
use crate::registry::{BlobStream, MANIFEST_LIMIT, Page, Pull, Resolved, Trust, of_manifest};

/// Blob bytes arrive in pieces of this size.
const PIECE: usize = 64 << 10;

fn flip(data: &Bytes, offset: u64) -> Bytes {
    let mut data = data.to_vec();
    if let Some(byte) = usize::try_from(offset).ok().and_then(|offset| data.get_mut(offset)) {
        *byte ^= 1;
    }
    data.into()
}

/// The bytes as a stream of small pieces.
fn pieces(data: Bytes) -> impl futures_util::Stream<Item = Result<Bytes, Error>> + Send {
    let starts = (0..data.len()).step_by(PIECE);
    stream::iter(starts.map(move |start| Ok(data.slice(start..data.len().min(start + PIECE)))))
}

#[async_trait]
impl Pull for Memory {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn trust(&self) -> Trust {
        if self.state.lock().strayed { Trust::Digest } else { self.trust }
    }

    fn is_local(&self) -> bool {
        self.origin.starts_with("oci:")
    }

    fn away_since(&self) -> Option<std::time::Instant> {
        self.state.lock().away
    }

    async fn ping(&self, _about: Option<&Repository>) -> Result<(), Error> {
        self.enter(RequestKind::Ping, "", String::new(), None).await.map(drop)
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        let fault = self.enter(RequestKind::Resolve, repository.as_str(), version.to_path(), None).await?;
        let (digest, raw) = self.find(repository, version)?;
        if fault == Some(Fault::StallAnswer) {
            wait_for_release(self.released.subscribe()).await;
        }
        Ok(Resolved { digest, media_type: None, size: Some(raw.len() as u64) })
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        let fault = self.enter(RequestKind::Manifest, repository.as_str(), version.to_path(), None).await?;
        let (digest, mut raw) = self.find(repository, version)?;
        match fault {
            Some(Fault::Flipped(offset)) => raw = flip(&raw, offset),
            Some(Fault::Short(length, _)) => raw.truncate(usize::try_from(length).unwrap_or(usize::MAX)),
            Some(Fault::StallAnswer) => wait_for_release(self.released.subscribe()).await,
            _ => {}
        }
        let named = format!("manifest {repository}{version} of {}", self.origin);
        let describe = |what: &str| Error::new(ErrorKind::Integrity, format!("{named}: {what}"));
        if raw.len() as u64 > MANIFEST_LIMIT {
            return Err(describe("larger than 4 MiB"));
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&raw);
        if hasher.finish() != digest {
            return Err(describe("the bytes do not match the digest"));
        }
        Manifest::parse(raw, digest).map_err(|error| of_manifest(&named, error))
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        let digest = descriptor.digest;
        let fault = self.enter(RequestKind::Blob, repository.as_str(), digest.to_string(), Some(range.clone())).await?;
        self.state.lock().strayed |= fault == Some(Fault::Strayed);
        let data = self.state.lock().repositories.get(repository.as_str()).and_then(|contents| contents.blobs.get(&digest).cloned());
        let data = data.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("blob {digest} does not exist in {}", self.origin)))?;
        if data.len() as u64 != descriptor.size {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("blob {digest} of {} has {} bytes instead of {}", self.origin, data.len(), descriptor.size),
            ));
        }
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let mut data = match bounds {
            Some((start, end)) if start <= end && end <= data.len() => data.slice(start..end),
            _ => return Err(Error::new(ErrorKind::Invalid, format!("blob {digest}: bytes {range:?} lie outside"))),
        };
        let cut = |length: u64, data: &Bytes| usize::try_from(length).unwrap_or(usize::MAX).min(data.len());
        let tail: BlobStream = match fault {
            Some(Fault::Flipped(offset)) => {
                data = flip(&data, offset);
                stream::empty().boxed()
            }
            Some(Fault::Short(length, kind)) => {
                data.truncate(cut(length, &data));
                stream::iter([Err(Error::new(kind, format!("planned end of blob {digest}")))]).boxed()
            }
            Some(Fault::StallAfter(length)) => {
                let rest = data.split_off(cut(length, &data));
                stream::once(wait_for_release(self.released.subscribe())).flat_map(move |()| pieces(rest.clone())).boxed()
            }
            _ => stream::empty().boxed(),
        };
        Ok(pieces(data).chain(tail).boxed())
    }

    async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        self.enter(RequestKind::BlobSize, repository.as_str(), digest.to_string(), None).await?;
        let state = self.state.lock();
        let blob = state.repositories.get(repository.as_str()).and_then(|contents| contents.blobs.get(digest));
        let missing = || Error::new(ErrorKind::NotFound, format!("blob {repository}@{digest} does not exist in {}", self.origin));
        Ok(blob.ok_or_else(missing)?.len() as u64)
    }

    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
        self.enter(RequestKind::Tags, repository.as_str(), after.unwrap_or_default().to_owned(), None).await?;
        let state = self.state.lock();
        match state.repositories.get(repository.as_str()) {
            Some(contents) => Ok(self.page(contents.tags.keys(), state.page_size, after)),
            None => Err(Error::new(ErrorKind::NotFound, format!("{repository} does not exist in {}", self.origin))),
        }
    }

    async fn repositories(&self, after: Option<&str>) -> Result<Page, Error> {
        self.enter(RequestKind::Repositories, "", after.unwrap_or_default().to_owned(), None).await?;
        let state = self.state.lock();
        if !state.has_catalog {
            return Err(Error::new(ErrorKind::Unsupported, format!("{} does not list its repositories", self.origin)));
        }
        Ok(self.page(state.repositories.keys(), state.page_size, after))
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.enter(RequestKind::Referrers, repository.as_str(), subject.to_string(), None).await?;
        let state = self.state.lock();
        let manifests = state.repositories.get(repository.as_str()).map(|contents| &contents.manifests);
        let mut found: Vec<Descriptor> = manifests
            .into_iter()
            .flatten()
            .filter_map(|(digest, raw)| Manifest::parse(raw.clone(), *digest).ok())
            .filter(|manifest| manifest.subject().is_some_and(|named| named.digest == *subject))
            .map(|manifest| manifest.descriptor())
            .collect();
        found.sort_by_key(|descriptor| descriptor.digest);
        Ok(found)
    }

    async fn odd_names(&self, _repository: &Repository) -> Result<Vec<(String, Descriptor)>, Error> {
        Ok(self.state.lock().odd_names.clone())
    }
}
