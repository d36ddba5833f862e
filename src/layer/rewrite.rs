//! Copies an index with another header: for another blob, or without warnings. Entries and spans stay the same.

use zerocopy::{FromBytes, IntoBytes};

use super::LayerIndex;
use super::build::assemble;
use super::format::Header;
use crate::error::Error;
use crate::oci::Digest;
use crate::sys::array::Scratch;

impl LayerIndex {
    /// The same index, on the heap, for another blob with the same content: an encrypted layer, whose digest is that of the stored blob while everything else
    /// describes its content.
    ///
    /// # Errors
    /// None that a valid index can cause.
    pub fn of_blob(&self, digest: Digest) -> Result<Self, Error> {
        self.copy(digest, true, &Scratch::memory())
    }

    /// The same index without its warnings, which concern a pass rather than the layer.
    pub(super) fn without_warnings(&self, scratch: &Scratch) -> Result<Self, Error> {
        if self.layout.sections.warnings.len() == 0 { Ok(self.clone()) } else { self.copy(self.blob_digest(), false, scratch) }
    }

    fn copy(&self, digest: Digest, with_warnings: bool, scratch: &Scratch) -> Result<Self, Error> {
        let (bytes, sections) = (self.as_bytes(), &self.layout.sections);
        let (mut warnings, mut strings) = (sections.warnings.of(bytes), sections.strings.of(bytes));
        if let Some(first) = warnings.first().filter(|_| !with_warnings) {
            // Their texts are the last strings.
            strings = strings.get(..usize::try_from(first.text.get()).unwrap_or(usize::MAX)).unwrap_or_default();
            warnings = &[];
        }
        let mut header = Header::read_from_prefix(bytes).map_err(|_| Error::other(format!("the index of {digest} cannot be copied")))?.0;
        header.set_digest(&digest);
        (header.warnings, header.strings) = ((warnings.len() as u32).into(), (strings.len() as u64).into());
        let sections = [
            sections.entries.of(bytes).as_bytes(),
            sections.spans.of(bytes).as_bytes(),
            sections.extents.of(bytes).as_bytes(),
            sections.xattrs.of(bytes).as_bytes(),
            warnings.as_bytes(),
            sections.windows.of(bytes),
            strings,
        ];
        assemble(header, sections.map(|section| Box::new(section) as Box<dyn AsRef<[u8]> + '_>), scratch)
    }
}
