//! Referrers of a manifest: the one that holds index blobs if those of the layers' own manifest cannot or do not, and others.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{descriptor, empty, finish};
use crate::artifact::attached_index::{INDEX_ARTIFACT_TYPE, INDEX_LIST, list};
use crate::error::Error;
use crate::oci::{Descriptor, Manifest, media_type};

/// The referrer of a manifest with these index blobs. It says which layers they belong to if they do.
pub(in crate::publish) fn manifest(subject: &Manifest, indexes: &[Descriptor]) -> Result<Arc<Manifest>, Error> {
    let list = list(indexes);
    of_type(INDEX_ARTIFACT_TYPE, subject, indexes, (!list.is_empty()).then(|| json!({ INDEX_LIST: list })))
}

/// The referrer of a manifest of this artifact type.
pub(in crate::publish) fn of_type(
    artifact_type: &str,
    subject: &Manifest,
    layers: &[Descriptor],
    annotations: Option<Value>,
) -> Result<Arc<Manifest>, Error> {
    let subject = Descriptor::new(subject.media_type.clone(), subject.digest, subject.raw.len() as u64);
    let mut all = Map::new();
    all.insert("schemaVersion".to_owned(), json!(2));
    all.insert("mediaType".to_owned(), json!(media_type::OCI_MANIFEST));
    all.insert("artifactType".to_owned(), json!(artifact_type));
    all.insert("config".to_owned(), empty());
    all.insert("layers".to_owned(), Value::Array(layers.iter().map(descriptor).collect()));
    all.insert("subject".to_owned(), descriptor(&subject));
    if let Some(annotations) = annotations {
        all.insert("annotations".to_owned(), annotations);
    }
    finish(all)
}
