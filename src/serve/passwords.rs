//! Users from an htpasswd file with bcrypt hashes, reloaded when it changes. Verified pairs are cached, since a hash deliberately takes a tenth of
//! a second.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use axum::http::{HeaderMap, header};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::access::unknown_user;
use super::basic::{Basic, KeyedHash, basic};
use super::problem::Problem;
use crate::blocking::spawn_blocking;
use crate::bounded::BoundedMap;

/// A hash of the usual cost, verified for unknown users so that timing does not reveal which users exist.
const NOBODY: &str = "$2y$10$KXHLg.GqY9nQ1UV6RaPdUOkKjZneYcxadfkLYReCQ.HjR.z2eSeKu";
/// Hashes computed concurrently.
const COMPUTING: usize = 2;
/// Cached pairs.
const VERIFIED: usize = 10_000;
/// bcrypt ignores everything after this many bytes.
const LONGEST: usize = 72;

#[derive(Default)]
struct Users {
    hashes: BTreeMap<String, String>,
    modified: Option<SystemTime>,
    /// Digests of verified pairs, with the hash they matched.
    verified: BoundedMap<[u8; 32], String, VERIFIED>,
}

/// The users of an htpasswd file.
pub struct Passwords {
    path: PathBuf,
    /// Locked only for a glance.
    users: Mutex<Users>,
    computing: Arc<Semaphore>,
    hash: KeyedHash,
}

impl Passwords {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or contains other than bcrypt hashes.
    pub fn open(path: &Path) -> io::Result<Self> {
        let users = Mutex::new(read(path)?);
        Ok(Self { path: path.to_owned(), users, computing: Arc::new(Semaphore::new(COMPUTING)), hash: KeyedHash::default() })
    }

    /// Reloads the file if it changed; keeps the old users if it cannot be read.
    fn refresh(&self) {
        let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_none() || self.users.lock().modified == modified {
            return;
        }
        match read(&self.path) {
            Ok(users) => *self.users.lock() = users,
            Err(error) => tracing::warn!(%error, "cannot use the changed htpasswd file"),
        }
    }

    /// The user of a request; `None` without credentials.
    ///
    /// # Errors
    /// 401 if the password is wrong or the header is invalid.
    pub(super) async fn user(&self, headers: &HeaderMap) -> Result<Option<String>, Problem> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let Basic { user, password } = value.to_str().ok().and_then(basic).ok_or_else(unknown_user)?;
        self.refresh();
        let pair = self.hash.of(&user, &password);
        let hash = {
            let users = self.users.lock();
            let hash = users.hashes.get(&user).cloned();
            if hash.is_some() && users.verified.get(&pair) == hash {
                return Ok(Some(user));
            }
            hash
        };
        let computing = Arc::clone(&self.computing).acquire_owned().await.map_err(|_| unknown_user())?;
        let against = hash.clone().unwrap_or_else(|| NOBODY.to_owned());
        let verified = spawn_blocking(move || {
            let _computing = computing;
            password.expose().len() <= LONGEST && bcrypt::verify(password.expose().as_bytes(), &against).unwrap_or(false)
        });
        match (verified.await.unwrap_or(false), hash) {
            (true, Some(hash)) => {
                self.users.lock().verified.put(pair, hash);
                Ok(Some(user))
            }
            _ => Err(unknown_user()),
        }
    }
}

fn read(path: &Path) -> io::Result<Users> {
    // Read the time first: a change during the read is then noticed next time.
    let modified = std::fs::metadata(path)?.modified().ok();
    let text = std::fs::read_to_string(path)?;
    let mut hashes = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {why}", number + 1));
        let (user, hash) = line.trim().split_once(':').ok_or_else(|| invalid("not USER:HASH"))?;
        if user.is_empty() || user == "*" {
            return Err(invalid("not a user name"));
        }
        if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
            return Err(invalid("not a bcrypt hash; create it with `htpasswd -B`"));
        }
        hashes.insert(user.to_owned(), hash.to_owned());
    }
    Ok(Users { hashes, modified, verified: BoundedMap::default() })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn headers(user: &str, password: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn passwords_are_checked_and_a_changed_file_is_reloaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        let line = |user: &str, password: &str| format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap());
        std::fs::write(&path, format!("# users\n{}{}", line("alice", "secret"), line("bob", "b:o:b"))).unwrap();
        let passwords = Passwords::open(&path).unwrap();
        for _ in 0..2 {
            assert_eq!(passwords.user(&headers("alice", "secret")).await.unwrap().as_deref(), Some("alice"));
            assert_eq!(passwords.user(&headers("bob", "b:o:b")).await.unwrap().as_deref(), Some("bob"));
            for (user, password) in [("alice", "b:o:b"), ("alice", ""), ("carol", "secret"), ("", "")] {
                assert_eq!(passwords.user(&headers(user, password)).await.unwrap_err().status.as_u16(), 401);
            }
        }
        assert_eq!(passwords.user(&HeaderMap::new()).await.unwrap(), None);
        std::fs::write(&path, line("alice", "changed")).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
        assert!(passwords.user(&headers("alice", "secret")).await.is_err());
        assert!(passwords.user(&headers("alice", "changed")).await.is_ok());
    }

    #[test]
    fn only_bcrypt_hashes_are_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        for bad in ["alice:$apr1$x$y", "alice:{SHA}x", "alice", ":$2y$05$x", "*:$2y$05$x"] {
            std::fs::write(&path, bad).unwrap();
            assert!(Passwords::open(&path).is_err(), "{bad}");
        }
    }
}
