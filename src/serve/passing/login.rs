//! One login: the upstream as it reaches it, and what it was found to read there.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::oci::Repository;
use crate::registry::Pull;
use crate::serve::route::Route;

/// Repositories of one login that are remembered.
const GRANTS: usize = 10_000;

/// Which part of a repository is read; some registries tell the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::serve) enum Part {
    /// Manifests, blobs and referrers.
    Content,
    /// The list of tags.
    Tags,
}

impl Part {
    /// What a route reads.
    pub(super) fn of(route: &Route) -> Self {
        if matches!(route, Route::Tags(_)) { Self::Tags } else { Self::Content }
    }
}

/// A login that the upstream accepted.
pub(in crate::serve) struct Login {
    /// The user's name; none for the login of strangers.
    pub(super) user: Option<String>,
    /// The upstream with its credentials.
    pub(super) pull: Arc<dyn Pull>,
    /// Until when the upstream's answers about it count.
    pub(super) until: Instant,
    /// What it may read. Held for one look.
    granted: Mutex<HashSet<(Repository, Part)>>,
}

impl Login {
    pub(super) fn new(user: Option<String>, pull: Arc<dyn Pull>) -> Self {
        Self { user, pull, until: Instant::now(), granted: Mutex::default() }
    }

    /// The user's name; none for strangers.
    pub(in crate::serve) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether the upstream let it read this before.
    pub(in crate::serve) fn may(&self, repository: &Repository, part: Part) -> bool {
        self.granted.lock().contains(&(repository.clone(), part))
    }

    /// Notes that the upstream let it read this.
    pub(super) fn grant(&self, repository: &Repository, part: Part) {
        let mut granted = self.granted.lock();
        if granted.len() >= GRANTS {
            // Another one is asked about again.
            let any = granted.iter().next().cloned();
            any.map(|any| granted.remove(&any));
        }
        granted.insert((repository.clone(), part));
    }

    /// Notes that the upstream no longer lets it read a repository.
    pub(super) fn revoke(&self, repository: &Repository) {
        self.granted.lock().retain(|(granted, _)| granted != repository);
    }

    /// The repositories that it was found to read.
    pub(super) fn repositories(&self) -> Vec<Repository> {
        let mut names: Vec<_> = self.granted.lock().iter().map(|(repository, _)| repository.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}
