//! The open readers of a mount: one per way to read a blob, however many streams use it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use super::budget::trim;
use super::plan::Plan;
use super::reader::Reader;
use super::{BlobSource, Guide, Sealing};
use crate::layer::Form;
use crate::oci::{Digest, Repository};

/// Readers kept open after their last use, so that small files of one layer do not reopen it each time.
const KEPT: usize = 32;
/// Number of known readers at which dead entries are purged.
const KNOWN: usize = 64;

/// The key of a reader. Includes the repository, since access is granted per repository.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct ReaderKey {
    repository: Repository,
    digest: Digest,
    size: u64,
    is_archive: bool,
    sealing: Sealing,
    plan: Plan,
    /// The guide, if it is read by that.
    guide: Option<Digest>,
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
            guide: source.guide.as_ref().filter(|_| plan == Plan::Attached).map(Guide::key),
        }
    }
}

/// The open readers, and those kept open for a while.
pub(super) struct Readers {
    /// Memory limit for the indexes of kept readers, in bytes.
    memory: u64,
    known: HashMap<ReaderKey, Weak<Reader>>,
    /// The number of known readers at which to purge dead entries next.
    clear_at: usize,
    /// Most recent last.
    kept: VecDeque<Arc<Reader>>,
}

impl Readers {
    /// No readers yet.
    pub(super) fn new(memory: u64) -> Self {
        Self { memory, known: HashMap::new(), clear_at: KNOWN, kept: VecDeque::new() }
    }

    /// An existing reader.
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

    /// Returns the unused readers that are kept open.
    pub(super) fn let_go(&mut self) -> VecDeque<Arc<Reader>> {
        std::mem::take(&mut self.kept)
    }

    fn keep(&mut self, reader: &Arc<Reader>) {
        self.kept.push_back(Arc::clone(reader));
        trim(&mut self.kept, KEPT, self.memory, |reader| reader.memory());
    }
}
