//! A registry in memory, for the tests of everything that reads one.
//!
//! Holds blobs, manifests and tags from plain data, logs every request, and fails on demand. Names are plain text
//! and unchecked, so that a test can hold names that no grammar allows. It never touches a network or a disk.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::sync::watch;

use super::{BlobStream, Error, MANIFEST_LIMIT, Page, Pull, Resolved, Trust};
use crate::error::ErrorKind;
use crate::oci::{Descriptor, Digest, Hasher, Manifest, Repository, Version, media_type};

/// Blob bytes come in pieces of this size.
const PIECE: usize = 64 << 10;

/// The requests that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// `ping`.
    Ping,
    /// `resolve`.
    Resolve,
    /// `manifest`.
    Manifest,
    /// `blob`.
    Blob,
    /// One page of tags.
    Tags,
    /// One page of repositories.
    Repositories,
    /// `referrers`.
    Referrers,
}

/// One logged request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What was asked.
    pub kind: RequestKind,
    /// The repository, empty where there is none.
    pub repository: String,
    /// Tag, digest or cursor, empty where there is none.
    pub object: String,
    /// The range of a blob.
    pub range: Option<Range<u64>>,
}

/// A layer of a test: media type, bytes, annotations.
pub type PlainLayer<'a> = (&'a str, &'a [u8], &'a [(&'a str, &'a str)]);

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request fails with this kind.
    Error(ErrorKind),
    /// The bytes end with an error of this kind after so many of them.
    Short(u64, ErrorKind),
    /// The lowest bit of the byte at this offset of the answer is flipped.
    Flipped(u64),
    /// No answer until [`Memory::release`].
    Stall,
    /// So many bytes, then none until [`Memory::release`].
    StallAfter(u64),
}

/// A fault and when it strikes.
struct Planned {
    kind: RequestKind,
    /// Requests of the kind that still pass before.
    skip: u32,
    /// Requests that it strikes.
    times: u32,
    fault: Fault,
}

#[derive(Default)]
struct Contents {
    blobs: HashMap<Digest, Bytes>,
    manifests: HashMap<Digest, Bytes>,
    tags: BTreeMap<String, Digest>,
}

struct State {
    repositories: BTreeMap<String, Contents>,
    odd_names: Vec<(String, Descriptor)>,
    requests: Vec<Request>,
    planned: Vec<Planned>,
    page_size: usize,
    has_catalog: bool,
}

/// A registry in memory. Shared by reference; every method takes `&self`.
pub struct Memory {
    origin: String,
    trust: Trust,
    /// Held for map operations only, never across an await.
    state: Mutex<State>,
    released: watch::Sender<bool>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty registry whose transport is trusted.
    pub fn new() -> Self {
        Self::with_origin("memory:", Trust::Transport)
    }

    /// An empty registry of the given name and trust.
    pub fn with_origin(origin: &str, trust: Trust) -> Self {
        let state = State {
            repositories: BTreeMap::new(),
            odd_names: Vec::new(),
            requests: Vec::new(),
            planned: Vec::new(),
            page_size: 1000,
            has_catalog: true,
        };
        Self { origin: origin.to_owned(), trust, state: Mutex::new(state), released: watch::Sender::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that a repository exists, without tags.
    pub fn add_repository(&self, repository: &str) {
        self.state().repositories.entry(repository.to_owned()).or_default();
    }

    /// Adds a blob and answers its descriptor.
    pub fn add_blob(&self, repository: &str, media_type: &str, data: impl Into<Bytes>) -> Descriptor {
        let data = data.into();
        let descriptor = Descriptor::new(media_type, Digest::of(&data), data.len() as u64);
        self.add_blob_as(repository, descriptor.digest, data);
        descriptor
    }

    /// Keeps bytes under a digest, whether it is theirs or not.
    pub fn add_blob_as(&self, repository: &str, digest: Digest, data: impl Into<Bytes>) {
        self.state().repositories.entry(repository.to_owned()).or_default().blobs.insert(digest, data.into());
    }

    /// Removes a blob.
    pub fn remove_blob(&self, repository: &str, digest: &Digest) {
        if let Some(contents) = self.state().repositories.get_mut(repository) {
            contents.blobs.remove(digest);
        }
    }

    /// Adds a manifest, whatever its bytes, and answers its digest.
    pub fn add_manifest(&self, repository: &str, raw: impl Into<Bytes>) -> Digest {
        let raw = raw.into();
        let digest = Digest::of(&raw);
        self.state().repositories.entry(repository.to_owned()).or_default().manifests.insert(digest, raw);
        digest
    }

    /// Removes a manifest and every tag that has it.
    pub fn remove_manifest(&self, repository: &str, digest: &Digest) {
        if let Some(contents) = self.state().repositories.get_mut(repository) {
            contents.manifests.remove(digest);
            contents.tags.retain(|_, tagged| tagged != digest);
        }
    }

    /// Points a tag at a manifest.
    pub fn tag(&self, repository: &str, tag: &str, digest: Digest) {
        self.state().repositories.entry(repository.to_owned()).or_default().tags.insert(tag.to_owned(), digest);
    }

    /// Removes a tag.
    pub fn untag(&self, repository: &str, tag: &str) {
        if let Some(contents) = self.state().repositories.get_mut(repository) {
            contents.tags.remove(tag);
        }
    }

    /// Adds an image manifest with its blobs and tags it. Each layer is media type, bytes and annotations.
    pub fn add_artifact(
        &self,
        repository: &str,
        tag: &str,
        config: (&str, &[u8]),
        layers: &[PlainLayer<'_>],
        annotations: &[(&str, &str)],
    ) -> Digest {
        let plain = |descriptor: &Descriptor, annotations: &[(&str, &str)]| {
            let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
            json!({"mediaType": descriptor.media_type, "digest": descriptor.digest.to_string(), "size": descriptor.size, "annotations": annotations})
        };
        let config = plain(&self.add_blob(repository, config.0, Bytes::copy_from_slice(config.1)), &[]);
        let layers: Vec<_> = layers
            .iter()
            .map(|(media_type, data, annotations)| plain(&self.add_blob(repository, media_type, Bytes::copy_from_slice(data)), annotations))
            .collect();
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": config, "layers": layers, "annotations": annotations,
        });
        let digest = self.add_manifest(repository, manifest.to_string());
        self.tag(repository, tag, digest);
        digest
    }

    /// Adds a name that is a full reference and no tag, or points it at something else.
    pub fn add_odd_name(&self, name: &str, descriptor: Descriptor) {
        let mut state = self.state();
        state.odd_names.retain(|(known, _)| known != name);
        state.odd_names.push((name.to_owned(), descriptor));
    }

    /// Names on a page, 1000 unless told otherwise.
    pub fn set_page_size(&self, names: usize) {
        self.state().page_size = names.max(1);
    }

    /// Whether there is a list of repositories.
    pub fn set_catalog(&self, has_catalog: bool) {
        self.state().has_catalog = has_catalog;
    }

    /// Plans a fault: `skip` requests of the kind pass, the next `times` are struck.
    pub fn plan(&self, kind: RequestKind, skip: u32, times: u32, fault: Fault) {
        self.state().planned.push(Planned { kind, skip, times, fault });
    }

    /// Drops every planned fault.
    pub fn mend(&self) {
        self.state().planned.clear();
    }

    /// Lets everything that stalls go on, now and later.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// The requests so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// How many requests of a kind there were.
    pub fn count(&self, kind: RequestKind) -> usize {
        self.state().requests.iter().filter(|request| request.kind == kind).count()
    }

    /// Empties the log of requests.
    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// Logs a request and answers the fault that strikes it, after a stall if that is the fault.
    async fn enter(&self, kind: RequestKind, repository: &str, object: String, range: Option<Range<u64>>) -> Result<Option<Fault>, Error> {
        let fault = {
            let mut state = self.state();
            state.requests.push(Request { kind, repository: repository.to_owned(), object, range });
            let mut struck = None;
            for planned in state.planned.iter_mut().filter(|planned| planned.kind == kind && planned.times > 0) {
                if planned.skip > 0 {
                    planned.skip -= 1;
                } else if struck.is_none() {
                    planned.times -= 1;
                    struck = Some(planned.fault.clone());
                }
            }
            struck
        };
        match fault {
            Some(Fault::Error(kind)) => Err(Error::new(kind, format!("planned fault of a request to {}", self.origin))),
            Some(Fault::Stall) => {
                wait_for_release(self.released.subscribe()).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    fn find(&self, repository: &Repository, version: &Version) -> Result<(Digest, Bytes), Error> {
        let state = self.state();
        let absent = || Error::new(ErrorKind::NotFound, format!("{repository}{version} does not exist in {}", self.origin));
        let contents = state.repositories.get(repository.as_str()).ok_or_else(absent)?;
        let digest = match version {
            Version::Tag(tag) => *contents.tags.get(tag.as_str()).ok_or_else(absent)?,
            Version::Digest(digest) => *digest,
        };
        contents.manifests.get(&digest).map(|raw| (digest, raw.clone())).ok_or_else(absent)
    }

    fn page<'a>(&self, names: impl Iterator<Item = &'a String>, size: usize, after: Option<&str>) -> Page {
        let mut names: Vec<String> = names.filter(|name| after.is_none_or(|after| name.as_str() > after)).take(size + 1).cloned().collect();
        let more = names.len() > size;
        names.truncate(size);
        Page { next: names.last().filter(|_| more).cloned(), names }
    }
}

async fn wait_for_release(mut released: watch::Receiver<bool>) {
    // A sender that is gone is a registry that is gone: nobody waits for its answer.
    let _ = released.wait_for(|released| *released).await;
}

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
        self.trust
    }

    async fn ping(&self, _about: Option<&Repository>) -> Result<(), Error> {
        self.enter(RequestKind::Ping, "", String::new(), None).await.map(drop)
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        self.enter(RequestKind::Resolve, repository.as_str(), version.to_path(), None).await?;
        let (digest, raw) = self.find(repository, version)?;
        Ok(Resolved { digest, media_type: None, size: Some(raw.len() as u64) })
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        let fault = self.enter(RequestKind::Manifest, repository.as_str(), version.to_path(), None).await?;
        let (digest, mut raw) = self.find(repository, version)?;
        match fault {
            Some(Fault::Flipped(offset)) => raw = flip(&raw, offset),
            Some(Fault::Short(length, _)) => raw.truncate(usize::try_from(length).unwrap_or(usize::MAX)),
            _ => {}
        }
        let describe = |what: &str| Error::new(ErrorKind::Integrity, format!("manifest {repository}{version} of {}: {what}", self.origin));
        if raw.len() as u64 > MANIFEST_LIMIT {
            return Err(describe("larger than 4 MiB"));
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&raw);
        if hasher.finish() != digest {
            return Err(describe("the bytes do not match the digest"));
        }
        Manifest::parse(raw, digest).map_err(|error| describe(&error.to_string()))
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        let digest = descriptor.digest;
        let fault = self.enter(RequestKind::Blob, repository.as_str(), digest.to_string(), Some(range.clone())).await?;
        let data = self.state().repositories.get(repository.as_str()).and_then(|contents| contents.blobs.get(&digest).cloned());
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

    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
        self.enter(RequestKind::Tags, repository.as_str(), after.unwrap_or_default().to_owned(), None).await?;
        let state = self.state();
        match state.repositories.get(repository.as_str()) {
            Some(contents) => Ok(self.page(contents.tags.keys(), state.page_size, after)),
            None => Err(Error::new(ErrorKind::NotFound, format!("{repository} does not exist in {}", self.origin))),
        }
    }

    async fn repositories(&self, after: Option<&str>) -> Result<Page, Error> {
        self.enter(RequestKind::Repositories, "", after.unwrap_or_default().to_owned(), None).await?;
        let state = self.state();
        if !state.has_catalog {
            return Err(Error::new(ErrorKind::Unsupported, format!("{} does not list its repositories", self.origin)));
        }
        Ok(self.page(state.repositories.keys(), state.page_size, after))
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.enter(RequestKind::Referrers, repository.as_str(), subject.to_string(), None).await?;
        let state = self.state();
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
        Ok(self.state().odd_names.clone())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, TryStreamExt};

    use super::*;

    fn repository() -> Repository {
        Repository::parse("team/app").unwrap()
    }

    async fn read(memory: &Memory, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let stream = memory.blob(&repository(), descriptor, 0..descriptor.size).await?;
        stream
            .try_fold(Vec::new(), |mut all, piece| async move {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await
    }

    #[tokio::test]
    async fn planned_faults_strike_the_requests_they_are_planned_for_and_no_others() {
        let memory = Memory::new();
        let blob = memory.add_blob("team/app", "a/b", vec![7; 100_000]);
        memory.plan(RequestKind::Blob, 1, 1, Fault::Error(ErrorKind::Unreachable));
        memory.plan(RequestKind::Blob, 2, 1, Fault::Flipped(99_999));
        memory.plan(RequestKind::Blob, 3, 1, Fault::Short(5, ErrorKind::TimedOut));
        assert_eq!(read(&memory, &blob).await.unwrap(), vec![7; 100_000]);
        assert_eq!(read(&memory, &blob).await.unwrap_err().kind, ErrorKind::Unreachable);
        assert_eq!(read(&memory, &blob).await.unwrap()[99_999], 6);
        assert_eq!(read(&memory, &blob).await.unwrap_err().kind, ErrorKind::TimedOut);
        assert_eq!(read(&memory, &blob).await.unwrap(), vec![7; 100_000]);
        assert_eq!(memory.count(RequestKind::Blob), 5);
        assert_eq!(memory.requests()[0].range, Some(0..100_000));
    }

    #[tokio::test]
    async fn what_stalls_goes_on_when_it_is_released() {
        let memory = Memory::new();
        let blob = memory.add_blob("team/app", "a/b", vec![7; 100]);
        memory.plan(RequestKind::Blob, 0, 1, Fault::StallAfter(10));
        let mut waiting = Box::pin(read(&memory, &blob));
        assert!(waiting.as_mut().now_or_never().is_none());
        memory.release();
        assert_eq!(waiting.await.unwrap(), vec![7; 100]);
    }

    #[tokio::test]
    async fn a_flipped_manifest_is_an_integrity_error() {
        let memory = Memory::new();
        let digest = memory.add_artifact("team/app", "v1", ("a/b", b"{}"), &[("c/d", b"data", &[("k", "v")])], &[]);
        let tag = Version::Tag(crate::oci::Tag::parse("v1").unwrap());
        let manifest = memory.manifest(&repository(), &tag).await.unwrap();
        assert_eq!((manifest.digest, manifest.image().unwrap().layers[0].annotation("k")), (digest, Some("v")));
        memory.plan(RequestKind::Manifest, 0, 1, Fault::Flipped(3));
        assert_eq!(memory.manifest(&repository(), &tag).await.unwrap_err().kind, ErrorKind::Integrity);
    }
}
