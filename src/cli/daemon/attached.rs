//! A mount of this process in the tree of directories.
//!
//! Told apart by its device number, so that another mount which took its place is never taken away.

use std::io;
use std::path::{Path, PathBuf};

use crate::sys::mount::KIND;
use crate::sys::unmount::{Force, unmount};
use crate::sys::{mountinfo, process};

/// Where a mount was attached, and which one it is.
#[derive(Clone, Debug)]
pub struct Attached {
    mount_point: PathBuf,
    device: Option<(u32, u32)>,
}

impl Attached {
    /// What was mounted on a directory just now.
    pub fn at(mount_point: PathBuf) -> Self {
        let found = mountinfo::at(&mount_point).ok().flatten();
        // Where somebody moved the directory meanwhile its path may show another mount.
        let device = found.filter(|mount| mount.kind == KIND && mount.user() == Some(process::uid())).map(|mount| mount.device);
        Self { mount_point, device }
    }

    /// The directory.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Its number in the mount table; `None` if it was gone at once.
    pub fn device(&self) -> Option<(u32, u32)> {
        self.device
    }

    /// Whether it is what its directory shows.
    pub fn is_there(&self) -> bool {
        let now = mountinfo::at(&self.mount_point).ok().flatten().map(|mount| mount.device);
        now.is_some() && now == self.device
    }

    /// Takes it away unless it is gone.
    ///
    /// # Errors
    /// `ResourceBusy` while files are open, or what else the kernel says.
    pub fn unmount(&self, force: Force) -> io::Result<()> {
        if self.is_there() { unmount(&self.mount_point, force) } else { Ok(()) }
    }

    /// Takes it away for a daemon that ends: gently, else out of the tree at once.
    ///
    /// # Errors
    /// The kernel refuses even that.
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
    fn what_took_the_place_of_a_mount_is_not_taken_away() {
        // The root directory is a mount, and not the one that is meant.
        let other = Attached { mount_point: PathBuf::from("/"), device: Some((0, u32::MAX)) };
        assert!(!other.is_there());
        other.detach().unwrap();
        assert!(!Attached::at(PathBuf::from("/")).is_there(), "no mount of ours");
    }

    #[test]
    fn a_mount_that_is_gone_is_nothing_to_take_away() {
        let directory = tempfile::tempdir().unwrap();
        let gone = Attached::at(directory.path().to_owned());
        assert_eq!(gone.device(), None);
        assert!(!gone.is_there());
        gone.detach().unwrap();
    }
}
