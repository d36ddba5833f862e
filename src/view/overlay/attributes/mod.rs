//! Attributes and extended attributes of an edited tag: shown, set, removed.
//!
//! Extended attributes are stored as given, for every user: `user.*`, `security.*` and `trusted.*`. Access control lists
//! (`system.*`) are refused as unsupported, since ocifs would not enforce them; those of an archive are shown and kept. The names
//! that ocifs provides itself (`user.oci.*`, `user.ocifs.*`) cannot be set.

pub(super) mod access_times;
mod cached;

use std::sync::Arc;

use crate::artifact::{self, Kind, is_own_name};
use crate::error::{Error, ErrorKind};
use crate::layer::Metadata;
use crate::staging::{Content, Node};
use crate::view::overlay::Overlay;
use crate::view::overlay::bytes::file_handle::FileHandle;
use crate::view::overlay::names::merged::{Seen, without_own};
use crate::view::overlay::plain::SetAttributes;
use crate::view::{Attributes, Context, ViewNode};

/// Longest value in bytes, the kernel's limit.
const LONGEST_VALUE: usize = 64 << 10;

impl Overlay {
    /// Attributes.
    ///
    /// # Errors
    /// Gone for a node that does not exist.
    pub fn attributes(&self, context: &Context, node: ViewNode) -> Result<Attributes, Error> {
        let defaults = &context.defaults;
        let mut shown = match self.see_or_removed(node)? {
            Seen::Lower(_, lower) => defaults.of_node(&lower),
            Seen::Row(row) => {
                let (size, staged) = match &row.content {
                    Content::Data(id) => {
                        let data = self.upper().rows().data_attributes(*id)?;
                        (data.size, Some(data))
                    }
                    Content::Tree(tree) if row.kind == Kind::File => (tree.size, None),
                    _ => (row.target.len() as u64, None),
                };
                let mtime = staged.map_or(row.metadata.mtime, |data| Some(data.mtime));
                let mut shown = defaults.of_node(&as_archived(&row, size, mtime));
                shown.links = row.links;
                shown.ctime = staged.map_or(row.ctime, |data| row.ctime.max(data.ctime));
                if let Some(data) = staged {
                    shown.blocks = data.blocks;
                }
                if row.ctime == (0, 0) {
                    shown.ctime = shown.time;
                }
                shown
            }
        };
        if let Some(time) = self.access_times.get(node) {
            shown.atime = time;
        }
        Ok(shown)
    }

    /// Target of a symlink.
    ///
    /// # Errors
    /// Invalid unless it is a symlink.
    pub fn target(&self, node: ViewNode) -> Result<Vec<u8>, Error> {
        let seen = self.merged().see(node)?;
        if seen.kind() != Kind::Symlink {
            return Err(Error::new(ErrorKind::Invalid, "not a symbolic link"));
        }
        Ok(match seen {
            Seen::Row(row) => row.target,
            Seen::Lower(id, _) => self.base.tree().and_then(|tree| tree.target(id)).map(<[u8]>::to_vec).unwrap_or_default(),
        })
    }

    /// Sets attributes. Nothing is copied.
    ///
    /// # Errors
    /// IsDirectory or Invalid when setting the length of anything but a regular file; NoSpace and errors of the disk.
    pub async fn set_attributes(self: &Arc<Self>, context: &Context, node: ViewNode, set: SetAttributes) -> Result<(), Error> {
        if let Some(atime) = set.atime {
            self.access_times.set(node, atime);
        }
        let seen = match self.merged().see(node) {
            Ok(seen) => seen,
            // The kernel writes times back late; for a removed node there is nothing to store.
            Err(error) if error.kind == ErrorKind::Gone && set.size.is_none() && self.removed.get(node).is_some() => return Ok(()),
            Err(error) => return Err(error),
        };
        // Times written back late do not make a tag dirty that was published meanwhile.
        if !self.upper().is_edited() && self.changes_nothing(context, node, &set)? {
            return Ok(());
        }
        if let Some(size) = set.size {
            self.set_length(node, seen.kind(), size).await?;
        }
        let is_staged = matches!(&seen, Seen::Row(Node { content: Content::Data(_), .. }));
        if let Some(mtime) = set.mtime.filter(|_| is_staged || set.size.is_some()) {
            let is_kept = FileHandle::new(self.hold(node)?, false).set_mtime(mtime).await?;
            // Staged bytes carry their own times: the kernel's updates after each write need no transaction.
            if is_kept && (set.mode, set.uid, set.gid) == (None, None, None) {
                return Ok(());
            }
        }
        let owner = (context.defaults.uid, context.defaults.gid);
        self.change(|edit| {
            let now = edit.now;
            edit.update(node, |row| {
                set.apply(&mut row.metadata, owner);
                row.ctime = now;
            })
        })?;
        Ok(())
    }

    async fn set_length(self: &Arc<Self>, node: ViewNode, kind: Kind, size: u64) -> Result<(), Error> {
        match kind {
            Kind::File => FileHandle::new(self.hold(node)?, true).set_length(size).await,
            Kind::Directory => Err(Error::new(ErrorKind::IsDirectory, "the length of a directory cannot be set")),
            _ => Err(Error::new(ErrorKind::Invalid, "only the length of a regular file can be set")),
        }
    }

    /// A node, or a recently removed one.
    fn see_or_removed(&self, node: ViewNode) -> Result<Seen, Error> {
        match self.merged().see(node) {
            Err(error) if error.kind == ErrorKind::Gone => self.removed.get(node).map(Seen::Row).ok_or(error),
            other => other,
        }
    }

    /// Whether the attributes already have these values.
    fn changes_nothing(&self, context: &Context, node: ViewNode, set: &SetAttributes) -> Result<bool, Error> {
        let shown = self.attributes(context, node)?;
        Ok(set.size.is_none()
            && set.mode.is_none_or(|mode| mode & 0o7777 == shown.mode)
            && set.uid.is_none_or(|uid| uid == shown.uid)
            && set.gid.is_none_or(|gid| gid == shown.gid)
            && set.mtime.is_none_or(|mtime| mtime == shown.time))
    }

    /// An extended attribute; ocifs's own names (`user.oci.*`, `user.ocifs.*`) are not handled here.
    ///
    /// # Errors
    /// Gone for a node that does not exist.
    pub fn xattr(&self, node: ViewNode, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if is_own_name(name) {
            return Ok(None);
        }
        let xattrs = self.merged().xattrs(node)?;
        Ok(xattrs.into_iter().find(|(other, _)| other == name).map(|(_, value)| value))
    }

    /// Names of extended attributes.
    ///
    /// # Errors
    /// Gone for a node that does not exist.
    pub fn xattr_names(&self, node: ViewNode) -> Result<Vec<Vec<u8>>, Error> {
        Ok(without_own(self.merged().xattrs(node)?).into_iter().map(|(name, _)| name).collect())
    }

    /// Sets an extended attribute; `create`/`replace` as XATTR_CREATE and XATTR_REPLACE. NotPermitted for ocifs's own names.
    ///
    /// # Errors
    /// As `setxattr(2)`; Unsupported for `system.*` and names without a known prefix.
    pub fn set_xattr(&self, node: ViewNode, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<(), Error> {
        check_xattr_name(name)?;
        if value.len() > LONGEST_VALUE {
            return Err(Error::new(ErrorKind::TooLong, "an extended attribute has at most 64 KiB"));
        }
        self.change(|edit| {
            let is_set = edit.merged().xattrs(node)?.iter().any(|(other, _)| other == name);
            if create && is_set {
                return Err(crate::view::overlay::names::merged::fault(ErrorKind::Exists, "the extended attribute exists already"));
            }
            if replace && !is_set {
                return Err(crate::view::overlay::names::merged::fault(ErrorKind::NoAttribute, "there is no such extended attribute"));
            }
            let now = edit.now;
            edit.update(node, |row| row.ctime = now)?;
            edit.change.put_xattr(node, name, Some(value))
        })
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As `removexattr(2)`.
    pub fn remove_xattr(&self, node: ViewNode, name: &[u8]) -> Result<(), Error> {
        check_xattr_name(name)?;
        self.change(|edit| {
            if !edit.merged().xattrs(node)?.iter().any(|(other, _)| other == name) {
                return Err(crate::view::overlay::names::merged::fault(ErrorKind::NoAttribute, "there is no such extended attribute"));
            }
            let now = edit.now;
            edit.update(node, |row| row.ctime = now)?;
            edit.change.put_xattr(node, name, None)
        })
    }
}

fn check_xattr_name(name: &[u8]) -> Result<(), Error> {
    if is_own_name(name) {
        return Err(Error::new(ErrorKind::NotPermitted, "extended attributes user.oci.* and user.ocifs.* are read-only"));
    }
    if name.len() > 255 {
        return Err(Error::new(ErrorKind::TooLong, "the name of an extended attribute has at most 255 bytes"));
    }
    let known = [&b"user."[..], b"security.", b"trusted."].iter().any(|prefix| name.starts_with(prefix) && name.len() > prefix.len());
    if known { Ok(()) } else { Err(Error::new(ErrorKind::Unsupported, "extended attributes of this kind cannot be stored")) }
}

/// A row in the form of a tree node's attributes.
fn as_archived(row: &Node, size: u64, mtime: Option<(i64, u32)>) -> artifact::Node {
    let blocks = size.div_ceil(512);
    artifact::Node { kind: row.kind, metadata: Metadata { mtime, ..row.metadata }, size, blocks, links: row.links }
}
