//! Verdicts on attached indexes: the ones that were met, and whether they were found to fit their blobs.

use crate::bounded::BoundedMap;
use crate::oci::Digest;

/// Most verdicts that are remembered.
const VERDICTS: usize = 1 << 16;

/// The verdict on one index for one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is known against it.
    Fine,
    /// It could not be fetched or used just now.
    Missing,
    /// A span did not match.
    Distrusted,
    /// A span did not match, but its entries are those of the blob.
    Harmless,
    /// A span did not match, and its entries are not those of the blob.
    Lies,
}

/// The verdicts on the indexes that were met.
#[derive(Default)]
pub(super) struct Verdicts {
    /// What is forgotten is found on disk again, if it was distrusted.
    known: BoundedMap<Digest, Verdict, VERDICTS>,
    /// Held while an index is opened: few bytes may become many.
    pub(super) opening: tokio::sync::Mutex<()>,
}

impl Verdicts {
    pub(super) fn get(&self, key: &Digest) -> Option<Verdict> {
        self.known.get(key)
    }

    pub(super) fn set(&self, key: Digest, verdict: Verdict) {
        self.known.put(key, verdict);
    }

    /// Whether a stream was read by an index that turned out wrong. Looks into memory only.
    pub(super) fn is_distrusted(&self, key: &Digest) -> bool {
        matches!(self.get(key), Some(Verdict::Distrusted | Verdict::Harmless | Verdict::Lies))
    }
}
