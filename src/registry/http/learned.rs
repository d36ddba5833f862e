//! Facts that a client has learned and keeps for a while: redirects of blobs, open upload sessions, referrers that the registry links.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Url;
use tokio::time::Instant;

use crate::bounded::BoundedMap;
use crate::oci::{Digest, Repository};

/// How long the target of a redirect is used again; signed URLs live for minutes.
const SHORTCUT_LIFE: Duration = Duration::from_secs(60);

/// Targets of redirects that are kept.
const SHORTCUTS: usize = 256;

/// Where redirects of blobs led, for a short time.
#[derive(Default)]
pub(super) struct Shortcuts {
    known: BoundedMap<Digest, (Url, Instant), SHORTCUTS>,
}

impl Shortcuts {
    pub(super) fn get(&self, digest: &Digest) -> Option<Url> {
        self.known.get_if(digest, |(_, until)| *until > Instant::now()).map(|(url, _)| url)
    }

    pub(super) fn put(&self, digest: Digest, url: Url) {
        // The life counts from the redirect, not from the last use: the signature does not live longer either.
        if self.known.get_if(&digest, |(known, _)| *known == url).is_none() {
            self.known.put(digest, (url, Instant::now() + SHORTCUT_LIFE));
        }
    }
}

/// Sessions that wait for their upload.
const IDLE_SESSIONS: usize = 64;

/// An open upload.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Where its next request goes.
    pub(super) location: Url,
    /// Chunks must be at least so large, but for the last.
    pub(super) least: u64,
}

/// Sessions that wait for use.
#[derive(Default)]
pub(super) struct IdleSessions {
    /// Never held across an await.
    sessions: Mutex<HashMap<(Repository, Digest), Session>>,
}

impl IdleSessions {
    pub(super) fn take(&self, repository: &Repository, digest: &Digest) -> Option<Session> {
        self.sessions.lock().remove(&(repository.clone(), *digest))
    }

    /// Keeps a session; the one that must be given up for it is answered.
    pub(super) fn put(&self, repository: &Repository, digest: Digest, session: Session) -> Option<Session> {
        let mut sessions = self.sessions.lock();
        let key = (repository.clone(), digest);
        if sessions.len() >= IDLE_SESSIONS && !sessions.contains_key(&key) {
            return Some(session);
        }
        sessions.insert(key, session)
    }
}

/// Manifests that are remembered.
const LINKED: usize = 4096;

/// Manifests whose registry said that it keeps their subject itself.
#[derive(Default)]
pub(super) struct Linked {
    known: BoundedMap<(Repository, Digest), (), LINKED>,
    /// Held while a list is read, changed and put: changes of one client take turns.
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
