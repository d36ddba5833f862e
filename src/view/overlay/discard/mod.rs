//! Discards edits: below a path, the merged state becomes that of the tree which the tag is expected to hold.
//!
//! A file that was edited, replaced or removed comes back as a fresh node that refers to the tree, so that no inode ever
//! changes its bytes; an existing directory keeps its node and gets its attributes back. Open handles of the old file
//! keep it, without a name.
//!
//! It proceeds in small transactions, between which others may change the tag. Each leaves a valid state with part of the
//! edits discarded: the next discard completes one cut short by a crash. Changes made meanwhile stay edits.

pub(super) mod upstream;

use crate::artifact::{Kind, NodeId};
use crate::error::{Error, ErrorKind};
use crate::path::{components, join};
use crate::staging::{Binding, NameRow, Named, NodeKey};
use crate::view::overlay::Overlay;
use crate::view::overlay::discard::upstream::Upstream;
use crate::view::overlay::names::edit::Edit;
use crate::view::overlay::names::merged::{STAGED_NAMES, Seen, not_found};
use crate::view::overlay::plain::Forgotten;

/// Names per transaction, roughly: few enough that other changes do not wait long.
const BATCH: usize = 64;
/// Passes over a whole tag that others change meanwhile.
const PASSES: u32 = 3;

impl Overlay {
    /// Discards all changes below a path (the whole tag if empty): names lead to fresh nodes that refer to the tree. Passes to `forget` the inodes
    /// and names that the kernel must forget, transaction by transaction, with no lock held. After discarding everything, nothing is left to
    /// publish (unless the tag is new or others changed it meanwhile), and the bytes are freed.
    ///
    /// # Errors
    /// Other if the expected tree was not opened ([`Overlay::fetch_expected`]); NotFound if neither the tag
    /// nor the expected tree has the path; errors of the disk. Part of the edits may have been discarded then.
    pub fn discard(&self, path: &[u8], forget: &mut dyn FnMut(Vec<Forgotten>)) -> Result<(), Error> {
        let expected = match self.binding().expected {
            None => None,
            Some(digest) => Some(self.trees.get(&digest).ok_or_else(|| {
                Error::new(ErrorKind::Other, format!("the tree of {digest}, which the tag is expected to hold, is not open"))
            })?),
        };
        let mut discard = Discard::new(Upstream::new(expected));
        self.take_back(&mut discard, forget, |discard, edit| discard.start(edit, path))?;
        for pass in 1.. {
            while !discard.work.is_empty() {
                self.take_back(&mut discard, forget, |discard, edit| discard.some(edit))?;
            }
            if !path.is_empty() || self.take_back(&mut discard, forget, |discard, edit| discard.end(edit, pass == PASSES))? {
                break;
            }
        }
        if let Err(error) = self.upper().collect() {
            tracing::warn!("cannot free the bytes of discarded edits yet: {error}");
        }
        Ok(())
    }

    /// One transaction of a discard.
    fn take_back<T>(
        &self,
        discard: &mut Discard,
        forget: &mut dyn FnMut(Vec<Forgotten>),
        work: impl FnOnce(&mut Discard, &mut Edit<'_, '_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let value = {
            let _names = self.names.lock();
            let _gate = self.freeze_lock.write();
            let value = self.change(|edit| {
                discard.is_disturbed |= discard.changes.is_some_and(|changes| changes != edit.change.changes());
                let value = work(discard, edit)?;
                discard.changes = Some(edit.change.changes_then());
                Ok(value)
            })?;
            // Later writes count as changes again.
            self.next_epoch();
            value
        };
        forget(std::mem::take(&mut discard.forgotten));
        Ok(value)
    }
}

/// A directory to be made equal to one of the tree.
#[derive(Clone)]
struct DirectoryPair {
    directory: NodeKey,
    /// The directory upstream, if any.
    upstream: Option<NodeId>,
    path: Vec<u8>,
}

/// A directory being removed with everything below it, bottom up, so that it is empty when it loses its name.
#[derive(Clone)]
struct Removal {
    parent: NodeKey,
    name: Vec<u8>,
    directory: NodeKey,
    /// The cookie of the last name that was removed, or will be before this continues.
    after: u64,
}

/// Work left to do. Others may have changed the directories meanwhile.
enum Job {
    /// Make existing names equal to upstream: those after the first cookie and before the second.
    Here(DirectoryPair, u64, u64),
    /// Make names that exist upstream only, after a cookie.
    There(DirectoryPair, u64),
    /// Make a name once the directory in its place is gone.
    Name(DirectoryPair, Vec<u8>),
    Remove(Removal),
    /// Give a directory its upstream attributes, once everything in it is done.
    Attributes(NodeKey, NodeId),
}

struct Discard {
    upstream: Upstream,
    forgotten: Vec<Forgotten>,
    /// A stack instead of recursion: directory depth is unbounded.
    work: Vec<Job>,
    /// The upper's change counter after the last transaction of this discard.
    changes: Option<u64>,
    /// Others changed the tag during this pass.
    is_disturbed: bool,
}

impl Discard {
    fn new(upstream: Upstream) -> Self {
        Self { upstream, forgotten: Vec::new(), work: Vec::new(), changes: None, is_disturbed: false }
    }

    /// Finds the place; recreates missing directories on the way.
    fn start(&mut self, edit: &mut Edit<'_, '_>, path: &[u8]) -> Result<(), Error> {
        let names: Vec<&[u8]> = components(path).collect();
        let Some((last, parents)) = names.split_last() else {
            self.enter(edit, 0, self.upstream.root(), Vec::new());
            return Ok(());
        };
        if !self.upstream.has(&names.join(&b'/')) && edit.merged().find(path)?.is_none() {
            return Err(not_found());
        }
        let mut pair = DirectoryPair { directory: 0, upstream: self.upstream.root(), path: Vec::new() };
        for name in parents {
            let upstream = pair.upstream.and_then(|id| self.upstream.lookup(id, name));
            let path = join(&pair.path, name);
            let here = match edit.merged().lookup(pair.directory, name)? {
                Some(key) if edit.merged().see(key)?.kind() == Kind::Directory => Some(key),
                Some(key) => self.remove(edit, pair.directory, name, key).map(|()| None)?,
                None => None,
            };
            let directory = match (here, upstream) {
                (Some(key), _) => key,
                (None, Some(id)) => {
                    let made = self.make(edit, pair.directory, name, id, &path)?;
                    self.work.push(Job::Attributes(made, id));
                    made
                }
                (None, None) => return Err(not_found()),
            };
            pair = DirectoryPair { directory, upstream, path };
        }
        let theirs = pair.upstream.and_then(|id| self.upstream.lookup(id, last));
        let mine = edit.merged().lookup(pair.directory, last)?;
        self.restore_name(edit, &pair, last, (mine, theirs))
    }

    /// Does part of the work.
    fn some(&mut self, edit: &mut Edit<'_, '_>) -> Result<(), Error> {
        let mut names = 0;
        while names < BATCH
            && let Some(job) = self.work.pop()
        {
            names += 1;
            names += match job {
                Job::Here(pair, after, until) => self.restore_here(edit, pair, after, until)?,
                Job::There(pair, after) => self.restore_there(edit, pair, after)?,
                Job::Name(pair, name) => self.restore_missing(edit, &pair, &name)?,
                Job::Remove(removal) => self.empty(edit, removal)?,
                Job::Attributes(key, id) if is_alive(edit, key)? => {
                    if self.upstream.restore_attributes(edit, key, id)? {
                        self.forgotten.push(Forgotten::Node(key));
                    }
                    1
                }
                Job::Attributes(..) => 0,
            };
        }
        Ok(())
    }

    /// Ends a pass over the whole tag; `false` if another pass is worthwhile.
    fn end(&mut self, edit: &mut Edit<'_, '_>, is_last: bool) -> Result<bool, Error> {
        if std::mem::take(&mut self.is_disturbed) {
            if is_last {
                tracing::warn!("the tag was changed while its edits were discarded; these changes were kept");
            } else {
                self.enter(edit, 0, self.upstream.root(), Vec::new());
            }
            return Ok(is_last);
        }
        let binding = edit.change.binding();
        edit.change.bind(Binding { deleted: false, ..binding })?;
        edit.change.set_unedited();
        Ok(true)
    }

    fn enter(&mut self, edit: &Edit<'_, '_>, directory: NodeKey, upstream: Option<NodeId>, path: Vec<u8>) {
        let pair = DirectoryPair { directory, upstream, path };
        if let Some(id) = upstream {
            self.work.extend([Job::Attributes(directory, id), Job::There(pair.clone(), 0)]);
        }
        // Names made from now on are correct, or made by others.
        self.work.push(Job::Here(pair, 0, STAGED_NAMES + edit.change.next_cookie()));
    }

    fn restore_here(&mut self, edit: &mut Edit<'_, '_>, pair: DirectoryPair, after: u64, until: u64) -> Result<usize, Error> {
        if !is_alive(edit, pair.directory)? {
            return Ok(0);
        }
        let Some(page) = page(edit, pair.directory, after)? else { return Ok(0) };
        self.work.push(Job::Here(pair.clone(), page.last, until));
        for (cookie, name, key) in &page.names {
            if *cookie < until {
                let theirs = pair.upstream.and_then(|id| self.upstream.lookup(id, name));
                self.restore_name(edit, &pair, name, (Some(*key), theirs))?;
            }
        }
        Ok(page.rows)
    }

    fn restore_there(&mut self, edit: &mut Edit<'_, '_>, pair: DirectoryPair, after: u64) -> Result<usize, Error> {
        let names = pair.upstream.map(|id| self.upstream.names(id, after, BATCH)).unwrap_or_default();
        let Some((cookie, _)) = names.last() else { return Ok(0) };
        self.work.push(Job::There(pair.clone(), *cookie));
        names.iter().try_for_each(|(_, name)| self.restore_missing(edit, &pair, name).map(drop))?;
        Ok(names.len())
    }

    /// Makes a name of the upstream directory, unless one exists here.
    fn restore_missing(&mut self, edit: &mut Edit<'_, '_>, pair: &DirectoryPair, name: &[u8]) -> Result<usize, Error> {
        if is_alive(edit, pair.directory)? && edit.merged().lookup(pair.directory, name)?.is_none() {
            let theirs = pair.upstream.and_then(|id| self.upstream.lookup(id, name));
            self.restore_name(edit, pair, name, (None, theirs))?;
        }
        Ok(1)
    }

    /// Removes part of the content of a directory, and finally the directory.
    fn empty(&mut self, edit: &mut Edit<'_, '_>, mut removal: Removal) -> Result<usize, Error> {
        let key = removal.directory;
        if edit.merged().lookup(removal.parent, &removal.name)? != Some(key) {
            return Ok(0);
        }
        if let Some(page) = page(edit, key, removal.after)? {
            removal.after = page.last;
            self.work.push(Job::Remove(removal));
            for (_, name, child) in &page.names {
                self.clear(edit, key, name, *child)?;
            }
            return Ok(page.rows);
        }
        let hidden = hide(edit, key)?;
        if hidden.iter().any(|row| row.named != Named::Whiteout) {
            removal.after = 0;
        } else if hidden.is_empty() {
            return self.remove(edit, removal.parent, &removal.name, key).map(|()| 1);
        } else {
            hidden.iter().try_for_each(|row| edit.change.drop_name(key, &row.name))?;
        }
        self.work.push(Job::Remove(removal));
        Ok(BATCH)
    }

    /// Removes a name: at once, or step by step if it is a directory.
    fn clear(&mut self, edit: &mut Edit<'_, '_>, parent: NodeKey, name: &[u8], key: NodeKey) -> Result<(), Error> {
        if edit.merged().see(key)?.kind() == Kind::Directory {
            self.work.push(Job::Remove(Removal { parent, name: name.to_vec(), directory: key, after: 0 }));
            return Ok(());
        }
        self.remove(edit, parent, name, key)
    }

    /// Makes one name equal to upstream.
    fn restore_name(&mut self, edit: &mut Edit<'_, '_>, pair: &DirectoryPair, name: &[u8], sides: Sides) -> Result<(), Error> {
        let path = join(&pair.path, name);
        if let (Some(key), Some(id)) = sides {
            let kinds = (edit.merged().see(key)?.kind(), self.upstream.kind(id));
            if kinds == (Kind::Directory, Some(Kind::Directory)) {
                self.enter(edit, key, Some(id), path);
                return Ok(());
            }
            if self.upstream.stands_for(edit, key, id)? {
                return Ok(());
            }
            if kinds.0 == Kind::Directory {
                self.work.push(Job::Name(pair.clone(), name.to_vec()));
            }
        }
        if let Some(key) = sides.0 {
            self.clear(edit, pair.directory, name, key)?;
        }
        if let Some(id) = sides.1
            && edit.merged().lookup(pair.directory, name)?.is_none()
        {
            let made = self.make(edit, pair.directory, name, id, &path)?;
            if self.upstream.kind(id) == Some(Kind::Directory) {
                self.enter(edit, made, Some(id), path);
            }
        }
        Ok(())
    }

    /// Gives a name to a node of the upstream tree. A directory is empty.
    fn make(&mut self, edit: &mut Edit<'_, '_>, directory: NodeKey, name: &[u8], id: NodeId, path: &[u8]) -> Result<NodeKey, Error> {
        self.forgotten.push(Forgotten::Name(directory, name.to_vec()));
        self.upstream.make(edit, directory, name, id, path)
    }

    /// Removes a name; a directory must be empty.
    fn remove(&mut self, edit: &mut Edit<'_, '_>, directory: NodeKey, name: &[u8], key: NodeKey) -> Result<(), Error> {
        self.forgotten.extend([Forgotten::Name(directory, name.to_vec()), Forgotten::Node(key)]);
        let is_directory = edit.merged().see(key)?.kind() == Kind::Directory;
        edit.take_name(directory, name)?;
        edit.changed_names(directory, -i32::from(is_directory))?;
        edit.lose_name(key)
    }
}

/// The targets of a name, here and upstream.
type Sides = (Option<NodeKey>, Option<NodeId>);

/// Whether a directory still exists.
fn is_alive(edit: &Edit<'_, '_>, key: NodeKey) -> Result<bool, Error> {
    match edit.merged().see(key) {
        Ok(Seen::Row(row)) => Ok(row.kind == Kind::Directory && row.links > 0),
        Ok(Seen::Lower(_, node)) => Ok(node.kind == Kind::Directory),
        Err(error) if error.kind == ErrorKind::Gone => Ok(false),
        Err(error) => Err(error),
    }
}

/// A few rows of a directory.
struct Page {
    /// The cookie of the last of them.
    last: u64,
    rows: usize,
    /// The names they show, with cookies.
    names: Vec<(u64, Vec<u8>, NodeKey)>,
}

/// The next few rows of a directory after a cookie, those of the tree below first, hidden or not. `None` at the end.
fn page(edit: &Edit<'_, '_>, directory: NodeKey, after: u64) -> Result<Option<Page>, Error> {
    let (merged, mut names) = (edit.merged(), Vec::new());
    if after < STAGED_NAMES
        && let Some(tree) = edit.base.tree()
        && let Some(id) = merged.below(directory)?
    {
        let (mut last, mut rows) = (after, 0);
        for child in tree.children(id, after).take(BATCH) {
            (last, rows) = (child.cookie, rows + 1);
            if merged.lookup(directory, child.name)? == Some(child.node.into()) {
                names.push((child.cookie, child.name.to_vec(), child.node.into()));
            }
        }
        if rows > 0 {
            return Ok(Some(Page { last, rows, names }));
        }
    }
    let rows = edit.rows().names(directory, after.saturating_sub(STAGED_NAMES), BATCH)?;
    let Some(last) = rows.last().map(|row| STAGED_NAMES + row.cookie) else { return Ok(None) };
    let count = rows.len();
    names.extend(rows.into_iter().filter_map(|row| match row.named {
        Named::Node(key) => Some((STAGED_NAMES + row.cookie, row.name, key)),
        Named::Whiteout => None,
    }));
    Ok(Some(Page { last, rows: count, names }))
}

/// Makes a directory opaque whose tree names are all hidden one by one, so that the hiding rows can go. Returns a few of them.
fn hide(edit: &mut Edit<'_, '_>, directory: NodeKey) -> Result<Vec<NameRow>, Error> {
    if edit.merged().below(directory)?.is_some() {
        edit.update(directory, |node| node.opaque = true)?;
    }
    edit.rows().names(directory, 0, BATCH)
}
