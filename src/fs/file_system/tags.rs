//! Changes inside tags, and the commands on staged tags.

use super::FileSystem;
use crate::content::Lent;
use crate::error::Error;
use crate::fs::changes::NewName;
use crate::fs::selection::{Scope, Selection};
use crate::fs::{Caller, Entry, StagedTag};
use crate::publish::{Listener, Options, Report};
use crate::seal::Passphrase;
use crate::view::{Difference, Replace, SetAttributes};

impl FileSystem {
    /// Adopts the uppers of the state directory that this mount covers and no process holds. Makes no request. Called before the mount
    /// is announced; returns what is still staged from before. `error` says why a tag could not be adopted.
    pub async fn adopt(&self) -> Vec<StagedTag> {
        self.tags.adopt().await
    }

    /// The same for a command, limited to the tags it wants. A tag that another process has just taken then counts as unreadable, since the
    /// command cannot do what was requested.
    pub async fn adopt_wanted(&self, wanted: Option<&Selection>) -> Vec<StagedTag> {
        self.tags.adopt_wanted(wanted).await
    }

    /// Creates a name, counted as one lookup. `mkdir` above tags creates a repository or a tag.
    ///
    /// # Errors
    /// As the corresponding system call; `NotPermitted` for files above tags.
    pub async fn make(&self, caller: Caller, new: NewName) -> Result<Entry, Error> {
        self.tags.make(caller, new).await
    }

    /// Removes a name that is not a directory.
    ///
    /// # Errors
    /// As `unlink(2)`; `NotPermitted` above tags.
    pub async fn unlink(&self, directory: u64, name: &[u8]) -> Result<(), Error> {
        self.tags.unlink(directory, name).await
    }

    /// Removes an empty directory, or a tag or repository.
    ///
    /// # Errors
    /// As `rmdir(2)`; `NotPermitted` for a tag upstream if deleting is not allowed, and for repositories upstream.
    pub async fn rmdir(&self, directory: u64, name: &[u8]) -> Result<(), Error> {
        self.tags.rmdir(directory, name).await
    }

    /// Renames inside one tag, or a tag inside its repository.
    ///
    /// # Errors
    /// As `rename(2)`; `CrossDevice` from one tag to another.
    pub async fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), replace: Replace) -> Result<(), Error> {
        self.tags.rename(from, to, replace).await
    }

    /// Adds a name to a file, counted as one lookup.
    ///
    /// # Errors
    /// As `link(2)`; `CrossDevice` from one tag to another.
    pub async fn link(&self, number: u64, directory: u64, name: &[u8]) -> Result<Entry, Error> {
        self.tags.link(number, directory, name).await
    }

    /// Sets attributes and returns all of them.
    ///
    /// # Errors
    /// As the corresponding system call; `NotPermitted` above tags.
    pub async fn setattr(&self, caller: Caller, number: u64, set: SetAttributes) -> Result<Entry, Error> {
        self.tags.setattr(caller, number, set).await
    }

    /// Sets an extended attribute; `create` and `replace` as in `setxattr(2)`.
    ///
    /// # Errors
    /// As `setxattr(2)`; `NotPermitted` for ocifs's own names and above tags.
    pub async fn setxattr(&self, number: u64, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<(), Error> {
        self.tags.setxattr(number, name, value, create, replace).await
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As `removexattr(2)`; `NotPermitted` for ocifs's own names and above tags.
    pub async fn removexattr(&self, number: u64, name: &[u8]) -> Result<(), Error> {
        self.tags.removexattr(number, name).await
    }

    /// Whether the mount is writable.
    pub fn is_writable(&self) -> bool {
        self.tags.is_writable()
    }

    /// The registry, repository or artifact that this mount shows.
    pub fn scope(&self) -> Scope<'_> {
        self.tags.scope()
    }

    /// The number of tags that [`Self::staged`] lists.
    pub fn staged_count(&self) -> usize {
        self.tags.staged_count()
    }

    /// The tags staged by this mount, by path.
    pub async fn staged(&self) -> Vec<StagedTag> {
        self.tags.staged().await
    }

    /// Those that a command selects.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub async fn staged_of(&self, selection: &Selection) -> Result<Vec<StagedTag>, Error> {
        self.tags.staged_of(selection).await
    }

    /// Tries these passphrases before the mount's own until the returned value is dropped.
    pub fn lend(&self, passphrases: Vec<Passphrase>) -> Lent {
        self.tags.lend(passphrases)
    }

    /// Publishes the selected tags, one after another; a failed one does not stop the others. Dropping the future stops it.
    ///
    /// # Errors
    /// `NotFound` if a path or reference selects nothing of this mount, Invalid for several tags under one name (`--as`).
    pub async fn sync(&self, selection: &Selection, options: &Options, listener: &Listener) -> Result<Vec<Report>, Error> {
        self.tags.sync(selection, options, listener).await
    }

    /// The differences from upstream, by tag.
    ///
    /// # Errors
    /// As [`Self::sync`], and errors of reading the trees.
    pub async fn differences(&self, selection: &Selection) -> Result<Vec<(String, Vec<Difference>)>, Error> {
        self.tags.differences(selection).await
    }

    /// Discards the selected edits (for a path inside a tag: those below it) and returns the references of the tags concerned.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub async fn discard(&self, selection: &Selection) -> Result<Vec<String>, Error> {
        self.tags.discard(selection).await
    }

    /// Stages an empty tag, whose repository need not exist, and returns its path below the mount.
    ///
    /// # Errors
    /// Invalid if the mount does not cover the reference, Exists if the tag exists already, ReadOnly, Busy.
    pub async fn new_tag(&self, reference: &str) -> Result<String, Error> {
        self.tags.new_tag(reference).await
    }
}
