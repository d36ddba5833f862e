//! Documents of a cache that is read without being filled: they live as long as the process needs them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::config::Protection;
use super::documents::Document;
use super::shared::failed;
use crate::error::Error;
use crate::sys::array::{Array, Scratch};

/// The documents, by kind and key.
pub(super) struct Held {
    /// Storage for large plain documents. Those of encrypted artifacts stay on the heap.
    pub scratch: Scratch,
    /// Locked for map operations only.
    documents: Mutex<HashMap<(String, String), Document>>,
}

impl Held {
    pub fn new(scratch: Scratch) -> Self {
        Self { scratch, documents: Mutex::default() }
    }

    pub fn get(&self, kind: &str, key: &str) -> Option<Document> {
        self.documents.lock().get(&(kind.to_owned(), key.to_owned())).cloned()
    }

    pub fn put(&self, kind: &str, key: &str, bytes: &[u8], protection: &Protection) -> Result<(), Error> {
        let scratch = match protection {
            Protection::Plain => self.scratch.clone(),
            Protection::Sealed(_) => Scratch::memory(),
        };
        let mut copy = Array::new(&scratch);
        copy.extend_from_slice(bytes).map_err(failed("hold", key.as_ref()))?;
        self.documents.lock().insert((kind.to_owned(), key.to_owned()), Arc::new(copy));
        Ok(())
    }

    pub fn forget(&self, kind: &str, key: &str) {
        self.documents.lock().remove(&(kind.to_owned(), key.to_owned()));
    }
}
