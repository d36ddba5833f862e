//! Lists directories: what OPENDIR snapshots, and how READDIRPLUS returns it.
//!
//! A listing of the namespace or of metadata is taken once at OPENDIR, so that every error is reported there and a
//! reader sees a consistent state. A tree is walked by the cookies of its names. No listing costs a request per name.

use std::sync::Arc;

use super::listed::{Listed, ListingSource};
use super::location::Location;
use super::names::Names;
use super::open_files::OpenFiles;
use super::resolve::{Item, tag_item};
use super::window::{new_tag_names, repository_location};
use super::{Entry, Inode, OpenDirectory, ROOT};
use crate::artifact::{NodeId, Tree};
use crate::error::{Error, ErrorKind};
use crate::oci::{Repository, Tag};
use crate::view::{Found, Shown, View, ViewNode};

/// Cookies of `.` and `..`; the directory's names follow.
const DOTS: u64 = 2;
/// Names of an edited directory read at a time.
const HANDFUL: usize = 64;

/// One name returned by [`super::FileSystem::readdirplus`].
pub struct DirectoryEntry<'a> {
    /// Cookie to continue after this name.
    pub cookie: u64,
    /// The name.
    pub name: &'a [u8],
    /// Its target; counted as one lookup except for `.` and `..`.
    pub entry: Entry,
}

impl OpenFiles {
    /// Opens a directory; every error of listing it is reported here.
    pub(super) async fn opendir(&self, number: u64) -> Result<OpenDirectory, Error> {
        let inode = self.namespace.inode(number);
        let (source, parent) = match inode.view() {
            0 => self.take_location(inode).await?,
            _ => self.take_view(inode).await?,
        };
        // Changes go through the kernel, which then drops its cached listing; it is notified of all other changes.
        let immutable = matches!(source, ListingSource::Files(..));
        let handle = self.handles.open_directory(Listed { number, parent, source });
        Ok(OpenDirectory { handle, immutable })
    }

    async fn take_view(&self, inode: Inode) -> Result<(ListingSource, u64), Error> {
        let view = self.namespace.view(inode)?;
        let shown = self.namespace.enter(&view).await?;
        if !view.is_directory(&self.namespace.context, inode.node()) {
            return Err(Error::new(ErrorKind::NotDirectory, "not a directory"));
        }
        let source = match shown {
            Shown::Tree(_) | Shown::New => ListingSource::Files(Arc::clone(&view), inode.node()),
            Shown::Metadata(_) => ListingSource::Metadata(Arc::clone(&view), view.names(&self.namespace.context, inode.node()).await?),
        };
        let parent = match inode.node() {
            0 => self.holder(&Location::Directory(Some(view.repository().clone()))),
            node => self.namespace.number(Inode::of_view(view.number(), view.parent(node))),
        };
        Ok((source, parent))
    }

    async fn take_location(&self, inode: Inode) -> Result<(ListingSource, u64), Error> {
        let location = self.namespace.location(inode)?;
        match location.as_ref() {
            Location::Directory(path) => {
                let names = self.namespace.names(path).await?;
                if !names.exists {
                    return Err(Error::new(ErrorKind::NotFound, "no such repository, and no repository below it"));
                }
                let parent = path.as_ref().map_or(ROOT, |path| self.holder(&Location::Directory(parent_of(path))));
                Ok((ListingSource::Namespace(path.clone(), names), parent))
            }
            Location::Window(path) => {
                Ok((ListingSource::Window(self.namespace.window_names(path)), self.holder(&Location::Directory(path.clone()))))
            }
            Location::Repositories(path) => {
                let names = self.namespace.names(path).await?;
                Ok((ListingSource::Repositories(path.clone(), names), self.holder(&Location::Window(path.clone()))))
            }
            Location::Tags(repository) => {
                let path = Some(repository.clone());
                let names = self.namespace.names(&path).await?;
                Ok((ListingSource::Tags(repository.clone(), names), self.holder(&Location::Window(path))))
            }
            Location::NewTag(repository, tag) => {
                Ok((ListingSource::Window(new_tag_names(repository, tag)), self.holder(&Location::Tags(repository.clone()))))
            }
            _ => Err(Error::new(ErrorKind::NotDirectory, "not a directory")),
        }
    }

    /// The inode of a location for `..`; the root if the kernel does not know it.
    fn holder(&self, location: &Location) -> u64 {
        self.namespace.locations.number(location).map_or(ROOT, |node| self.namespace.number(Inode::of_namespace(node)))
    }

    /// Passes names after a cookie to `take` until it returns `false` because it is full and did not take the last one.
    pub(super) fn readdirplus(&self, handle: u64, after: u64, take: &mut dyn FnMut(DirectoryEntry<'_>) -> bool) -> Result<(), Error> {
        let listed = self.handles.directory(handle)?;
        for (cookie, name, number) in [(1, b".".as_slice(), listed.number), (DOTS, b"..", listed.parent)] {
            let entry = Entry { inode: number, ..self.namespace.location_attributes(number, &Location::Directory(None)) };
            if after < cookie && !take(DirectoryEntry { cookie, name, entry }) {
                return Ok(());
            }
        }
        let after = after.saturating_sub(DOTS);
        match &listed.source {
            ListingSource::Files(view, directory) => self.list_files(view, *directory, after, take),
            source => self.list_taken(source, after, take),
        }
    }

    fn list_files(
        &self,
        view: &Arc<View>,
        directory: ViewNode,
        after: u64,
        take: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> Result<(), Error> {
        let Some(overlay) = view.overlay() else { return self.list_tree(view, directory, after, take) };
        let mut after = after;
        loop {
            // Taken in batches: attributes are read after the listing has released its locks.
            let mut names: Vec<(u64, Vec<u8>, ViewNode)> = Vec::new();
            overlay.children(directory, after, &mut |cookie, name, node| {
                names.push((cookie, name.to_vec(), node));
                names.len() < HANDFUL
            })?;
            let Some((last, ..)) = names.last() else { return Ok(()) };
            after = *last;
            for (cookie, name, node) in names {
                match self.namespace.node_entry(view, node) {
                    Ok(entry) if !self.hand_out(cookie, &name, entry, take) => return Ok(()),
                    Ok(_) => {}
                    // Removed since its name was taken.
                    Err(error) if error.kind == ErrorKind::Gone => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn list_tree(
        &self,
        view: &Arc<View>,
        directory: ViewNode,
        after: u64,
        take: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> Result<(), Error> {
        let Some(tree) = tree_of(view) else { return Err(super::refusals::stale()) };
        for child in tree.children(NodeId::try_from(directory).unwrap_or(NodeId::MAX), after) {
            let entry = self.namespace.node_entry(view, child.node.into())?;
            if !self.hand_out(child.cookie, child.name, entry, take) {
                break;
            }
        }
        Ok(())
    }

    fn list_taken(&self, source: &ListingSource, after: u64, take: &mut dyn FnMut(DirectoryEntry<'_>) -> bool) -> Result<(), Error> {
        let mut position = usize::try_from(after).unwrap_or(usize::MAX);
        while let Some((name, item)) = self.taken(source, position) {
            position += 1;
            // A name that is not a tag or repository after all is skipped.
            let Some(item) = item else { continue };
            let entry = match item {
                Taken::Item(item) => self.namespace.item_entry(item, false)?,
                Taken::Node(view, node) => self.namespace.node_entry(view, node)?,
            };
            if !self.hand_out(position as u64, name, entry, take) {
                break;
            }
        }
        Ok(())
    }

    /// Returns one name; if not taken, it is not counted as known to the kernel.
    fn hand_out(&self, cookie: u64, name: &[u8], entry: Entry, take: &mut dyn FnMut(DirectoryEntry<'_>) -> bool) -> bool {
        let taken = take(DirectoryEntry { cookie: cookie + DOTS, name, entry });
        if !taken {
            self.namespace.forget(entry.inode, 1);
        }
        taken
    }

    /// The name at a position of a listing, and its target.
    fn taken<'a>(&self, source: &'a ListingSource, position: usize) -> Option<(&'a [u8], Option<Taken<'a>>)> {
        match source {
            ListingSource::Files(..) => None,
            ListingSource::Window(names) => {
                names.get(position).map(|(name, location)| (name.as_bytes(), Some(Taken::Item(Item::Location(location.clone())))))
            }
            ListingSource::Metadata(view, names) => names.get(position).map(|name| {
                let taken = match &name.found {
                    Found::Node(node) => Taken::Node(view, *node),
                    Found::View(key, origin) => Taken::Item(Item::View(key.clone(), origin.clone())),
                };
                (name.name.as_slice(), Some(taken))
            }),
            ListingSource::Tags(repository, names) => {
                let name = names.tags.get(position)?;
                let item = Tag::parse(name).ok().map(|tag| Taken::Item(self.namespace.metadata_of(repository, tag)));
                Some((name.as_bytes(), item))
            }
            ListingSource::Repositories(path, names) => {
                let name = names.children.get(position)?;
                let child = self.namespace.child(path, name).map(|child| repository_location(child, names.has_tag(name)));
                Some((name.as_bytes(), child.map(|location| Taken::Item(Item::Location(location)))))
            }
            ListingSource::Namespace(path, names) => self.taken_name(path, names, position),
        }
    }

    /// Tags first, then names of a layout that are not tags, then the child repositories not hidden by a tag.
    fn taken_name<'a>(&self, path: &Option<Repository>, names: &'a Names, position: usize) -> Option<(&'a [u8], Option<Taken<'a>>)> {
        if let Some(name) = names.tags.get(position) {
            let tag = path.as_ref().and_then(|repository| Some(tag_item(repository, Tag::parse(name).ok()?)));
            return Some((name.as_bytes(), tag.map(Taken::Item)));
        }
        let position = position - names.tags.len();
        if let Some((name, digest)) = names.odd.get(position) {
            let item = path.as_ref().map(|repository| Taken::Item(self.namespace.odd_item(repository, name, *digest)));
            return Some((name.as_bytes(), item));
        }
        let name = names.children.get(position - names.odd.len())?;
        if names.has_tag(name) {
            return Some((name.as_bytes(), None));
        }
        let child = self.namespace.child(path, name).map(|child| Taken::Item(Item::Location(Location::Directory(Some(child)))));
        Some((name.as_bytes(), child))
    }

    /// Closes a directory.
    pub(super) fn releasedir(&self, handle: u64) {
        self.handles.close(handle);
    }
}

enum Taken<'a> {
    Item(Item),
    Node(&'a Arc<View>, u64),
}

fn tree_of(view: &View) -> Option<&Tree> {
    match view.shown() {
        Some(Shown::Tree(artifact)) => Some(&artifact.tree),
        _ => None,
    }
}

/// The path that holds a repository.
fn parent_of(path: &Repository) -> Option<Repository> {
    path.as_str().rsplit_once('/').and_then(|(parent, _)| Repository::parse(parent).ok())
}
