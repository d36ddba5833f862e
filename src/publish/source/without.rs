//! A tree without some of its paths.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Error;
use crate::path::is_within;
use crate::publish::plan::path_set::PathSet;
use crate::view::snapshot::{Snapshot, Walk};
use crate::view::{Reader, TreeEntry};

/// A snapshot without some of its paths.
pub(in crate::publish) struct Without {
    inner: Arc<dyn Snapshot>,
    /// Left out with everything below.
    trees: Arc<HashSet<Vec<u8>>>,
    /// Left out by themselves.
    paths: Arc<PathSet>,
}

impl Without {
    /// A snapshot without these paths and everything below them.
    pub fn trees(inner: &Arc<dyn Snapshot>, trees: &Arc<HashSet<Vec<u8>>>) -> Arc<dyn Snapshot> {
        if trees.is_empty() {
            return Arc::clone(inner);
        }
        Arc::new(Self { inner: Arc::clone(inner), trees: Arc::clone(trees), paths: Arc::default() })
    }

    /// A snapshot without just these paths.
    pub fn paths(inner: &Arc<dyn Snapshot>, paths: PathSet) -> Arc<dyn Snapshot> {
        if paths.is_empty() {
            return Arc::clone(inner);
        }
        Arc::new(Self { inner: Arc::clone(inner), trees: Arc::default(), paths: Arc::new(paths) })
    }
}

#[async_trait]
impl Snapshot for Without {
    fn walk(self: Arc<Self>) -> Walk {
        let (entries, mut below): (_, Option<Vec<u8>>) = (Arc::clone(&self.inner).walk(), None);
        let is_kept = move |entry: &TreeEntry| {
            if below.as_ref().is_some_and(|above| is_within(&entry.path, above)) {
                return false;
            }
            below = self.trees.get(&entry.path).cloned();
            below.is_none() && !self.paths.contains(&entry.path)
        };
        let mut is_kept = is_kept;
        Box::new(entries.filter(move |entry| entry.as_ref().map_or(true, &mut is_kept)))
    }

    async fn sha256(&self, entry: &TreeEntry) -> Result<[u8; 32], Error> {
        self.inner.sha256(entry).await
    }

    async fn open(&self, entry: &TreeEntry) -> Result<Reader, Error> {
        self.inner.open(entry).await
    }

    fn sha256_here(&self, entries: &[&TreeEntry]) -> Result<Vec<Option<[u8; 32]>>, Error> {
        self.inner.sha256_here(entries)
    }

    fn bytes_here(&self, entry: &TreeEntry) -> Result<Option<Bytes>, Error> {
        self.inner.bytes_here(entry)
    }

    fn on_disk(&self, path: &[u8]) -> Option<PathBuf> {
        self.inner.on_disk(path)
    }
}
