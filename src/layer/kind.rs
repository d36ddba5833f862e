//! Kinds of layer entries and tree nodes, and their numbers in stored bytes and digests. Plain data.

/// Kind of an entry, as archived; whiteouts are still ordinary names here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symlink; the target is data.
    Symlink,
    /// A further name of another entry, by path.
    HardLink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// The number of the kind in index bytes and in digests of layer content. Never changes.
    pub fn code(self) -> u8 {
        match self {
            Self::File => 0,
            Self::Directory => 1,
            Self::Symlink => 2,
            Self::HardLink => 3,
            Self::CharDevice => 4,
            Self::BlockDevice => 5,
            Self::Fifo => 6,
            Self::Socket => 7,
        }
    }

    /// The kind with a number in index bytes.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::File,
            1 => Self::Directory,
            2 => Self::Symlink,
            3 => Self::HardLink,
            4 => Self::CharDevice,
            5 => Self::BlockDevice,
            6 => Self::Fifo,
            7 => Self::Socket,
            _ => return None,
        })
    }

    /// Whether entries of this kind may have content in the stream. A hard link may carry its target's.
    pub(super) fn has_content(self) -> bool {
        matches!(self, Self::File | Self::HardLink)
    }
}

/// Kind of a tree node, as for an inode. Hard links are names, not nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symlink.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl NodeKind {
    /// Whether it is a device, with a major and a minor number.
    pub fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }

    /// The name of the kind in JSON. Never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::CharDevice => "char-device",
            Self::BlockDevice => "block-device",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
        }
    }

    /// The number of the kind in tree files, and in digests of trees. Never changes.
    pub fn code(self) -> u8 {
        match self {
            Self::File => 0,
            Self::Directory => 1,
            Self::Symlink => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
        }
    }

    /// The kind with a number in tree files.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::File,
            1 => Self::Directory,
            2 => Self::Symlink,
            3 => Self::CharDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            _ => return None,
        })
    }
}
