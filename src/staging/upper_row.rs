//! The single row of the table `upper`.

use rusqlite::{Connection, params};

use super::Binding;
use super::columns::integer;
use super::state::Marks;
use crate::oci::Digest;

/// Stores the binding of an upper and whether it is edited.
pub(super) fn store_state(connection: &Connection, binding: &Binding, edited: bool) -> rusqlite::Result<()> {
    let text = |digest: Option<Digest>| digest.map(|digest| digest.to_string());
    let stored = params![text(binding.under), text(binding.expected), binding.deleted, edited];
    connection.prepare_cached("UPDATE upper SET under = ?, expected = ?, deleted = ?, edited = ?")?.execute(stored)?;
    Ok(())
}

/// Stores the counters.
pub(super) fn store_marks(connection: &Connection, marks: &Marks) -> rusqlite::Result<()> {
    let stored = params![integer(marks.nodes)?, integer(marks.cookies)?, integer(marks.data)?];
    connection.prepare_cached("UPDATE upper SET nodes = ?, cookies = ?, data = ?")?.execute(stored)?;
    Ok(())
}
