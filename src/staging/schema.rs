//! The database of an upper: its tables, creation, opening and checking.
//!
//! A database of an older version is converted in one transaction. A newer or damaged one is left alone: neither is ever repaired, replaced or
//! deleted here.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{database, shown, system};
use crate::durable;
use crate::error::{Error, ErrorKind};

/// Stored in the database header, so that we and `file` recognise it.
const APPLICATION: i32 = 0x6f63_6966;
/// Incremented with every change that an older program would misread.
const VERSION: i32 = 2;
/// Pages in the log before a checkpoint: many, since a page that changes often is copied only once.
const CHECKPOINT_PAGES: u32 = 4096;

/// SQLite's locking: exclusive against other processes while the database is open, with the log's index in memory, so that several connections
/// of this process work on any file system.
const VFS: &str = "unix-excl";

/// The single row about the upper itself, since version 2.
const UPPER: &str = "
CREATE TABLE upper (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  under TEXT, expected TEXT, deleted INTEGER NOT NULL,
  edited INTEGER NOT NULL, generation INTEGER NOT NULL, journal TEXT,
  nodes INTEGER NOT NULL, cookies INTEGER NOT NULL, data INTEGER NOT NULL,
  meaning TEXT, opened TEXT
) STRICT;
";
/// The same in version 1.
const UPPER_1: &str = "
CREATE TABLE upper (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  under TEXT, expected TEXT, deleted INTEGER NOT NULL,
  edited INTEGER NOT NULL, generation INTEGER NOT NULL, journal TEXT,
  nodes INTEGER NOT NULL, cookies INTEGER NOT NULL, data INTEGER NOT NULL
) STRICT;
";
/// Tables of all versions.
const TABLES: &str = "
CREATE TABLE nodes (
  key INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL, mode INTEGER, uid INTEGER, gid INTEGER,
  mtime INTEGER, mtime_nanos INTEGER, ctime INTEGER NOT NULL, ctime_nanos INTEGER NOT NULL,
  links INTEGER NOT NULL, major INTEGER NOT NULL, minor INTEGER NOT NULL, target BLOB NOT NULL,
  opaque INTEGER NOT NULL, parent INTEGER NOT NULL,
  data INTEGER,
  manifest TEXT, tree_node INTEGER, tree_path BLOB, tree_sha256 BLOB, tree_size INTEGER
) STRICT;
CREATE INDEX nodes_by_data ON nodes (data) WHERE data IS NOT NULL;
CREATE TABLE names (
  directory INTEGER NOT NULL, name BLOB NOT NULL, cookie INTEGER NOT NULL, node INTEGER,
  PRIMARY KEY (directory, name)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX names_by_cookie ON names (directory, cookie, node);
CREATE TABLE xattrs (
  node INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (node, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE digests (
  data INTEGER PRIMARY KEY,
  sha256 BLOB NOT NULL, size INTEGER NOT NULL,
  mtime INTEGER NOT NULL, mtime_nanos INTEGER NOT NULL, ctime INTEGER NOT NULL, ctime_nanos INTEGER NOT NULL
) STRICT;
";
/// Tables since version 2: bases of staged files and facts about their bytes.
const BYTES: &str = "
CREATE TABLE bases (
  data INTEGER PRIMARY KEY,
  kept INTEGER NOT NULL, cut INTEGER,
  base INTEGER,
  manifest TEXT, tree_node INTEGER, tree_path BLOB, tree_sha256 BLOB, tree_size INTEGER
) STRICT;
CREATE INDEX bases_by_base ON bases (base) WHERE base IS NOT NULL;
CREATE TABLE extents (
  data INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
  PRIMARY KEY (data, start)
) STRICT, WITHOUT ROWID;
CREATE TABLE times (data INTEGER PRIMARY KEY, mtime INTEGER NOT NULL, mtime_nanos INTEGER NOT NULL) STRICT;
CREATE TABLE unsynced (data INTEGER PRIMARY KEY) STRICT;
CREATE TABLE suspects (data INTEGER PRIMARY KEY) STRICT;
";
/// Converts a version 1 database to version 2. Nothing is known of syncs by an older version.
const FROM_1: &str = "
INSERT INTO upper SELECT id, under, expected, deleted, edited, generation, journal, nodes, cookies, data, NULL, NULL FROM upper_1;
DROP TABLE upper_1;
INSERT INTO unsynced SELECT DISTINCT data FROM nodes WHERE data IS NOT NULL;
";

/// Creates a database (mode 0600) with empty tables, and calls `fill` inside the creating transaction.
pub(super) fn create(path: &Path, fill: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<(), Error> {
    durable::open_private(path, true).map_err(|error| system("cannot create", path, &error))?;
    let make = || {
        let connection = connect(path)?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for tables in schema(VERSION) {
            connection.execute_batch(tables)?;
        }
        connection.pragma_update(None, "application_id", APPLICATION)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        fill(&connection)?;
        connection.execute_batch("COMMIT")?;
        connection.close().map_err(|(_, error)| error)
    };
    make().map_err(|error| database("cannot create", path, &error))
}

/// Opens the database of an upper held by this process; checks all of it if it was not closed cleanly.
pub(super) fn open(path: &Path) -> Result<Connection, Error> {
    let failed = |error: &rusqlite::Error| database("cannot open", path, error);
    // SQLite would open a missing or empty file as a database without tables.
    let length = std::fs::metadata(path).map_err(|error| missing(path, &error))?.len();
    if length == 0 {
        return Err(failed(&malformed("it is empty")));
    }
    // A clean shutdown checkpoints the log and removes it.
    let unclean = std::fs::metadata(log_path(path)).is_ok_and(|log| log.len() > 0);
    check_version(path)?;
    let connection = connect(path).map_err(|error| failed(&error))?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| failed(&error))?;
    check_tables(&connection, version).map_err(|error| failed(&error))?;
    if unclean || version != VERSION {
        check_pages(&connection).map_err(|error| failed(&error))?;
    }
    if version != VERSION {
        convert(&connection).map_err(|error| database("cannot convert", path, &error))?;
    }
    Ok(connection)
}

/// Converts a version 1 database atomically. Its header is updated with it, so that no older program misreads it.
fn convert(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch("ALTER TABLE upper RENAME TO upper_1")?;
    transaction.execute_batch(UPPER)?;
    transaction.execute_batch(BYTES)?;
    transaction.execute_batch(FROM_1)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// The tables of a version.
fn schema(version: i32) -> &'static [&'static str] {
    if version == 1 { &[UPPER_1, TABLES] } else { &[UPPER, TABLES, BYTES] }
}

/// SQLite's write-ahead log.
pub(super) fn log_path(database: &Path) -> std::path::PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// A damaged-database error, as returned by SQLite.
pub(super) fn malformed(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(what.to_owned()))
}

/// A frozen copy of a database: read-only after its first use.
pub(super) fn open_snapshot(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags())?;
    connection
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -4096")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A further read connection of this process to an open database.
pub(super) fn open_again(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(path, flags(), VFS)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // Otherwise a statement whose plan could depend on its parameters is parsed anew at every execution.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -4096)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Reads the header without SQLite, so that nothing of a newer version is touched, not even its log.
fn check_version(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::FileExt;
    let mut header = [0; 100];
    let file = std::fs::File::open(path).map_err(|error| system("cannot open", path, &error))?;
    if file.read_exact_at(&mut header, 0).is_err() {
        return Err(database("cannot open", path, &malformed("it is truncated")));
    }
    let number = |at: usize| header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_be_bytes);
    let (version, application) = (number(60), number(68));
    if application != APPLICATION || version < 1 {
        return Err(database("cannot open", path, &malformed("its header is not that of a staging database")));
    }
    if version > VERSION {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} has format {version}, but this ocifs supports formats up to {VERSION}; publish it with the newer ocifs that wrote it, or drop its edits with `ocifs discard`",
                shown(path)
            ),
        ));
    }
    Ok(())
}

fn missing(path: &Path, error: &std::io::Error) -> Error {
    let directory = path.parent().unwrap_or(path);
    if error.kind() == std::io::ErrorKind::NotFound && directory.is_dir() {
        return database("cannot open", path, &malformed("it is missing"));
    }
    system("cannot open", path, error)
}

/// The tables must match exactly, so that nothing in a damaged schema is ever run.
fn check_tables(connection: &Connection, version: i32) -> rusqlite::Result<()> {
    let expected = Connection::open_in_memory()?;
    for tables in schema(version) {
        expected.execute_batch(tables)?;
    }
    if tables(connection)? == tables(&expected)? { Ok(()) } else { Err(malformed("its tables are not those of a staging database")) }
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Reads every page, for a possibly damaged database and before anything is deleted on its word.
pub(super) fn check_pages(connection: &Connection) -> rusqlite::Result<()> {
    let answer: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if answer == "ok" { Ok(()) } else { Err(malformed(&answer)) }
}
