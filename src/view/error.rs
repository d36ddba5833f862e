//! Failures of a view.

use std::borrow::Cow;

use crate::error::ErrorKind;
use crate::{artifact, content, staging};

/// A view could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of failure, for callers to act on.
    pub kind: ErrorKind,
    /// The message; registry text in it is escaped.
    pub message: Cow<'static, str>,
}

impl Error {
    /// An error of a kind, with a message for people.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<staging::Error> for Error {
    fn from(error: staging::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<artifact::Error> for Error {
    fn from(error: artifact::Error) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<content::Error> for Error {
    fn from(error: content::Error) -> Self {
        // A name that a manifest has exists, also where its bytes are gone.
        let kind = if error.kind == ErrorKind::NotFound { ErrorKind::Gone } else { error.kind };
        Self::new(kind, error.message)
    }
}
