//! Verdicts on attached indexes: those encountered, and whether they match their blobs.

use crate::bounded::BoundedMap;
use crate::oci::Digest;

/// Most verdicts remembered.
const VERDICTS: usize = 1 << 16;

/// The verdict on an index for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is known against it.
    Fine,
    /// It could not be fetched or used just now.
    Missing,
    /// A span did not match.
    Distrusted,
    /// A span did not match, but its entries are the blob's.
    Harmless,
    /// A span did not match, and its entries are not the blob's.
    Lies,
}

/// A blob, and an index attached to it.
pub(super) type Attachment = (Digest, Digest);

/// The verdicts on all indexes encountered.
#[derive(Default)]
pub(super) struct Verdicts {
    /// A forgotten verdict is found on disk again if it was Distrusted.
    known: BoundedMap<Attachment, Verdict, VERDICTS>,
    /// Locked while an index is opened: few bytes may expand to many.
    pub(super) opening: tokio::sync::Mutex<()>,
}

impl Verdicts {
    pub(super) fn get(&self, key: &Attachment) -> Option<Verdict> {
        self.known.get(key)
    }

    pub(super) fn set(&self, key: Attachment, verdict: Verdict) {
        self.known.put(key, verdict);
    }

    /// Whether an index turned out wrong for its blob. Checks memory only.
    pub(super) fn is_distrusted(&self, key: &Attachment) -> bool {
        matches!(self.get(key), Some(Verdict::Distrusted | Verdict::Harmless | Verdict::Lies))
    }
}
