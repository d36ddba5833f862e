//! The manifest that keeps index blobs alive if their manifest cannot list them: a referrer of it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{descriptor, empty, finish};
use crate::artifact::attached_index::INDEX_ARTIFACT_TYPE;
use crate::error::Error;
use crate::oci::{Descriptor, Manifest, media_type};

/// The referrer of a manifest with these index blobs.
pub(in crate::publish) fn manifest(subject: &Manifest, indexes: &[Descriptor]) -> Result<Arc<Manifest>, Error> {
    let subject = Descriptor::new(subject.media_type.clone(), subject.digest, subject.raw.len() as u64);
    let mut all = Map::new();
    all.insert("schemaVersion".to_owned(), json!(2));
    all.insert("mediaType".to_owned(), json!(media_type::OCI_MANIFEST));
    all.insert("artifactType".to_owned(), json!(INDEX_ARTIFACT_TYPE));
    all.insert("config".to_owned(), empty());
    all.insert("layers".to_owned(), Value::Array(indexes.iter().map(descriptor).collect()));
    all.insert("subject".to_owned(), descriptor(&subject));
    finish(all)
}
