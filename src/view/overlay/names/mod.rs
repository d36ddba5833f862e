//! Creates, removes and moves names. The order of the checks yields the error that POSIX requires if several apply.
//!
//! - `base`: the lower tree; `trees`: those that rows refer to
//! - `merged`: the upper over its tree; `walk`: all of it in publish order; `unedited`: the same for a tag without edits
//! - `edit`: one change, as a transaction; `removed`: nodes that the kernel may still request

pub(super) mod base;
pub(super) mod edit;
pub(super) mod merged;
pub(super) mod removed;
pub(super) mod trees;
pub(super) mod unedited;
pub(super) mod walk;

use std::sync::Arc;

use crate::artifact::Kind;
use crate::error::{Error, ErrorKind};
use crate::layer::Metadata;
use crate::staging::{Content, DataFile, Node, NodeKey};
use crate::view::overlay::Overlay;
use crate::view::overlay::bytes::file_handle::FileHandle;
use crate::view::overlay::names::edit::{Edit, check_name, check_new_name};
use crate::view::overlay::names::merged::{fault, not_a_directory, not_found};
use crate::view::overlay::plain::{NewNode, Replace};
use crate::view::{Context, Defaults, ViewNode};

/// The set-group-ID bit: new entries of the directory inherit its group.
const SET_GROUP: u32 = 0o2000;

fn exists() -> Error {
    fault(ErrorKind::Exists, "the name is taken")
}

impl Overlay {
    /// Creates a node. Exists if the name is taken, Invalid for names `.wh.*`.
    ///
    /// # Errors
    /// As `mkdir(2)` and `mknod(2)`; NoSpace and errors of the database.
    pub fn create(&self, context: &Context, directory: ViewNode, name: &[u8], new: &NewNode) -> Result<ViewNode, Error> {
        self.make(context, directory, name, new).map(|(node, _)| node)
    }

    /// Creates a regular file and opens it for writing.
    ///
    /// # Errors
    /// As [`Overlay::create`].
    pub async fn create_file(
        self: &Arc<Self>,
        context: &Context,
        directory: ViewNode,
        name: &[u8],
        new: &NewNode,
    ) -> Result<(ViewNode, Arc<FileHandle>), Error> {
        // Its bytes stay open until the writer has them.
        let (node, _bytes) = self.make(context, directory, name, new)?;
        Ok((node, self.open_writer(context, node, false).await?))
    }

    /// Creates a node; the new bytes of a regular file are open.
    fn make(&self, context: &Context, directory: ViewNode, name: &[u8], new: &NewNode) -> Result<(ViewNode, Option<DataFile>), Error> {
        check_new_name(name)?;
        let _names = self.names.lock();
        if self.merged().lookup(directory, name)?.is_some() {
            return Err(exists());
        }
        let bytes = if new.kind == Kind::File { Some(self.upper().new_data()?) } else { None };
        let content = bytes.as_ref().map_or(Content::None, |bytes| Content::Data(bytes.id()));
        let node = self.change(|edit| {
            let parent = edit.directory(directory)?;
            let node = new_row(new, content, &parent, directory, &context.defaults, edit.now);
            let key = edit.change.add_node(&node)?;
            edit.put_name(directory, name, key)?;
            edit.changed_names(directory, i32::from(new.kind == Kind::Directory))?;
            Ok(key)
        })?;
        Ok((node, bytes))
    }

    /// Removes a name (`is_directory`: rmdir; the directory must be empty).
    ///
    /// # Errors
    /// As `unlink(2)` and `rmdir(2)`.
    pub fn remove(&self, directory: ViewNode, name: &[u8], is_directory: bool) -> Result<(), Error> {
        check_name(name)?;
        let _names = self.names.lock();
        self.change(|edit| {
            edit.directory(directory)?;
            let key = edit.merged().lookup(directory, name)?.ok_or_else(not_found)?;
            let found = edit.merged().see(key)?.kind() == Kind::Directory;
            match (is_directory, found) {
                (true, false) => return Err(not_a_directory()),
                (false, true) => return Err(fault(ErrorKind::IsDirectory, "use rmdir to remove a directory")),
                (true, true) if !edit.merged().is_empty(key)? => return Err(not_empty()),
                _ => {}
            }
            edit.take_name(directory, name)?;
            edit.lose_name(key)?;
            edit.changed_names(directory, -i32::from(found))
        })
    }

    /// Renames, all in one transaction.
    ///
    /// # Errors
    /// As `renameat2(2)`.
    pub fn rename(&self, from: (ViewNode, &[u8]), to: (ViewNode, &[u8]), replace: Replace) -> Result<(), Error> {
        check_name(from.1)?;
        check_new_name(to.1)?;
        let _names = self.names.lock();
        self.change(|edit| {
            edit.directory(from.0)?;
            edit.directory(to.0)?;
            let moved = edit.merged().lookup(from.0, from.1)?.ok_or_else(not_found)?;
            let target = edit.merged().lookup(to.0, to.1)?;
            match (replace, target) {
                (Replace::No, Some(_)) => return Err(exists()),
                (Replace::Exchange, None) => return Err(not_found()),
                // Two names of one file, or the same name twice.
                (_, Some(target)) if target == moved => return Ok(()),
                _ => {}
            }
            let is_directory = edit.merged().see(moved)?.kind() == Kind::Directory;
            if is_directory {
                refuse_descendant(edit, to.0, moved)?;
            }
            match (replace, target) {
                (Replace::Exchange, Some(target)) => exchange(edit, from, to, (moved, is_directory), target),
                (_, target) => {
                    if let Some(target) = target {
                        make_way(edit, to.0, target, is_directory)?;
                    }
                    move_name(edit, from, to, moved, is_directory)
                }
            }
        })
    }

    /// Adds a name to a node that is not a directory.
    ///
    /// # Errors
    /// As `link(2)`.
    pub fn link(&self, node: ViewNode, directory: ViewNode, name: &[u8]) -> Result<(), Error> {
        check_new_name(name)?;
        let _names = self.names.lock();
        self.change(|edit| {
            edit.directory(directory)?;
            if edit.merged().lookup(directory, name)?.is_some() {
                return Err(exists());
            }
            let now = edit.now;
            let linked = edit.update(node, |node| {
                node.links = node.links.saturating_add(1);
                node.ctime = now;
            })?;
            if linked.kind == Kind::Directory {
                return Err(fault(ErrorKind::NotPermitted, "a directory cannot be hard-linked"));
            }
            if linked.links == 1 {
                return Err(not_found());
            }
            edit.put_name(directory, name, node)?;
            edit.changed_names(directory, 0)
        })
    }
}

fn not_empty() -> Error {
    fault(ErrorKind::NotEmpty, "the directory is not empty")
}

fn new_row(new: &NewNode, content: Content, parent: &Node, directory: NodeKey, defaults: &Defaults, now: (i64, u32)) -> Node {
    let is_directory = new.kind == Kind::Directory;
    let inherits = [defaults.dir_mode, parent.metadata.mode].into_iter().flatten().any(|mode| mode & SET_GROUP != 0);
    let inherited = parent.metadata.owner.map_or(defaults.gid, |owner| owner.1);
    let passed_on = if inherits && is_directory { SET_GROUP } else { 0 };
    Node {
        kind: new.kind,
        metadata: Metadata {
            mode: new.metadata.mode.map(|mode| mode & 0o7777 | passed_on),
            owner: new.metadata.owner.map(|(uid, gid)| (uid, if inherits { inherited } else { gid })),
            mtime: Some(now),
            device: new.metadata.device,
        },
        ctime: now,
        links: if is_directory { 2 } else { 1 },
        target: new.target.clone(),
        content,
        opaque: false,
        parent: if is_directory { directory } else { 0 },
    }
}

fn refuse_descendant(edit: &Edit<'_, '_>, directory: NodeKey, moved: NodeKey) -> Result<(), Error> {
    if edit.merged().is_within(directory, moved)? {
        return Err(fault(ErrorKind::Invalid, "a directory cannot be moved into itself"));
    }
    Ok(())
}

/// Removes the target that a rename replaces.
fn make_way(edit: &mut Edit<'_, '_>, directory: NodeKey, target: NodeKey, by_directory: bool) -> Result<(), Error> {
    let is_directory = edit.merged().see(target)?.kind() == Kind::Directory;
    match (by_directory, is_directory) {
        (true, false) => return Err(not_a_directory()),
        (false, true) => return Err(fault(ErrorKind::IsDirectory, "a file cannot replace a directory")),
        (true, true) if !edit.merged().is_empty(target)? => return Err(not_empty()),
        _ => {}
    }
    edit.lose_name(target)?;
    if is_directory {
        edit.changed_names(directory, -1)?;
    }
    Ok(())
}

/// Gives a node its new name and removes the old one.
fn move_name(
    edit: &mut Edit<'_, '_>,
    from: (NodeKey, &[u8]),
    to: (NodeKey, &[u8]),
    moved: NodeKey,
    is_directory: bool,
) -> Result<(), Error> {
    place(edit, moved, to.0, is_directory)?;
    edit.take_name(from.0, from.1)?;
    edit.put_name(to.0, to.1, moved)?;
    edit.changed_names(from.0, -i32::from(is_directory))?;
    edit.changed_names(to.0, i32::from(is_directory))
}

/// Swaps the targets of two names.
fn exchange(
    edit: &mut Edit<'_, '_>,
    from: (NodeKey, &[u8]),
    to: (NodeKey, &[u8]),
    moved: (NodeKey, bool),
    target: NodeKey,
) -> Result<(), Error> {
    let is_directory = edit.merged().see(target)?.kind() == Kind::Directory;
    if is_directory {
        refuse_descendant(edit, from.0, target)?;
    }
    place(edit, moved.0, to.0, moved.1)?;
    place(edit, target, from.0, is_directory)?;
    edit.put_name(from.0, from.1, target)?;
    edit.put_name(to.0, to.1, moved.0)?;
    let more = i32::from(moved.1) - i32::from(is_directory);
    edit.changed_names(from.0, -more)?;
    edit.changed_names(to.0, more)
}

/// Records in a node that it was moved into a directory.
fn place(edit: &mut Edit<'_, '_>, key: NodeKey, directory: NodeKey, is_directory: bool) -> Result<(), Error> {
    let now = edit.now;
    edit.update(key, |node| {
        node.ctime = now;
        if is_directory {
            node.parent = directory;
        }
    })?;
    Ok(())
}
