//! Column values shared by rows of several tables.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, Row};

use super::schema::malformed;
use super::{DataId, TreeNode};
use crate::oci::Digest;

/// A number for SQLite. Ours are far below its limit.
pub(super) fn integer(value: u64) -> rusqlite::Result<i64> {
    i64::try_from(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Reads a non-negative number.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

pub(super) fn optional_unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let value: Option<i64> = row.get(column)?;
    value.map(|value| u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))).transpose()
}

/// A manifest digest, validated on read.
pub(super) struct StoredDigest(pub Digest);

impl FromSql for StoredDigest {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Digest::parse(value.as_str()?).map(Self).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

/// A tree node, whose manifest, number, path, digest and size are in the columns from `first` on.
pub(super) fn decode_tree(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<TreeNode>> {
    let Some(StoredDigest(manifest)) = row.get(first)? else { return Ok(None) };
    let path: Option<Vec<u8>> = row.get(first + 2)?;
    let size = optional_unsigned(row, first + 4)?;
    let (Some(path), Some(size)) = (path, size) else { return Err(malformed("a node of a tree lacks its path or size")) };
    Ok(Some(TreeNode { manifest, node: row.get(first + 1)?, path, sha256: row.get(first + 3)?, size }))
}

/// Whether a node refers to staged bytes, or they are the base of others.
pub(super) fn is_referred(connection: &Connection, id: DataId) -> rusqlite::Result<bool> {
    let statement = "SELECT 1 FROM nodes WHERE data = ?1 UNION ALL SELECT 1 FROM bases WHERE base = ?1 LIMIT 1";
    connection.prepare_cached(statement)?.exists([integer(id)?])
}
