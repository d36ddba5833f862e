//! The error type shared by all modules: a kind for callers, a message for users, and the cause.
//!
//! Two tables map kinds: `fuse/errno.rs` (errno of an operation) and `cli/exit.rs` (exit code of a command). A module that changes a kind on the
//! way does so in one function. Each kind has a stable name, used between processes.

use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::sync::Arc;

/// A failure of any module.
#[derive(Clone, Debug)]
pub struct Error {
    /// The kind of failure, for callers to act on.
    pub kind: ErrorKind,
    /// The complete message for the user, including the cause: what failed on which object, and what to do. Text from a registry in it is
    /// escaped.
    pub message: Cow<'static, str>,
    /// The error that led to this one.
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause. Text from a registry in the message must be escaped by the caller.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Bytes that do not match their digest, or a malformed frame.
    pub fn integrity(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Integrity, message)
    }

    /// A format, feature or size that is not supported.
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// An error that callers can only report.
    pub fn other(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Other, message)
    }

    /// A failed system call: NoSpace for a full disk, else Other. `what` names the attempt, with the path. An [`Error`] wrapped in an [`io::Error`]
    /// keeps its kind.
    pub fn io(what: impl Display, error: io::Error) -> Self {
        let kind = match (error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()), error.kind()) {
            (Some(inner), _) => inner.kind,
            (None, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => ErrorKind::NoSpace,
            (None, _) => ErrorKind::Other,
        };
        Self::new(kind, format!("{what}: {error}")).caused_by(error)
    }

    /// Adds a cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Prefixes the message with the object or attempt concerned.
    #[must_use]
    pub fn context(mut self, what: impl Display) -> Self {
        self.message = format!("{what}: {}", self.message).into();
        self
    }

    /// Appends text to the message.
    #[must_use]
    pub fn append(mut self, text: impl Display) -> Self {
        self.message = format!("{}{text}", self.message).into();
        self
    }

    /// Changes the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// NotFound becomes Gone: an object that another one refers to should exist, even if the registry lacks it.
    #[must_use]
    pub fn absent_is_gone(self) -> Self {
        if self.kind == ErrorKind::NotFound { self.with_kind(ErrorKind::Gone) } else { self }
    }
}

impl Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The failures that callers can distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The requested object does not exist. The only kind that may be cached as a negative answer.
    NotFound,
    /// The registry refused the credentials or denied access (401 and 403).
    Denied,
    /// The artifact is encrypted and no key was given.
    KeyMissing,
    /// The artifact is encrypted and no given key decrypts it.
    KeyWrong,
    /// Bytes do not match their digest, or a frame is malformed.
    Integrity,
    /// The registry could not be reached, or answered with a server error.
    Unreachable,
    /// No progress for the configured time.
    TimedOut,
    /// An object that was pinned earlier no longer exists upstream.
    Gone,
    /// The object is read-only here.
    ReadOnly,
    /// The operation is not permitted on this object.
    NotPermitted,
    /// Another process holds the object.
    Busy,
    /// The disk or a configured budget is full.
    NoSpace,
    /// Malformed text, or a value out of range.
    Invalid,
    /// The peer or the object cannot do what was asked.
    Unsupported,
    /// The upstream state is not the expected one.
    Conflict,
    /// A user or a signal stopped the operation.
    Interrupted,
    /// A name in the path is not a directory.
    NotDirectory,
    /// The object is a directory.
    IsDirectory,
    /// The name already exists.
    Exists,
    /// The directory is not empty.
    NotEmpty,
    /// The two names are in different tags.
    CrossDevice,
    /// The object has no such attribute.
    NoAttribute,
    /// A name, link or value exceeds its limit.
    TooLong,
    /// A file exceeds its limit.
    TooLarge,
    /// Refused for safety: publishing would lose too much.
    Skipped,
    /// Anything else, mostly local input and output.
    Other,
}

/// Every kind and its name. Names never change: they appear in answers of daemons and in command output.
const NAMES: [(ErrorKind, &str); 26] = [
    (ErrorKind::NotFound, "not-found"),
    (ErrorKind::Denied, "denied"),
    (ErrorKind::KeyMissing, "key-missing"),
    (ErrorKind::KeyWrong, "key-wrong"),
    (ErrorKind::Integrity, "integrity"),
    (ErrorKind::Unreachable, "unreachable"),
    (ErrorKind::TimedOut, "timed-out"),
    (ErrorKind::Gone, "gone"),
    (ErrorKind::ReadOnly, "read-only"),
    (ErrorKind::NotPermitted, "not-permitted"),
    (ErrorKind::Busy, "busy"),
    (ErrorKind::NoSpace, "no-space"),
    (ErrorKind::Invalid, "invalid"),
    (ErrorKind::Unsupported, "unsupported"),
    (ErrorKind::Conflict, "conflict"),
    (ErrorKind::Interrupted, "interrupted"),
    (ErrorKind::NotDirectory, "not-directory"),
    (ErrorKind::IsDirectory, "is-directory"),
    (ErrorKind::Exists, "exists"),
    (ErrorKind::NotEmpty, "not-empty"),
    (ErrorKind::CrossDevice, "cross-device"),
    (ErrorKind::NoAttribute, "no-attribute"),
    (ErrorKind::TooLong, "too-long"),
    (ErrorKind::TooLarge, "too-large"),
    (ErrorKind::Skipped, "skipped"),
    (ErrorKind::Other, "other"),
];

impl ErrorKind {
    /// The name of the kind.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(known, _)| *known == self).map_or("other", |(_, name)| name)
    }

    /// The kind with this name; a name from a later version is `Other`.
    pub fn of_name(name: &str) -> Self {
        NAMES.iter().find(|(_, known)| *known == name).map_or(Self::Other, |(kind, _)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_the_way_to_another_process() {
        for (kind, name) in NAMES {
            assert_eq!(ErrorKind::of_name(name), kind);
            assert_eq!(kind.name(), name);
        }
        assert_eq!(ErrorKind::of_name("of-a-later-version"), ErrorKind::Other);
    }
}
