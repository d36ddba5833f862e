//! Files read lately without a handle, which stay ready for the next read.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::handle::File;
use crate::bounded::BoundedMap;

/// Most files that stay ready.
const READY: usize = 64;
/// How long bytes that failed verification stay an error without another fetch: until the kernel has repeated the read.
const FAILED: Duration = Duration::from_secs(1);

/// A file read lately.
#[derive(Clone)]
pub(super) struct Ready {
    pub(super) file: Arc<File>,
    /// When its bytes failed verification.
    failed: Arc<OnceLock<Instant>>,
}

impl Ready {
    fn is_usable(&self) -> bool {
        self.failed.get().is_none_or(|since| since.elapsed() < FAILED)
    }

    /// Records that its bytes failed verification.
    pub(super) fn fail(&self) {
        self.failed.get_or_init(Instant::now);
    }
}

/// The files read lately, by inode number.
#[derive(Default)]
pub(super) struct ReadyFiles(BoundedMap<u64, Ready, READY>);

impl ReadyFiles {
    /// The file with this number, unless its bytes failed a while ago.
    pub(super) fn get(&self, number: u64) -> Option<Ready> {
        self.0.get_if(&number, Ready::is_usable)
    }

    pub(super) fn keep(&self, file: File) -> Ready {
        let number = file.number;
        let ready = Ready { file: Arc::new(file), failed: Arc::default() };
        self.0.put(number, ready.clone());
        ready
    }

    /// Forgets all files.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}
