//! One source to ask, and the meaning of its answer.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::client::Client;
use crate::error::{Error, ErrorKind};
use crate::oci::Repository;
use crate::registry::Pull;

/// One source of a repository.
pub(super) struct Candidate {
    pub(super) client: Arc<Client>,
    pub(super) repository: Repository,
    pub(super) is_authority: bool,
}

impl Candidate {
    /// Records an answer of a mirror.
    pub(super) fn answered(&self) {
        if !self.is_authority {
            self.client.answered();
        }
    }

    /// Records a failure of a mirror. One that lacks or refuses one object may still have others.
    pub(super) fn failed(&self, error: &Error) {
        match error.kind {
            _ if self.is_authority => {}
            _ if is_outage(error) => self.client.failed(error),
            ErrorKind::NotFound | ErrorKind::Gone => tracing::debug!("skipping mirror {}: {error}", self.client.name),
            _ => tracing::warn!("skipping mirror {}: {error}", self.client.name),
        }
    }

    /// Records a failure and returns the error of the whole request so far: the authority's, preferably "not found".
    pub(super) fn failed_after(&self, before: Option<Error>, error: Error) -> Option<Error> {
        self.failed(&error);
        match before {
            Some(before) if !self.is_authority || error.kind != ErrorKind::NotFound => Some(before),
            _ if self.is_authority => Some(error),
            before => before,
        }
    }
}

/// Asks sources one after the other until one answers; `failure` is that of the sources before them. If all fail, the authority's error is reported.
pub(super) async fn first<T>(
    candidates: &mut std::vec::IntoIter<Candidate>,
    mut failure: Option<Error>,
    ask: impl Fn(Arc<dyn Pull>, Repository) -> BoxFuture<'static, Result<T, Error>>,
) -> Result<(Candidate, T), Error> {
    for candidate in candidates {
        match ask(Arc::clone(&candidate.client.pull), candidate.repository.clone()).await {
            Ok(answer) => {
                candidate.answered();
                return Ok((candidate, answer));
            }
            Err(error) => failure = candidate.failed_after(failure, error),
        }
    }
    Err(failure.unwrap_or_else(nowhere))
}

/// The error if there is nobody to ask.
pub(super) fn nowhere() -> Error {
    Error::new(ErrorKind::Other, "there is no source to read from")
}

/// Whether the source could not be reached.
pub(super) fn is_outage(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut)
}
