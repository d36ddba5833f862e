//! Facts that a client has learned and keeps for a while: redirects of blobs, open upload sessions, referrers that the registry links.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Url;
use tokio::time::Instant;

use crate::oci::{Digest, Repository};

/// How long the target of a redirect is used again; signed URLs live for minutes.
const SHORTCUT_LIFE: Duration = Duration::from_secs(60);

/// Targets of redirects that are kept.
const SHORTCUTS: usize = 256;

/// Where redirects of blobs led, for a short time.
#[derive(Default)]
pub(super) struct Shortcuts {
    /// Never held across an await.
    known: Mutex<HashMap<Digest, (Url, Instant)>>,
}

impl Shortcuts {
    pub(super) fn get(&self, digest: &Digest) -> Option<Url> {
        let known = self.known.lock();
        known.get(digest).filter(|(_, until)| *until > Instant::now()).map(|(url, _)| url.clone())
    }

    pub(super) fn put(&self, digest: Digest, url: Url) {
        let mut known = self.known.lock();
        if known.len() >= SHORTCUTS {
            known.clear();
        }
        // The life counts from the redirect, not from the last use: the signature does not live longer either.
        known
            .entry(digest)
            .and_modify(|entry| {
                if entry.0 != url {
                    *entry = (url.clone(), Instant::now() + SHORTCUT_LIFE)
                }
            })
            .or_insert((url.clone(), Instant::now() + SHORTCUT_LIFE));
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
    /// Never held across an await.
    known: Mutex<HashSet<(Repository, Digest)>>,
    /// Held while a list is read, changed and put: changes of one client take turns.
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl Linked {
    pub(super) fn put(&self, repository: &Repository, referrer: Digest) {
        let mut known = self.known.lock();
        if known.len() >= LINKED {
            known.clear();
        }
        known.insert((repository.clone(), referrer));
    }

    pub(super) fn has(&self, repository: &Repository, referrer: &Digest) -> bool {
        self.known.lock().contains(&(repository.clone(), *referrer))
    }
}
