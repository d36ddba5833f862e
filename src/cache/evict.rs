//! The evictor: counts the actual disk usage, and punches the least recently used spans.
//!
//! It runs in whichever process finds no room, one at a time under `evict.lock`. It trusts no counter: only disk usage as reported by stat(2)
//! counts. Two walks over the streams, without a list of spans in memory: the first sums bytes by age in at most a few thousand steps, the
//! second frees everything older than the step that suffices. Files that the kernel reads by itself (`lease.rs`) are spared.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::aging;
use super::layout::Which;
use super::pins::{self, Pinned};
use super::shared::{Shared, failed};
use super::stream_files::{discard, file_name, occupied_by};
use super::table::{self, Table};
use crate::durable::{self, RangeLock, Sharing};
use crate::error::Error;
use crate::oci::Digest;

/// How long to wait for another evictor, which makes room for all.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the evictor waits for writers of one stream before it skips that stream.
const STREAM_PATIENCE: Duration = Duration::from_millis(100);
/// No file takes that long to write.
const LONG_ABANDONED: Duration = Duration::from_secs(3600);
/// Most rounds; one frees less than planned only if small spans share blocks.
const ROUNDS: usize = 8;

/// Tries to make room for `bytes`. Returns whether it succeeded; others may have taken that room already.
pub fn make_room(shared: &Shared, bytes: u64) -> Result<bool, Error> {
    let Ok(_lock) = shared.evict_lock(PATIENCE) else { return Ok(false) };
    let fits =
        |shared: &Shared| Ok::<_, Error>(shared.ledger.used().saturating_add(bytes) <= shared.limit() && shared.disk_shortage(bytes)? == 0);
    if fits(shared)? {
        // Another evictor ran while this one waited.
        return Ok(true);
    }
    let pinned = pins::pinned(shared)?;
    let survey = recount(shared, &pinned)?;
    if fits(shared)? {
        return Ok(true);
    }
    let goal = goal(shared, bytes, survey.total)?;
    let mut ages = survey.ages.into_iter();
    let mut sweep = Sweep { shared, pinned: &pinned.blobs, oldest: 0, goal, freed: 0, spared: 0 };
    let mut rounds = 0;
    while rounds < ROUNDS {
        let (mut planned, mut more, spared) = (0_u64, false, sweep.spared);
        for (age, size) in ages.by_ref() {
            (sweep.oldest, more) = (age, true);
            planned = planned.saturating_add(size);
            if planned >= goal - sweep.freed {
                break;
            }
        }
        walk(shared, |directory, name| sweep.stream(directory, name))?;
        if sweep.freed >= goal || !more {
            break;
        }
        // What was planned and then spared is made up for by younger spans.
        rounds += usize::from(sweep.spared == spared);
    }
    let mut freed = sweep.freed;
    if freed < goal {
        let removed = aging::remove_oldest(shared, &pinned, goal - freed)?;
        shared.ledger.give_back(removed);
        freed = freed.saturating_add(removed);
    }
    Ok(freed >= goal || fits(shared)?)
}

/// How many bytes to free for `bytes` more, with some slack for those that follow.
fn goal(shared: &Shared, bytes: u64, total: u64) -> Result<u64, Error> {
    let slack = shared.limit() / 16;
    let target = shared.limit().saturating_sub(bytes.max(slack));
    let over_budget = if total.saturating_add(bytes) > shared.limit() { total.saturating_sub(target) } else { 0 };
    let over_disk = match shared.disk_shortage(bytes)? {
        0 => 0,
        lacking => lacking.saturating_add(slack),
    };
    Ok(over_budget.max(over_disk))
}

/// The result of a recount.
pub struct Survey {
    /// Bytes on disk and in flight.
    pub total: u64,
    /// Bytes of unpinned present spans by time of last use, in steps of `coarse`.
    ages: BTreeMap<u64, u64>,
}

/// Counts what is on disk and corrects the ledger. Removes leftovers of dead processes, and broken streams. Under the evictor lock.
pub fn recount(shared: &Shared, pinned: &Pinned) -> Result<Survey, Error> {
    // This order makes any error an overestimate: bytes reserved after `before` stay added, bytes in flight now are added, and bytes written later were
    // reserved before.
    let before = shared.ledger.used();
    let in_flight = shared.ledger.in_flight().map_err(failed("examine", &shared.root))?;
    // Fills before streams: a commit moves from the former to the latter.
    let mut total = in_flight.saturating_add(count_work(shared)?).saturating_add(aging::count(shared)?);
    let mut ages = BTreeMap::new();
    let (mut newest, mut broken) = (0, Vec::new());
    walk(shared, |directory, name| {
        total = total.saturating_add(occupied_by(directory).unwrap_or(0));
        let table = match Table::open(directory) {
            Ok(Some(table)) if !table.dead() => table,
            Ok(_) => {
                broken.push(directory.to_owned());
                return Ok(());
            }
            // For example too many open files: no reason to discard data.
            Err(_) => return Ok(()),
        };
        let is_pinned = blob_of(name).is_some_and(|blob| pinned.blobs.contains(&blob));
        for (span, _) in table.present() {
            let used = table.used(span);
            newest = newest.max(used);
            if !is_pinned {
                let size = table.layout().stored(span).map_or(0, |range| range.end - range.start);
                *ages.entry(used / shared.coarse()).or_insert(0) += size;
            }
        }
        Ok(())
    })?;
    for directory in broken {
        total = total.saturating_sub(discard_broken(shared, &directory)?.unwrap_or(0));
    }
    remove_old_temporaries(shared);
    shared.ledger.clock_at_least(newest);
    shared.ledger.correct(before, total);
    Ok(Survey { total, ages })
}

/// Unlinks a stream whose table is broken, belongs to another stream, or is dead in its place. Returns the bytes that it occupied; `None` if it is
/// intact now.
pub fn discard_broken(shared: &Shared, directory: &Path) -> Result<Option<u64>, Error> {
    let _structure = shared.structure_lock()?;
    match Table::open(directory) {
        Ok(table) if table.as_ref().is_none_or(Table::dead) => discard(shared, directory).map(Some),
        _ => Ok(None),
    }
}

/// Counts unfinished fills of live processes and removes those of dead ones.
fn count_work(shared: &Shared) -> Result<u64, Error> {
    let root = shared.root.join("work");
    let mut total = 0_u64;
    for entry in fs::read_dir(&root).map_err(failed("list", &root))?.flatten() {
        let name = entry.file_name();
        let alive = shared.ledger.owner_is_alive(&name.to_string_lossy()).map_err(failed("examine", &root))?;
        if alive {
            // Gone meanwhile: committed (and so counted among the streams) or dropped.
            total = total.saturating_add(occupied_by(&entry.path()).unwrap_or(0));
        } else if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, directory = %entry.path().display(), "cannot remove the leftovers of a dead process");
            total = total.saturating_add(occupied_by(&entry.path()).unwrap_or(0));
        }
    }
    Ok(total)
}

/// Removes temporary files of documents and pins left by killed writers. Writing one takes seconds at most.
fn remove_old_temporaries(shared: &Shared) {
    let documents = fs::read_dir(shared.root.join("documents")).into_iter().flatten().flatten();
    for directory in documents.map(|kind| kind.path()).chain([shared.root.join("pins")]) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let age = entry.metadata().ok().and_then(|metadata| metadata.modified().ok()).and_then(|time| time.elapsed().ok());
            if entry.file_name().to_string_lossy().starts_with(durable::TEMPORARY) && age.is_some_and(|age| age > LONG_ABANDONED) {
                // A leftover is found again next time.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The blob named in a stream's name.
pub fn blob_of(name: &str) -> Option<Digest> {
    Digest::parse_path_name(name.split('.').next()?).ok()
}

/// Calls `visit` for every stream's directory and name.
pub fn walk(shared: &Shared, mut visit: impl FnMut(&Path, &str) -> Result<(), Error>) -> Result<(), Error> {
    let root = shared.root.join("streams");
    for shard in fs::read_dir(&root).map_err(failed("list", &root))?.flatten() {
        let Ok(entries) = fs::read_dir(shard.path()) else { continue };
        for entry in entries.flatten() {
            visit(&entry.path(), &entry.file_name().to_string_lossy())?;
        }
    }
    Ok(())
}

/// The second walk.
struct Sweep<'a> {
    shared: &'a Shared,
    pinned: &'a HashSet<Digest>,
    /// Spans last used at this step or before are evicted.
    oldest: u64,
    goal: u64,
    freed: u64,
    /// Bytes of spans not evicted because the kernel reads them by itself.
    spared: u64,
}

impl Sweep<'_> {
    fn stream(&mut self, directory: &Path, name: &str) -> Result<(), Error> {
        if self.freed >= self.goal || blob_of(name).is_some_and(|blob| self.pinned.contains(&blob)) {
            return Ok(());
        }
        let path = directory.join(table::FILE);
        // Excludes all writers, so that nothing being written is punched.
        let Ok(Some(lock)) = RangeLock::range(&path, 0..u64::MAX, Sharing::Exclusive, STREAM_PATIENCE) else { return Ok(()) };
        let Ok(Some(table)) = Table::open(directory) else { return Ok(()) };
        if table.dead() {
            return Ok(());
        }
        remove_strangers(directory, &table);
        let before = occupied_by(directory).unwrap_or(0);
        let mut leases = Leases { directory, table: &table, known: HashMap::new() };
        let chosen = self.withdraw(&table, before, &mut leases);
        let any_left = table.present().next().is_some();
        let mut unsupported = false;
        for (which, hole) in holes(&table, &chosen) {
            if leases.has(which) {
                continue;
            }
            unsupported |= punch(directory, &table, which, hole).is_err();
        }
        let after = occupied_by(directory).unwrap_or(before);
        drop(lock);
        let mut freed = before.saturating_sub(after);
        let idle = table.opened() / self.shared.coarse() <= self.oldest;
        if unsupported || (!any_left && (idle || !chosen.is_empty())) {
            let _structure = self.shared.structure_lock()?;
            freed = freed.saturating_add(discard(self.shared, directory)?);
        }
        self.shared.ledger.give_back(freed);
        self.freed += freed;
        Ok(())
    }

    /// Makes old spans absent, before anything is punched. Returns the numbers of the spans to punch: those, and all absent ones if the files occupy more
    /// than the present spans explain (torn writes of killed processes).
    fn withdraw(&mut self, table: &Table, occupied: u64, leases: &mut Leases<'_>) -> HashSet<u32> {
        let mut chosen = HashSet::new();
        let (mut explained, mut planned, mut present) = (0_u64, 0_u64, 0_u64);
        for (span, state) in table.present() {
            let size = table.layout().stored(span).map_or(0, |range| range.end - range.start);
            explained += size;
            present += 1;
            let age = table.used(span) / self.shared.coarse();
            // The last step need not be evicted completely.
            let enough = self.freed.saturating_add(planned) >= self.goal;
            let due = age < self.oldest || (age == self.oldest && !enough);
            if due && leases.cover(span) {
                // It is in use, whenever it was opened.
                table.touch(span, self.shared.ledger.now(), 1);
                self.spared += size;
            } else if due && table.withdraw(span, state) {
                planned += size;
                chosen.insert(span);
            }
        }
        let tolerated = (present + table.layout().members().len() as u64 + 1) * 2 * self.shared.block;
        if occupied > explained.saturating_add(tolerated) {
            chosen.extend((0..table.layout().count()).filter(|span| !table.state(*span).present()));
        }
        chosen
    }
}

/// Which files of a stream are leased. Under the lock of all bytes of its table, no lease is granted.
struct Leases<'a> {
    directory: &'a Path,
    table: &'a Table,
    known: HashMap<Which, bool>,
}

impl Leases<'_> {
    /// Whether a file is leased.
    fn has(&mut self, which: Which) -> bool {
        let probe = || match file_name(self.table.identity(), self.table.layout(), which) {
            // A file that cannot be examined may be leased.
            Some(name) => durable::is_used(&self.directory.join(name)).unwrap_or_else(|error| error.kind() != io::ErrorKind::NotFound),
            None => false,
        };
        *self.known.entry(which).or_insert_with(probe)
    }

    /// Whether any byte of a span is in a leased file.
    fn cover(&mut self, span: u32) -> bool {
        let pieces = self.table.layout().stored(span).map(|stored| self.table.layout().pieces(stored));
        pieces.into_iter().flatten().any(|piece| self.has(piece.file))
    }
}

/// The largest ranges of the files that contain chosen spans but no bytes of present ones: including neighbours evicted earlier, so that shared blocks
/// are eventually freed.
fn holes(table: &Table, chosen: &HashSet<u32>) -> Vec<(Which, Range<u64>)> {
    /// The preceding present piece, and whether any chosen ones followed.
    #[derive(Default)]
    struct Gap {
        from: u64,
        dirty: bool,
    }
    let mut holes = Vec::new();
    let mut main = Gap::default();
    let mut member: Option<(Which, Gap)> = None;
    if chosen.is_empty() {
        return holes;
    }
    for span in 0..table.layout().count() {
        let Some(stored) = table.layout().stored(span) else { continue };
        let present = table.state(span).present();
        for piece in table.layout().pieces(stored) {
            if piece.file != Which::Main && member.as_ref().is_none_or(|(which, _)| *which != piece.file) {
                if let Some((which, Gap { from, dirty: true })) = member {
                    holes.push((which, from..END));
                }
                member = Some((piece.file, Gap::default()));
            }
            let gap = match &mut member {
                Some((which, gap)) if *which == piece.file => gap,
                _ => &mut main,
            };
            if present {
                if gap.dirty {
                    holes.push((piece.file, gap.from..piece.at.start));
                }
                *gap = Gap { from: piece.at.end, dirty: false };
            } else {
                gap.dirty |= chosen.contains(&span);
            }
        }
    }
    if let Some((which, Gap { from, dirty: true })) = member {
        holes.push((which, from..END));
    }
    if main.dirty {
        holes.push((Which::Main, main.from..END));
    }
    holes
}

/// Beyond the end of every file: a file's last block is freed only by a range that covers it.
const END: u64 = i64::MAX as u64;

fn punch(directory: &Path, table: &Table, which: Which, hole: Range<u64>) -> io::Result<()> {
    let Some(name) = file_name(table.identity(), table.layout(), which) else { return Ok(()) };
    let file = match durable::open_private(&directory.join(name), false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let end = if hole.end == END { length.next_multiple_of(1 << 20) } else { hole.end };
    durable::punch(&file, hole.start.min(end)..end)
}

/// Removes files of earlier lives, possibly left by a writer that lost its stream meanwhile.
fn remove_strangers(directory: &Path, table: &Table) {
    let ours = format!("{:016x}.", table.identity().instance);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name != table::FILE && !name.to_string_lossy().starts_with(&ours) {
            // A leftover is found again next time.
            let _ = fs::remove_file(entry.path());
        }
    }
}
