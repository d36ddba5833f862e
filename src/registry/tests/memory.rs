//! A registry in memory, for the tests of everything that reads or writes one.
//!
//! It refuses what real registries refuse: a blob with other bytes, a manifest whose blobs are missing. It holds blobs, manifests and
//! tags from plain data, logs every request, and fails on demand. Names are plain text and unchecked, so that a test can hold names
//! that no grammar allows. It never touches a network or a disk.

mod pull;
mod push;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Repository, Version, media_type};
use crate::registry::{Page, TagDeletion, Trust};

/// The requests that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RequestKind {
    /// `ping`.
    Ping,
    /// `resolve`.
    Resolve,
    /// `manifest`.
    Manifest,
    /// `blob`.
    Blob,
    /// `blob_size`.
    BlobSize,
    /// One page of tags.
    Tags,
    /// One page of repositories.
    Repositories,
    /// `referrers`.
    Referrers,
    /// `has_blob`.
    HasBlob,
    /// `mount_blob`.
    MountBlob,
    /// `push_blob`.
    PushBlob,
    /// `push_manifest` by digest.
    PushManifest,
    /// `push_manifest` under a tag.
    PushTag,
    /// `delete_tag`.
    DeleteTag,
    /// `delete_manifest`.
    DeleteManifest,
    /// `delete_blob`.
    DeleteBlob,
    /// `link_referrer`.
    LinkReferrer,
}

impl RequestKind {
    fn writes(self) -> bool {
        use RequestKind::{DeleteBlob, DeleteManifest, DeleteTag, LinkReferrer, MountBlob, PushBlob, PushManifest, PushTag};
        matches!(self, MountBlob | PushBlob | PushManifest | PushTag | DeleteTag | DeleteManifest | DeleteBlob | LinkReferrer)
    }
}

/// One logged request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The kind of request.
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

/// A fault to inject into a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request fails with this kind.
    Error(ErrorKind),
    /// The request is done, and its answer is lost: it fails with this kind all the same.
    LostAnswer(ErrorKind),
    /// The request is done, but nothing is answered until [`Memory::release`].
    StallAnswer,
    /// The bytes end with an error of this kind after so many of them, received or sent.
    Short(u64, ErrorKind),
    /// The lowest bit of the byte at this offset of the answer is flipped.
    Flipped(u64),
    /// No answer until [`Memory::release`]; only then the request is done.
    Stall,
    /// The request is done after so long.
    Delay(Duration),
    /// So many bytes, received or sent, then none until [`Memory::release`].
    StallAfter(u64),
    /// A blob is answered by way of a transport that is not trusted.
    Strayed,
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
    strayed: bool,
    away: Option<Instant>,
    repositories: BTreeMap<String, Contents>,
    odd_names: Vec<(String, Descriptor)>,
    requests: Vec<Request>,
    planned: Vec<Planned>,
    page_size: usize,
    has_catalog: bool,
    deletion: TagDeletion,
}

/// A registry in memory. Shared by reference; every method takes `&self`.
pub(crate) struct Memory {
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

    /// An empty registry of the given name and trust; `oci:…` is one on this machine.
    pub fn with_origin(origin: &str, trust: Trust) -> Self {
        let state = State {
            strayed: false,
            away: None,
            repositories: BTreeMap::new(),
            odd_names: Vec::new(),
            requests: Vec::new(),
            planned: Vec::new(),
            page_size: 1000,
            has_catalog: true,
            deletion: TagDeletion::Direct,
        };
        Self { origin: origin.to_owned(), trust, state: Mutex::new(state), released: watch::Sender::new(false) }
    }

    /// Makes sure that a repository exists, without tags.
    pub fn add_repository(&self, repository: &str) {
        self.state.lock().repositories.entry(repository.to_owned()).or_default();
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
        self.state.lock().repositories.entry(repository.to_owned()).or_default().blobs.insert(digest, data.into());
    }

    /// Removes a blob.
    pub fn remove_blob(&self, repository: &str, digest: &Digest) {
        if let Some(contents) = self.state.lock().repositories.get_mut(repository) {
            contents.blobs.remove(digest);
        }
    }

    /// Adds a manifest, whatever its bytes, and answers its digest.
    pub fn add_manifest(&self, repository: &str, raw: impl Into<Bytes>) -> Digest {
        let raw = raw.into();
        let digest = Digest::of(&raw);
        self.state.lock().repositories.entry(repository.to_owned()).or_default().manifests.insert(digest, raw);
        digest
    }

    /// Removes a manifest and every tag that has it.
    pub fn remove_manifest(&self, repository: &str, digest: &Digest) {
        if let Some(contents) = self.state.lock().repositories.get_mut(repository) {
            contents.manifests.remove(digest);
            contents.tags.retain(|_, tagged| tagged != digest);
        }
    }

    /// Points a tag at a manifest.
    pub fn tag(&self, repository: &str, tag: &str, digest: Digest) {
        self.state.lock().repositories.entry(repository.to_owned()).or_default().tags.insert(tag.to_owned(), digest);
    }

    /// Removes a tag.
    pub fn untag(&self, repository: &str, tag: &str) {
        if let Some(contents) = self.state.lock().repositories.get_mut(repository) {
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
        let mut state = self.state.lock();
        state.odd_names.retain(|(known, _)| known != name);
        state.odd_names.push((name.to_owned(), descriptor));
    }

    /// Names on a page, 1000 unless told otherwise.
    pub fn set_page_size(&self, names: usize) {
        self.state.lock().page_size = names.max(1);
    }

    /// Whether there is a list of repositories.
    pub fn set_catalog(&self, has_catalog: bool) {
        self.state.lock().has_catalog = has_catalog;
    }

    /// How tags are deleted, `Direct` unless told otherwise.
    pub fn set_tag_deletion(&self, deletion: TagDeletion) {
        self.state.lock().deletion = deletion;
    }

    /// Every tag of a repository with what it holds, for comparisons that log no request.
    pub fn tagged(&self, repository: &str) -> BTreeMap<String, Digest> {
        self.state.lock().repositories.get(repository).map(|contents| contents.tags.clone()).unwrap_or_default()
    }

    /// The blobs and manifests of a repository, for comparisons that log no request.
    pub fn held(&self, repository: &str) -> BTreeMap<Digest, Bytes> {
        let state = self.state.lock();
        let contents = state.repositories.get(repository);
        let all = contents.into_iter().flat_map(|contents| contents.blobs.iter().chain(&contents.manifests));
        all.map(|(digest, bytes)| (*digest, bytes.clone())).collect()
    }

    /// Plans a fault: `skip` requests of the kind pass, the next `times` are struck.
    pub fn plan(&self, kind: RequestKind, skip: u32, times: u32, fault: Fault) {
        self.state.lock().planned.push(Planned { kind, skip, times, fault });
    }

    /// Drops every planned fault.
    pub fn mend(&self) {
        self.state.lock().planned.clear();
    }

    /// Says that an operation just got no answer.
    pub fn fall_silent(&self) {
        self.state.lock().away = Some(Instant::now());
    }

    /// Lets everything that stalls go on, now and later.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Makes what stalls from now on wait for the next [`Memory::release`].
    pub fn stall_again(&self) {
        self.released.send_replace(false);
    }

    /// The requests so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().requests.clone()
    }

    /// How many requests of a kind there were.
    pub fn count(&self, kind: RequestKind) -> usize {
        self.state.lock().requests.iter().filter(|request| request.kind == kind).count()
    }

    /// Empties the log of requests.
    pub fn forget_requests(&self) {
        self.state.lock().requests.clear();
    }

    /// Logs a request and answers the fault that strikes it, after a stall if that is the fault.
    async fn enter(&self, kind: RequestKind, repository: &str, object: String, range: Option<Range<u64>>) -> Result<Option<Fault>, Error> {
        let fault = {
            let mut state = self.state.lock();
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
            Some(Fault::Error(error)) => Err(self.struck(error)),
            // A read whose answer is lost has done nothing.
            Some(Fault::LostAnswer(error)) if !kind.writes() => Err(self.struck(error)),
            Some(Fault::Stall) => {
                wait_for_release(self.released.subscribe()).await;
                Ok(None)
            }
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    fn struck(&self, kind: ErrorKind) -> Error {
        Error::new(kind, format!("planned fault of a request to {}", self.origin))
    }

    fn find(&self, repository: &Repository, version: &Version) -> Result<(Digest, Bytes), Error> {
        let state = self.state.lock();
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
    // A sender that is gone is a registry that is gone: its answer is not awaited.
    let _ = released.wait_for(|released| *released).await;
}

mod tests;
