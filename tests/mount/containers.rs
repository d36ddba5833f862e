//! Containers read mounts: `podman run -v` of a tag, as root and as the user of an image.

use crate::support::layouts::fixtures;
use crate::support::mounting::Home;
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 6] = [Need::Fuse, Need::Root, Need::Tool("podman"), Need::Tool("runc"), Need::Tool("buildah"), Need::Tool("busybox")];

/// An image of nothing but a static busybox.
const IMAGE: &str = r#"storage="--root $PWD/root --runroot $PWD/runroot --storage-driver vfs"
container=$(buildah $storage from scratch); tree=$(buildah $storage mount $container)
mkdir -p $tree/bin $tree/data; cp $(command -v busybox) $tree/bin/busybox
for name in sh cat ls sha256sum find id; do ln -s busybox $tree/bin/$name; done
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
    // Names are written in different ways by different programs; content is not.
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
