//! Counts what an extraction did and left out; keeps the first case of each sort as an example.

use parking_lot::Mutex;

/// The result of an extraction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Regular files written; every name of a hard-linked one counts.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Regular files that already had the same bytes.
    pub unchanged: u64,
    /// Symlinks, pipes and devices.
    pub others: u64,
    /// Existing entries that were kept.
    pub kept: Case,
    /// Devices, which are created only by root on request.
    pub devices: Case,
    /// Extended attributes that could not be set.
    pub attributes: Case,
}

/// Cases of one sort.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// How many.
    pub count: u64,
    /// The first one, as an example.
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
    /// Updates the summary.
    pub fn note(&self, add: impl FnOnce(&mut Summary)) {
        add(&mut self.0.lock());
    }

    /// The summary.
    pub fn summary(self) -> Summary {
        self.0.into_inner()
    }
}
