//! One operation, generated from random numbers, run on any directory through the calls that programs use.

use rand::RngExt;
use rand::rngs::StdRng;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// An operation on paths with few names, so that they collide.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Creates or truncates a file with these bytes: length and first byte.
    Write(String, usize, u8),
    /// Writes in the middle of an existing file.
    Patch(String, u64, usize),
    /// Appends.
    Append(String, usize),
    /// Truncates or extends.
    SetLength(String, u64),
    /// Removes a file.
    Unlink(String),
    /// Makes a directory.
    MakeDirectory(String),
    /// Removes an empty directory.
    RemoveDirectory(String),
    /// Removes a whole tree.
    RemoveAll(String),
    /// Renames anything.
    Rename(String, String),
    /// Writes a temporary file and renames it over the original, as editors do.
    Save(String, usize),
    /// Creates a hard link.
    Link(String, String),
    /// Creates a symbolic link.
    Symlink(String, String),
    /// Sets permission bits.
    Mode(String, u32),
    /// Sets the modification time.
    Time(String, u64),
}

fn path(random: &mut StdRng) -> String {
    const NAMES: [&str; 4] = ["a", "b", "dir", "other"];
    let depth = random.random_range(1..4);
    let names: Vec<&str> = (0..depth).map(|_| NAMES[random.random_range(0..NAMES.len())]).collect();
    names.join("/")
}

impl Operation {
    /// Any operation.
    pub fn random(random: &mut StdRng) -> Self {
        let length = if random.random_range(0..12) == 0 { random.random_range(0..3_000_000) } else { random.random_range(0..9_000) };
        match random.random_range(0..18) {
            0..=3 => Self::Write(path(random), length, random.random()),
            4 => Self::Patch(path(random), random.random_range(0..20_000), length.min(9_000)),
            5 => Self::Append(path(random), length),
            6 => Self::SetLength(path(random), random.random_range(0..20_000)),
            7 => Self::Unlink(path(random)),
            8..=10 => Self::MakeDirectory(path(random)),
            11 => Self::RemoveDirectory(path(random)),
            12 => match random.random_range(0..3) {
                0 => Self::RemoveAll(path(random)),
                _ => Self::Time(path(random), random.random_range(1_000_000_000..1_700_000_000)),
            },
            13 => Self::Rename(path(random), path(random)),
            14 => Self::Save(path(random), length),
            15 => Self::Link(path(random), path(random)),
            16 => Self::Symlink(path(random), path(random)),
            _ => Self::Mode(path(random), [0o600, 0o644, 0o755, 0o4711][random.random_range(0..4)]),
        }
    }

    /// Runs it below a directory; returns the errno if it fails.
    pub fn run(&self, root: &Path) -> Result<(), Option<i32>> {
        self.attempt(root).map_err(|error| error.raw_os_error())
    }

    fn attempt(&self, root: &Path) -> io::Result<()> {
        let at = |name: &String| root.join(name);
        let bytes = |length: usize, first: u8| -> Vec<u8> { (0..length).map(|place| first.wrapping_add((place / 7) as u8)).collect() };
        match self {
            Self::Write(name, length, first) => plain(&at(name)).and_then(|()| fs::write(at(name), bytes(*length, *first))),
            Self::Patch(name, offset, length) => {
                plain(&at(name))?;
                OpenOptions::new().write(true).open(at(name))?.write_all_at(&bytes(*length, 9), *offset)
            }
            Self::Append(name, length) => {
                plain(&at(name))?;
                OpenOptions::new().append(true).open(at(name))?.write_all(&bytes(*length, 77))
            }
            Self::SetLength(name, length) => {
                plain(&at(name))?;
                OpenOptions::new().write(true).open(at(name))?.set_len(*length)
            }
            Self::Unlink(name) => fs::remove_file(at(name)),
            Self::MakeDirectory(name) => fs::create_dir(at(name)),
            Self::RemoveDirectory(name) => fs::remove_dir(at(name)),
            Self::RemoveAll(name) => fs::remove_dir_all(at(name)),
            Self::Rename(from, to) => fs::rename(at(from), at(to)),
            Self::Save(name, length) => {
                let beside = root.join("saving");
                fs::write(&beside, bytes(*length, 3))?;
                fs::rename(&beside, at(name)).or_else(|error| fs::remove_file(&beside).and(Err(error)))
            }
            Self::Link(from, to) => fs::hard_link(at(from), at(to)),
            Self::Symlink(target, name) => symlink(target, at(name)),
            Self::Mode(name, mode) => {
                plain(&at(name))?;
                fs::set_permissions(at(name), Permissions::from_mode(*mode))
            }
            Self::Time(name, seconds) => {
                plain(&at(name))?;
                File::open(at(name))?.set_modified(UNIX_EPOCH + Duration::from_secs(*seconds))
            }
        }
    }
}

/// Links lead to different places on the two sides (the target is relative to the link), so nothing goes through one.
fn plain(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Err(io::Error::from(io::ErrorKind::Unsupported)),
        _ => Ok(()),
    }
}
