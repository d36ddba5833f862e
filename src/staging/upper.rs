//! An open upper: its connection, transactions and syncs.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::MutexGuard;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::change::Change;
use super::data::DataFile;
use super::error::system;
use super::rows::{self, ReadRows};
use super::state::{Database, Shared, Store, UpperState};
use super::{Below, Binding, DataId, Journal, Node, NodeKey, Rows, TagKey, TreeNode, bases};
use crate::error::{Error, ErrorKind};
use crate::layer::Xattrs;
use crate::oci::Digest;
use crate::sys::syncfs::sync_file_system;

/// An upper held by this process. All methods are short local operations, serialised by an internal lock.
///
/// The closure of [`Upper::change`] reads through [`Change::rows`] and must not call any other method that reads or changes rows or staged
/// bytes.
pub struct Upper {
    pub(super) shared: Arc<Shared>,
}

impl ReadRows for Shared {
    fn read<T>(&self, what: &str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let database = self.database()?;
        work(&database.connection).map_err(|error| self.store.database_error(what, &error))
    }

    fn read_node(&self, key: NodeKey) -> Result<Option<Node>, Error> {
        let mut database = self.database()?;
        let Database { connection, recent, .. } = &mut *database;
        rows::recent_node(connection, recent, key).map_err(|error| self.store.database_error("cannot read", &error))
    }

    fn read_xattrs(&self, key: NodeKey) -> Result<Xattrs, Error> {
        let mut database = self.database()?;
        let Database { connection, recent, .. } = &mut *database;
        rows::recent_xattrs(connection, recent, key).map_err(|error| self.store.database_error("cannot read", &error))
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

impl Shared {
    /// Locks the connection; Gone once the upper was removed.
    pub fn database(&self) -> Result<MutexGuard<'_, Database>, Error> {
        let database = self.database.lock();
        self.store.check().map(|()| database)
    }

    pub fn state(&self) -> UpperState {
        *self.state.lock()
    }

    /// Makes everything committed so far, and the names of new files, survive a power cut.
    pub fn sync(&self) -> Result<(), Error> {
        self.store.check()?;
        // The names first: no durable node without its file.
        self.store.sync_names()?;
        self.store.in_directory(|directory| self.store.log.sync(directory))
    }

    /// Ensures, before a change takes the database lock, that there is room for its pages, even on a full disk: frees released bytes and restarts the
    /// log if needed. If that is not enough, the change fails as a whole.
    pub fn make_room(&self) {
        if self.reserve.keep() {
            return;
        }
        let restart = |connection: &Connection| connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
        if let Err(error) = self.collect().and_then(|_| self.read("cannot make room in", restart)) {
            tracing::debug!(%error, "the disk is full");
        }
        self.reserve.keep();
    }

    /// A transaction that is not an edit. Any failure leaves the database unchanged.
    pub fn transact<T>(&self, what: &str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let mut database = self.database()?;
        database.recent.clear();
        let transaction = database.connection.transaction().map_err(|error| self.store.database_error(what, &error))?;
        let result = work(&transaction).and_then(|value| transaction.commit().map(|()| value));
        result.map_err(|error| self.store.database_error(what, &error))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.collect() {
            tracing::warn!(%error, "cannot free released staged bytes; they stay until the upper is opened again");
        }
    }
}

impl Upper {
    /// The tag.
    pub fn tag_key(&self) -> TagKey {
        self.shared.store.location().tag_key
    }

    /// The digests that it is currently bound to.
    pub fn binding(&self) -> Binding {
        self.shared.state().binding
    }

    /// Its rows as they are now.
    pub fn rows(&self) -> &dyn Rows {
        &*self.shared
    }

    /// Whether anything has changed since the last publish (or its creation), so that there is something to publish. A new, retagged or deleted tag is
    /// edited from the start; one with a file open for writing during the publish stays so.
    pub fn is_edited(&self) -> bool {
        self.shared.state().edited
    }

    /// Whether it was removed; every method then fails with Gone.
    pub fn is_removed(&self) -> bool {
        self.shared.store.check().is_err()
    }

    /// Whether something is left to publish, even if only that the tag is new or deleted.
    pub fn has_edits(&self) -> bool {
        self.shared.state().has_edits()
    }

    /// Runs a transaction. It is committed if `work` succeeds, and then survives the death of the process, but a power cut only after the next
    /// [`Upper::sync`]. `work` runs once. A released upper first takes its tag back; a retired one fails with Gone.
    pub fn change<T>(&self, work: impl FnOnce(&mut Change<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.shared.make_room();
        let database = self.shared.database()?;
        self.take_back(&database)?;
        self.commit(database, work)
    }

    /// As [`Upper::change`], for a change that is not an edit: it does not affect what is published, and needs no tag.
    pub fn tidy<T>(&self, work: impl FnOnce(&mut Change<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.shared.make_room();
        self.commit(self.shared.database()?, |change| {
            change.set_tidying();
            work(change)
        })
    }

    fn commit<T>(
        &self,
        mut database: MutexGuard<'_, Database>,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut change = Change::begin(&mut database, &self.shared)?;
        let value = work(&mut change)?;
        let released = change.commit()?;
        // Released before the next transaction starts, so that none can refer to them again.
        let is_worth_it = !released.is_empty() && self.shared.store.give_up(released);
        drop(database);
        if is_worth_it {
            // The change itself is done; a failed sync is reported by every later one too.
            if let Err(error) = self.shared.collect() {
                tracing::warn!(%error, "cannot free released staged bytes yet");
            }
        }
        Ok(value)
    }

    /// Makes everything committed so far, and the names of all staged files, survive a power cut. Bytes do after [`DataFile::sync`].
    pub fn sync(&self) -> Result<(), Error> {
        self.shared.sync()?;
        self.shared.collect().map(|_| ())
    }

    /// A new empty staged file. It is unlinked with its last user if no node came to refer to it.
    pub fn new_data(&self) -> Result<DataFile, Error> {
        self.shared.store.create().map(DataFile::new)
    }

    /// A new file that shows the bytes of its base until it is written; copies nothing. [`Change::lay`] stores the base, in the change that makes a
    /// node refer to it.
    pub fn new_over(&self, below: &Below) -> Result<DataFile, Error> {
        let staged = self.shared.store.create()?;
        let kept = below.kept()?;
        if kept > 0 {
            staged.lay_over(below, kept)?;
        }
        Ok(DataFile::new(staged))
    }

    /// Staged files with a base, by number.
    pub fn partial(&self) -> Vec<DataId> {
        self.shared.store.partial()
    }

    /// Whether a staged file is needed only as the base of another.
    pub fn is_below_only(&self, id: DataId) -> Result<bool, Error> {
        self.shared.read("cannot read", |connection| rows::is_of_no_node(connection, id))
    }

    /// Tree nodes that are the base of a staged file.
    pub fn trees_below(&self) -> Result<Vec<(DataId, TreeNode)>, Error> {
        self.shared.read("cannot read", bases::trees)
    }

    /// The manifests whose trees its rows and bytes refer to.
    pub fn manifests(&self) -> Result<BTreeSet<Digest>, Error> {
        self.shared.read("cannot read", bases::manifests)
    }

    /// Updates the numbers of tree nodes that are bases of staged files, none of which is open.
    pub fn renumber_below(&self, numbers: &[(DataId, u32)]) -> Result<(), Error> {
        self.shared
            .transact("cannot change", |connection| numbers.iter().try_for_each(|(id, node)| bases::renumber(connection, *id, *node)))
    }

    /// Staged files that a power cut may have damaged: they were written but not synced before it.
    pub fn suspects(&self) -> BTreeSet<DataId> {
        self.shared.store.suspects()
    }

    /// Permits one file of all open uppers at a time to be filled from its base.
    pub fn filling(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.store.account.budget().filling)
    }

    /// Makes all bytes survive a power cut, so that none becomes a suspect; for the end of a mount that leaves edits.
    pub fn sync_all(&self) -> Result<(), Error> {
        let unsynced = "SELECT EXISTS (SELECT 1 FROM unsynced)";
        if self.shared.read("cannot read", |connection| connection.query_row(unsynced, [], |row| row.get(0)))? {
            let directory = self.shared.store.location().directory;
            let synced = File::open(&directory).and_then(|directory| sync_file_system(&directory));
            synced.map_err(|error| system("cannot sync", &directory, &error))?;
            self.shared.transact("cannot sync", |connection| connection.execute("DELETE FROM unsynced", []))?;
        }
        self.sync()
    }

    /// Opens staged bytes. A file lost in a crash is empty; a warning was logged when the upper was opened. Gone for bytes that a commit released: the
    /// node has others now.
    pub fn data(&self, id: DataId) -> Result<DataFile, Error> {
        self.shared.store.data(id).map(DataFile::new)
    }

    /// The journal of a publish in progress.
    pub fn journal(&self) -> Result<Option<Journal>, Error> {
        let text = self.shared.read("cannot read the journal of", |connection| {
            connection.query_row("SELECT journal FROM upper", [], |row| row.get::<_, Option<String>>(0))
        })?;
        let decode = |text: String| {
            serde_json::from_str(&text)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))
        };
        text.map(decode).transpose().map_err(|error| self.shared.store.database_error("cannot read the journal of", &error))
    }

    /// Durably writes or clears the journal of a publish.
    pub fn set_journal(&self, journal: Option<&Journal>) -> Result<(), Error> {
        let text = journal.map(serde_json::to_string).transpose();
        let text = text.map_err(|error| Error::new(ErrorKind::Other, format!("cannot write the journal: {error}")))?;
        self.shared.transact("cannot write the journal of", |connection| {
            connection.prepare_cached("UPDATE upper SET journal = ?")?.execute([text])
        })?;
        self.shared.sync()
    }

    /// The recorded meaning of the edits.
    pub fn meaning(&self) -> Result<Option<String>, Error> {
        self.shared.read("cannot read", |connection| connection.query_row("SELECT meaning FROM upper", [], |row| row.get(0)))
    }

    /// Durably records the meaning of the edits.
    pub fn set_meaning(&self, meaning: &str) -> Result<(), Error> {
        self.shared
            .transact("cannot change", |connection| connection.prepare_cached("UPDATE upper SET meaning = ?")?.execute([meaning]))?;
        self.shared.sync()
    }

    /// A directory of this upper for layers that are packed but not yet pushed; not counted in the quota, emptied by `commit`.
    pub fn packs(&self) -> PathBuf {
        self.shared.store.location().directory.join("packs")
    }
}
