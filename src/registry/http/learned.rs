//! Facts that a client caches for a while: blob redirects, open upload sessions, referrers that the registry links itself.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Url;
use tokio::time::Instant;

use crate::bounded::BoundedMap;
use crate::oci::{Digest, Repository};

/// How long a redirect target is reused; signed URLs live for minutes.
const SHORTCUT_LIFE: Duration = Duration::from_secs(60);

/// Cached redirect targets.
const SHORTCUTS: usize = 256;

/// Recent redirect targets of blobs.
#[derive(Default)]
pub(super) struct Shortcuts {
    known: BoundedMap<Digest, (Url, Instant), SHORTCUTS>,
}

impl Shortcuts {
    pub(super) fn get(&self, digest: &Digest) -> Option<Url> {
        self.known.get_if(digest, |(_, until)| *until > Instant::now()).map(|(url, _)| url)
    }

    pub(super) fn put(&self, digest: Digest, url: Url) {
        // The lifetime counts from the redirect, not from the last use, as does the signature's.
        if self.known.get_if(&digest, |(known, _)| *known == url).is_none() {
            self.known.put(digest, (url, Instant::now() + SHORTCUT_LIFE));
        }
    }
}

/// Idle upload sessions kept.
const IDLE_SESSIONS: usize = 64;

/// An open upload.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Where its next request goes.
    pub(super) location: Url,
    /// Minimum chunk size except for the last chunk, in bytes.
    pub(super) least: u64,
}

/// Upload sessions waiting for use.
#[derive(Default)]
pub(super) struct IdleSessions {
    /// Never held across an await.
    sessions: Mutex<HashMap<(Repository, Digest), Session>>,
}

impl IdleSessions {
    pub(super) fn take(&self, repository: &Repository, digest: &Digest) -> Option<Session> {
        self.sessions.lock().remove(&(repository.clone(), *digest))
    }

    /// Keeps a session; returns the one that must be cancelled to make room.
    pub(super) fn put(&self, repository: &Repository, digest: Digest, session: Session) -> Option<Session> {
        let mut sessions = self.sessions.lock();
        let key = (repository.clone(), digest);
        if sessions.len() >= IDLE_SESSIONS && !sessions.contains_key(&key) {
            return Some(session);
        }
        sessions.insert(key, session)
    }
}

/// Manifests remembered.
const LINKED: usize = 4096;

/// Manifests for which the registry said that it links their subject itself.
#[derive(Default)]
pub(super) struct Linked {
    known: BoundedMap<(Repository, Digest), (), LINKED>,
    /// Held while a list is read, changed and put, so that one client's changes are serialised.
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl Linked {
    pub(super) fn put(&self, repository: &Repository, referrer: Digest) {
        self.known.put((repository.clone(), referrer), ());
    }

    pub(super) fn has(&self, repository: &Repository, referrer: &Digest) -> bool {
        self.known.get(&(repository.clone(), *referrer)).is_some()
    }
}
