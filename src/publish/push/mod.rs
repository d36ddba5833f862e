//! From layers and manifests to a tag in the registry: `upload` sends blobs, `deliver` everything except the tag, `tag` moves the tag, and
//! `join_cache` caches the sent layers.

pub(super) mod deliver;
pub(super) mod join_cache;
pub(super) mod tag;
pub(super) mod upload;
