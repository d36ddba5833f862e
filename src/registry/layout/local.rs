//! The files of a layout and the errors of the local file system.

use crate::error::{Error, ErrorKind};

/// The file that names the version of a layout; also the lock of those who change the index.
pub(super) const MARKER: &str = "oci-layout";

/// The file that names the manifests.
pub(super) const INDEX: &str = "index.json";

/// The index of a layout may be larger than a manifest of a registry, since it lists every tag.
pub(super) const INDEX_LIMIT: u64 = 64 << 20;

/// An error of the local file system, with the object in it.
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
            std::io::ErrorKind::CrossesDevices => format!("{object}: a link that leads out of the layout is not followed"),
            _ => format!("{object}: {error}"),
        },
    )
}
