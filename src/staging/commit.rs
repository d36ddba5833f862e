//! Commits a confirmed publish to the upper: clean files refer to the new tree, and their staged bytes are freed.
//!
//! A node changes only if it still has the frozen content, or to the same bytes in another tree. Every intermediate commit is a valid state: the
//! tree that a node refers to is already confirmed.

use rusqlite::{Connection, params};

use super::columns::{integer, is_referred};
use super::freeze::FrozenUpper;
use super::rows;
use super::schema::malformed;
use super::upper::Upper;
use super::upper_row::store_state;
use super::{Content, DataId, NodeKey, Rows as _, TreeNode};
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;

/// Nodes per commit: few enough that other changes do not wait for long.
const BATCH: usize = 256;
/// The same for nodes that stay at their path.
const ALIKE: i64 = 8192;

/// The result of a call of [`Upper::refer_alike`].
pub struct Alike {
    /// The last key; `None` at the end.
    pub last: Option<NodeKey>,
    /// Whether some still refer to the old tree.
    pub left: bool,
}

/// A node that may refer to the new tree if it still has the frozen content.
struct Clean {
    key: NodeKey,
    tree: TreeNode,
    from: From,
}

/// The frozen content of a node.
enum From {
    /// Staged bytes, with the times that the row takes over.
    Data { id: DataId, mtime: (i64, u32), ctime: (i64, u32) },
    /// A node of an older tree.
    Tree(TreeNode),
}

impl Upper {
    /// The first part of a commit: the next few of these nodes that still have the frozen content and are not open refer to the tree instead; files
    /// written since get it as their base. Returns whether there may be more. The released bytes are freed by [`Upper::collect`].
    ///
    /// No file may be opened or written during a call; between calls they may. `references` and `is_open` are called without any lock of the
    /// upper.
    pub fn refer_some(
        &self,
        frozen: &FrozenUpper,
        references: &mut dyn Iterator<Item = (NodeKey, TreeNode)>,
        is_open: &dyn Fn(DataId) -> bool,
    ) -> Result<bool, Error> {
        let batch: Vec<_> = references.take(BATCH).collect();
        let is_last = batch.len() < BATCH;
        let (mut clean, mut released) = (Vec::new(), Vec::new());
        for (key, tree) in batch {
            released.extend(self.rebase(frozen, key, &tree)?);
            clean.extend(frozen.clean(key, tree, is_open)?);
        }
        released.extend(self.refer(clean)?);
        self.give_up(released)?;
        Ok(!is_last)
    }

    /// Makes nodes that refer to the tree of `old` refer to the same file in that of `new`: under the same path, with the number that `there` has for
    /// the old one. A bounded number a call, behind the key `after`.
    pub fn refer_alike(
        &self,
        (old, new): (Digest, Digest),
        there: &dyn Fn(u32) -> Option<u32>,
        after: Option<NodeKey>,
    ) -> Result<Alike, Error> {
        self.shared.transact("cannot settle", |connection| {
            let after = after.map_or(Ok(-1), integer)?;
            let mut select =
                connection.prepare_cached("SELECT key, tree_node FROM nodes WHERE key > ? AND manifest = ? ORDER BY key LIMIT ?")?;
            let rows = select.query_map(params![after, old.to_string(), ALIKE], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let rows = rows.collect::<rusqlite::Result<Vec<(i64, u32)>>>()?;
            let mut update = connection.prepare_cached("UPDATE nodes SET manifest = ?, tree_node = ? WHERE key = ?")?;
            let (new, mut left) = (new.to_string(), false);
            for (key, node) in &rows {
                match there(*node) {
                    Some(node) => drop(update.execute(params![new, node, key])?),
                    None => left = true,
                }
            }
            let last = rows.last().map(|(key, _)| u64::try_from(*key)).transpose();
            Ok(Alike { last: last.map_err(|_| malformed("a node has a negative number"))?, left })
        })
    }

    /// Replaces a frozen base by the tree node with the same bytes.
    fn rebase(&self, frozen: &FrozenUpper, key: NodeKey, tree: &TreeNode) -> Result<Option<DataId>, Error> {
        let (Some(before), Some(now)) = (frozen.rows().node(key)?, self.shared.node(key)?) else { return Ok(None) };
        match (before.content, now.content) {
            (Content::Data(before), Content::Data(now)) if before != now => match self.data(now) {
                Ok(data) if data.below()? == Some(before) => data.rebase(before, tree.clone()),
                Ok(_) => Ok(None),
                Err(error) if error.kind == ErrorKind::Gone => Ok(None),
                Err(error) => Err(error),
            },
            _ => Ok(None),
        }
    }

    /// The second part: records durably that the tag is expected to hold `digest`, and clears the journal. Returns whether nothing has changed since
    /// the freeze, so that nothing is left to publish. No file may be opened or written meanwhile.
    pub fn commit_publish(&self, frozen: FrozenUpper, digest: Digest) -> Result<bool, Error> {
        let is_clean = self.expect(&frozen, digest)?;
        self.shared.sync()?;
        Ok(is_clean)
    }

    /// The last part, slow and without a lock: frees released bytes and empties the packs.
    pub fn collect(&self) -> Result<(), Error> {
        self.shared.collect()?;
        self.empty_packs();
        Ok(())
    }

    /// Whether nothing has changed since this generation was frozen.
    pub fn is_unchanged_since(&self, frozen: &FrozenUpper) -> bool {
        self.shared.state.lock().changes == frozen.state.changes
    }

    /// Makes nodes refer to the tree. Returns the bytes they had.
    fn refer(&self, clean: Vec<Clean>) -> Result<Vec<DataId>, Error> {
        self.shared.transact("cannot settle", |connection| {
            let mut released = Vec::new();
            for node in clean {
                if refer(connection, &node)?
                    && let From::Data { id, .. } = node.from
                {
                    released.push(id);
                }
            }
            Ok(released)
        })
    }

    /// Stores the new expected digest of the tag.
    fn expect(&self, frozen: &FrozenUpper, digest: Digest) -> Result<bool, Error> {
        let database = self.shared.database()?;
        let mut state = self.shared.state.lock();
        let is_clean = state.changes == frozen.state.changes;
        let mut binding = state.binding;
        binding.expected = Some(digest);
        let store = || {
            let transaction = database.connection.unchecked_transaction()?;
            store_state(&transaction, &binding, !is_clean)?;
            transaction.execute("UPDATE upper SET journal = NULL", [])?;
            transaction.commit()
        };
        store().map_err(|error| self.shared.store.database_error("cannot settle", &error))?;
        state.binding = binding;
        state.edited = !is_clean;
        Ok(is_clean)
    }

    /// Releases bytes that no node has taken again meanwhile.
    fn give_up(&self, released: Vec<DataId>) -> Result<(), Error> {
        let database = self.shared.database()?;
        let mut pending_deletes = Vec::new();
        for id in released {
            if !is_referred(&database.connection, id).map_err(|error| self.shared.store.database_error("cannot settle", &error))? {
                pending_deletes.push(id);
            }
        }
        self.shared.store.give_up(pending_deletes);
        Ok(())
    }

    /// Removes packed layers, which are no longer needed. Leftovers are overwritten, or removed with the upper.
    fn empty_packs(&self) {
        let packs = self.packs();
        let emptied = std::fs::remove_dir_all(&packs).and_then(|()| crate::durable::make_directory(&packs));
        if let Err(error) = emptied {
            tracing::warn!(path = %packs.display(), %error, "cannot remove packed layers");
        }
    }
}

impl FrozenUpper {
    /// A node with the frozen content that is not open, and its node in the tree.
    fn clean(&self, key: NodeKey, tree: TreeNode, is_open: &dyn Fn(DataId) -> bool) -> Result<Option<Clean>, Error> {
        let id = match self.rows().node(key)?.map(|node| node.content) {
            Some(Content::Data(id)) => id,
            Some(Content::Tree(old)) => return Ok((old != tree).then_some(Clean { key, tree, from: From::Tree(old) })),
            Some(Content::None) | None => return Ok(None),
        };
        if is_open(id) {
            return Ok(None);
        }
        match self.rows().data_attributes(id) {
            Ok(data) => Ok(Some(Clean { key, tree, from: From::Data { id, mtime: data.mtime, ctime: data.ctime } })),
            Err(error) if error.kind == ErrorKind::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Makes one node refer to the tree if it still has the frozen content.
fn refer(connection: &Connection, clean: &Clean) -> rusqlite::Result<bool> {
    let Some(mut node) = rows::node(connection, clean.key)? else { return Ok(false) };
    match (&clean.from, &node.content) {
        (From::Data { id, mtime, ctime }, Content::Data(now)) if id == now => {
            node.metadata.mtime = Some(*mtime);
            node.ctime = node.ctime.max(*ctime);
        }
        (From::Tree(old), Content::Tree(now)) if old == now => {}
        _ => return Ok(false),
    }
    node.content = Content::Tree(clean.tree.clone());
    rows::put_node(connection, clean.key, &node)?;
    Ok(true)
}
