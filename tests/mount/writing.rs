//! Writing through a real mount, as seen by a real registry and by other mounts.

use crate::support::artifacts::Draft;
use crate::support::mounting::{Home, Mount, text};
use crate::support::registry::Registry;
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

fn publish(registry: &Registry, tag: &str, content: &[u8]) {
    let mut draft = Draft::new();
    draft.files(tag, &[("file", content), ("dir/below", b"below\n")]);
    draft.layout().push(&registry.url(), "team/app");
}

fn sync(home: &Home, mount: &Mount<'_>) {
    let output = home.run(&["sync", mount.root().to_str().unwrap()]);
    assert!(output.status.success(), "{}\n{}", text(&output), mount.log());
}

/// Content as read by a mount with another home.
fn read_elsewhere(registry: &Registry, name: &str) -> Vec<u8> {
    let home = Home::new();
    let mount = home.mount(&registry.host(), &["--read-only"]);
    let bytes = mount.cat(name).unwrap();
    mount.unmount();
    bytes
}

fn errno(result: std::io::Result<impl Sized>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

#[test]
fn a_directory_copied_into_a_new_tag_is_identical_in_another_mount() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, shell, home) = (Registry::plain(), Shell::new(), Home::new());
    let source = shell.path("data");
    shell.at(
        &source,
        r#"mkdir -p "$M/a/b/c" "$M/empty"; for n in $(seq 300); do echo "number $n" >"$M/a/file$n"; done; chmod 600 "$M/a/file1"
        chmod 755 "$M/a/file2"; ln "$M/a/file3" "$M/a/b/hard"; ln -s ../file4 "$M/a/b/soft"; head -c 6000000 /dev/urandom >"$M/large"
        touch -d '2001-02-03 04:05:06' "$M/a/file5" "$M/a/b"; printf '' >"$M/nothing"; echo odd >"$M/odd name é""#,
    );
    let expected = shell.list(&source, "expected.tsv");
    let mount = home.mount(&registry.host(), &[]);
    shell.run(r#"mkdir "$M/tools"; cp -a "$S" "$M/tools/v1""#, &[("M", mount.root()), ("S", &source)]);
    mount.compare(&expected, "tools/v1").unwrap();
    sync(&home, &mount);
    mount.compare(&expected, "tools/v1").unwrap();
    let other = Home::new();
    let seen = other.mount(&registry.host(), &["--read-only"]);
    seen.compare(&expected, "tools/v1").unwrap();
    seen.unmount();
    mount.unmount();
}

#[test]
fn a_shell_edits_and_syncs_again_and_again_without_leaving_its_directory() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    publish(&registry, "v1", b"first\n");
    let home = Home::new();
    let mount = home.mount(&registry.host(), &["--tag-ttl", "0s"]);
    let inside = mount.path("team/app/v1/dir");
    let before = inside.metadata().unwrap().ino();
    let run = |script: &str| {
        let output = Command::new("bash").args(["-euc", script]).current_dir(&inside).output().unwrap();
        assert!(output.status.success(), "{script}\n{}", text(&output));
    };
    let mut shell = Command::new("bash").args(["-eu"]).current_dir(&inside).stdin(std::process::Stdio::piped()).spawn().unwrap();
    for turn in 0..3 {
        run(&format!("echo {turn} > ../file; echo {turn} >> log; mkdir -p turn{turn}; mv turn{turn} moved{turn}"));
        sync(&home, &mount);
        assert_eq!(read_elsewhere(&registry, "team/app/v1/file"), format!("{turn}\n").as_bytes());
        assert_eq!(inside.metadata().unwrap().ino(), before);
    }
    // The shell that was there all along still is.
    std::io::Write::write_all(shell.stdin.as_mut().unwrap(), b"test \"$(cat ../file)\" = 2; echo from inside > here\n").unwrap();
    drop(shell.stdin.take());
    assert!(shell.wait().unwrap().success());
    sync(&home, &mount);
    assert_eq!(read_elsewhere(&registry, "team/app/v1/dir/here"), b"from inside\n");
    assert_eq!(read_elsewhere(&registry, "team/app/v1/dir/log"), b"0\n1\n2\n");
    mount.unmount();
}

#[test]
fn a_second_mount_cannot_edit_the_same_tag_and_its_log_names_the_holder() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    publish(&registry, "v1", b"first\n");
    let home = Home::new();
    let (one, two) = (home.mount(&registry.host(), &[]), home.mount(&registry.host(), &[]));
    std::fs::write(one.path("team/app/v1/file"), "mine").unwrap();
    assert_eq!(errno(std::fs::write(two.path("team/app/v1/file"), "theirs")), Some(Errno::BUSY));
    assert_eq!(errno(std::fs::create_dir(two.path("team/app/v1/new"))), Some(Errno::BUSY));
    assert_eq!(two.cat("team/app/v1/file").unwrap(), b"first\n");
    let pid = one.daemon().as_raw_nonzero().to_string();
    assert!(two.log().contains(&pid), "{}", two.log());
    sync(&home, &two);
    assert_eq!(read_elsewhere(&registry, "team/app/v1/file"), b"first\n", "the other mount's edits are not its own");
    sync(&home, &one);
    one.unmount();
    let deadline = Instant::now() + Duration::from_secs(60);
    let output = home.run(&["refresh", two.root().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    while two.cat("team/app/v1/file").unwrap() != b"mine" {
        assert!(Instant::now() < deadline, "what was published is never seen");
    }
    std::fs::write(two.path("team/app/v1/file"), "now mine").unwrap();
    two.unmount();
    assert_eq!(read_elsewhere(&registry, "team/app/v1/file"), b"now mine", "unmounting publishes");
}

#[test]
fn writing_to_a_moved_tag_s_old_directory_is_estale() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    publish(&registry, "v1", b"first\n");
    let home = Home::new();
    let mount = home.mount(&registry.host(), &["--tag-ttl", "0s"]);
    let folder = std::fs::File::open(mount.path("team/app/v1")).unwrap();
    assert_eq!(mount.cat("team/app/v1/file").unwrap(), b"first\n");
    publish(&registry, "v1", b"moved\n");
    let open = |name: &str| rustix::fs::openat(&folder, name, OFlags::WRONLY | OFlags::CREATE, Mode::from_raw_mode(0o644));
    assert_eq!(open("new").err(), Some(Errno::STALE));
    assert_eq!(open("file").err(), Some(Errno::STALE));
    assert_eq!(rustix::fs::mkdirat(&folder, "new", Mode::from_raw_mode(0o755)), Err(Errno::STALE));
    let deadline = Instant::now() + Duration::from_secs(60);
    while mount.cat("team/app/v1/file").unwrap() != b"moved\n" {
        assert!(Instant::now() < deadline, "the tag never moves");
    }
    std::fs::write(mount.path("team/app/v1/file"), "edited").unwrap();
    assert_eq!(mount.cat("team/app/v1/file").unwrap(), b"edited");
    drop(folder);
    mount.unmount();
    assert_eq!(read_elsewhere(&registry, "team/app/v1/file"), b"edited");
}

#[test]
fn acknowledged_edits_of_a_killed_daemon_are_staged_in_the_next_mount() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    publish(&registry, "v1", b"first\n");
    let home = Home::new();
    let mount = home.mount(&registry.host(), &[]);
    let edit = |root: &Path| {
        std::fs::write(root.join("team/app/v1/file"), "edited").unwrap();
        std::fs::rename(root.join("team/app/v1/dir/below"), root.join("team/app/v1/moved")).unwrap();
        std::fs::create_dir(root.join("team/app/v2")).unwrap();
        std::fs::write(root.join("team/app/v2/new"), "new").unwrap();
    };
    edit(mount.root());
    rustix::process::kill_process(mount.daemon(), rustix::process::Signal::KILL).unwrap();
    drop(mount);
    let mount = home.mount(&registry.host(), &[]);
    assert_eq!(mount.ls("team/app").unwrap(), ["v1", "v2"]);
    assert_eq!(mount.ls("team/app/v1").unwrap(), ["dir", "file", "moved"]);
    assert_eq!(mount.cat("team/app/v1/file").unwrap(), b"edited");
    assert_eq!(mount.cat("team/app/v1/moved").unwrap(), b"below\n");
    sync(&home, &mount);
    assert_eq!(read_elsewhere(&registry, "team/app/v2/new"), b"new");
    assert_eq!(read_elsewhere(&registry, "team/app/v1/moved"), b"below\n");
    mount.unmount();
}

#[test]
fn a_layout_is_written_like_a_registry() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let mut draft = Draft::new();
    draft.files("v1", &[("file", b"first\n")]);
    let home = Home::new();
    let source = format!("oci:{}", draft.layout().path().display());
    let mount = home.mount(&source, &[]);
    std::fs::write(mount.path("v1/file"), "edited").unwrap();
    std::fs::create_dir(mount.path("v2")).unwrap();
    std::fs::write(mount.path("v2/new"), "new").unwrap();
    mount.unmount();
    assert_eq!(draft.layout().tags(), ["v1", "v2"]);
    let mount = Home::new();
    let mount = mount.mount(&source, &["--read-only"]);
    assert_eq!((mount.cat("v1/file").unwrap(), mount.cat("v2/new").unwrap()), (b"edited".to_vec(), b"new".to_vec()));
    mount.unmount();
}
