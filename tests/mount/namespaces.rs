//! Mounts in use elsewhere: another mount namespace, a second mount point, open files behind a lazy unmount.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use crate::support::artifacts::Draft;
use crate::support::mounting::{Home, Mount, is_mounted, text};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use serde_json::Value;

const NEEDS: [Need; 4] = [Need::Fuse, Need::Root, Need::Tool("docker-registry"), Need::Tool("unshare")];

/// A shell in its own mount namespace, which keeps mounts that are unmounted outside. It ignores mounts of other tests.
struct Elsewhere {
    shell: Child,
    printed: BufReader<ChildStdout>,
}

impl Elsewhere {
    fn new(home: &Home) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh"]).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().unwrap();
        let printed = BufReader::new(shell.stdout.take().unwrap());
        let mut elsewhere = Self { shell, printed };
        let others = format!("grep ' fuse.ocifs ' /proc/self/mounts | cut -d' ' -f2 | grep -v '^{}'", home.path("").display());
        elsewhere.run(&format!("{others} | xargs -r umount --lazy"));
        elsewhere
    }

    fn pid(&self) -> u32 {
        self.shell.id()
    }

    /// Runs a script to completion and returns its output.
    fn run(&mut self, script: &str) -> String {
        let stdin = self.shell.stdin.as_mut().unwrap();
        writeln!(stdin, "{{ {script}\n}} 2>&1; echo; echo the end").unwrap();
        let mut printed = String::new();
        while !printed.ends_with("\nthe end\n") {
            assert_ne!(self.printed.read_line(&mut printed).unwrap(), 0, "{printed}");
        }
        printed.truncate(printed.len() - "\nthe end\n".len());
        printed
    }

    /// Ends the shell and with it its namespace.
    fn leave(mut self) {
        drop(self.shell.stdin.take());
        assert!(self.shell.wait().unwrap().success());
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // A failed test leaves no namespace behind.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A registry with `team/app:v1` and `team/app:v2`.
fn registry() -> Registry {
    let registry = Registry::plain();
    let mut draft = Draft::new();
    draft.files("v1", &[("file", b"first\n")]);
    draft.files("v2", &[("file", b"first\n")]);
    draft.layout().push(&registry.url(), "team/app");
    registry
}

fn home() -> Home {
    let mut home = Home::new();
    let state = home.path("state");
    home.set("OCIFS_STATE_DIR", state);
    home
}

fn mount<'home>(home: &'home Home, registry: &Registry) -> Mount<'home> {
    home.mount(&format!("{}/team", registry.host()), &["--tag-ttl", "0s"])
}

/// Mounts again at the same place, with the same cache and state.
fn mount_again(home: &Home, registry: &Registry, point: &Path) -> Output {
    let (cache, state) = (home.path("cache"), home.path("state"));
    let source = format!("{}/team", registry.host());
    let flags = ["--tag-ttl", "0s", "--cache-dir", cache.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    home.run(&[&["mount", &source, point.to_str().unwrap()], flags.as_slice()].concat())
}

fn upstream(registry: &Registry, name: &str) -> String {
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", registry.host()), &["--read-only"]);
    let read = mount.cat(name).map(|bytes| String::from_utf8(bytes).unwrap()).unwrap();
    mount.unmount();
    read
}

fn bind(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    assert!(Command::new("mount").arg("--bind").args([from, to]).status().unwrap().success());
}

/// The part of `status` about mounts of a registry.
fn rows(home: &Home, registry: &Registry) -> Vec<Value> {
    let output = home.run(&["status", "--format=json"]);
    let rows = serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap();
    rows.into_iter().filter(|row| row["source"].as_str().unwrap().starts_with(&registry.host())).collect()
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn wait_for_end(pid: u32) {
    while runs(pid) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn pid(mount: &Mount<'_>) -> u32 {
    mount.daemon().as_raw_nonzero().get().try_into().unwrap()
}

fn umount(home: &Home, point: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let output = home.run(&[&["umount", point.to_str().unwrap()], flags].concat());
    (output.status.code(), text(&output))
}

#[test]
fn another_namespace_is_served_after_umount_and_its_edits_are_published_when_it_ends() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    let (point, daemon) = (mounted.root().to_owned(), pid(&mounted));
    let file = mounted.path("app/v1/file");
    std::fs::write(&file, "second\n").unwrap();
    let mut elsewhere = Elsewhere::new(&home);
    let (code, printed) = umount(&home, &point, &[]);
    assert_eq!(code, Some(0), "{printed}");
    let user = format!("{} in the mount namespace of sh (pid {})", point.display(), elsewhere.pid());
    assert!(printed.contains("published") && printed.contains(&user), "{printed}");
    assert!(!printed.contains("still staged"), "{printed}");
    assert!(!is_mounted(&point) && runs(daemon));
    assert_eq!(upstream(&registry, "app/v1/file"), "second\n");
    assert_eq!(elsewhere.run(&format!("cat {}; echo third > {}", file.display(), file.display())), "second\n");
    assert_eq!(upstream(&registry, "app/v1/file"), "second\n");
    elsewhere.leave();
    wait_for_end(daemon);
    assert_eq!(upstream(&registry, "app/v1/file"), "third\n", "{}", mounted.log());
}

#[test]
fn one_of_two_mount_points_is_unmounted_after_publishing() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    let daemon = pid(&mounted);
    let other = home.path("other");
    bind(mounted.root(), &other);
    std::fs::write(mounted.path("app/v1/file"), "second\n").unwrap();
    let (code, printed) = umount(&home, mounted.root(), &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("published") && printed.contains(other.to_str().unwrap()), "{printed}");
    assert!(!is_mounted(mounted.root()) && is_mounted(&other) && runs(daemon));
    assert_eq!(upstream(&registry, "app/v1/file"), "second\n");
    std::fs::write(other.join("app/v1/file"), "third\n").unwrap();
    let (code, printed) = umount(&home, &other, &[]);
    assert!(code == Some(0) && printed.contains("published") && !printed.contains("other users"), "{printed}");
    assert!(!is_mounted(&other) && !runs(daemon));
    assert_eq!(upstream(&registry, "app/v1/file"), "third\n");
}

#[test]
fn commands_on_a_bind_mount_of_one_tag_affect_only_that_tag() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    let tag = home.path("tag");
    let edit = |text: &str| ["v1", "v2"].map(|tag| std::fs::write(mounted.path(format!("app/{tag}/file")), text).unwrap());
    bind(&mounted.path("app/v1"), &tag);
    edit("second\n");
    assert!(text(&home.run(&["diff", tag.join("file").to_str().unwrap()])).contains("v1"));
    let (code, printed) = umount(&home, &tag, &[]);
    assert!(code == Some(0) && printed.contains(mounted.root().to_str().unwrap()), "{printed}");
    assert_eq!((upstream(&registry, "app/v1/file").as_str(), upstream(&registry, "app/v2/file").as_str()), ("second\n", "first\n"));
    bind(&mounted.path("app/v1"), &tag);
    edit("third\n");
    let (code, printed) = umount(&home, &tag, &["--discard", "--yes"]);
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(mounted.cat("app/v1/file").unwrap(), b"second\n");
    assert_eq!(mounted.cat("app/v2/file").unwrap(), b"third\n");
    mounted.unmount();
    assert_eq!(upstream(&registry, "app/v2/file"), "third\n");
}

#[test]
fn no_sync_and_discard_work_on_a_mount_in_use_by_others() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let reference = format!("{}/team/app:v1", registry.host());
    for (flags, after, published) in
        [([].as_slice(), "third\n", true), (&["--no-sync"], "third\n", false), (&["--discard", "--yes"], "third\n", true)]
    {
        let mounted = mount(&home, &registry);
        let (point, daemon, file) = (mounted.root().to_owned(), pid(&mounted), mounted.path("app/v1/file"));
        let before = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, "second\n").unwrap();
        let mut elsewhere = Elsewhere::new(&home);
        let (code, printed) = umount(&home, &point, flags);
        assert_eq!(code, Some(0), "{printed}");
        let now = upstream(&registry, "app/v1/file");
        assert_eq!(now, if flags.is_empty() { "second\n" } else { &before }, "{flags:?}");
        assert_eq!(printed.contains(&format!("still staged: {reference}")), flags == ["--no-sync"], "{printed}");
        elsewhere.run(&format!("printf '%s' '{after}' > {}", file.display()));
        elsewhere.leave();
        wait_for_end(daemon);
        assert_eq!(upstream(&registry, "app/v1/file") == after, published, "{flags:?}");
        let left = rows(&home, &registry).iter().any(|row| row["staged"][0]["reference"] == reference.as_str());
        assert_eq!(left, !published, "{flags:?}");
        if left {
            assert!(home.run(&["discard", "--yes", &reference]).status.success());
        }
        let reset = mount(&home, &registry);
        std::fs::write(reset.path("app/v1/file"), "first\n").unwrap();
        reset.unmount();
    }
}

#[test]
fn a_process_behind_a_lazy_unmount_is_named_and_its_writes_are_published() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    let daemon = pid(&mounted);
    let mut inside = Command::new("sh")
        .arg("-c")
        .arg("read line; echo $line > file")
        .current_dir(mounted.path("app/v1"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let (code, printed) = umount(&home, mounted.root(), &["--lazy"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains(&format!("sh (pid {})", inside.id())), "{printed}");
    assert!(!is_mounted(mounted.root()) && runs(daemon));
    writeln!(inside.stdin.take().unwrap(), "second").unwrap();
    assert!(inside.wait().unwrap().success());
    wait_for_end(daemon);
    assert_eq!(upstream(&registry, "app/v1/file"), "second\n");
}

#[test]
fn a_detached_daemon_is_listed_with_its_users_and_addressed_by_reference() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    let (point, daemon) = (mounted.root().to_owned(), pid(&mounted));
    let mut elsewhere = Elsewhere::new(&home);
    assert_eq!(umount(&home, &point, &[]).0, Some(0));
    elsewhere.run(&format!("echo second > {}", mounted.path("app/v1/file").display()));
    let reference = format!("{}/team/app:v1", registry.host());
    let row = rows(&home, &registry).into_iter().find(|row| row["state"] == "detached").unwrap();
    assert_eq!((row["mount_point"].as_str(), row["pid"].as_u64()), (point.to_str(), Some(daemon.into())));
    assert_eq!(row["source"].as_str(), Some(&*format!("{}/team", registry.host())));
    assert_eq!(row["staged"][0]["reference"].as_str(), Some(&*reference));
    let user = format!("{} in the mount namespace of sh (pid {})", point.display(), elsewhere.pid());
    assert_eq!(row["users"].as_array().unwrap(), &[Value::from(user.as_str())]);
    let shown = text(&home.run(&["status"]));
    assert!(shown.contains("detached") && shown.contains(&user) && shown.contains(&reference), "{shown}");
    assert!(text(&home.run(&["diff", &reference])).contains("file"));
    assert!(text(&home.run(&["sync", &reference])).contains("published"));
    assert_eq!(upstream(&registry, "app/v1/file"), "second\n");
    elsewhere.run(&format!("echo third > {}", mounted.path("app/v1/file").display()));
    assert!(text(&home.run(&["discard", "--yes", &reference])).contains("discarded"));
    assert_eq!(elsewhere.run(&format!("cat {}", mounted.path("app/v1/file").display())), "second\n");
    elsewhere.leave();
    wait_for_end(daemon);
    assert_eq!(rows(&home, &registry), Vec::<Value>::new());
}

#[test]
fn a_tag_edited_in_a_namespace_is_busy_for_a_new_mount_until_published() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    let (point, daemon) = (mounted.root().to_owned(), pid(&mounted));
    let (v1, v2) = (mounted.path("app/v1/file"), mounted.path("app/v2/file"));
    std::fs::write(&v1, "second\n").unwrap();
    std::fs::write(&v2, "second\n").unwrap();
    let mut elsewhere = Elsewhere::new(&home);
    assert_eq!(umount(&home, &point, &[]).0, Some(0));
    assert_eq!(elsewhere.run(&format!("echo third > {}", v2.display())), "");

    let again = mount_again(&home, &registry, &point);
    assert!(again.status.success(), "{}", text(&again));
    std::fs::write(&v1, "fourth\n").unwrap();
    let busy = std::fs::write(&v2, "mine\n").unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(16), "{busy}");
    let reply = elsewhere.run(&format!("echo x > {}", v1.display()));
    assert!(reply.contains("busy"), "{reply}");
    let reference = format!("{}/team/app:v2", registry.host());
    let output = home.run(&["sync", &reference]);
    assert!(output.status.success() && text(&output).contains("published"), "{}", text(&output));
    assert_eq!(upstream(&registry, "app/v2/file"), "third\n");
    std::fs::write(&v2, "fifth\n").unwrap();
    let (code, printed) = umount(&home, &point, &[]);
    assert_eq!(code, Some(0), "{printed}");
    elsewhere.leave();
    wait_for_end(daemon);
    assert_eq!((upstream(&registry, "app/v1/file"), upstream(&registry, "app/v2/file")), ("fourth\n".to_owned(), "fifth\n".to_owned()));
}
