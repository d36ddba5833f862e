//! oci-sync's file `oci-sync.yaml`: shortcuts for repositories, and logins.
//!
//! Read from the home directory or a path the user names. Never picked up from the working directory: a file in a downloaded directory must
//! not decide where `docs push` goes.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::environment::Environment;
use crate::cli::exit::Failure;
use crate::cli::terminal::{escape, message};
use crate::registry::Secret;

/// The parts of the file that ocifs uses; the rest is ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct OciSync {
    /// By name.
    pub shortcuts: BTreeMap<String, Shortcut>,
    /// By host.
    pub auths: BTreeMap<String, Login>,
    /// The path of the file.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A shortcut.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Shortcut {
    /// The repository.
    pub repo: String,
}

/// A login.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

impl OciSync {
    /// Reads the file named by the user, else the one in the home directory if it exists. An invalid file in the home directory is only a
    /// warning.
    ///
    /// # Errors
    /// A named file is missing or invalid.
    pub fn load(environment: &Environment) -> Result<Self, Failure> {
        let named = environment.oci_sync_file.clone();
        let is_named = named.is_some();
        let Some(path) = named.or_else(|| environment.home_of_oci_sync()) else { return Ok(Self::default()) };
        let text = match std::fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => text,
            Err(error) if !is_named && error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return unusable(is_named, format!("cannot read {}: {error}", escape::path(&path))),
        };
        if text.trim().is_empty() {
            return Ok(Self { path, ..Self::default() });
        }
        match serde_saphyr::from_str::<Self>(&text) {
            Ok(file) => Ok(Self { path, ..file }),
            // The parser's message may quote a password.
            Err(error) => {
                let line = error.without_snippet().location().map(|location| format!(" (line {})", location.line())).unwrap_or_default();
                unusable(is_named, format!("{} is not valid oci-sync YAML{line}", escape::path(&path)))
            }
        }
    }
}

fn unusable(is_named: bool, message: String) -> Result<OciSync, Failure> {
    if is_named {
        return Err(Failure::usage(message));
    }
    message::warn(&message);
    Ok(OciSync::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, is_named: bool) -> Result<OciSync, Failure> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".config/oci-sync/oci-sync.yaml");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let oci_sync_file = is_named.then_some(path);
        OciSync::load(&Environment { home: Some(home.path().into()), oci_sync_file, ..Environment::default() })
    }

    #[test]
    fn shortcuts_and_logins_are_read_from_the_home_directory() {
        let file =
            load("shortcuts:\n  docs: { repo: ghcr.io/me/docs }\nauths:\n  ghcr.io: { username: u, password: p }\nother: 1\n", false);
        let file = file.unwrap();
        assert_eq!(file.shortcuts["docs"].repo, "ghcr.io/me/docs");
        assert_eq!((file.auths["ghcr.io"].username.as_str(), file.auths["ghcr.io"].password.expose()), ("u", "p"));
        assert!(OciSync::load(&Environment::default()).unwrap().shortcuts.is_empty());
    }

    #[test]
    fn a_mistake_is_an_error_only_in_a_named_file_and_is_never_quoted() {
        let text = "auths:\n  ghcr.io: [hunter2\n";
        assert!(load(text, false).unwrap().auths.is_empty());
        let failure = load(text, true).unwrap_err();
        assert!(!failure.message.contains("hunter2") && failure.message.contains("oci-sync.yaml"), "{}", failure.message);
        let missing = Environment { oci_sync_file: Some("/no/such.yaml".into()), ..Environment::default() };
        assert!(OciSync::load(&missing).unwrap_err().message.contains("/no/such.yaml"));
    }
}
