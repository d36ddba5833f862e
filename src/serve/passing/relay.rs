//! The upstream as the cache reads it: only ever with the login of a client who may read the repository.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::login::Login;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Version};
use crate::registry::{BlobStream, Page, Pull, Resolved, Trust};

/// Most logins tried per repository.
const READERS: usize = 8;

/// The readers of each repository.
pub(in crate::serve) struct Relay {
    origin: String,
    trust: Trust,
    /// An answer came over a transport that cannot be trusted.
    has_strayed: AtomicBool,
    /// Held only for a lookup.
    readers: Mutex<Readers>,
}

#[derive(Default)]
struct Readers {
    /// Newest last. They disappear once expired and no longer being sent anything.
    of: HashMap<Repository, Vec<Weak<Login>>>,
    latest: Weak<Login>,
}

impl Relay {
    /// Starts without readers. `base` is the upstream without a login.
    pub(super) fn new(base: &dyn Pull) -> Self {
        Self { origin: base.origin().to_owned(), trust: base.trust(), has_strayed: AtomicBool::new(false), readers: Mutex::default() }
    }

    /// Records that a login may read a repository.
    pub(super) fn read_by(&self, repository: &Repository, login: &Arc<Login>) {
        let mut readers = self.readers.lock();
        readers.latest = Arc::downgrade(login);
        if let Some(of) = readers.of.get(repository)
            && of.last().is_some_and(|last| std::ptr::eq(last.as_ptr(), Arc::as_ptr(login)))
        {
            return;
        }
        let of = readers.of.entry(repository.clone()).or_default();
        of.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(login)));
        if of.len() >= READERS {
            of.remove(0);
        }
        of.push(Arc::downgrade(login));
    }

    /// Drops expired logins.
    pub(super) fn forget_gone(&self) {
        self.readers.lock().of.retain(|_, of| {
            of.retain(|login| login.strong_count() > 0);
            !of.is_empty()
        });
    }

    fn refused(&self, repository: &Repository, login: &Arc<Login>) {
        login.revoke(repository);
        if let Some(of) = self.readers.lock().of.get_mut(repository) {
            of.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(login)));
        }
    }

    /// Asks with a reader's login. A refused login loses its right to read, and the next one is tried.
    async fn ask<'a, T>(
        &'a self,
        repository: &'a Repository,
        ask: impl Fn(Arc<dyn Pull>) -> BoxFuture<'a, Result<T, Error>> + Send + Sync,
    ) -> Result<T, Error> {
        let readers: Vec<_> = self.readers.lock().of.get(repository).into_iter().flatten().rev().filter_map(Weak::upgrade).collect();
        let mut refusal = None;
        for login in readers {
            match ask(Arc::clone(&login.pull)).await {
                Err(error) if error.kind == ErrorKind::Denied => {
                    self.refused(repository, &login);
                    refusal = Some(error);
                }
                answer => {
                    if login.pull.trust() == Trust::Digest {
                        self.has_strayed.store(true, Ordering::Relaxed);
                    }
                    return answer;
                }
            }
        }
        Err(refusal.unwrap_or_else(|| Error::new(ErrorKind::Denied, format!("no connected client may read {repository} any more"))))
    }

    fn latest(&self) -> Option<Arc<Login>> {
        self.readers.lock().latest.upgrade()
    }
}

#[async_trait]
impl Pull for Relay {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn trust(&self) -> Trust {
        if self.has_strayed.load(Ordering::Relaxed) { Trust::Digest } else { self.trust }
    }

    async fn ping(&self, about: Option<&Repository>) -> Result<(), Error> {
        match self.latest() {
            Some(login) => login.pull.ping(about).await,
            None => Err(Error::new(ErrorKind::Denied, "no connected client may read anything")),
        }
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        self.ask(repository, |pull| async move { pull.resolve(repository, version).await }.boxed()).await
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        self.ask(repository, |pull| async move { pull.manifest(repository, version).await }.boxed()).await
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        let ask = |pull: Arc<dyn Pull>| {
            let range = range.clone();
            async move { pull.blob(repository, descriptor, range).await }.boxed()
        };
        self.ask(repository, ask).await
    }

    async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        self.ask(repository, |pull| async move { pull.blob_size(repository, digest).await }.boxed()).await
    }

    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
        self.ask(repository, |pull| async move { pull.tags(repository, after).await }.boxed()).await
    }

    async fn repositories(&self, _after: Option<&str>) -> Result<Page, Error> {
        Err(Error::unsupported("each client sees its own repositories"))
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.ask(repository, |pull| async move { pull.referrers(repository, subject).await }.boxed()).await
    }

    fn away_since(&self) -> Option<Instant> {
        self.latest()?.pull.away_since()
    }

    fn unanswered(&self) -> Option<Error> {
        self.latest()?.pull.unanswered()
    }

    fn throttled(&self) -> Option<Duration> {
        self.latest()?.pull.throttled()
    }

    fn ignores_ranges(&self) -> bool {
        self.latest().is_some_and(|latest| latest.pull.ignores_ranges())
    }
}
