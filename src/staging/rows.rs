//! Converts database rows to values and back. Every read of an upper, live or frozen, goes through here.
//!
//! Trusts no value in a database: one of the wrong type means a damaged database, never a panic.

use std::sync::{Arc, LazyLock};

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{decode_tree, integer, optional_unsigned, unsigned};
use super::recent::Recent;
use super::schema::malformed;
use super::state::Store;
use super::{Content, DataAttributes, DataFile, DataId, EntryRow, NameRow, Named, Node, NodeKey, Rows, bases};
use crate::error::Error;
use crate::layer::{Metadata, NodeKind, Xattrs};

/// Provides a connection for reading.
pub(super) trait ReadRows: Send + Sync {
    /// Runs a read; `what` starts the error message.
    fn read<T>(&self, what: &str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error>;
    /// Reads a node, perhaps from memory.
    fn read_node(&self, key: NodeKey) -> Result<Option<Node>, Error> {
        self.read("cannot read", |connection| node(connection, key))
    }
    /// Reads the extended attributes of a node, perhaps from memory.
    fn read_xattrs(&self, key: NodeKey) -> Result<Xattrs, Error> {
        self.read("cannot read", |connection| xattrs(connection, key))
    }
    /// The store of the staged bytes.
    fn store(&self) -> &Arc<Store>;
}

impl<S: ReadRows> Rows for S {
    fn node(&self, key: NodeKey) -> Result<Option<Node>, Error> {
        self.read_node(key)
    }

    fn nodes(&self, after: Option<NodeKey>, limit: usize) -> Result<Vec<(NodeKey, Node)>, Error> {
        static SELECT: LazyLock<String> = LazyLock::new(|| format!("SELECT {COLUMNS}, key FROM nodes WHERE key > ? ORDER BY key LIMIT ?"));
        self.read("cannot read", |connection| {
            let after = after.map_or(Ok(-1), integer)?;
            let mut statement = connection.prepare_cached(&SELECT)?;
            let rows =
                statement.query_map([after, i64::try_from(limit).unwrap_or(i64::MAX)], |row| Ok((unsigned(row, KEY)?, decode(row)?)))?;
            rows.collect()
        })
    }

    fn name(&self, directory: NodeKey, name: &[u8]) -> Result<Option<Named>, Error> {
        self.read("cannot read", |connection| {
            let mut statement = connection.prepare_cached("SELECT node FROM names WHERE directory = ? AND name = ?")?;
            statement.query_row(params![integer(directory)?, name], |row| named(row, 0)).optional()
        })
    }

    fn names(&self, directory: NodeKey, after: u64, limit: usize) -> Result<Vec<NameRow>, Error> {
        self.read("cannot read", |connection| {
            let mut statement = connection
                .prepare_cached("SELECT cookie, name, node FROM names WHERE directory = ? AND cookie > ? ORDER BY cookie LIMIT ?")?;
            let (after, limit) = (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
            let rows = statement.query_map(params![integer(directory)?, after, limit], |row| {
                Ok(NameRow { cookie: unsigned(row, 0)?, name: row.get(1)?, named: named(row, 2)? })
            })?;
            rows.collect()
        })
    }

    fn entries(&self, directory: NodeKey, after: &[u8], limit: usize) -> Result<Vec<EntryRow>, Error> {
        static SELECT: LazyLock<String> = LazyLock::new(|| {
            // A walk knows the path of each name already.
            let columns = COLUMNS.replace("tree_path", "x''");
            format!(
                "SELECT {columns}, name, node, EXISTS (SELECT 1 FROM xattrs WHERE xattrs.node = names.node) \
                 FROM names LEFT JOIN nodes ON key = node WHERE directory = ? AND name > ? ORDER BY name LIMIT ?"
            )
        });
        self.read("cannot read", |connection| {
            let mut statement = connection.prepare_cached(&SELECT)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![integer(directory)?, after, limit], |row| {
                let has_row = row.get::<_, Option<i64>>(0)?.is_some();
                Ok(EntryRow {
                    name: row.get(NAME)?,
                    named: named(row, NAME + 1)?,
                    node: if has_row { Some(decode(row)?) } else { None },
                    has_xattrs: row.get(NAME + 2)?,
                })
            })?;
            rows.collect()
        })
    }

    fn xattrs(&self, key: NodeKey) -> Result<Xattrs, Error> {
        self.read_xattrs(key)
    }

    fn open_data(&self, id: DataId) -> Result<DataFile, Error> {
        self.store().check()?;
        self.store().data(id).map(DataFile::new)
    }

    fn data_attributes(&self, id: DataId) -> Result<DataAttributes, Error> {
        self.store().attributes(id)
    }
}

fn named(row: &Row<'_>, column: usize) -> rusqlite::Result<Named> {
    Ok(optional_unsigned(row, column)?.map_or(Named::Whiteout, Named::Node))
}

const COLUMNS: &str = "kind, mode, uid, gid, mtime, mtime_nanos, ctime, ctime_nanos, links, major, minor, target, opaque, parent, \
                       data, manifest, tree_node, tree_path, tree_sha256, tree_size";
/// The column of the key, in statements that select it.
const KEY: usize = 20;
/// The column of a name, in statements that select it.
const NAME: usize = 20;

/// Reads a node.
pub(super) fn node(connection: &Connection, key: NodeKey) -> rusqlite::Result<Option<Node>> {
    static SELECT: LazyLock<String> = LazyLock::new(|| format!("SELECT {COLUMNS} FROM nodes WHERE key = ?"));
    connection.prepare_cached(&SELECT)?.query_row([integer(key)?], decode).optional()
}

/// The same, from memory if it is known there.
pub(super) fn recent_node(connection: &Connection, recent: &mut Recent, key: NodeKey) -> rusqlite::Result<Option<Node>> {
    if let Some(known) = recent.node(key) {
        return Ok(Some(known.clone()));
    }
    let found = node(connection, key)?;
    if let Some(found) = &found {
        recent.keep(key, found);
    }
    Ok(found)
}

/// Reads the extended attributes of a node.
fn xattrs(connection: &Connection, key: NodeKey) -> rusqlite::Result<Xattrs> {
    let mut statement = connection.prepare_cached("SELECT name, value FROM xattrs WHERE node = ? ORDER BY name")?;
    statement.query_map([integer(key)?], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The same, without a query if it is known that there are none.
pub(super) fn recent_xattrs(connection: &Connection, recent: &mut Recent, key: NodeKey) -> rusqlite::Result<Xattrs> {
    if recent.is_bare(key) {
        return Ok(Xattrs::new());
    }
    let found = xattrs(connection, key)?;
    recent.set_bare(key, found.is_empty());
    Ok(found)
}

fn decode(row: &Row<'_>) -> rusqlite::Result<Node> {
    let owner: (Option<u32>, Option<u32>) = (row.get(2)?, row.get(3)?);
    let mtime: (Option<i64>, Option<u32>) = (row.get(4)?, row.get(5)?);
    Ok(Node {
        kind: decode_kind(row.get(0)?)?,
        metadata: Metadata {
            mode: row.get(1)?,
            owner: owner.0.zip(owner.1),
            mtime: mtime.0.zip(mtime.1),
            device: (row.get(9)?, row.get(10)?),
        },
        ctime: (row.get(6)?, row.get(7)?),
        links: row.get(8)?,
        target: row.get(11)?,
        opaque: row.get(12)?,
        parent: unsigned(row, 13)?,
        content: decode_content(row)?,
    })
}

fn decode_content(row: &Row<'_>) -> rusqlite::Result<Content> {
    if let Some(data) = optional_unsigned(row, 14)? {
        return Ok(Content::Data(data));
    }
    Ok(decode_tree(row, 15)?.map_or(Content::None, Content::Tree))
}

fn decode_kind(number: i64) -> rusqlite::Result<NodeKind> {
    KINDS
        .iter()
        .find(|(_, stored)| *stored == number)
        .map(|(kind, _)| *kind)
        .ok_or_else(|| rusqlite::Error::FromSqlConversionFailure(0, Type::Integer, format!("invalid node kind {number}").into()))
}

/// The numbers used in the format.
const KINDS: [(NodeKind, i64); 7] = [
    (NodeKind::File, 1),
    (NodeKind::Directory, 2),
    (NodeKind::Symlink, 3),
    (NodeKind::CharDevice, 4),
    (NodeKind::BlockDevice, 5),
    (NodeKind::Fifo, 6),
    (NodeKind::Socket, 7),
];

/// Stores a node. Returns the staged bytes that it no longer refers to.
pub(super) fn put_node(connection: &Connection, key: NodeKey, node: &Node) -> rusqlite::Result<Option<DataId>> {
    let before = connection
        .prepare_cached("SELECT data FROM nodes WHERE key = ?")?
        .query_row([integer(key)?], |row| optional_unsigned(row, 0))
        .optional()?;
    replace_node(connection, key, before, node)
}

/// The staged bytes that a node refers to.
pub(super) fn data_of(node: &Node) -> Option<DataId> {
    match node.content {
        Content::Data(id) => Some(id),
        Content::None | Content::Tree(_) => None,
    }
}

/// The same, given the staged bytes of the row that there is; `None` if there is none.
pub(super) fn replace_node(
    connection: &Connection,
    key: NodeKey,
    before: Option<Option<DataId>>,
    node: &Node,
) -> rusqlite::Result<Option<DataId>> {
    let data = data_of(node);
    let statement = match before {
        None => INSERT,
        // An update that names `data` would also rewrite its index.
        Some(before) if before == data => UPDATE_SAME_DATA,
        Some(_) => UPDATE,
    };
    store(connection, statement, key, node, data)?;
    if let Some(id) = data.filter(|_| before.flatten() != data) {
        bases::set_unsynced(connection, id, true)?;
    }
    Ok(before.flatten().filter(|before| Some(*before) != data))
}

const INSERT: &str = "INSERT INTO nodes (key, kind, mode, uid, gid, mtime, mtime_nanos, ctime, ctime_nanos, links, major, minor, target, opaque, \
    parent, manifest, tree_node, tree_path, tree_sha256, tree_size, data) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)";
const UPDATE: &str = "UPDATE nodes SET kind = ?2, mode = ?3, uid = ?4, gid = ?5, mtime = ?6, mtime_nanos = ?7, ctime = ?8, ctime_nanos = ?9, \
    links = ?10, major = ?11, minor = ?12, target = ?13, opaque = ?14, parent = ?15, manifest = ?16, tree_node = ?17, tree_path = ?18, \
    tree_sha256 = ?19, tree_size = ?20, data = ?21 WHERE key = ?1";
const UPDATE_SAME_DATA: &str = "UPDATE nodes SET kind = ?2, mode = ?3, uid = ?4, gid = ?5, mtime = ?6, mtime_nanos = ?7, ctime = ?8, \
    ctime_nanos = ?9, links = ?10, major = ?11, minor = ?12, target = ?13, opaque = ?14, parent = ?15, manifest = ?16, tree_node = ?17, \
    tree_path = ?18, tree_sha256 = ?19, tree_size = ?20 WHERE key = ?1 AND ?21 IS data";

fn store(connection: &Connection, statement: &str, key: NodeKey, node: &Node, data: Option<DataId>) -> rusqlite::Result<()> {
    let kind = KINDS.iter().find(|(kind, _)| *kind == node.kind).map(|(_, stored)| *stored);
    let tree = match &node.content {
        Content::Tree(tree) => Some(tree),
        Content::None | Content::Data(_) => None,
    };
    let Metadata { mode, owner, mtime, device } = node.metadata;
    let changed = connection.prepare_cached(statement)?.execute(params![
        integer(key)?,
        kind,
        mode,
        owner.map(|owner| owner.0),
        owner.map(|owner| owner.1),
        mtime.map(|mtime| mtime.0),
        mtime.map(|mtime| mtime.1),
        node.ctime.0,
        node.ctime.1,
        node.links,
        device.0,
        device.1,
        node.target,
        node.opaque,
        integer(node.parent)?,
        tree.map(|tree| tree.manifest.to_string()),
        tree.map(|tree| tree.node),
        tree.map(|tree| &tree.path),
        tree.and_then(|tree| tree.sha256.as_ref()),
        tree.map(|tree| integer(tree.size)).transpose()?,
        data.map(integer).transpose()?,
    ])?;
    if changed == 1 { Ok(()) } else { Err(malformed("cannot store a node that was just read")) }
}

/// Whether no node refers to staged bytes.
pub(super) fn is_of_no_node(connection: &Connection, id: DataId) -> rusqlite::Result<bool> {
    Ok(!connection.prepare_cached("SELECT 1 FROM nodes WHERE data = ? LIMIT 1")?.exists([integer(id)?])?)
}
