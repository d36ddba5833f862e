//! The files of a layout and the errors of the local file system.

use crate::error::{Error, ErrorKind};

/// The file that holds a layout's version; also the lock for index changes.
pub(super) const MARKER: &str = "oci-layout";

/// The file that lists the manifests.
pub(super) const INDEX: &str = "index.json";

/// Largest index of a layout, in bytes; it may exceed a registry's manifest limit, since it lists every tag.
pub(super) const INDEX_LIMIT: u64 = 64 << 20;

/// A local file system error, with the object's name.
pub(super) fn local(object: &str, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::CrossesDevices => ErrorKind::Denied,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
        std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Unsupported,
        std::io::ErrorKind::ResourceBusy => ErrorKind::Conflict,
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => ErrorKind::Invalid,
        _ => ErrorKind::Other,
    };
    let object = object.escape_debug();
    Error::new(
        kind,
        match error.kind() {
            std::io::ErrorKind::CrossesDevices => format!("{object}: refusing to follow a link out of the layout"),
            _ => format!("{object}: {error}"),
        },
    )
}
