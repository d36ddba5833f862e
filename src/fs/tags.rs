//! Creates, removes and renames tags and repositories. None of it reaches the registry before a sync.
//!
//! The location of a name decides what it becomes: a repository in a registry or prefix, a tag in a repository. Whether it exists is
//! checked as a lookup does.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::editing::Removal;
use super::location::Location;
use super::refusals::read_only;
use super::resolve::{Finding, Item, tag_item};
use super::staged_tags::StagedTags;
use super::tag_state::{Claim, Event};
use super::tag_table::TagName;
use super::{Caller, Entry};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Repository, Tag};
use crate::staging::Binding;
use crate::view::{Key, Replace, SetAttributes, View};

const TAG_GRAMMAR: &str = "a tag has 1 to 128 of the characters a-z A-Z 0-9 _ . - and does not begin with . or -";
const REPOSITORY_GRAMMAR: &str =
    "a repository has lower-case letters and digits, joined by single . _ or - (or __), at most 255 characters in all";

impl StagedTags {
    /// `mkdir` above tags, counted as one lookup.
    pub(super) async fn make_directory(
        &self,
        path: &Option<Repository>,
        name: &[u8],
        caller: Caller,
        mode: Option<u32>,
    ) -> Result<Entry, Error> {
        if let Finding::Item { .. } = self.namespace.find(path, name).await? {
            return Err(Error::new(ErrorKind::Exists, "the name is taken"));
        }
        let text = std::str::from_utf8(name).unwrap_or_default();
        match path {
            Some(repository) if self.is_repository(repository).await? => {
                let tag = Tag::parse(text).map_err(|_| invalid(name, "tag", TAG_GRAMMAR))?;
                let name = (repository.clone(), tag);
                let view = self.make_tag(&name).await?;
                let (uid, gid, now) = (Some(caller.uid), Some(caller.gid), Some(now()));
                let set = SetAttributes { mode, uid, gid, mtime: now, ..SetAttributes::default() };
                self.edit(&view).await?.set_attributes(&self.namespace.context, 0, set).await?;
                let Item::View(key, origin) = tag_item(&name.0, name.1) else { return Err(super::refusals::stale()) };
                self.namespace.view_entry(key, origin)
            }
            _ => {
                let child = self.namespace.child(path, text).ok_or_else(|| invalid(name, "repository", REPOSITORY_GRAMMAR))?;
                self.namespace.staged.make_repository(child.clone());
                self.namespace.namespace_changed();
                self.namespace.item_entry(Item::Location(Location::Directory(Some(child))), false)
            }
        }
    }

    /// Whether names in a directory are tags, unless known to be something else.
    async fn is_repository(&self, repository: &Repository) -> Result<bool, Error> {
        if self.namespace.is_layout() || self.namespace.staged.has_repository(repository) {
            return Ok(true);
        }
        let path = Some(repository.clone());
        let names = self.namespace.names(&path).await?;
        if !names.tags.is_empty() || self.namespace.catalog().await.has(repository) {
            return Ok(true);
        }
        Ok(names.children.is_empty() && !self.namespace.is_source(&path))
    }

    /// Stages an empty tag that does not exist upstream.
    pub(super) async fn make_tag(&self, name: &TagName) -> Result<Arc<View>, Error> {
        let uppers = Arc::clone(self.uppers()?);
        // The new tag replaces the one deleted here.
        let expected = self.bury(name).await?;
        let (tag_key, meaning) = (self.tag_key(&name.0, &name.1), self.namespace.context.meaning.clone());
        let made = blocking(move || match uppers.find(&tag_key)? {
            Some(upper) => Ok((upper, true)),
            None => Ok((meaning.begin(&uppers, &tag_key, Binding { under: None, expected, deleted: false })?, false)),
        });
        let (upper, found) = made.await?;
        let view = self.show_upper(name, Arc::new(upper))?;
        if found {
            self.forget_tag_name(&name.0, &name.1);
            return Err(Error::new(ErrorKind::Exists, "the tag has edits of an earlier mount"));
        }
        self.namespace.enter(&view).await?;
        Ok(view)
    }

    /// Reverts the deletion of a tag and returns its upstream digest.
    async fn bury(&self, name: &TagName) -> Result<Option<Digest>, Error> {
        match self.namespace.staged.tag(&name.0, &name.1) {
            Some(staged) if staged.deleted => {
                let expected = staged.view.binding().and_then(|binding| binding.expected);
                self.drop_staged(name, Removal::Everything).await?;
                Ok(expected)
            }
            _ => Ok(None),
        }
    }

    /// `rmdir` above tags.
    pub(super) async fn remove_directory(&self, path: &Option<Repository>, name: &[u8]) -> Result<(), Error> {
        match self.namespace.find(path, name).await? {
            Finding::Nothing(_) => Err(Error::new(ErrorKind::NotFound, "no such name")),
            Finding::Item { item: Item::View(Key::Tag(repository, tag), _), .. } => self.remove_tag(&(repository, tag)).await,
            Finding::Item { item: Item::Location(Location::Directory(Some(child))), .. } => self.remove_repository(&child),
            Finding::Item { .. } => Err(read_only()),
        }
    }

    fn remove_repository(&self, repository: &Repository) -> Result<(), Error> {
        if self.holds_staged(repository) {
            return Err(not_empty());
        }
        if !self.namespace.staged.is_made(repository) {
            return Err(Error::new(ErrorKind::NotPermitted, "a repository cannot be deleted through a mount"));
        }
        self.namespace.staged.drop_repository(repository);
        self.namespace.namespace_changed();
        Ok(())
    }

    /// Whether tags are staged in a repository, or in repositories below it.
    fn holds_staged(&self, repository: &Repository) -> bool {
        let staged = &self.namespace.staged;
        staged.has_repository_below(repository) || staged.has_tags(repository)
    }

    /// `rmdir` of a tag: one that is only staged is removed, one that exists upstream is deleted by the next sync.
    async fn remove_tag(&self, name: &TagName) -> Result<(), Error> {
        let staged = self.namespace.staged.tag(&name.0, &name.1);
        // Edits staged under other flags keep them.
        let recorded = staged.as_ref().map_or(Ok(None), |staged| staged.view.meaning())?;
        let allowed = recorded.map_or(self.namespace.context.meaning.allow_delete, |meaning| meaning.allow_delete);
        if !staged.is_some_and(|staged| staged.new) && !allowed {
            return Err(Error::new(ErrorKind::NotPermitted, "deleting a tag needs a mount with --allow-delete"));
        }
        let view = self.tag_view(name)?;
        let editing = self.edit(&view).await?;
        let claimed = self.claim(name, Claim::Whole)?;
        if editing.binding().expected.is_none() {
            return if self.drop_claimed(name, &claimed, Removal::IfEmpty).await? { Ok(()) } else { Err(not_empty()) };
        }
        let overlay = Arc::clone(&editing);
        if !blocking(move || overlay.delete_if_empty()).await? {
            return Err(not_empty());
        }
        self.namespace.staged.happened_in(&self.namespace.views, &view, |_| Event::Deleted(view.number()));
        Ok(())
    }

    /// The view that a lookup of a tag gets. Its name was looked up before, so the kernel or the table of edits knows it.
    fn tag_view(&self, name: &TagName) -> Result<Arc<View>, Error> {
        self.namespace.views.current(&Key::Tag(name.0.clone(), name.1.clone())).ok_or_else(super::refusals::stale)
    }

    /// `rename` above tags: a tag gets another name in its repository, and its directory moves with all its content.
    pub(super) async fn rename_directory(&self, path: &Option<Repository>, from: &[u8], to: &[u8], replace: Replace) -> Result<(), Error> {
        if replace == Replace::Exchange {
            return Err(Error::new(ErrorKind::Invalid, "two tags cannot be exchanged"));
        }
        let source = match self.namespace.find(path, from).await? {
            Finding::Nothing(_) => return Err(Error::new(ErrorKind::NotFound, "no such name")),
            Finding::Item { item: Item::View(Key::Tag(repository, tag), _), .. } => (repository, tag),
            Finding::Item { item: Item::Location(Location::Directory(Some(child))), .. } => {
                return self.rename_repository(path, &child, to).await;
            }
            Finding::Item { .. } => return Err(read_only()),
        };
        let text = std::str::from_utf8(to).unwrap_or_default();
        let target = (source.0.clone(), Tag::parse(text).map_err(|_| invalid(to, "tag", TAG_GRAMMAR))?);
        if target == source {
            return Ok(());
        }
        if let Finding::Item { .. } = self.namespace.find(path, to).await? {
            self.make_room(&target, replace).await?;
        }
        self.retag(&source, &target).await
    }

    /// Removes an empty tag that is only staged, so that another one can take its name.
    async fn make_room(&self, name: &TagName, replace: Replace) -> Result<(), Error> {
        if replace == Replace::No {
            return Err(Error::new(ErrorKind::Exists, "the name is taken"));
        }
        let staged_only = self.namespace.staged.tag(&name.0, &name.1).is_some_and(|staged| staged.new);
        if staged_only {
            // Its edits are opened first, to see whether there are any.
            self.edit(&self.tag_view(name)?).await?;
        }
        if staged_only && self.drop_staged(name, Removal::IfEmpty).await? { Ok(()) } else { Err(not_empty()) }
    }

    async fn retag(&self, from: &TagName, to: &TagName) -> Result<(), Error> {
        let view = self.tag_view(from)?;
        let editing = self.edit(&view).await?;
        let _claimed = self.claim(from, Claim::Whole)?;
        let before = editing.binding();
        let expected = self.bury(to).await?;
        let (uppers, tag_key, other) = (Arc::clone(self.uppers()?), self.tag_key(&to.0, &to.1), self.tag_key(&from.0, &from.1));
        let (overlay, meaning) = (Arc::clone(&editing), self.namespace.context.meaning.clone());
        // Moved first: a crash in between leaves both names, never none.
        let deleted = blocking(move || {
            overlay.move_to(&tag_key, Binding { under: before.under, expected, deleted: false })?;
            let deleted = Binding { under: None, expected: before.expected, deleted: true };
            before.expected.map(|_| meaning.begin(&uppers, &other, deleted)).transpose()
        })
        .await?;
        self.namespace.staged.rename(&self.namespace.views, from, to);
        if let Some(upper) = deleted {
            self.stage(from, Arc::new(upper))?;
        }
        Ok(())
    }

    async fn rename_repository(&self, path: &Option<Repository>, from: &Repository, to: &[u8]) -> Result<(), Error> {
        if !self.namespace.staged.is_made(from) || self.holds_staged(from) {
            return Err(Error::new(ErrorKind::NotPermitted, "a repository cannot be renamed"));
        }
        if let Finding::Item { .. } = self.namespace.find(path, to).await? {
            return Err(Error::new(ErrorKind::Exists, "the name is taken"));
        }
        let text = std::str::from_utf8(to).unwrap_or_default();
        let child = self.namespace.child(path, text).ok_or_else(|| invalid(to, "repository", REPOSITORY_GRAMMAR))?;
        self.namespace.staged.drop_repository(from);
        self.namespace.staged.make_repository(child.clone());
        self.namespace.locations.rename(&Location::Directory(Some(from.clone())), Location::Directory(Some(child)));
        self.namespace.namespace_changed();
        Ok(())
    }
}

fn not_empty() -> Error {
    Error::new(ErrorKind::NotEmpty, "the directory is not empty")
}

/// Logs the grammar of a name, since a program only learns that the name is invalid.
fn invalid(name: &[u8], what: &str, grammar: &str) -> Error {
    let shown = String::from_utf8_lossy(name);
    tracing::warn!("{shown:?} cannot be the name of a {what}: {grammar}");
    Error::new(ErrorKind::Invalid, format!("{shown:?} cannot be the name of a {what}: {grammar}"))
}

fn now() -> (i64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}
