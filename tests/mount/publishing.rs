//! Publishing commands through real mounts: their output, their exit codes, and that no staged edit is lost.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::artifacts::Draft;
use crate::support::layouts::fixtures;
use crate::support::mounting::{Home, Mount, is_mounted, text};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use serde_json::Value;

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

/// A registry with `team/app:v1`: one file of six bytes.
fn registry() -> Registry {
    let registry = Registry::plain();
    push(&registry, "v1", b"first\n");
    registry
}

fn push(registry: &Registry, tag: &str, content: &[u8]) {
    let mut draft = Draft::new();
    draft.files(tag, &[("file", content)]);
    draft.layout().push(&registry.url(), "team/app");
}

/// A home whose commands look for staged edits where its mounts put them.
fn home() -> Home {
    let mut home = Home::new();
    let state = home.path("state");
    home.set("OCIFS_STATE_DIR", state);
    home
}

/// Mounts with a timeout of seconds for an unreachable registry.
fn mount<'home>(home: &'home Home, registry: &Registry) -> Mount<'home> {
    home.mount(&format!("{}/team", registry.host()), &["--io-timeout", "2s", "--tag-ttl", "0s"])
}

fn prints(home: &Home, args: &[&str]) -> String {
    let output = home.run(args);
    assert!(output.status.success(), "{args:?}\n{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn json(home: &Home, args: &[&str]) -> Value {
    serde_json::from_str(&prints(home, &[args, &["--format=json"]].concat())).unwrap()
}

/// Exit code and complete output.
fn ends(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), text(output))
}

fn at<'mount>(mount: &'mount Mount<'_>) -> &'mount str {
    mount.root().to_str().unwrap()
}

/// Content as read by a mount with its own cache.
fn upstream(registry: &Registry, name: &str) -> Option<String> {
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", registry.host()), &["--read-only"]);
    let read = mount.cat(name).ok().map(|bytes| String::from_utf8(bytes).unwrap());
    mount.unmount();
    read
}

/// References that `status` shows as staged without a mount.
fn left(home: &Home) -> Vec<String> {
    let rows = json(home, &["status"]);
    let left = rows.as_array().unwrap().iter().filter(|row| row["state"] == "left");
    left.flat_map(|row| row["staged"].as_array().unwrap().iter().map(|tag| tag["reference"].as_str().unwrap().to_owned())).collect()
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn wait_for_end(pid: u32) {
    while runs(pid) {
        std::thread::yield_now();
    }
}

fn pid(mount: &Mount<'_>) -> u32 {
    mount.daemon().as_raw_nonzero().get().try_into().unwrap()
}

/// Reads lines until one contains this.
fn wait_for_line(child: &mut Child, part: &str) {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(part)), "the command ended without `{part}`");
}

#[test]
fn a_new_tag_is_shown_compared_and_published_once() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mount = mount(&home, &registry);
    let root = at(&mount);
    std::fs::create_dir(mount.path("app/v2")).unwrap();
    std::fs::write(mount.path("app/v2/new"), "12345").unwrap();
    std::fs::write(mount.path("app/v2/.DS_Store"), "x").unwrap();
    std::fs::write(mount.path("app/v1/file"), "second\n").unwrap();
    let (v1, v2) = (format!("{}/team/app:v1", registry.host()), format!("{}/team/app:v2", registry.host()));

    let rows = json(&home, &["status", root]);
    let staged = rows[0]["staged"].as_array().unwrap();
    let keys: Vec<&str> = staged[0].as_object().unwrap().keys().map(String::as_str).collect();
    let wanted =
        "added as_staged bytes changed conflict deleted edited encrypted error estimated ignored path reference removed suspects writers";
    assert_eq!(keys, wanted.split_whitespace().collect::<Vec<_>>());
    let of = |reference: &str| staged.iter().find(|tag| tag["reference"] == reference).unwrap().clone();
    assert_eq!((of(&v1)["changed"].as_u64(), of(&v1)["path"].as_str()), (Some(1), Some("app/v1")));
    assert_eq!((of(&v2)["ignored"].as_u64(), of(&v2)["deleted"].as_bool()), (Some(1), Some(false)));
    let shown = prints(&home, &["status", root]);
    assert!(shown.contains(&v1) && shown.contains(&v2) && shown.contains("1 ignored"), "{shown}");

    let rows = json(&home, &["diff", root]);
    let row = rows.as_array().unwrap().iter().find(|row| row["path"] == "file").unwrap();
    let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["after", "before", "kind", "path", "reference", "state"]);
    assert_eq!((row["state"].as_str(), row["before"].as_u64(), row["after"].as_u64()), (Some("changed"), Some(6), Some(7)));
    assert!(prints(&home, &["diff", &v2]).contains("new"));
    assert!(!prints(&home, &["diff", mount.path("app/v2").to_str().unwrap()]).contains(&v1));

    assert!(prints(&home, &["sync", "--dry-run", root]).contains("would publish"));
    assert_eq!(upstream(&registry, "app/v2/new"), None);
    let reports = json(&home, &["sync", root]);
    assert_eq!(reports.as_array().unwrap().len(), 2);
    let report = reports.as_array().unwrap().iter().find(|report| report["reference"] == v2.as_str()).unwrap().clone();
    assert_eq!((report["outcome"].as_str(), report["ignored"].as_u64()), (Some("published"), Some(1)));
    assert!(report["before"].is_null() && report["digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(upstream(&registry, "app/v2/new").as_deref(), Some("12345"));
    assert_eq!(upstream(&registry, "app/v2/.DS_Store"), None);
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("second\n"));

    assert_eq!(prints(&home, &["sync", root]), "nothing is staged\n");
    assert_eq!(prints(&home, &["diff", root]), "");
    mount.unmount();
    assert_eq!(left(&home), Vec::<String>::new());
}

#[test]
fn without_an_argument_the_mount_of_the_working_directory_is_used() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let (one, two) = (mount(&home, &registry), mount(&home, &registry));
    std::fs::write(one.path("app/v1/file"), "second\n").unwrap();
    let inside = |directory: &Path, args: &[&str]| {
        let output = home.ocifs(args).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{args:?}\n{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(inside(two.root(), &["sync"]), "nothing is staged\n");
    assert!(inside(&one.path("app"), &["diff"]).contains("file"));
    assert!(inside(&one.path("app/v1"), &["sync", "."]).starts_with("published "));
    let nowhere = home.ocifs(&["sync"]).current_dir("/").output().unwrap();
    let (code, printed) = ends(&nowhere);
    assert!(code == Some(2) && printed.contains(at(&one)) && printed.contains(at(&two)), "{printed}");
    one.unmount();
    two.unmount();
}

#[test]
fn umount_publishes_first_and_stays_while_it_cannot() {
    if lacks(&NEEDS) {
        return;
    }
    let (mut registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    let reference = format!("{}/team/app:v1", registry.host());
    std::fs::write(mounted.path("app/v1/file"), "second\n").unwrap();
    registry.stop();
    let (code, printed) = ends(&home.run(&["umount", at(&mounted)]));
    assert_eq!(code, Some(16), "{printed}");
    for way in ["try again", "--no-sync", "--discard"] {
        assert!(printed.contains(way), "{printed}");
    }
    assert!(is_mounted(mounted.root()));
    assert_eq!(mounted.cat("app/v1/file").unwrap(), b"second\n");

    let (code, printed) = ends(&home.run(&["umount", "--no-sync", at(&mounted)]));
    assert!(code == Some(0) && printed.contains(&reference), "{printed}");
    assert!(!is_mounted(mounted.root()));
    assert_eq!(left(&home), std::slice::from_ref(&reference));

    registry.start_again();
    let target = mounted.root().to_owned();
    let (cache, state) = (home.path("cache"), home.path("state"));
    let source = format!("{}/team", registry.host());
    let again = home.run(&[
        "mount",
        &source,
        target.to_str().unwrap(),
        "--cache-dir",
        cache.to_str().unwrap(),
        "--state-dir",
        state.to_str().unwrap(),
    ]);
    let (code, printed) = ends(&again);
    assert!(code == Some(0) && printed.contains(&format!("staged earlier: {reference}")), "{printed}");
    assert_eq!(mounted.cat("app/v1/file").unwrap(), b"second\n");
    let (code, printed) = ends(&home.run(&["umount", at(&mounted)]));
    assert!(code == Some(0) && printed.contains("published"), "{printed}");
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("second\n"));
    assert_eq!(left(&home), Vec::<String>::new());
}

#[test]
fn umount_with_open_files_names_their_process_and_goes_on_afterwards() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    std::fs::write(mounted.path("app/v1/file"), "second\n").unwrap();
    let mut reader = Command::new("sleep").arg("600").current_dir(mounted.path("app/v1")).spawn().unwrap();
    let (code, printed) = ends(&home.run(&["umount", at(&mounted)]));
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert_eq!(code, Some(15), "{printed}");
    assert!(printed.contains(&format!("sleep (pid {})", reader.id())), "{printed}");
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("second\n"), "what could be published was");
    std::fs::write(mounted.path("app/v1/file"), "third\n").unwrap();
    mounted.unmount();
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("third\n"));
}

#[test]
fn umount_discards_edits_only_when_told() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    std::fs::write(mounted.path("app/v1/file"), "second\n").unwrap();
    let (code, printed) = ends(&home.run(&["umount", "--discard", at(&mounted)]));
    assert!(code == Some(2) && printed.contains("--yes") && is_mounted(mounted.root()), "{printed}");
    let (code, printed) = ends(&home.run(&["umount", "--discard", "--yes", at(&mounted)]));
    assert!(code == Some(0) && !is_mounted(mounted.root()), "{printed}");
    assert_eq!(left(&home), Vec::<String>::new());
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("first\n"));
}

#[test]
fn every_other_way_to_end_a_mount_publishes_on_the_way_out() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    for (turn, way) in ["umount", "fusermount3", "-TERM", "-INT", "-HUP"].iter().enumerate() {
        if *way == "fusermount3" && lacks(&[Need::Tool("fusermount3")]) {
            continue;
        }
        let mounted = mount(&home, &registry);
        let daemon = pid(&mounted);
        let content = format!("turn {turn}\n");
        std::fs::write(mounted.path("app/v1/file"), &content).unwrap();
        let done = match *way {
            "umount" => Command::new("umount").arg(mounted.root()).status().unwrap().success(),
            "fusermount3" => Command::new("fusermount3").arg("-u").arg(mounted.root()).status().unwrap().success(),
            signal => {
                kill(signal, daemon);
                true
            }
        };
        assert!(done, "{way}");
        wait_for_end(daemon);
        assert!(!is_mounted(mounted.root()));
        assert_eq!(upstream(&registry, "app/v1/file"), Some(content), "{way}\n{}", mounted.log());
        assert_eq!(left(&home), Vec::<String>::new(), "{way}");
    }
}

/// A foreground mount that logs to standard error.
fn foreground(home: &Home, source: &str, point: &Path, flags: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocifs"));
    command.args(["mount", "--foreground", "--io-timeout", "60s", source]).arg(point).args(flags).env_clear().env("HOME", home.path(""));
    let (cache, state) = (home.path("cache"), home.path("state"));
    command.arg("--cache-dir").arg(cache).arg("--state-dir").arg(state).env("XDG_RUNTIME_DIR", home.path("run"));
    let socket = std::os::unix::net::UnixDatagram::bind(home.path("notify")).unwrap();
    command.env("NOTIFY_SOCKET", home.path("notify")).process_group(0).stdin(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    socket.recv(&mut [0; 256]).unwrap();
    std::fs::remove_file(home.path("notify")).unwrap();
    child
}

#[test]
fn a_second_control_c_stops_publishing_and_keeps_edits() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let point = home.path("point");
    std::fs::create_dir(&point).unwrap();
    let mut daemon = foreground(&home, &format!("{}/team", registry.host()), &point, &[]);
    std::fs::write(point.join("app/v1/file"), "second\n").unwrap();
    registry.hang();
    kill("-INT", daemon.id());
    wait_for_line(&mut daemon, "publishing 1 staged tag");
    assert!(!is_mounted(&point));
    kill("-INT", daemon.id());
    assert_eq!(daemon.wait().unwrap().code(), Some(16));
    registry.resume();
    let reference = format!("{}/team/app:v1", registry.host());
    assert_eq!(left(&home), std::slice::from_ref(&reference));
    assert!(prints(&home, &["sync", &reference]).starts_with("published"));
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("second\n"));
}

#[test]
fn a_daemon_leaves_what_it_cannot_publish_in_time_and_says_so() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let point = home.path("point");
    std::fs::create_dir(&point).unwrap();
    let mut daemon = foreground(&home, &format!("{}/team", registry.host()), &point, &["--exit-timeout", "1s"]);
    std::fs::write(point.join("app/v1/file"), "second\n").unwrap();
    registry.hang();
    kill("-TERM", daemon.id());
    let mut printed = String::new();
    std::io::Read::read_to_string(daemon.stderr.as_mut().unwrap(), &mut printed).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(16), "{printed}");
    let reference = format!("{}/team/app:v1", registry.host());
    assert!(printed.contains(&format!("{reference} stays staged")) && printed.contains("--exit-timeout"), "{printed}");
    registry.resume();
    assert_eq!(left(&home), [reference]);
}

#[test]
fn edits_of_a_killed_daemon_are_handled_without_one() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    std::fs::write(mounted.path("app/v1/file"), "second\n").unwrap();
    std::fs::create_dir(mounted.path("app/v2")).unwrap();
    std::fs::write(mounted.path("app/v2/new"), "new\n").unwrap();
    let daemon = pid(&mounted);
    kill("-KILL", daemon);
    wait_for_end(daemon);
    let (v1, v2) = (format!("{}/team/app:v1", registry.host()), format!("{}/team/app:v2", registry.host()));
    assert_eq!(left(&home), [v1.clone(), v2.clone()]);
    // A path in the dead mount still identifies the tag.
    let path = mounted.path("app/v2");
    let rows = json(&home, &["diff", path.to_str().unwrap()]);
    assert!(rows.as_array().unwrap().iter().all(|row| row["reference"] == v2.as_str()), "{rows}");
    assert!(prints(&home, &["diff", &v1]).contains("file"));
    assert!(prints(&home, &["discard", "--yes", path.to_str().unwrap()]).contains(&v2));
    assert_eq!(left(&home), std::slice::from_ref(&v1));
    let (code, printed) = ends(&home.run(&["umount", at(&mounted)]));
    assert!(code == Some(0) && printed.contains(&v1), "{printed}");
    assert!(prints(&home, &["sync", &v1]).starts_with("published"));
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("second\n"));
    assert_eq!((upstream(&registry, "app/v2/new"), left(&home)), (None, Vec::new()));
}

#[test]
fn a_moved_tag_is_a_conflict_with_choices() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    std::fs::write(mounted.path("app/v1/file"), "mine\n").unwrap();
    push(&registry, "v1", b"theirs\n");
    let reference = format!("{}/team/app:v1", registry.host());
    let (code, printed) = ends(&home.run(&["sync", at(&mounted)]));
    assert_eq!(code, Some(13), "{printed}");
    assert_eq!(printed.matches("sha256:").count(), 2, "{printed}");
    for way in ["--force", "--as", "--theirs", "--rebase"] {
        assert!(printed.contains(way), "{printed}");
    }
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("theirs\n"));
    let rows = json(&home, &["status", at(&mounted)]);
    assert!(rows[0]["staged"][0]["conflict"].is_string(), "{rows}");
    assert_eq!(ends(&home.run(&["umount", at(&mounted)])).0, Some(16));
    assert!(prints(&home, &["sync", "--as", "v1-mine", &reference]).contains("v1-mine"));
    assert_eq!(upstream(&registry, "app/v1-mine/file").as_deref(), Some("mine\n"));
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("theirs\n"));
    mounted.unmount();
    assert_eq!(left(&home), Vec::<String>::new());
}

#[test]
fn a_discard_drops_only_what_it_names() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    std::fs::write(mounted.path("app/v1/file"), "mine\n").unwrap();
    std::fs::create_dir(mounted.path("app/v1/dir")).unwrap();
    std::fs::write(mounted.path("app/v1/dir/new"), "new\n").unwrap();
    let directory = mounted.path("app/v1/dir");
    let (code, printed) = ends(&home.run(&["discard", directory.to_str().unwrap()]));
    assert!(code == Some(2) && printed.contains("--yes"), "{printed}");
    assert!(directory.exists());
    prints(&home, &["discard", "--yes", directory.to_str().unwrap()]);
    assert!(!directory.exists());
    assert_eq!(mounted.cat("app/v1/file").unwrap(), b"mine\n");
    prints(&home, &["discard", "--yes", at(&mounted)]);
    assert_eq!(mounted.cat("app/v1/file").unwrap(), b"first\n");
    assert_eq!(prints(&home, &["sync", at(&mounted)]), "nothing is staged\n");
    mounted.unmount();
}

#[test]
fn control_c_stops_a_sync_and_the_next_one_resumes() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = home.mount(&format!("{}/team", registry.host()), &["--io-timeout", "60s"]);
    std::fs::write(mounted.path("app/v1/file"), "second\n").unwrap();
    registry.hang();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocifs"));
    command.args(["sync", at(&mounted)]).env_clear().env("HOME", home.path("")).env("XDG_RUNTIME_DIR", home.path("run"));
    let mut sync = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    wait_for_line(&mut sync, "publishing");
    kill("-INT", sync.id());
    assert_eq!(sync.wait().unwrap().code(), Some(130));
    registry.resume();
    assert!(prints(&home, &["sync", at(&mounted)]).starts_with("published"));
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("second\n"));
    mounted.unmount();
}

#[test]
fn new_stages_a_tag_that_mkdir_cannot_name() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let mounted = mount(&home, &registry);
    let reference = format!("{}/team/deep/er/repo:v1", registry.host());
    let printed = prints(&home, &["new", &reference]);
    assert_eq!(printed, format!("{}\n", mounted.path("deep/er/repo/v1").display()));
    std::fs::write(mounted.path("deep/er/repo/v1/file"), "deep\n").unwrap();
    let exists = ends(&home.run(&["new", &format!("{}/team/app:v1", registry.host())]));
    assert!(exists.0 == Some(1) && exists.1.contains("v1"), "{}", exists.1);
    let other = ends(&home.run(&["new", "other.example/app:v1"]));
    assert!(other.0 == Some(15) && other.1.contains("no mount covers"), "{}", other.1);
    mounted.unmount();
    assert_eq!(upstream(&registry, "deep/er/repo/v1/file").as_deref(), Some("deep\n"));
}

#[test]
fn a_read_only_mount_stages_nothing_and_an_offline_one_publishes_nothing() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (registry(), home());
    let source = format!("{}/team", registry.host());
    let mounted = home.mount(&source, &["--read-only"]);
    assert_eq!(mounted.cat("app/v1/file").unwrap(), b"first\n");
    assert_eq!(prints(&home, &["sync", at(&mounted)]), "nothing is staged\n");
    assert_eq!(ends(&home.run(&["new", &format!("{source}/app:v2")])).0, Some(1));
    mounted.unmount();
    let mounted = home.mount(&source, &["--offline"]);
    std::fs::write(mounted.path("app/v1/file"), "second\n").unwrap();
    let (code, printed) = ends(&home.run(&["sync", at(&mounted)]));
    assert!(code == Some(14) && printed.contains("--offline"), "{printed}");
    assert_eq!(ends(&home.run(&["umount", at(&mounted)])).0, Some(16));
    assert_eq!(ends(&home.run(&["umount", "--no-sync", at(&mounted)])).0, Some(0));
    let mounted = home.mount(&source, &[]);
    mounted.unmount();
    assert_eq!(upstream(&registry, "app/v1/file").as_deref(), Some("second\n"));
}

#[test]
fn status_warns_that_edits_of_an_encrypted_artifact_are_stored_unencrypted() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = home();
    let layout = home.path("layout");
    let copied = Command::new("cp").arg("-r").arg(fixtures().join("oci-sync-rust/layout")).arg(&layout).status().unwrap();
    assert!(copied.success());
    let mut secret = std::fs::File::create(home.path("secret")).unwrap();
    secret.write_all(b"correct horse battery staple").unwrap();
    let flags = ["--passphrase-file", home.path("secret").to_str().unwrap()].map(str::to_owned);
    let mounted = home.mount(&format!("oci:{}:sealed", layout.display()), &flags.iter().map(String::as_str).collect::<Vec<_>>());
    std::fs::write(mounted.path("new"), "plain text").unwrap();
    let printed = prints(&home, &["status", at(&mounted)]);
    assert!(printed.contains("unencrypted") && printed.contains(home.path("state").to_str().unwrap()), "{printed}");
    assert!(prints(&home, &["discard", "--yes", at(&mounted)]).contains("discarded"));
    assert!(!prints(&home, &["status", at(&mounted)]).contains("unencrypted"));
    mounted.unmount();
}
