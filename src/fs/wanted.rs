//! What the file system needs from `artifact` and is not there yet.

use std::sync::Arc;

use crate::artifact::{Artifact, Artifacts, Error};
use crate::content::{BlobSource, ContentStream};
use crate::oci::{Descriptor, Repository};

impl Artifacts {
    /// One raw blob as stored.
    pub async fn blob(&self, _repository: &Repository, _descriptor: &Descriptor, _strict: bool) -> Result<ContentStream, Error> {
        Err(Error { kind: crate::error::ErrorKind::Unsupported, message: "not built yet".to_owned() })
    }
    /// Names of a layout that are no tags.
    pub async fn odd_names(&self, _repository: &Repository) -> Result<Arc<[(String, Descriptor)]>, Error> {
        Ok(Arc::from([]))
    }
    /// Bytes received and decoded so far.
    pub fn progress(&self) -> u64 {
        0
    }
}

impl Artifact {
    /// The blob of a number.
    pub fn source(&self, _blob: u32) -> Option<&BlobSource> {
        None
    }
}
