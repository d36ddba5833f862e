//! The files `config.json` and `auth.json`: parsed, matched by whole path segments, and reread when they change.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::credential::{Credential, CredentialScope, Secret};
use crate::error::{Error, ErrorKind};

/// Largest credential file, in bytes.
pub(super) const LIMIT: u64 = 4 << 20;
/// The key docker uses for Docker Hub, also with helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// One lookup to try.
#[derive(Debug)]
pub(super) enum Lookup {
    /// A credential stored in a file.
    Stored(Credential, PathBuf),
    /// A helper to ask for a server.
    Helper { name: String, server: String },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parsed {
    auths: HashMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Secret,
    username: String,
    password: Secret,
    identitytoken: Secret,
    registrytoken: Secret,
}

type Stamp = (u64, u64, i64, i64, u64);

/// The credential files, with their parsed content by stamp.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// Logins from a file in another format.
    others: Vec<(PathBuf, Parsed)>,
    /// Never held across an await.
    read: Mutex<HashMap<PathBuf, (Stamp, Arc<Parsed>)>>,
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, others: Vec::new(), read: Mutex::default() }
    }

    pub(super) fn add_logins(&mut self, file: &Path, logins: impl IntoIterator<Item = (String, String, Secret)>) {
        let usable = logins.into_iter().filter(|(_, username, password)| !username.is_empty() && !password.is_empty());
        let auths = usable.map(|(host, username, password)| (host, Entry { username, password, ..Entry::default() })).collect();
        self.others.push((file.to_owned(), Parsed { auths, ..Parsed::default() }));
    }

    /// The lookups to try for a scope, in order.
    pub(super) fn lookups(&self, place: CredentialScope<'_>) -> Result<Vec<Lookup>, Error> {
        let mut lookups = Vec::new();
        for path in &self.paths {
            if let Some(parsed) = self.parsed(path)? {
                parsed.lookups(place, path, &mut lookups)?;
            }
        }
        for (path, parsed) in &self.others {
            parsed.lookups(place, path, &mut lookups)?;
        }
        Ok(lookups)
    }

    fn parsed(&self, path: &Path) -> Result<Option<Arc<Parsed>>, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Invalid, format!("credential file {} cannot be used: {error}", path.display()))
        };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let metadata = file.metadata().map_err(|error| failed(&error))?;
        if metadata.is_dir() {
            return Err(failed(&"it is a directory"));
        }
        let stamp = (metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size());
        let mut read = self.read.lock();
        if let Some((known, parsed)) = read.get(path)
            && *known == stamp
        {
            return Ok(Some(Arc::clone(parsed)));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(LIMIT).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        // A parser's message may quote the surrounding text, so only the position is shown.
        let parsed = if bytes.iter().all(u8::is_ascii_whitespace) { Ok(Parsed::default()) } else { serde_json::from_slice(&bytes) };
        let parsed: Arc<Parsed> = Arc::new(parsed.map_err(|error| {
            failed(&format!("it is not a docker or podman credential file (line {}, column {})", error.line(), error.column()))
        })?);
        read.insert(path.to_owned(), (stamp, Arc::clone(&parsed)));
        Ok(Some(parsed))
    }
}

impl Parsed {
    fn lookups(&self, place: CredentialScope<'_>, path: &Path, lookups: &mut Vec<Lookup>) -> Result<(), Error> {
        if let Some(name) = best(&self.helpers, place) {
            lookups.push(Lookup::Helper { name: name.clone(), server: server(place) });
        } else if !self.store.is_empty() {
            lookups.push(Lookup::Helper { name: self.store.clone(), server: server(place) });
        }
        if let Some(entry) = best_of(self.auths.iter().filter(|(_, entry)| !entry.is_empty()), place) {
            let credential = entry.credential().ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("credential file {}: the entry for {} cannot be decoded; log in again", path.display(), place.registry),
                )
            })?;
            lookups.push(Lookup::Stored(credential, path.to_owned()));
        }
        Ok(())
    }
}

impl Entry {
    /// Docker leaves an empty entry if a helper holds the credential.
    fn is_empty(&self) -> bool {
        [&self.auth, &self.password, &self.identitytoken, &self.registrytoken].iter().all(|field| field.is_empty())
            && self.username.is_empty()
    }

    fn credential(&self) -> Option<Credential> {
        if !self.registrytoken.is_empty() {
            return Some(Credential::RegistryToken(self.registrytoken.clone()));
        }
        if !self.identitytoken.is_empty() {
            return Some(Credential::IdentityToken(self.identitytoken.clone()));
        }
        if self.auth.is_empty() {
            return Some(Credential::Password { user: self.username.clone(), password: self.password.clone() });
        }
        let decoded = Zeroizing::new(STANDARD.decode(self.auth.expose().trim()).ok()?);
        let text = std::str::from_utf8(&decoded).ok()?;
        let (user, password) = text.split_once(':')?;
        // Docker once padded passwords with zero bytes.
        Some(Credential::Password { user: user.to_owned(), password: Secret::new(password.trim_matches('\0')) })
    }
}

/// The server name to pass to a helper.
pub(super) fn server(place: CredentialScope<'_>) -> String {
    if place.registry.as_str() == "docker.io" { DOCKER_HUB_KEY.to_owned() } else { place.registry.to_string() }
}

fn best<'a, T>(entries: &'a HashMap<String, T>, place: CredentialScope<'_>) -> Option<&'a T> {
    best_of(entries.iter(), place)
}

/// The entry with the longest key that covers the scope, by whole path segments.
fn best_of<'a, T>(entries: impl Iterator<Item = (&'a String, &'a T)>, place: CredentialScope<'_>) -> Option<&'a T> {
    entries
        .filter_map(|(key, value)| covered(key, place).map(|length| (length, key, value)))
        // If a key is spelled in two ways, the choice must not depend on hash order.
        .max_by(|one, other| one.0.cmp(&other.0).then_with(|| other.1.cmp(one.1)))
        .map(|(_, _, value)| value)
}

/// How many path characters a key matches; `None` if it does not cover the scope.
pub(super) fn covered(key: &str, place: CredentialScope<'_>) -> Option<usize> {
    let (scheme, rest) = match key.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, key),
    };
    match scheme {
        None => {}
        Some("https") if place.tls => {}
        Some("http") if !place.tls => {}
        Some(_) => return None,
    }
    let rest = rest.trim_end_matches('/');
    let (host, mut path) = rest.split_once('/').unwrap_or((rest, ""));
    // The legacy form ends with the API version.
    if matches!(path, "v1" | "v2") {
        path = "";
    }
    let host = host.to_ascii_lowercase();
    let host = match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    if host != place.registry.as_str() {
        return None;
    }
    if path.is_empty() {
        return Some(0);
    }
    place.repository.filter(|repository| repository.is_within(path)).map(|_| path.len())
}
