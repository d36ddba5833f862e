//! Names under which the cache keeps what comes from one blob.
//!
//! One blob may be read in several ways (unpacked, as it is, while not yet checked, unsealed), each a stream of
//! its own with its own cache key. The keys are pure functions of the descriptor.

use super::{BlobSource, Sealing};
use crate::layer::Form;
use crate::oci::{Descriptor, Digest};

/// Kind of the documents that hold indexes.
pub(super) const INDEX: &str = "index";
/// Kind of the documents that hold envelope headers whose tag held.
pub(super) const ENVELOPE: &str = "envelope";

/// The cache keys of every stream that may come from a blob; what pins an artifact pins all of them.
pub fn stream_keys(source: &BlobSource) -> Vec<Digest> {
    let blob = &source.descriptor;
    let mut keys = vec![streaming(blob)];
    keys.extend(source.index.as_ref().map(|index| attached(&blob.digest, &index.digest)));
    for form in [Form::Archive, Form::Raw] {
        for sealing in [Sealing::None, Sealing::OciSync] {
            keys.push(stream(&blob.digest, form, sealing));
        }
    }
    keys
}

/// The stream of a blob that was checked.
pub(super) fn stream(blob: &Digest, form: Form, sealing: Sealing) -> Digest {
    match (form, sealing) {
        (Form::Archive, Sealing::None) => *blob,
        _ => Digest::of(format!("{blob} {}", suffix(form, sealing)).as_bytes()),
    }
}

/// The stream of a raw blob that is served while it is not yet checked. The claimed size is part of it, since
/// it decides the borders of the spans.
pub(super) fn streaming(blob: &Descriptor) -> Digest {
    Digest::of(format!("{} streaming {}", blob.digest, blob.size).as_bytes())
}

/// The document that holds the index of a checked blob.
pub(super) fn index(source: &BlobSource) -> String {
    index_of(&source.descriptor.digest, source.form, source.sealing)
}

/// The same, from its parts.
pub(super) fn index_of(blob: &Digest, form: Form, sealing: Sealing) -> String {
    format!("{}.{}", blob.path_name(), suffix(form, sealing))
}

/// The document that holds the index of a raw blob that was checked while it was being read.
pub(super) fn streamed_index(blob: &Descriptor) -> String {
    format!("{}.streamed-{}", blob.digest.path_name(), blob.size)
}

/// The stream of a blob that is read by an index attached to it. Who names another index, or none, never reads
/// what was kept by this one.
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

    #[test]
    fn every_way_to_read_a_blob_has_a_stream_of_its_own() {
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
        assert_eq!(keys.len(), 13);
        let blob = source(b"x", None).descriptor;
        assert_ne!(streaming(&blob), streaming(&Descriptor::new("a/b", Digest::of(b"x"), 2)));
    }
}
