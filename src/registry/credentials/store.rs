//! Stores and removes credentials where docker, podman and ORAS look for them: in a file, or in the helper that the file names.
//!
//! Everything else in the file is preserved. One process at a time changes it, under `.NAME.lock` beside it. It is replaced atomically, readable
//! only by its owner; a symlink to it stays a symlink.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::credential::{Credential, CredentialScope};
use super::files::{self, covered};
use super::helper;
use crate::durable::{self, RangeLock};
use crate::error::{Error, ErrorKind};
use crate::oci::Registry;

/// How long to wait for another process that changes the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// The member that holds the entries.
const ENTRIES: &str = "auths";

/// A store of logins.
pub struct CredentialStore {
    file: PathBuf,
    helper_directories: Vec<PathBuf>,
}

/// Where a credential was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// This file.
    File(PathBuf),
    /// The helper with this name.
    Helper(String),
}

impl CredentialStore {
    /// A store in this file, which need not exist yet, with the directories of the helpers it may name.
    pub fn new(file: PathBuf, helper_directories: Vec<PathBuf>) -> Self {
        Self { file, helper_directories }
    }

    /// Stores a registry's credential, replacing an older one.
    ///
    /// # Errors
    /// The file cannot be read or written, or its helper fails.
    pub async fn put(&self, registry: &Registry, credential: &Credential) -> Result<Kept, Error> {
        let (server, helper) = (server(registry), helper_of(&self.read()?, registry));
        let entry = match &helper {
            Some(name) => {
                let stored = helper::store(&self.helper_directories, name, &server, credential).await;
                stored.map_err(|message| Error::new(ErrorKind::Other, message))?;
                // Docker leaves an empty entry if a helper holds the credential.
                json!({})
            }
            None => entry(credential),
        };
        self.change(|entries| {
            forget(entries, registry);
            entries.insert(server, entry);
        })?;
        Ok(helper.map_or_else(|| Kept::File(self.file.clone()), Kept::Helper))
    }

    /// Removes a registry's credential. False if there was none.
    ///
    /// # Errors
    /// As [`CredentialStore::put`].
    pub async fn remove(&self, registry: &Registry) -> Result<bool, Error> {
        let mut members = self.read()?;
        let mut found = false;
        if let Some(name) = helper_of(&members, registry) {
            let server = server(registry);
            let failed = |message| Error::new(ErrorKind::Other, message);
            let held = helper::get(&self.helper_directories, &name, &server, helper::LIMIT).await.map_err(failed)?;
            if held.is_some() {
                helper::erase(&self.helper_directories, &name, &server).await.map_err(failed)?;
                found = true;
            }
        }
        if forget(&mut take_entries(&mut members), registry) {
            self.change(|entries| {
                forget(entries, registry);
            })?;
            found = true;
        }
        Ok(found)
    }

    /// Changes the entries of the file as it is now. Other processes wait.
    fn change(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), Error> {
        let (path, failed) = (self.path(), |error: io::Error| self.failed(&error));
        durable::make_directory(durable::directory_of(&path)).map_err(failed)?;
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".lock");
        let lock = RangeLock::file(&path.with_file_name(name), PATIENCE).map_err(failed)?;
        let _lock = lock.ok_or_else(|| self.failed(&"another process is changing it"))?;
        let mut members = self.read()?;
        let mut entries = take_entries(&mut members);
        change(&mut entries);
        members.insert(ENTRIES.to_owned(), Value::Object(entries));
        self.write(&path, &members)
    }

    /// The file itself, if its name is a symlink.
    fn path(&self) -> PathBuf {
        self.file.canonicalize().unwrap_or_else(|_| self.file.clone())
    }

    fn read(&self) -> Result<Map<String, Value>, Error> {
        let mut bytes = Zeroizing::new(Vec::new());
        match File::open(&self.file).and_then(|file| file.take(files::LIMIT).read_to_end(&mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
            other => other.map_err(|error| self.failed(&error))?,
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(Map::new());
        }
        // A parser's message may quote the surrounding text.
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(members)) => Ok(members),
            _ => Err(self.failed(&"it is not a docker or podman credential file")),
        }
    }

    fn write(&self, path: &Path, members: &Map<String, Value>) -> Result<(), Error> {
        let mut text = Zeroizing::new(Vec::new());
        // Indented like docker's.
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let written = members.serialize(&mut serde_json::Serializer::with_formatter(&mut *text, formatter));
        written.map_err(|error| self.failed(&error))?;
        durable::replace(path, &[&text]).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Error {
        Error::new(ErrorKind::Other, format!("credential file {}: {error}", self.file.display().to_string().escape_debug()))
    }
}

fn scope(registry: &Registry, tls: bool) -> CredentialScope<'_> {
    CredentialScope { registry, repository: None, tls }
}

fn server(registry: &Registry) -> String {
    files::server(scope(registry, true))
}

/// Whether a key stands for the whole registry, in any spelling.
fn is_of(key: &str, registry: &Registry) -> bool {
    [true, false].into_iter().any(|tls| covered(key, scope(registry, tls)) == Some(0))
}

/// The helper that stores a registry's credentials.
fn helper_of(members: &Map<String, Value>, registry: &Registry) -> Option<String> {
    let own = members.get("credHelpers").and_then(Value::as_object);
    let own = own.and_then(|helpers| helpers.iter().find(|(key, _)| is_of(key, registry))).map(|(_, name)| name);
    let name = own.or_else(|| members.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Removes and returns the entries of a file; empty if there are none.
fn take_entries(members: &mut Map<String, Value>) -> Map<String, Value> {
    match members.remove(ENTRIES) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    }
}

/// Drops all entries of a registry. False if there were none.
fn forget(entries: &mut Map<String, Value>, registry: &Registry) -> bool {
    let before = entries.len();
    entries.retain(|key, _| !is_of(key, registry));
    entries.len() != before
}

fn entry(credential: &Credential) -> Value {
    match credential {
        Credential::Anonymous => json!({}),
        Credential::Password { user, password } => {
            let text = Zeroizing::new(format!("{user}:{}", password.expose()));
            json!({"auth": STANDARD.encode(text.as_bytes())})
        }
        Credential::IdentityToken(token) => json!({"identitytoken": token.expose()}),
        Credential::RegistryToken(token) => json!({"registrytoken": token.expose()}),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::registry::{Credentials, Secret};

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new(content: Option<&Value>) -> Self {
            let place = Self { folder: tempfile::tempdir().unwrap() };
            if let Some(content) = content {
                std::fs::write(place.file(), content.to_string()).unwrap();
            }
            place
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("config.json")
        }

        fn store(&self) -> CredentialStore {
            CredentialStore::new(self.file(), vec![self.folder.path().to_owned()])
        }

        fn content(&self) -> Value {
            serde_json::from_slice(&std::fs::read(self.file()).unwrap()).unwrap()
        }

        async fn found(&self, registry: &Registry) -> Credential {
            let credentials = Credentials::new(vec![self.file()], vec![self.folder.path().to_owned()]);
            credentials.find(scope(registry, true), true).await.unwrap().credential
        }
    }

    fn registry(name: &str) -> Registry {
        Registry::parse(name).unwrap()
    }

    fn password(secret: &str) -> Credential {
        Credential::Password { user: "ann".into(), password: Secret::new(secret) }
    }

    #[tokio::test]
    async fn a_login_is_found_again_and_replaces_every_older_spelling_and_nothing_else() {
        let old = json!({"auths": {"https://reg.io/v1/": {"auth": "b2xk"}, "REG.io": {"auth": "b2xk"}, "reg.io/team": {"auth": "dGVhbTp0"},
            "other.io": {"auth": "eDp5"}}, "HttpHeaders": {"x": "y"}, "plugins": {"a": 1}});
        let place = Place::new(Some(&old));
        assert_eq!(place.store().put(&registry("reg.io"), &password("secret")).await.unwrap(), Kept::File(place.file()));
        assert_eq!(place.found(&registry("reg.io")).await, password("secret"));
        let content = place.content();
        let keys: Vec<&String> = content["auths"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["other.io", "reg.io", "reg.io/team"]);
        assert_eq!((&content["HttpHeaders"], &content["plugins"]), (&old["HttpHeaders"], &old["plugins"]));
        assert_eq!(std::fs::metadata(place.file()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(place.store().remove(&registry("reg.io")).await.unwrap());
        assert!(!place.store().remove(&registry("reg.io")).await.unwrap());
        assert_eq!(place.found(&registry("other.io")).await, Credential::Password { user: "x".into(), password: Secret::new("y") });
    }

    #[tokio::test]
    async fn docker_hub_uses_docker_s_key_and_a_missing_file_is_created() {
        let place = Place::new(None);
        place.store().put(&Registry::docker_hub(), &Credential::IdentityToken(Secret::new("t"))).await.unwrap();
        assert!(place.content()["auths"]["https://index.docker.io/v1/"].is_object());
        assert_eq!(place.found(&Registry::docker_hub()).await, Credential::IdentityToken(Secret::new("t")));
    }

    #[test]
    fn logins_at_the_same_time_are_all_kept() {
        let place = Place::new(None);
        std::thread::scope(|scope| {
            for number in 0..12 {
                let (store, registry) = (place.store(), registry(&format!("reg{number}.io")));
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(store.put(&registry, &password("secret"))).unwrap();
                });
            }
        });
        assert_eq!(place.content()["auths"].as_object().unwrap().len(), 12);
    }

    #[tokio::test]
    async fn a_link_to_the_file_stays_a_link() {
        let place = Place::new(None);
        let real = place.folder.path().join("real.json");
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, place.file()).unwrap();
        place.store().put(&registry("reg.io"), &password("secret")).await.unwrap();
        assert!(place.file().is_symlink() && std::fs::read_to_string(real).unwrap().contains("reg.io"));
    }

    #[tokio::test]
    async fn a_file_that_is_not_json_is_left_alone() {
        let place = Place::new(Some(&json!([1])));
        assert!(place.store().put(&registry("reg.io"), &password("secret")).await.is_err());
        assert_eq!(place.content(), json!([1]));
    }

    #[tokio::test]
    async fn a_helper_stores_the_secret_and_the_file_only_an_empty_entry() {
        let place = Place::new(Some(&json!({"credHelpers": {"reg.io": "test"}, "credsStore": "missing"})));
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase $1 in\nstore) cat >kept ;;\nget) cat >/dev/null; [ -e kept ] && cat kept || { echo credentials not found in native keychain; exit 1; } ;;\nerase) cat >/dev/null; rm kept ;;\nesac\n";
        let helper = place.folder.path().join("docker-credential-test");
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(place.store().put(&registry("reg.io"), &password("secret")).await.unwrap(), Kept::Helper("test".into()));
        assert_eq!(place.content()["auths"], json!({"reg.io": {}}));
        assert_eq!(place.found(&registry("reg.io")).await, password("secret"));
        assert!(place.store().remove(&registry("reg.io")).await.unwrap());
        assert_eq!(place.found(&registry("reg.io")).await, Credential::Anonymous);
        assert!(place.store().put(&registry("other.io"), &password("secret")).await.is_err(), "its helper is missing");
    }
}
