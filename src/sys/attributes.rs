//! File attributes that the standard library does not expose: extended attributes and device numbers. Only [`xattr`] follows symlinks.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{
    XattrFlags, fgetxattr, fgetxattr_query, fsetxattr, getxattr, getxattr_query, lgetxattr, lgetxattr_query, llistxattr, llistxattr_query,
};
use rustix::io::Errno;

/// How often a list that grows meanwhile is reread.
const ATTEMPTS: usize = 8;

/// Names and values of all extended attributes of a path; empty if the file system has none.
///
/// # Errors
/// Errors of the system. An attribute that is removed meanwhile or not readable by this user is left out.
pub fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match grown(|| llistxattr_query(path), |place| llistxattr(path, place)) {
        Ok(names) => names,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match grown(|| lgetxattr_query(path, name), |place| lgetxattr(path, name, place)) {
            Ok(value) => found.push((name.to_vec(), value)),
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// The value of an extended attribute, following symlinks; `None` if there is no such attribute.
///
/// # Errors
/// Errors of the system.
pub fn xattr(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match grown(|| getxattr_query(path, name), |place| getxattr(path, name, place)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The value of an extended attribute of an open file; `None` if there is no such attribute, or the file system has none.
///
/// # Errors
/// Errors of the system.
pub fn file_xattr(file: &File, name: &str) -> io::Result<Option<Vec<u8>>> {
    match grown(|| fgetxattr_query(file, name), |place| fgetxattr(file, name, place)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets an extended attribute of an open file.
///
/// # Errors
/// Errors of the system; the file system may have no such attributes.
pub fn set_file_xattr(file: &File, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, name, value, XattrFlags::empty())?)
}

/// Major and minor of a device number from `stat(2)`.
pub fn device_numbers(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// Reads a value that may grow between querying its size and reading it.
fn grown(
    size: impl Fn() -> rustix::io::Result<usize>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    for _ in 0..ATTEMPTS {
        let mut place = vec![0; size()?];
        if place.is_empty() {
            return Ok(place);
        }
        match read(&mut place) {
            Ok(size) => {
                place.truncate(size);
                return Ok(place);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_a_file_are_read_and_a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, b"x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        rustix::fs::lsetxattr(&file, "user.one", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        rustix::fs::lsetxattr(&file, "user.none", b"", rustix::fs::XattrFlags::empty()).unwrap();
        let mut found = xattrs(&file).unwrap();
        found.retain(|(name, _)| name.starts_with(b"user."));
        found.sort();
        assert_eq!(found, [(b"user.none".to_vec(), Vec::new()), (b"user.one".to_vec(), b"1".to_vec())]);
        assert!(xattrs(&link).unwrap().iter().all(|(name, _)| !name.starts_with(b"user.")));
        assert_eq!(device_numbers(rustix::fs::makedev(8, 17)), (8, 17));
    }
}
