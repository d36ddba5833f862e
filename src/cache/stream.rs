//! A cached stream: reading and storing spans by the protocol that the module documentation of `cache` tells.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;

use super::layout::{Geometry, Piece, Which, blocks};
use super::shared::{Shared, failed};
use super::table::{Identity, State, Table};
use super::{Error, Protection};
use crate::durable::{self, RangeLock, Sharing};
use crate::error::ErrorKind;
use crate::oci::Digest;
use crate::seal::{CHUNK, CHUNK_TAG, ChunkKey};

/// How long a writer waits for an evictor, or for another writer of the same span.
const PATIENCE: Duration = Duration::from_millis(100);

/// One life of a stream on disk, open.
pub struct Stream {
    shared: Arc<Shared>,
    number: u64,
    name: String,
    directory: PathBuf,
    table: Table,
    /// State words of spans whose checksum this process has seen hold; 0 for none.
    verified: Box<[AtomicU64]>,
    /// The main file, then the members.
    files: Box<[Slot]>,
    /// What took this one's place after it was unlinked.
    next: OnceLock<Arc<Stream>>,
}

#[derive(Default)]
struct Slot {
    file: RwLock<Option<Arc<File>>>,
    used: AtomicBool,
}

/// Name of a data file.
pub fn file_name(identity: Identity, geometry: &Geometry, which: Which) -> Option<String> {
    match which {
        Which::Main => Some(format!("{:016x}.main", identity.instance)),
        Which::Member(number) => geometry.members().get(number).map(|member| member_file_name(identity, member.start)),
    }
}

/// Name of the data file of the member that begins here.
pub fn member_file_name(identity: Identity, start: u64) -> String {
    format!("{:016x}.{start:x}", identity.instance)
}

/// The key of one life of a stream.
pub fn object_key(key: &ChunkKey, blob: &Digest, identity: Identity) -> ChunkKey {
    let mut context = b"ocifs cache stream 1\0".to_vec();
    context.extend(blob.to_string().as_bytes());
    context.push(0);
    context.extend(identity.salt);
    key.for_object(&context)
}

/// Number of a span's first chunk under its key. No span is long enough to reach the next one's numbers.
pub fn chunk_position(span: u32) -> u64 {
    u64::from(span) << 20
}

impl Stream {
    /// Opens the stream of this name and layout; makes it if `create`, else `None` if there is none.
    pub fn open(shared: &Arc<Shared>, name: &str, geometry: &Geometry, create: bool) -> Result<Option<Arc<Self>>, Error> {
        if let Some(stream) = shared.open_stream(name) {
            return Ok(Some(stream));
        }
        let directory = shared.stream_directory(name);
        let path = directory.join("table");
        let load = || Table::open(&path).map(|table| table.filter(|table| !table.dead() && fits(table, geometry)));
        let mut table = load().map_err(failed("open", &path))?;
        if table.is_none() && create {
            let _structure = shared.structure_lock()?;
            // Somebody else may have made it before we had the lock; what is there still is broken.
            table = load().map_err(failed("open", &path))?;
            if table.is_none() {
                check_table_size(shared, name, geometry)?;
                discard(shared, &directory)?;
                make(shared, &directory, geometry).map_err(failed("make", &directory))?;
                table = load().map_err(failed("open", &path))?;
            }
        }
        let Some(table) = table else { return Ok(None) };
        table.note_open(shared.ledger.now());
        let stream = Arc::new(Self {
            shared: Arc::clone(shared),
            number: shared.next_number(),
            name: name.to_owned(),
            directory,
            verified: (0..table.geometry().count()).map(|_| AtomicU64::new(0)).collect(),
            files: (0..=table.geometry().members().len()).map(|_| Slot::default()).collect(),
            table,
            next: OnceLock::new(),
        });
        Ok(Some(shared.remember_stream(&stream)))
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

    /// Whether a file was used since this was asked last; if not, it is closed.
    pub fn spare_file(&self, slot: u32) -> bool {
        let spare = self.files.get(slot as usize).is_some_and(|slot| slot.used.swap(false, Ordering::Relaxed));
        if !spare {
            self.close_file(slot);
        }
        spare
    }

    /// Closes a file (readers that have it go on).
    pub fn close_file(&self, slot: u32) {
        if let Some(slot) = self.files.get(slot as usize) {
            *slot.file.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn file(self: &Arc<Self>, which: Which, create: bool) -> io::Result<Arc<File>> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let number = match which {
            Which::Main => 0,
            Which::Member(number) => number + 1,
        };
        let slot = self.files.get(number).ok_or_else(missing)?;
        if let Some(file) = &*slot.file.read().unwrap_or_else(PoisonError::into_inner) {
            if !slot.used.load(Ordering::Relaxed) {
                slot.used.store(true, Ordering::Relaxed);
            }
            return Ok(Arc::clone(file));
        }
        let name = file_name(self.table.identity(), self.table.geometry(), which).ok_or_else(missing)?;
        let file = Arc::new(durable::open_private(&self.directory.join(name), create)?);
        *slot.file.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&file));
        self.shared.note_open_file(self, u32::try_from(number).map_err(|_| missing())?);
        Ok(file)
    }

    fn read_stored(self: &Arc<Self>, stored: Range<u64>) -> io::Result<Vec<u8>> {
        let length = usize::try_from(stored.end - stored.start).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut bytes = vec![0; length];
        let mut rest = bytes.as_mut_slice();
        for piece in self.table.geometry().pieces(stored) {
            let length = usize::try_from(piece.at.end - piece.at.start).unwrap_or(usize::MAX);
            let Some((now, later)) = std::mem::take(&mut rest).split_at_mut_checked(length) else { break };
            self.file(piece.file, false)?.read_exact_at(now, piece.at.start)?;
            rest = later;
        }
        Ok(bytes)
    }

    /// Bytes of a stored range inside a span, or `None` if the span is not here, not whole, or went away meanwhile.
    fn read_span(self: &Arc<Self>, span: u32, wanted: Range<u64>) -> Option<Bytes> {
        let state = self.table.state(span);
        if !state.present() {
            return None;
        }
        let whole = self.table.geometry().stored(span)?;
        let verified = self.verified.get(span as usize)?;
        let bytes = if verified.load(Ordering::Relaxed) == state.word() {
            self.read_stored(wanted)
        } else {
            self.read_stored(whole.clone()).map(|bytes| self.checked(span, bytes)).and_then(|bytes| {
                let bytes = bytes.ok_or(io::ErrorKind::InvalidData)?;
                let at = |offset: u64| usize::try_from(offset - whole.start).unwrap_or(usize::MAX);
                bytes.get(at(wanted.start)..at(wanted.end)).map(<[u8]>::to_vec).ok_or(io::ErrorKind::InvalidData.into())
            })
        };
        // The span was neither evicted nor replaced while it was read, or what was read counts for nothing.
        let same = self.table.state(span) == state;
        match bytes {
            Ok(bytes) if same => {
                verified.store(state.word(), Ordering::Relaxed);
                self.table.touch(span, self.shared.ledger.now(), self.shared.coarse());
                Some(Bytes::from(bytes))
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

    fn drop_broken(&self, span: u32, state: State, error: &io::Error) {
        // Missing files of a dead stream are no news.
        if self.table.withdraw(span, state) && !self.dead() {
            tracing::warn!(stream = %self.name, span, %error, "a cached span is broken and was dropped");
        }
    }

    /// Checks a present span. `None` if it is not here (any more), else whether it is whole.
    pub fn check(self: &Arc<Self>, span: u32) -> Option<bool> {
        let state = self.table.state(span);
        let stored = self.table.geometry().stored(span).filter(|_| state.present())?;
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

    /// Writes the stored bytes of a span and announces it. `Ok(None)` if the stream is dead.
    fn write_span(self: &Arc<Self>, span: u32, stored: &[u8]) -> Result<Option<bool>, Error> {
        let Some(range) = self.table.geometry().stored(span) else { return Ok(Some(false)) };
        let Some(reservation) = self.shared.reserve(self.cost(span))? else { return Ok(Some(false)) };
        let path = self.directory.join("table");
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
        if self.table.state(span).present() {
            return give_back(Some(true));
        }
        match self.write_stored(range, stored) {
            Ok(()) => {
                let now = self.shared.ledger.advance(reservation.bytes());
                self.table.publish(span, self.table.identity().checksum(span, stored), now);
                Ok(Some(true))
            }
            // What part of it was written stays counted until the evictor sweeps it away.
            Err(error) if durable::is_full(&error) => {
                self.shared.warn_full(&error);
                Ok(Some(false))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.dead() => Ok(None),
            Err(error) => Err(failed("write to", &self.directory)(error)),
        }
    }

    fn write_stored(self: &Arc<Self>, range: Range<u64>, mut stored: &[u8]) -> io::Result<()> {
        for piece in self.table.geometry().pieces(range) {
            let length = usize::try_from(piece.at.end - piece.at.start).unwrap_or(usize::MAX);
            let Some((now, later)) = stored.split_at_checked(length) else { break };
            self.file(piece.file, true)?.write_all_at(now, piece.at.start)?;
            stored = later;
        }
        Ok(())
    }

    /// Bytes of the blocks that storing a span may take: blocks at its borders count unless the neighbour, which
    /// shares them, is here. Rather too much than too little; a recount puts it right.
    fn cost(&self, span: u32) -> u64 {
        let (geometry, block) = (self.table.geometry(), self.shared.block);
        let Some(range) = geometry.stored(span) else { return 0 };
        let total: u64 = geometry.pieces(range.clone()).map(|piece| blocks(&piece.at, block)).sum();
        let first = geometry.pieces(range).next();
        let shares = |first: Piece| {
            let previous = span.checked_sub(1).filter(|previous| self.table.state(*previous).present())?;
            let last = geometry.pieces(geometry.stored(previous)?).last()?;
            (first.at.start % block != 0 && last.file == first.file && last.at.end == first.at.start).then_some(block)
        };
        total.saturating_sub(first.and_then(shares).unwrap_or(0))
    }
}

fn fits(table: &Table, geometry: &Geometry) -> bool {
    let found = table.geometry();
    found.starts() == geometry.starts()
        && found.length() == geometry.length()
        && found.members() == geometry.members()
        && found.is_sealed() == geometry.is_sealed()
}

/// A registry may claim any size for a blob: the table for it must stay small beside the budget.
fn check_table_size(shared: &Shared, name: &str, geometry: &Geometry) -> Result<(), Error> {
    let (size, most) = (Table::size(geometry), (shared.config.size / 16).max(4 << 20));
    if size <= most {
        return Ok(());
    }
    let message = format!("the stream {name} has too many spans for this cache: its table would take {size} bytes of {most}");
    Err(Error { kind: ErrorKind::NoSpace, message })
}

/// Makes an empty stream. Under the structure lock.
fn make(shared: &Shared, directory: &Path, geometry: &Geometry) -> io::Result<()> {
    let work = shared.work_directory()?;
    let identity = Identity::random(geometry.is_sealed());
    let made = Table::write(&work.join("table"), geometry, identity, &[], shared.ledger.now())
        .and_then(|()| durable::make_directory(directory.parent().unwrap_or(directory)))
        .and_then(|()| std::fs::rename(&work, directory));
    if made.is_err() {
        // Only tidiness: what stays is removed by the next evictor once this process has ended.
        let _ = std::fs::remove_dir_all(&work);
    }
    made
}

/// Unlinks a stream: first it says so in its table, then it leaves its place in one step, then its files go. Under
/// the structure lock. Files that are open keep working. Answers the bytes that it occupied.
pub fn discard(shared: &Shared, directory: &Path) -> Result<u64, Error> {
    if let Ok(Some(table)) = Table::open(&directory.join("table")) {
        table.kill();
    }
    let grave = shared.work_directory().map_err(failed("make a directory in", &shared.root))?;
    match std::fs::rename(directory, &grave) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let _ = std::fs::remove_dir(&grave);
            return Err(failed("remove", directory)(error));
        }
    }
    let occupied = super::evict::occupied_by(&grave).unwrap_or(0);
    std::fs::remove_dir_all(&grave).map_err(failed("remove", &grave))?;
    Ok(occupied)
}

/// One cached stream.
pub struct CachedStream {
    shared: Arc<Shared>,
    blob: Digest,
    geometry: Geometry,
    /// Belongs to this handle, not to the stream: another opener without the right key must not read through ours.
    key: Option<ChunkKey>,
    first: Arc<Stream>,
}

impl CachedStream {
    pub(super) fn new(shared: &Arc<Shared>, blob: &Digest, geometry: Geometry, protection: &Protection) -> Result<Self, Error> {
        let name = Shared::stream_name(blob, geometry.is_sealed(), &geometry.fingerprint());
        let first = Stream::open(shared, &name, &geometry, true)?.ok_or_else(|| Error {
            kind: ErrorKind::Other,
            message: format!("the cache cannot make a stream for {blob}: its table is broken at once"),
        })?;
        let key = match protection {
            Protection::Plain => None,
            Protection::Sealed(key) => Some(key.clone()),
        };
        Ok(Self { shared: Arc::clone(shared), blob: *blob, geometry, key, first })
    }

    /// The stream that is in use now.
    fn current(&self) -> &Arc<Stream> {
        let mut stream = &self.first;
        while let Some(next) = stream.next.get() {
            stream = next;
        }
        stream
    }

    /// The stream that is alive now, opened anew if the last one was unlinked or replaced.
    fn living(&self, create: bool) -> Result<&Arc<Stream>, Error> {
        let stream = self.current();
        if stream.dead()
            && let Some(next) = Stream::open(&self.shared, &stream.name, &self.geometry, create)?
            && !Arc::ptr_eq(&next, stream)
        {
            // If another thread was faster, its answer counts.
            let _ = stream.next.set(next);
        }
        Ok(self.current())
    }

    /// Part of a span (offsets in the stream), if the span is here and whole. Failing disks make it a miss.
    pub fn read(&self, span: u32, within: Range<u64>) -> Result<Option<Bytes>, Error> {
        let range = self.geometry.stream(span).filter(|range| range.start <= within.start && within.end <= range.end);
        let Some(range) = range.filter(|_| within.start <= within.end) else {
            let message = format!("span {span} of {} does not hold bytes {}..{}", self.blob, within.start, within.end);
            return Err(Error { kind: ErrorKind::Invalid, message });
        };
        let stream = if self.current().dead() { self.living(false)? } else { self.current() };
        match &self.key {
            None => Ok(stream.read_span(span, within)),
            Some(key) => Ok(self.read_sealed(stream, key, span, range.start, within)),
        }
    }

    fn read_sealed(&self, stream: &Arc<Stream>, key: &ChunkKey, span: u32, start: u64, within: Range<u64>) -> Option<Bytes> {
        let stored = self.geometry.stored(span)?;
        let (chunk, whole) = (CHUNK as u64, (CHUNK + CHUNK_TAG) as u64);
        let first = (within.start - start) / chunk;
        let last = (within.end - start).div_ceil(chunk);
        let wanted = stored.start + first * whole..(stored.start + last * whole).min(stored.end).max(stored.start + first * whole);
        let sealed = stream.read_span(span, wanted.start.min(stored.end)..wanted.end.min(stored.end))?;
        let key = object_key(key, &self.blob, stream.table.identity());
        let mut open = Vec::with_capacity(sealed.len());
        // The checksum held, so this is another key's span: nothing for this caller, and not broken.
        key.open(chunk_position(span) + first, &sealed, &mut open).ok()?;
        let skip = usize::try_from(within.start - start - first * chunk).ok()?;
        let length = usize::try_from(within.end - within.start).ok()?;
        let bytes = Bytes::from(open);
        (skip + length <= bytes.len()).then(|| bytes.slice(skip..skip + length))
    }

    /// Whether a span is here.
    pub fn has(&self, span: u32) -> bool {
        let stream = if self.current().dead() { self.living(false).unwrap_or(&self.first) } else { self.current() };
        stream.table.state(span).present()
    }

    /// Keeps a verified span. `false`, which is no error, if the budget (all of it pinned or in flight) or the disk
    /// leaves no room, or if somebody else is just storing this span.
    pub fn store(&self, span: u32, data: &[u8]) -> Result<bool, Error> {
        let length = self.geometry.stream(span).map(|range| range.end - range.start);
        if length != Some(data.len() as u64) {
            let message = format!("{} bytes are not span {span} of {}", data.len(), self.blob);
            return Err(Error { kind: ErrorKind::Invalid, message });
        }
        // A stream that is unlinked again and again while we try is not worth more.
        for _ in 0..3 {
            let stream = self.living(true)?;
            if stream.table.state(span).present() && !stream.dead() {
                return Ok(true);
            }
            let stored = match &self.key {
                None => stream.write_span(span, data)?,
                Some(key) => {
                    let mut sealed = Vec::with_capacity(data.len() + data.len().div_ceil(CHUNK) * CHUNK_TAG);
                    object_key(key, &self.blob, stream.table.identity()).seal(chunk_position(span), data, &mut sealed);
                    stream.write_span(span, &sealed)?
                }
            };
            if let Some(kept) = stored {
                return Ok(kept);
            }
        }
        Ok(false)
    }
}
