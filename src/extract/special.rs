//! Nodes without bytes: links, pipes, sockets and devices.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::directory::Directory;
use super::of_disk;
use super::place::{Placed, place};
use super::run::Work;
use crate::artifact::{Kind, Node, NodeId};
use crate::error::Error;
use crate::sys::entry;

impl Work<'_> {
    /// Creates a link, pipe, socket or device.
    pub(super) fn without_bytes(&self, directory: &Directory, name: &[u8], id: NodeId, node: &Node) -> Result<(), Error> {
        let name = OsStr::from_bytes(name);
        let shown = || directory.join(name).display().to_string();
        let failed = |error: io::Error| of_disk(format_args!("make {}", shown()), error);
        let (major, minor) = node.metadata.device;
        let special = match node.kind {
            Kind::CharDevice | Kind::BlockDevice if !self.same_owner() => {
                self.notes.note(|summary| summary.devices.add(shown));
                return Ok(());
            }
            Kind::CharDevice => Some(entry::Special::Character(major, minor)),
            Kind::BlockDevice => Some(entry::Special::Block(major, minor)),
            Kind::Fifo => Some(entry::Special::Fifo),
            Kind::Socket => Some(entry::Special::Socket),
            Kind::File | Kind::Directory | Kind::Symlink => None,
        };
        let target = self.source.artifact.tree.target(id).unwrap_or_default();
        let file = &directory.file;
        let placed = place(file, name, self.keep(), &|name| {
            match special {
                Some(special) => entry::make_special(file, name, special, self.mode(node))?,
                None => entry::symlink(file, name, OsStr::from_bytes(target))?,
            }
            self.describe_name(file, name, id, node, &shown)
        });
        match placed {
            Ok(Placed::Kept) => self.note_kept(id, node, &shown),
            _ => self.notes.note(|summary| summary.others += 1),
        }
        placed.map(drop).map_err(failed)
    }
}
