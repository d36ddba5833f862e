//! Unusable mount points: exit code 15 and one line, before any request to the source.

use crate::support::layouts::Layout;
use crate::support::mounting::{Home, any_mounted_below};
use crate::support::refusal::refused_with;
use crate::support::skip::{Need, lacks};
use std::path::Path;
use std::process::Output;

fn source() -> String {
    format!("oci:{}", Layout::fixture("oras-files").path().display())
}

/// `ocifs mount` of a good source on this mount point, with these flags.
fn on(home: &Home, place: &Path, flags: &[&str]) -> Output {
    let state = home.path("state");
    let source = source();
    let args = ["mount", &source, place.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    home.run(&[&args, flags].concat())
}

#[test]
fn a_mount_point_that_is_missing_a_file_or_not_empty_is_refused() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let point = home.path("mounts/point");
    refused_with(&on(&home, &point, &[]), 15, &[point.to_str().unwrap(), "does not exist", "mkdir"]);
    refused_with(&on(&home, &point.join("deeper"), &[]), 15, &["does not exist"]);
    std::fs::write(&point, "").unwrap();
    refused_with(&on(&home, &point, &[]), 15, &[point.to_str().unwrap(), "not a directory"]);
    refused_with(&on(&home, &point.join("below"), &[]), 15, &["not a directory"]);
    std::fs::remove_file(&point).unwrap();
    std::fs::create_dir(&point).unwrap();
    std::fs::write(point.join("precious"), "mine").unwrap();
    refused_with(&on(&home, &point, &[]), 15, &[point.to_str().unwrap(), "not empty", "nonempty"]);
    assert_eq!(std::fs::read(point.join("precious")).unwrap(), b"mine");
    assert!(!any_mounted_below(&home.path("mounts")));
    let output = on(&home, &point, &["-o", "nonempty"]);
    assert!(output.status.success(), "{}", crate::support::mounting::text(&output));
    assert!(!point.join("precious").exists());
    let output = home.run(&["umount", point.to_str().unwrap()]);
    assert!(output.status.success(), "{}", crate::support::mounting::text(&output));
    assert_eq!(std::fs::read(point.join("precious")).unwrap(), b"mine");
}

#[test]
fn the_mount_point_never_contains_or_lies_in_the_mount_s_own_directories() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let cache = home.path("cache/own");
    let flags = ["--cache-dir", cache.to_str().unwrap()];
    let inside = cache.join("spans/mnt");
    std::fs::create_dir_all(&inside).unwrap();
    refused_with(&on(&home, &inside, &flags), 15, &["cache directory", "choose another"]);
    refused_with(&on(&home, &cache, &flags), 15, &["cache directory"]);
    refused_with(&on(&home, &home.path("cache"), &flags), 15, &["cache directory"]);
    let state = home.path("state/mnt");
    std::fs::create_dir(&state).unwrap();
    refused_with(&on(&home, &state, &flags), 15, &["state directory"]);
    // A link into the cache is still inside it.
    let link = home.path("mounts/link");
    std::os::unix::fs::symlink(&inside, &link).unwrap();
    refused_with(&on(&home, &link, &flags), 15, &["cache directory"]);
    assert!(!any_mounted_below(&home.path("")));
}

#[test]
fn a_mount_point_with_escape_sequences_in_its_name_is_shown_escaped() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    refused_with(&on(&home, &home.path("mounts/\u{1b}]0;title\u{7}\n"), &[]), 15, &["u{1b}", "does not exist"]);
}

#[test]
fn a_mount_point_in_a_mount_is_refused() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let mount = home.mount(&source(), &[]);
    refused_with(&on(&home, mount.root(), &[]), 15, &["already", "ocifs umount"]);
    mount.unmount();
}

#[test]
fn the_checked_directory_is_mounted_on_even_if_replaced() {
    if lacks(&[Need::Fuse, Need::Root]) {
        return;
    }
    let home = Home::new();
    let (point, moved, other) = (home.path("mounts/point"), home.path("mounts/moved"), home.path("mounts/other"));
    std::fs::create_dir(&point).unwrap();
    std::fs::create_dir(&other).unwrap();
    let (held, path) = ocifs::sys::beneath::hold_directory(&point).unwrap();
    std::fs::rename(&point, &moved).unwrap();
    std::os::unix::fs::symlink(&other, &point).unwrap();
    let options = ocifs::sys::mount::Options { source: "x".into(), read_only: true, no_exec: true, allow_other: false };
    let connection = ocifs::sys::mount::mount(&held, &path, &options).unwrap();
    let places = [&moved, &other, &point].map(|place| crate::support::mounting::is_mounted(place));
    ocifs::sys::unmount::unmount(&moved, ocifs::sys::unmount::Force::Lazy).unwrap();
    drop(connection);
    assert_eq!(places, [true, false, false]);
}
