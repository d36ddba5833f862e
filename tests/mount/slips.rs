//! Commands beyond their main case: an outage, a wrong name, a dead mount, a list.

use serde_json::json as value;

use crate::support::artifacts::{Draft, LAYER, digest, gzip, noise, tar};
use crate::support::commands::{fails, json, prints};
use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};

const REGISTRY: [Need; 1] = [Need::Tool("docker-registry")];

#[test]
fn resolve_answers_during_an_outage_and_refuses_another_platform() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, mut registry) = (Home::new(), Registry::plain());
    let mut draft = Draft::new();
    draft.image("v1", &[draft.blob(&format!("{LAYER}+gzip"), &gzip(&tar(&[("f", b"x")])))]);
    draft.layout().push(&registry.url(), "app");
    let reference = format!("{}/app:v1", registry.host());
    let resolved = prints(&home, &["resolve", &reference]);
    assert!(resolved.starts_with("sha256:"));
    assert_eq!(prints(&home, &["resolve", &reference, "--platform", "linux/amd64"]), resolved);
    fails(&home, &["resolve", &reference, "--platform", "plan9/mips"], 10, "linux/amd64");
    fails(&home, &["discover", &reference, "--platform", "plan9/mips"], 10, "linux/amd64");
    registry.stop();
    assert_eq!(prints(&home, &["resolve", &reference, "--io-timeout", "2s"]), resolved);
    fails(&home, &["resolve", &format!("{}/app:v2", registry.host()), "--io-timeout", "2s"], 14, "");
}

#[test]
fn doctor_takes_a_repository_before_its_first_push_for_new() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    for reference in ["team/new", "team/new:v1"].map(|name| format!("{}/{name}", registry.host())) {
        let report = json(&home, &["doctor", &reference]);
        let findings = report["findings"].as_array().unwrap();
        let tags = findings.iter().find(|finding| finding["step"] == "tags").unwrap();
        assert!(tags["verdict"] == "warning" && tags["advice"].as_str().unwrap().contains("first push"), "{findings:?}");
    }
}

#[test]
fn labels_are_listed_and_every_command_that_writes_is_recent() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let reference = |tag: &str| format!("{}/app:{tag}", registry.host());
    let file = home.write("file", "content");
    let file = file.to_str().unwrap();
    prints(&home, &["push", &reference("v1"), file, "-q"]);
    prints(&home, &["tag", &reference("v1"), "v2", "v3"]);
    prints(&home, &["label", "set", &reference("v2"), "env=prod", "team=blue"]);
    prints(&home, &["attach", &reference("v2"), "--artifact-type", "a/b", file]);
    let pack = home.write("pack.yaml", format!("items:\n  - from: file:{file}\n"));
    prints(&home, &["pack", "-f", pack.to_str().unwrap(), &reference("packed"), "-q"]);
    assert_eq!(prints(&home, &["label", "list", &reference("v2")]), "env=prod\nteam=blue\n");
    assert_eq!(json(&home, &["label", "list", &reference("v2")]), value!({"env": "prod", "team": "blue"}));
    assert_eq!(prints(&home, &["label", "ls", &reference("v1")]), "");
    let recent = json(&home, &["recent"]);
    let kinds: Vec<_> = recent.as_array().unwrap().iter().map(|done| done["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["pack", "attach", "label", "tag", "tag", "push"]);
    assert_eq!((recent[0]["local_path"].as_str(), recent[4]["remote_ref"].as_str()), (pack.to_str(), Some(reference("v2").as_str())));
}

#[test]
fn a_blob_comes_from_the_next_place_if_a_mirror_lies_and_a_manifest_is_named_as_such() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let content = noise(1, 5 << 20);
    let mut draft = Draft::new();
    draft.files("v1", &[("large", &content)]);
    draft.layout().push(&registry.url(), "app");
    let lying = Proxy::start(registry.url());
    lying.spoil("/blobs/", 100, Fault::Flip(1));
    let hosts = format!("[host.\"{}\"]\n", lying.url());
    home.write(&format!("config/containerd/certs.d/{}_/hosts.toml", registry.host().replace(':', "_")), hosts);
    let (at, out) = (format!("{}/app@{}", registry.host(), digest(&content)), home.path("out"));
    prints(&home, &["blob", "get", &at, "-o", out.to_str().unwrap()]);
    assert!(std::fs::read(&out).unwrap() == content);
    assert!(lying.count("GET", "/blobs/") > 0);
    let manifest = prints(&home, &["resolve", &format!("{}/app:v1", registry.host())]);
    let at = format!("{}/app@{}", registry.host(), manifest.trim());
    fails(&home, &["blob", "get", &at, "-o", out.to_str().unwrap()], 10, &format!("ocifs manifest get {at}"));
}

#[test]
fn manual_pages_go_to_a_new_directory() {
    let home = Home::new();
    let directory = home.path("share/man/man1");
    prints(&home, &["man", directory.to_str().unwrap()]);
    assert!(directory.join("ocifs-pull.1").is_file());
}

#[test]
fn a_reference_that_nothing_shows_is_called_unknown() {
    let home = Home::new();
    for command in [&["sync", "reg.invalid/app:v1"][..], &["discard", "--yes", "reg.invalid/app:v1"]] {
        let output = home.run(command);
        assert!(output.status.success() && output.stdout == b"nothing is staged\n", "{}", text(&output));
        assert!(text(&output).contains("no mount shows reg.invalid/app:v1"), "{}", text(&output));
    }
}

#[test]
fn commands_for_all_mounts_pass_over_a_dead_one_of_another_home() {
    if lacks(&[Need::Fuse, Need::Root]) {
        return;
    }
    let shell = Shell::new();
    let script = r#"
        unshare --mount --propagation private bash -euc '
            awk "/ - fuse.ocifs /{print \$5}" /proc/self/mountinfo | while read -r other; do umount -l "$other"; done
            mkdir -p layout/blobs one two
            echo "{\"imageLayoutVersion\":\"1.0.0\"}" > layout/oci-layout
            echo "{\"schemaVersion\":2,\"manifests\":[]}" > layout/index.json
            at() { XDG_RUNTIME_DIR=$PWD/$1-run XDG_STATE_HOME=$PWD/$1-state XDG_CACHE_HOME=$PWD/$1-cache "$OCIFS" "${@:2}"; }
            mkdir -m 700 one-run two-run
            at one mount "oci:$PWD/layout" one
            at two mount "oci:$PWD/layout" two
            kill -KILL "$(at one status --format json one | grep -o "\"pid\": *[0-9]*" | grep -o "[0-9]*")"
            while stat one >/dev/null 2>&1; do sleep 0.05; done
            at two refresh
            at two diff
            mkdir -p two/new && echo data > two/new/file
            at two discard --yes
            mkdir -p two/newer && echo data > two/newer/file
            at two umount --discard -y two
            umount -l one
        '
    "#;
    let said = shell.run(script, &[("OCIFS", env!("CARGO_BIN_EXE_ocifs"))]);
    let discarded: Vec<&str> = said.lines().filter(|line| line.starts_with("discarded the edits of ")).collect();
    assert!(discarded.len() == 2 && discarded[0].ends_with(":new") && discarded[1].ends_with(":newer"), "{said}");
}
