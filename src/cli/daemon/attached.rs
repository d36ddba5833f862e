//! This process's mount in the mount table.
//!
//! It is identified by device number, so that another mount in its place is never unmounted.

use std::io;
use std::path::{Path, PathBuf};

use crate::sys::mount::KIND;
use crate::sys::unmount::{Force, unmount};
use crate::sys::{mountinfo, process};

/// A mount point and the mount attached to it.
#[derive(Clone, Debug)]
pub struct Attached {
    mount_point: PathBuf,
    device: Option<(u32, u32)>,
}

impl Attached {
    /// Finds the mount just made.
    pub fn at(mount_point: PathBuf) -> Self {
        let found = mountinfo::at(&mount_point).ok().flatten();
        // If the directory was moved in the meantime, its path may show another mount.
        let device = found.filter(|mount| mount.kind == KIND && mount.user() == Some(process::uid())).map(|mount| mount.device);
        Self { mount_point, device }
    }

    /// The directory.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The device number; `None` if the mount was gone at once.
    pub fn device(&self) -> Option<(u32, u32)> {
        self.device
    }

    /// Whether the mount is still there.
    pub fn is_there(&self) -> bool {
        let now = mountinfo::at(&self.mount_point).ok().flatten().map(|mount| mount.device);
        now.is_some() && now == self.device
    }

    /// Unmounts it unless it is gone.
    ///
    /// # Errors
    /// `ResourceBusy` while files are open, else the kernel's error.
    pub fn unmount(&self, force: Force) -> io::Result<()> {
        if self.is_there() { unmount(&self.mount_point, force) } else { Ok(()) }
    }

    /// Unmounts on behalf of a daemon that is ending, lazily if in use.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&self) -> io::Result<()> {
        match self.unmount(Force::None) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => self.unmount(Force::Lazy),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_took_its_place_is_not_unmounted() {
        // The root directory is a mount, but not ours.
        let other = Attached { mount_point: PathBuf::from("/"), device: Some((0, u32::MAX)) };
        assert!(!other.is_there());
        other.detach().unwrap();
        assert!(!Attached::at(PathBuf::from("/")).is_there(), "not a mount of ocifs");
    }

    #[test]
    fn unmounting_a_mount_that_is_gone_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let gone = Attached::at(directory.path().to_owned());
        assert_eq!(gone.device(), None);
        assert!(!gone.is_there());
        gone.detach().unwrap();
    }
}
