//! OCI archives as sources and destinations: written by skopeo, read by skopeo, and interrupted copies.

use std::process::Command;

use crate::support::commands::{fails, fixture, json, manifest, prints};
use crate::support::layouts::fixtures;
use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

fn skopeo(arguments: &[&str]) {
    let output = Command::new("skopeo").args(["copy", "--insecure-policy", "--quiet"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
}

/// An archive in a home, as a file and as a reference.
fn archive(home: &Home, name: &str) -> (std::path::PathBuf, String) {
    let file = home.path(name);
    let reference = format!("oci-archive:{}", file.display());
    (file, reference)
}

#[test]
fn every_command_reads_skopeo_s_archives_without_unpacking() {
    if lacks(&[Need::Tool("skopeo")]) {
        return;
    }
    let home = Home::new();
    let (_, archive) = archive(&home, "theirs.tar");
    let source = format!("{}:l3", fixture("image-umoci"));
    skopeo(&[&source, &format!("{archive}:v1")]);
    let reference = format!("{archive}:v1");
    let digest = prints(&home, &["resolve", &source]);
    assert_eq!(prints(&home, &["resolve", &reference]), digest);
    assert_eq!(json(&home, &["ls", &archive])["tags"][0]["tag"], "v1");
    assert_eq!(prints(&home, &["repo", "tags", &archive]).trim(), "v1");
    assert_eq!(prints(&home, &["ls", "-R", &reference]), prints(&home, &["ls", "-R", &source]));
    let manifest = manifest(&home, &reference);
    let config = manifest["config"]["digest"].as_str().unwrap();
    let blob = home.path("config.json");
    prints(&home, &["blob", "get", &format!("{archive}@{config}"), "-o", blob.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&blob).unwrap(), prints(&home, &["manifest", "config", &reference]));
    let (ours, theirs) = (home.path("ours"), home.path("theirs"));
    for (from, to) in [(&reference, &ours), (&source, &theirs)] {
        prints(&home, &["pull", from, to.to_str().unwrap()]);
    }
    let same = Command::new("diff").args(["-r", "--no-dereference", "-x", "fifo"]).args([&ours, &theirs]).output().unwrap();
    assert!(same.status.success() && std::fs::read_dir(&ours).unwrap().count() > 0, "{}", text(&same));
    let layout = format!("oci:{}", home.path("layout").display());
    prints(&home, &["cp", &reference, &layout]);
    assert_eq!(prints(&home, &["resolve", &format!("{layout}:v1")]), digest);
    for change in [vec!["tag", &reference, "v2"], vec!["rm", "--yes", &reference], vec!["label", "set", &reference, "a=b"]] {
        fails(&home, &change, 1, "an archive cannot be changed in place");
    }
    fails(&home, &["resolve", &format!("{archive}:none")], 10, "none");
}

#[test]
fn an_archive_is_mounted_and_refuses_writes() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let (_, archive) = archive(&home, "a.tar");
    prints(&home, &["cp", &format!("{}:v1", fixture("oras-files")), &archive]);
    let expected = fixtures().join("oras-files/expected/v1.jsonl");
    let mount = home.mount(&archive, &[]);
    assert_eq!(mount.ls("").unwrap(), ["v1"]);
    if expected.exists() {
        mount.compare(&expected, "v1").unwrap();
    }
    let refused = std::fs::write(mount.path("v1/new"), b"x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(30), "{refused}");
    mount.unmount();
}

#[test]
fn skopeo_reads_the_archives_that_cp_and_push_write() {
    if lacks(&[Need::Tool("skopeo")]) {
        return;
    }
    let home = Home::new();
    let (file, archive) = archive(&home, "ours.tar");
    let source = format!("{}:l3", fixture("image-umoci"));
    prints(&home, &["cp", &source, &format!("{archive}:one,two")]);
    prints(&home, &["cp", &format!("{}:l1", fixture("image-umoci")), &archive]);
    let data = home.write("data/hello", "hello\n");
    let data = data.parent().unwrap().to_str().unwrap();
    let pushed = json(&home, &["push", &format!("{archive}:pushed"), "--as-kind", "image", "-C", data, "."]);
    assert_eq!(prints(&home, &["repo", "tags", &archive]), "l1\none\npushed\ntwo\n");
    for (tag, digest) in [("one", prints(&home, &["resolve", &source])), ("pushed", pushed["digest"].as_str().unwrap().to_owned())] {
        let layout = format!("oci:{}", home.path(tag).display());
        skopeo(&[&format!("{archive}:{tag}"), &format!("{layout}:copied")]);
        assert_eq!(prints(&home, &["resolve", &format!("{layout}:copied")]).trim(), digest.trim());
    }
    let listed = Command::new("tar").arg("tf").arg(&file).output().unwrap();
    assert!(listed.status.success(), "{}", text(&listed));
    // Without root, skopeo cannot give a directory that the archive does not name to the owner of its files.
    if !lacks(&[Need::Root, Need::Tool("setpriv")]) {
        let (at, copied) = (home.path("nobody"), home.path("nobody/copied.tar"));
        std::fs::create_dir(&at).unwrap();
        std::os::unix::fs::chown(&at, Some(65534), Some(65534)).unwrap();
        std::fs::copy(&file, &copied).unwrap();
        let mut skopeo = Command::new("setpriv");
        skopeo.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "skopeo", "--tmpdir"]).arg(&at).args(["inspect", "--raw"]);
        let inspected = skopeo.arg(format!("oci-archive:{}:one", copied.display())).env("HOME", &at).output().unwrap();
        assert!(inspected.status.success(), "{}", text(&inspected));
    }
    let docker = home.path("docker.tar");
    skopeo(&[&format!("{archive}:one"), &format!("docker-archive:{}:a:v1", docker.display())]);
    fails(&home, &["ls", &format!("oci-archive:{}", docker.display())], 2, "is a Docker archive");
}

#[test]
fn an_interrupted_copy_keeps_the_old_archive_and_the_next_completes_it() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let at = format!("{}/app:v1", registry.host());
    for (name, size) in [("a", 100_000), ("b", 200_000)] {
        home.write(&format!("data/{name}"), vec![name.as_bytes()[0]; size]);
    }
    let data = home.path("data");
    prints(&home, &["push", &at, "-C", data.to_str().unwrap(), "a", "b", "--as-kind", "oras"]);
    let manifest = manifest(&home, &at);
    let blob = |number: usize| manifest["layers"][number]["digest"].as_str().unwrap().to_owned();
    let (file, archive) = archive(&home, "a.tar");
    prints(&home, &["cp", &format!("{}:l1", fixture("image-umoci")), &archive]);
    let before = std::fs::read(&file).unwrap();
    let proxy = Proxy::start(registry.url());
    let source = format!("{}/app:v1", proxy.host());
    proxy.spoil(&blob(1), 99, Fault::Status(404));
    let copy = ["cp", &source, &archive, "--concurrency", "1"];
    fails(&home, &copy, 10, &blob(1));
    assert!(std::fs::read(&file).unwrap() == before);
    proxy.mend();
    proxy.forget();
    prints(&home, &copy);
    assert_eq!((proxy.count("GET", &blob(0)), proxy.count("GET", &blob(1))), (0, 1));
    assert_eq!(prints(&home, &["repo", "tags", &archive]), "l1\nv1\n");
    assert!(!home.path("a.tar.partial").exists());
    assert_eq!(prints(&home, &["resolve", &format!("{archive}:v1")]), prints(&home, &["resolve", &at]));
}
