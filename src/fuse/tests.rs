//! End to end through the kernel: an in-memory registry, mounted by this process. Needs `/dev/fuse` and permission to mount; without them the tests
//! say so and count as skipped, which is a failure under `CI=true`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

mod writing;

use super::{Options, Session};
use crate::error::ErrorKind;
use crate::fs::tests::test_mount::{Setup, TestMount, add_files};
use crate::registry::{Fault, Memory, RequestKind};
use crate::sys;

/// One mount; unmounted when dropped.
pub(super) struct Mount {
    directory: tempfile::TempDir,
    mount: TestMount,
    runtime: Runtime,
    session: Option<Session>,
}

impl Mount {
    /// Mounts, or reports why that is impossible here.
    fn new(registry: Memory, setup: Setup, deadline: Duration) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = sys::mount::Options { source: "memory".to_owned(), read_only: !setup.writable, no_exec: false, allow_other: false };
        let (held, path) = sys::beneath::hold_directory(directory.path()).unwrap();
        let device = match sys::mount::mount(&held, &path, &options) {
            Ok(device) => device,
            Err(error) => {
                assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "skipped: {error}");
                eprintln!("SKIPPED, cannot mount here: {error}");
                return None;
            }
        };
        let runtime = Runtime::new().unwrap();
        let mount = TestMount::with(registry, setup);
        let options = Options { threads: 2, deadline };
        let session = Session::start(Arc::clone(&mount.fs), device, runtime.handle().clone(), &options).unwrap();
        Some(Self { directory, mount, runtime, session: Some(session) })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// The same without opens.
    fn without_opens(registry: Memory) -> Option<Self> {
        Self::new(registry, Setup { skips_opens: true, strict: true, ..Setup::default() }, PATIENT)
    }

    /// Waits until the kernel has been told everything it must forget.
    fn flush_notices(&self) {
        // Notices are delivered in order.
        self.mount.fs.kernel_cache().unwrap().hand_over(crate::fs::ROOT);
    }

    fn list(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.path(path)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.mount.registry.release();
        // A file that was just closed may not have left the kernel yet.
        let busy = || match sys::unmount::unmount(self.directory.path(), sys::unmount::Force::None) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => true,
            result => result.map(|()| false).unwrap(),
        };
        let deadline = std::time::Instant::now() + PATIENT;
        while busy() {
            assert!(std::time::Instant::now() < deadline, "the mount stays busy");
            std::thread::yield_now();
        }
        if let Some(session) = self.session.take() {
            self.runtime.block_on(session.wait()).unwrap();
        }
    }
}

const PATIENT: Duration = Duration::from_secs(120);

fn registry() -> Memory {
    let registry = Memory::new();
    add_files(&registry, "team/app", "v1", &[("a.txt", "hello"), ("dir/b.txt", "there"), ("empty", "")]);
    add_files(&registry, "team/app", "v2", &[("a.txt", "again")]);
    registry
}

#[test]
fn a_mounted_registry_is_walked_and_read_like_any_directory() {
    let Some(mount) = Mount::new(registry(), Setup::default(), PATIENT) else { return };
    assert_eq!(mount.list(""), ["team"]);
    assert_eq!(mount.list("team/app"), ["v1", "v2"]);
    assert_eq!(mount.list("team/app/v1"), ["a.txt", "dir", "empty"]);
    assert_eq!(fs::read_to_string(mount.path("team/app/v1/a.txt")).unwrap(), "hello");
    assert_eq!(fs::read_to_string(mount.path("team/app/v1/dir/b.txt")).unwrap(), "there");
    assert_eq!(fs::read_to_string(mount.path("team/app/v1/empty")).unwrap(), "");
    assert_eq!(fs::read_to_string(mount.path("team/app:v2/a.txt")).unwrap(), "again");
    let stat = fs::metadata(mount.path("team/app/v1/a.txt")).unwrap();
    assert_eq!((stat.len(), stat.mode(), stat.blocks()), (5, 0o100_644, 1));
    let find = Command::new("find").arg(mount.directory.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&find.stdout).lines().count(), 10, "{find:?}");
}

#[test]
fn the_kernel_sees_the_metadata_directory_and_its_links() {
    let Some(mount) = Mount::new(registry(), Setup::default(), PATIENT) else { return };
    let tag = mount.path("team/app/.oci/tags/v1");
    let digest = fs::read_to_string(tag.join("digest")).unwrap();
    let sum = Command::new("sha256sum").arg(tag.join("manifest.json")).output().unwrap();
    assert!(String::from_utf8_lossy(&sum.stdout).starts_with(digest.trim().strip_prefix("sha256:").unwrap()));
    assert_eq!(fs::read_to_string(tag.join("fs/a.txt")).unwrap(), "hello");
    assert_eq!(fs::read_to_string(mount.path(".oci/status.json")).unwrap(), "{\"status\":true}\n");
    assert!(fs::read_dir(mount.path("team/app")).unwrap().all(|entry| entry.unwrap().file_name() != ".oci"));
}

#[test]
fn files_are_read_and_mapped_without_being_opened() {
    let registry = registry();
    add_files(&registry, "team/app", "large", &[("file", &"0123456789abcdef".repeat(200_000))]);
    let Some(mount) = Mount::without_opens(registry) else { return };
    for _ in 0..2 {
        assert_eq!(fs::read_to_string(mount.path("team/app/v1/a.txt")).unwrap(), "hello");
        assert_eq!(fs::read_to_string(mount.path("team/app/v1/empty")).unwrap(), "");
        assert!(fs::read(mount.path("team/app/large/file")).unwrap().chunks(16).all(|part| part == b"0123456789abcdef"));
    }
    let file = fs::File::open(mount.path("team/app/v1/a.txt")).unwrap();
    file.sync_all().unwrap();
    let map = sys::mapped::Bytes::map(&file).unwrap();
    assert_eq!(map.as_ref(), b"hello");
    assert_eq!(errno(fs::write(mount.path("team/app/v1/a.txt"), "x")), Some(30));
    assert_eq!(errno(fs::read(mount.path("team/app/v1/dir"))), Some(21));
    mount.mount.registry.plan(RequestKind::Blob, 0, u32::MAX, Fault::Error(ErrorKind::Denied));
    assert_eq!(errno(fs::read(mount.path("team/app/v2/a.txt"))), Some(13));
    mount.mount.registry.mend();
    assert_eq!(fs::read_to_string(mount.path("team/app/v2/a.txt")).unwrap(), "again");
}

#[test]
fn a_generated_file_is_read_anew_without_being_opened() {
    let Some(mount) = Mount::without_opens(registry()) else { return };
    let file = mount.path("team/app/.oci/repo.json");
    let unlisted = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), unlisted);
    mount.list("team/app");
    assert_ne!(fs::read_to_string(&file).unwrap(), unlisted);
}

fn errno(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn programs_receive_the_documented_errno() {
    let Some(mount) = Mount::new(registry(), Setup::default(), PATIENT) else { return };
    assert_eq!(errno(fs::read(mount.path("team/app/nothing"))), Some(2));
    assert_eq!(errno(fs::read(mount.path(".git"))), Some(2));
    assert_eq!(errno(fs::write(mount.path("team/app/v1/a.txt"), "x")), Some(30));
    assert_eq!(errno(fs::create_dir(mount.path("team/app/v9"))), Some(30));
    assert_eq!(errno(fs::remove_file(mount.path("team/app/v1/a.txt"))), Some(30));
    mount.mount.registry.plan(RequestKind::Blob, 0, u32::MAX, Fault::Error(ErrorKind::Denied));
    assert_eq!(errno(fs::read(mount.path("team/app/v2/a.txt"))), Some(13));
    mount.mount.registry.mend();
    assert_eq!(fs::read_to_string(mount.path("team/app/v2/a.txt")).unwrap(), "again");
}

#[test]
fn attributes_of_ocifs_are_read_by_name_through_the_kernel() {
    let Some(mount) = Mount::new(registry(), Setup::default(), PATIENT) else { return };
    let file = mount.path("team/app/v1/a.txt");
    let mut value = [0; 100];
    let length = rustix::fs::getxattr(&file, "user.oci.reference", &mut value).unwrap();
    assert_eq!(&value[..length], b"reg.io/team/app:v1");
    assert_eq!(rustix::fs::getxattr(&file, "user.oci.reference", &mut [0; 3]), Err(rustix::io::Errno::RANGE));
    assert_eq!(rustix::fs::getxattr(&file, "user.nothing", &mut value), Err(rustix::io::Errno::NODATA));
    assert_eq!(rustix::fs::listxattr(&file, &mut value).unwrap(), 0);
}

#[test]
fn df_answers_without_a_request() {
    let Some(mount) = Mount::new(registry(), Setup::default(), PATIENT) else { return };
    let space = rustix::fs::statvfs(mount.directory.path()).unwrap();
    assert_eq!(space.f_blocks * space.f_frsize, 1 << 30);
    assert_eq!(space.f_bavail * space.f_frsize, 1 << 29);
    assert_eq!(mount.mount.requests(), []);
}

#[test]
fn a_moved_tag_shows_at_its_path_while_open_files_stay() {
    let Some(mount) = Mount::new(registry(), Setup { tag_ttl: Duration::ZERO, ..Setup::default() }, PATIENT) else { return };
    let path = mount.path("team/app/v1/a.txt");
    let mut open = fs::File::open(&path).unwrap();
    add_files(&mount.mount.registry, "team/app", "v1", &[("a.txt", "moved")]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "moved");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut open, &mut text).unwrap();
    assert_eq!(text, "hello");
}

/// Waits until a request of this kind is in progress.
fn wait_for(registry: &Memory, kind: RequestKind) {
    while registry.count(kind) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_signal_ends_a_program_waiting_for_a_hung_registry() {
    let Some(mount) = Mount::new(registry(), Setup::default(), PATIENT) else { return };
    for (signal, number, file) in [("INT", 2, "team/app/v1/a.txt"), ("KILL", 9, "team/app/v2/a.txt")] {
        mount.mount.requests();
        mount.mount.registry.plan(RequestKind::Blob, 0, u32::MAX, Fault::Stall);
        // The parent of the tests may have told them to ignore the signal.
        let mut cat =
            Command::new("env").args(["--default-signal=INT", "cat"]).arg(mount.path(file)).stdout(Stdio::null()).spawn().unwrap();
        wait_for(&mount.mount.registry, RequestKind::Blob);
        let sent = Command::new("kill").args(["-s", signal, &cat.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(cat.wait().unwrap().signal(), Some(number));
    }
}

#[test]
fn a_program_waiting_for_a_hung_registry_eventually_times_out() {
    let Some(mount) = Mount::new(registry(), Setup::default(), Duration::from_millis(300)) else { return };
    assert_eq!(mount.list("team/app/v1"), ["a.txt", "dir", "empty"]);
    mount.mount.registry.plan(RequestKind::Blob, 0, u32::MAX, Fault::Stall);
    assert_eq!(errno(fs::read(mount.path("team/app/v1/a.txt"))), Some(110));
}

#[test]
fn a_mount_is_unmounted_while_the_registry_hangs() {
    let Some(mount) = Mount::new(registry(), Setup::default(), Duration::from_millis(300)) else { return };
    mount.mount.registry.plan(RequestKind::Repositories, 0, u32::MAX, Fault::Stall);
    assert_eq!(errno(fs::read_dir(mount.directory.path())), Some(110));
    // Dropping unmounts, and waits until the session has ended.
}

#[test]
fn many_readers_of_one_file_fetch_it_once() {
    let registry = Memory::new();
    let large = "0123456789abcdef".repeat(200_000);
    add_files(&registry, "app", "v1", &[("large", &large)]);
    let Some(mount) = Mount::new(registry, Setup::default(), PATIENT) else { return };
    let path = mount.path("app/v1/large");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(fs::read_to_string(&path).unwrap() == large));
        }
    });
    let fetched: u64 =
        mount.mount.registry.requests().iter().filter_map(|request| request.range.as_ref()).map(|range| range.end - range.start).sum();
    assert_eq!(fetched, large.len() as u64);
}

#[test]
fn file_types_survive_a_round_trip_through_the_kernel() {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, link: Option<&str>| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_234_567_890);
        header.set_size(0);
        if kind == tar::EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        match link {
            Some(target) => archive.append_link(&mut header, name, target).unwrap(),
            None => archive.append_data(&mut header, name, std::io::empty()).unwrap(),
        }
    };
    add("null", tar::EntryType::Char, 0o666, None);
    add("pipe", tar::EntryType::Fifo, 0o600, None);
    add("tool", tar::EntryType::Regular, 0o4755, None);
    add("link", tar::EntryType::Symlink, 0o777, Some("../../../../etc/passwd"));
    add("hard", tar::EntryType::Link, 0o777, Some("tool"));
    let bytes = archive.into_inner().unwrap();
    let registry = Memory::new();
    let layer: (&str, &[u8], &[(&str, &str)]) = ("application/vnd.oci.image.layer.v1.tar", &bytes, &[]);
    registry.add_artifact("app", "v1", (crate::oci::media_type::OCI_CONFIG, b"{}"), &[layer], &[]);
    let Some(mount) = Mount::new(registry, Setup::default(), PATIENT) else { return };
    let stat = |name: &str| fs::symlink_metadata(mount.path("app/v1").join(name)).unwrap();
    assert!(stat("null").file_type().is_char_device() && stat("pipe").file_type().is_fifo());
    assert_eq!(stat("null").rdev(), 0x103);
    assert_eq!(stat("tool").mode(), 0o104_755);
    assert_eq!((stat("tool").nlink(), stat("tool").ino()), (2, stat("hard").ino()));
    assert_eq!(stat("tool").mtime(), 1_234_567_890);
    assert_eq!(fs::read_link(mount.path("app/v1/link")).unwrap(), Path::new("../../../../etc/passwd"));
    let opened = fs::File::open(mount.path("app/v1/null"));
    assert_eq!(errno(opened), Some(13), "devices are inert: the mount is nodev");
    assert_eq!(mount.path("app/v1/tool").file_name(), Some(OsStr::new("tool")));
}
