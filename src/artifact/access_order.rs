//! The order in which the files of an artifact were first opened: remembered in the cache, and fetched in this order the next time, ahead of the reader.
//!
//! One document per manifest, in the form of [`crate::layer::parse_access_order`]; that of an encrypted artifact is sealed, since names are secret.
//! It is stored a while after files were opened and when the mount ends, never during an open; what other daemons stored meanwhile is kept. A hint: it decides
//! what is fetched early, never what is read.

mod follow;
pub(super) mod opens;
pub(super) mod orders;
mod referred;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use follow::Follower;
pub use referred::ACCESS_ORDER_TYPE;

use super::artifacts::{Artifacts, Inner};
use super::fill::{Parts, starts};
use super::loaded::Artifact;
use super::tree::{NodeId, Tree};
use crate::blocking::blocking;
use crate::cache::Protection;
use crate::content::BlobSource;
use crate::error::{Error, ErrorKind};
use crate::layer::{encode_access_order, parse_access_order};
use crate::oci::{Digest, Repository};

/// Document kind.
const ORDER: &str = "order";
/// How long opens wait to be stored together.
const INTERVAL: Duration = Duration::from_secs(60);
/// Most bytes ahead of a reader, with a cache of at least eight times that size.
const LARGEST: u64 = 16 << 20;
/// Most bytes of a file that are fetched: larger ones are read ahead by themselves.
const START: u64 = 1 << 20;
/// Bytes between two files of a stream that are fetched with them.
const GAP: u64 = 16 << 10;
/// Names of an artifact for which the registry is asked for a published order.
const WORTHWHILE: u32 = 16;
/// The least that a small blob counts for, in bytes: it takes a request of its own.
const LEAST: u64 = 64 << 10;
/// Artifacts that wait to be stored: some have their trees in memory. More are stored after [`SOON`].
const UNSTORED: usize = 16;
const SOON: Duration = Duration::from_secs(1);
/// Most repositories that are remembered as refusing to say what refers to a manifest.
const REFUSING: usize = 256;

impl Artifacts {
    /// Records that a file is opened, and fetches those that followed it when it was opened before. Returns at once, and whether the order foretells what is
    /// opened next.
    pub(super) fn follow_order(&self, repository: &Repository, artifact: &Arc<Artifact>, node: NodeId, strict: bool) -> bool {
        // The lock is held for one open.
        let noted = artifact.opens.as_ref().and_then(|opens| opens.lock().note(node));
        let Some(noted) = noted else { return false };
        let at = Reading { repository: repository.clone(), artifact: Arc::clone(artifact), strict: strict || self.options().strict };
        if noted.is_first {
            let inner = Arc::clone(&self.inner);
            tokio::spawn(async move { inner.begin_order(&at).await });
        } else {
            self.inner.fetch_in_order(&at, noted.ahead);
        }
        if noted.to_queue {
            self.inner.queue_order(artifact);
        }
        noted.is_foretold
    }

    /// The remembered order of a plain artifact's manifest, encoded.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub async fn access_order(&self, manifest: &Digest) -> Result<Option<Bytes>, Error> {
        let (cache, name) = (self.inner.cache.clone(), name(manifest));
        let found = blocking(move || cache.document(ORDER, &name, &Protection::Plain)).await?;
        Ok(found.map(|document| Bytes::copy_from_slice((*document).as_ref())))
    }

    /// The order that a referrer of a manifest publishes, encoded.
    ///
    /// # Errors
    /// Those of the registry; Unsupported or Integrity for an order that no mount would use.
    pub async fn published_access_order(&self, repository: &Repository, manifest: &Digest) -> Result<Option<Bytes>, Error> {
        let referrers = self.inner.registry_cache.referrers(repository, manifest).await?;
        let found = self.inner.referred_order(repository, &referrers).await?;
        found.map(|order| parse_access_order(&order).map(drop).map(|()| Bytes::from(order))).transpose()
    }

    /// Stores the orders of all files opened so far.
    pub(super) async fn store_orders(&self) {
        self.inner.store_orders().await;
    }
}

/// An artifact and how it is read.
#[derive(Clone)]
struct Reading {
    repository: Repository,
    artifact: Arc<Artifact>,
    strict: bool,
}

impl Reading {
    /// One of its blobs, unless that is a manifest.
    fn source(&self, blob: u32) -> Option<BlobSource> {
        let source = self.artifact.source(blob).filter(|source| !self.artifact.manifests.contains(&source.descriptor.digest))?;
        Some(BlobSource { repository: self.repository.clone(), strict: self.strict, ..source.clone() })
    }
}

impl Inner {
    /// Loads the remembered order, or else one that was published, and fetches by it.
    async fn begin_order(self: &Arc<Self>, at: &Reading) {
        let remembered = match self.here(&at.artifact).await {
            Some(protection) => self.remembered_order(&at.artifact, protection).await,
            None => Ok(None),
        };
        let remembered = remembered.unwrap_or_else(|error| {
            tracing::warn!("cannot read the order in which files were opened: {error}");
            None
        });
        let order = match remembered {
            Some(order) => order,
            None => self.published_order(at).await,
        };
        let (me, here) = (Arc::clone(self), at.clone());
        let Ok(follower) = blocking(move || Ok(me.follower(&here, &order))).await else { return };
        let ahead = at.artifact.opens.as_ref().map(|opens| opens.lock().follow(follower)).unwrap_or_default();
        self.fetch_in_order(at, ahead);
    }

    /// How the order of an artifact is stored; `None` if that is not known without a request.
    async fn here(&self, artifact: &Artifact) -> Option<Protection> {
        let sealed = artifact.sources.iter().find(|source| source.is_sealed());
        match sealed {
            Some(source) if !self.contents.was_opened(source).await => None,
            _ => self.protection(&artifact.sources).await.ok(),
        }
    }

    /// The files of the remembered order. `None` if there is none, or a malformed one.
    async fn remembered_order(&self, artifact: &Arc<Artifact>, protection: Protection) -> Result<Option<Vec<NodeId>>, Error> {
        let (cache, artifact) = (self.cache.clone(), Arc::clone(artifact));
        blocking(move || {
            let Some(document) = cache.document(ORDER, &name(&artifact.shown.digest), &protection)? else { return Ok(None) };
            Ok(match parse_access_order((*document).as_ref()) {
                Ok(paths) => Some(nodes(&artifact.tree, &paths)),
                Err(error) => {
                    tracing::warn!("cannot use the order in which files were opened: {error}");
                    None
                }
            })
        })
        .await
    }

    /// The files of an order that others published; none if it would save no requests. Not of an encrypted artifact, whose names are secret.
    async fn published_order(self: &Arc<Self>, at: &Reading) -> Vec<NodeId> {
        let Artifact { tree, shown, .. } = &*at.artifact;
        if at.artifact.is_encrypted()
            || tree.node_count() < WORTHWHILE
            || self.registry_cache.pull.is_local()
            || self.registry_cache.is_away()
        {
            return Vec::new();
        }
        let Ok(_asking) = self.orders.asking.try_acquire() else { return Vec::new() };
        if self.orders.refusing.lock().contains(&at.repository) {
            return Vec::new();
        }
        let found = async {
            let referrers = self.registry_cache.known_referrers(&at.repository, &shown.digest).await?;
            let order = self.referred_order(&at.repository, &referrers).await?.unwrap_or_default();
            if order.is_empty() { Ok(Vec::new()) } else { parse_access_order(&order).map(|paths| nodes(tree, &paths)) }
        };
        found.await.unwrap_or_else(|error: Error| {
            tracing::debug!("{}@{}: no published access order: {error}", at.repository, shown.digest);
            let mut refusing = self.orders.refusing.lock();
            if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unsupported) && refusing.len() < REFUSING {
                refusing.insert(at.repository.clone());
            }
            Vec::new()
        })
    }

    /// Follows an order. Blocks on the disk.
    fn follower(&self, at: &Reading, order: &[NodeId]) -> Follower {
        // What is fetched must survive in the cache until it is read.
        let largest = LARGEST.min(self.cache.size() / 8);
        let (mut streams, mut taken) = (HashMap::new(), HashSet::new());
        let mut bytes = |file: NodeId| {
            let mut bytes = 0;
            for (blob, range) in starts(&at.artifact, file, START) {
                let Some(source) = at.source(blob) else { continue };
                if source.is_small() {
                    bytes += source.descriptor.size.max(LEAST);
                    continue;
                }
                let spans = streams.entry(blob).or_insert_with(|| self.contents.presence(&source)).spans_of(&range);
                bytes += spans.into_iter().filter(|span| taken.insert((blob, span.start))).map(|span| span.end - span.start).sum::<u64>();
            }
            bytes
        };
        Follower::new(order.iter().map(|file| (*file, bytes(*file))), largest)
    }

    /// Fetches the first bytes of files, in order. Returns at once.
    fn fetch_in_order(&self, at: &Reading, files: Vec<NodeId>) {
        if files.is_empty() || self.registry_cache.options.offline || self.registry_cache.pull.is_local() {
            return;
        }
        let (contents, at) = (self.contents.clone(), at.clone());
        tokio::spawn(async move {
            let ranges = Parts::of_starts_in_order(&at.artifact, &files, START, GAP);
            let ranges = ranges.into_iter().filter_map(|(blob, range)| Some((at.source(blob)?, range))).collect();
            let unready = contents.begin_fetches(ranges).await;
            let is_unready = |file: &NodeId| {
                let source = at.artifact.tree.content(*file).and_then(|content| at.artifact.source(content.blob));
                source.is_some_and(|source| unready.contains(&source.descriptor.digest))
            };
            let missed: Vec<NodeId> = if unready.is_empty() { Vec::new() } else { files.into_iter().filter(is_unready).collect() };
            if let Some(opens) = &at.artifact.opens
                && let Some(follower) = &mut opens.lock().follower
            {
                follower.missed(&missed);
            }
        });
    }

    /// Has what was opened stored before long.
    fn queue_order(self: &Arc<Self>, artifact: &Arc<Artifact>) {
        let waiting = {
            let mut unstored = self.orders.unstored.lock();
            unstored.push(Arc::clone(artifact));
            unstored.len()
        };
        let delay = match waiting {
            1 => INTERVAL,
            UNSTORED => SOON,
            _ => return,
        };
        let me = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // Stored by the mount that ended.
            if let Some(me) = Weak::upgrade(&me) {
                me.store_orders().await;
            }
        });
    }

    /// Stores all orders; when it returns, nobody else is still storing one. Sends no request.
    async fn store_orders(&self) {
        let _storing = self.orders.storing.lock().await;
        let unstored = std::mem::take(&mut *self.orders.unstored.lock());
        for artifact in unstored {
            if let Err(error) = self.store_order(&artifact).await {
                tracing::debug!("cannot remember the order in which files were opened: {error}");
            }
        }
    }

    async fn store_order(&self, artifact: &Arc<Artifact>) -> Result<(), Error> {
        let Some(opens) = &artifact.opens else { return Ok(()) };
        // What is opened from here on queues the artifact again, also after an error.
        opens.lock().are_queued = false;
        let Some(protection) = self.here(artifact).await else { return Ok(()) };
        // Others may have stored it since it was loaded.
        let stored = self.remembered_order(artifact, protection.clone()).await?.unwrap_or_default();
        let renewed = {
            let opens = opens.lock();
            match &opens.follower {
                Some(follower) => follower.renewed(&opens.opened, &stored),
                None => Follower::new(stored.into_iter().map(|file| (file, 0)), 0).renewed(&opens.opened, &[]),
            }
        };
        let (cache, artifact) = (self.cache.clone(), Arc::clone(artifact));
        blocking(move || {
            let paths = paths(&artifact.tree, &renewed);
            let bytes = encode_access_order(paths.iter().map(Vec::as_slice));
            cache.store_document(ORDER, &name(&artifact.shown.digest), &bytes, &protection)
        })
        .await
    }
}

/// The name of the document for a manifest.
fn name(manifest: &Digest) -> String {
    manifest.path_name()
}

/// The files at these paths; others are ignored.
fn nodes(tree: &Tree, paths: &[&[u8]]) -> Vec<NodeId> {
    paths.iter().filter_map(|path| tree.find(path)).filter(|node| tree.content(*node).is_some()).collect()
}

/// A path of each of these files.
fn paths(tree: &Tree, files: &[NodeId]) -> Vec<Vec<u8>> {
    let mut found: HashMap<NodeId, Vec<u8>> = HashMap::new();
    let wanted: HashSet<NodeId> = files.iter().copied().collect();
    tree.walk(&mut |path, node| {
        if wanted.contains(&node) {
            found.entry(node).or_insert_with(|| path.to_vec());
        }
    });
    files.iter().filter_map(|file| found.remove(file)).collect()
}
