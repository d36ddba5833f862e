//! Users of an htpasswd file with bcrypt hashes, read again when it changes. A pair that was verified is remembered, since a hash takes
//! a tenth of a second on purpose.

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

/// A hash of the usual cost, verified for users that do not exist, so that they are not told by the time.
const NOBODY: &str = "$2y$10$KXHLg.GqY9nQ1UV6RaPdUOkKjZneYcxadfkLYReCQ.HjR.z2eSeKu";
/// Hashes that are computed at a time.
const COMPUTING: usize = 2;
/// Pairs that are remembered.
const VERIFIED: usize = 10_000;
/// bcrypt looks at no more of a password.
const LONGEST: usize = 72;

#[derive(Default)]
struct Users {
    hashes: BTreeMap<String, String>,
    modified: Option<SystemTime>,
    /// Digests of pairs, and the hash that they fit.
    verified: BoundedMap<[u8; 32], String, VERIFIED>,
}

/// The users of an htpasswd file.
pub struct Passwords {
    path: PathBuf,
    /// Held for one look.
    users: Mutex<Users>,
    computing: Arc<Semaphore>,
    hash: KeyedHash,
}

impl Passwords {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or holds hashes other than bcrypt's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let users = Mutex::new(read(path)?);
        Ok(Self { path: path.to_owned(), users, computing: Arc::new(Semaphore::new(COMPUTING)), hash: KeyedHash::default() })
    }

    /// Reads the file again if it changed; one that cannot be read changes nothing.
    fn refresh(&self) {
        let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_none() || self.users.lock().modified == modified {
            return;
        }
        match read(&self.path) {
            Ok(users) => *self.users.lock() = users,
            Err(error) => tracing::warn!(%error, "the changed htpasswd file is not used"),
        }
    }

    /// The user that a request names; none where it names none.
    ///
    /// # Errors
    /// 401 if the password is wrong or the header is not understood.
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
    // The time comes first: a change while it is read is noticed the next time.
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
            return Err(invalid("the hash is not bcrypt's; write it with `htpasswd -B`"));
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
    async fn users_are_told_by_their_passwords_and_a_changed_file_counts() {
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
    fn only_bcrypt_hashes_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        for bad in ["alice:$apr1$x$y", "alice:{SHA}x", "alice", ":$2y$05$x", "*:$2y$05$x"] {
            std::fs::write(&path, bad).unwrap();
            assert!(Passwords::open(&path).is_err(), "{bad}");
        }
    }
}
