//! The attributes of a node (mode, owner, time, xattrs), and writing them to disk.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::run::Work;
use crate::artifact::{Kind, Node, NodeId, UNDATED, is_own_name};
use crate::sys::entry;

impl Work<'_> {
    /// Permission bits as shown by the mount; set-id and sticky bits only with `same_owner`.
    pub fn mode(&self, node: &Node) -> u32 {
        let mode = node.metadata.mode_or_default(node.kind) & 0o7777;
        if self.same_owner() { mode } else { mode & 0o777 & !self.umask }
    }

    /// The mode to create a file with: never more permissive than the final one.
    pub fn first_mode(&self, id: NodeId, node: &Node) -> u32 {
        let mode = self.mode(node);
        match self.same_owner() || self.wanted_xattrs(id).next().is_some() {
            true => 0o600,
            false => mode,
        }
    }

    /// The modification time shown by the mount.
    pub fn time(&self, node: &Node) -> (i64, u32) {
        node.metadata.mtime.unwrap_or(UNDATED)
    }

    /// The extended attributes to set.
    pub fn wanted_xattrs(&self, id: NodeId) -> impl Iterator<Item = (&[u8], &[u8])> {
        let all = self.source.artifact.tree.xattrs(id).into_iter();
        all.filter(|(name, _)| !is_own_name(name) && (self.same_owner() || name.starts_with(b"user.")))
    }

    /// Sets all attributes of an open file, its time last, since every other change updates that.
    pub(super) fn describe_file(&self, file: &File, id: NodeId, node: &Node, shown: &dyn Fn() -> String) -> io::Result<()> {
        if let Some(owner) = node.metadata.owner.filter(|_| self.same_owner()) {
            entry::set_owner(file, owner)?;
        }
        self.xattrs(id, shown, &|name, value| entry::set_xattr(file, name, value));
        let mode = self.mode(node);
        if file.metadata()?.mode() & 0o7777 != mode {
            entry::set_mode(file, mode)?;
        }
        entry::set_time(file, self.time(node))
    }

    /// Sets extended attributes; notes those that cannot be set.
    pub(super) fn xattrs(&self, id: NodeId, shown: &dyn Fn() -> String, set: &dyn Fn(&OsStr, &[u8]) -> io::Result<()>) {
        for (name, value) in self.wanted_xattrs(id) {
            if let Err(error) = set(OsStr::from_bytes(name), value) {
                let name = String::from_utf8_lossy(name);
                self.notes.note(|summary| summary.attributes.add(|| format!("{name} of {}: {error}", shown())));
            }
        }
    }

    /// Sets all attributes of a node without bytes, by name.
    pub(super) fn describe_name(
        &self,
        directory: &File,
        name: &OsStr,
        id: NodeId,
        node: &Node,
        shown: &dyn Fn() -> String,
    ) -> io::Result<()> {
        if let Some(owner) = node.metadata.owner.filter(|_| self.same_owner()) {
            entry::set_owner_of_name(directory, name, owner)?;
        }
        self.xattrs(id, shown, &|attribute, value| entry::set_xattr_of_name(directory, name, attribute, value));
        if node.kind != Kind::Symlink && self.same_owner() {
            entry::set_mode_of_special(directory, name, self.mode(node))?;
        }
        entry::set_time_of_name(directory, name, self.time(node))
    }
}
