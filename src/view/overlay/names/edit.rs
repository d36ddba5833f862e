//! One change of one tag, inside a transaction of its upper. A tree node's metadata is copied up before it changes: the upper gets
//! a row with all its attributes, and no bytes.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::artifact::Kind;
use crate::error::{Error, ErrorKind};
use crate::staging::{Change, Content, Named, Node, NodeKey, Rows, STAGED};
use crate::view::overlay::bytes::table::Table;
use crate::view::overlay::names::base::Base;
use crate::view::overlay::names::merged::{Merged, Seen, fault, gone, not_a_directory, not_found, without_own};
use crate::view::overlay::names::removed::Removed;
use crate::view::overlay::{OpenFile, Overlay};
use crate::view::pins::Pins;

/// Rows of names dropped at a time.
const BATCH: usize = 256;

/// A transaction that knows the tree below.
pub(in crate::view::overlay) struct Edit<'edit, 'upper> {
    pub change: &'edit mut Change<'upper>,
    pub base: &'edit Base,
    pub table: &'edit Table<OpenFile>,
    pub removed: &'edit Removed,
    pub pins: Option<&'edit Pins>,
    /// The time of the change.
    pub now: (i64, u32),
}

impl Overlay {
    /// Runs one change in a transaction.
    pub(in crate::view::overlay) fn change<T>(&self, work: impl FnOnce(&mut Edit<'_, '_>) -> Result<T, Error>) -> Result<T, Error> {
        self.upper.change(|change| work(&mut self.edit(change)))
    }

    pub(in crate::view::overlay) fn edit<'change, 'upper>(&'change self, change: &'change mut Change<'upper>) -> Edit<'change, 'upper> {
        let Self { base, table, removed, .. } = self;
        Edit { change, base, table, removed, pins: self.pins.get().map(|pins| &**pins), now: now() }
    }
}

impl Edit<'_, '_> {
    pub fn rows(&self) -> &dyn Rows {
        self.change.rows()
    }

    pub fn merged(&self) -> Merged<'_> {
        Merged { rows: self.change.rows(), base: self.base }
    }

    /// Changes a node, copying its metadata up if the upper has no row for it. Returns the new row.
    pub fn update(&mut self, key: NodeKey, work: impl FnOnce(&mut Node)) -> Result<Node, Error> {
        let (mut node, fresh) = match self.merged().row(key)? {
            Some(row) => (row, false),
            None => (self.copy_up_metadata(key)?, true),
        };
        work(&mut node);
        if fresh {
            self.base.mark(key);
        }
        self.change.put_node(key, &node)?;
        if fresh && let Some(id) = self.base.lower(key) {
            let xattrs = without_own(self.base.xattrs(id));
            if !xattrs.is_empty() {
                self.change.put_xattrs(key, &xattrs)?;
            }
        }
        Ok(node)
    }

    /// The row for a tree node to be copied up.
    fn copy_up_metadata(&self, key: NodeKey) -> Result<Node, Error> {
        match self.merged().see(key)? {
            Seen::Row(row) => Ok(row),
            Seen::Lower(id, _) => self.base.row(id, self.now).ok_or_else(gone),
        }
    }

    /// The row of a directory in which a name is about to be created.
    pub fn directory(&self, key: NodeKey) -> Result<Node, Error> {
        let node = self.copy_up_metadata(key)?;
        if node.kind != Kind::Directory {
            return Err(not_a_directory());
        }
        // Nothing is created in a removed directory, be it that of the whole tag.
        if node.links == 0 || self.change.binding().deleted {
            return Err(not_found());
        }
        Ok(node)
    }

    /// Called when a name was created or removed in a directory; `links` is the change in the number of subdirectories.
    pub fn changed_names(&mut self, directory: NodeKey, links: i32) -> Result<(), Error> {
        let now = self.now;
        self.update(directory, |node| {
            node.metadata.mtime = Some(now);
            node.ctime = now;
            node.links = node.links.saturating_add_signed(links);
        })?;
        Ok(())
    }

    /// Makes a name lead to a node.
    pub fn put_name(&mut self, directory: NodeKey, name: &[u8], key: NodeKey) -> Result<(), Error> {
        self.base.mark(directory);
        self.change.put_name(directory, name, Named::Node(key))
    }

    /// Removes a name; a name of the tree below must not show through again.
    pub fn take_name(&mut self, directory: NodeKey, name: &[u8]) -> Result<(), Error> {
        if self.merged().lookup_below(directory, name)?.is_some() {
            self.base.mark(directory);
            return self.change.put_name(directory, name, Named::Whiteout);
        }
        self.change.drop_name(directory, name)
    }

    /// Removes one name of a node, or all of a directory. An open file lives on without a name.
    pub fn lose_name(&mut self, key: NodeKey) -> Result<(), Error> {
        let now = self.now;
        let node = self.update(key, |node| {
            node.links = if node.kind == Kind::Directory { 0 } else { node.links.saturating_sub(1) };
            node.ctime = now;
            // Its names are gone, including those of the tree below.
            node.opaque |= node.kind == Kind::Directory;
        })?;
        if node.links > 0 {
            return Ok(());
        }
        if node.kind == Kind::Directory {
            self.drop_names(key)?;
        }
        let is_open = self.table.orphan(key) || self.pins.is_some_and(|pins| pins.has(key));
        if is_open { Ok(()) } else { self.bury(key) }
    }

    /// Drops a node without names. A tree node leaves a mark that it is gone, since file descriptors may still refer to it.
    pub fn bury(&mut self, key: NodeKey) -> Result<(), Error> {
        if key >= STAGED {
            if let Some(row) = self.merged().row(key)? {
                self.removed.note(key, row);
            }
            return self.change.drop_node(key);
        }
        self.update(key, |node| {
            if matches!(node.content, Content::Data(_)) {
                node.content = Content::None;
            }
        })?;
        Ok(())
    }

    /// Drops the upper's rows for all names of a directory.
    pub fn drop_names(&mut self, directory: NodeKey) -> Result<(), Error> {
        loop {
            let names = self.rows().names(directory, 0, BATCH)?;
            if names.is_empty() {
                return Ok(());
            }
            for row in names {
                self.change.drop_name(directory, &row.name)?;
            }
        }
    }
}

/// The current time: seconds since the epoch and nanoseconds.
fn now() -> (i64, u32) {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(_) => (0, 0),
    }
}

/// Rejects names not allowed for new files.
pub(in crate::view::overlay) fn check_new_name(name: &[u8]) -> Result<(), Error> {
    check_name(name)?;
    if name.starts_with(b".wh.") {
        return Err(fault(ErrorKind::Invalid, "names that begin with .wh. are reserved for whiteouts in layers"));
    }
    Ok(())
}

/// Rejects invalid names.
pub(in crate::view::overlay) fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > 255 {
        return Err(fault(ErrorKind::TooLong, "a name has at most 255 bytes"));
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(fault(ErrorKind::Invalid, "invalid name"));
    }
    Ok(())
}
