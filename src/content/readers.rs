//! The open readers of one mount: one for each way to read a blob, however many streams hold it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use super::budget::trim;
use super::plan::Plan;
use super::reader::Reader;
use super::{BlobSource, Sealing};
use crate::layer::Form;
use crate::oci::{Digest, Repository};

/// Readers that stay open after their last use, so that small files of one layer do not open it each.
const KEPT: usize = 32;
/// Known readers beyond which those that are gone are cleared away: each of them still takes the memory of one that is there.
const KNOWN: usize = 64;

/// The key of a reader. The repository is part of it, since access is granted per repository.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct ReaderKey {
    repository: Repository,
    digest: Digest,
    size: u64,
    is_archive: bool,
    sealing: Sealing,
    plan: Plan,
    /// The index attached to it, if it is read by that.
    index: Option<Digest>,
}

impl ReaderKey {
    pub(super) fn new(source: &BlobSource, plan: Plan) -> Self {
        Self {
            repository: source.repository.clone(),
            digest: source.descriptor.digest,
            size: source.descriptor.size,
            is_archive: source.form == Form::Archive,
            sealing: source.sealing,
            plan,
            index: source.index.as_ref().filter(|_| plan == Plan::Attached).map(|index| index.digest),
        }
    }
}

/// The readers that are open, and those that stay open for a while.
pub(super) struct Readers {
    /// Bytes of memory that the indexes of those that are kept may take.
    memory: u64,
    known: HashMap<ReaderKey, Weak<Reader>>,
    /// How many are known when those that are gone are cleared away the next time.
    clear_at: usize,
    /// The most recent last.
    kept: VecDeque<Arc<Reader>>,
}

impl Readers {
    /// None yet.
    pub(super) fn new(memory: u64) -> Self {
        Self { memory, known: HashMap::new(), clear_at: KNOWN, kept: VecDeque::new() }
    }

    /// A reader that is still there.
    pub(super) fn get(&mut self, key: &ReaderKey) -> Option<Arc<Reader>> {
        let reader = self.known.get(key)?.upgrade()?;
        if let Some(place) = self.kept.iter().position(|kept| Arc::ptr_eq(kept, &reader)) {
            self.kept.remove(place);
        }
        self.keep(&reader);
        Some(reader)
    }

    /// Adds a reader, unless another task was faster: all must share one.
    pub(super) fn add(&mut self, key: ReaderKey, reader: Arc<Reader>) -> Arc<Reader> {
        if let Some(reader) = self.get(&key) {
            return reader;
        }
        if self.known.len() >= self.clear_at {
            self.known.retain(|_, reader| reader.strong_count() > 0);
            self.clear_at = KNOWN.max(self.known.len().saturating_mul(2));
        }
        self.known.insert(key, Arc::downgrade(&reader));
        self.keep(&reader);
        reader
    }

    /// Hands out the readers that stay open unused.
    pub(super) fn let_go(&mut self) -> VecDeque<Arc<Reader>> {
        std::mem::take(&mut self.kept)
    }

    fn keep(&mut self, reader: &Arc<Reader>) {
        self.kept.push_back(Arc::clone(reader));
        trim(&mut self.kept, KEPT, self.memory, |reader| reader.memory());
    }
}
