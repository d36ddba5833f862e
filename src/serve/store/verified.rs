//! Files whose digest was verified since the server started.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::bounded::BoundedMap;
use crate::oci::Digest;

/// Most entries.
const KEPT: usize = 100_000;

/// Device, inode, time and size: identify a file that was verified. Adding a hard link does not change it.
pub(super) type Stamp = (u64, u64, i64, i64, u64);

/// The stamp of a file.
pub(super) fn stamp(file: &File) -> Option<Stamp> {
    let metadata = file.metadata().ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()))
}

/// Verified files. Clones share state.
#[derive(Clone, Default)]
pub(crate) struct Verified(Arc<BoundedMap<Digest, Stamp, KEPT>>);

impl Verified {
    /// Whether the file with this stamp was verified.
    pub(super) fn holds(&self, digest: &Digest, stamp: Option<Stamp>) -> bool {
        stamp.is_some() && self.0.get(digest) == stamp
    }

    /// Records that it was verified.
    pub(super) fn note(&self, digest: Digest, stamp: Option<Stamp>) {
        if let Some(stamp) = stamp {
            self.0.put(digest, stamp);
        }
    }
}
