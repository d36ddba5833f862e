//! Rows about staged bytes: the base of a file, its own ranges, times, digests, suspects.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{decode_tree, integer, is_referred, unsigned};
use super::ranges::{Joined, Ranges};
use super::schema::malformed;
use super::{DataId, TreeNode};
use crate::oci::Digest;

/// The base of a staged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredBase {
    /// An older staged file.
    Data(DataId),
    /// A node of a tree.
    Tree(TreeNode),
}

/// The stored record of a staged file with a base.
pub(super) struct StoredLayer {
    pub base: StoredBase,
    /// How many bytes of the base are visible.
    pub kept: u64,
    /// The ranges that the file itself holds.
    pub own: Ranges,
}

/// Reads the base of a staged file.
pub(super) fn read(connection: &Connection, id: DataId) -> rusqlite::Result<Option<StoredLayer>> {
    let mut statement =
        connection.prepare_cached("SELECT kept, base, manifest, tree_node, tree_path, tree_sha256, tree_size FROM bases WHERE data = ?")?;
    let found = statement.query_row([integer(id)?], |row| Ok((unsigned(row, 0)?, base(row, id)?))).optional()?;
    let Some((kept, base)) = found else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT start, end FROM extents WHERE data = ? ORDER BY start")?;
    let stored =
        statement.query_map([integer(id)?], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let own = Ranges::of(stored).ok_or_else(|| malformed("ranges of staged bytes overlap"))?;
    Ok(Some(StoredLayer { base, kept, own }))
}

/// Decodes a base. Its number is smaller than the file's, which rules out cycles.
fn base(row: &Row<'_>, id: DataId) -> rusqlite::Result<StoredBase> {
    match row.get::<_, Option<i64>>(1)? {
        Some(_) => {
            let base = unsigned(row, 1)?;
            if base < id { Ok(StoredBase::Data(base)) } else { Err(malformed("staged bytes lie over newer ones")) }
        }
        None => decode_tree(row, 2)?.map(StoredBase::Tree).ok_or_else(|| malformed("staged bytes lie over nothing")),
    }
}

/// Stores the base of a new staged file, or replaces an existing one by another with the same bytes.
pub(super) fn put(connection: &Connection, id: DataId, base: &StoredBase, kept: u64) -> rusqlite::Result<()> {
    let (data, tree) = match base {
        StoredBase::Data(data) => (Some(integer(*data)?), None),
        StoredBase::Tree(tree) => (None, Some(tree)),
    };
    let statement = "INSERT OR REPLACE INTO bases (data, kept, base, manifest, tree_node, tree_path, tree_sha256, tree_size) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    connection.prepare_cached(statement)?.execute(params![
        integer(id)?,
        integer(kept)?,
        data,
        tree.map(|tree| tree.manifest.to_string()),
        tree.map(|tree| tree.node),
        tree.map(|tree| &tree.path),
        tree.and_then(|tree| tree.sha256.as_ref()),
        tree.map(|tree| integer(tree.size)).transpose()?,
    ])?;
    Ok(())
}

/// Adds to a file's own ranges.
pub(super) fn join(connection: &Connection, id: DataId, joined: &Joined) -> rusqlite::Result<()> {
    for start in joined.gone.iter().filter(|start| **start != joined.range.start) {
        connection.prepare_cached("DELETE FROM extents WHERE data = ? AND start = ?")?.execute(params![integer(id)?, integer(*start)?])?;
    }
    let stored = params![integer(id)?, integer(joined.range.start)?, integer(joined.range.end)?];
    connection.prepare_cached("INSERT OR REPLACE INTO extents (data, start, end) VALUES (?, ?, ?)")?.execute(stored)?;
    Ok(())
}

/// Shortens the visible part of the base before the file is truncated; if a crash intervenes, the next opening completes it.
pub(super) fn begin_cut(connection: &Connection, id: DataId, length: u64) -> rusqlite::Result<()> {
    let (id, length) = (integer(id)?, integer(length)?);
    connection.prepare_cached("DELETE FROM extents WHERE data = ? AND start >= ?")?.execute([id, length])?;
    connection.prepare_cached("UPDATE extents SET end = ?2 WHERE data = ?1 AND end > ?2")?.execute([id, length])?;
    connection.prepare_cached("UPDATE bases SET kept = ?2, cut = ?2 WHERE data = ?1")?.execute([id, length])?;
    Ok(())
}

/// Records that the truncation is complete.
pub(super) fn end_cut(connection: &Connection, id: DataId) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE bases SET cut = NULL WHERE data = ?")?.execute([integer(id)?])?;
    Ok(())
}

/// Records that a file holds all its bytes. Returns its base, if that is a staged file no longer referred to.
pub(super) fn end(connection: &Connection, id: DataId) -> rusqlite::Result<Option<DataId>> {
    let number = integer(id)?;
    let below: Option<Option<i64>> =
        connection.prepare_cached("DELETE FROM bases WHERE data = ? RETURNING base")?.query_row([number], |row| row.get(0)).optional()?;
    connection.prepare_cached("DELETE FROM extents WHERE data = ?")?.execute([number])?;
    let Some(below) = below.flatten().and_then(|below| u64::try_from(below).ok()) else { return Ok(None) };
    Ok(if is_referred(connection, below)? { None } else { Some(below) })
}

/// Drops all rows about removed staged bytes. Returns their base, if that is a staged file no longer referred to.
pub(super) fn forget(connection: &Connection, id: DataId) -> rusqlite::Result<Option<DataId>> {
    for statement in [
        "DELETE FROM digests WHERE data = ?",
        "DELETE FROM times WHERE data = ?",
        "DELETE FROM unsynced WHERE data = ?",
        "DELETE FROM suspects WHERE data = ?",
    ] {
        connection.prepare_cached(statement)?.execute([integer(id)?])?;
    }
    end(connection, id)
}

/// Records that bytes may be lost in a power cut, or (`false`) that they are safe.
pub(super) fn set_unsynced(connection: &Connection, id: DataId, is_unsynced: bool) -> rusqlite::Result<()> {
    let statement = if is_unsynced { "INSERT OR IGNORE INTO unsynced (data) VALUES (?)" } else { "DELETE FROM unsynced WHERE data = ?" };
    connection.prepare_cached(statement)?.execute([integer(id)?])?;
    Ok(())
}

/// Clears the suspicion of damaged bytes.
pub(super) fn clear_suspect(connection: &Connection, id: DataId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM suspects WHERE data = ?")?.execute([integer(id)?])?;
    Ok(())
}

/// Stores (or clears) a time that the disk cannot represent.
pub(super) fn set_time(connection: &Connection, id: DataId, mtime: Option<(i64, u32)>) -> rusqlite::Result<()> {
    match mtime {
        Some((seconds, nanoseconds)) => {
            let statement = "INSERT OR REPLACE INTO times (data, mtime, mtime_nanos) VALUES (?, ?, ?)";
            connection.prepare_cached(statement)?.execute(params![integer(id)?, seconds, nanoseconds])?
        }
        None => connection.prepare_cached("DELETE FROM times WHERE data = ?")?.execute([integer(id)?])?,
    };
    Ok(())
}

/// All rows about staged bytes.
#[derive(Default)]
pub(super) struct Stored {
    /// Files with a base: minimum length, and the target length of an interrupted truncation.
    pub partial: HashMap<DataId, (u64, Option<u64>)>,
    /// The base of each file whose base is a staged file.
    pub below: HashMap<DataId, DataId>,
    /// Modification times that the disk cannot represent.
    pub times: HashMap<DataId, (i64, u32)>,
    /// Files that a power cut may have damaged.
    pub suspects: BTreeSet<DataId>,
}

/// Reads all rows about staged bytes.
pub(super) fn read_all(connection: &Connection) -> rusqlite::Result<Stored> {
    let mut stored = Stored::default();
    let mut statement = connection.prepare("SELECT data, kept, cut, base FROM bases")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = unsigned(row, 0)?;
        let cut = if row.get::<_, Option<i64>>(2)?.is_some() { Some(unsigned(row, 2)?) } else { None };
        stored.partial.insert(id, (unsigned(row, 1)?, cut));
        if row.get::<_, Option<i64>>(3)?.is_some() {
            stored.below.insert(id, unsigned(row, 3)?);
        }
    }
    let mut statement = connection.prepare("SELECT data, mtime, mtime_nanos FROM times")?;
    let times = statement.query_map([], |row| Ok((unsigned(row, 0)?, (row.get(1)?, row.get(2)?))))?;
    stored.times = times.collect::<rusqlite::Result<_>>()?;
    let mut statement = connection.prepare("SELECT data FROM suspects")?;
    stored.suspects = statement.query_map([], |row| unsigned(row, 0))?.collect::<rusqlite::Result<_>>()?;
    Ok(stored)
}

/// Tree nodes that are the base of a staged file.
pub(super) fn trees(connection: &Connection) -> rusqlite::Result<Vec<(DataId, TreeNode)>> {
    let mut statement = connection.prepare(
        "SELECT data, manifest, tree_node, tree_path, tree_sha256, tree_size FROM bases WHERE manifest IS NOT NULL ORDER BY data",
    )?;
    let rows = statement.query_map([], |row| {
        let tree = decode_tree(row, 1)?.ok_or_else(|| malformed("staged bytes lie over nothing"))?;
        Ok((unsigned(row, 0)?, tree))
    })?;
    rows.collect()
}

/// The manifests whose trees are referred to by nodes or staged bytes.
pub(super) fn manifests(connection: &Connection) -> rusqlite::Result<BTreeSet<Digest>> {
    let statement = "SELECT manifest FROM nodes WHERE manifest IS NOT NULL UNION SELECT manifest FROM bases WHERE manifest IS NOT NULL";
    let mut statement = connection.prepare(statement)?;
    let rows = statement.query_map([], |row| {
        let text: String = row.get(0)?;
        Digest::parse(&text).map_err(|_| malformed("a manifest is not a digest"))
    })?;
    rows.collect()
}

/// Updates the node number of a file's base.
pub(super) fn renumber(connection: &Connection, id: DataId, node: u32) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE bases SET tree_node = ? WHERE data = ?")?.execute(params![node, integer(id)?])?;
    Ok(())
}

/// After a power cut: files that were not synced may be damaged, and those in `lost` are.
pub(super) fn suspect(connection: &Connection, all_unsynced: bool, lost: &[DataId]) -> rusqlite::Result<()> {
    if all_unsynced {
        connection.execute("INSERT OR IGNORE INTO suspects SELECT data FROM unsynced", [])?;
    }
    for id in lost {
        connection.prepare_cached("INSERT OR IGNORE INTO suspects (data) VALUES (?)")?.execute([integer(*id)?])?;
    }
    Ok(())
}
