//! The base of staged bytes: a file of a tree, or an older staged file that is no longer written.
//!
//! A file that lies over something has its own bytes only in some ranges; the rest of the first `kept` bytes is that of its base.
//! Bytes behind `kept` are its own, zeros where nothing was written. `kept` never grows. The rest is filled in from below at
//! leisure, which changes nothing that can be seen; then the file lies over nothing any more.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::bases::{self, StoredBase};
use super::columns::is_referred;
use super::data::{DataFile, read_exact_or_zeros};
use super::ranges::Ranges;
use super::rows::ReadRows;
use super::state::{Base, Extent, Layer, Staged, Under};
use super::{DataId, TreeNode};
use crate::durable;
use crate::error::Error;
use crate::sys::extent::{next_data, next_hole};
use crate::sys::space::punch;

/// Files that may lie over one another. With more, reading would take long.
const DEEPEST: usize = 8;
/// Ranges of own bytes of a file that are remembered.
const MOST_RANGES: usize = 1 << 16;
/// Zeros in pieces of this size, at multiples of it, become a hole.
const PIECE: usize = 64 << 10;

/// The base for a new staged file.
pub enum Below {
    /// An older staged file. It is never written again.
    Data(DataFile),
    /// A file of a tree.
    Tree(TreeNode),
}

impl Below {
    /// All of it counts.
    pub(super) fn kept(&self) -> Result<u64, Error> {
        match self {
            Self::Data(data) => data.length(),
            Self::Tree(tree) => Ok(tree.size),
        }
    }

    pub(super) fn stored(&self) -> StoredBase {
        match self {
            Self::Data(data) => StoredBase::Data(data.id()),
            Self::Tree(tree) => StoredBase::Tree(tree.clone()),
        }
    }
}

/// A part of a file that lies in one place.
pub struct Segment {
    /// Which bytes of the file, and of the place.
    pub range: Range<u64>,
    /// Where.
    pub held: Held,
}

/// Where bytes lie.
pub enum Held {
    /// In a staged file of this machine.
    Here(HeldHere),
    /// In a tree.
    Tree(Arc<TreeNode>),
}

/// A staged file that holds bytes.
pub struct HeldHere(Arc<Staged>);

impl HeldHere {
    /// Bytes of a range, zeros where there are none.
    pub fn read(&self, range: &Range<u64>) -> Result<Vec<u8>, Error> {
        read_exact_or_zeros(&self.0.file, range).map_err(|error| self.0.error("cannot read", &error))
    }

    /// Where data (or the next hole) begins at or behind an offset; `None` where there is none.
    pub fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        let found = if data { next_data(&self.0.file, offset) } else { next_hole(&self.0.file, offset) };
        found.map_err(|error| self.0.error("cannot seek in", &error))
    }
}

impl Staged {
    /// Lays this new empty file over something.
    pub fn lay_over(&self, below: &Below, kept: u64) -> Result<(), Error> {
        let base = match below {
            Below::Data(data) => Base::sealed(Arc::clone(&data.staged)),
            Below::Tree(tree) => Base::Tree(Arc::new(tree.clone())),
        };
        let mut extent = self.extent.lock();
        self.file.set_len(kept).map_err(|error| self.error("cannot set the length of", &error))?;
        extent.length = kept;
        extent.under = Under::Over(Layer { base, kept, own: Ranges::default() });
        self.whole.store(false, Ordering::Release);
        Ok(())
    }

    /// The extent, with the base loaded.
    pub fn extent(&self) -> Result<MutexGuard<'_, Extent>, Error> {
        let mut extent = self.extent.lock();
        if matches!(extent.under, Under::Unknown) {
            extent.under = self.load()?;
            self.whole.store(matches!(extent.under, Under::Nothing), Ordering::Release);
        }
        Ok(extent)
    }

    fn load(&self) -> Result<Under, Error> {
        if !self.store.is_partial(self.id) {
            return Ok(Under::Nothing);
        }
        let Some(stored) = self.store.shared()?.read("cannot read", |connection| bases::read(connection, self.id))? else {
            return Ok(Under::Nothing);
        };
        let base = match stored.base {
            StoredBase::Tree(tree) => Base::Tree(Arc::new(tree)),
            StoredBase::Data(id) => Base::sealed(self.store.data(id)?),
        };
        Ok(Under::Over(Layer { base, kept: stored.kept, own: stored.own }))
    }

    /// Where the byte at an offset lies, and up to where (at most `end`) the next ones lie there too.
    fn segment(self: &Arc<Self>, at: u64, end: u64) -> Result<Segment, Error> {
        let here = |end| Segment { range: at..end, held: Held::Here(HeldHere(Arc::clone(self))) };
        if self.whole.load(Ordering::Acquire) {
            return Ok(here(end));
        }
        let extent = self.extent()?;
        let Under::Over(layer) = &extent.under else { return Ok(here(end)) };
        if at >= layer.kept {
            return Ok(here(end));
        }
        if let Some(own) = layer.own.end_at(at) {
            return Ok(here(own.min(end)));
        }
        let end = layer.own.next_start(at).unwrap_or(end).min(layer.kept).min(end);
        match layer.base.clone() {
            Base::Tree(tree) => Ok(Segment { range: at..end, held: Held::Tree(tree) }),
            Base::Data(below) => {
                drop(extent);
                below.segment(at, end)
            }
        }
    }

    /// Notes that bytes which were just written are the file's own.
    pub fn own(&self, extent: &mut Extent, range: Range<u64>) -> Result<(), Error> {
        let Under::Over(layer) = &mut extent.under else { return Ok(()) };
        let range = range.start..range.end.min(layer.kept);
        if range.is_empty() || layer.own.covers(&range) {
            return Ok(());
        }
        let joined = layer.own.joined(&range);
        let stored = self.store.note("cannot write", |connection| bases::join(connection, self.id, &joined));
        extent.spoiled += u64::from(stored.is_err());
        stored?;
        layer.own.join(&joined);
        Ok(())
    }

    /// Called before the file is cut: bytes behind the new length no longer count, even if the process dies first.
    pub fn begin_cut(&self, extent: &mut Extent, length: u64) -> Result<bool, Error> {
        let Under::Over(layer) = &mut extent.under else { return Ok(false) };
        if length >= layer.kept {
            return Ok(false);
        }
        self.store.note("cannot cut", |connection| bases::begin_cut(connection, self.id, length))?;
        layer.kept = length;
        layer.own.cut(length);
        Ok(true)
    }

    /// After the file was cut.
    pub fn end_cut(&self, extent: &mut Extent) -> Result<(), Error> {
        if matches!(&extent.under, Under::Over(layer) if layer.kept == 0) {
            return self.end_base(extent);
        }
        self.store.note("cannot cut", |connection| bases::end_cut(connection, self.id))
    }

    /// The file has all its bytes itself.
    fn end_base(&self, extent: &mut Extent) -> Result<(), Error> {
        let released = self.store.note("cannot fill in", |connection| bases::end(connection, self.id))?;
        extent.under = Under::Nothing;
        self.whole.store(true, Ordering::Release);
        self.store.set_partial(self.id, false);
        self.store.give_up(released);
        Ok(())
    }

    fn depth(&self) -> Result<usize, Error> {
        let below = match &self.extent()?.under {
            Under::Over(Layer { base: Base::Data(below), .. }) => Arc::clone(below),
            Under::Over(_) => return Ok(1),
            Under::Nothing | Under::Unknown => return Ok(0),
        };
        Ok(1 + below.depth()?)
    }

    /// Writes the missing bytes of a range. Zeros become holes, also where an earlier attempt left other bytes.
    fn fill(&self, extent: &mut Extent, range: Range<u64>, bytes: &[u8]) -> std::io::Result<()> {
        let (mut at, mut rest) = (range.start, bytes);
        while !rest.is_empty() {
            let length = PIECE - usize::try_from(at % PIECE as u64).unwrap_or(0);
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            rest = behind;
            let end = at + piece.len() as u64;
            if piece.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(piece, at)?;
            } else if at < extent.length && next_data(&self.file, at)?.is_some_and(|data| data < end) {
                match punch(&self.file, at..end) {
                    Err(error) if durable::is_unsupported(&error) => self.file.write_all_at(piece, at)?,
                    other => other?,
                }
            }
            at = end;
        }
        Ok(())
    }
}

impl Base {
    /// A staged file that lies below another one from now on.
    pub fn sealed(below: Arc<Staged>) -> Self {
        below.sealed.store(true, Ordering::Release);
        Self::Data(below)
    }
}

impl DataFile {
    /// Where the byte at an offset lies, and up to where (at most `end`) the next ones lie there too.
    pub fn segment(&self, at: u64, end: u64) -> Result<Segment, Error> {
        self.staged.segment(at, end)
    }

    /// The file itself, where all its bytes lie in it.
    pub fn whole_file(&self) -> Result<Option<File>, Error> {
        if !self.is_whole()? {
            return Ok(None);
        }
        // Opened again, for a position of its own.
        let path = self.staged.store.path(self.id());
        File::open(&path).map(Some).map_err(|error| self.staged.error("cannot open", &error))
    }

    /// Whether it lies over nothing.
    pub fn is_whole(&self) -> Result<bool, Error> {
        Ok(matches!(self.staged.extent()?.under, Under::Nothing))
    }

    /// Whether its bytes must not change: a frozen generation has them, or another file lies over them. A writer lays a new file over it.
    pub fn is_fixed(&self) -> bool {
        self.staged.is_fixed()
    }

    /// Whether no file may be laid over it, nor more be written to it, before it is filled: too much would have to be looked through.
    pub fn needs_filling(&self) -> Result<bool, Error> {
        let ranges = match &self.staged.extent()?.under {
            Under::Over(layer) => layer.own.len(),
            Under::Nothing | Under::Unknown => return Ok(false),
        };
        Ok(ranges >= MOST_RANGES || self.is_fixed() && self.staged.depth()? >= DEEPEST)
    }

    /// Begins filling, which may take any number of [`DataFile::fill`]. Returns how many bytes are missing, and the
    /// argument for [`DataFile::end_filling`].
    pub fn begin_filling(&self) -> Result<(u64, u64), Error> {
        let extent = self.staged.extent()?;
        let Under::Over(layer) = &extent.under else { return Ok((0, extent.spoiled)) };
        let (mut missing, mut at) = (0, 0);
        while let Some(gap) = layer.own.gap(at, layer.kept) {
            missing += gap.end - gap.start;
            at = gap.end;
        }
        Ok((missing, extent.spoiled))
    }

    /// Whether the quota and the disk have room for more bytes.
    pub fn has_room(&self, bytes: u64) -> bool {
        let budget = self.staged.store.account.budget();
        let in_quota = budget.quota.is_none_or(|quota| budget.used().saturating_add(bytes) <= quota);
        in_quota && self.staged.store.has_room(bytes)
    }

    /// The first range at or behind an offset that still comes from the base.
    pub fn gap(&self, offset: u64) -> Result<Option<Range<u64>>, Error> {
        Ok(match &self.staged.extent()?.under {
            Under::Over(layer) => layer.own.gap(offset, layer.kept),
            Under::Nothing | Under::Unknown => None,
        })
    }

    /// Copies bytes of the base, except where the file was written meanwhile. No visible change, times included.
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let staged = &self.staged;
        // The upper cannot be opened elsewhere meanwhile.
        let _shared = staged.store.shared()?;
        let mut extent = staged.extent()?;
        let end = offset.saturating_add(bytes.len() as u64);
        let mut at = offset;
        loop {
            let Under::Over(layer) = &extent.under else { return Ok(()) };
            let Some(gap) = layer.own.gap(at, layer.kept.min(end)) else { return Ok(()) };
            at = gap.end;
            let from = usize::try_from(gap.start - offset).unwrap_or(usize::MAX);
            let piece = bytes.get(from..).and_then(|rest| rest.get(..usize::try_from(gap.end - gap.start).ok()?)).unwrap_or_default();
            staged.keep_times()?;
            let reserved = staged.reserve(&extent, gap.start, gap.end)?;
            let filled = staged.fill(&mut extent, gap, piece).and_then(|()| staged.restore_mtime());
            staged.recount(&mut extent, reserved);
            filled.map_err(|error| staged.error("cannot fill in", &error))?;
        }
    }

    /// Ends filling: `true` once the file lies over nothing; `false` where it must be begun again.
    pub fn end_filling(&self, spoiled: u64) -> Result<bool, Error> {
        let staged = &self.staged;
        staged.sync_bytes()?;
        let mut extent = staged.extent()?;
        let Under::Over(layer) = &extent.under else { return Ok(true) };
        // A failed write may have left anything where the base shows; a restored file has a length of its own.
        if extent.spoiled != spoiled || layer.kept > extent.length {
            return Ok(false);
        }
        staged.end_base(&mut extent)?;
        Ok(true)
    }

    /// The base, if it is a staged file.
    pub(super) fn below(&self) -> Result<Option<DataId>, Error> {
        Ok(match &self.staged.extent()?.under {
            Under::Over(Layer { base: Base::Data(below), .. }) => Some(below.id),
            _ => None,
        })
    }

    /// The same bytes as those of the staged file below lie in a tree now. Returns the file, if nothing refers to it any more.
    pub(super) fn rebase(&self, below: DataId, tree: TreeNode) -> Result<Option<DataId>, Error> {
        let staged = &self.staged;
        let mut extent = staged.extent()?;
        let Under::Over(layer) = &mut extent.under else { return Ok(None) };
        if !matches!(&layer.base, Base::Data(base) if base.id == below) || layer.kept > tree.size {
            return Ok(None);
        }
        let stored = StoredBase::Tree(tree.clone());
        let released = staged.store.note("cannot settle", |connection| {
            bases::put(connection, staged.id, &stored, layer.kept)?;
            Ok(if is_referred(connection, below)? { None } else { Some(below) })
        })?;
        layer.base = Base::Tree(Arc::new(tree));
        Ok(released)
    }
}
