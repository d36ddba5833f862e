//! Attributes as the mount shows them: from the archive, else defaults, with the user's overrides.

use crate::artifact::{Kind, Node, UNDATED};

/// Attributes of one node, without its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Kind.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Link count. 1 for a directory whose subdirectories are not counted.
    pub links: u32,
    /// Modification time: seconds since the epoch (may be negative) and nanoseconds.
    pub time: (i64, u32),
    /// Access time, if one was set explicitly.
    pub atime: (i64, u32),
    /// Change time.
    pub ctime: (i64, u32),
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// Defaults for attributes missing from an archive, and the user's overrides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The mounting user.
    pub uid: u32,
    /// The mounting user's group.
    pub gid: u32,
    /// Start of the mount: seconds and nanoseconds. The time of directories that belong to no artifact.
    pub time: (i64, u32),
    /// `--uid`: owner of everything.
    pub force_uid: Option<u32>,
    /// `--gid`: group of everything.
    pub force_gid: Option<u32>,
    /// `--file-mode`: permission bits of every regular file.
    pub file_mode: Option<u32>,
    /// `--dir-mode`: permission bits of every directory.
    pub dir_mode: Option<u32>,
}

impl Defaults {
    /// Attributes of a tree node.
    pub fn of_node(&self, node: &Node) -> Attributes {
        let (uid, gid) = node.metadata.owner.unwrap_or((self.uid, self.gid));
        let forced = match node.kind {
            Kind::Directory => self.dir_mode,
            Kind::File => self.file_mode,
            _ => None,
        };
        let mode = forced.unwrap_or_else(|| node.metadata.mode_or_default(node.kind));
        let time = node.metadata.mtime.unwrap_or(UNDATED);
        Attributes {
            kind: node.kind,
            mode: mode & 0o7777,
            uid: self.force_uid.unwrap_or(uid),
            gid: self.force_gid.unwrap_or(gid),
            size: node.size,
            links: node.links.max(1),
            time,
            atime: time,
            ctime: time,
            blocks: node.blocks,
            device: node.metadata.device,
        }
    }

    /// Attributes of a directory that comes from no archive.
    pub fn directory(&self) -> Attributes {
        self.made(Kind::Directory, self.dir_mode.unwrap_or(0o755), 0)
    }

    /// Attributes of a directory private to the mounting user, whatever the overrides.
    pub fn private_directory(&self) -> Attributes {
        Attributes { uid: self.uid, gid: self.gid, mode: 0o700, ..self.directory() }
    }

    /// Attributes of a read-only file that comes from no archive.
    pub fn file(&self, size: u64) -> Attributes {
        self.made(Kind::File, 0o444, size)
    }

    /// Attributes of a symlink that comes from no archive.
    pub fn symlink(&self, target: &str) -> Attributes {
        self.made(Kind::Symlink, 0o777, target.len() as u64)
    }

    fn made(&self, kind: Kind, mode: u32, size: u64) -> Attributes {
        Attributes {
            kind,
            mode: mode & 0o7777,
            uid: self.force_uid.unwrap_or(self.uid),
            gid: self.force_gid.unwrap_or(self.gid),
            size,
            links: 1,
            time: self.time,
            atime: self.time,
            ctime: self.time,
            blocks: size.div_ceil(512),
            device: (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Metadata;

    const DEFAULTS: Defaults =
        Defaults { uid: 1000, gid: 1001, time: (7, 0), force_uid: None, force_gid: None, file_mode: None, dir_mode: None };

    fn node(kind: Kind) -> Node {
        Node { kind, metadata: Metadata::default(), size: 5, blocks: 1, links: 1 }
    }

    #[test]
    fn attributes_that_an_archive_lacks_default_to_the_mounting_user() {
        let shown = DEFAULTS.of_node(&node(Kind::File));
        assert_eq!(
            (shown.mode, shown.uid, shown.gid, shown.time),
            (0o644, 1000, 1001, UNDATED),
            "the start of the mount would change with every mount"
        );
        assert_eq!(DEFAULTS.of_node(&node(Kind::Directory)).mode, 0o755);
    }

    #[test]
    fn archived_attributes_are_shown() {
        let metadata = Metadata { mode: Some(0o4750), owner: Some((0, 42)), mtime: Some((-1, 5)), device: (0, 0) };
        let archived = Node { metadata, ..node(Kind::File) };
        let shown = DEFAULTS.of_node(&archived);
        assert_eq!((shown.mode, shown.uid, shown.gid, shown.time), (0o4750, 0, 42, (-1, 5)));
    }

    #[test]
    fn overrides_of_the_user_win_over_the_archive() {
        let defaults = Defaults { force_uid: Some(5), force_gid: Some(6), file_mode: Some(0o600), dir_mode: Some(0o700), ..DEFAULTS };
        let metadata = Metadata { mode: Some(0o777), owner: Some((0, 0)), ..Metadata::default() };
        let archived = Node { metadata, ..node(Kind::File) };
        let shown = defaults.of_node(&archived);
        assert_eq!((shown.mode, shown.uid, shown.gid), (0o600, 5, 6));
        assert_eq!(defaults.directory().mode, 0o700);
    }
}
