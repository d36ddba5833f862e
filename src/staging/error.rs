//! Errors of an upper, with messages that say where the bytes are and what to do.
//!
//! Maps errors of the system and of SQLite to the closed set of kinds. Never prints, never hides an error.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;

use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::sys::space::is_too_large;

/// An error of the system; `what` starts a sentence that the path completes.
pub(super) fn system(what: &str, path: &Path, error: &io::Error) -> Error {
    let place = shown(path);
    if is_too_large(error) {
        return Error::new(
            ErrorKind::TooLarge,
            format!("{what} {place}: the file would exceed the limit of the file system or of `ulimit -f`"),
        );
    }
    if is_full(error) {
        let space =
            durable::free(path.parent().unwrap_or(path)).map_or(String::new(), |free| format!(" ({} bytes are free)", free.available));
        return Error::new(
            ErrorKind::NoSpace,
            format!(
                "{what} {place}: the disk that holds the state directory is full{space}; free some space or choose another --state-dir"
            ),
        );
    }
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => Error::new(
            ErrorKind::ReadOnly,
            format!("{what} {place}: the disk that holds the state directory is read-only; remount it or choose another --state-dir"),
        ),
        io::ErrorKind::NotFound => {
            Error::new(ErrorKind::Other, format!("{what} {place}: not found; is the disk that holds the state directory mounted?"))
        }
        _ => Error::new(ErrorKind::Other, format!("{what} {place}: {error}")),
    }
}

/// An error of SQLite. `path` is the database's.
pub(super) fn database(what: &str, path: &Path, error: &rusqlite::Error) -> Error {
    let place = shown(path);
    let damaged = || {
        let directory = path.parent().unwrap_or(path);
        Error::new(
            ErrorKind::Integrity,
            format!(
                "{what} {place}: the database is damaged ({error}); nothing was deleted, the staged bytes are in {}; `ocifs discard` drops them",
                shown(&directory.join("data"))
            ),
        )
    };
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return match error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::QueryReturnedNoRows => damaged(),
            _ => Error::new(ErrorKind::Other, format!("{what} {place}: {error}")),
        };
    };
    match failure.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch | ErrorCode::ConstraintViolation => damaged(),
        ErrorCode::DiskFull => system(what, path, &full()),
        ErrorCode::SystemIoFailure if has_no_room(path) => system(what, path, &full()),
        ErrorCode::ReadOnly => system(what, path, &io::ErrorKind::ReadOnlyFilesystem.into()),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Error::new(ErrorKind::Busy, format!("{what} {place}: another program has the database open"))
        }
        ErrorCode::TooBig => Error::new(ErrorKind::TooLong, format!("{what} {place}: the value is too long")),
        _ if !path.exists() => system(what, path, &io::ErrorKind::NotFound.into()),
        _ => Error::new(ErrorKind::Other, format!("{what} {place}: {error}")),
    }
}

fn is_full(error: &io::Error) -> bool {
    durable::is_full(error) || error.kind() == io::ErrorKind::StorageFull
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// SQLite detects a full disk but not an exceeded user quota; a small write beside the database does.
fn has_no_room(path: &Path) -> bool {
    use std::io::Write;
    let Some(directory) = path.parent() else { return false };
    let probe = tempfile::Builder::new().prefix(durable::TEMPORARY).tempfile_in(directory);
    let result = probe.and_then(|mut file| file.write_all(&[0; 65536]).and_then(|()| file.as_file().sync_all()));
    result.is_err_and(|error| is_full(&error))
}

/// A path or foreign name, escaped for messages.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}
