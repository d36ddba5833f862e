//! Input of a packer: entries, and how the layer is stored.

use crate::layer::{FileKind, Metadata};

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// One gzip member around a tar.
    GzipTar,
    /// A tar as it is.
    Tar,
    /// The bytes of one file, no archive: `begin` is called once, with a regular file.
    Raw,
}

/// One entry to be written; plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// Relative path as it shall stand in the index, without `./`; empty for the root directory.
    pub path: Vec<u8>,
    /// Kind; a hard link's `link` is the path of its target, which came before in the same layer.
    pub kind: FileKind,
    /// Attributes.
    pub metadata: Metadata,
    /// Bytes of a regular file; exactly so many must follow.
    pub size: u64,
    /// Target of a symlink or hard link.
    pub link: Vec<u8>,
    /// Extended attributes with their namespace, in order of their names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
