//! Leases: whole plain files of the cache that the kernel reads by itself.
//!
//! A leased file carries a shared lock, which lasts as long as its open file description: also while only the kernel has it, and after this
//! process was killed. The evictor of any process leaves such a file alone; whatever unlinks it takes nothing from its readers. The kernel
//! cannot verify what it reads, so all spans of a file are verified before its first lease. Its bytes are not verified again until the machine
//! restarts, unless a span or the file was changed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::cached::CachedStream;
use super::ledger::boot_identity;
use super::stream::Stream;
use super::stream_files::file_name;
use super::stream_files::identity_of;
use super::table::{self, SpanState};
use crate::durable::{self, RangeLock, Sharing};
use crate::sys::attributes::{file_xattr, set_file_xattr};

/// Most bytes verified when a file is opened. Spans of larger files are verified as they are read; once all of them were, a lease is granted.
const VERIFIED_AT_ONCE: u64 = 2 << 30;
/// How long to wait for an evictor or for writers.
const PATIENCE: Duration = Duration::from_millis(100);
/// The attribute of a verified file.
const VERIFIED: &str = "user.ocifs.verified";

impl CachedStream {
    /// The file that holds just this range of a plain stream, if it is complete and verified. Never punched while its open file description
    /// lives. Blocks on the disk.
    pub fn lease(&self, range: &Range<u64>) -> Option<File> {
        if self.is_sealed() {
            return None;
        }
        let leased = self.living(false).map(|stream| stream.lease(range));
        leased.ok()?.unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot lease a cached file");
            None
        })
    }
}

impl Stream {
    fn lease(self: &Arc<Self>, range: &Range<u64>) -> io::Result<Option<File>> {
        let layout = self.table.layout();
        let Some(which) = layout.file_of(range) else { return Ok(None) };
        let Some(name) = file_name(self.table.identity(), layout, which) else { return Ok(None) };
        let spans = layout.spans_of(range);
        let Some(states) = self.proved(&spans) else { return Ok(None) };
        // Without this lock an evictor may be at work in the stream; with it, the next one finds the lease.
        let table = self.directory.join(table::FILE);
        let Some(lock) = RangeLock::range(&table, spans.start.into()..spans.end.into(), Sharing::Shared, PATIENCE)? else {
            return Ok(None);
        };
        let file = durable::open_private(&self.directory.join(name), false)?;
        let is_whole = file.metadata()?.len() == range.end - range.start;
        if self.dead() || !is_whole || !durable::mark_used(&file)? || self.proved(&spans).as_ref() != Some(&states) {
            return Ok(None);
        }
        drop(lock);
        for span in spans.clone() {
            self.table.touch(span, self.shared.ledger.now(), 1);
        }
        let verdict = self.verdict(&file, &states)?.to_le_bytes();
        if file_xattr(&file, VERIFIED)?.as_deref() == Some(verdict.as_slice()) {
            return Ok(Some(file));
        }
        // What the stream has open must be this file.
        if identity_of(&*self.file(which, false)?)? != identity_of(&file)? || !self.verify(spans.start, &states) {
            return Ok(None);
        }
        // The next process would only verify it once more.
        if let Err(error) = set_file_xattr(&file, VERIFIED, &verdict) {
            tracing::debug!(%error, "cannot record that a cached file was verified");
        }
        Ok(Some(file))
    }

    /// The states of spans that are all present and proved.
    fn proved(&self, spans: &Range<u32>) -> Option<Vec<SpanState>> {
        let state = |span| Some(self.table.state(span)).filter(|state| state.present() && self.table.is_proved(span, *state));
        spans.clone().map(state).collect()
    }

    /// Verifies spans from `first` on as far as this process has not done so.
    fn verify(self: &Arc<Self>, first: u32, states: &[SpanState]) -> bool {
        let spans =
            || (first..).zip(self.verified.iter().skip(first as usize)).zip(states).map(|((span, word), state)| (span, word, state));
        let missing: Vec<_> = spans().filter(|(_, word, state)| word.load(Ordering::SeqCst) != state.word()).collect();
        let bytes: u64 = missing.iter().map(|(span, ..)| self.table.layout().span(*span)).map(|range| range.end - range.start).sum();
        if bytes > VERIFIED_AT_ONCE {
            return false;
        }
        for (span, word, state) in missing {
            if self.check(span) != Some(true) || self.table.state(span) != *state {
                return false;
            }
            word.store(state.word(), Ordering::SeqCst);
        }
        // A word is cleared when its file turns out to have been replaced.
        spans().all(|(span, word, state)| word.load(Ordering::SeqCst) == state.word() && self.table.state(span) == *state)
    }

    /// Identifies a file in its present state, with the states of its spans, until the machine restarts.
    fn verdict(&self, file: &File, states: &[SpanState]) -> io::Result<u64> {
        let metadata = file.metadata()?;
        let mut hasher = Xxh3::new();
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        for word in [boot_identity(), identity_of(file)?, metadata.len(), seconds.cast_unsigned(), nanoseconds.cast_unsigned()] {
            hasher.update(&word.to_le_bytes());
        }
        hasher.update(&self.table.identity().instance.to_le_bytes());
        states.iter().for_each(|state| hasher.update(&state.word().to_le_bytes()));
        Ok(hasher.digest())
    }
}
