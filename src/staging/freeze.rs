//! A generation of an upper that does not change any more.
//!
//! Its rows are a copy of the database, made in one step; its bytes are the data files themselves, which nobody writes while it
//! lives, except those that were open for writing: of them it has copies. A generation that was killed is dropped at the next opening.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OptionalExtension, params};

use super::data::DataFile;
use super::error::Error;
use super::rows::{Source, integer, unsigned};
use super::store::{Pins, Store, lock};
use super::upper::{Shared, State, Upper};
use super::{Binding, DataId, Rows, schema};
use crate::durable;
use crate::error::ErrorKind;

/// Names of snapshots begin with this.
pub(super) const PREFIX: &str = "frozen-";

/// A generation of an upper that does not change any more: its rows are a copy of the database, its data files are not
/// written again while it lives. Dropped unpublished, it leaves the upper as it is.
pub struct FrozenUpper {
    pub(super) shared: Arc<Shared>,
    snapshot: Snapshot,
    /// What the upper was when it was frozen.
    pub(super) state: State,
    /// By the number of the copy.
    pub(super) copies: HashMap<DataId, Copied>,
}

/// Bytes that were open for writing when they were frozen.
pub(super) struct Copied {
    pub original: DataFile,
    /// Which state of the original the copy is.
    pub version: u64,
    _copy: DataFile,
}

struct Snapshot {
    connection: Mutex<Connection>,
    store: Arc<Store>,
    path: PathBuf,
}

impl Source for Snapshot {
    fn read<T>(&self, what: &str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        work(&lock(&self.connection)).map_err(|error| self.store.database_error(what, &error))
    }

    fn store(&self) -> &Store {
        &self.store
    }
}

impl Upper {
    /// Freezes what there is now. Data files that `is_open` names are copied (reflink or copy), since their writers go on. Busy
    /// while another generation is frozen. `is_open` is asked without any lock of the upper.
    pub fn freeze(&self, is_open: &dyn Fn(DataId) -> bool) -> Result<FrozenUpper, Error> {
        let (mut frozen, all) = self.snapshot()?;
        let open: Vec<DataId> = all.into_iter().filter(|id| is_open(*id)).collect();
        self.shared.store.set_copied(open.clone());
        for id in open {
            frozen.copy(id)?;
        }
        self.shared.sync()?;
        Ok(frozen)
    }

    /// Copies the database and pins what it refers to. Answers the staged bytes too, sorted.
    fn snapshot(&self) -> Result<(FrozenUpper, Vec<DataId>), Error> {
        const WHAT: &str = "cannot freeze";
        let store = &self.shared.store;
        let database = self.shared.database()?;
        if store.is_pinned() {
            let text = format!("{} is being published already", store.place().subject.shown());
            return Err(Error::new(ErrorKind::Busy, text));
        }
        let failed = |error: &rusqlite::Error| store.database_error(WHAT, error);
        let generation = next_generation(&database.connection).map_err(|error| failed(&error))?;
        let path = store.place().directory.join(format!("{PREFIX}{generation}.db"));
        remove_snapshot(&path);
        durable::open_private(&path, true).map_err(|error| Error::system(WHAT, &path, &error))?;
        let copied = copy_database(&database.connection, &path);
        let (connection, all) = copied.map_err(|error| {
            remove_snapshot(&path);
            Error::database(WHAT, &path, &error)
        })?;
        let mut state = lock(&self.shared.state);
        state.generation = generation;
        let state = *state;
        store.pin(Some(Pins { all: all.clone(), ..Pins::default() }));
        drop(database);
        let snapshot = Snapshot { connection: Mutex::new(connection), store: store.clone(), path };
        Ok((FrozenUpper { shared: self.shared.clone(), snapshot, state, copies: HashMap::new() }, all))
    }
}

fn next_generation(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("UPDATE upper SET generation = generation + 1 RETURNING generation", [], |row| unsigned(row, 0))
}

fn copy_database(connection: &Connection, path: &Path) -> rusqlite::Result<(Connection, Vec<DataId>)> {
    let mut snapshot = schema::open_snapshot(path)?;
    if Backup::new(connection, &mut snapshot)?.step(-1)? != StepResult::Done {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(busy, None));
    }
    let mut statement = snapshot.prepare("SELECT data FROM nodes WHERE data IS NOT NULL ORDER BY data")?;
    let all: Vec<DataId> = statement.query_map([], |row| unsigned(row, 0))?.collect::<rusqlite::Result<_>>()?;
    drop(statement);
    Ok((snapshot, all))
}

/// Nothing of a snapshot is worth an error: what is left is removed at the next opening.
fn remove_snapshot(path: &Path) {
    for file in [path.to_path_buf(), schema::log_path(path)] {
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %file.display(), %error, "a snapshot stays until the next opening");
        }
    }
}

impl FrozenUpper {
    /// Gives the generation a copy of bytes that may change.
    fn copy(&mut self, id: DataId) -> Result<(), Error> {
        let store = &self.shared.store;
        let original = store.data(id)?;
        let copy = store.create(false)?;
        let number = copy.id();
        // Kept before it is filled, so that it is unlinked whatever happens.
        let version = copy.copy_all(&original);
        let copied = Copied { original, version: version.as_ref().copied().unwrap_or(0), _copy: copy };
        self.copies.insert(number, copied);
        version?;
        self.snapshot.read("cannot freeze", |connection| {
            let statement = "UPDATE nodes SET data = ? WHERE data = ?";
            connection.prepare_cached(statement)?.execute([integer(number)?, integer(id)?])
        })?;
        Ok(())
    }

    /// Its number.
    pub fn generation(&self) -> u64 {
        self.state.generation
    }

    /// To what the upper was bound.
    pub fn binding(&self) -> Binding {
        self.state.binding
    }

    /// Its rows.
    pub fn rows(&self) -> &dyn Rows {
        &self.snapshot
    }

    /// The SHA-256 of staged bytes, if it was computed before for this very content.
    pub fn sha256(&self, id: DataId) -> Result<Option<[u8; 32]>, Error> {
        let stored = self.shared.read("cannot read", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT sha256, size, mtime, mtime_nanos, ctime, ctime_nanos FROM digests WHERE data = ?")?;
            let row = |row: &rusqlite::Row<'_>| {
                let sha256: [u8; 32] = row.get(0)?;
                Ok((sha256, [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?]))
            };
            statement.query_row([integer(id)?], row).optional()
        })?;
        let Some((sha256, kept)): Option<([u8; 32], [i64; 5])> = stored else { return Ok(None) };
        Ok((self.signature(id)? == kept).then_some(sha256))
    }

    /// Keeps a SHA-256 that was computed over frozen bytes. Of a copy nothing is kept: it ends with the generation.
    pub fn keep_sha256(&self, id: DataId, sha256: [u8; 32]) -> Result<(), Error> {
        if self.copies.contains_key(&id) {
            return Ok(());
        }
        let [size, mtime, mtime_nanos, ctime, ctime_nanos] = self.signature(id)?;
        self.shared.transact("cannot keep a digest in", |connection| {
            let statement =
                "INSERT OR REPLACE INTO digests (data, sha256, size, mtime, mtime_nanos, ctime, ctime_nanos) VALUES (?, ?, ?, ?, ?, ?, ?)";
            connection.prepare_cached(statement)?.execute(params![integer(id)?, sha256, size, mtime, mtime_nanos, ctime, ctime_nanos])
        })?;
        Ok(())
    }

    /// What changes whenever the bytes do.
    fn signature(&self, id: DataId) -> Result<[i64; 5], Error> {
        let path = self.shared.store.path(id);
        let metadata = std::fs::metadata(&path).map_err(|error| Error::system("cannot read staged bytes", &path, &error))?;
        Ok(signature(&metadata))
    }
}

fn signature(metadata: &Metadata) -> [i64; 5] {
    let size = i64::try_from(metadata.len()).unwrap_or(i64::MAX);
    [size, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]
}

impl Drop for FrozenUpper {
    fn drop(&mut self) {
        for id in self.copies.keys() {
            if let Err(error) = self.shared.store.unlink(*id) {
                tracing::debug!(%error, "a frozen copy stays until the next opening");
            }
        }
        remove_snapshot(&self.snapshot.path);
        self.shared.store.pin(None);
    }
}
