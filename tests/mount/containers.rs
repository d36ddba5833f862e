//! Containers on mounts: `podman run -v` of a tag, as root and as an image's user, even after the mount is gone outside.

use crate::support::artifacts::Draft;
use crate::support::layouts::fixtures;
use crate::support::mounting::{Home, is_mounted, text};
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 6] = [Need::Fuse, Need::Root, Need::Tool("podman"), Need::Tool("runc"), Need::Tool("buildah"), Need::Tool("busybox")];

/// An image with only a static busybox.
const IMAGE: &str = r#"storage="--root $PWD/root --runroot $PWD/runroot --storage-driver vfs"
container=$(buildah $storage from scratch); tree=$(buildah $storage mount $container)
mkdir -p $tree/bin $tree/data; cp $(command -v busybox) $tree/bin/busybox
for name in sh cat ls sha256sum find id sleep; do ln -s busybox $tree/bin/$name; done
buildah $storage commit --rm $container localhost/busybox:v1"#;

/// `$1` runs in the container, with the extra options `$OPTIONS`; the limits are for machines with few capabilities.
const RUN: &str = r#"podman --root $PWD/root --runroot $PWD/runroot --storage-driver vfs --tmpdir $PWD/tmp --runtime runc run --rm \
    --ulimit nofile=1024:2048 --ulimit nproc=1000:1000 --network none $OPTIONS -v "$M:/data:ro" localhost/busybox:v1 sh -c "$INSIDE""#;

#[test]
fn a_container_reads_a_tag_of_a_mount_and_cannot_write_to_it() {
    if lacks(&NEEDS) {
        return;
    }
    let shell = Shell::new();
    shell.run::<&str>(IMAGE, &[]);
    let home = Home::new();
    let mount = home.mount(&format!("oci:{}", fixtures().join("image-umoci/layout").display()), &[]);
    let tag = mount.path("l1");
    let inside = |script: &str| {
        let variables = [("M", tag.as_os_str()), ("OPTIONS", "".as_ref()), ("INSIDE", script.as_ref())];
        shell.run(RUN, &variables)
    };
    // Programs format names differently, but not content.
    let digests = |listed: String| {
        let first = |line: &str| line.trim_start_matches('\\').split(' ').next().filter(|word| word.len() == 64).map(str::to_owned);
        let mut digests: Vec<String> = listed.lines().filter_map(first).collect();
        digests.sort();
        digests
    };
    let outside = digests(shell.at(&tag, "cd $M; find . -type f -exec sha256sum {} +"));
    assert!(outside.len() > 20, "{outside:?}");
    assert_eq!(digests(inside("cd /data; find . -type f -exec sha256sum {} +")), outside);
    assert_eq!(inside("echo x 2>/dev/null >/data/new || echo read-only"), "read-only\n");
    mount.unmount();
}

/// Runs a program in a root file system that is a tag, as one tries out an image without pulling it; `$1` runs inside.
const ROOTFS: &str = r#"podman --root $PWD/root --runroot $PWD/runroot --storage-driver vfs --tmpdir $PWD/tmp --runtime runc run --rm \
    --ulimit nofile=1024:2048 --ulimit nproc=1000:1000 --network $NETWORK $OPTIONS --rootfs "$M" /bin/sh -c "$INSIDE""#;

#[test]
fn a_tag_that_was_the_root_of_a_container_is_published_only_if_the_container_changed_it() {
    if lacks(&NEEDS) {
        return;
    }
    let shell = Shell::new();
    let tree =
        "mkdir -p tree/bin tree/etc tree/dev tree/proc tree/sys tree/run tree/tmp tree/var/tmp; cp $(command -v busybox) tree/bin/sh";
    shell.run::<&str>(tree, &[]);
    let home = Home::new();
    let draft = Draft::new();
    let source = format!("oci:{}", draft.path().display());
    let mount = home.mount(&source, &["--as-kind", "image"]);
    shell.run("cp -a tree $M", &[("M", mount.path("v1").as_os_str())]);
    assert!(mount.sync(&[]).contains("published"));
    let layers = || draft.layout().manifest("v1")["layers"].as_array().unwrap().len();
    let tag = mount.path("v1");
    // Without its own network, the container does not always get `etc/resolv.conf`.
    for (options, network) in [("--read-only", "none"), ("", "none"), ("--read-only", "host"), ("", "host")] {
        let variables =
            [("M", tag.as_os_str()), ("OPTIONS", options.as_ref()), ("NETWORK", network.as_ref()), ("INSIDE", "echo in".as_ref())];
        assert_eq!(shell.run(ROOTFS, &variables), "in\n");
    }
    let staged = shell.run("cd $M && find etc run -type f | sort | tr '\\n' ' '", &[("M", tag.as_os_str())]);
    assert!(staged.contains("etc/hosts ") && staged.contains("etc/resolv.conf ") && staged.contains("run/.containerenv "), "{staged}");
    let told = mount.sync(&[]);
    assert!(!told.contains("published") && layers() == 1, "{told}");
    let variables =
        [("M", tag.as_os_str()), ("OPTIONS", "".as_ref()), ("NETWORK", "none".as_ref()), ("INSIDE", "echo new >/made".as_ref())];
    shell.run(ROOTFS, &variables);
    let told = mount.sync(&[]);
    assert!(told.contains("1 added") && layers() == 2, "{told}");
    mount.unmount();
    let after = home.mount(&source, &["--read-only"]);
    assert_eq!(after.cat("v1/made").unwrap(), b"new\n");
    assert_eq!(after.ls("v1/etc").unwrap(), Vec::<String>::new());
    after.unmount();
}

#[test]
fn a_container_of_another_user_reads_what_modes_allow_when_others_are_allowed() {
    if lacks(&NEEDS) {
        return;
    }
    let shell = Shell::new();
    shell.run::<&str>(IMAGE, &[]);
    let home = Home::new();
    let mount = home.mount(&format!("oci:{}", fixtures().join("image-umoci/layout").display()), &["--allow-other"]);
    let tag = mount.path("l1");
    let script = "id -u; cat /data/touch; cat /data/etc/shadow 2>/dev/null || echo refused";
    let variables = [("M", tag.as_os_str()), ("OPTIONS", "--user 1234:1234".as_ref()), ("INSIDE", script.as_ref())];
    let seen = shell.run(RUN, &variables);
    let open = String::from_utf8(mount.cat("l1/touch").unwrap()).unwrap();
    assert_eq!(seen, format!("1234\n{open}refused\n"));
    mount.unmount();
}

#[test]
fn a_container_survives_umount_and_its_writes_are_published_when_it_ends() {
    if lacks(&NEEDS) {
        return;
    }
    let shell = Shell::new();
    shell.run::<&str>(IMAGE, &[]);
    let home = Home::new();
    let mut draft = Draft::new();
    draft.files("v1", &[("file", b"first\n")]);
    let source = format!("oci:{}", draft.path().display());
    let mount = home.mount(&source, &[]);
    let (point, daemon) = (mount.root().to_owned(), mount.daemon().as_raw_nonzero().get());
    let tag = mount.path("v1");
    let meeting = shell.path("meeting");
    std::fs::create_dir(&meeting).unwrap();
    let options = format!("-v {}:/work -v {}:/meeting", tag.display(), meeting.display());
    let script = "echo ready >/meeting/ready; while [ ! -e /meeting/go ]; do sleep 0.1; done; cat /work/file; echo third >/work/file";
    let variables = [("M", tag.as_os_str()), ("OPTIONS", options.as_ref()), ("INSIDE", script.as_ref())];
    let printed = std::thread::scope(|scope| {
        let container = scope.spawn(|| shell.run(RUN, &variables));
        while !meeting.join("ready").exists() && !container.is_finished() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::fs::write(mount.path("v1/file"), "second\n").unwrap();
        let output = home.run(&["umount", point.to_str().unwrap()]);
        std::fs::write(meeting.join("go"), "").unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("/work in the mount namespace of sh (pid "), "{}", text(&output));
        assert!(!is_mounted(&point));
        container.join().unwrap()
    });
    assert_eq!(printed, "second\n", "what was staged is what the container reads");
    while std::path::Path::new(&format!("/proc/{daemon}")).exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let after = home.mount(&source, &["--read-only"]);
    assert_eq!(after.cat("v1/file").unwrap(), b"third\n");
    after.unmount();
}
