//! Names under which the cache keeps what comes from one blob.
//!
//! A blob is a stream for each form (unpacked, as it is) and sealing, with a cache key of its own. What is read of it by an
//! attached index is another. The keys are pure functions of the descriptor.

use super::{BlobSource, Sealing};
use crate::layer::Form;
use crate::oci::Digest;

/// Kind of the documents that hold indexes.
pub(super) const INDEX: &str = "index";
/// Kind of the documents that hold envelope headers whose tag held.
pub(super) const ENVELOPE: &str = "envelope";

/// The cache keys of every stream that may come from a blob; what pins an artifact pins all of them.
pub fn stream_keys(source: &BlobSource) -> Vec<Digest> {
    let blob = &source.descriptor;
    let mut keys = Vec::new();
    keys.extend(source.index.as_ref().map(|index| attached(&blob.digest, &index.digest)));
    for form in [Form::Archive, Form::Raw] {
        for sealing in [Sealing::None, Sealing::OciSync] {
            keys.push(stream(&blob.digest, form, sealing));
        }
    }
    keys
}

/// The stream of a blob. That of a raw blob may hold unproved spans; those of archives hold none.
pub(super) fn stream(blob: &Digest, form: Form, sealing: Sealing) -> Digest {
    match (form, sealing) {
        (Form::Archive, Sealing::None) => *blob,
        _ => Digest::of(format!("{blob} {}", suffix(form, sealing)).as_bytes()),
    }
}

/// The document that holds the index of a checked blob.
pub(super) fn index(source: &BlobSource) -> String {
    index_of(&source.descriptor.digest, source.form, source.sealing)
}

/// The same, from its parts.
pub(super) fn index_of(blob: &Digest, form: Form, sealing: Sealing) -> String {
    format!("{}.{}", blob.path_name(), suffix(form, sealing))
}

/// The stream of a blob that is read by an index attached to it. An artifact that names another index, or none, never reads what
/// was kept by this one.
pub(super) fn attached(blob: &Digest, index: &Digest) -> Digest {
    Digest::of(format!("{blob} by {index}").as_bytes())
}

/// The document that holds an index attached to a blob.
pub(super) fn attached_index_name(blob: &Digest, index: &Digest) -> String {
    format!("{}.by-{}", blob.path_name(), index.path_name())
}

/// The document that says that such an index is not to be used.
pub(super) fn distrusted(blob: &Digest, index: &Digest) -> String {
    format!("{}.not-by-{}", blob.path_name(), index.path_name())
}

/// The document that holds the header of a blob's envelope.
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
    use crate::oci::Descriptor;

    #[test]
    fn each_form_sealing_and_attached_index_of_a_blob_has_its_own_stream() {
        let source = |data: &[u8], index: Option<&[u8]>| BlobSource {
            repository: crate::oci::Repository::parse("a").unwrap(),
            descriptor: Descriptor::new("a/b", Digest::of(data), 1),
            form: Form::Raw,
            sealing: Sealing::None,
            strict: false,
            index: index.map(|index| Descriptor::new("a/b", Digest::of(index), 1)),
        };
        let mut keys = stream_keys(&source(b"x", Some(b"i")));
        keys.extend(stream_keys(&source(b"y", Some(b"i"))));
        keys.push(attached(&Digest::of(b"x"), &Digest::of(b"j")));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 11);
    }
}
