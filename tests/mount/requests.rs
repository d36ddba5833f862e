//! Requests to the registry: as few as possible, and none for cached content.

use crate::support::artifacts::{Draft, LAYER, gzip, noise, tar};
use crate::support::layouts::Layout;
use crate::support::mounting::Home;
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process};
use std::os::unix::fs::FileExt;

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

#[test]
fn the_first_read_costs_one_manifest_and_one_blob_and_the_second_nothing() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    Layout::fixture("image-gnutar").push(&registry.url(), "team/app");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", proxy.host()), &[]);
    proxy.forget();
    let file = first_file(&mount.path("app/ustar"));
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.is_empty());
    let seen = proxy.requests();
    assert_eq!(proxy.count("GET", "/manifests/"), 1, "{seen:?}");
    assert!(proxy.count("HEAD", "/manifests/") <= 1, "{seen:?}");
    let layer = Layout::fixture("image-gnutar").manifest("ustar")["layers"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(proxy.count("GET", &layer), 1, "{seen:?}");
    proxy.forget();
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    assert_eq!(proxy.requests(), []);
    mount.unmount();
}

#[test]
fn an_offline_mount_sends_no_request_and_listed_names_are_never_absent() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let mut draft = Draft::new();
    draft.files("v1", &[("read", b"1"), ("unread", &noise(7, 200_000))]);
    draft.files("unseen", &[("file", b"1")]);
    draft.layout().push(&registry.url(), "team/app");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let source = format!("{}/team", proxy.host());
    let online = home.mount(&source, &[]);
    assert_eq!(online.ls("app").unwrap(), ["unseen", "v1"]);
    assert_eq!(online.cat("app/v1/read").unwrap(), b"1");
    online.unmount();
    proxy.forget();
    let offline = home.mount(&source, &["--offline"]);
    let is_unreachable = |result: std::io::Result<()>, what: &str| assert_eq!(result.unwrap_err().raw_os_error(), Some(5), "{what}");
    // Before and after the directories are listed.
    for _ in 0..2 {
        assert_eq!(offline.cat("app/v1/read").unwrap(), b"1");
        std::fs::metadata(offline.path("app/v1/unread")).unwrap();
        is_unreachable(offline.cat("app/v1/unread").map(drop), "content");
        std::fs::metadata(offline.path("app/unseen")).unwrap();
        is_unreachable(offline.ls("app/unseen").map(drop), "a tag that nobody entered");
        is_unreachable(offline.cat("app/unseen/file").map(drop), "a file in it");
        assert_eq!(offline.cat("app/nothing/file").unwrap_err().kind(), std::io::ErrorKind::NotFound);
        assert_eq!(offline.ls("app").unwrap(), ["unseen", "v1"]);
        assert_eq!(offline.ls("app/v1").unwrap(), ["read", "unread"]);
    }
    assert!(offline.log().contains("is not cached (--offline: not asking"), "{}", offline.log());
    offline.unmount();
    assert_eq!(proxy.requests(), []);
}

/// A non-empty regular file, somewhere below.
fn first_file(folder: &std::path::Path) -> std::path::PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let metadata = entry.path().symlink_metadata().unwrap();
            if metadata.is_file() && metadata.len() > 0 {
                return entry.path();
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    panic!("no file in there");
}

#[test]
fn listing_a_thousand_tags_requests_none_of_them() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let mut draft = Draft::new();
    let layer = draft.blob("application/octet-stream", b"x");
    for number in 0..1000 {
        draft.image(&format!("t{number:03}"), std::slice::from_ref(&layer));
    }
    draft.layout().push(&registry.url(), "many");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&proxy.host(), &[]);
    proxy.forget();
    let output = std::process::Command::new("timeout").args(["60", "ls", "-l"]).arg(mount.path("many")).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with('d')).count();
    assert_eq!(lines, 1000);
    let seen = proxy.requests();
    assert_eq!(proxy.count("GET", "/manifests/") + proxy.count("HEAD", "/manifests/"), 0, "{seen:?}");
    assert!(seen.len() <= 15, "{} requests: {seen:?}", seen.len());
    mount.unmount();
}

#[test]
fn thirty_two_cold_readers_of_one_blob_fetch_its_bytes_once() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let bytes = noise(1, 9 << 20);
    let mut draft = Draft::new();
    draft.files("v1", &[("big.bin", &bytes)]);
    draft.layout().push(&registry.url(), "team/data");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", proxy.host()), &[]);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert!(mount.cat("data/v1/big.bin").unwrap() == bytes, "wrong bytes"));
        }
    });
    let sent = proxy.sent("/blobs/");
    // The artifact's config (two bytes) is a blob too.
    assert!((bytes.len() as u64..bytes.len() as u64 + 1024).contains(&sent), "{sent} bytes were sent of {}", bytes.len());
    mount.unmount();
}

#[test]
fn two_daemons_with_one_cache_directory_fetch_once_in_all() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let bytes = noise(2, 6 << 20);
    let mut draft = Draft::new();
    draft.files("raw", &[("big.bin", &bytes)]);
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&tar(&[("one", &bytes[..1 << 20]), ("two", &bytes[1 << 20..])])));
    draft.image("packed", std::slice::from_ref(&layer));
    draft.layout().push(&registry.url(), "team/data");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mounts = [home.mount(&format!("{}/team", proxy.host()), &[]), home.mount(&format!("{}/team", proxy.host()), &[])];
    let total: u64 = bytes.len() as u64 + layer["size"].as_u64().unwrap();
    std::thread::scope(|scope| {
        for mount in &mounts {
            scope.spawn(|| {
                assert!(mount.cat("data/raw/big.bin").unwrap() == bytes, "wrong bytes");
                assert!(mount.cat("data/packed/one").unwrap() == bytes[..1 << 20], "wrong bytes");
                assert!(mount.cat("data/packed/two").unwrap() == bytes[1 << 20..], "wrong bytes");
            });
        }
    });
    let sent = proxy.sent("/blobs/");
    assert!((total..total + 4096).contains(&sent), "{sent} bytes were sent of {total}: {:?}", proxy.requests());
    for mount in mounts {
        mount.unmount();
    }
}

/// A registry behind a proxy with `team/data:raw`, a large file, and `team/data:packed`, a layer with the same file.
fn slow_to_come() -> (Registry, Proxy, Vec<u8>) {
    let registry = Registry::plain();
    let bytes = noise(3, 6 << 20);
    let mut draft = Draft::new();
    draft.files("raw", &[("big", &bytes)]);
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&tar(&[("big", &bytes)])));
    draft.image("packed", &[layer]);
    draft.layout().push(&registry.url(), "team/data");
    let proxy = Proxy::start(registry.url());
    (registry, proxy, bytes)
}

#[test]
fn a_daemon_waits_for_another_one_s_fetch_while_it_progresses() {
    if lacks(&NEEDS) {
        return;
    }
    let (_registry, proxy, bytes) = slow_to_come();
    let home = Home::new();
    // Much longer than any permitted stall.
    proxy.spoil_method("GET", "/blobs/", usize::MAX, Fault::Trickle(600 << 10));
    let mount = || home.mount(&format!("{}/team", proxy.host()), &["--io-timeout", "3s"]);
    let mounts = [mount(), mount()];
    for (tag, most) in [("raw", bytes.len() as u64 + 1000), ("packed", bytes.len() as u64 + 20_000)] {
        proxy.forget();
        std::thread::scope(|scope| {
            for mount in &mounts {
                scope.spawn(|| assert!(mount.cat(&format!("data/{tag}/big")).unwrap() == bytes, "wrong bytes"));
            }
        });
        let sent = proxy.sent("/blobs/");
        assert!(sent <= most, "{tag}: {sent} bytes were sent of {}: {:?}", bytes.len(), proxy.requests());
    }
    for mount in mounts {
        mount.unmount();
    }
}

#[test]
fn a_daemon_fetches_by_itself_when_the_other_one_stalls() {
    if lacks(&NEEDS) {
        return;
    }
    let (_registry, proxy, bytes) = slow_to_come();
    let home = Home::new();
    let source = format!("{}/team", proxy.host());
    let (stopped, other) = (home.mount(&source, &[]), home.mount(&source, &["--io-timeout", "2s"]));
    for tag in ["raw", "packed"] {
        proxy.forget();
        proxy.spoil_method("GET", "/blobs/", 1, Fault::Trickle(200 << 10));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| stopped.cat(&format!("data/{tag}/big")).unwrap() == bytes);
            proxy.wait_for("GET", "/blobs/");
            kill_process(stopped.daemon(), Signal::STOP).unwrap();
            assert!(other.cat(&format!("data/{tag}/big")).unwrap() == bytes, "wrong bytes");
            kill_process(stopped.daemon(), Signal::CONT).unwrap();
            assert!(reader.join().unwrap(), "wrong bytes");
        });
        proxy.mend();
    }
    stopped.unmount();
    other.unmount();
}

#[test]
fn open_files_do_not_refetch_content_that_failed_verification() {
    if lacks(&NEEDS) {
        return;
    }
    let (_registry, proxy, bytes) = slow_to_come();
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", proxy.host()), &["--verify", "strict"]);
    mount.ls("data/raw").unwrap();
    proxy.spoil_method("GET", "/blobs/", usize::MAX, Fault::Flip(5 << 20));
    proxy.forget();
    let file = std::fs::File::open(mount.path("data/raw/big")).unwrap();
    // The kernel requests each page it did not get again, and a program may retry as often as it wants.
    for _ in 0..5 {
        let failed = file.read_exact_at(&mut [0; 300_000], 0).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(Errno::BADMSG.raw_os_error()));
    }
    assert_eq!(proxy.count("GET", "/blobs/"), 1, "{:?}", proxy.requests());
    proxy.mend();
    assert!(mount.cat("data/raw/big").unwrap() == bytes, "another open asks anew");
    drop(file);
    mount.unmount();
}
