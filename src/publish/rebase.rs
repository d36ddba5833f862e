//! Edits laid over what is upstream now: a three-way comparison by path, and the mixture as a snapshot.
//!
//! A path that was changed on both sides is a conflict unless both made it the same; nothing is merged inside of files.

use std::sync::Arc;
use std::sync::mpsc;

use async_trait::async_trait;

use super::Error;
use super::compare::{Comparer, Difference, Join, Pair, same_attributes, same_content};
use super::plan::PathSet;
use super::snapshot::{Snapshot, Visit, is_within, order, show};
use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::view::{self, FrozenEntry, Reader};

/// Conflicts that are named.
const NAMED: usize = 10;
/// Entries on their way from one walk to the other.
const ENTRIES: usize = 256;
/// Tells the nodes of the two sides apart.
const OURS: u64 = 1 << 62;

/// A change of one side against the common base.
#[derive(Default)]
struct Changes {
    made: PathSet,
    gone: PathSet,
}

impl Changes {
    async fn of(now: &Arc<dyn Snapshot>, before: &Arc<dyn Snapshot>, reading: &Arc<dyn Snapshot>) -> Result<Self, Error> {
        let mut changes = Self::default();
        let mut join = Join::new(now, Some(Arc::clone(before)));
        let mut comparer = Comparer::new(Arc::clone(reading));
        while let Some(pair) = join.next().await? {
            match (comparer.differ(&pair).await?, &pair) {
                (_, Pair { new: None, old: Some(old), .. }) => {
                    changes.gone.insert(&old.path);
                }
                (Difference::Real, Pair { new: Some(new), .. }) => {
                    changes.made.insert(&new.path);
                }
                _ => {}
            }
        }
        Ok(changes)
    }

    fn touch(&self, path: &[u8]) -> bool {
        self.made.contains(path) || self.gone.contains(path)
    }
}

/// The edits of `ours` since `before`, on top of `theirs`.
pub(super) struct Rebased {
    ours: Arc<dyn Snapshot>,
    theirs: Arc<dyn Snapshot>,
    /// Paths that are ours.
    made: PathSet,
    /// Paths of theirs that are gone.
    gone: PathSet,
}

impl Rebased {
    /// Compares the three. `before` is `None` for a tag that began empty.
    ///
    /// # Errors
    /// Conflict with the paths that both sides changed.
    pub async fn new(ours: &Arc<dyn Snapshot>, before: Option<Arc<dyn Snapshot>>, theirs: &Arc<dyn Snapshot>) -> Result<Self, Error> {
        let before = before.unwrap_or_else(|| Arc::new(Nothing));
        let our_changes = Changes::of(ours, &before, ours).await?;
        let their_changes = Changes::of(theirs, &before, ours).await?;
        let conflicts = conflicts(ours, theirs, &our_changes, &their_changes).await?;
        if !conflicts.is_empty() {
            let more = if conflicts.len() > NAMED { format!(" and {} more", conflicts.len() - NAMED) } else { String::new() };
            let named: Vec<String> = conflicts.iter().take(NAMED).map(|path| format!("`{}`", show(path))).collect();
            return Err(Error::new(ErrorKind::Conflict, format!("changed here and upstream: {}{more}", named.join(", "))));
        }
        Ok(Self { ours: Arc::clone(ours), theirs: Arc::clone(theirs), made: our_changes.made, gone: our_changes.gone })
    }
}

/// Paths that cannot be had both ways.
async fn conflicts(
    ours: &Arc<dyn Snapshot>,
    theirs: &Arc<dyn Snapshot>,
    our_changes: &Changes,
    their_changes: &Changes,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut conflicts = Vec::new();
    let mut directories: Vec<Vec<u8>> = Vec::new();
    let mut join = Join::new(ours, Some(Arc::clone(theirs)));
    while let Some(pair) = join.next().await? {
        let Some(path) = pair.new.as_ref().or(pair.old.as_ref()).map(|entry| entry.path.clone()) else { continue };
        let both = our_changes.touch(&path) && their_changes.touch(&path);
        let chosen = match &pair.new {
            Some(new) if our_changes.made.contains(&path) => Some(new),
            _ => pair.old.as_ref().filter(|_| !our_changes.gone.contains(&path)),
        };
        directories.retain(|above| is_within(&path, above));
        let above = super::snapshot::parent(&path);
        let is_orphan = chosen.is_some() && above.is_some_and(|above| directories.last().map(Vec::as_slice) != Some(above));
        if both && !agree(&**ours, &pair).await? || is_orphan {
            conflicts.push(path);
            continue;
        }
        if chosen.is_some_and(|entry| entry.kind == Kind::Directory) {
            directories.push(path);
        }
    }
    Ok(conflicts)
}

/// Whether both sides made a path the same, times apart.
async fn agree(reading: &dyn Snapshot, pair: &Pair) -> Result<bool, Error> {
    match (&pair.new, &pair.old) {
        (Some(new), Some(old)) => Ok(same_attributes(new, old) && same_content(reading, (new, pair.sha256), old).await?),
        _ => Ok(false),
    }
}

#[async_trait]
impl Snapshot for Rebased {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), view::Error> {
        let (sender, ours) = mpsc::sync_channel::<Result<FrozenEntry, view::Error>>(ENTRIES);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let walked = self.ours.walk(&mut |mut entry| {
                    if !self.made.contains(&entry.path) {
                        return Ok(());
                    }
                    entry.node |= OURS;
                    sender.send(Ok(entry)).map_err(|_| view::Error::new(ErrorKind::Interrupted, "stopped"))
                });
                if let Err(error) = walked {
                    // A receiver that is gone has failed before.
                    let _ = sender.send(Err(error));
                }
            });
            let mut next = ours.recv().ok().transpose()?;
            self.theirs.walk(&mut |entry| {
                while let Some(ours_now) = next.take_if(|ours| order(&ours.path, &entry.path).is_lt()) {
                    visit(ours_now)?;
                    next = ours.recv().ok().transpose()?;
                }
                match next.take_if(|ours| ours.path == entry.path) {
                    Some(ours_now) => {
                        visit(ours_now)?;
                        next = ours.recv().ok().transpose()?;
                        Ok(())
                    }
                    None if self.gone.contains(&entry.path) => Ok(()),
                    None => visit(entry),
                }
            })?;
            while let Some(ours_now) = next.take() {
                visit(ours_now)?;
                next = ours.recv().ok().transpose()?;
            }
            drop(ours);
            Ok(())
        })
    }

    async fn sha256(&self, entry: &FrozenEntry) -> Result<[u8; 32], view::Error> {
        self.ours.sha256(entry).await
    }

    async fn open(&self, entry: &FrozenEntry) -> Result<Reader, view::Error> {
        self.ours.open(entry).await
    }
}

/// A tag that does not exist.
pub(super) struct Nothing;

#[async_trait]
impl Snapshot for Nothing {
    fn walk(&self, _visit: &mut Visit<'_>) -> Result<(), view::Error> {
        Ok(())
    }

    async fn sha256(&self, _entry: &FrozenEntry) -> Result<[u8; 32], view::Error> {
        Err(view::Error::new(ErrorKind::NotFound, "there is no file"))
    }

    async fn open(&self, _entry: &FrozenEntry) -> Result<Reader, view::Error> {
        Err(view::Error::new(ErrorKind::NotFound, "there is no file"))
    }
}
