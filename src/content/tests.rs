//! Blobs of a registry in memory, read through a cache in a temporary directory.
