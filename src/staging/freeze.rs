//! A frozen generation of an upper.
//!
//! It starts with a mark, a read transaction on a second connection, for which writers stop only briefly whatever the size of the upper. The
//! rows are then copied from it while writers continue. The bytes are the data files themselves: a file of a generation is never written;
//! a writer creates a new file over it. A generation whose process was killed is dropped at the next opening.

use std::collections::{BTreeSet, HashMap};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OptionalExtension, params};

use super::columns::{integer, unsigned};
use super::error::{database, system};
use super::rows::ReadRows;
use super::state::{Shared, Store, UpperState};
use super::upper::Upper;
use super::{Binding, DataId, Rows, bases, schema};
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;

/// Name prefix of snapshots.
pub(super) const PREFIX: &str = "frozen-";

/// The start of error messages.
const WHAT: &str = "cannot freeze";

/// A prepared freeze.
pub struct Freeze {
    shared: Arc<Shared>,
    reader: Connection,
}

/// A marked freeze: later commits are not in it.
pub struct Marked {
    state: UpperState,
    reader: Connection,
    mark: Mark,
}

/// A generation is frozen while this exists.
struct Mark(Arc<Shared>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.store.set_frozen(false);
    }
}

/// A frozen generation of an upper: its rows are a copy of the database, and its data files are not written while it exists. If it is dropped
/// unpublished, the upper is unaffected.
pub struct FrozenUpper {
    snapshot: Snapshot,
    /// The state of the upper when it was frozen.
    pub(super) state: UpperState,
    mark: Mark,
}

struct Snapshot {
    connection: Mutex<Connection>,
    store: Arc<Store>,
    path: PathBuf,
}

impl ReadRows for Snapshot {
    fn read<T>(&self, what: &str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        work(&self.connection.lock()).map_err(|error| self.store.database_error(what, &error))
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

impl Upper {
    /// Prepares a freeze, which takes a moment of disk I/O.
    pub fn prepare_freeze(&self) -> Result<Freeze, Error> {
        let shared = Arc::clone(&self.shared);
        shared.store.check()?;
        let path = shared.store.location().database();
        let reader = schema::open_again(&path).map_err(|error| database(WHAT, &path, &error))?;
        Ok(Freeze { shared, reader })
    }

    /// Freezes the current state in one call. Busy while another generation is frozen.
    pub fn freeze(&self) -> Result<FrozenUpper, Error> {
        self.prepare_freeze()?.mark()?.finish()
    }
}

impl Freeze {
    /// Freezes the committed state in a short time that does not depend on its size. No staged bytes may be written meanwhile. Busy while another
    /// generation is frozen.
    pub fn mark(self) -> Result<Marked, Error> {
        let store = &self.shared.store;
        let database = self.shared.database()?;
        if store.has_frozen() {
            let text = format!("{} is already being published", store.location().tag_key.shown());
            return Err(Error::new(ErrorKind::Busy, text));
        }
        let failed = |error: rusqlite::Error| store.database_error(WHAT, &error);
        let generation = next_generation(&database.connection).map_err(failed)?;
        // The transaction starts with its first read.
        let begun = self.reader.execute_batch("BEGIN").and_then(|()| self.reader.query_row("SELECT id FROM upper", [], |_| Ok(())));
        begun.map_err(failed)?;
        let state = {
            let mut state = self.shared.state.lock();
            state.generation = generation;
            *state
        };
        store.set_frozen(true);
        drop(database);
        Ok(Marked { state, reader: self.reader, mark: Mark(self.shared) })
    }
}

impl Marked {
    /// Copies the rows, while the upper stays in use.
    pub fn finish(self) -> Result<FrozenUpper, Error> {
        let Self { state, reader, mark } = self;
        let store = Arc::clone(&mark.0.store);
        let path = store.location().directory.join(format!("{PREFIX}{}.db", state.generation));
        remove_snapshot(&path);
        durable::open_private(&path, true).map_err(|error| system(WHAT, &path, &error))?;
        let connection = copy_database(&reader, &path).map_err(|error| {
            remove_snapshot(&path);
            database(WHAT, &path, &error)
        })?;
        drop(reader);
        let snapshot = Snapshot { connection: Mutex::new(connection), store, path };
        let frozen = FrozenUpper { snapshot, state, mark };
        frozen.shared().sync()?;
        Ok(frozen)
    }
}

fn next_generation(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("UPDATE upper SET generation = generation + 1 RETURNING generation", [], |row| unsigned(row, 0))
}

fn copy_database(connection: &Connection, path: &Path) -> rusqlite::Result<Connection> {
    let mut snapshot = schema::open_snapshot(path)?;
    if Backup::new(connection, &mut snapshot)?.step(-1)? != StepResult::Done {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(busy, None));
    }
    Ok(snapshot)
}

/// Failing to remove a snapshot is not an error: the next opening removes leftovers.
fn remove_snapshot(path: &Path) {
    for file in [path.to_path_buf(), schema::log_path(path)] {
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %file.display(), %error, "cannot remove a snapshot; it stays until the next opening");
        }
    }
}

impl FrozenUpper {
    pub(super) fn shared(&self) -> &Shared {
        &self.mark.0
    }

    /// Its number.
    pub fn generation(&self) -> u64 {
        self.state.generation
    }

    /// The digests that the upper was bound to.
    pub fn binding(&self) -> Binding {
        self.state.binding
    }

    /// Its rows.
    pub fn rows(&self) -> &dyn Rows {
        &self.snapshot
    }

    /// The manifests whose trees its rows and bytes refer to.
    pub fn manifests(&self) -> Result<BTreeSet<Digest>, Error> {
        self.snapshot.read("cannot read", bases::manifests)
    }

    /// The SHA-256 of staged bytes, if already computed for this exact content.
    pub fn sha256(&self, id: DataId) -> Result<Option<[u8; 32]>, Error> {
        Ok(self.known_sha256(&[id])?.remove(&id))
    }

    /// The same for several files.
    pub fn known_sha256(&self, ids: &[DataId]) -> Result<HashMap<DataId, [u8; 32]>, Error> {
        let stored = self.shared().read("cannot read", |connection| {
            let mut statement =
                connection.prepare_cached("SELECT sha256, size, mtime, mtime_nanos, ctime, ctime_nanos FROM digests WHERE data = ?")?;
            let mut stored: Vec<(DataId, [u8; 32], [i64; 5])> = Vec::new();
            for id in ids {
                let row =
                    |row: &rusqlite::Row<'_>| Ok((*id, row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?]));
                stored.extend(statement.query_row([integer(*id)?], row).optional()?);
            }
            Ok(stored)
        })?;
        let mut known = HashMap::new();
        for (id, sha256, kept) in stored {
            if self.signature(id)? == kept {
                known.insert(id, sha256);
            }
        }
        Ok(known)
    }

    /// Stores SHA-256 that were computed over frozen bytes, in one transaction.
    pub fn keep_sha256(&self, computed: &[(DataId, [u8; 32])]) -> Result<(), Error> {
        let mut signed = Vec::with_capacity(computed.len());
        for (id, sha256) in computed {
            signed.push((id, sha256, self.signature(*id)?));
        }
        if signed.is_empty() {
            return Ok(());
        }
        self.shared().transact("cannot keep a digest in", |connection| {
            let statement =
                "INSERT OR REPLACE INTO digests (data, sha256, size, mtime, mtime_nanos, ctime, ctime_nanos) VALUES (?, ?, ?, ?, ?, ?, ?)";
            let mut statement = connection.prepare_cached(statement)?;
            for (id, sha256, [size, mtime, mtime_nanos, ctime, ctime_nanos]) in signed {
                statement.execute(params![integer(*id)?, sha256, size, mtime, mtime_nanos, ctime, ctime_nanos])?;
            }
            Ok(())
        })
    }

    /// A stamp that changes whenever the bytes do.
    fn signature(&self, id: DataId) -> Result<[i64; 5], Error> {
        let path = self.shared().store.path(id);
        let metadata = std::fs::metadata(&path).map_err(|error| system("cannot read staged bytes", &path, &error))?;
        Ok(signature(&metadata))
    }
}

fn signature(metadata: &Metadata) -> [i64; 5] {
    let size = i64::try_from(metadata.len()).unwrap_or(i64::MAX);
    [size, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]
}

impl Drop for FrozenUpper {
    fn drop(&mut self) {
        remove_snapshot(&self.snapshot.path);
    }
}
