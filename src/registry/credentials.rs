//! Credentials as docker, podman and ORAS store them: JSON files, and the helper programs they name.
//!
//! Decides which credential belongs to which registry and repository. The file paths are passed in, in order of preference; this module
//! never reads the environment, and writes only on login and logout. Changed files are read again, so that a login or a rotated password
//! takes effect without a new mount. Secrets are wiped from memory when dropped and never printed.

mod credential;
mod files;
mod helper;
mod store;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::credential::{Credential, CredentialScope, Secret};
use self::files::{Files, Lookup};
pub use self::store::{CredentialStore, Kept};
use crate::bounded::BoundedMap;
use crate::error::Error;
use crate::flight::Flight;

/// How long a helper's answer is reused.
const HELPER_ANSWER: Duration = Duration::from_secs(300);
/// How long a failed helper is not asked again.
const HELPER_FAILURE: Duration = Duration::from_secs(30);
/// Cached helper answers.
const HELPER_ANSWERS: usize = 256;

/// A credential and where it came from.
#[derive(Clone, Debug)]
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// The file or helper it came from, for messages.
    pub source: Option<String>,
    /// Problems during the lookup, for the message of a refusal.
    pub notes: Vec<String>,
}

/// The places to look up credentials.
pub struct Credentials {
    /// If set, used instead of all files.
    only: Option<Credential>,
    files: Files,
    helper_directories: Vec<PathBuf>,
    helper_limit: Duration,
    /// Never held across an await.
    answers: Arc<BoundedMap<(String, String), (Instant, HelperResult), HELPER_ANSWERS>>,
    asking: Flight<(String, String), HelperResult>,
}

/// A helper's credential, or why it has none.
type HelperResult = Result<Option<Credential>, String>;

impl Credentials {
    /// Searches `files` in this order; the first with an entry for the registry wins. A missing file counts as empty. Helpers are searched
    /// for in `helper_directories` (in `PATH` format) and nowhere else.
    pub fn new(files: Vec<PathBuf>, helper_directories: Vec<PathBuf>) -> Self {
        Self {
            only: None,
            files: Files::new(files),
            helper_directories,
            helper_limit: helper::LIMIT,
            answers: Arc::default(),
            asking: Flight::default(),
        }
    }

    /// Also searches these logins of another file, by host, after all files and helpers. Logins without user or password are skipped.
    pub fn with_logins(mut self, file: &Path, logins: impl IntoIterator<Item = (String, String, Secret)>) -> Self {
        self.files.add_logins(file, logins);
        self
    }

    /// Always this credential.
    pub fn only(credential: Credential) -> Self {
        Self { only: Some(credential), ..Self::none() }
    }

    /// No credentials at all.
    pub fn none() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    /// The credential for a scope. With `fresh`, helpers are asked again.
    ///
    /// # Errors
    /// A credential file cannot be read or parsed. A failing helper is only a note, since much can be read without credentials.
    pub async fn find(&self, place: CredentialScope<'_>, fresh: bool) -> Result<Found, Error> {
        let mut notes = Vec::new();
        if let Some(credential) = self.only.clone() {
            return Ok(Found { credential, source: None, notes });
        }
        for lookup in self.files.lookups(place)? {
            match lookup {
                Lookup::Stored(credential, file) => {
                    return Ok(Found { credential, source: Some(file.display().to_string()), notes });
                }
                Lookup::Helper { name, server } => match self.ask(&name, &server, fresh).await {
                    Ok(Some(credential)) => return Ok(Found { credential, source: Some(format!("docker-credential-{name}")), notes }),
                    Ok(None) => {}
                    Err(note) => notes.push(note),
                },
            }
        }
        Ok(Found { credential: Credential::Anonymous, source: None, notes })
    }

    async fn ask(&self, name: &str, server: &str, fresh: bool) -> HelperResult {
        let key = (name.to_owned(), server.to_owned());
        let begun = Instant::now();
        let known = || {
            let (asked, answer) = self.answers.get(&key)?;
            let is_good = asked.elapsed() < if answer.is_ok() { HELPER_ANSWER } else { HELPER_FAILURE };
            (is_good && !(fresh && answer.is_ok() && asked < begun)).then_some(answer)
        };
        if let Some(answer) = known() {
            return answer;
        }
        let asking = self.asking.run(key.clone(), known, || {
            let (directories, limit) = (self.helper_directories.clone(), self.helper_limit);
            let (answers, key) = (Arc::clone(&self.answers), key.clone());
            async move {
                let answer = helper::get(&directories, &key.0, &key.1, limit).await;
                if let Err(note) = &answer {
                    tracing::warn!(note, "a credential helper failed");
                }
                answers.put(key, (Instant::now(), answer.clone()));
                answer
            }
        });
        asking.await.unwrap_or_else(|error| Err(format!("credential helper docker-credential-{name}: {error}")))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
