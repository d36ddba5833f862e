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
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Reader, TreeEntry, ViewNode};
use crate::artifact::Kind;
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};

/// Entries read at a time.
const BATCH: usize = 256;
/// Files hashed at a time.
const HASHED: usize = 8;
/// Smaller files are not worth a task.
const TASK: u64 = 64 << 10;

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
        if let Some(entry) = self.batch.next() {
            return Ok(Some(entry));
        }
        let Some(mut walk) = self.walk.take() else { return Ok(None) };
        let read = blocking(move || {
            let batch = walk.by_ref().take(BATCH).collect::<Result<Vec<_>, _>>()?;
            Ok((batch, walk))
        });
        let (batch, walk) = read.await?;
        self.walk = (batch.len() == BATCH).then_some(walk);
        self.batch = batch.into_iter();
        Ok(self.batch.next())
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

/// Entries with SHA-256 filled in.
pub type Hashed = stream::BoxStream<'static, Result<TreeEntry, Error>>;

/// The entries of a snapshot in order. Regular files selected by `wants` have their SHA-256, each at its first name.
pub fn hashed(snapshot: &Arc<dyn Snapshot>, wants: impl Fn(&TreeEntry) -> bool + Send + 'static) -> Hashed {
    let reading = Arc::clone(snapshot);
    let state = (Entries::of(snapshot), FirstNames::default(), wants);
    let entries = stream::try_unfold(state, |(mut entries, mut names, wants)| async move {
        let next = entries.next().await?;
        Ok::<_, Error>(next.map(|entry| {
            let is_first = entry.kind == Kind::File && names.of(&entry).is_none();
            let wanted = is_first && entry.sha256.is_none() && wants(&entry);
            ((entry, wanted), (entries, names, wants))
        }))
    });
    let jobs = entries.map_ok(move |(mut entry, wanted)| {
        let reading = Arc::clone(&reading);
        async move {
            if !wanted {
                return Ok(entry);
            }
            if entry.size < TASK {
                entry.sha256 = Some(reading.sha256(&entry).await?);
                return Ok(entry);
            }
            let task = tokio::spawn(async move {
                let sha256 = reading.sha256(&entry).await;
                (entry, sha256)
            });
            let (entry, sha256) = AbortOnDrop(task).await?;
            Ok(TreeEntry { sha256: Some(sha256?), ..entry })
        }
    });
    jobs.try_buffered(HASHED).boxed()
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
