//! Identifies the current boot and mount of a file system.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// Mount ids that are never reused (Linux 6.8).
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// A text that changes after a reboot or a remount of the file system that holds a path: data written under the same text is still there,
/// synced or not.
///
/// # Errors
/// The path cannot be examined, or the kernel has no unique mount ids.
pub fn mount_instance(path: &Path) -> io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let found = statx(CWD, path, AtFlags::empty(), UNIQUE | StatxFlags::MNT_ID)?;
    if found.stx_mask & (UNIQUE | StatxFlags::MNT_ID).bits() == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(format!("{} {}:{} {}", boot.trim(), found.stx_dev_major, found.stx_dev_minor, found.stx_mnt_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mount_has_one_instance() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (mount_instance(directory.path()).unwrap(), mount_instance(directory.path()).unwrap());
        assert_eq!(one, two);
        assert_ne!(one, mount_instance(Path::new("/proc")).unwrap());
        assert!(mount_instance(Path::new("/nowhere/at/all")).is_err());
    }
}
