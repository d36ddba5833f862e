//! Rebases edits onto the current upstream: a three-way comparison by path, and the merged tree as a snapshot.
//!
//! A path changed on both sides is a conflict unless both made the same change; files are never merged internally.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::iter::Peekable;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::artifact::Kind;
use crate::error::{Error, ErrorKind};
use crate::path::{is_within, order, parent, show};
use crate::publish::plan::path_set::PathSet;
use crate::view::compare::{Comparison, Pair, Pairs, Verdict, agree};
use crate::view::snapshot::{Entries, Nothing, Snapshot, Walk};
use crate::view::{Reader, TreeEntry, ViewNode};

/// Most conflicts named.
const NAMED: usize = 10;
/// Distinguishes the nodes of the two sides.
const OURS: u64 = 1 << 62;

/// The changes of one side against the common base.
#[derive(Default)]
struct Changes {
    made: PathSet,
    gone: PathSet,
}

impl Changes {
    async fn of(now: &Arc<dyn Snapshot>, before: &Arc<dyn Snapshot>) -> Result<Self, Error> {
        let mut changes = Self::default();
        let mut comparison = Comparison::new(now, Some(before), |_| false);
        while let Some((pair, verdict)) = comparison.next().await? {
            match (verdict, &pair.new, &pair.old) {
                (Verdict::Removed, _, Some(old)) => {
                    changes.gone.insert(&old.path);
                }
                (Verdict::Added | Verdict::Changed, Some(new), _) => {
                    changes.made.insert(&new.path);
                }
                _ => {}
            }
        }
        changes.add_linked(now).await?;
        Ok(changes)
    }

    /// Names of one file stay together: if one changed, all do.
    async fn add_linked(&mut self, now: &Arc<dyn Snapshot>) -> Result<(), Error> {
        let mut files: HashMap<ViewNode, Vec<Vec<u8>>> = HashMap::new();
        let mut entries = Entries::of(now);
        while let Some(entry) = entries.next().await? {
            if entry.is_linked() {
                files.entry(entry.node).or_default().push(entry.path);
            }
        }
        for names in files.into_values() {
            if names.iter().any(|name| self.made.contains(name)) {
                self.made.extend(&names);
            }
        }
        Ok(())
    }

    fn touch(&self, path: &[u8]) -> bool {
        self.made.contains(path) || self.gone.contains(path)
    }
}

/// The edits of `ours` since `before`, applied to `theirs`.
pub(in crate::publish) struct Rebased {
    ours: Arc<dyn Snapshot>,
    theirs: Arc<dyn Snapshot>,
    /// Paths taken from ours.
    made: PathSet,
    /// Paths removed from theirs.
    gone: PathSet,
}

impl Rebased {
    /// Compares the three. `before` is `None` for a tag that started empty.
    ///
    /// # Errors
    /// Conflict, naming the paths that both sides changed.
    pub async fn new(ours: &Arc<dyn Snapshot>, before: Option<Arc<dyn Snapshot>>, theirs: &Arc<dyn Snapshot>) -> Result<Self, Error> {
        let before = before.unwrap_or_else(|| Arc::new(Nothing));
        let our_changes = Changes::of(ours, &before).await?;
        let their_changes = Changes::of(theirs, &before).await?;
        let conflicts = conflicts(ours, theirs, &our_changes, &their_changes).await?;
        if !conflicts.is_empty() {
            let more = if conflicts.len() > NAMED { format!(" and {} more", conflicts.len() - NAMED) } else { String::new() };
            let named: Vec<String> = conflicts.iter().take(NAMED).map(|path| format!("`{}`", show(path))).collect();
            return Err(Error::new(ErrorKind::Conflict, format!("changed here and upstream: {}{more}", named.join(", "))));
        }
        Ok(Self { ours: Arc::clone(ours), theirs: Arc::clone(theirs), made: our_changes.made, gone: our_changes.gone })
    }
}

/// Paths that conflict.
async fn conflicts(
    ours: &Arc<dyn Snapshot>,
    theirs: &Arc<dyn Snapshot>,
    our_changes: &Changes,
    their_changes: &Changes,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut conflicts = Vec::new();
    let mut directories: Vec<Vec<u8>> = Vec::new();
    let mut pairs = Pairs::new(ours, theirs);
    while let Some(pair) = pairs.next().await? {
        let Some(path) = pair.new.as_ref().or(pair.old.as_ref()).map(|entry| entry.path.clone()) else { continue };
        let both = our_changes.touch(&path) && their_changes.touch(&path);
        let chosen = match &pair.new {
            Some(new) if our_changes.made.contains(&path) => Some(new),
            _ => pair.old.as_ref().filter(|_| !our_changes.gone.contains(&path)),
        };
        directories.retain(|above| is_within(&path, above));
        let above = parent(&path);
        let is_orphan = chosen.is_some() && above.is_some_and(|above| directories.last().map(Vec::as_slice) != Some(above));
        if both && !is_agreed(ours, theirs, &pair).await? || is_orphan {
            conflicts.push(path);
            continue;
        }
        if chosen.is_some_and(|entry| entry.kind == Kind::Directory) {
            directories.push(path);
        }
    }
    Ok(conflicts)
}

/// Whether both sides made the same change to a path, ignoring times.
async fn is_agreed(ours: &Arc<dyn Snapshot>, theirs: &Arc<dyn Snapshot>, pair: &Pair) -> Result<bool, Error> {
    match (&pair.new, &pair.old) {
        (Some(new), Some(old)) => Ok(agree((&**ours, new), (&**theirs, old)).await?),
        _ => Ok(false),
    }
}

#[async_trait]
impl Snapshot for Rebased {
    fn walk(self: Arc<Self>) -> Walk {
        let (made, gone) = (Arc::clone(&self), Arc::clone(&self));
        let ours = Arc::clone(&self.ours).walk().filter_map(move |entry| match entry {
            Ok(entry) => made.made.contains(&entry.path).then(|| Ok(TreeEntry { node: entry.node | OURS, ..entry })),
            Err(error) => Some(Err(error)),
        });
        let theirs = Arc::clone(&self.theirs).walk();
        Box::new(Mixture { ours: ours.peekable(), theirs: theirs.peekable(), gone })
    }

    async fn sha256(&self, entry: &TreeEntry) -> Result<[u8; 32], Error> {
        self.ours.sha256(entry).await
    }

    async fn open(&self, entry: &TreeEntry) -> Result<Reader, Error> {
        self.ours.open(entry).await
    }

    fn sha256_here(&self, entries: &[&TreeEntry]) -> Result<Vec<Option<[u8; 32]>>, Error> {
        self.ours.sha256_here(entries)
    }

    fn bytes_here(&self, entry: &TreeEntry) -> Result<Option<Bytes>, Error> {
        self.ours.bytes_here(entry)
    }
}

/// Merges two walks; if both have a path, the first wins.
struct Mixture<O: Iterator, T: Iterator> {
    ours: Peekable<O>,
    theirs: Peekable<T>,
    gone: Arc<Rebased>,
}

type Step = Result<TreeEntry, Error>;

impl<O: Iterator<Item = Step>, T: Iterator<Item = Step>> Iterator for Mixture<O, T> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            let ordering = match (self.ours.peek(), self.theirs.peek()) {
                (Some(Ok(ours)), Some(Ok(theirs))) => order(&ours.path, &theirs.path),
                (Some(_), _) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            if ordering != Ordering::Greater {
                if ordering == Ordering::Equal {
                    self.theirs.next();
                }
                return self.ours.next();
            }
            match self.theirs.next() {
                Some(Ok(theirs)) if self.gone.gone.contains(&theirs.path) => {}
                other => return other,
            }
        }
    }
}
