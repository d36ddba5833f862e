//! All uppers of a state directory: finding, creating, moving, removing and listing them.
//!
//! Each is a directory named by a hash of its tag, and appears and disappears in a single rename. Listing opens no database and takes no lock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::about::{About, is_directory_name};
use super::budget::Budget;
use super::change::Change;
use super::error::{shown, system};
use super::freeze::FrozenUpper;
use super::hold::{Hold, holder, lock_names};
use super::open;
use super::reserve::available;
use super::state::{Database, Standing, UpperLocation};
use super::upper::Upper;
use super::{Binding, Listed, Rows, TagKey};
use crate::durable;
use crate::error::{Error, ErrorKind};

/// Name prefix of uppers being created,
const MAKING: &str = ".making-";
/// and of those being removed. Both are leftovers if the names lock is free.
const REMOVING: &str = ".removing-";

/// All uppers of a state directory, and the byte budget shared by those open here.
pub struct Uppers {
    root: PathBuf,
    budget: Arc<Budget>,
}

impl Uppers {
    /// The uppers of a state directory, which is created (0700) if missing. `quota` bounds the staged bytes.
    pub fn open(state: &Path, quota: Option<u64>) -> Result<Self, Error> {
        let root = state.join("uppers");
        for path in [state, &root] {
            durable::private_directory(path).map_err(|error| system("cannot use", path, &error))?;
        }
        let uppers = Self { root, budget: Arc::new(Budget::new(quota)) };
        uppers.tidy()?;
        Ok(uppers)
    }

    /// Completes creations, removals and moves that a crash interrupted.
    fn tidy(&self) -> Result<(), Error> {
        let _names = lock_names(&self.root)?;
        for (name, path) in self.entries()? {
            if name.starts_with(MAKING) || name.starts_with(REMOVING) {
                remove_tree(&path)?;
            } else if is_directory_name(&name)
                && let Ok(about) = About::read(&path)
                && about.tag_key.directory_name() != name
                && holder(&path).map_err(|error| system("cannot look at", &path, &error))?.is_none()
            {
                self.rename(&path, &self.directory(&about.tag_key))?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(String, PathBuf)>, Error> {
        let failed = |error: &io::Error| system("cannot list", &self.root, error);
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            // Names that are not UTF-8 are not ours.
            if let Ok(name) = entry.file_name().into_string() {
                entries.push((name, entry.path()));
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn directory(&self, tag_key: &TagKey) -> PathBuf {
        self.root.join(tag_key.directory_name())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        rename(&self.root, from, to)
    }

    /// All uppers. One that cannot be read is reported beside the others.
    pub fn list(&self) -> Result<Vec<Result<Listed, Error>>, Error> {
        let entries = self.entries()?.into_iter().filter(|(name, _)| is_directory_name(name));
        let look = |directory: PathBuf| loop {
            let tag_key = match About::read(&directory) {
                // Removed since its name was read.
                Err(_) if !directory.exists() => return None,
                Err(error) => return Some(Err(error)),
                Ok(about) => about.tag_key,
            };
            match holder(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Some(Err(system("cannot look at", &directory, &error))),
                Ok(holder) => return Some(Ok(Listed { tag_key, holder, directory })),
            }
        };
        Ok(entries.filter_map(|(_, directory)| look(directory)).collect())
    }

    /// Opens the upper of a tag, if it exists. Busy (with the pid) if another process holds it.
    pub fn find(&self, tag_key: &TagKey) -> Result<Option<Upper>, Error> {
        let directory = self.directory(tag_key);
        if !directory.exists() {
            // Another process may have been killed while moving one here.
            self.tidy()?;
        }
        let Some(hold) = Hold::take(&directory, tag_key)? else { return Ok(None) };
        if About::read(&directory)?.tag_key.directory_name() != tag_key.directory_name() {
            // Or while moving this one away.
            drop(hold);
            self.tidy()?;
            return Ok(None);
        }
        open::open(UpperLocation { tag_key: tag_key.clone(), directory }, hold, &self.budget).map(Some)
    }

    /// Creates the upper of a tag that has none, and records the meaning of its edits. Busy as [`Uppers::find`]; Exists if there is one.
    pub fn create(&self, tag_key: &TagKey, binding: Binding, meaning: Option<&str>) -> Result<Upper, Error> {
        let directory = self.directory(tag_key);
        let names = lock_names(&self.root)?;
        if directory.exists() {
            // Busy if it is held.
            let _hold = Hold::take(&directory, tag_key)?;
            return Err(Error::new(ErrorKind::Exists, format!("{} already has staged edits, in {}", tag_key.shown(), shown(&directory))));
        }
        let making = self.root.join(format!("{MAKING}{}", tag_key.directory_name()));
        remove_tree(&making)?;
        durable::make_directory(&making).map_err(|error| system("cannot create", &making, &error))?;
        let made = open::make(&making, tag_key, &binding, meaning)
            .and_then(|()| Hold::take(&making, tag_key))
            .and_then(|hold| self.rename(&making, &directory).map(|()| hold));
        let hold = made.inspect_err(|_| {
            if let Err(error) = remove_tree(&making) {
                tracing::debug!(%error, "cannot remove an incomplete upper; it stays until the next start");
            }
        })?;
        drop(names);
        let hold = hold.ok_or_else(|| system("cannot lock", &directory, &io::ErrorKind::NotFound.into()))?;
        open::open(UpperLocation { tag_key: tag_key.clone(), directory }, hold, &self.budget)
    }

    /// Removes an upper that cannot be opened, without its database. `false` if it does not exist, Busy if it is held.
    pub fn give_up(&self, tag_key: &TagKey) -> Result<bool, Error> {
        let directory = self.directory(tag_key);
        let Some(_hold) = Hold::take(&directory, tag_key)? else { return Ok(false) };
        remove_tree(&take_away(&directory)?).map(|()| true)
    }

    /// How many bytes may be staged in total, and how many more: the size and free space of the disk, within the quota. Queries only the disk.
    pub fn room(&self) -> Result<(u64, u64), Error> {
        let disk = durable::free(&self.root).map_err(|error| system("cannot query the disk of", &self.root, &error))?;
        let quota = self.budget.quota.unwrap_or(u64::MAX);
        Ok((disk.total.min(quota), available(&disk).min(quota.saturating_sub(self.budget.used()))))
    }

    /// Bytes staged by the uppers open here, and the quota.
    pub fn usage(&self) -> (u64, Option<u64>) {
        (self.budget.used(), self.budget.quota)
    }
}

impl Upper {
    /// Moves the upper to another tag of the repository that has none (`mv v1 v2`, `--as`), with its lock. Exists if the other tag has one, Busy if
    /// that is held.
    pub fn move_to(&self, tag_key: &TagKey) -> Result<(), Error> {
        // Prevents removal and changes meanwhile.
        let database = self.shared.database()?;
        self.take_back(&database)?;
        self.relocate(&database, tag_key)
    }

    /// Releases name and lock of the tag until the next change if nothing is left to publish; returns whether it did. Meanwhile the upper is stored
    /// under `aside`, remains readable, and keeps its nodes.
    pub fn release(&self, aside: &TagKey) -> Result<bool, Error> {
        let database = self.shared.database()?;
        if self.is_needed() || self.shared.store.standing() != Standing::Current {
            return Ok(false);
        }
        let tag = self.tag_key();
        self.relocate(&database, aside)?;
        self.shared.store.set_standing(Standing::Released(tag));
        Ok(true)
    }

    /// Whether the tag is free for others.
    pub fn is_released(&self) -> bool {
        matches!(self.shared.store.standing(), Standing::Released(_))
    }

    /// Takes name and lock of the tag back if they were released. Busy if another process holds them now, Exists if it left edits, Gone if the upper
    /// was retired.
    pub fn reclaim(&self) -> Result<(), Error> {
        let database = self.shared.database()?;
        self.take_back(&database)
    }

    pub(super) fn take_back(&self, database: &Database) -> Result<(), Error> {
        match self.shared.store.standing() {
            Standing::Current => Ok(()),
            Standing::Released(tag) => {
                self.relocate(database, &tag)?;
                self.shared.store.set_standing(Standing::Current);
                Ok(())
            }
            Standing::Retired => {
                Err(Error::new(ErrorKind::Gone, "the tag has moved since this directory was opened; open it again to change it"))
            }
        }
    }

    /// Moves the upper from its tag's name to that of `tag_key` for good if nothing is left to publish; returns whether it did. Every later change
    /// fails with Gone, but the content remains readable.
    pub fn retire(&self, tag_key: &TagKey) -> Result<bool, Error> {
        let database = self.shared.database()?;
        if self.is_needed() {
            return Ok(false);
        }
        self.relocate(&database, tag_key)?;
        self.shared.store.set_standing(Standing::Retired);
        Ok(true)
    }

    /// Whether something is left to publish or being published. Call under the database lock.
    fn is_needed(&self) -> bool {
        self.shared.state().has_edits() || self.shared.store.has_frozen()
    }

    fn relocate(&self, _database: &Database, tag_key: &TagKey) -> Result<(), Error> {
        let location = self.shared.store.location();
        let root = location.directory.parent().unwrap_or(&location.directory).to_path_buf();
        let directory = root.join(tag_key.directory_name());
        let _names = lock_names(&root)?;
        if directory == location.directory {
            return Ok(());
        }
        if directory.exists() {
            let _hold = Hold::take(&directory, tag_key)?;
            return Err(Error::new(ErrorKind::Exists, format!("{} already has staged edits, in {}", tag_key.shown(), shown(&directory))));
        }
        let binding = self.binding();
        // The document first: after a crash here, the next start, which trusts the document, completes the move.
        About::new(tag_key, &binding).write(&location.directory)?;
        let next = UpperLocation { tag_key: tag_key.clone(), directory };
        if let Err(error) = self.shared.store.move_to(next, |directory| rename(&root, &location.directory, directory)) {
            About::new(&location.tag_key, &binding).write(&location.directory)?;
            return Err(error);
        }
        Ok(())
    }

    /// Removes the upper with everything in it, at once: the tag may be staged again. Every later call fails with Gone, and nothing can be edited; open
    /// staged bytes remain usable until they are closed. Busy while a generation is frozen.
    ///
    /// Drops the edits: for discarding them. Otherwise use [`Upper::remove_if_clean`].
    pub fn remove(&self) -> Result<(), Error> {
        let database = self.shared.database()?;
        if self.shared.store.has_frozen() {
            return Err(Error::new(ErrorKind::Busy, format!("{} is being published", self.tag_key().shown())));
        }
        self.take_away(&database)
    }

    /// Removes the upper if nothing is left to publish; returns whether it did. A concurrent edit either is committed first, and keeps it, or fails
    /// with Gone.
    pub fn remove_if_clean(&self) -> Result<bool, Error> {
        let database = self.shared.database()?;
        if self.is_needed() {
            return Ok(false);
        }
        self.take_away(&database).map(|()| true)
    }

    /// Removes the upper if nothing has changed since this generation was frozen; returns whether it did.
    pub fn remove_if_unchanged(&self, frozen: FrozenUpper) -> Result<bool, Error> {
        let database = self.shared.database()?;
        if !self.is_unchanged_since(&frozen) {
            return Ok(false);
        }
        self.take_away(&database).map(|()| true)
    }

    /// Removes the upper if `judge`, which sees the committed rows, agrees; returns whether it did.
    pub fn remove_if(&self, judge: impl FnOnce(&dyn Rows) -> Result<bool, Error>) -> Result<bool, Error> {
        let mut database = self.shared.database()?;
        if self.shared.store.has_frozen() || !judge(Change::begin(&mut database, &self.shared)?.rows())? {
            return Ok(false);
        }
        self.take_away(&database).map(|()| true)
    }

    fn take_away(&self, _database: &Database) -> Result<(), Error> {
        let removed = self.shared.store.take_away(take_away)?;
        self.shared.state.lock().edited = false;
        self.shared.store.set_removed();
        remove_tree(&removed)
    }
}

/// Renames first, so that a partially removed upper is never found. Returns the new path.
fn take_away(directory: &Path) -> Result<PathBuf, Error> {
    let root = directory.parent().unwrap_or(directory);
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let _names = lock_names(root)?;
    // Two uppers of one tag may be in removal at once.
    let removing = (0..).map(|number: u64| root.join(format!("{REMOVING}{number}-{name}"))).find(|path| !path.exists());
    let removing = removing.ok_or_else(|| system("cannot remove", directory, &io::ErrorKind::AlreadyExists.into()))?;
    rename(root, directory, &removing)?;
    Ok(removing)
}

fn rename(root: &Path, from: &Path, to: &Path) -> Result<(), Error> {
    // Fails if `to` exists, since an upper is never empty.
    std::fs::rename(from, to).map_err(|error| system("cannot rename", from, &error))?;
    durable::sync_directory(root).map_err(|error| system("cannot sync", root, &error))
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system("cannot remove", path, &error)),
        _ => Ok(()),
    }
}
