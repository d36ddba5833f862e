//! The input of a publish as a stream of entries: a frozen overlay, the tree of an artifact, or a mixture of two.
//!
//! The same order everywhere (a directory, then what is below it, names by their bytes), so that two streams are compared in
//! one pass. Entries go through a bounded channel: memory does not grow with the tree.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::plan::PathSet;
use crate::artifact::{Artifact, Kind};
use crate::error::ErrorKind;
use crate::view::{self, Context, Frozen, FrozenContent, FrozenEntry, Reader, ViewNode, walk_tree};

/// Entries that are sent together.
const BATCH: usize = 128;
/// Batches on their way.
const BATCHES: usize = 4;
/// Files whose SHA-256 are computed at a time.
const HASHED: usize = 8;
/// Smaller files are not worth a task.
const TASK: u64 = 64 << 10;

/// Takes one entry after the other.
pub(super) type Visit<'a> = dyn FnMut(FrozenEntry) -> Result<(), view::Error> + 'a;

/// A tree that does not change while it is published.
#[async_trait]
pub(super) trait Snapshot: Send + Sync + 'static {
    /// All entries in order, the root first with an empty path. Blocks on the disk, never on the network.
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), view::Error>;
    /// SHA-256 of a regular file.
    async fn sha256(&self, entry: &FrozenEntry) -> Result<[u8; 32], view::Error>;
    /// The bytes of a regular file.
    async fn open(&self, entry: &FrozenEntry) -> Result<Reader, view::Error>;

    /// A file of this machine that holds exactly the bytes of a path, so that a raw layer need not be a copy of it.
    fn on_disk(&self, _path: &[u8]) -> Option<PathBuf> {
        None
    }
}

/// A frozen overlay, lent to everybody who walks it and given back by the last of them.
pub(super) struct FrozenSnapshot {
    frozen: Option<Frozen>,
    context: Arc<Context>,
    back: Option<oneshot::Sender<Frozen>>,
    /// Tells the other end when reading has ended. Dropped last.
    _alive: mpsc::Sender<()>,
}

impl FrozenSnapshot {
    /// The snapshot, and where the frozen state comes back when reading has ended.
    pub fn lend(frozen: Frozen, context: Arc<Context>, alive: mpsc::Sender<()>) -> (Arc<Self>, oneshot::Receiver<Frozen>) {
        let (back, returned) = oneshot::channel();
        (Arc::new(Self { frozen: Some(frozen), context, back: Some(back), _alive: alive }), returned)
    }

    fn frozen(&self) -> Result<&Frozen, view::Error> {
        self.frozen.as_ref().ok_or_else(|| view::Error::new(ErrorKind::Other, "the frozen state is gone"))
    }
}

impl Drop for FrozenSnapshot {
    fn drop(&mut self) {
        if let (Some(frozen), Some(back)) = (self.frozen.take(), self.back.take()) {
            // There is no receiver: the publish was stopped, and the edits stay as they are.
            let _ = back.send(frozen);
        }
    }
}

#[async_trait]
impl Snapshot for FrozenSnapshot {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), view::Error> {
        self.frozen()?.walk(visit)
    }

    async fn sha256(&self, entry: &FrozenEntry) -> Result<[u8; 32], view::Error> {
        self.frozen()?.sha256(&self.context.artifacts, entry).await
    }

    async fn open(&self, entry: &FrozenEntry) -> Result<Reader, view::Error> {
        self.frozen()?.open(&self.context, entry).await
    }
}

/// The tree of an artifact, read through the same frozen state that it is compared with.
pub(super) struct TreeSnapshot {
    pub artifact: Arc<Artifact>,
    pub reading: Arc<dyn Snapshot>,
}

#[async_trait]
impl Snapshot for TreeSnapshot {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), view::Error> {
        walk_tree(&self.artifact, visit)
    }

    async fn sha256(&self, entry: &FrozenEntry) -> Result<[u8; 32], view::Error> {
        self.reading.sha256(entry).await
    }

    async fn open(&self, entry: &FrozenEntry) -> Result<Reader, view::Error> {
        self.reading.open(entry).await
    }
}

/// The entries of a snapshot, walked on a thread of its own that ends when this is dropped.
pub(super) struct Entries {
    receiver: mpsc::Receiver<Result<Vec<FrozenEntry>, view::Error>>,
    batch: std::vec::IntoIter<FrozenEntry>,
}

impl Entries {
    pub fn of(snapshot: Arc<dyn Snapshot>) -> Self {
        let (sender, receiver) = mpsc::channel(BATCHES);
        tokio::task::spawn_blocking(move || {
            let mut batch = Vec::with_capacity(BATCH);
            let walked = snapshot.walk(&mut |entry| {
                batch.push(entry);
                if batch.len() < BATCH {
                    return Ok(());
                }
                let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                sender.blocking_send(Ok(full)).map_err(|_| stopped())
            });
            // The receiver is gone: the publish was stopped.
            let _ = match walked {
                Ok(()) => sender.blocking_send(Ok(batch)),
                Err(error) => sender.blocking_send(Err(error)),
            };
        });
        Self { receiver, batch: Vec::new().into_iter() }
    }

    pub async fn next(&mut self) -> Result<Option<FrozenEntry>, Error> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Ok(Some(entry));
            }
            match self.receiver.recv().await {
                None => return Ok(None),
                Some(batch) => self.batch = batch?.into_iter(),
            }
        }
    }
}

/// First names of files with several names.
#[derive(Default)]
pub(super) struct FirstNames(HashMap<ViewNode, Vec<u8>>);

impl FirstNames {
    /// The first name of an entry's node, `None` if it is this one. Entries come in order.
    pub fn of(&mut self, entry: &FrozenEntry) -> Option<&[u8]> {
        if entry.links < 2 || entry.kind == Kind::Directory {
            return None;
        }
        let first = self.0.entry(entry.node).or_insert_with(|| entry.path.clone());
        (*first != entry.path).then_some(first.as_slice())
    }
}

/// Whose SHA-256 is wanted.
#[derive(Clone, Debug)]
pub(super) enum Hash {
    /// Everybody's, or that of these paths.
    Chosen(Option<Arc<PathSet>>),
    /// Only what can be known without fetching anything.
    Local,
}

impl Hash {
    fn wants(&self, entry: &FrozenEntry) -> bool {
        match self {
            Self::Chosen(paths) => paths.as_ref().is_none_or(|paths| paths.contains(&entry.path)),
            Self::Local => !matches!(entry.content, FrozenContent::Tree { sha256: None, .. }),
        }
    }
}

/// Entries with the SHA-256 of regular files.
pub(super) type Hashed = stream::BoxStream<'static, Result<(FrozenEntry, Option<[u8; 32]>), Error>>;

/// The entries of a snapshot in order, with the SHA-256 of each regular file at its first name.
pub(super) fn hashed(snapshot: &Arc<dyn Snapshot>, which: Hash) -> Hashed {
    let reading = Arc::clone(snapshot);
    let state = (Entries::of(Arc::clone(snapshot)), FirstNames::default(), which);
    let entries = stream::try_unfold(state, |(mut entries, mut names, which)| async move {
        let next = entries.next().await?;
        Ok::<_, Error>(next.map(|entry| {
            let wanted = entry.kind == Kind::File && names.of(&entry).is_none() && which.wants(&entry);
            ((entry, wanted), (entries, names, which))
        }))
    });
    let jobs = entries.map_ok(move |(entry, wanted)| {
        let reading = Arc::clone(&reading);
        async move {
            if !wanted {
                return Ok((entry, None));
            }
            if entry.size < TASK {
                let sha256 = reading.sha256(&entry).await?;
                return Ok((entry, Some(sha256)));
            }
            let task = tokio::spawn(async move {
                let sha256 = reading.sha256(&entry).await;
                (entry, sha256)
            });
            let (entry, sha256) = AbortOnDrop(task).await?;
            Ok((entry, Some(sha256?)))
        }
    });
    jobs.try_buffered(HASHED).boxed()
}

/// A task that ends with its waiter.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map_err(|error| Error::other(format!("hashing a file: {error}")))
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn stopped() -> view::Error {
    view::Error::new(ErrorKind::Interrupted, "stopped")
}

/// The order of a walk: like the bytes, except that a separator comes before everything.
pub(super) fn order(one: &[u8], other: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    one.iter().map(key).cmp(other.iter().map(key))
}

/// The directory that holds a path; `None` for the root.
pub(super) fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at)).unwrap_or_default())
}

/// The last component of a path.
pub(super) fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(at + 1..)).unwrap_or(path)
}

/// Whether a path is `above` or lies below it.
pub(super) fn is_within(path: &[u8], above: &[u8]) -> bool {
    above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A path as people see it.
pub(super) fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_s_content_follows_it_at_once() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a", b"a/x", b"", b"a/x/y", b"a.txt", b"b"];
        paths.sort_by(|one, other| order(one, other));
        assert_eq!(paths, [&b""[..], b"a", b"a/x", b"a/x/y", b"a-b", b"a.txt", b"b"]);
    }

    #[test]
    fn a_path_is_taken_apart() {
        assert_eq!((parent(b""), parent(b"a"), parent(b"a/b")), (None, Some(&b""[..]), Some(&b"a"[..])));
        assert_eq!((name(b"a"), name(b"a/b")), (&b"a"[..], &b"b"[..]));
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && is_within(b"a", b"") && !is_within(b"ab", b"a"));
    }
}
