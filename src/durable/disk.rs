//! A disk for power-cut tests.

use std::path::PathBuf;
use std::process::Command;

/// An ext4 file system in a file, whose power can be cut. `None`, with a message, if it cannot be created.
pub struct Disk(tempfile::TempDir);

impl Disk {
    /// Creates and mounts one.
    pub fn new() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let image = disk.image();
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(disk.path()).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status().is_ok_and(|status| status.success());
        if made && disk.mount() {
            return Some(disk);
        }
        assert!(std::env::var_os("CI").is_none(), "tests of power cuts need mkfs.ext4 and the right to mount");
        eprintln!("skipped: an ext4 file system cannot be mounted here");
        None
    }

    fn image(&self) -> PathBuf {
        self.0.path().join("image")
    }

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    fn mount(&self) -> bool {
        Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()).status().is_ok_and(|status| status.success())
    }

    /// From now on nothing reaches the disk: FS_IOC_SHUTDOWN without a journal flush.
    pub fn cut_power(&self) {
        let script = "import fcntl, os, struct, sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        let cut = Command::new("python3").args(["-c", script]).arg(self.path()).status();
        assert!(cut.unwrap().success());
    }

    /// Remounts what reached the disk.
    pub fn restore_power(&self) {
        assert!(Command::new("umount").arg(self.path()).status().unwrap().success());
        assert!(self.mount());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
