//! Advice in the output of commands when users or the environment go wrong: each hint fits its cause.

use crate::support::artifacts::Draft;
use crate::support::commands::{fails, json as printed, prints};
use crate::support::mounting::{Home, Mount, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use std::os::unix::net::UnixListener;

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

fn publish(registry: &Registry, tag: &str, content: &[u8]) {
    let mut draft = Draft::new();
    draft.files(tag, &[("file", content)]);
    draft.layout().push(&registry.url(), "team/app");
}

/// The output of the mount command.
fn said_at_mount(home: &Home, source: &str) -> String {
    let point = home.path("mounts/said");
    std::fs::create_dir_all(&point).unwrap();
    let output = home.run(&["mount", source, point.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    prints(home, &["umount", point.to_str().unwrap()]);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn after_a_refresh_the_next_lookup_sees_what_moved_and_what_is_new() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (Registry::plain(), Home::new());
    publish(&registry, "v1", b"0\n");
    let mount = home.mount(&format!("{}/team", registry.host()), &["--tag-ttl", "1h"]);
    for round in 1..4 {
        let (before, now, new) = (format!("{}\n", round - 1), format!("{round}\n"), format!("v1-{round}"));
        assert_eq!(mount.cat("app/v1/file").unwrap(), before.as_bytes());
        assert!(!mount.path(format!("app/{new}")).exists());
        publish(&registry, "v1", now.as_bytes());
        publish(&registry, &new, b"new\n");
        prints(&home, &["refresh", mount.root().to_str().unwrap()]);
        assert_eq!(mount.cat("app/v1/file").unwrap(), now.as_bytes(), "round {round}");
        assert!(mount.path(format!("app/{new}")).exists(), "round {round}");
    }
    mount.unmount();
}

#[test]
fn an_empty_mount_says_so_and_suggests_the_intended_tag() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (Registry::plain(), Home::new());
    publish(&registry, "v1", b"x");
    let host = registry.host();
    assert!(said_at_mount(&home, &format!("{host}/team/typo")).contains("team/typo holds no tags and no repositories yet"));
    assert!(said_at_mount(&home, &format!("{host}/team/app/v1")).contains(&format!("did you mean {host}/team/app:v1?")));
    for silent in [host.clone(), format!("{host}/team"), format!("{host}/team/app"), format!("{host}/team/app:v1")] {
        assert_eq!(said_at_mount(&home, &silent), "", "{silent}");
    }
    fails(&home, &["resolve", &format!("{host}/team/app/v1")], 2, &format!("write {host}/team/app:v1"));
    for command in [&["inspect"][..], &["resolve"], &["cache", "pin"], &["pull"], &["manifest", "get"]] {
        fails(&home, &[command, &[&format!("{host}/team/app")]].concat(), 2, &format!("write {host}/team/app:TAG"));
    }
    let empty = Registry::plain();
    assert!(said_at_mount(&home, &empty.host()).contains("holds no repositories yet"));
}

#[test]
fn mount_and_status_report_a_registry_that_lists_nothing() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (Registry::plain(), Home::new());
    publish(&registry, "v1", b"x");
    let proxy = Proxy::start(registry.url());
    proxy.spoil("/_catalog", 1000, Fault::Status(401));
    let said = said_at_mount(&home, &proxy.host());
    assert!(said.contains("does not list its repositories") && said.contains("--repo"), "{said}");
    let mount = home.mount(&proxy.host(), &[]);
    let point = mount.root().to_str().unwrap();
    assert!(prints(&home, &["status", point]).contains("does not list its repositories"));
    assert!(printed(&home, &["status", point])[0]["unlisted"].is_string());
    mount.unmount();
    assert_eq!(said_at_mount(&home, &format!("{}/team/app", proxy.host())), "", "its tags are listed");
}

#[test]
fn a_copy_one_level_too_high_is_reported_and_not_published_unasked() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (Registry::plain(), Home::new());
    publish(&registry, "v1", b"x");
    home.write("data/file", "x");
    home.write("data/sub/file", "y");
    let mount = home.mount(&format!("{}/team", registry.host()), &[]);
    let copy = std::process::Command::new("cp").arg("-r").arg(home.path("data")).arg(mount.path("v1")).output().unwrap();
    assert!(!copy.status.success(), "the file above the tags is refused");
    assert!(mount.log().contains("file was refused in repository team/v1"), "{}", mount.log());
    let umount = mount.run("umount", &[]);
    assert_eq!(umount.status.code(), Some(16), "{}", text(&umount));
    assert!(text(&umount).contains("one level too high") && text(&umount).contains("--force"), "{}", text(&umount));
    prints(&home, &["discard", "--yes", mount.root().to_str().unwrap()]);
    mount.unmount();
    let tags = home.run(&["repo", "tags", &format!("{}/team/v1", registry.host())]);
    assert_eq!(tags.status.code(), Some(10), "{}", text(&tags));
}

#[test]
fn the_advice_of_umount_fits_the_reason() {
    if lacks(&NEEDS) {
        return;
    }
    let (mut registry, home) = (Registry::plain(), Home::new());
    publish(&registry, "v1", b"x");
    let mount = home.mount(&format!("{}/team", registry.host()), &["--io-timeout", "1s"]);
    mount.write("app/v1/file", "edited");
    registry.stop();
    let down = text(&mount.run("umount", &[]));
    assert!(down.contains("when the registry answers") && !down.contains("--as"), "{down}");
    registry.start_again();
    publish(&registry, "v1", b"theirs");
    let moved = text(&mount.run("umount", &[]));
    assert!(moved.contains("--as TAG"), "{moved}");
    mount.leave();
}

#[test]
fn status_after_a_crash_counts_the_edits_without_the_registry() {
    if lacks(&NEEDS) {
        return;
    }
    let (mut registry, home) = (Registry::plain(), Home::new());
    publish(&registry, "v1", b"x");
    let mount = home.mount(&format!("{}/team", registry.host()), &[]);
    mount.write("app/v1/file", "edited");
    mount.write("app/v1/new", "0123456789");
    kill(&mount);
    registry.stop();
    std::fs::remove_dir_all(home.path("cache")).unwrap();
    let rows = printed(&home, &["status"]);
    // Mounts of other tests are listed too.
    let reference = json!(format!("{}/team/app:v1", registry.host()));
    let mine = |row: &&Value| row["reference"] == reference;
    let staged = rows.as_array().unwrap().iter().flat_map(|row| row["staged"].as_array().unwrap()).find(mine);
    let staged = staged.unwrap_or_else(|| panic!("{rows}"));
    let figure = |key: &str| staged[key].as_u64().unwrap();
    assert_eq!((figure("added"), figure("changed"), figure("removed"), figure("bytes")), (1, 1, 0, 16), "{staged}");
    assert_eq!((staged["estimated"].as_bool(), staged["error"].is_null()), (Some(true), true), "{staged}");
}

#[test]
fn a_mount_that_answers_is_never_called_hung() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (Registry::plain(), Home::new());
    publish(&registry, "v1", b"x");
    let mount = home.mount(&format!("{}/team", registry.host()), &[]);
    let point = mount.root().to_str().unwrap().to_owned();
    let sockets = std::fs::read_dir(home.path("run/ocifs")).unwrap().map(|entry| entry.unwrap().path());
    let socket = sockets.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "sock")).unwrap();
    // A daemon too busy for commands.
    std::fs::rename(&socket, home.path("aside")).unwrap();
    let busy = UnixListener::bind(&socket).unwrap();
    let row = &printed(&home, &["status", &point])[0];
    assert_eq!(row["state"], "running", "{row}");
    assert!(row["pid"].is_u64(), "{row}");
    drop(busy);
    std::fs::rename(home.path("aside"), &socket).unwrap();
    kill_process(mount.daemon(), Signal::STOP).unwrap();
    assert_eq!(printed(&home, &["status", &point])[0]["state"], "hung");
    kill_process(mount.daemon(), Signal::CONT).unwrap();
    mount.unmount();
}

/// Kills the daemon as a crash would. The mount stays behind.
fn kill(mount: &Mount<'_>) {
    kill_process(mount.daemon(), Signal::KILL).unwrap();
    while std::fs::read_dir(mount.root()).is_ok() {
        std::thread::yield_now();
    }
}
