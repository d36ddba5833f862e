//! Artifacts built during the test with common tools: a mount shows what the tool itself unpacks, including content, modes, owners, times, links and
//! extended attributes, from a layout and from a registry.

use crate::support::artifacts::{Draft, LAYER, gzip, zstandard};
use crate::support::mounting::Home;
use crate::support::registry::Registry;
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use std::path::{Path, PathBuf};

/// Everything a tree can contain, in two edits of an image and two inserts, each unpacked by umoci itself.
const UMOCI: &str = r#"
umoci init --layout u; umoci new --image u:base; umoci unpack --image u:base b0
cd b0/rootfs
mkdir -p bin etc empty tmp dir/sub; chmod 1777 tmp; chmod 0710 etc
printf 'secret\n' > etc/shadow; chmod 0600 etc/shadow
printf '#!/bin/sh\n' > bin/run; chmod 4755 bin/run
head -c 3000000 /dev/urandom > bin/big
printf same > etc/one; ln etc/one etc/two; ln etc/one dir/three
: > nothing; mkfifo pipe
ln -s ../etc/one dir/link; ln -s /nowhere dir/absolute
printf x > "$(printf 'latin-\351')"; printf y > "$(printf 'new\nline\ttab')"
long=$(printf 'n%.0s' $(seq 240)); mkdir -p "$long/$long"; printf z > "$long/$long/$long"
printf attr > attr; setfattr -n user.color -v blue attr; setfattr -n user.bin -v 0x00ff0a attr; setfattr -n user.d -v dir dir
cp /bin/true bin/ping; setcap cap_net_raw+ep bin/ping
printf o > owned; chown 1234:5678 owned; chown -h 7:8 dir/link
for i in a b c; do printf $i > dir/sub/$i; done
find . -depth -exec touch -h -d @1600000000.123456789 {} +
touch -d @-5 nothing; touch -d @4294967297 owned
cd ../..
umoci repack --image u:v1 b0
umoci unpack --image u:v1 b1
cd b1/rootfs
rm dir/sub/a; rm -r empty; rm dir/absolute; mkdir dir/absolute; printf q > dir/absolute/q
rm -r tmp; printf 'now a file' > tmp; chmod 640 etc/shadow; ln etc/one etc/four; printf more >> attr
mv dir/sub/b dir/sub/moved
cd ../..
umoci repack --image u:v2 b1
umoci tag --image u:v2 v3; mkdir ins; printf i > ins/i; touch -d @1500000000 ins/i ins
umoci insert --image u:v3 --opaque ins /dir; umoci insert --image u:v3 --whiteout /etc/two
for tag in v1 v2 v3; do umoci unpack --image u:$tag want-$tag; done
"#;

/// An image in two commits, one of which hard-links a file of the layer below, and its expected tree.
const BUILDAH: &str = r#"
storage="--root $PWD/root --runroot $PWD/runroot --storage-driver vfs"
container=$(buildah $storage from scratch); tree=$(buildah $storage mount $container)
mkdir -p $tree/bin $tree/data $tree/gone/deep; printf '#!/bin/sh\n' > $tree/bin/run; chmod 6755 $tree/bin/run; ln -s run $tree/bin/sh
printf one > $tree/data/one; ln $tree/data/one $tree/data/two; printf g > $tree/gone/deep/g
setfattr -n user.color -v blue $tree/data/one; chown 5:6 $tree/data/one; chmod 0400 $tree/data/one
head -c 2500000 /dev/urandom > $tree/data/big
buildah $storage commit --rm $container localhost/team/app:v1
container=$(buildah $storage from localhost/team/app:v1); tree=$(buildah $storage mount $container)
rm -r $tree/gone; printf new > $tree/gone; ln $tree/data/one $tree/data/three
buildah $storage commit --rm $container localhost/team/app:v2
for tag in v1 v2; do
    container=$(buildah $storage from localhost/team/app:$tag)
    cp -a "$(buildah $storage mount $container)" want-$tag
    buildah $storage rm $container
done
"#;

/// Sparse files in each of GNU tar's formats, with more pieces than fit a header, and what GNU tar itself extracts.
const GNU_TAR: &str = r#"
mkdir tree; cd tree
truncate -s 9M holes; for place in 0 1 3 7 20 40 100 131 500 1000; do
    printf "piece $place" | dd of=holes bs=1 seek=$((place * 8192)) conv=notrunc status=none
done
truncate -s 3M empty-but-long; printf tail > ends; truncate -s 100000 ends; printf tail >> ends
mkdir $(printf 'long%.0s' {1..40}); printf deep > $(printf 'long%.0s' {1..40})/$(printf 'name%.0s' {1..50})
ln holes also-holes; printf plain > plain; printf b > "$(printf 'latin-\351')"
setfattr -n user.kind -v sparse holes
find . -depth -exec touch -h -d @1600000000.5 {} +
cd ..
tar --sparse --format=gnu -C tree -cf gnu.tar .
for form in 0.0 0.1 1.0; do tar --sparse --xattrs --format=pax --sparse-version=$form -C tree -cf pax-$form.tar .; done
for form in gnu pax-0.0 pax-0.1 pax-1.0; do mkdir want-$form; tar --xattrs -C want-$form -xpf $form.tar; done
"#;

/// Compares directories of a mount with unpacked trees; reports all differences at once.
fn expect_equal(home: &Home, source: &str, expected: &[(String, PathBuf)]) {
    let mount = home.mount(source, &[]);
    let differences: Vec<String> = expected
        .iter()
        .filter_map(|(name, list)| mount.compare(list, name).err().map(|difference| format!("{source} {name}: {difference}")))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    mount.unmount();
}

/// The expected lists of some unpacked trees: name in the mount, directory.
fn lists(shell: &Shell, trees: &[(&str, &str)]) -> Vec<(String, PathBuf)> {
    trees
        .iter()
        .map(|(name, tree)| ((*name).to_owned(), shell.list(&shell.path(tree), &format!("{}.tsv", tree.replace('/', "_")))))
        .collect()
}

fn at(layout: &Path) -> String {
    format!("oci:{}", layout.display())
}

#[test]
fn an_image_of_umoci_shows_what_umoci_unpacks() {
    let needs = [Need::Fuse, Need::Root, Need::Tool("umoci"), Need::Tool("skopeo"), Need::Tool("docker-registry"), Need::Tool("setfattr")];
    if lacks(&needs) {
        return;
    }
    let shell = Shell::new();
    shell.run::<&str>(UMOCI, &[]);
    let tags = [("v1", "want-v1/rootfs"), ("v2", "want-v2/rootfs"), ("v3", "want-v3/rootfs")];
    let expected = lists(&shell, &tags);
    expect_equal(&Home::new(), &at(&shell.path("u")), &expected);
    let registry = Registry::plain();
    let copy = r#"for tag in v1 v2 v3; do
        skopeo copy --dest-tls-verify=false oci:u:$tag docker://$HOST/team/oci:$tag
        skopeo copy --dest-tls-verify=false --format v2s2 oci:u:$tag docker://$HOST/team/docker:$tag
        skopeo copy --dest-tls-verify=false --dest-compress-format zstd oci:u:$tag oci:zstd:$tag
    done"#;
    shell.run(copy, &[("HOST", registry.host())]);
    let home = Home::new();
    let mount = home.mount(&format!("{}/team", registry.host()), &[]);
    assert!(String::from_utf8(mount.cat("docker/.oci/tags/v1/media-type").unwrap()).unwrap().contains("docker.distribution.manifest.v2"));
    mount.unmount();
    for repository in ["oci", "docker"] {
        expect_equal(&Home::new(), &format!("{}/team/{repository}", registry.host()), &expected);
    }
    expect_equal(&Home::new(), &at(&shell.path("zstd")), &expected);
}

#[test]
fn an_image_of_buildah_and_podman_shows_what_buildah_mounts() {
    let needs =
        [Need::Fuse, Need::Root, Need::Tool("buildah"), Need::Tool("podman"), Need::Tool("docker-registry"), Need::Tool("setfattr")];
    if lacks(&needs) {
        return;
    }
    let shell = Shell::new();
    shell.run::<&str>(BUILDAH, &[]);
    let registry = Registry::plain();
    let copy = r#"storage="--root $PWD/root --runroot $PWD/runroot --storage-driver vfs"
    for tag in v1 v2; do
        buildah $storage push localhost/team/app:$tag oci:gzip:$tag
        buildah $storage push --compression-format zstd localhost/team/app:$tag oci:zstd:$tag
        buildah $storage push --tls-verify=false localhost/team/app:$tag docker://$HOST/team/app:$tag
        buildah $storage push --tls-verify=false --format v2s2 localhost/team/app:$tag docker://$HOST/team/old:$tag
        podman $storage --tmpdir $PWD/tmp save --quiet --format oci-dir -o saved-$tag localhost/team/app:$tag
    done
    grep -q 'tar+zstd' zstd/blobs/sha256/$(jq -r '.manifests[0].digest' zstd/index.json | cut -d: -f2)"#;
    shell.run(copy, &[("HOST", registry.host())]);
    let expected = lists(&shell, &[("v1", "want-v1"), ("v2", "want-v2")]);
    expect_equal(&Home::new(), &at(&shell.path("gzip")), &expected);
    expect_equal(&Home::new(), &at(&shell.path("zstd")), &expected);
    expect_equal(&Home::new(), &format!("{}/team/app", registry.host()), &expected);
    expect_equal(&Home::new(), &format!("{}/team/old", registry.host()), &expected);
    // The tags of `podman save` are full references; the full name also works as SOURCE.
    for (tag, list) in &expected {
        let saved = at(&shell.path(&format!("saved-{tag}")));
        expect_equal(&Home::new(), &saved, &[(format!("localhost_team_app:{tag}"), list.clone())]);
        expect_equal(&Home::new(), &format!("{saved}:localhost/team/app:{tag}"), &[(String::new(), list.clone())]);
    }
}

#[test]
fn an_archive_of_gnu_tar_shows_what_gnu_tar_unpacks() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("tar"), Need::Tool("setfattr")]) {
        return;
    }
    let shell = Shell::new();
    shell.run::<&str>(GNU_TAR, &[]);
    let forms = ["gnu", "pax-0.0", "pax-0.1", "pax-1.0"];
    let mut draft = Draft::new();
    let mut expected = Vec::new();
    for form in forms {
        let archive = std::fs::read(shell.path(&format!("{form}.tar"))).unwrap();
        // The sparse file must occupy less than its size, or this would test nothing.
        assert!(archive.len() < 2_000_000, "{form}: {}", archive.len());
        for (packed, media_type, bytes) in [
            ("tar", LAYER.to_owned(), archive.clone()),
            ("gzip", format!("{LAYER}+gzip"), gzip(&archive)),
            ("zstd", format!("{LAYER}+zstd"), zstandard(&archive)),
        ] {
            let layer = draft.blob(&media_type, &bytes);
            draft.image(&format!("{form}-{packed}"), &[layer]);
            expected.push((format!("{form}-{packed}"), shell.list(&shell.path(&format!("want-{form}")), &format!("{form}.tsv"))));
        }
    }
    expect_equal(&Home::new(), &at(draft.path()), &expected);
}
