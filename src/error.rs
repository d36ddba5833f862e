//! The closed list of failure kinds that cross module borders.
//!
//! Every module has an error enum of its own, with messages for people, and a `kind()` that answers one of
//! these. Only two tables read a kind: `fuse/errno.rs` (errno of an operation) and `cli/exit.rs` (exit code of a
//! command). Kinds have names, under which they travel to other processes. This module never formats messages and never decides
//! what a kind means to a caller.

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing asked for does not exist. The only kind that may be remembered as a negative answer.
    NotFound,
    /// The registry refused the credentials or the access (401 and 403).
    Denied,
    /// The artifact is encrypted and no key was given.
    KeyMissing,
    /// The artifact is encrypted and no given key opens it.
    KeyWrong,
    /// Bytes do not match their digest, or a frame is broken.
    Integrity,
    /// The registry could not be reached, or answered with a server error.
    Unreachable,
    /// No progress for the configured time.
    TimedOut,
    /// An object that was pinned earlier is gone upstream.
    Gone,
    /// The object is read-only here.
    ReadOnly,
    /// The operation is not allowed on this object.
    NotPermitted,
    /// Another process holds the object.
    Busy,
    /// The disk or a configured budget is full.
    NoSpace,
    /// Text that does not follow its grammar, or a value out of range.
    Invalid,
    /// The peer or the object cannot do what was asked.
    Unsupported,
    /// The state upstream is not the state that was expected.
    Conflict,
    /// A person or a signal stopped the operation.
    Interrupted,
    /// A name in the path is not a directory.
    NotDirectory,
    /// The object is a directory.
    IsDirectory,
    /// The name is taken.
    Exists,
    /// A directory is not empty.
    NotEmpty,
    /// The two names lie in different tags.
    CrossDevice,
    /// The object has no such attribute.
    NoAttribute,
    /// A name, link or value longer than may be.
    TooLong,
    /// A file longer than may be.
    TooLarge,
    /// Safety refused to publish: the change would lose too much.
    Skipped,
    /// Anything else, mostly local input and output.
    Other,
}

/// Every kind and its name. Names never change: they are in answers of daemons and in the output of commands.
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

    /// The kind of a name; a name of a later version is `Other`.
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
