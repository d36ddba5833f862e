//! Copies an index with another header: for another blob, or without warnings. Entries and spans stay the same.

use super::LayerIndex;
use super::build::{Blob, header, sealed, unkept};
use super::format::{self, Counts, Sections, record};
use crate::error::Error;
use crate::oci::Digest;
use crate::sys::array::{Array, Scratch};

impl LayerIndex {
    /// The same index, on the heap, for another blob with the same content: an encrypted layer, whose digest is that of the stored blob while everything else
    /// describes its content.
    ///
    /// # Errors
    /// None that a valid index can cause.
    pub fn of_blob(&self, digest: Digest) -> Result<Self, Error> {
        copy(self, digest, self.layout.counts, &Scratch::memory())
    }

    /// The same index without its warnings, which concern a pass rather than the layer.
    pub(super) fn without_warnings(&self, scratch: &Scratch) -> Result<Self, Error> {
        let mut counts = self.layout.counts;
        if counts.warnings == 0 {
            return Ok(self.clone());
        }
        // Their texts are the last strings.
        let first = record(self.as_bytes(), self.layout.sections.warnings, format::WARNING, 0);
        (counts.warnings, counts.strings) = (0, first.u64(0));
        copy(self, self.blob_digest(), counts, scratch)
    }
}

/// `counts` may drop records at the end of their sections.
fn copy(index: &LayerIndex, digest: Digest, counts: Counts, scratch: &Scratch) -> Result<LayerIndex, Error> {
    let blob = Blob {
        digest,
        stream_length: index.stream_length(),
        blob_length: index.blob_length(),
        codec: index.codec(),
        is_archive: index.is_archive(),
        of_content: index.is_of_content(),
    };
    let impossible = || Error::other(format!("the index of {digest} cannot be copied"));
    let (old, new) = (index.layout.sections, Sections::of(&counts).ok_or_else(impossible)?);
    let mut bytes = Array::new(scratch);
    bytes.extend_from_slice(&header(&blob, &counts, new.end as u64).0).map_err(unkept)?;
    let kept = [
        (old.entries, new.warnings - new.entries),
        (old.warnings, new.windows - new.warnings),
        (old.windows, new.strings - new.windows),
        (old.strings, new.end - new.strings),
    ];
    for (start, length) in kept {
        let section = index.as_bytes().get(start..).and_then(|rest| rest.get(..length)).ok_or_else(impossible)?;
        bytes.extend_from_slice(section).map_err(unkept)?;
    }
    sealed(bytes)
}
