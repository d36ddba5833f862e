//! From layers and manifests to a tag of the registry: `upload` sends blobs, `deliver` everything but the tag, `tag` moves the tag, and
//! `join_cache` caches the layers that were sent.

pub(super) mod deliver;
pub(super) mod join_cache;
pub(super) mod tag;
pub(super) mod upload;
