//! Decides whether a login may read an object, by asking the upstream for that very object: a token proves nothing, and "not found" may be
//! a refusal.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::login::{Login, Part};
use super::{PATIENCE, Passing};
use crate::error::{Error, ErrorKind};
use crate::oci::{Repository, Version};
use crate::registry::{Pull, all_names};
use crate::serve::route::Route;

impl Passing {
    /// Admits a login to the object a route names, if the upstream does.
    ///
    /// # Errors
    /// The upstream refuses, has no such object, or cannot be reached.
    pub(in crate::serve) async fn admit(&self, login: &Arc<Login>, repository: &Repository, route: &Route) -> Result<(), Error> {
        let part = Part::of(route);
        if !login.may(repository, part) {
            let asked = tokio::time::timeout(PATIENCE, probe(&*login.pull, repository, route)).await;
            asked.map_err(|_| Error::new(ErrorKind::TimedOut, "the upstream registry did not answer in time"))??;
            login.grant(repository, part);
        }
        self.relay.read_by(repository, login);
        Ok(())
    }

    /// Checks that the upstream has not refused a login in the meantime, in which case another client may have fetched the answer.
    ///
    /// # Errors
    /// It has been refused.
    pub(in crate::serve) fn confirm(login: &Login, repository: &Repository, route: &Route) -> Result<(), Error> {
        match login.may(repository, Part::of(route)) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Denied, format!("the upstream registry no longer lets this login read {repository}"))),
        }
    }

    /// The repositories the upstream lists for a login, or else those it is known to be able to read; and whether the list is complete.
    ///
    /// # Errors
    /// The upstream cannot be reached.
    pub(in crate::serve) async fn repositories(&self, login: &Login) -> Result<(BTreeSet<Repository>, bool), Error> {
        let asked = tokio::time::timeout(PATIENCE, all_names(&*login.pull, None, || {})).await;
        match asked.map_err(|_| Error::new(ErrorKind::TimedOut, "the upstream registry did not answer in time"))? {
            Ok(found) => Ok((found.names.iter().filter_map(|name| Repository::parse(name).ok()).collect(), found.complete)),
            Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Denied | ErrorKind::NotFound) => {
                Ok((login.repositories().into_iter().collect(), false))
            }
            Err(error) => Err(error),
        }
    }
}

/// Sends the cheapest request that proves an object may be read.
async fn probe(pull: &dyn Pull, repository: &Repository, route: &Route) -> Result<(), Error> {
    match route {
        Route::Blob(_, digest) => pull.blob_size(repository, digest).await.map(drop),
        Route::Manifest(_, version) => manifest(pull, repository, version).await,
        // An empty list of referrers does not prove that the digest may be read.
        Route::Referrers(_, digest) => manifest(pull, repository, &Version::Digest(*digest)).await,
        Route::Tags(_) => match pull.tags(repository, None).await? {
            page if page.names.is_empty() => Err(Error::new(ErrorKind::NotFound, format!("repository {repository} has no tags"))),
            _ => Ok(()),
        },
        Route::Base | Route::Catalog | Route::Uploads(_) | Route::Upload(..) => {
            Err(Error::new(ErrorKind::Denied, "not readable from an upstream registry"))
        }
    }
}

async fn manifest(pull: &dyn Pull, repository: &Repository, version: &Version) -> Result<(), Error> {
    match pull.resolve(repository, version).await {
        Err(error) if error.kind == ErrorKind::Unsupported => pull.manifest(repository, version).await.map(drop),
        answer => answer.map(drop),
    }
}
