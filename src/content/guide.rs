//! Guides to a blob: they let it be listed, and read by ranges, before all of it was read once.

use crate::layer::Table;
use crate::oci::{Descriptor, Digest};

/// The guide to a blob. Every span read by it is verified by its digest in it, so what is read is what the author of the guide says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guide {
    /// An index of the blob, in a blob of its own that the manifest names.
    Index(Descriptor),
    /// An index that only a referrer of the manifest names (`--trust-index referrer`).
    Referred(Descriptor),
    /// The table of contents inside the blob, whose digest the manifest names. Its stream is not that of the archive.
    Table(Table),
}

impl Guide {
    /// The blob that holds the index.
    pub fn index(&self) -> Option<&Descriptor> {
        match self {
            Self::Index(index) | Self::Referred(index) => Some(index),
            Self::Table(_) => None,
        }
    }

    /// Identifies its content: content read by different guides is cached apart.
    pub fn key(&self) -> Digest {
        match self {
            Self::Index(index) | Self::Referred(index) => index.digest,
            Self::Table(table) => table.key(),
        }
    }

    /// Whether it is a table of contents.
    pub fn is_table(&self) -> bool {
        matches!(self, Self::Table(_))
    }

    /// Its kind in messages.
    pub(super) fn name(&self) -> &'static str {
        if self.is_table() { "table of contents" } else { "attached index" }
    }

    /// Whether the manifest does not vouch for it.
    pub fn is_referred(&self) -> bool {
        matches!(self, Self::Referred(_))
    }
}
