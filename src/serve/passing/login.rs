//! One login: its connection to the upstream, and the repositories it is known to be able to read there.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::oci::Repository;
use crate::registry::Pull;
use crate::serve::route::Route;

/// Repositories remembered per login.
const GRANTS: usize = 10_000;

/// The part of a repository that is read; some registries grant the two separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::serve) enum Part {
    /// Manifests, blobs and referrers.
    Content,
    /// The list of tags.
    Tags,
}

impl Part {
    /// The part that a route reads.
    pub(super) fn of(route: &Route) -> Self {
        if matches!(route, Route::Tags(_)) { Self::Tags } else { Self::Content }
    }
}

/// A login that the upstream accepted.
pub(in crate::serve) struct Login {
    /// The user's name; `None` for anonymous clients.
    pub(super) user: Option<String>,
    /// The upstream, reached with these credentials.
    pub(super) pull: Arc<dyn Pull>,
    /// When the upstream's answers about it expire.
    pub(super) until: Instant,
    /// The parts it may read. Held only for a lookup.
    granted: Mutex<HashSet<(Repository, Part)>>,
}

impl Login {
    pub(super) fn new(user: Option<String>, pull: Arc<dyn Pull>) -> Self {
        Self { user, pull, until: Instant::now(), granted: Mutex::default() }
    }

    /// The user's name; `None` for anonymous clients.
    pub(in crate::serve) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether the upstream is known to let it read this.
    pub(in crate::serve) fn may(&self, repository: &Repository, part: Part) -> bool {
        self.granted.lock().contains(&(repository.clone(), part))
    }

    /// Records that the upstream lets it read this.
    pub(super) fn grant(&self, repository: &Repository, part: Part) {
        let mut granted = self.granted.lock();
        if granted.len() >= GRANTS {
            // The evicted one is simply asked about again.
            let any = granted.iter().next().cloned();
            any.map(|any| granted.remove(&any));
        }
        granted.insert((repository.clone(), part));
    }

    /// Records that the upstream no longer lets it read a repository.
    pub(super) fn revoke(&self, repository: &Repository) {
        self.granted.lock().retain(|(granted, _)| granted != repository);
    }

    /// The repositories it is known to be able to read.
    pub(super) fn repositories(&self) -> Vec<Repository> {
        let mut names: Vec<_> = self.granted.lock().iter().map(|(repository, _)| repository.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}
