//! The history of commands that moved artifacts, for `ocifs recent`.
//!
//! A private file in the state directory, newest entry first, bounded. Errors here never fail a command.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::exit::Failure;
use super::settings::environment::Environment;
use super::terminal::escape;
use crate::durable::{self, RangeLock};

/// Entries kept.
const KEPT: usize = 100;
/// Longest wait for another command's write.
const PATIENCE: Duration = Duration::from_secs(2);

/// A command that succeeded. Its keys are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// `push`, `pull`, `cp`, `backup`, `restore`, `pack`, `tag`, `label`, `attach` or `delete`.
    #[serde(rename = "type")]
    pub command: String,
    /// When, RFC 3339.
    pub timestamp: String,
    /// The artifact.
    pub remote_ref: String,
    /// The local file or directory, or the destination of a copy.
    pub local_path: Option<String>,
    /// Digest of the artifact.
    pub digest: String,
}

impl Done {
    /// An entry for a command that just succeeded.
    pub fn now(command: &str, remote_ref: impl ToString, local_path: Option<String>, digest: impl ToString) -> Self {
        Self {
            command: command.to_owned(),
            timestamp: DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Secs, true),
            remote_ref: remote_ref.to_string(),
            local_path,
            digest: digest.to_string(),
        }
    }
}

/// Formats a local path for an entry.
pub fn place(path: &Path) -> Option<String> {
    std::path::absolute(path).ok().map(|path| path.to_string_lossy().into_owned())
}

/// Adds a command.
pub fn add(done: Done, environment: &Environment) {
    let Ok(file) = file(environment) else { return };
    let added = change(&file, |list| list.insert(0, done));
    if let Err(error) = added {
        tracing::debug!(%error, file = %file.display(), "cannot record the command in the history");
    }
}

/// The entries, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn all(environment: &Environment) -> Result<Vec<Done>, Failure> {
    let file = file(environment)?;
    read(&file).map_err(|error| Failure::other(format!("cannot read {}: {error}", escape::path(&file))))
}

/// Clears the history.
///
/// # Errors
/// The file cannot be removed.
pub fn clear(environment: &Environment) -> Result<(), Failure> {
    let file = file(environment)?;
    match durable::remove(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::other(format!("cannot remove {}: {error}", escape::path(&file))))
        }
        _ => Ok(()),
    }
}

fn file(environment: &Environment) -> Result<PathBuf, Failure> {
    environment.state_directory().map(|directory| directory.join("recent.json"))
}

fn read(file: &Path) -> io::Result<Vec<Done>> {
    match std::fs::read(file) {
        // An unreadable history is replaced by the next command.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn change(file: &Path, edit: impl FnOnce(&mut Vec<Done>)) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    durable::private_directory(folder)?;
    let Some(_lock) = RangeLock::file(&file.with_extension("lock"), PATIENCE)? else { return Err(io::ErrorKind::TimedOut.into()) };
    let mut list = read(file)?;
    edit(&mut list);
    list.truncate(KEPT);
    durable::replace(file, &[&serde_json::to_vec(&list)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_hundred_commands_are_kept() {
        let state = tempfile::tempdir().unwrap();
        let environment = Environment { state_home: Some(state.path().into()), ..Environment::default() };
        assert_eq!(all(&environment).unwrap(), []);
        for number in 0..KEPT + 3 {
            add(Done::now("push", format!("reg.io/app:v{number}"), place(Path::new("dir")), "sha256:x"), &environment);
        }
        let found = all(&environment).unwrap();
        assert_eq!((found.len(), found[0].remote_ref.as_str(), found[99].remote_ref.as_str()), (KEPT, "reg.io/app:v102", "reg.io/app:v3"));
        let file = state.path().join("ocifs/recent.json");
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap()) & 0o077, 0, "of the user alone");
        std::fs::write(&file, "no list").unwrap();
        add(Done::now("pull", "reg.io/app:v1", None, "sha256:x"), &environment);
        assert_eq!(all(&environment).unwrap().len(), 1);
        clear(&environment).unwrap();
        clear(&environment).unwrap();
        assert_eq!(all(&environment).unwrap(), []);
    }

    #[test]
    fn an_unusable_state_directory_is_not_an_error() {
        let environment = Environment { state_home: Some("/proc/no".into()), ..Environment::default() };
        add(Done::now("push", "reg.io/app:v1", None, "sha256:x"), &environment);
    }
}
