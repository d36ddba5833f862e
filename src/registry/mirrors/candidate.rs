//! One source to ask, and the meaning of its answer.

use std::sync::Arc;

use super::client::Client;
use crate::error::{Error, ErrorKind};
use crate::oci::Repository;

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
            self.client.health.answered(&self.client.name);
        }
    }

    /// Records a failure of a mirror. One that lacks or refuses one object may still have others.
    pub(super) fn failed(&self, error: &Error) {
        match error.kind {
            _ if self.is_authority => {}
            _ if is_outage(error) => self.client.health.failed(&self.client.name, error, self.client.is_first_try),
            ErrorKind::NotFound | ErrorKind::Gone => tracing::debug!("skipping mirror {}: {error}", self.client.name),
            _ => tracing::warn!("skipping mirror {}: {error}", self.client.name),
        }
    }

    /// The error of the whole request after this source failed too: the authority's, preferably "not found".
    pub(super) fn verdict(&self, before: Option<Error>, error: Error) -> Option<Error> {
        match before {
            Some(before) if !self.is_authority || error.kind != ErrorKind::NotFound => Some(before),
            _ if self.is_authority => Some(error),
            before => before,
        }
    }
}

/// The error if there is nobody to ask.
pub(super) fn nowhere() -> Error {
    Error::new(ErrorKind::Other, "there is no source to read from")
}

/// Whether the source could not be reached.
pub(super) fn is_outage(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut)
}
