//! The span table: a small mapped file per stream, shared by all processes.
//!
//! It holds the layout (immutable, with a checksum that also covers the stream's name, so that another stream's table counts as broken) and four words
//! per span: state, checksum of the stored bytes, time of last use, doubt. The state is twice a generation, plus one if the span is present; every
//! change of presence takes the next generation. A span whose doubt equals its state was stored before its bytes were verified against a digest.
//! The module documentation of `cache` describes the protocol.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::layout::Layout;
use crate::durable;
use crate::sys::mapped::Words;

const MAGIC: u64 = u64::from_le_bytes(*b"ocifsST2");
/// Name of the table in its stream's directory.
pub const FILE: &str = "table";
/// Number of words before the spans.
const HEADER: usize = 16;
/// Words per span.
const RECORD: usize = 4;
/// Immutable words of the header: instance, counts, length, kind, salt.
const FIXED: std::ops::Range<usize> = 4..12;

const MAGIC_AT: usize = 0;
const DEAD: usize = 1;
const TOUCHED: usize = 2;
const CHECKSUM: usize = 3;
const INSTANCE: usize = 4;
const SPANS: usize = 5;
const MEMBERS: usize = 6;
const LENGTH: usize = 7;
const SALT: usize = 8;

/// The identity of one life of a stream on disk. Names its data files, seeds its checksums, and salts its key, so that bytes of different lives are
/// never mixed and no two lives are sealed at the same position of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Names the data files.
    pub instance: u64,
    /// Part of the key's context.
    pub salt: [u8; 16],
    /// Whether the stored bytes are sealed.
    pub sealed: bool,
}

impl Identity {
    /// A new random identity.
    pub fn random(sealed: bool) -> Self {
        Self { instance: rand::random(), salt: rand::random(), sealed }
    }

    /// The checksum of a span's stored bytes.
    pub fn checksum(&self, span: u32, stored: &[u8]) -> u64 {
        xxh3_64_with_seed(stored, self.instance.wrapping_add(u64::from(span)))
    }
}

/// A snapshot of a span's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanState(u64);

impl SpanState {
    /// Whether the span is present.
    pub fn present(self) -> bool {
        self.0 & 1 == 1
    }

    /// The raw word, never 0 for a present span.
    pub fn word(self) -> u64 {
        self.0
    }
}

/// Whether a span's bytes were verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// They were verified against a digest.
    Proved,
    /// They are as the registry sent them.
    Unproved,
}

/// An open span table.
pub struct Table {
    words: Words,
    identity: Identity,
    layout: Layout,
}

impl Table {
    /// Writes the table of a new stream into the directory that will be renamed into place, with the checksums of spans that are already present.
    pub fn write(directory: &Path, name: &str, layout: &Layout, identity: Identity, present: &[Option<u64>], now: u64) -> io::Result<()> {
        let salt = u128::from_le_bytes(identity.salt);
        let mut header = [0_u64; HEADER];
        let fields = [
            (MAGIC_AT, MAGIC),
            (TOUCHED, now),
            (INSTANCE, identity.instance),
            (SPANS, u64::from(layout.count())),
            (MEMBERS, layout.members().len() as u64),
            (LENGTH, layout.length()),
            (SALT, salt as u64),
            (SALT + 1, (salt >> 64) as u64),
            (SALT + 2, u64::from(identity.sealed)),
        ];
        for (at, value) in fields {
            if let Some(word) = header.get_mut(at) {
                *word = value;
            }
        }
        let fixed = header.get(FIXED).unwrap_or_default().to_vec();
        if let Some(word) = header.get_mut(CHECKSUM) {
            *word = layout_checksum(name.as_bytes(), fixed.into_iter().chain(layout_words(layout)));
        }
        let records = (0..layout.count() as usize).flat_map(|span| {
            let checksum = present.get(span).copied().flatten();
            [u64::from(checksum.is_some()), checksum.unwrap_or(0), now, 0]
        });
        // Every byte is written, so no page of the map is a hole that a full disk could refuse later.
        let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(FILE))?);
        for word in header.into_iter().chain(records).chain(layout_words(layout)) {
            file.write_all(&word.to_ne_bytes())?;
        }
        file.flush()
    }

    /// Size of a stream's table in bytes.
    pub fn size(layout: &Layout) -> u64 {
        let words = HEADER + (RECORD + 1) * layout.starts().len() + 2 * layout.members().len();
        (words * size_of::<u64>()) as u64
    }

    /// Maps the table in a stream's directory. `None` if it does not exist, is broken or belongs to another stream.
    pub fn open(directory: &Path) -> io::Result<Option<Self>> {
        let Some(name) = directory.file_name() else { return Ok(None) };
        let file = match durable::open_private(&directory.join(FILE), false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < (HEADER * size_of::<u64>()) as u64 {
            return Ok(None);
        }
        Self::parse(&file, name.as_bytes())
    }

    fn parse(file: &File, name: &[u8]) -> io::Result<Option<Self>> {
        let map = Words::map(file)?;
        let load = |at: usize| map.words().get(at).map_or(0, |word| word.load(Ordering::Relaxed));
        let count = |at: usize| usize::try_from(load(at)).unwrap_or(usize::MAX);
        let (spans, members) = (count(SPANS), count(MEMBERS));
        let layout_at = spans.saturating_mul(RECORD).saturating_add(HEADER);
        let members_at = layout_at.saturating_add(spans);
        let end = members_at.saturating_add(members.saturating_mul(2));
        if load(MAGIC_AT) != MAGIC || end != map.words().len() {
            return Ok(None);
        }
        let read = |range: std::ops::Range<usize>| range.map(load).collect::<Vec<u64>>();
        let layout = read(layout_at..end);
        if layout_checksum(name, FIXED.map(load).chain(layout.iter().copied())) != load(CHECKSUM) {
            return Ok(None);
        }
        let (starts, members) = layout.split_at_checked(spans).unwrap_or_default();
        let members: Vec<_> = members.chunks_exact(2).filter_map(|pair| Some(*pair.first()?..*pair.get(1)?)).collect();
        let salt = u128::from(load(SALT)) | u128::from(load(SALT + 1)) << 64;
        let identity = Identity { instance: load(INSTANCE), salt: salt.to_le_bytes(), sealed: load(SALT + 2) == 1 };
        let layout = Layout::new(starts, load(LENGTH), members).stored_as(identity.sealed).ok();
        Ok(layout.map(|layout| Self { words: map, identity, layout }))
    }

    /// The identity of this life of the stream.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn word(&self, span: u32, field: usize) -> Option<&AtomicU64> {
        if span >= self.layout.count() {
            return None;
        }
        self.words.words().get(HEADER + span as usize * RECORD + field)
    }

    fn header(&self, at: usize) -> Option<&AtomicU64> {
        self.words.words().get(at)
    }

    /// State of a span; a nonexistent one is absent. Anything read from files after this call is at least as new as the state, anything read before at
    /// most as new.
    pub fn state(&self, span: u32) -> SpanState {
        fence(Ordering::SeqCst);
        let state = SpanState(self.word(span, 0).map_or(0, |word| word.load(Ordering::SeqCst)));
        fence(Ordering::SeqCst);
        state
    }

    /// Checksum of the stored bytes of a present span.
    pub fn checksum(&self, span: u32) -> u64 {
        self.word(span, 1).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Publishes a span whose bytes have been written. The caller holds the span's lock.
    pub fn publish(&self, span: u32, checksum: u64, trust: Trust, now: u64) {
        let words = (self.word(span, 0), self.word(span, 1), self.word(span, 2), self.word(span, 3));
        if let (Some(state), Some(sum), Some(used), Some(doubt)) = words {
            sum.store(checksum, Ordering::Release);
            used.store(now, Ordering::Relaxed);
            let new = (state.load(Ordering::Relaxed) | 1).wrapping_add(2);
            // Before the state, so that no reader sees the span without its doubt.
            doubt.store(if trust == Trust::Unproved { new } else { 0 }, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            state.store(new, Ordering::SeqCst);
        }
    }

    /// Whether the bytes of a span in this state were verified against a digest.
    pub fn is_proved(&self, span: u32, seen: SpanState) -> bool {
        self.word(span, 3).is_none_or(|doubt| doubt.load(Ordering::SeqCst) != seen.0)
    }

    /// Records that the bytes of a span in this state were verified.
    pub fn prove(&self, span: u32, seen: SpanState) {
        if let Some(doubt) = self.word(span, 3) {
            // The doubt of a later state is not ours to clear.
            let _ = doubt.compare_exchange(seen.0, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Makes a span absent if its state is still `seen`. Returns whether it did.
    pub fn withdraw(&self, span: u32, seen: SpanState) -> bool {
        let absent = (seen.0 & !1).wrapping_add(2);
        let changed = seen.present()
            && self.word(span, 0).is_some_and(|word| word.compare_exchange(seen.0, absent, Ordering::SeqCst, Ordering::SeqCst).is_ok());
        fence(Ordering::SeqCst);
        changed
    }

    /// When a span was last used.
    pub fn used(&self, span: u32) -> u64 {
        self.word(span, 2).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Records a use, unless one only slightly older is recorded, so that readers do not contend for the memory.
    pub fn touch(&self, span: u32, now: u64, coarse: u64) {
        if let Some(word) = self.word(span, 2)
            && now.saturating_sub(word.load(Ordering::Relaxed)) >= coarse
        {
            word.store(now, Ordering::Relaxed);
        }
    }

    /// Whether the stream was unlinked or replaced. Nothing may be stored any more.
    pub fn dead(&self) -> bool {
        self.header(DEAD).is_none_or(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Marks the stream as about to be unlinked or replaced.
    pub fn kill(&self) {
        if let Some(word) = self.header(DEAD) {
            word.store(1, Ordering::SeqCst);
        }
    }

    /// When the stream was last opened.
    pub fn opened(&self) -> u64 {
        self.header(TOUCHED).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Records that the stream was opened.
    pub fn note_open(&self, now: u64) {
        if let Some(word) = self.header(TOUCHED) {
            word.store(now, Ordering::Relaxed);
        }
    }

    /// Numbers and states of the present spans.
    pub fn present(&self) -> impl Iterator<Item = (u32, SpanState)> + '_ {
        (0..self.layout.count()).map(|span| (span, self.state(span))).filter(|(_, state)| state.present())
    }
}

fn layout_words(layout: &Layout) -> impl Iterator<Item = u64> + '_ {
    layout.starts().iter().copied().chain(layout.members().iter().flat_map(|member| [member.start, member.end]))
}

fn layout_checksum(name: &[u8], words: impl Iterator<Item = u64>) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(name);
    for word in words {
        hasher.update(&word.to_ne_bytes());
    }
    hasher.digest()
}
