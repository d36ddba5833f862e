//! A manifest of arbitrary bytes is refused, or all that it says can be read, and nothing in it is a path or reference out of bounds.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ocifs::oci::{Digest, Manifest, Registry, Repository, Source, Tag};

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::parse(Bytes::copy_from_slice(data), Digest::of(data)) {
        assert_eq!(manifest.descriptor().size, data.len() as u64);
        let layers = manifest.image().into_iter().flat_map(|image| &image.layers);
        let members = manifest.index().into_iter().flat_map(|index| &index.manifests);
        for descriptor in layers.chain(members).chain(manifest.subject()) {
            assert_eq!(Digest::parse(&descriptor.digest.to_string()).ok(), Some(descriptor.digest));
            assert!(descriptor.digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert!(manifest.image().is_some() != manifest.index().is_some());
        std::hint::black_box((manifest.annotations().len(), manifest.artifact_type().is_some()));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(tag) = Tag::parse(text) {
        assert!(tag.as_str() == text && !text.contains(['/', '\0']) && text != "." && text != "..");
    }
    if let Ok(repository) = Repository::parse(text) {
        assert!(repository.as_str() == text && text.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
    }
    if let Ok(registry) = Registry::parse(text) {
        assert!(!registry.as_str().contains(['/', '\0', '@']));
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
    }
    std::hint::black_box(Source::parse(text).is_ok());
});
