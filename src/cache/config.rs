//! Where the cache lies, how large it may grow, and how its bytes are protected.

use std::path::PathBuf;

use crate::seal::ChunkKey;

/// Where the cache lies and how large it may grow.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; made with mode 0700.
    pub directory: PathBuf,
    /// Most bytes of spans and documents over all daemons that share the directory.
    pub size: u64,
    /// Bytes of the file system that are left free.
    pub min_free: u64,
}

/// How stored bytes are protected.
#[derive(Clone)]
pub enum Protection {
    /// As they are.
    Plain,
    /// Sealed again chunk by chunk, since they come from an encrypted artifact.
    Sealed(ChunkKey),
}
