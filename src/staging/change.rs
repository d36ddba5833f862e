//! One transaction: all or nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::columns::{integer, is_referred};
use super::recent::Recent;
use super::rows::{self, ReadRows};
use super::state::{Database, Marks, Shared, Store, UpperState};
use super::upper_row::{store_marks, store_state};
use super::{Below, Binding, Content, DataFile, DataId, Named, Node, NodeKey, Rows, STAGED, bases};
use crate::error::{Error, ErrorKind};
use crate::layer::Xattrs;

/// Numbers reserved at a time, so that not every change has to store the counter.
const NODES: u64 = 4096;
const COOKIES: u64 = 65536;
const DATA: u64 = 4096;

/// A transaction, open while [`super::Upper::change`] runs its closure.
pub struct Change<'upper> {
    inside: Inside<'upper>,
    marks: &'upper mut Marks,
    before: Marks,
    shared: &'upper Shared,
    state: UpperState,
    state_before: UpperState,
    /// Bytes that a node no longer refers to.
    released: Vec<DataId>,
    /// Bytes that a node now refers to.
    referred: Vec<DataId>,
    /// Those of them with a base.
    laid: Vec<DataId>,
    is_changed: bool,
    /// The change restores the published state.
    is_unedited: bool,
    /// The change does not affect what is published.
    is_tidying: bool,
    is_done: bool,
}

/// Reads inside the transaction. The lock is never contended; it only makes the borrow shareable.
struct Inside<'upper> {
    opened: Mutex<(&'upper mut Connection, &'upper mut Recent)>,
    store: &'upper Arc<Store>,
}

impl ReadRows for Inside<'_> {
    fn read<T>(&self, what: &str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        work(self.opened.lock().0).map_err(|error| self.store.database_error(what, &error))
    }

    fn read_node(&self, key: NodeKey) -> Result<Option<Node>, Error> {
        let (connection, recent) = &mut *self.opened.lock();
        rows::recent_node(connection, recent, key).map_err(|error| self.store.database_error("cannot read", &error))
    }

    fn read_xattrs(&self, key: NodeKey) -> Result<Xattrs, Error> {
        let (connection, recent) = &mut *self.opened.lock();
        rows::recent_xattrs(connection, recent, key).map_err(|error| self.store.database_error("cannot read", &error))
    }

    fn store(&self) -> &Arc<Store> {
        self.store
    }
}

impl<'upper> Change<'upper> {
    pub(super) fn begin(database: &'upper mut Database, shared: &'upper Shared) -> Result<Self, Error> {
        let Database { connection, recent, marks } = database;
        let begun = connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        begun.map_err(|error| shared.store.database_error("cannot change", &error))?;
        Ok(Self {
            inside: Inside { opened: Mutex::new((connection, recent)), store: &shared.store },
            before: *marks,
            marks,
            shared,
            state: shared.state(),
            state_before: shared.state(),
            released: Vec::new(),
            referred: Vec::new(),
            laid: Vec::new(),
            is_changed: false,
            is_unedited: false,
            is_tidying: false,
            is_done: false,
        })
    }

    /// Commits. Returns the staged bytes that are no longer referred to.
    pub(super) fn commit(mut self) -> Result<Vec<DataId>, Error> {
        let released = std::mem::take(&mut self.released);
        let (was, before) = (self.state_before, self.before);
        let data = self.shared.store.next.load(Ordering::Relaxed);
        if self.is_changed {
            if !self.is_tidying {
                self.state.edited = !self.is_unedited;
            }
            self.state.changes += 1;
            if data + DATA / 2 > self.marks.data {
                self.marks.data = data + DATA;
            }
        }
        let (marks, state) = (*self.marks, self.state);
        let mut unreferenced = Vec::new();
        self.run(|connection| {
            if (marks.nodes, marks.cookies, marks.data) != (before.nodes, before.cookies, before.data) {
                store_marks(connection, &marks)?;
            }
            if (state.binding, state.edited) != (was.binding, was.edited) {
                store_state(connection, &state.binding, state.edited)?;
            }
            for id in released {
                if !is_referred(connection, id)? {
                    unreferenced.push(id);
                }
            }
            connection.prepare_cached("COMMIT")?.execute([])
        })?;
        self.is_done = true;
        *self.shared.state.lock() = self.state;
        self.shared.store.set_referred(&self.referred);
        self.laid.iter().for_each(|id| self.shared.store.set_partial(*id, true));
        Ok(unreferenced)
    }

    fn run<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let (connection, _) = self.inside.opened.get_mut();
        work(connection).map_err(|error| self.inside.store.database_error("cannot change", &error))
    }

    fn recent(&mut self) -> &mut Recent {
        self.inside.opened.get_mut().1
    }

    /// Reads inside the transaction.
    pub fn rows(&self) -> &dyn Rows {
        &self.inside
    }

    /// Stores a new node, whose staged bytes are new too, under a new number.
    pub fn add_node(&mut self, node: &Node) -> Result<NodeKey, Error> {
        let key = self.marks.next_node;
        self.marks.next_node += 1;
        if self.marks.next_node > self.marks.nodes {
            self.marks.nodes += NODES;
        }
        self.is_changed = true;
        self.run(|connection| rows::replace_node(connection, key, None, node))?;
        self.referred.extend(rows::data_of(node));
        self.recent().keep(key, node);
        self.recent().set_bare(key, true);
        Ok(key)
    }

    /// Stores a new or changed node, and counts it as changed now. Also called by a writer's first write.
    pub fn put_node(&mut self, key: NodeKey, node: &Node) -> Result<(), Error> {
        if key >= self.marks.next_node {
            return Err(Error::new(ErrorKind::Invalid, format!("invalid node number {key}")));
        }
        if let Content::Data(id) = node.content
            && self.inside.store.pending_deletes.lock().contains(id)
        {
            return Err(Error::new(ErrorKind::Gone, format!("an earlier change released the staged bytes {id}")));
        }
        self.is_changed = true;
        let before = self.recent().node(key).map(rows::data_of);
        let released = self.run(|connection| {
            if let Content::Data(id) = node.content {
                connection.prepare_cached("DELETE FROM digests WHERE data = ?")?.execute([integer(id)?])?;
            }
            match before {
                Some(data) => rows::replace_node(connection, key, Some(data), node),
                None => rows::put_node(connection, key, node),
            }
        })?;
        self.referred.extend(rows::data_of(node));
        self.released.extend(released);
        self.recent().keep(key, node);
        Ok(())
    }

    /// Stores the base of a new staged file, in the same change that makes a node refer to it.
    pub fn lay(&mut self, data: &DataFile, below: &Below) -> Result<(), Error> {
        let (id, stored, kept) = (data.id(), below.stored(), below.kept()?);
        if kept > 0 {
            self.run(|connection| bases::put(connection, id, &stored, kept))?;
            self.laid.push(id);
        }
        Ok(())
    }

    /// Removes a node and its attributes; its staged bytes are unlinked after the commit unless a frozen generation holds them.
    pub fn drop_node(&mut self, key: NodeKey) -> Result<(), Error> {
        self.is_changed = true;
        let released = self.run(|connection| {
            let mut statement = connection.prepare_cached("DELETE FROM nodes WHERE key = ? RETURNING data")?;
            let mut found = statement.query([integer(key)?])?;
            let mut released = None;
            while let Some(row) = found.next()? {
                released = row.get::<_, Option<i64>>(0)?.and_then(|id| u64::try_from(id).ok());
            }
            connection.prepare_cached("DELETE FROM xattrs WHERE node = ?")?.execute([integer(key)?])?;
            Ok(released)
        })?;
        self.released.extend(released);
        self.recent().forget(key);
        Ok(())
    }

    /// Sets a name, replacing its row; the new row gets a new cookie.
    pub fn put_name(&mut self, directory: NodeKey, name: &[u8], named: Named) -> Result<(), Error> {
        self.is_changed = true;
        let cookie = self.marks.next_cookie;
        self.marks.next_cookie += 1;
        if self.marks.next_cookie > self.marks.cookies {
            self.marks.cookies += COOKIES;
        }
        let node = match named {
            Named::Node(key) => Some(key),
            Named::Whiteout => None,
        };
        self.run(|connection| {
            let stored = params![integer(directory)?, name, integer(cookie)?, node.map(integer).transpose()?];
            connection.prepare_cached("INSERT OR REPLACE INTO names (directory, name, cookie, node) VALUES (?, ?, ?, ?)")?.execute(stored)
        })?;
        Ok(())
    }

    /// Drops the row of a name, so that the name in the tree below shows through.
    pub fn drop_name(&mut self, directory: NodeKey, name: &[u8]) -> Result<(), Error> {
        self.is_changed = true;
        self.run(|connection| {
            connection.prepare_cached("DELETE FROM names WHERE directory = ? AND name = ?")?.execute(params![integer(directory)?, name])
        })?;
        Ok(())
    }

    /// Sets all extended attributes of a node at once (copy-up of attributes).
    pub fn put_xattrs(&mut self, key: NodeKey, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Error> {
        self.is_changed = true;
        self.run(|connection| connection.prepare_cached("DELETE FROM xattrs WHERE node = ?")?.execute([integer(key)?]))?;
        xattrs.iter().try_for_each(|(name, value)| self.put_xattr(key, name, Some(value)))
    }

    /// Sets or (`None`) removes one extended attribute.
    pub fn put_xattr(&mut self, key: NodeKey, name: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        self.is_changed = true;
        self.recent().set_bare(key, false);
        self.run(|connection| match value {
            Some(value) => {
                let stored = params![integer(key)?, name, value];
                connection.prepare_cached("INSERT OR REPLACE INTO xattrs (node, name, value) VALUES (?, ?, ?)")?.execute(stored)
            }
            None => connection.prepare_cached("DELETE FROM xattrs WHERE node = ? AND name = ?")?.execute(params![integer(key)?, name]),
        })?;
        Ok(())
    }

    /// Declares that this commit undoes all edits, so that nothing is left to publish.
    pub fn set_unedited(&mut self) {
        self.is_changed = true;
        self.is_unedited = true;
    }

    /// Declares that this commit is not an edit: whether anything is left to publish stays the same.
    pub(super) fn set_tidying(&mut self) {
        self.is_tidying = true;
    }

    /// The cookie of the next name; all existing ones are smaller.
    pub fn next_cookie(&self) -> u64 {
        self.marks.next_cookie
    }

    /// The number of changes committed by this process before this one.
    pub fn changes(&self) -> u64 {
        self.state.changes
    }

    /// The value of [`Change::changes`] right after this change.
    pub fn changes_then(&self) -> u64 {
        self.state.changes + u64::from(self.is_changed)
    }

    /// The digests that the upper is bound to after this commit.
    pub fn binding(&self) -> Binding {
        self.state.binding
    }

    /// Changes the binding.
    pub fn bind(&mut self, binding: Binding) -> Result<(), Error> {
        if self.state.binding == binding {
            return Ok(());
        }
        self.is_changed = true;
        self.state.binding = binding;
        Ok(())
    }
}

impl Drop for Change<'_> {
    /// Rolls back an uncommitted change, also when the closure panicked.
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        *self.marks = self.before;
        self.recent().clear();
        let rolled_back =
            self.run(|connection| if connection.is_autocommit() { Ok(0) } else { connection.prepare_cached("ROLLBACK")?.execute([]) });
        if let Err(error) = rolled_back {
            tracing::error!(%error, "cannot roll back a staging transaction");
        }
    }
}

/// The counters of a new upper.
pub(super) const FIRST: Marks = Marks { next_node: STAGED + 1, nodes: STAGED + 1, next_cookie: 1, cookies: 1, data: 1 };
