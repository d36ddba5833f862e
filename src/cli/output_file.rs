//! Output for raw bytes: standard output, or a file that appears complete or not at all.

use std::fs::Permissions;
use std::io::{self, IsTerminal, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::cli::exit::Failure;
use crate::cli::terminal::escape;
use crate::durable;

/// `-o -`.
const STDOUT: &str = "-";

/// The output.
pub enum Destination {
    /// Standard output, until its reader closes it.
    Stdout {
        /// The reader has closed it.
        closed: bool,
        /// Something was written.
        used: bool,
    },
    /// A temporary file and its final path.
    File(NamedTempFile, PathBuf),
}

impl Destination {
    /// Opens standard output (no path or `-`), or a file.
    ///
    /// # Errors
    /// The file's directory cannot be written to.
    pub fn new(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new(STDOUT)) else { return Ok(Self::Stdout { closed: false, used: false }) };
        let directory = durable::directory_of(path);
        // The umask decides the final mode.
        let mode = Permissions::from_mode(0o666);
        let file = tempfile::Builder::new().prefix(".ocifs-").permissions(mode).tempfile_in(directory);
        Ok(Self::File(file.map_err(|error| failed(path, &error))?, path.to_owned()))
    }

    /// Whether this is a terminal, which must not receive raw bytes from a registry.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdout { .. }) && io::stdout().is_terminal()
    }

    /// Writes bytes. False once the reader has closed the output.
    ///
    /// # Errors
    /// The write fails, for example because the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        match self {
            Self::Stdout { closed, used } => {
                *used = true;
                match io::stdout().lock().write_all(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => *closed = true,
                    other => other.map_err(|error| failed(Path::new("standard output"), &error))?,
                }
            }
            Self::File(file, path) => file.as_file_mut().write_all(bytes).map_err(|error| failed(path, &error))?,
        }
        Ok(!matches!(self, Self::Stdout { closed: true, .. }))
    }

    /// Drops what was written, to write it again. False if it has left this process.
    ///
    /// # Errors
    /// The file cannot be truncated.
    pub fn restart(&mut self) -> Result<bool, Failure> {
        match self {
            Self::Stdout { used, .. } => Ok(!*used),
            Self::File(file, path) => {
                let emptied = file.as_file_mut().set_len(0).and_then(|()| file.as_file_mut().rewind());
                emptied.map(|()| true).map_err(|error| failed(path, &error))
            }
        }
    }

    /// Finishes: a file gets its final name.
    ///
    /// # Errors
    /// As [`Destination::write`].
    pub fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout { closed: true, .. } => Ok(()),
            Self::Stdout { closed: false, .. } => match io::stdout().lock().flush() {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(Path::new("standard output"), &error)),
                _ => Ok(()),
            },
            Self::File(file, path) => file.persist(&path).map(drop).map_err(|error| failed(&path, &error.error)),
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::other(format!("cannot write {}: {error}", escape::path(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_finished_and_replaces_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let mut destination = Destination::new(Some(&path)).unwrap();
        assert!(destination.write(b"new").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        destination.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        drop(Destination::new(Some(&path)).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
