//! Tags that move upstream while mounted, and tags with the same digest.

use crate::support::artifacts::Draft;
use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rustix::fs::{Mode, OFlags};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

fn publish(registry: &Registry, content: &[u8]) {
    let mut draft = Draft::new();
    draft.files("v1", &[("file", content), ("same", b"in both\n")]);
    draft.layout().push(&registry.url(), "team/app");
}

#[test]
fn a_moved_tag_is_new_for_lookups_and_old_for_open_files() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    publish(&registry, b"the old bytes\n");
    let home = Home::new();
    for flags in [&["--tag-ttl", "1h"][..], &["--tag-ttl", "1s"]] {
        publish(&registry, b"the old bytes\n");
        let mount = home.mount(&format!("{}/team", registry.host()), flags);
        let folder = std::fs::File::open(mount.path("app/v1")).unwrap();
        let mut open = std::fs::File::open(mount.path("app/v1/file")).unwrap();
        publish(&registry, b"the new bytes, which are more\n");
        if flags[1] == "1h" {
            assert_eq!(mount.cat("app/v1/file").unwrap(), b"the old bytes\n", "the tag is fresh for as long as asked for");
            let output = home.run(&["refresh", mount.root().to_str().unwrap()]);
            assert!(output.status.success(), "{}", text(&output));
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while mount.cat("app/v1/file").unwrap() != b"the new bytes, which are more\n" {
            assert!(Instant::now() < deadline, "the tag never moves");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut old = Vec::new();
        open.read_to_end(&mut old).unwrap();
        assert_eq!(old, b"the old bytes\n");
        assert_ne!(folder.metadata().unwrap().ino(), mount.path("app/v1").metadata().unwrap().ino());
        let below = rustix::fs::openat(&folder, "file", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        old.clear();
        std::fs::File::from(below).read_to_end(&mut old).unwrap();
        assert_eq!(old, b"the old bytes\n", "a working directory stays where it was");
        drop((folder, open));
        mount.unmount();
    }
}

#[test]
fn two_tags_of_one_digest_are_different_files() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let mut draft = Draft::new();
    for tag in ["v1", "latest"] {
        draft.files(tag, &[("file", b"the same\n")]);
    }
    draft.layout().push(&registry.url(), "app");
    let home = Home::new();
    let mount = home.mount(&registry.host(), &[]);
    let look = |name: &str| mount.path(name).metadata().unwrap();
    let (one, two) = (look("app/v1/file"), look("app/latest/file"));
    assert_eq!(one.dev(), two.dev());
    assert_ne!(one.ino(), two.ino());
    assert_ne!(look("app/v1").ino(), look("app/latest").ino());
    assert_eq!(mount.cat("app/v1/file").unwrap(), mount.cat("app/latest/file").unwrap());
    mount.unmount();
}

#[test]
fn an_edit_during_a_pending_registry_answer_survives_and_is_adopted() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    publish(&registry, b"the old bytes\n");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let source = format!("{}/team", proxy.host());
    let mount = home.mount(&source, &["--tag-ttl", "1s"]);
    // Published here, the tag follows upstream again while a process stays inside.
    mount.write("app/v1/mine", "published\n");
    mount.sync(&[]);
    let inside = std::fs::File::open(mount.path("app/v1")).unwrap();
    publish(&registry, b"theirs\n");
    proxy.forget();
    proxy.spoil_method("HEAD", "manifests/v1", usize::MAX, Fault::HoldAnswer);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = mount.path("app/v1").metadata();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        proxy.wait_for("HEAD", "manifests/v1");
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let late = rustix::fs::openat(&inside, "late", flags, Mode::from_raw_mode(0o644)).unwrap();
        rustix::io::write(&late, b"fsynced\n").unwrap();
        rustix::fs::fsync(&late).unwrap();
        proxy.release();
        proxy.mend();
        drop(late);
        // The answer has arrived once a later lookup completes.
        let _ = mount.path("app/v1").metadata();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(mount.cat("app/v1/late").unwrap(), b"fsynced\n", "a tag with edits follows nothing");
    drop(inside);
    crate::crashes::kill(&mount);
    drop(mount);
    let mount = home.mount(&source, &[]);
    assert_eq!(mount.cat("app/v1/late").unwrap(), b"fsynced\n");
    let status = mount.run("status", &[]);
    assert!(text(&status).contains("app:v1"), "{}", text(&status));
    mount.leave();
}
