//! One life of a stream on disk: reads and writes stored spans by the protocol in the module documentation of `cache`. Sees only stored bytes; keys
//! are handled in `cached.rs`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::{Mutex, RwLock};

use super::layout::{Layout, Piece, Which, blocks};
use super::shared::{Shared, failed};
use super::stream_files::{check_table_size, discard, file_name, identity_of, make};
use super::table::{self, SpanState, Table, Trust};
use crate::durable::{self, RangeLock, Sharing};
use crate::error::Error;

/// How long a writer waits for an evictor, or for another writer of the same span.
const PATIENCE: Duration = Duration::from_millis(100);

/// One life of a stream on disk, open.
pub struct Stream {
    pub(super) shared: Arc<Shared>,
    open: Arc<OpenStreams>,
    number: u64,
    name: String,
    pub(super) directory: PathBuf,
    pub(super) table: Table,
    /// State words of spans whose checksum this process has verified; 0 for none.
    pub(super) verified: Box<[AtomicU64]>,
    /// The main file, then the members.
    files: Box<[Slot]>,
    /// How often a file turned out to have been replaced: all earlier verification is then void.
    replaced: AtomicU64,
}

#[derive(Default)]
struct Slot {
    file: RwLock<Option<Arc<File>>>,
    used: AtomicBool,
    /// Identifies the file at its last opening; 0 if never opened.
    identity: AtomicU64,
}

/// Most data files kept open.
const OPEN_FILES: usize = 256;

/// The streams and files of a cache that this process has open.
pub struct OpenStreams {
    pub(super) shared: Arc<Shared>,
    /// Open streams, by name. Locked for map operations only.
    streams: Mutex<HashMap<String, Weak<Stream>>>,
    /// Files kept open by streams, least recently opened first. Locked for map operations only; taken before the lock of a file's slot.
    files: Mutex<LruCache<(u64, u32), Weak<Stream>>>,
}

impl OpenStreams {
    /// No open streams.
    pub fn new(shared: &Arc<Shared>) -> Self {
        let files = LruCache::new(NonZeroUsize::new(OPEN_FILES).unwrap_or(NonZeroUsize::MIN));
        Self { shared: Arc::clone(shared), streams: Mutex::default(), files: Mutex::new(files) }
    }

    /// The open stream with this name, if this process has a live one.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Stream>> {
        self.streams.lock().get(name).and_then(Weak::upgrade).filter(|stream| !stream.dead())
    }

    /// Adds an open stream. Returns another thread's if that was faster.
    fn add(&self, stream: &Arc<Stream>) -> Arc<Stream> {
        let mut streams = self.streams.lock();
        if let Some(other) = streams.get(stream.name()).and_then(Weak::upgrade)
            && other.is_same_life(stream)
        {
            return other;
        }
        if streams.len() % 64 == 63 {
            streams.retain(|_, stream| stream.strong_count() > 0);
        }
        streams.insert(stream.name().to_owned(), Arc::downgrade(stream));
        Arc::clone(stream)
    }

    /// Closes open files of streams that were unlinked.
    pub fn let_go(&self) {
        let owners: Vec<Arc<Stream>> = self.files.lock().iter().filter_map(|(_, owner)| owner.upgrade()).collect();
        owners.iter().for_each(|owner| owner.let_go());
    }

    /// Records that a stream opened a file, and closes the least recently used one if there are too many.
    fn note_file(&self, stream: &Arc<Stream>, slot: u32) {
        let mut files = self.files.lock();
        // A second chance for files used since they were opened or last spared.
        for _ in 0..files.len() {
            if files.len() < OPEN_FILES {
                break;
            }
            let Some((key, owner)) = files.pop_lru() else { break };
            if owner.upgrade().is_some_and(|owner| owner.spare_file(key.1)) {
                files.put(key, owner);
            }
        }
        if let Some((key, owner)) = files.push((stream.number(), slot), Arc::downgrade(stream))
            && key != (stream.number(), slot)
            && let Some(owner) = owner.upgrade()
        {
            owner.close_file(key.1);
        }
    }
}

impl Stream {
    /// Opens the stream with this name and layout; creates it if `create`, else `None` if it does not exist.
    pub fn open(open: &Arc<OpenStreams>, name: &str, layout: &Layout, create: bool) -> Result<Option<Arc<Self>>, Error> {
        if let Some(stream) = open.get(name) {
            return Ok(Some(stream));
        }
        let shared = &open.shared;
        let directory = shared.stream_directory(name);
        let path = directory.join(table::FILE);
        let load = || Table::open(&directory).map(|table| table.filter(|table| !table.dead() && fits(table, layout)));
        let mut table = load().map_err(failed("open", &path))?;
        if table.is_none() && create {
            let _structure = shared.structure_lock()?;
            // Another process may have created it before we had the lock; a table that still exists is broken.
            table = load().map_err(failed("open", &path))?;
            if table.is_none() {
                check_table_size(shared, name, layout)?;
                discard(shared, &directory)?;
                make(shared, &directory, name, layout).map_err(failed("make", &directory))?;
                table = load().map_err(failed("open", &path))?;
            }
        }
        let Some(table) = table else { return Ok(None) };
        table.note_open(shared.ledger.now());
        let stream = Arc::new(Self {
            shared: Arc::clone(shared),
            open: Arc::clone(open),
            number: shared.next_number(),
            name: name.to_owned(),
            directory,
            verified: (0..table.layout().count()).map(|_| AtomicU64::new(0)).collect(),
            files: (0..=table.layout().members().len()).map(|_| Slot::default()).collect(),
            table,
            replaced: AtomicU64::new(0),
        });
        Ok(Some(open.add(&stream)))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn dead(&self) -> bool {
        self.table.dead()
    }

    pub fn is_same_life(&self, other: &Self) -> bool {
        self.table.identity() == other.table.identity()
    }

    /// Whether a file was used since the last call; if not, closes it.
    pub fn spare_file(&self, slot: u32) -> bool {
        let spare = self.files.get(slot as usize).is_some_and(|slot| slot.used.swap(false, Ordering::Relaxed));
        if !spare {
            self.close_file(slot);
        }
        spare
    }

    /// Closes a file (readers with a handle continue).
    pub fn close_file(&self, slot: u32) {
        if let Some(slot) = self.files.get(slot as usize) {
            *slot.file.write() = None;
        }
    }

    /// Closes the files of an unlinked stream, so that their blocks are freed.
    pub fn let_go(&self) {
        if self.dead() {
            for slot in &self.files {
                *slot.file.write() = None;
            }
        }
    }

    pub(super) fn file(self: &Arc<Self>, which: Which, create: bool) -> io::Result<Arc<File>> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let number = match which {
            Which::Main => 0,
            Which::Member(number) => number + 1,
        };
        let slot = self.files.get(number).ok_or_else(missing)?;
        if let Some(file) = &*slot.file.read() {
            if !slot.used.load(Ordering::Relaxed) {
                slot.used.store(true, Ordering::Relaxed);
            }
            return Ok(Arc::clone(file));
        }
        let name = file_name(self.table.identity(), self.table.layout(), which).ok_or_else(missing)?;
        let file = Arc::new(durable::open_private(&self.directory.join(name), create)?);
        let identity = identity_of(&file)?;
        // Updated before any reader gets the file: a reader that compares both counters cannot miss it.
        if ![0, identity].contains(&slot.identity.swap(identity, Ordering::SeqCst)) {
            self.verified.iter().for_each(|word| word.store(0, Ordering::SeqCst));
            self.replaced.fetch_add(1, Ordering::SeqCst);
        }
        *slot.file.write() = Some(Arc::clone(&file));
        self.open.note_file(self, u32::try_from(number).map_err(|_| missing())?);
        Ok(file)
    }

    fn read_stored(self: &Arc<Self>, stored: Range<u64>) -> io::Result<Vec<u8>> {
        let length = usize::try_from(stored.end - stored.start).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut bytes = vec![0; length];
        let mut rest = bytes.as_mut_slice();
        for piece in self.table.layout().pieces(stored) {
            let length = usize::try_from(piece.at.end - piece.at.start).unwrap_or(usize::MAX);
            let Some((now, later)) = std::mem::take(&mut rest).split_at_mut_checked(length) else { break };
            self.file(piece.file, false)?.read_exact_at(now, piece.at.start)?;
            rest = later;
        }
        Ok(bytes)
    }

    /// Bytes of a stored range within a span, or `None` if the span is absent, broken, not `trusted` enough, or disappeared meanwhile.
    pub fn read_span(self: &Arc<Self>, span: u32, wanted: Range<u64>, trusted: Trust) -> Option<Bytes> {
        let state = self.table.state(span);
        if !state.present() || trusted == Trust::Proved && !self.table.is_proved(span, state) {
            return None;
        }
        let whole = self.table.layout().stored(span)?;
        let verified = self.verified.get(span as usize)?;
        let replaced = self.replaced.load(Ordering::SeqCst);
        let bytes = if verified.load(Ordering::Relaxed) == state.word() {
            self.read_stored(wanted.clone()).map(Bytes::from)
        } else {
            self.read_stored(whole.clone()).map(|bytes| self.checked(span, bytes)).and_then(|bytes| {
                let bytes = Bytes::from(bytes.ok_or(io::ErrorKind::InvalidData)?);
                let at = |offset: u64| usize::try_from(offset - whole.start).unwrap_or(usize::MAX);
                let part = bytes.get(at(wanted.start)..at(wanted.end)).ok_or(io::ErrorKind::InvalidData)?;
                // A small part must not keep the whole span in memory.
                Ok(if part.len() < bytes.len() / 2 { Bytes::copy_from_slice(part) } else { bytes.slice_ref(part) })
            })
        };
        // If the span was evicted or replaced during the read, discard what was read.
        let same = self.table.state(span) == state;
        if same && self.replaced.load(Ordering::SeqCst) != replaced {
            return self.read_span(span, wanted, trusted);
        }
        match bytes {
            Ok(bytes) if same => {
                verified.store(state.word(), Ordering::Relaxed);
                self.table.touch(span, self.shared.ledger.now(), self.shared.coarse());
                Some(bytes)
            }
            Err(error) if same => {
                self.drop_broken(span, state, &error);
                None
            }
            _ => None,
        }
    }

    fn checked(&self, span: u32, bytes: Vec<u8>) -> Option<Vec<u8>> {
        (self.table.identity().checksum(span, &bytes) == self.table.checksum(span)).then_some(bytes)
    }

    fn drop_broken(&self, span: u32, state: SpanState, error: &io::Error) {
        // Missing files are expected in a dead stream.
        if self.table.withdraw(span, state) && !self.dead() {
            tracing::warn!(stream = %self.name, span, %error, "dropped a broken cached span");
        }
    }

    /// Checks a present span. `None` if it is absent, else whether it is intact.
    pub fn check(self: &Arc<Self>, span: u32) -> Option<bool> {
        let state = self.table.state(span);
        let stored = self.table.layout().stored(span).filter(|_| state.present())?;
        let read = self.read_stored(stored).map(|bytes| self.checked(span, bytes).is_some());
        if self.table.state(span) != state {
            return None;
        }
        let error = match read {
            Ok(true) => return Some(true),
            Ok(false) => io::ErrorKind::InvalidData.into(),
            Err(error) => error,
        };
        self.drop_broken(span, state, &error);
        Some(false)
    }

    /// Whether a present span makes storing unnecessary. An unproved one is replaced by a proved one.
    pub fn suffices(&self, span: u32, trust: Trust) -> bool {
        let state = self.table.state(span);
        if !state.present() || trust == Trust::Unproved || self.table.is_proved(span, state) {
            return state.present();
        }
        self.table.withdraw(span, state);
        false
    }

    /// Marks an unproved span as proved, or drops it if `is_right` rejects its stored bytes.
    pub fn prove_span(self: &Arc<Self>, span: u32, is_right: impl FnOnce(&[u8]) -> bool) {
        let state = self.table.state(span);
        if !state.present() || self.table.is_proved(span, state) {
            return;
        }
        let bytes = self.table.layout().stored(span).and_then(|stored| self.read_span(span, stored, Trust::Unproved));
        match bytes {
            Some(bytes) if is_right(&bytes) => self.table.prove(span, state),
            // Anything stored in its place meanwhile has another state.
            Some(_) => drop(self.table.withdraw(span, state)),
            None => {}
        }
    }

    /// Writes the stored bytes of a span and publishes it. `Ok(None)` if the stream is dead.
    pub fn write_span(self: &Arc<Self>, span: u32, stored: &[u8], trust: Trust) -> Result<Option<bool>, Error> {
        let Some(range) = self.table.layout().stored(span) else { return Ok(Some(false)) };
        let Some(reservation) = self.shared.reserve(self.cost(span))? else { return Ok(Some(false)) };
        let path = self.directory.join(table::FILE);
        let byte = u64::from(span);
        let lock = RangeLock::range(&path, byte..byte + 1, Sharing::Exclusive, PATIENCE);
        let give_back = |answer| {
            self.shared.give_back(reservation.bytes());
            Ok(answer)
        };
        let _lock = match lock {
            Ok(Some(lock)) => lock,
            Ok(None) => return give_back(Some(false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return give_back(None),
            Err(error) => return Err(failed("lock", &path)(error)),
        };
        if self.dead() {
            return give_back(None);
        }
        if self.suffices(span, trust) {
            return give_back(Some(true));
        }
        match self.write_stored(range, stored) {
            Ok(()) => {
                let now = self.shared.ledger.advance(reservation.bytes());
                self.table.publish(span, self.table.identity().checksum(span, stored), trust, now);
                Ok(Some(true))
            }
            // A partial write stays counted until the evictor frees it.
            Err(error) if durable::is_full(&error) => {
                self.shared.warn_full(&error);
                Ok(Some(false))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.dead() => Ok(None),
            Err(error) => Err(failed("write to", &self.directory)(error)),
        }
    }

    fn write_stored(self: &Arc<Self>, range: Range<u64>, mut stored: &[u8]) -> io::Result<()> {
        for piece in self.table.layout().pieces(range) {
            let length = usize::try_from(piece.at.end - piece.at.start).unwrap_or(usize::MAX);
            let Some((now, later)) = stored.split_at_checked(length) else { break };
            self.file(piece.file, true)?.write_all_at(now, piece.at.start)?;
            stored = later;
        }
        Ok(())
    }

    /// Bytes of the blocks that storing a span may take: boundary blocks count unless the neighbour that shares them is present. Rather too much than too
    /// little; a recount corrects it.
    fn cost(&self, span: u32) -> u64 {
        let (layout, block) = (self.table.layout(), self.shared.block);
        let Some(range) = layout.stored(span) else { return 0 };
        let total: u64 = layout.pieces(range.clone()).map(|piece| blocks(&piece.at, block)).sum();
        let first = layout.pieces(range).next();
        let shares = |first: Piece| {
            let previous = span.checked_sub(1).filter(|previous| self.table.state(*previous).present())?;
            let last = layout.pieces(layout.stored(previous)?).last()?;
            (!first.at.start.is_multiple_of(block) && last.file == first.file && last.at.end == first.at.start).then_some(block)
        };
        total.saturating_sub(first.and_then(shares).unwrap_or(0))
    }
}

fn fits(table: &Table, layout: &Layout) -> bool {
    table.layout() == layout
}
