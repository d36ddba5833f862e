//! Creates an upper, and opens one left by an earlier process, however that ended.
//!
//! Opening cleans up after a killed process: unreferenced bytes are unlinked, nodes that were only open are removed, nodes whose bytes were lost
//! in a power cut show their base, a frozen generation is dropped. It deletes nothing that a node refers to. Files that were not synced before
//! the machine or the disk went down are recorded as suspects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::about::About;
use super::bases::{self, Stored};
use super::budget::{Account, Budget};
use super::change::FIRST;
use super::columns::{StoredDigest, integer, unsigned};
use super::error::{database, system};
use super::freeze;
use super::hold::Hold;
use super::log::Log;
use super::recent::Recent;
use super::reserve::Reserve;
use super::state::{Database, Marks, Shared, Store, UpperLocation, UpperState};
use super::store::path;
use super::upper::Upper;
use super::upper_row::{store_marks, store_state};
use super::{Binding, DataId, NodeKey, TagKey, schema};
use crate::durable;
use crate::error::Error;
use crate::sys::instance::mount_instance;

/// Creates an upper in an empty directory.
pub(super) fn make(directory: &Path, tag_key: &TagKey, binding: &Binding, meaning: Option<&str>) -> Result<(), Error> {
    for name in ["data", "packs"] {
        let path = directory.join(name);
        durable::make_directory(&path).map_err(|error| system("cannot create", &path, &error))?;
    }
    About::new(tag_key, binding).write(directory)?;
    schema::create(&directory.join("upper.db"), |connection| {
        connection.execute("INSERT INTO upper (id, deleted, edited, generation, nodes, cookies, data) VALUES (1, 0, 0, 0, 0, 0, 0)", [])?;
        store_marks(connection, &FIRST)?;
        connection.execute("UPDATE upper SET opened = ?, meaning = ?", params![instance(directory), meaning])?;
        store_state(connection, binding, differs(binding))
    })?;
    durable::sync_directory(directory).map_err(|error| system("cannot sync", directory, &error))
}

/// Whether there is something to publish before any change: a new tag, a retag, a deletion.
fn differs(binding: &Binding) -> bool {
    binding.deleted || binding.expected.is_none() || binding.under != binding.expected
}

/// Opens an upper that this process holds.
pub(super) fn open(location: UpperLocation, hold: Hold, budget: &Arc<Budget>) -> Result<Upper, Error> {
    let path = location.database();
    let connection = schema::open(&path)?;
    let failed = |error: &rusqlite::Error| database("cannot open", &path, error);
    let (state, marks) = read_state(&connection).map_err(|error| failed(&error))?;
    let (log, reserve) = (Log::open(&path)?, Reserve::open(&path)?);
    remove_snapshots(&location.directory)?;
    let files = data_files(&location.directory)?;
    let next = files.last_key_value().map_or(0, |(id, _)| id + 1).max(marks.data);
    let store = Arc::new(Store::new(location, Account::new(budget.clone()), log, next));
    store.account.add(files.values().sum());
    let mut database = Database { connection, recent: Recent::default(), marks };
    mend(&mut database.connection, &store, &files)?;
    let shared = Arc::new(Shared { database: Mutex::new(database), state: Mutex::new(state), reserve, store, _hold: hold });
    shared.store.belong_to(&shared);
    shared.collect()?;
    Ok(Upper { shared })
}

/// Identifies this boot and this mount of the file system: writes made within it are intact, synced or not.
fn instance(directory: &Path) -> Option<String> {
    mount_instance(directory).inspect_err(|error| tracing::debug!(%error, "cannot distinguish power cuts from kills here")).ok()
}

fn read_state(connection: &Connection) -> rusqlite::Result<(UpperState, Marks)> {
    let columns = "under, expected, deleted, edited, generation, nodes, cookies, data";
    connection.query_row(&format!("SELECT {columns} FROM upper"), [], |row| {
        let digest = |column| row.get::<_, Option<StoredDigest>>(column).map(|digest| digest.map(|digest| digest.0));
        let binding = Binding { under: digest(0)?, expected: digest(1)?, deleted: row.get(2)? };
        let state = UpperState { binding, edited: row.get(3)?, generation: unsigned(row, 4)?, changes: 0 };
        let (nodes, cookies) = (unsigned(row, 5)?, unsigned(row, 6)?);
        Ok((state, Marks { next_node: nodes, nodes, next_cookie: cookies, cookies, data: unsigned(row, 7)? }))
    })
}

/// A frozen generation ends with its process.
fn remove_snapshots(directory: &Path) -> Result<(), Error> {
    let failed = |error: &std::io::Error| system("cannot read", directory, error);
    for entry in std::fs::read_dir(directory).map_err(|error| failed(&error))? {
        let entry = entry.map_err(|error| failed(&error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(freeze::PREFIX) || name.starts_with(durable::TEMPORARY) {
            std::fs::remove_file(entry.path()).map_err(|error| system("cannot remove", &entry.path(), &error))?;
        }
    }
    Ok(())
}

/// All data files with their disk usage. Foreign names are left alone.
fn data_files(directory: &Path) -> Result<BTreeMap<DataId, u64>, Error> {
    let data = directory.join("data");
    let mut files = BTreeMap::new();
    let failed = |path: &Path, error: &std::io::Error| system("cannot read", path, error);
    for group in std::fs::read_dir(&data).map_err(|error| failed(&data, &error))? {
        let group = group.map_err(|error| failed(&data, &error))?.path();
        if !group.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&group).map_err(|error| failed(&group, &error))? {
            let entry = entry.map_err(|error| failed(&group, &error))?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<DataId>().ok()) else { continue };
            if path(directory, id) == entry.path() {
                let metadata = entry.metadata().map_err(|error| failed(&entry.path(), &error))?;
                files.insert(id, durable::occupied(&metadata));
            }
        }
    }
    Ok(files)
}

/// Makes nodes and data files consistent.
fn mend(connection: &mut Connection, store: &Arc<Store>, files: &BTreeMap<DataId, u64>) -> Result<(), Error> {
    let failed = |error: &rusqlite::Error| store.database_error("cannot mend", error);
    let stored = bases::read_all(connection).map_err(|error| failed(&error))?;
    let found = examine(connection, &stored, files).map_err(|error| failed(&error))?;
    let known = files.keys().chain(stored.partial.keys()).chain(stored.times.keys()).chain(&stored.suspects);
    let orphans: BTreeSet<DataId> = known.copied().filter(|id| !found.referred.contains(id)).collect();
    if !(orphans.is_empty() && found.missing.is_empty() && found.unlinked.is_empty()) {
        schema::check_pages(connection).map_err(|error| failed(&error))?;
    }
    if !found.unlinked.is_empty() {
        remove_nodes(connection, &found.unlinked).map_err(|error| failed(&error))?;
    }
    for id in files.keys() {
        store.add_fresh(id >> 8 & 0xff);
    }
    if !found.missing.is_empty() {
        tracing::warn!(
            tag = %store.location().tag_key.shown(), files = found.missing.len(),
            "staged files lost their bytes in a crash before they were synced"
        );
        for id in &found.missing {
            let path = store.path(*id);
            store.create_file(*id, &path).map_err(|error| system("cannot create", &path, &error))?;
        }
    }
    mend_lengths(connection, store, &stored, &found.referred)?;
    suspect(connection, &store.location().directory, &found.missing).map_err(|error| failed(&error))?;
    store.set_stored(bases::read_all(connection).map_err(|error| failed(&error))?);
    store.give_up(orphans);
    Ok(())
}

/// Restores the recorded length of files with a base: an interrupted truncation is completed, and a file truncated by a power cut shows all of its
/// base.
fn mend_lengths(connection: &Connection, store: &Store, stored: &Stored, referred: &BTreeSet<DataId>) -> Result<(), Error> {
    for (id, (kept, cut)) in stored.partial.iter().filter(|(id, _)| referred.contains(id)) {
        let path = store.path(*id);
        let mended = durable::open_private(&path, false).and_then(|file| match cut {
            Some(length) => file.set_len(*length),
            None if file.metadata()?.len() < *kept => file.set_len(*kept),
            None => Ok(()),
        });
        mended.map_err(|error| system("cannot set the length of", &path, &error))?;
        if cut.is_some() {
            bases::end_cut(connection, *id).map_err(|error| store.database_error("cannot mend", &error))?;
        }
    }
    Ok(())
}

/// Records which bytes may be damaged: if the machine was rebooted or the disk remounted since the upper was opened, those not synced.
fn suspect(connection: &Connection, directory: &Path, missing: &[DataId]) -> rusqlite::Result<()> {
    let opened: Option<String> = connection.query_row("SELECT opened FROM upper", [], |row| row.get(0))?;
    let now = instance(directory);
    let is_other = opened.is_some() && now.is_some() && opened != now;
    let transaction = connection.unchecked_transaction()?;
    bases::suspect(&transaction, is_other, missing)?;
    if now.is_some() && opened != now {
        transaction.execute("UPDATE upper SET opened = ?", [now])?;
    }
    transaction.commit()
}

#[derive(Default)]
struct Found {
    /// Nodes that were only open.
    unlinked: Vec<NodeKey>,
    /// Bytes that nodes refer to, and their bases.
    referred: BTreeSet<DataId>,
    /// Those that are missing.
    missing: Vec<DataId>,
}

fn examine(connection: &Connection, stored: &Stored, files: &BTreeMap<DataId, u64>) -> rusqlite::Result<Found> {
    let mut found = Found::default();
    let mut statement = connection.prepare("SELECT key, links, data FROM nodes")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (key, links): (_, i64) = (unsigned(row, 0)?, row.get(1)?);
        if links == 0 {
            found.unlinked.push(key);
        } else if row.get::<_, Option<i64>>(2)?.is_some() {
            let mut at = Some(unsigned(row, 2)?);
            // A base has a smaller number, and visited ones were already followed.
            while let Some(id) = at.filter(|id| found.referred.insert(*id)) {
                at = stored.below.get(&id).copied().filter(|below| *below < id);
            }
        }
    }
    found.missing = found.referred.iter().copied().filter(|id| !files.contains_key(id)).collect();
    Ok(found)
}

/// Removes nodes that had no name when their process ended, with the names in them.
fn remove_nodes(connection: &mut Connection, keys: &[NodeKey]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for key in keys {
        let key = integer(*key)?;
        transaction.prepare_cached("DELETE FROM nodes WHERE key = ?")?.execute([key])?;
        transaction.prepare_cached("DELETE FROM xattrs WHERE node = ?")?.execute([key])?;
        transaction.prepare_cached("DELETE FROM names WHERE directory = ?")?.execute(params![key])?;
    }
    transaction.commit()
}
