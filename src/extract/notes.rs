//! What an extraction did, and what it left out, counted; of each sort the first case is kept as an example.

use parking_lot::Mutex;

/// What was extracted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Regular files written; each name of a hard-linked one counts.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Regular files that were there already with the same bytes.
    pub unchanged: u64,
    /// Symbolic links, pipes and devices.
    pub others: u64,
    /// What exists and was left as it is, on demand.
    pub kept: Case,
    /// Devices that only root may make, and does on demand.
    pub devices: Case,
    /// Extended attributes that could not be set.
    pub attributes: Case,
}

/// Cases of one sort.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// How many.
    pub count: u64,
    /// The first one, for people.
    pub first: Option<String>,
}

impl Case {
    /// Counts one.
    pub(super) fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(example);
    }
}

/// A summary that several threads add to.
#[derive(Default)]
pub(super) struct Notes(Mutex<Summary>);

impl Notes {
    /// Adds something.
    pub fn note(&self, add: impl FnOnce(&mut Summary)) {
        add(&mut self.0.lock());
    }

    /// The summary.
    pub fn summary(self) -> Summary {
        self.0.into_inner()
    }
}
