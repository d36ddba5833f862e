//! A name gets what it shall stand for. What stands there is replaced in one step, or kept; a directory is replaced if it is empty.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use crate::sys::entry;

/// How a name fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It stands for the new thing.
    New,
    /// It stands for what it stood for before.
    Kept,
}

/// A name that nobody else has. It begins with a dot, as names do that tools shall skip.
pub(super) fn own_name() -> String {
    format!(".ocifs-{:016x}", rand::random::<u64>())
}

/// Gives `name` what `make` makes under the name that it is told.
///
/// # Errors
/// `DirectoryNotEmpty` for a directory that holds something, and errors of the system; the name stands for what it stood for then.
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
    // Also where the two are one file, which a rename leaves with both names.
    let tidied = entry::remove(directory, OsStr::new(&own));
    match (moved, tidied) {
        (Ok(()), Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        (moved, _) => moved.map(|()| Placed::New),
    }
}

/// Moves a name over another one, whatever that stands for.
pub(super) fn replace(directory: &File, from: &OsStr, to: &OsStr) -> io::Result<()> {
    match entry::rename(directory, from, to, true) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            entry::remove_directory(directory, to)?;
            entry::rename(directory, from, to, true)
        }
        moved => moved,
    }
}
