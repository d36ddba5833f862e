//! Changes inside tags, and the errors where nothing can be changed.
//!
//! Does not repeat the kernel's checks: owners and modes if other users are admitted, names that are taken, kinds.

use std::sync::Arc;
use std::time::Duration;

use super::editing::Editing;
use super::location::Location;
use super::open_files::OpenFiles;
use super::refusals::{read_only, too_long};
use super::staged_tags::StagedTags;
use super::{Caller, Entry, NAME_LIMIT, OpenFile};
use crate::artifact::{Kind, is_own_name};
use crate::error::{Error, ErrorKind};
use crate::view::{Attributes, NewNode, Replace, SetAttributes, View, ViewNode};

/// A name to create.
#[derive(Clone, Debug)]
pub struct NewName {
    /// The directory.
    pub directory: u64,
    /// The name.
    pub name: Vec<u8>,
    /// The node, whose owner is the caller.
    pub node: NewNode,
}

/// The directory in which a change is made.
enum ChangeParent {
    /// A directory of a tag.
    Tag(Arc<View>, ViewNode),
    /// A registry, prefix or repository, a window, a digest.
    Namespace(Arc<Location>),
}

impl StagedTags {
    fn target(&self, number: u64) -> Result<ChangeParent, Error> {
        self.uppers()?;
        let inode = self.namespace.inode(number);
        match inode.view() {
            0 => Ok(ChangeParent::Namespace(self.namespace.location(inode)?)),
            _ => Ok(ChangeParent::Tag(self.namespace.view(inode)?, inode.node())),
        }
    }

    /// Creates a name, counted as one lookup. `mkdir` above tags creates a repository or a tag.
    pub(super) async fn make(&self, caller: Caller, new: NewName) -> Result<Entry, Error> {
        let (view, overlay, node) = match self.target(new.directory)? {
            ChangeParent::Tag(view, directory) => {
                let (overlay, wanted) = self.new_node(&view, caller, &new).await?;
                let node = overlay.create(&self.namespace.context, directory, &new.name, &wanted)?;
                (view, overlay, node)
            }
            ChangeParent::Namespace(location) => {
                return match (location.as_ref(), new.node.kind) {
                    (Location::Directory(path), Kind::Directory) => {
                        self.make_directory(path, &new.name, caller, new.node.metadata.mode).await
                    }
                    (location, _) => Err(self.refuse_file(location)),
                };
            }
        };
        drop(overlay);
        self.namespace.node_entry(&view, node)
    }

    /// Refuses a new file above tags. In a repository created here this makes the tags doubtful: a copy placed one level
    /// too high creates a repository instead of a tag, and tags instead of directories.
    fn refuse_file(&self, location: &Location) -> Error {
        if let Location::Directory(Some(repository)) = location
            && self.namespace.staged.set_doubtful(repository, true)
        {
            tracing::warn!("a file was refused in repository {repository}, which was created here: its tags are published only if named");
        }
        no_files(location)
    }

    /// A new name in a directory of a tag, which counts as edited from now on.
    async fn new_node(&self, view: &Arc<View>, caller: Caller, new: &NewName) -> Result<(Editing<'_>, NewNode), Error> {
        check_name(&new.name)?;
        let mut node = new.node.clone();
        node.metadata.owner = Some((caller.uid, caller.gid));
        Ok((self.edit(view).await?, node))
    }

    /// Removes a name that is not a directory.
    pub(super) async fn unlink(&self, directory: u64, name: &[u8]) -> Result<(), Error> {
        match self.target(directory)? {
            ChangeParent::Tag(view, directory) => self.edit(&view).await?.remove(directory, name, false),
            ChangeParent::Namespace(location) => Err(no_files(&location)),
        }
    }

    /// Removes an empty directory, or a tag or repository.
    pub(super) async fn rmdir(&self, directory: u64, name: &[u8]) -> Result<(), Error> {
        match self.target(directory)? {
            ChangeParent::Tag(view, directory) => self.edit(&view).await?.remove(directory, name, true),
            ChangeParent::Namespace(location) => match location.as_ref() {
                Location::Directory(path) => self.remove_directory(path, name).await,
                location => Err(no_files(location)),
            },
        }
    }

    /// Renames inside one tag, or a tag inside its repository.
    pub(super) async fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), replace: Replace) -> Result<(), Error> {
        match (self.target(from.0)?, self.target(to.0)?) {
            (ChangeParent::Tag(view, source), ChangeParent::Tag(other, target)) => {
                check_name(to.1)?;
                if view.number() != other.number() {
                    return Err(across());
                }
                self.edit(&view).await?.rename((source, from.1), (target, to.1), replace)
            }
            (ChangeParent::Namespace(source), ChangeParent::Namespace(target)) => match (source.as_ref(), target.as_ref()) {
                (Location::Directory(path), Location::Directory(other)) if path == other => {
                    self.rename_directory(path, from.1, to.1, replace).await
                }
                (Location::Directory(_), Location::Directory(_)) => Err(across()),
                _ => Err(read_only()),
            },
            (ChangeParent::Tag(..), ChangeParent::Namespace(_)) | (ChangeParent::Namespace(_), ChangeParent::Tag(..)) => Err(across()),
        }
    }

    /// Adds a name to a file, counted as one lookup.
    pub(super) async fn link(&self, number: u64, directory: u64, name: &[u8]) -> Result<Entry, Error> {
        check_name(name)?;
        let node = self.namespace.inode(number);
        match self.target(directory)? {
            ChangeParent::Tag(view, _) if view.number() != node.view() => Err(across()),
            ChangeParent::Tag(view, directory) => {
                self.edit(&view).await?.link(node.node(), directory, name)?;
                self.namespace.node_entry(&view, node.node())
            }
            ChangeParent::Namespace(location) => Err(no_files(&location)),
        }
    }

    /// Sets attributes and returns all of them.
    pub(super) async fn setattr(&self, caller: Caller, number: u64, set: SetAttributes) -> Result<Entry, Error> {
        match self.target(number)? {
            ChangeParent::Tag(view, node) => {
                let overlay = self.edit(&view).await?;
                overlay.set_attributes(&self.namespace.context, node, set).await?;
                let (owner, length) = (set.uid.is_some() || set.gid.is_some(), set.size.is_some());
                if (owner || length) && overlay.attributes(&self.namespace.context, node)?.kind == Kind::File {
                    self.strip(&overlay, node, owner || !caller.may_keep_set_id()).await?;
                }
                self.namespace.attributes_of(&view, node)
            }
            ChangeParent::Namespace(location) => Err(no_files(&location)),
        }
    }

    /// Sets an extended attribute; `create` and `replace` as in `setxattr(2)`.
    pub(super) async fn setxattr(&self, number: u64, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<(), Error> {
        let (overlay, node) = self.xattr_target(number, name).await?;
        overlay.set_xattr(node, name, value, create, replace)
    }

    /// Removes an extended attribute.
    pub(super) async fn removexattr(&self, number: u64, name: &[u8]) -> Result<(), Error> {
        let (overlay, node) = self.xattr_target(number, name).await?;
        overlay.remove_xattr(node, name)
    }

    async fn xattr_target(&self, number: u64, name: &[u8]) -> Result<(Editing<'_>, ViewNode), Error> {
        if is_own_name(name) {
            return Err(Error::new(ErrorKind::NotPermitted, "attributes of ocifs itself cannot be set"));
        }
        match self.target(number)? {
            ChangeParent::Tag(view, node) => Ok((self.edit(&view).await?, node)),
            ChangeParent::Namespace(location) => Err(no_files(&location)),
        }
    }
}

impl OpenFiles {
    /// Creates a regular file and opens it for writing. An existing one is opened, unless `exclusive`.
    pub(super) async fn create(&self, caller: Caller, new: NewName, exclusive: bool) -> Result<(Entry, OpenFile), Error> {
        let (view, directory) = match self.tags.target(new.directory)? {
            ChangeParent::Tag(view, directory) => (view, directory),
            ChangeParent::Namespace(location) => return Err(self.tags.refuse_file(&location)),
        };
        let (overlay, wanted) = self.tags.new_node(&view, caller, &new).await?;
        let (node, file) = match overlay.create_file(&self.namespace.context, directory, &new.name, &wanted).await {
            // It was created since the kernel looked.
            Err(error) if error.kind == ErrorKind::Exists && !exclusive => {
                let node = overlay.lookup(directory, &new.name)?.ok_or(error)?;
                (node, overlay.open_writer(&self.namespace.context, node, false).await?)
            }
            made => made?,
        };
        let entry = self.namespace.node_entry(&view, node)?;
        let open = self.opened(entry.inode, view, file, Some(entry.attributes));
        Ok((entry, open))
    }

    /// Keeps times of a regular file that the kernel writes back by itself, perhaps long after the file lost its last name.
    pub(super) async fn write_back_times(&self, caller: Caller, number: u64, set: SetAttributes) -> Result<Entry, Error> {
        let same = |entry: &Entry| set.atime.is_none() && set.mtime.is_none_or(|mtime| mtime == entry.attributes.time);
        if let Ok(entry) = self.getattr(number).await
            && same(&entry)
        {
            // An already published file does not become dirty by this.
            return Ok(entry);
        }
        match self.tags.setattr(caller, number, set).await {
            Err(error) if error.kind == ErrorKind::Gone => {
                let attributes = Attributes { links: 0, ..self.namespace.context.defaults.file(0) };
                Ok(Entry { inode: number, attributes, name_ttl: Duration::ZERO, attributes_ttl: Duration::ZERO })
            }
            answered => answered,
        }
    }
}

/// Checks that a name is allowed inside a tag.
fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > NAME_LIMIT {
        return Err(too_long());
    }
    Ok(())
}

fn across() -> Error {
    Error::new(ErrorKind::CrossDevice, "cannot move or link between tags; copy instead")
}

/// The error for files above tags.
fn no_files(location: &Location) -> Error {
    match location {
        Location::Directory(_) => {
            Error::new(ErrorKind::NotPermitted, "a registry holds repositories, a repository holds tags; create files inside a tag")
        }
        _ => read_only(),
    }
}
