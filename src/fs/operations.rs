//! Operations on inodes: lookups, attributes, links, access checks, and forgetting.

use std::sync::Arc;

use super::config::Space;
use super::location::Location;
use super::namespace::Namespace;
use super::open_files::OpenFiles;
use super::refusals::{ABSENT_TTL, NAME_LIMIT, too_long};
use super::resolve::Finding;
use super::{Entry, FOREVER, Inode, Lookup, ROOT};
use crate::artifact::Kind;
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::view::{Found, Key, Shown, View};

impl Namespace {
    /// Looks up a name in a directory; a hit counts one more lookup.
    pub(super) async fn lookup(&self, directory: u64, name: &[u8]) -> Result<Lookup, Error> {
        let inode = self.inode(directory);
        if inode.view() != 0 {
            let view = self.view(inode)?;
            self.enter(&view).await?;
            return match view.lookup(&self.context, inode.node(), name).await? {
                Some(Found::Node(node)) => Ok(Lookup::Found(self.node_entry(&view, node)?)),
                Some(Found::View(key, origin)) => Ok(Lookup::Found(self.view_entry(key, origin)?)),
                None if name.len() > NAME_LIMIT => Err(too_long()),
                None if self.is_immutable(&view) => Ok(Lookup::Absent(FOREVER)),
                None => Ok(Lookup::Absent(ABSENT_TTL)),
            };
        }
        let location = self.location(inode)?;
        let finding = match location.as_ref() {
            Location::Directory(path) => self.find(path, name).await?,
            location if location.is_directory() => self.find_in_window(location, name).await?,
            _ => return Err(Error::new(ErrorKind::NotDirectory, "not a directory")),
        };
        match finding {
            Finding::Nothing(ttl) => Ok(Lookup::Absent(ttl)),
            Finding::Item { item, guessed } => Ok(Lookup::Found(self.item_entry(item, guessed)?)),
        }
    }

    /// Whether a view shows the same names for as long as it lives.
    fn is_immutable(&self, view: &View) -> bool {
        let is_editable = self.context.staging.is_some() && matches!(view.key(), Key::Tag(..));
        matches!(view.shown(), Some(Shown::Tree(_))) && !is_editable
    }

    /// Binds a view to its digest. The kernel forgets the previous attributes of its directory.
    pub(super) async fn enter<'view>(&self, view: &'view Arc<View>) -> Result<&'view Shown, Error> {
        if let Some(shown) = view.shown() {
            return Ok(shown);
        }
        let shown = view.enter(&self.context).await?;
        // A kernel that checks modes is just requesting them, and would drop the answer; else they last no longer than the name.
        if !self.admits_others()
            && let Some(kernel) = self.kernel.get()
        {
            kernel.forget_inode(self.number(Inode::of_view(view.number(), 0)));
        }
        if let Key::Tag(repository, tag) = view.key()
            && let Some(last) = self.context.artifacts.last_known(&repository, &tag)
        {
            // While the artifact was fetched, the registry may have reported a new digest for the tag.
            self.answered(&(repository, tag), view, Some(last)).await;
        }
        Ok(shown)
    }

    /// Takes back lookups that the kernel has forgotten.
    pub(super) fn forget(&self, number: u64, lookups: u64) {
        if number == ROOT {
            return;
        }
        let inode = Inode::decode(number);
        match inode.view() {
            0 => self.locations.forget(inode.node(), lookups),
            view => drop(self.views.forget(view, lookups)),
        }
    }

    /// The target of a symlink.
    pub(super) fn readlink(&self, number: u64) -> Result<Vec<u8>, Error> {
        let inode = self.inode(number);
        if inode.view() != 0 {
            return self.view(inode)?.target(inode.node());
        }
        match self.location(inode)?.link() {
            Some(target) => Ok(target.into_bytes()),
            None => Err(Error::new(ErrorKind::Invalid, "not a symbolic link")),
        }
    }

    /// Figures for `df`: space for edits on a writable mount, else the cache budget and its unused part.
    pub(super) async fn statfs(&self) -> Result<Space, Error> {
        let Some(uppers) = self.context.staging.clone() else { return Ok((self.config.space)()) };
        let (total, free) = blocking(move || uppers.room()).await?;
        Ok(Space { total, free })
    }
}

impl OpenFiles {
    /// Attributes of an inode and how long they may be cached.
    pub(super) async fn getattr(&self, number: u64) -> Result<Entry, Error> {
        let inode = self.namespace.inode(number);
        if inode.view() == 0 {
            let location = self.namespace.location(inode)?;
            if self.namespace.config.skips_opens && location.is_made_file() {
                return Ok(self.snapshot_made(number, &location));
            }
            return Ok(self.namespace.location_attributes(number, &location));
        }
        if self.namespace.is_only_named(inode) && !self.namespace.admits_others() {
            return Ok(self.namespace.named_attributes(inode.view()));
        }
        let view = self.namespace.view(inode)?;
        if number == ROOT || inode.node() == 0 && self.namespace.admits_others() {
            // The root is entered by mounting, without a lookup. If the kernel checks modes, it requests those of a directory
            // not yet entered when they deny an access.
            self.namespace.enter(&view).await?;
        }
        match self.namespace.attributes_of(&view, inode.node()) {
            Err(error) if error.kind == ErrorKind::Gone => self.open_attributes(number).ok_or(error),
            entry => entry,
        }
    }

    /// Whether an access is allowed as far as this mount decides: the kernel checks modes if other users are
    /// admitted, else everything is readable.
    pub(super) async fn access(&self, number: u64, write: bool, execute: bool) -> Result<(), Error> {
        if write {
            self.tags.check_writable(number).await?;
        }
        if execute {
            let attributes = self.getattr(number).await?.attributes;
            if attributes.kind != Kind::Directory && attributes.mode & 0o111 == 0 {
                return Err(Error::new(ErrorKind::Denied, "the file is not executable"));
            }
        }
        Ok(())
    }
}
