//! Other tools read what was pushed, and artifacts of other tools can be edited and stay theirs: skopeo, umoci, podman, the ORAS library through a
//! program of its own (`tests/interop`), and an independent registry client.

use crate::support::mounting::{Home, Mount, text};
use crate::support::registry::Registry;
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use std::path::Path;

#[path = "interop/client.rs"]
pub mod client;
#[path = "interop/corpus.rs"]
mod corpus;
#[path = "interop/envelope.rs"]
mod envelope;

/// Everything a tree can contain for every reader: modes, both kinds of links, large and small files, odd names.
const TREE: &str = r#"
mkdir -p tree/bin tree/deep/er/est tree/empty tree/many; cd tree
printf '#!/bin/sh\necho hello\n' > bin/run; chmod 0755 bin/run; printf secret > bin/secret; chmod 0600 bin/secret
ln -s run bin/sh; ln -s ../deep/er bin/up; printf same > one; ln one deep/two
head -c 6000000 /dev/urandom > big.bin; seq 900000 > deep/numbers.txt; chmod 0640 deep/numbers.txt
for i in $(seq 200); do echo "file $i" > many/f$i; done
: > nothing; printf x > 'with space'; printf y > "$(printf 'umlaut-\303\244')"
printf bottom > deep/er/est/bottom; chmod 0711 deep/er
find . -depth -exec touch -h -d @1600000000 {} +"#;

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

/// Copies [`TREE`] into a new tag and publishes it; returns the tag's digest.
fn publish(home: &Home, mount: &Mount<'_>, shell: &Shell, tag: &str) -> String {
    shell.run(r#"mkdir -p "$M"; cp -a tree/. "$M"/"#, &[("M", mount.path(tag))]);
    sync(home, mount.root());
    digest(shell, &mount.path(tag))
}

fn sync(home: &Home, path: &Path) {
    let output = home.run(&["sync", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
}

fn digest(shell: &Shell, tag: &Path) -> String {
    shell.at(tag, "getfattr --only-values -n user.oci.digest $M")
}

/// Compares two directories with `treelist`, ignoring what the intermediate tool cannot preserve.
fn same(shell: &Shell, expected: &Path, got: &Path, flags: &str) {
    let list = shell.list(expected, "expected.tsv");
    let treelist = crate::support::layouts::fixtures().join("treelist");
    let script = format!(r#"python3 "$TREELIST" {flags} --compare "$LIST" "$DIR""#);
    shell.run(&script, &[("TREELIST", treelist.as_path()), ("LIST", &list), ("DIR", got)]);
}

#[test]
fn skopeo_copies_a_push_with_the_same_digest_and_tree() {
    if lacks(&NEEDS) || lacks(&[Need::Tool("skopeo")]) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    shell.run::<&str>(TREE, &[]);
    let mount = home.mount(&registry.host(), &[]);
    let pushed = publish(&home, &mount, &shell, "app/v1");
    mount.unmount();
    let script = r#"skopeo copy -q --preserve-digests --src-tls-verify=false docker://$HOST/app:v1 oci:copy:v1
skopeo copy -q --preserve-digests --src-tls-verify=false --dest-tls-verify=false docker://$HOST/app:v1 docker://$HOST/other:v1
skopeo inspect --raw --tls-verify=false docker://$HOST/other:v1 | sha256sum | cut -d' ' -f1"#;
    let copied = shell.run(script, &[("HOST", registry.host())]);
    assert_eq!(format!("sha256:{}", copied.trim()), pushed);
    let fresh = Home::new();
    let mount = fresh.mount(&format!("oci:{}", shell.path("copy").display()), &[]);
    same(&shell, &shell.path("tree"), &mount.path("v1"), "--links --xattrs");
    mount.unmount();
}

#[test]
fn oras_pulls_what_was_pushed_with_modes_and_links() {
    if lacks(&NEEDS) || lacks(&[Need::Tool("interop")]) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    shell.run::<&str>(TREE, &[]);
    let mount = home.mount(&registry.host(), &[]);
    let pushed = publish(&home, &mount, &shell, "app/v1");
    mount.unmount();
    let got = shell.run("umask 022; mkdir got; interop pull --plain-http $HOST/app:v1 got", &[("HOST", registry.host())]);
    assert_eq!(got.trim(), pushed);
    same(&shell, &shell.path("tree"), &shell.path("got"), "--links --no-owner --ignore mtime");
}

#[test]
fn an_artifact_of_oras_is_edited_and_oras_pulls_the_edit() {
    if lacks(&NEEDS) || lacks(&[Need::Tool("interop")]) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    shell.run::<&str>(TREE, &[]);
    let before = shell.run("interop push --plain-http $HOST/app:v1 tree", &[("HOST", registry.host())]);
    let mount = home.mount(&registry.host(), &[]);
    let edit = r#"cd $M; echo more >> one; rm many/f7; mkdir new; echo n > new/n; mv deep/numbers.txt deep/moved.txt; chmod 0700 bin/run"#;
    shell.at(&mount.path("app/v1"), edit);
    sync(&home, mount.root());
    let after = digest(&shell, &mount.path("app/v1"));
    assert_ne!(before.trim(), after);
    let got = shell.run("umask 022; mkdir got; interop pull --plain-http $HOST/app:v1 got", &[("HOST", registry.host())]);
    assert_eq!(got.trim(), after);
    same(&shell, &mount.path("app/v1"), &shell.path("got"), "--no-owner --ignore mtime");
    let script = "skopeo inspect --raw --tls-verify=false docker://$HOST/app@$B | jq -c '[.artifactType, .config]'";
    let field = |of: &str| shell.run(script, &[("HOST", registry.host().as_str()), ("B", of)]);
    assert_eq!(field(before.trim()), field(&after), "artifact type and config stay");
    mount.unmount();
}

#[test]
fn a_pushed_image_is_unpacked_by_umoci_and_run_by_podman() {
    let tools = [Need::Root, Need::Tool("skopeo"), Need::Tool("umoci"), Need::Tool("podman"), Need::Tool("runc"), Need::Tool("busybox")];
    if lacks(&NEEDS) || lacks(&tools) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    shell.run::<&str>(TREE, &[]);
    shell.run::<&str>(
        "cp $(command -v busybox) tree/bin/busybox; chown 12:34 tree/bin/secret; mkfifo tree/pipe; setfattr -n user.color -v blue tree/one",
        &[],
    );
    let mount = home.mount(&registry.host(), &["--as-kind", "image"]);
    publish(&home, &mount, &shell, "app/v1");
    let unpack = r#"rm -rf copy bundle; skopeo copy -q --src-tls-verify=false docker://$HOST/app:v1 oci:copy:v1; umoci unpack --image copy:v1 bundle"#;
    shell.run(unpack, &[("HOST", registry.host())]);
    same(&shell, &mount.path("app/v1"), &shell.path("bundle/rootfs"), "--links --xattrs");
    same(&shell, &shell.path("tree"), &shell.path("bundle/rootfs"), "--links --xattrs");
    let edit = r#"cd $M; rm -r many; mkdir many; echo only > many/one; rm one; mv deep shallow; ln -s /nowhere deep; chmod 0755 bin/secret; echo more >> nothing"#;
    shell.at(&mount.path("app/v1"), edit);
    // Most of its files are gone, so it is not published without `--force`.
    let refused = home.run(&["sync", mount.root().to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(16), "{}", text(&refused));
    let forced = home.run(&["sync", "--force", mount.root().to_str().unwrap()]);
    assert!(forced.status.success(), "{}", text(&forced));
    shell.run(unpack, &[("HOST", registry.host())]);
    same(&shell, &mount.path("app/v1"), &shell.path("bundle/rootfs"), "--links --xattrs --ignore dmtime");
    let run = r#"podman --root $PWD/root --runroot $PWD/runroot --storage-driver vfs --tmpdir $PWD/tmp --runtime runc run --rm --tls-verify=false \
    --ulimit nofile=1024:2048 --ulimit nproc=1000:1000 --network none $HOST/app:v1 /bin/busybox cat /many/one /nothing"#;
    assert_eq!(shell.run(run, &[("HOST", registry.host())]), "only\nmore\n");
    mount.unmount();
}

#[test]
fn an_independent_client_reads_every_pushed_blob() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    shell.run::<&str>(TREE, &[]);
    let mount = home.mount(&registry.host(), &[]);
    let pushed = publish(&home, &mount, &shell, "app/v1");
    let read = client::read(&registry.host(), "app", "v1");
    assert_eq!(read.digest, pushed);
    assert!(read.blobs >= 4, "{read:?}");
    mount.unmount();
}

#[test]
fn the_same_tree_twice_has_one_digest_and_a_second_sync_sends_nothing() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    shell.run::<&str>(TREE, &[]);
    let mount = home.mount(&registry.host(), &[]);
    let first = publish(&home, &mount, &shell, "app/v1");
    let again = home.run(&["sync", mount.root().to_str().unwrap(), "--format", "json"]);
    assert!(again.status.success(), "{}", text(&again));
    // Another repository, another home: nothing is cached there.
    let other = Home::new();
    let second = other.mount(&registry.host(), &[]);
    assert_eq!(publish(&other, &second, &shell, "else/v1"), first);
    shell.run(r#"cp -a "$M/v1" "$M/v2""#, &[("M", second.path("else"))]);
    sync(&other, second.root());
    assert_eq!(digest(&shell, &second.path("else/v2")), first, "a copy of a whole tag is recognised");
    second.unmount();
    mount.unmount();
}

#[test]
fn an_edited_oci_sync_artifact_stays_one_and_opens_with_its_passphrase() {
    if lacks(&NEEDS) {
        return;
    }
    let shell = Shell::new();
    for (fixture, tag, sealed) in [("oci-sync-go", "dir", false), ("oci-sync-go", "sealed", true), ("oci-sync-rust", "sealed", true)] {
        let layout = shell.path(&format!("{fixture}-{tag}"));
        let from = crate::support::layouts::fixtures().join(fixture).join("layout");
        shell.run(r#"cp -r "$FROM" "$TO"; chmod -R u+w "$TO""#, &[("FROM", from.as_path()), ("TO", &layout)]);
        let mut home = Home::new();
        home.set("OCIFS_PASSPHRASE", envelope::PASSPHRASE);
        let before = envelope::manifest(&layout, tag);
        let mount = home.mount(&format!("oci:{}", layout.display()), &[]);
        shell.at(&mount.path(tag), "d=$(find $M -type f | sort | head -n 1); echo edited >> $d; echo new > $M/new");
        sync(&home, mount.root());
        let after = envelope::manifest(&layout, tag);
        envelope::assert_same_kind(&before, &after, sealed);
        let entries = envelope::entries(&layout, &after, sealed);
        for (path, bytes) in &entries {
            assert_eq!(&mount.cat(&format!("{tag}/{path}")).unwrap(), bytes, "{path}");
        }
        assert!(entries.iter().any(|(path, bytes)| path == "new" && bytes == b"new\n"), "{fixture}:{tag}");
        mount.unmount();
    }
}
