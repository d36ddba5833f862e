//! What lets a blob be listed, and read by ranges, before all of it was read once.

use crate::oci::{Descriptor, Digest};

/// The guide to a blob. Every span read by it is verified by its digest in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guide {
    /// An index of the blob, in a blob of its own that the manifest names.
    Index(Descriptor),
    /// An index that only a referrer of the manifest names: its entries are what its author says (`--trust-index referrer`).
    Referred(Descriptor),
}

impl Guide {
    /// The blob that holds the index.
    pub fn index(&self) -> &Descriptor {
        match self {
            Self::Index(index) | Self::Referred(index) => index,
        }
    }

    /// Identifies its content: content read by different guides is cached apart.
    pub fn key(&self) -> Digest {
        self.index().digest
    }

    /// Whether the manifest does not vouch for it.
    pub fn is_referred(&self) -> bool {
        matches!(self, Self::Referred(_))
    }
}
