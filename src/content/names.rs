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
pub fn stream_keys(blob: &Descriptor) -> Vec<Digest> {
    let mut keys = vec![streaming(blob)];
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
    format!("{}.{}", source.descriptor.digest.path_name(), suffix(source.form, source.sealing))
}

/// The document that holds the index of a raw blob that was checked while it was being read.
pub(super) fn streamed_index(blob: &Descriptor) -> String {
    format!("{}.streamed-{}", blob.digest.path_name(), blob.size)
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
        let blob = Descriptor::new("a/b", Digest::of(b"x"), 1);
        let mut keys = stream_keys(&blob);
        keys.extend(stream_keys(&Descriptor::new("a/b", Digest::of(b"y"), 1)));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 10);
        assert_ne!(streaming(&blob), streaming(&Descriptor::new("a/b", Digest::of(b"x"), 2)));
    }
}
