//! Directories private to this user: caches, staged edits, logs, sockets.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::make_directory;
use crate::sys::{beneath, process};

/// Opens a directory that only this user may change, creating it and its parents if missing. A symlink to such a directory must also belong
/// to this user.
///
/// # Errors
/// `PermissionDenied` if it belongs to another user or others may write to it, else errors of the system.
pub fn private_directory(path: &Path) -> io::Result<File> {
    make_directory(path)?;
    let link = std::fs::symlink_metadata(path)?;
    let directory = beneath::open_directory(path)?;
    let metadata = directory.metadata()?;
    let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if [link.uid(), metadata.uid()] != [process::effective_uid(); 2] {
        return refused("it belongs to another user");
    }
    if metadata.mode() & 0o022 != 0 {
        return refused("others may write to it (chmod go-w it)");
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    use super::*;

    #[test]
    fn a_missing_directory_is_made_for_this_user_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        private_directory(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        private_directory(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for mode in [0o720, 0o702, 0o1777] {
            std::fs::set_permissions(root.path(), Permissions::from_mode(mode)).unwrap();
            assert!(private_directory(root.path()).unwrap_err().to_string().contains("others may write"), "{mode:o}");
        }
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        private_directory(root.path()).unwrap();
    }

    #[test]
    fn a_path_that_is_not_a_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert!(private_directory(&path).is_err());
        symlink(root.path().join("none"), root.path().join("dangling")).unwrap();
        assert!(private_directory(&root.path().join("dangling")).is_err());
    }

    #[test]
    fn a_directory_or_a_link_of_another_user_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (own, link) = (root.path().join("own"), root.path().join("link"));
        std::fs::create_dir(&own).unwrap();
        symlink(&own, &link).unwrap();
        private_directory(&link).unwrap();
        if process::effective_uid() == 0 {
            lchown(&link, Some(1), None).unwrap();
            assert!(private_directory(&link).unwrap_err().to_string().contains("another user"));
            lchown(&own, Some(1), None).unwrap();
        }
        let other = if process::effective_uid() == 0 { own } else { "/".into() };
        assert!(private_directory(&other).unwrap_err().to_string().contains("another user"));
    }
}
