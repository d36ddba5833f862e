//! Cache names of everything derived from a blob.
//!
//! A blob has one stream per form (unpacked, raw) and sealing, each with its own cache key. Content read through an attached index is another stream.
//! The keys are pure functions of the descriptor.

use super::{BlobSource, Sealing};
use crate::layer::Form;
use crate::oci::Digest;

/// Document kind of indexes.
pub(super) const INDEX: &str = "index";
/// Document kind of envelope headers with a verified tag.
pub(super) const ENVELOPE: &str = "envelope";

/// The cache keys of all streams that may come from a blob; pinning an artifact pins all of them.
pub fn stream_keys(source: &BlobSource) -> Vec<Digest> {
    let blob = &source.descriptor;
    let mut keys = Vec::new();
    keys.extend(source.guide.as_ref().map(|guide| attached(&blob.digest, &guide.key())));
    for form in [Form::Archive, Form::Raw] {
        for sealing in [Sealing::None, Sealing::OciSync] {
            keys.push(stream(&blob.digest, form, sealing));
        }
    }
    keys
}

/// The stream of a blob. That of a raw blob may hold unproved spans; those of archives do not.
pub(super) fn stream(blob: &Digest, form: Form, sealing: Sealing) -> Digest {
    match (form, sealing) {
        (Form::Archive, Sealing::None) => *blob,
        _ => Digest::of(format!("{blob} {}", suffix(form, sealing)).as_bytes()),
    }
}

/// The document with the index of a verified blob.
pub(super) fn index(source: &BlobSource) -> String {
    index_of(&source.descriptor.digest, source.form, source.sealing)
}

/// The same, from its parts.
pub(super) fn index_of(blob: &Digest, form: Form, sealing: Sealing) -> String {
    format!("{}.{}", blob.path_name(), suffix(form, sealing))
}

/// The stream of a blob read through an attached index. An artifact that names another index, or none, never reads content stored through this one.
pub(super) fn attached(blob: &Digest, index: &Digest) -> Digest {
    Digest::of(format!("{blob} by {index}").as_bytes())
}

/// The document with a blob's attached index.
pub(super) fn attached_index_name(blob: &Digest, index: &Digest) -> String {
    format!("{}.by-{}", blob.path_name(), index.path_name())
}

/// The document that marks such an index as unusable.
pub(super) fn distrusted(blob: &Digest, index: &Digest) -> String {
    format!("{}.not-by-{}", blob.path_name(), index.path_name())
}

/// The document with a blob's envelope header.
pub(super) fn envelope(blob: &Digest) -> String {
    blob.path_name()
}

fn suffix(form: Form, sealing: Sealing) -> &'static str {
    match (form, sealing) {
        (Form::Archive, Sealing::None) => "archive",
        (Form::Raw, Sealing::None) => "raw",
        (Form::Archive, Sealing::OciSync) => "oci-sync-archive",
        (Form::Raw, Sealing::OciSync) => "oci-sync-raw",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Guide;
    use crate::oci::Descriptor;

    #[test]
    fn each_form_sealing_and_attached_index_of_a_blob_has_its_own_stream() {
        let source = |data: &[u8], index: Option<&[u8]>| BlobSource {
            repository: crate::oci::Repository::parse("a").unwrap(),
            descriptor: Descriptor::new("a/b", Digest::of(data), 1),
            form: Form::Raw,
            sealing: Sealing::None,
            strict: false,
            guide: index.map(|index| Guide::Index(Descriptor::new("a/b", Digest::of(index), 1))),
        };
        let mut keys = stream_keys(&source(b"x", Some(b"i")));
        keys.extend(stream_keys(&source(b"y", Some(b"i"))));
        keys.push(attached(&Digest::of(b"x"), &Digest::of(b"j")));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 11);
    }
}
