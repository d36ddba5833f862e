//! Tags that move upstream while they are mounted, and tags that are the same.

use crate::support::artifacts::Draft;
use crate::support::mounting::{Home, text};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
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
fn a_moved_tag_is_new_to_new_lookups_and_old_to_what_is_open() {
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
