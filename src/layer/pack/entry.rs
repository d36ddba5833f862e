//! Input of a packer: entries, and how to store the layer.

use crate::layer::{FileKind, Metadata, Xattrs};

/// How to store a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// One gzip member around a tar.
    GzipTar,
    /// An uncompressed tar.
    Tar,
    /// The bytes of a single file without an archive: `begin` is called once, with a regular file.
    Raw,
}

/// An entry to write; plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// Relative path as in the index, without `./`; empty for the root directory.
    pub path: Vec<u8>,
    /// Kind; a hard link's `link` is the path of its target, earlier in the same layer.
    pub kind: FileKind,
    /// Attributes; what is missing is archived as zero.
    pub metadata: Metadata,
    /// Size of a regular file; exactly this many bytes must follow.
    pub size: u64,
    /// Target of a symlink or hard link.
    pub link: Vec<u8>,
    /// Namespaced extended attributes, sorted by name.
    pub xattrs: Xattrs,
}
