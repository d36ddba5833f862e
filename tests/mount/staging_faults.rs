//! Failures of the state directory: full, lost or damaged, and names that no archive can hold. Errors are clear, nothing acknowledged is lost, and a
//! later sync publishes it.

use crate::crashes::disk::Disk;
use crate::support::artifacts::noise;
use crate::support::mounting::{Home, text};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rustix::io::Errno;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
const ROOT_NEEDS: [Need; 3] = [Need::Fuse, Need::Tool("docker-registry"), Need::Root];

/// Content as shown by a fresh mount of another user.
fn upstream(registry: &Registry, name: impl AsRef<Path>) -> Vec<u8> {
    let home = Home::new();
    let mount = home.mount(&registry.host(), &["--read-only"]);
    let bytes = std::fs::read(mount.path(name)).unwrap();
    mount.unmount();
    bytes
}

#[track_caller]
fn told(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    let said = text(output);
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing: {said}");
    }
}

/// Writes and flushes as `cp` does; returns the first error.
fn copied(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    for piece in bytes.chunks(1 << 16) {
        file.write_all(piece)?;
    }
    file.sync_all()
}

/// A small in-memory file system over the home's state directory.
pub(super) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(super) fn over(path: PathBuf, size: &str) -> Self {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "ocifs-test"]).arg(&path).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output));
        Self(path)
    }

    /// Adds room, like a helpful administrator.
    fn grow(&self, size: &str) {
        let output = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_fails_the_write_and_keeps_earlier_files() {
    if lacks(&ROOT_NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let disk = SmallDisk::over(home.path("state"), "16m");
    let mount = home.mount(&registry.host(), &[]);
    mount.write("app/v1/early", "early\n");
    let error = copied(&mount.path("app/v1/big"), &noise(1, 32 << 20)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()), "{error}");
    assert_eq!(mount.cat("app/v1/early").unwrap(), b"early\n");
    std::fs::remove_file(mount.path("app/v1/big")).unwrap();
    mount.write("app/v1/late", "late\n");
    mount.leave();
    let again = home.mount(&registry.host(), &[]);
    assert_eq!(again.ls("app/v1").unwrap(), ["early", "late"]);
    disk.grow("32m");
    again.sync(&[]);
    again.unmount();
    assert_eq!(upstream(&registry, "app/v1/early"), b"early\n");
    assert_eq!(upstream(&registry, "app/v1/late"), b"late\n");
}

/// Fills a disk completely, like another program.
fn fill(path: &Path) -> u64 {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write(&vec![7; size]).is_ok_and(|written| written > 0) {}
    }
    file.metadata().unwrap().len()
}

#[test]
fn files_are_removed_on_a_disk_filled_by_others_and_df_is_honest() {
    if lacks(&ROOT_NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let _disk = SmallDisk::over(home.path("state"), "16m");
    let mount = home.mount(&registry.host(), &[]);
    for number in 0..200 {
        mount.write(&format!("app/v1/published/{number}"), "old");
    }
    mount.sync(&[]);
    mount.write("app/v1/staged", noise(1, 1 << 20));
    let room = || {
        let told = rustix::fs::statvfs(mount.root()).unwrap();
        (told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize)
    };
    let (total, free) = room();
    assert!(total == 16 << 20 && free > 1 << 20 && free < 15 << 20, "{total} {free}");
    assert!(fill(&home.path("state/filler")) > 0);
    assert_eq!(room(), (16 << 20, 0));
    // Each of these needs room and frees none.
    for number in 0..200 {
        std::fs::remove_file(mount.path(format!("app/v1/published/{number}"))).unwrap();
    }
    std::fs::remove_dir(mount.path("app/v1/published")).unwrap();
    std::fs::remove_file(mount.path("app/v1/staged")).unwrap();
    copied(&mount.path("app/v1/late"), &noise(2, 128 << 10)).unwrap();
    assert_eq!(mount.ls("app/v1").unwrap(), ["late"]);
    std::fs::remove_file(home.path("state/filler")).unwrap();
    mount.sync(&["--force"]);
    mount.unmount();
    assert_eq!(upstream(&registry, "app/v1/late"), noise(2, 128 << 10));
}

#[test]
fn a_file_size_limit_fails_the_write_and_nothing_else() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry"), Need::Tool("prlimit")]) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let mount = home.mount(&registry.host(), &[]);
    mount.write("app/v1/early", "early\n");
    let daemon = mount.daemon();
    let limit = |bytes: &str| {
        let pid = daemon.as_raw_nonzero().to_string();
        let output = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:unlimited")]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    limit("2097152");
    let error = copied(&mount.path("app/v1/big"), &noise(1, 8 << 20)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::FBIG.raw_os_error()), "{error}");
    assert_eq!(mount.daemon(), daemon, "it lives");
    assert_eq!(mount.cat("app/v1/early").unwrap(), b"early\n");
    std::fs::remove_file(mount.path("app/v1/big")).unwrap();
    limit("unlimited");
    // The kernel tells the next sync that it could not write back something it held.
    mount.run("sync", &[]);
    mount.sync(&[]);
    mount.unmount();
    assert_eq!(upstream(&registry, "app/v1/early"), b"early\n");
}

#[test]
fn a_disk_without_room_to_pack_keeps_the_edits() {
    if lacks(&ROOT_NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let disk = SmallDisk::over(home.path("state"), "16m");
    let mount = home.mount(&registry.host(), &[]);
    for number in 0..6 {
        mount.write(&format!("app/v1/file{number}"), noise(number, 2 << 20));
    }
    let output = mount.run("sync", &[]);
    if !output.status.success() {
        told(&output, 1, &["app:v1", "full", "all edits are kept"]);
    }
    for number in 0..6 {
        assert_eq!(mount.cat(&format!("app/v1/file{number}")).unwrap(), noise(number, 2 << 20));
    }
    disk.grow("64m");
    mount.sync(&[]);
    mount.unmount();
    assert_eq!(upstream(&registry, "app/v1/file5"), noise(5, 2 << 20));
}

#[test]
fn the_staging_size_limits_writes_and_a_sync_makes_room() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let mount = home.mount(&registry.host(), &["--staging-size", "8MiB"]);
    mount.write("app/v1/early", noise(1, 5 << 20));
    let error = copied(&mount.path("app/v1/big"), &noise(2, 5 << 20)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()), "{error}");
    assert_eq!(mount.cat("app/v1/early").unwrap(), noise(1, 5 << 20));
    // The kernel reports a failed write-back to the next sync.
    told(&mount.run("sync", &[]), 1, &["could not be staged", "No space left", "sync again"]);
    std::fs::remove_file(mount.path("app/v1/big")).unwrap();
    mount.sync(&[]);
    copied(&mount.path("app/v1/big"), &noise(2, 5 << 20)).unwrap();
    mount.unmount();
    assert_eq!(upstream(&registry, "app/v1/early"), noise(1, 5 << 20));
    assert_eq!(upstream(&registry, "app/v1/big"), noise(2, 5 << 20));
}

/// The directory of the upper of a tag.
fn upper(home: &Home, tag: &str) -> PathBuf {
    let is_it = |path: &PathBuf| {
        let about = std::fs::read_to_string(path.join("about.json")).unwrap_or_default();
        about.contains(&format!("\"{tag}\""))
    };
    let entries = std::fs::read_dir(home.path("state/uppers")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).find(is_it).unwrap_or_else(|| panic!("no upper of {tag}"))
}

/// Two tags staged and left, then one corrupted.
fn spoiled(home: &Home, registry: &Registry, spoil: impl FnOnce(&Path)) {
    let mount = home.mount(&registry.host(), &[]);
    mount.write("app/bad/file", "bad\n");
    for number in 0..200 {
        mount.write(&format!("app/bad/more/{number}"), "x");
    }
    mount.write("app/good/file", "good\n");
    mount.leave();
    spoil(&upper(home, "bad").join("upper.db"));
}

/// A tag with unreadable edits is named everywhere, affects no other, is kept, and removed only by `discard`.
fn only_discard_gives_it_up(home: &Home, registry: &Registry, word: &str) {
    let (source, state) = (registry.host(), home.path("state"));
    let status = home.run(&["status", "--state-dir", state.to_str().unwrap()]);
    assert!(status.status.success() && text(&status).contains("app:bad"), "{}", text(&status));
    let mount = home.mount(&source, &[]);
    assert_eq!(mount.cat("app/good/file").unwrap(), b"good\n");
    told(&mount.run("sync", &[]), 1, &["app:bad", word, "ocifs discard"]);
    assert_eq!(upstream(registry, "app/good/file"), b"good\n");
    told(&mount.run("umount", &[]), 16, &["app:bad", "stays mounted"]);
    told(&mount.run("status", &[]), 0, &["app:bad", "cannot be read"]);
    assert!(upper(home, "bad").join("data").is_dir(), "nothing is deleted");
    assert!(mount.cat("app/bad/file").is_err());
    told(&mount.run("discard", &["--yes"]), 0, &["app:bad"]);
    mount.write("app/bad/file", "anew\n");
    mount.sync(&[]);
    mount.unmount();
    assert_eq!(upstream(registry, "app/bad/file"), b"anew\n");
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    // The header identifies it; the rest is garbage.
    bytes[100..].iter_mut().step_by(7).for_each(|byte| *byte ^= 0x5a);
    std::fs::write(path, bytes).unwrap();
}

/// Sets the version in the header of a SQLite database (`user_version`, big-endian at 60).
fn from_the_future(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[60..64].copy_from_slice(&999u32.to_be_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_state_database_affects_no_other_tag_and_only_discard_drops_it() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    spoiled(&home, &registry, flip);
    only_discard_gives_it_up(&home, &registry, "damaged");
}

#[test]
fn a_state_database_of_a_newer_version_is_left_alone() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    spoiled(&home, &registry, from_the_future);
    only_discard_gives_it_up(&home, &registry, "newer");
}

#[test]
fn discard_drops_unreadable_edits_even_without_a_daemon() {
    if lacks(&NEEDS) {
        return;
    }
    for (spoil, word) in [(flip as fn(&Path), "damaged"), (from_the_future, "newer")] {
        let (home, registry) = (Home::new(), Registry::plain());
        spoiled(&home, &registry, spoil);
        let (all, state, cache) = (format!("{}/app", registry.host()), home.path("state"), home.path("cache"));
        let flags = ["--state-dir", state.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap()];
        told(&home.run(&[&["sync", &all], &flags[..]].concat()), 1, &["app:bad", word, "ocifs discard"]);
        assert_eq!(upstream(&registry, "app/good/file"), b"good\n");
        told(&home.run(&[&["discard", "--yes", &all], &flags[..]].concat()), 0, &["app:bad"]);
        told(&home.run(&[&["sync", &all], &flags[..]].concat()), 0, &[]);
    }
}

#[test]
fn names_hard_for_tar_are_published_and_sockets_are_left_out() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let mount = home.mount(&registry.host(), &[]);
    let deep: PathBuf = std::iter::repeat_n("d".repeat(200), 12).collect();
    let names: Vec<PathBuf> = vec![
        "a\nb\\".into(),
        std::ffi::OsStr::from_bytes(b"\xff\xfe bytes").into(),
        "n".repeat(255).into(),
        deep.join("f".repeat(255)),
        " leading and trailing ".into(),
        "\u{1b}[2J".into(),
    ];
    std::fs::create_dir_all(mount.path("app/v1")).unwrap();
    for name in &names {
        let path = mount.path("app/v1").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, name.as_os_str().as_bytes()).unwrap();
    }
    rustix::fs::mknodat(rustix::fs::CWD, mount.path("app/v1/socket"), rustix::fs::FileType::Socket, rustix::fs::Mode::RWXU, 0).unwrap();
    let output = mount.run("sync", &[]);
    told(&output, 0, &["sockets cannot be published", "socket"]);
    assert!(!text(&output).contains('\u{1b}'), "{}", text(&output));
    told(&mount.run("sync", &[]), 0, &[]);
    mount.unmount();
    for name in &names {
        assert_eq!(upstream(&registry, Path::new("app/v1").join(name)), name.as_os_str().as_bytes());
    }
    let fresh = Home::new();
    let seen = fresh.mount(&registry.host(), &["--read-only"]);
    assert!(!seen.ls("app/v1").unwrap().contains(&"socket".to_owned()));
    seen.unmount();
}

#[test]
fn a_vanished_disk_gives_errors_and_synced_edits_return_with_it() {
    let needs = [Need::Fuse, Need::Root, Need::Tool("docker-registry"), Need::Tool("mkfs.ext4"), Need::Tool("losetup")];
    if lacks(&needs) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let disk = Disk::new(&home, "state", 64);
    let mount = home.mount(&registry.host(), &[]);
    mount.write("app/v1/early", "");
    copied(&mount.path("app/v1/early"), b"early\n").unwrap();
    copied(&mount.path("app/v1/open"), b"early\n").unwrap();
    std::fs::File::open(mount.path("app/v1")).unwrap().sync_all().unwrap();
    let mut open = std::fs::File::options().append(true).open(mount.path("app/v1/open")).unwrap();
    disk.cut();
    // Nothing is created for this one: the write itself fails, or its sync.
    assert!(open.write_all(&noise(1, 1 << 20)).and_then(|()| open.sync_all()).is_err());
    // Nor does it count as a damaged database, which only `discard` could fix.
    assert_eq!(open.set_len(0).unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    drop(open);
    assert!(std::fs::File::create(mount.path("app/v1/late")).is_err());
    assert!(std::fs::create_dir(mount.path("app/v2")).is_err());
    let daemon = mount.daemon();
    told(&mount.run("sync", &[]), 1, &["could not be staged"]);
    told(&mount.run("sync", &[]), 1, &["state"]);
    told(&mount.run("status", &[]), 0, &["app:v1"]);
    assert_eq!(mount.daemon(), daemon, "it lives");
    told(&mount.run("umount", &[]), 16, &["stays mounted"]);
    told(&mount.run("umount", &["--no-sync"]), 0, &[]);
    drop(mount);
    disk.power_up();
    let again = home.mount(&registry.host(), &[]);
    assert_eq!(again.cat("app/v1/early").unwrap(), b"early\n");
    assert!(again.cat("app/v1/open").unwrap().starts_with(b"early\n"));
    again.sync(&["--force"]);
    again.unmount();
    assert_eq!(upstream(&registry, "app/v1/early"), b"early\n");
}
