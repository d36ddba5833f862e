//! A tree that does not change while it is compared and published: a frozen tag, an artifact, a directory, or a mixture.
//!
//! Entries always come in the order of [`order`](crate::path::order), so that two trees can be compared in one walk. They are read in
//! batches: memory does not grow with the tree.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::{Reader, TreeEntry, ViewNode};
use crate::artifact::Kind;
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};

/// Entries read at a time.
const BATCH: usize = 256;
/// Batches of small files hashed at a time.
const BATCHES: usize = 4;
/// Other files hashed at a time.
const HASHED: usize = 8;
/// Local files below this size are hashed in batches: a task of its own costs more than such a file.
const SMALL: u64 = 64 << 10;

/// The entries of a tree in order, the root first with an empty path. `next` blocks on the disk, never on the network; nothing follows
/// an error.
pub type Walk = Box<dyn Iterator<Item = Result<TreeEntry, Error>> + Send>;

/// A tree that does not change.
#[async_trait]
pub trait Snapshot: Send + Sync + 'static {
    /// Its entries.
    fn walk(self: Arc<Self>) -> Walk;
    /// SHA-256 of a regular file.
    async fn sha256(&self, entry: &TreeEntry) -> Result<[u8; 32], Error>;
    /// The bytes of a regular file.
    async fn open(&self, entry: &TreeEntry) -> Result<Reader, Error>;

    /// SHA-256 of those of some regular files whose bytes are on the local disk; `None` for others. Blocks.
    fn sha256_here(&self, entries: &[&TreeEntry]) -> Result<Vec<Option<[u8; 32]>>, Error> {
        Ok(vec![None; entries.len()])
    }

    /// The bytes of a small regular file, if they are on the local disk; `None` for others. Blocks.
    fn bytes_here(&self, _entry: &TreeEntry) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }

    /// A local file with exactly the bytes at a path, so that a raw layer need not be a copy of it.
    fn on_disk(&self, _path: &[u8]) -> Option<PathBuf> {
        None
    }
}

/// A tree without entries, not even a root.
pub struct Nothing;

#[async_trait]
impl Snapshot for Nothing {
    fn walk(self: Arc<Self>) -> Walk {
        Box::new(std::iter::empty())
    }

    async fn sha256(&self, _entry: &TreeEntry) -> Result<[u8; 32], Error> {
        Err(Error::new(ErrorKind::NotFound, "no such file"))
    }

    async fn open(&self, _entry: &TreeEntry) -> Result<Reader, Error> {
        Err(Error::new(ErrorKind::NotFound, "no such file"))
    }
}

/// The entries of a snapshot, read in batches on a thread that may block.
pub struct Entries {
    /// The rest of the walk; `None` at its end.
    walk: Option<Walk>,
    batch: std::vec::IntoIter<TreeEntry>,
}

impl Entries {
    /// Starts a walk.
    pub fn of(snapshot: &Arc<dyn Snapshot>) -> Self {
        Self { walk: Some(Arc::clone(snapshot).walk()), batch: Vec::new().into_iter() }
    }

    /// The next entry. Must be awaited to completion.
    ///
    /// # Errors
    /// Those of the walk.
    pub async fn next(&mut self) -> Result<Option<TreeEntry>, Error> {
        if self.batch.len() == 0 {
            self.batch = self.batch().await?.into_iter();
        }
        Ok(self.batch.next())
    }

    /// Entries read from the walk; none at its end.
    async fn batch(&mut self) -> Result<Vec<TreeEntry>, Error> {
        let Some(mut walk) = self.walk.take() else { return Ok(Vec::new()) };
        let read = blocking(move || {
            let batch = walk.by_ref().take(BATCH).collect::<Result<Vec<_>, _>>()?;
            Ok((batch, walk))
        });
        let (batch, walk) = read.await?;
        self.walk = (batch.len() == BATCH).then_some(walk);
        Ok(batch)
    }
}

/// First names of files with several names.
#[derive(Default)]
pub struct FirstNames(HashMap<ViewNode, Vec<u8>>);

impl FirstNames {
    /// The first name of an entry's node, `None` if it is this one. Call in walk order.
    pub fn of(&mut self, entry: &TreeEntry) -> Option<&[u8]> {
        if !entry.is_linked() {
            return None;
        }
        let first = self.0.entry(entry.node).or_insert_with(|| entry.path.clone());
        (*first != entry.path).then_some(first.as_slice())
    }
}

/// Entries with SHA-256 filled in, handed out one by one but passed on in batches: a future of its own for each would cost more than the rest.
/// The next batches are read meanwhile.
pub struct Hashed {
    batches: stream::BoxStream<'static, Result<Vec<TreeEntry>, Error>>,
    batch: std::vec::IntoIter<TreeEntry>,
}

impl Hashed {
    /// The next entry.
    ///
    /// # Errors
    /// Those of the walk and of reading bytes.
    pub async fn next(&mut self) -> Result<Option<TreeEntry>, Error> {
        while self.batch.len() == 0 {
            let Some(batch) = self.batches.try_next().await? else { return Ok(None) };
            self.batch = batch.into_iter();
        }
        Ok(self.batch.next())
    }
}

/// The entries of a snapshot in order. Regular files selected by `wants` have their SHA-256, each at its first name.
pub fn hashed(snapshot: &Arc<dyn Snapshot>, wants: impl Fn(&TreeEntry) -> bool + Send + 'static) -> Hashed {
    let state = (Entries::of(snapshot), FirstNames::default(), wants);
    let batches = stream::try_unfold(state, |(mut entries, mut names, wants)| async move {
        let batch = entries.batch().await?;
        let is_wanted = |entry: &TreeEntry| {
            let is_first = entry.kind == Kind::File && names.of(entry).is_none();
            is_first && entry.sha256.is_none() && wants(entry)
        };
        let wanted: Vec<bool> = batch.iter().map(is_wanted).collect();
        Ok::<_, Error>((!batch.is_empty()).then_some(((batch, wanted), (entries, names, wants))))
    });
    let (reading, permits) = (Arc::clone(snapshot), Arc::new(Semaphore::new(HASHED)));
    let batches = batches.map_ok(move |(batch, wanted)| {
        let (reading, permits) = (Arc::clone(&reading), Arc::clone(&permits));
        async move {
            if !wanted.contains(&true) {
                return Ok(batch);
            }
            let (batch, wanted) = hash_small(Arc::clone(&reading), batch, wanted).await?;
            hash_others(&reading, batch, &wanted, &permits).await
        }
    });
    Hashed { batches: batches.try_buffered(BATCHES).boxed(), batch: Vec::new().into_iter() }
}

/// Hashes the small local files of a batch; the others stay wanted.
async fn hash_small(
    reading: Arc<dyn Snapshot>,
    mut batch: Vec<TreeEntry>,
    mut wanted: Vec<bool>,
) -> Result<(Vec<TreeEntry>, Vec<bool>), Error> {
    let is_small = |(entry, wanted): (&TreeEntry, &bool)| *wanted && entry.size < SMALL;
    if !batch.iter().zip(&wanted).any(is_small) {
        return Ok((batch, wanted));
    }
    blocking(move || {
        let small: Vec<&TreeEntry> = batch.iter().zip(&wanted).filter(|found| is_small(*found)).map(|(entry, _)| entry).collect();
        let digests = reading.sha256_here(&small)?;
        let small = batch.iter_mut().zip(&mut wanted).filter(|(entry, wanted)| is_small((entry, wanted)));
        for ((entry, wanted), sha256) in small.zip(digests) {
            (entry.sha256, *wanted) = (sha256, sha256.is_none());
        }
        Ok((batch, wanted))
    })
    .await
}

/// Hashes the other wanted files of a batch, each in a task of its own.
async fn hash_others(
    reading: &Arc<dyn Snapshot>,
    mut batch: Vec<TreeEntry>,
    wanted: &[bool],
    permits: &Semaphore,
) -> Result<Vec<TreeEntry>, Error> {
    let wanted = batch.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted);
    let jobs = wanted.map(|(entry, _)| async {
        // The semaphore is never closed.
        let _permit = permits.acquire().await.ok();
        let (reading, hashing) = (Arc::clone(reading), entry.clone());
        let task = tokio::spawn(async move { reading.sha256(&hashing).await });
        entry.sha256 = Some(AbortOnDrop(task).await??);
        Ok::<_, Error>(())
    });
    stream::iter(jobs).map(Ok).try_for_each_concurrent(HASHED, |job| job).await?;
    Ok(batch)
}

/// A task aborted when its waiter is dropped.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let failed = |error| Error::new(ErrorKind::Other, format!("hashing a file: {error}"));
        Pin::new(&mut self.0).poll(context).map_err(failed)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
