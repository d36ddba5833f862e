//! The only table from an error kind to the errno that a program sees, and to its log level.

use fuser::Errno;
use tracing::Level;

use crate::error::ErrorKind;

/// "Required key not available"; the same number on every architecture that ocifs supports.
const ENOKEY: i32 = 126;
/// "Key was rejected by service".
const EKEYREJECTED: i32 = 129;

/// The errno of an error kind. Only NotFound is ENOENT, so a network failure is never taken for absence.
pub fn errno(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::Denied => Errno::EACCES,
        ErrorKind::KeyMissing => Errno::from_i32(ENOKEY),
        ErrorKind::KeyWrong => Errno::from_i32(EKEYREJECTED),
        ErrorKind::Integrity => Errno::EBADMSG,
        ErrorKind::Unreachable | ErrorKind::Other => Errno::EIO,
        ErrorKind::TimedOut => Errno::ETIMEDOUT,
        ErrorKind::Gone | ErrorKind::Conflict => Errno::ESTALE,
        ErrorKind::ReadOnly => Errno::EROFS,
        ErrorKind::NotPermitted => Errno::EPERM,
        ErrorKind::Busy => Errno::EBUSY,
        ErrorKind::NoSpace => Errno::ENOSPC,
        ErrorKind::Invalid => Errno::EINVAL,
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::Interrupted => Errno::EINTR,
        ErrorKind::NotDirectory => Errno::ENOTDIR,
        ErrorKind::IsDirectory => Errno::EISDIR,
        ErrorKind::Exists => Errno::EEXIST,
        ErrorKind::NotEmpty => Errno::ENOTEMPTY,
        ErrorKind::CrossDevice => Errno::EXDEV,
        ErrorKind::NoAttribute => Errno::NO_XATTR,
        ErrorKind::TooLong => Errno::ENAMETOOLONG,
        ErrorKind::TooLarge => Errno::EFBIG,
        ErrorKind::Skipped => Errno::ECANCELED,
    }
}

/// The log level of an error: everyday ones are quiet, network failures are warnings, broken data and
/// unexpected ones are errors.
pub fn level(kind: ErrorKind) -> Level {
    match kind {
        ErrorKind::NotFound
        | ErrorKind::ReadOnly
        | ErrorKind::NotPermitted
        | ErrorKind::Interrupted
        | ErrorKind::NotDirectory
        | ErrorKind::IsDirectory
        | ErrorKind::Exists
        | ErrorKind::NotEmpty
        | ErrorKind::CrossDevice
        | ErrorKind::NoAttribute
        | ErrorKind::TooLong
        | ErrorKind::Invalid => Level::DEBUG,
        ErrorKind::Denied
        | ErrorKind::KeyMissing
        | ErrorKind::KeyWrong
        | ErrorKind::Unreachable
        | ErrorKind::TimedOut
        | ErrorKind::Gone
        | ErrorKind::Conflict
        | ErrorKind::Busy
        | ErrorKind::NoSpace
        | ErrorKind::TooLarge
        | ErrorKind::Skipped
        | ErrorKind::Unsupported => Level::WARN,
        ErrorKind::Integrity | ErrorKind::Other => Level::ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind, with the errno that the contract names.
    const TABLE: [(ErrorKind, &str, i32); 26] = [
        (ErrorKind::Exists, "EEXIST", 17),
        (ErrorKind::NotEmpty, "ENOTEMPTY", 39),
        (ErrorKind::CrossDevice, "EXDEV", 18),
        (ErrorKind::NoAttribute, "ENODATA", 61),
        (ErrorKind::TooLong, "ENAMETOOLONG", 36),
        (ErrorKind::TooLarge, "EFBIG", 27),
        (ErrorKind::Skipped, "ECANCELED", 125),
        (ErrorKind::NotFound, "ENOENT", 2),
        (ErrorKind::Denied, "EACCES", 13),
        (ErrorKind::KeyMissing, "ENOKEY", 126),
        (ErrorKind::KeyWrong, "EKEYREJECTED", 129),
        (ErrorKind::Integrity, "EBADMSG", 74),
        (ErrorKind::Unreachable, "EIO", 5),
        (ErrorKind::TimedOut, "ETIMEDOUT", 110),
        (ErrorKind::Gone, "ESTALE", 116),
        (ErrorKind::ReadOnly, "EROFS", 30),
        (ErrorKind::NotPermitted, "EPERM", 1),
        (ErrorKind::Busy, "EBUSY", 16),
        (ErrorKind::NoSpace, "ENOSPC", 28),
        (ErrorKind::Invalid, "EINVAL", 22),
        (ErrorKind::Unsupported, "EOPNOTSUPP", 95),
        (ErrorKind::Conflict, "ESTALE", 116),
        (ErrorKind::Interrupted, "EINTR", 4),
        (ErrorKind::NotDirectory, "ENOTDIR", 20),
        (ErrorKind::IsDirectory, "EISDIR", 21),
        (ErrorKind::Other, "EIO", 5),
    ];

    #[test]
    fn every_error_kind_has_its_documented_errno() {
        for (kind, name, number) in TABLE {
            assert_eq!(errno(kind).code(), number, "{kind:?} is {name}");
        }
        let source = include_str!("../error.rs");
        let variants = source.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(','));
        let variants = variants.filter(|line| line.chars().all(char::is_alphanumeric));
        let named: Vec<String> = TABLE.iter().map(|(kind, ..)| format!("{kind:?}")).collect();
        for variant in variants {
            assert!(named.iter().any(|name| name == variant), "{variant} is missing from this table");
        }
    }

    #[test]
    fn only_absence_is_enoent() {
        let absent = TABLE.iter().filter(|(kind, ..)| errno(*kind).code() == Errno::ENOENT.code());
        assert_eq!(absent.map(|(kind, ..)| *kind).collect::<Vec<_>>(), [ErrorKind::NotFound]);
    }

    #[test]
    fn integrity_errors_are_logged_at_a_higher_level_than_network_errors() {
        assert_eq!(level(ErrorKind::Integrity), Level::ERROR);
        assert_eq!(level(ErrorKind::Unreachable), Level::WARN);
        assert_eq!(level(ErrorKind::NotFound), Level::DEBUG);
    }
}
