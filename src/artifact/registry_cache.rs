//! The registry cache: tags, lists, manifests and referrers with their age, stored for offline use.
//!
//! Sends at most one request for many callers. A list is never a negative answer. A network fault never becomes "not found": while the registry is
//! unreachable the last known answer is used, and the log says so once.

mod lists;
mod memory;
mod outage;
mod reach;
mod store;
mod writer;
mod written;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub(super) use memory::Generations;
pub use memory::Listing;
use memory::{Memory, TagAnswer};
use outage::is_outage;
use writer::{Dirty, Writer};

use super::Options;
use crate::cache::SpanCache;
use crate::error::{Error, ErrorKind};
use crate::flight::Flight;
use crate::oci::{Descriptor, Digest, Hasher, Manifest, Repository, Tag, Version};
use crate::registry::Pull;

/// Bytes of manifests kept in memory, in each of two generations; others are read from the cache.
const MANIFEST_BYTES: usize = 1 << 20;

type Lookup<T> = Result<T, Error>;

/// Cached answers of a registry, and how to ask it.
pub(super) struct RegistryCache {
    pub pull: Arc<dyn Pull>,
    pub options: Options,
    cache: SpanCache,
    /// Never held across an await.
    memory: Mutex<Memory>,
    manifests: Mutex<Generations<(Repository, Digest), Arc<Manifest>>>,
    tag_flight: Flight<(Repository, Tag), Lookup<Digest>>,
    list_flight: Flight<Option<Repository>, Lookup<Listing>>,
    manifest_flight: Flight<(Repository, Digest), Lookup<Arc<Manifest>>>,
    referrers_flight: Flight<(Repository, Digest), Lookup<Arc<[Descriptor]>>>,
    writer: Writer,
}

impl RegistryCache {
    pub fn new(pull: Arc<dyn Pull>, cache: SpanCache, options: Options) -> Self {
        Self {
            pull,
            options,
            cache,
            memory: Mutex::default(),
            manifests: Mutex::new(Generations::new(MANIFEST_BYTES)),
            tag_flight: Flight::default(),
            list_flight: Flight::default(),
            manifest_flight: Flight::default(),
            referrers_flight: Flight::default(),
            writer: Writer::default(),
        }
    }

    /// The digest of a tag: fresh, or requested, or the last known while the registry is unreachable.
    pub async fn tag(self: &Arc<Self>, repository: &Repository, tag: &Tag) -> Lookup<Digest> {
        self.load_tags(repository);
        let last = match self.memory.lock().tag(repository, tag, self.options.tag_ttl) {
            TagAnswer::Fresh(digest) => return Ok(digest),
            TagAnswer::Absent => return Err(self.absent(&format!("{repository}:{tag}"))),
            TagAnswer::Stale(digest) => Some(digest),
            TagAnswer::Unknown => None,
        };
        if self.options.offline {
            return last.ok_or_else(|| self.unasked(&format!("{repository}:{tag}"), self.is_listed(repository, tag)));
        }
        if let Some(digest) = last
            && self.is_away()
        {
            return Ok(digest);
        }
        let known = || match self.memory.lock().tag(repository, tag, self.options.tag_ttl) {
            TagAnswer::Fresh(digest) => Some(Ok(digest)),
            TagAnswer::Absent => Some(Err(self.absent(&format!("{repository}:{tag}")))),
            TagAnswer::Stale(_) | TagAnswer::Unknown => None,
        };
        let asked = self.tag_flight.run((repository.clone(), tag.clone()), known, || {
            let (me, repository, tag) = (Arc::clone(self), repository.clone(), tag.clone());
            async move { me.ask_tag(&repository, &tag, last).await }
        });
        self.answered(asked, last).await
    }

    /// The last known digest of a tag.
    pub fn last_tag(&self, repository: &Repository, tag: &Tag) -> Option<Digest> {
        match self.memory.lock().tag(repository, tag, self.options.tag_ttl) {
            TagAnswer::Fresh(digest) | TagAnswer::Stale(digest) => Some(digest),
            TagAnswer::Absent | TagAnswer::Unknown => None,
        }
    }

    /// How long ago the registry reported a tag's digest; `None` if not in this process.
    pub fn tag_age(&self, repository: &Repository, tag: &Tag) -> Option<Duration> {
        self.memory.lock().tag_checked(repository, tag).map(|checked| checked.elapsed())
    }

    /// Whether the digest of a tag may be used without a request: it is fresh, or the registry cannot be reached.
    pub fn is_tag_fresh(self: &Arc<Self>, repository: &Repository, tag: &Tag) -> bool {
        let known = self.memory.lock().tag(repository, tag, self.options.tag_ttl);
        self.options.offline || matches!(known, TagAnswer::Fresh(_)) || self.is_away()
    }

    async fn ask_tag(self: &Arc<Self>, repository: &Repository, tag: &Tag, last: Option<Digest>) -> Lookup<Digest> {
        let version = Version::Tag(tag.clone());
        let writes = self.memory.lock().writes(repository, Some(tag));
        // The manifest is needed next: without an earlier answer, one GET returns digest and manifest together.
        let answer = match last {
            Some(_) => match self.pull.resolve(repository, &version).await {
                Err(error) if error.kind == ErrorKind::Unsupported => self.fetch_tag(repository, &version).await,
                answer => answer.map(|resolved| resolved.digest),
            },
            None => self.fetch_tag(repository, &version).await,
        };
        if self.memory.lock().writes(repository, Some(tag)) != writes {
            return self.written(repository, tag);
        }
        match answer {
            Ok(digest) => {
                self.reached();
                self.memory.lock().learn_tag(repository, tag, digest);
                match last {
                    Some(last) if last != digest => tracing::info!("{repository}:{tag} moved from {last} to {digest}"),
                    _ => tracing::debug!("{repository}:{tag} is {digest}"),
                }
                self.mark(Dirty::Tags(repository.clone()));
                self.learned(repository);
                Ok(digest)
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.reached();
                if self.memory.lock().forget_tag(repository, tag) {
                    self.mark(Dirty::Tags(repository.clone()));
                }
                Err(error)
            }
            Err(error) if is_outage(error.kind) => self.last_known(last, error),
            Err(error) => Err(error),
        }
    }

    async fn fetch_tag(self: &Arc<Self>, repository: &Repository, version: &Version) -> Lookup<Digest> {
        match self.pull.manifest(repository, version).await {
            Ok(manifest) => {
                let digest = manifest.digest;
                self.remember(repository, Arc::new(manifest));
                Ok(digest)
            }
            // An unreadable manifest is its reader's error; the tag itself exists.
            Err(error) if matches!(error.kind, ErrorKind::Integrity | ErrorKind::Invalid | ErrorKind::Unsupported) => {
                let digest = self.pull.resolve(repository, version).await?.digest;
                // If the registry names a digest that it does not have, that is its error rather than NotFound.
                match self.pull.resolve(repository, &Version::Digest(digest)).await {
                    Err(absent) if absent.kind == ErrorKind::NotFound => Err(error),
                    Err(error) if is_outage(error.kind) => Err(error),
                    _ => Ok(digest),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// A manifest by digest, from memory, from disk, or requested.
    pub async fn manifest(self: &Arc<Self>, repository: &Repository, digest: &Digest) -> Lookup<Arc<Manifest>> {
        let key = (repository.clone(), *digest);
        let kept = self.manifests.lock().get(&key);
        if let Some(manifest) = kept {
            return Ok(manifest);
        }
        if let Some(manifest) = self.stored_manifest(repository, digest) {
            self.keep(repository, &manifest);
            return Ok(manifest);
        }
        if self.options.offline {
            return Err(self.unasked(&format!("{repository}@{digest}"), true));
        }
        let kept = || self.manifests.lock().get(&key).map(Ok);
        let asked = self.manifest_flight.run(key.clone(), kept, || {
            let (me, repository, version) = (Arc::clone(self), repository.clone(), Version::Digest(*digest));
            async move {
                let manifest = Arc::new(me.pull.manifest(&repository, &version).await?);
                me.remember(&repository, Arc::clone(&manifest));
                Ok(manifest)
            }
        });
        asked.await.map_err(abandoned)?
    }

    /// The same for one that a tag or index refers to: it must exist, so NotFound becomes another error.
    pub async fn named_manifest(self: &Arc<Self>, repository: &Repository, digest: &Digest) -> Lookup<Arc<Manifest>> {
        self.manifest(repository, digest).await.map_err(Error::absent_is_gone)
    }

    fn keep(&self, repository: &Repository, manifest: &Arc<Manifest>) {
        let weight = manifest.raw.len().saturating_mul(3);
        let mut kept = self.manifests.lock();
        kept.insert((repository.clone(), manifest.digest), Arc::clone(manifest), weight);
    }

    fn remember(self: &Arc<Self>, repository: &Repository, manifest: Arc<Manifest>) {
        self.keep(repository, &manifest);
        self.mark(Dirty::Manifest(repository.clone(), manifest));
    }

    /// A manifest from memory or disk.
    fn local_manifest(&self, repository: &Repository, digest: &Digest) -> Option<Arc<Manifest>> {
        let kept = self.manifests.lock().get(&(repository.clone(), *digest));
        kept.or_else(|| self.stored_manifest(repository, digest))
    }

    fn stored_manifest(&self, repository: &Repository, digest: &Digest) -> Option<Arc<Manifest>> {
        let bytes = self.document("manifest", &["manifest", repository.as_str(), &digest.to_string()])?;
        let bytes = (*bytes).as_ref();
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(bytes);
        (hasher.finish() == *digest).then_some(())?;
        Manifest::parse(bytes::Bytes::copy_from_slice(bytes), *digest).ok().map(Arc::new)
    }

    /// The manifests that refer to a digest.
    pub async fn referrers(self: &Arc<Self>, repository: &Repository, subject: &Digest) -> Lookup<Arc<[Descriptor]>> {
        let key = (repository.clone(), *subject);
        let (fresh, last) = self.memory.lock().referrers(&key, self.options.tag_ttl);
        let last = last.or_else(|| self.stored_referrers(repository, subject));
        if let Some(known) = &last
            && (fresh || self.options.offline || self.is_away())
        {
            return Ok(Arc::clone(known));
        }
        if self.options.offline {
            return Err(self.unasked(&format!("what refers to {repository}@{subject}"), true));
        }
        let older = last.clone();
        let known = || match self.memory.lock().referrers(&key, self.options.tag_ttl) {
            (true, known) => known.map(Ok),
            (false, _) => None,
        };
        let asked = self.referrers_flight.run(key.clone(), known, || {
            let (me, key) = (Arc::clone(self), key.clone());
            async move {
                let found: Lookup<Vec<_>> = me.pull.referrers(&key.0, &key.1).await;
                match found {
                    Ok(found) => {
                        me.reached();
                        let found: Arc<[Descriptor]> = found.into();
                        me.memory.lock().learn_referrers(key.clone(), Arc::clone(&found));
                        me.mark(Dirty::Referrers(key.0, key.1, Arc::clone(&found)));
                        Ok(found)
                    }
                    Err(error) if is_outage(error.kind) => me.last_known(last, error),
                    Err(error) => Err(error),
                }
            }
        });
        self.answered(asked, older).await
    }

    /// The same, as the registry listed them once, however long ago: it is asked only if it never was.
    pub async fn known_referrers(self: &Arc<Self>, repository: &Repository, subject: &Digest) -> Lookup<Arc<[Descriptor]>> {
        let (_, last) = self.memory.lock().referrers(&(repository.clone(), *subject), self.options.tag_ttl);
        match last.or_else(|| self.stored_referrers(repository, subject)) {
            Some(known) => Ok(known),
            None => self.referrers(repository, subject).await,
        }
    }

    /// Expires everything, so that the next use asks the registry.
    pub fn refresh(&self, repository: Option<&Repository>) {
        self.memory.lock().refresh(repository);
    }

    /// Waits until all answers are stored.
    pub async fn flush(&self) {
        self.writer.idle().await;
    }

    /// Whether the last known list of a repository contains a tag. Makes no request.
    pub fn is_listed(&self, repository: &Repository, tag: &Tag) -> bool {
        self.load_tags(repository);
        let mut memory = self.memory.lock();
        let names = memory.repository(repository).list.as_ref().map(|seen| Arc::clone(&seen.value.names));
        names.is_some_and(|names| names.binary_search_by(|name| name.as_str().cmp(tag.as_str())).is_ok())
    }

    /// The error for something not cached with `--offline`. Objects referred to from the cache must exist.
    fn unasked(&self, what: &str, is_named: bool) -> Error {
        if !is_named {
            return self.absent(what);
        }
        let origin = self.pull.origin().escape_default();
        Error::new(ErrorKind::Unreachable, format!("{what} is not cached (--offline: not asking {origin})"))
    }

    fn absent(&self, what: &str) -> Error {
        let reason = if self.options.offline { "is not cached (--offline)" } else { "does not exist" };
        Error::new(ErrorKind::NotFound, format!("{what} {reason} ({})", self.pull.origin().escape_default()))
    }
}

fn abandoned(error: crate::flight::Abandoned) -> Error {
    Error::new(ErrorKind::Interrupted, format!("asking the registry: {error}"))
}

#[cfg(test)]
mod tests;
