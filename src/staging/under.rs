//! The base of a staged file: a file of a tree, or an older staged file that is no longer written.
//!
//! A file with a base holds only some ranges itself; the rest of the first `kept` bytes comes from its base. Bytes after `kept` are its own, zeros
//! if never written. `kept` never grows. The missing bytes are filled in from the base in the background, which changes nothing visible; then
//! the file no longer has a base.

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

/// Longest chain of bases. A longer one would be slow to read.
const DEEPEST: usize = 8;
/// Most own ranges of a file.
const MOST_RANGES: usize = 1 << 16;
/// Aligned pieces of this many zero bytes become holes.
const PIECE: usize = 64 << 10;

/// The base of a new staged file.
pub enum Below {
    /// An older staged file, which is never written again.
    Data(DataFile),
    /// A file of a tree.
    Tree(TreeNode),
}

impl Below {
    /// The length, if the whole base is visible.
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

/// A part of a file that is stored in one place.
pub struct Segment {
    /// The range, the same in the file and in that place.
    pub range: Range<u64>,
    /// The place.
    pub held: Held,
}

/// Where bytes are stored.
pub enum Held {
    /// In a local staged file.
    Here(HeldHere),
    /// In a tree.
    Tree(Arc<TreeNode>),
}

/// A local staged file that holds bytes.
pub struct HeldHere(Arc<Staged>);

impl HeldHere {
    /// Bytes of a range, zeros where there are none.
    pub fn read(&self, range: &Range<u64>) -> Result<Vec<u8>, Error> {
        read_exact_or_zeros(&self.0.file, range).map_err(|error| self.0.error("cannot read", &error))
    }

    /// The start of data (or of a hole) at or after an offset; `None` if there is none.
    pub fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>, Error> {
        let found = if data { next_data(&self.0.file, offset) } else { next_hole(&self.0.file, offset) };
        found.map_err(|error| self.0.error("cannot seek in", &error))
    }
}

impl Staged {
    /// Sets the base of this new empty file.
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

    /// Locks the extent, with the base loaded.
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

    /// Where the byte at an offset is stored, and how far (at most to `end`) the following bytes are stored there too.
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

    /// Records that bytes just written are the file's own.
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

    /// Called before the file is truncated: base bytes after the new length no longer count, even if the process dies first.
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

    /// Called after the file was truncated.
    pub fn end_cut(&self, extent: &mut Extent) -> Result<(), Error> {
        if matches!(&extent.under, Under::Over(layer) if layer.kept == 0) {
            return self.end_base(extent);
        }
        self.store.note("cannot cut", |connection| bases::end_cut(connection, self.id))
    }

    /// Records that the file holds all its bytes.
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
    /// Marks a staged file as the base of another.
    pub fn sealed(below: Arc<Staged>) -> Self {
        below.sealed.store(true, Ordering::Release);
        Self::Data(below)
    }
}

impl DataFile {
    /// Where the byte at an offset is stored, and how far (at most to `end`) the following bytes are stored there too.
    pub fn segment(&self, at: u64, end: u64) -> Result<Segment, Error> {
        self.staged.segment(at, end)
    }

    /// The file itself, if it holds all its bytes.
    pub fn whole_file(&self) -> Result<Option<File>, Error> {
        if !self.is_whole()? {
            return Ok(None);
        }
        // Reopened, to have its own file position.
        let path = self.staged.store.path(self.id());
        File::open(&path).map(Some).map_err(|error| self.staged.error("cannot open", &error))
    }

    /// Whether it has no base.
    pub fn is_whole(&self) -> Result<bool, Error> {
        Ok(matches!(self.staged.extent()?.under, Under::Nothing))
    }

    /// Whether its bytes must not change: a frozen generation holds them, or it is the base of another file. A writer creates a new file over it.
    pub fn is_fixed(&self) -> bool {
        self.staged.is_fixed()
    }

    /// Whether it must be filled before more is written to it or a file created over it: the chain or the set of ranges is too long.
    pub fn needs_filling(&self) -> Result<bool, Error> {
        let ranges = match &self.staged.extent()?.under {
            Under::Over(layer) => layer.own.len(),
            Under::Nothing | Under::Unknown => return Ok(false),
        };
        Ok(ranges >= MOST_RANGES || self.is_fixed() && self.staged.depth()? >= DEEPEST)
    }

    /// Starts filling, by any number of [`DataFile::fill`] calls. Returns how many bytes are missing, and the argument for
    /// [`DataFile::end_filling`].
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

    /// The first range at or after an offset that still comes from the base.
    pub fn gap(&self, offset: u64) -> Result<Option<Range<u64>>, Error> {
        Ok(match &self.staged.extent()?.under {
            Under::Over(layer) => layer.own.gap(offset, layer.kept),
            Under::Nothing | Under::Unknown => None,
        })
    }

    /// Copies bytes of the base, except where the file was written meanwhile. No visible change, including times.
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

    /// Ends filling: `true` once the file has no base; `false` if filling must start over.
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

    /// The bytes of the staged base are now in a tree: switches the base. Returns the old base, if nothing refers to it any more.
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
