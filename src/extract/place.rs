//! Gives a name its new entry. An existing one is replaced atomically, or kept; a directory is replaced only if empty.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use crate::sys::entry;

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// The name has the new entry.
    New,
    /// The name kept its old entry.
    Kept,
}

/// A unique temporary name. It begins with a dot, so that tools skip it.
pub(super) fn own_name() -> String {
    format!(".ocifs-{:016x}", rand::random::<u64>())
}

/// Creates an entry with `make` under a temporary name, and moves it to `name`.
///
/// # Errors
/// `DirectoryNotEmpty` for a non-empty directory, or errors of the system; the name then keeps its old entry.
pub(super) fn place(directory: &File, name: &OsStr, keep: bool, make: &dyn Fn(&OsStr) -> io::Result<()>) -> io::Result<Placed> {
    match make(name) {
        Ok(()) => return Ok(Placed::New),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) if keep => return Ok(Placed::Kept),
        Err(_) => {}
    }
    let own = own_name();
    make(OsStr::new(&own))?;
    let moved = replace(directory, OsStr::new(&own), name);
    // Also needed if both are the same file: a rename then leaves both names.
    let tidied = entry::remove(directory, OsStr::new(&own));
    match (moved, tidied) {
        (Ok(()), Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        (moved, _) => moved.map(|()| Placed::New),
    }
}

/// Renames over whatever is there.
pub(super) fn replace(directory: &File, from: &OsStr, to: &OsStr) -> io::Result<()> {
    match entry::rename(directory, from, to, true) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            entry::remove_directory(directory, to)?;
            entry::rename(directory, from, to, true)
        }
        moved => moved,
    }
}
