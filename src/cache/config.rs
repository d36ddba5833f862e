//! Location and size of the cache, and protection of its bytes.

use std::path::PathBuf;

use crate::seal::ChunkKey;

/// Location and size of the cache.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; created with mode 0700.
    pub directory: PathBuf,
    /// Maximum bytes of spans and documents over all daemons that share the directory.
    pub size: u64,
    /// Bytes to leave free on the file system.
    pub min_free: u64,
}

/// How stored bytes are protected.
#[derive(Clone)]
pub enum Protection {
    /// Unsealed.
    Plain,
    /// Sealed chunk by chunk, since they come from an encrypted artifact.
    Sealed(ChunkKey),
}
