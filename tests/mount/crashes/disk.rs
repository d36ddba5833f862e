//! A separate disk for one directory of a home: an ext4 file system in a file, whose power can be cut.

use crate::support::mounting::{Home, text};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Cuts the power: FS_IOC_SHUTDOWN without flushing the journal.
const CUT: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// A mounted disk; unmounted when dropped.
pub struct Disk {
    image: PathBuf,
    point: PathBuf,
}

impl Disk {
    /// Mounts a disk of this many MiB on a directory of the home.
    pub fn new(home: &Home, directory: &str, mebibytes: u64) -> Self {
        let disk = Self { image: home.path("disk.img"), point: home.path(directory) };
        let file = std::fs::File::create(&disk.image).unwrap();
        file.set_len(mebibytes << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&disk.image));
        disk.power_up();
        disk
    }

    /// From now on nothing reaches the disk, as after a power cut.
    pub fn cut(&self) {
        run(Command::new("python3").args(["-c", CUT]).arg(&self.point));
    }

    /// Mounts the disk again.
    pub fn power_up(&self) {
        if crate::support::mounting::is_mounted(&self.point) {
            unmount(&self.point);
        }
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.point));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.point).output();
    }
}

fn unmount(point: &Path) {
    // Threads of a killed daemon may hold files a moment longer.
    for _ in 0..500 {
        if Command::new("umount").arg(point).output().unwrap().status.success() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} stays busy", point.display());
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}
