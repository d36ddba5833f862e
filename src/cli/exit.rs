//! Errors of commands: a message and an exit code.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Exit codes. Scripts rely on them; their meanings never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Any other failure.
    Other = 1,
    /// Invalid arguments, options or references.
    Usage = 2,
    /// No such repository, tag, digest or layout.
    NotFound = 10,
    /// The registry refused the credentials or denied access.
    Authentication = 11,
    /// A key is missing or wrong.
    Key = 12,
    /// The upstream tag is not the expected one.
    Conflict = 13,
    /// The registry cannot be reached.
    Unreachable = 14,
    /// A problem with the mount point or FUSE.
    Mount = 15,
    /// Changes were not pushed.
    NotPushed = 16,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<ErrorKind> for Code {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound | ErrorKind::Gone => Self::NotFound,
            ErrorKind::Denied => Self::Authentication,
            ErrorKind::KeyMissing | ErrorKind::KeyWrong => Self::Key,
            ErrorKind::Unreachable | ErrorKind::TimedOut => Self::Unreachable,
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Skipped => Self::NotPushed,
            ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Other,
        }
    }
}

/// The error kind to report for a failure.
impl From<Code> for ErrorKind {
    fn from(code: Code) -> Self {
        match code {
            Code::Usage => Self::Invalid,
            Code::NotFound => Self::NotFound,
            Code::Authentication => Self::Denied,
            Code::Key => Self::KeyMissing,
            Code::Conflict => Self::Conflict,
            Code::Unreachable => Self::Unreachable,
            Code::NotPushed => Self::Skipped,
            Code::Interrupted => Self::Interrupted,
            Code::Other | Code::Mount => Self::Other,
        }
    }
}

impl Code {
    /// The code with this number, as a daemon sends it.
    pub fn of_number(number: u8) -> Self {
        let codes = [
            Self::Usage,
            Self::NotFound,
            Self::Authentication,
            Self::Key,
            Self::Conflict,
            Self::Unreachable,
            Self::Mount,
            Self::NotPushed,
            Self::Interrupted,
        ];
        codes.into_iter().find(|code| *code as u8 == number).unwrap_or(Self::Other)
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit code.
    pub code: Code,
    /// The failure, the object it concerns, and a way out.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Invalid arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// A problem with the mount point or FUSE.
    pub fn mount(message: impl Into<String>) -> Self {
        Self::new(Code::Mount, message)
    }

    /// Any other failure.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Code::Other, message)
    }

    /// Prefixes the message with context.
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { code: self.code, message: format!("{what}: {}", self.message) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(Code::from(error.kind), error.message)
    }
}

impl From<crate::oci::InvalidReference> for Failure {
    fn from(error: crate::oci::InvalidReference) -> Self {
        Self::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_kinds_that_matter_to_scripts_have_their_own_codes() {
        for (kind, code) in [
            (ErrorKind::NotFound, 10),
            (ErrorKind::Denied, 11),
            (ErrorKind::KeyMissing, 12),
            (ErrorKind::KeyWrong, 12),
            (ErrorKind::Conflict, 13),
            (ErrorKind::Unreachable, 14),
            (ErrorKind::TimedOut, 14),
            (ErrorKind::Invalid, 2),
            (ErrorKind::Integrity, 1),
            (ErrorKind::NoSpace, 1),
        ] {
            assert_eq!(Code::from(kind) as u8, code, "{kind:?}");
        }
    }
}
