//! `rm` and `label`: their effect on a registry and a layout, and what they leave alone.

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::support::artifacts::{Draft, MANIFEST};
use crate::support::commands::{fails, fixture, json as printed, prints};
use crate::support::layouts::Layout;
use crate::support::mounting::{Home, text};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 1] = [Need::Tool("docker-registry")];

fn tags(home: &Home, place: &str) -> Vec<String> {
    prints(home, &["repo", "tags", place]).lines().map(str::to_owned).collect()
}

/// A registry with three tags of the same digest.
fn siblings(home: &Home) -> (Registry, String) {
    let registry = Registry::plain();
    let place = format!("{}/app", registry.host());
    prints(home, &["cp", &format!("{}:dir", fixture("oci-sync-go")), &format!("{place}:v1,v2,latest")]);
    (registry, place)
}

/// Runs a command on its own terminal, typing these answers.
fn on_terminal(home: &Home, arguments: &[&str], answers: &str) -> Output {
    // Without the `timeout` of other tests, which detaches its child from the terminal.
    let words: Vec<&str> = std::iter::once(env!("CARGO_BIN_EXE_ocifs")).chain(arguments.iter().copied()).collect();
    let mut command = std::process::Command::new("timeout");
    command
        .args(["60", "script", "-qec", &words.join(" "), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, value) in home.ocifs(&[]).get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_deleted_tag_leaves_its_siblings_and_a_missing_one_is_named() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (_registry, place) = siblings(&home);
    let digest = prints(&home, &["resolve", &format!("{place}:v1")]);
    let shown = prints(&home, &["rm", "-y", &format!("{place}:v1")]);
    assert_eq!(shown, format!("deleted {place}:v1  {digest}"));
    assert_eq!(tags(&home, &place), ["latest", "v2"]);
    assert_eq!(prints(&home, &["resolve", &format!("{place}:v2")]), digest);
    fails(&home, &["rm", "-y", &format!("{place}:v1")], 10, "v1");
    assert_eq!(prints(&home, &["rm", "-f", &format!("{place}:v1")]), "");
    assert_eq!(printed(&home, &["delete", "-f", "-r", &format!("{place}:v2")])[0]["digest"], digest.trim());
    assert_eq!(tags(&home, &place), ["latest"]);
}

#[test]
fn a_tag_that_cannot_be_deleted_hides_no_other() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (_registry, place) = siblings(&home);
    let output = home.run(&["rm", "-y", &format!("{place}:none"), &format!("{place}:v1"), &format!("{place}:v2")]);
    assert_eq!(output.status.code(), Some(10), "{}", text(&output));
    assert_eq!(tags(&home, &place), ["latest"]);
}

#[test]
fn nothing_is_deleted_without_a_terminal_or_a_clear_yes() {
    if lacks(&[NEEDS[0], Need::Tool("script")]) {
        return;
    }
    let home = Home::new();
    let (_registry, place) = siblings(&home);
    let reference = format!("{place}:v1");
    fails(&home, &["rm", &reference], 2, "--yes");
    fails(&home, &["rm", "-y", &place], 2, &format!("{place}:TAG"));
    for answer in ["n\n", "\n"] {
        let output = on_terminal(&home, &["rm", &reference], answer);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let shown = text(&output);
        let digest = prints(&home, &["resolve", &reference]);
        assert!(shown.contains(digest.trim()) && shown.contains("which stay: latest, v2"), "{shown}");
    }
    assert_eq!(tags(&home, &place), ["latest", "v1", "v2"]);
    let output = on_terminal(&home, &["rm", &reference], "y\n");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(tags(&home, &place), ["latest", "v2"]);
}

#[test]
fn a_layout_loses_the_blobs_that_only_the_deleted_tag_needed() {
    let home = Home::new();
    let mut draft = Draft::new();
    draft.files("v1", &[("shared", b"shared"), ("old", b"only in one")]);
    draft.files("v2", &[("shared", b"shared")]);
    let (layout, place) = (draft.layout(), format!("oci:{}", draft.path().display()));
    let digest = |tag: &str, layer: usize| layout.manifest(tag)["layers"][layer]["digest"].as_str().unwrap().to_owned();
    let (shared, old) = (digest("v1", 0), digest("v1", 1));
    let has = |digest: &str| draft.path().join("blobs").join(digest.replace(':', "/")).exists();
    prints(&home, &["tag", &format!("{place}:v1"), "also"]);
    prints(&home, &["rm", "-y", &format!("{place}:v1")]);
    assert!(has(&old), "another tag holds the same digest");
    prints(&home, &["rm", "-y", &format!("{place}:also")]);
    assert!(!has(&old) && has(&shared));
    assert_eq!(prints(&home, &["ls", &format!("{place}:v2")]), "shared\n");
}

#[test]
fn labels_are_set_and_removed_and_no_unknown_member_of_the_manifest_is_lost() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let registry = Registry::plain();
    let mut draft = Draft::new();
    let config = draft.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let layer = draft.blob("application/octet-stream", b"x");
    draft.tag(
        "v1",
        &json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example", "config": config, "layers": [layer],
            "future": {"deep": [1, {"b": 2, "a": null}]}, "annotations": {"env": "test", "io.oci-sync.version": "9"}}),
    );
    draft.layout().push(&registry.url(), "app");
    let reference = format!("{}/app:v1", registry.host());
    let copied = |name: &str| {
        let place = home.path(name);
        prints(&home, &["cp", &reference, &format!("oci:{}", place.display())]);
        Layout::at(place).manifest("v1")
    };
    let before = copied("before");
    let digest = prints(&home, &["resolve", &reference]);
    let shown = prints(&home, &["label", "set", &reference, "env=prod", "app=web=1"]);
    assert_ne!(prints(&home, &["resolve", &reference]), digest);
    assert!(shown.starts_with(&format!("{reference}  sha256:")), "{shown}");
    let place = format!("{}/app", registry.host());
    let found = |label: &str| printed(&home, &["list", "-r", &place, "--label", label]).as_array().unwrap().len();
    assert_eq!((found("app=web=1"), found("env=prod"), found("env=test")), (1, 1, 0));
    prints(&home, &["label", "unset", "-r", &reference, "app", "none"]);
    prints(&home, &["label", "set", &reference, "env=test"]);
    assert_eq!(copied("after"), before);
    let again = prints(&home, &["resolve", &reference]);
    prints(&home, &["label", "set", &reference, "env=test"]);
    assert_eq!(prints(&home, &["resolve", &reference]), again, "nothing changed, so nothing is put");
    fails(&home, &["label", "set", &reference, "io.oci-sync.encrypted=false"], 2, "io.oci-sync.encrypted");
    fails(&home, &["label", "set", &reference], 2, "label");
    fails(&home, &["label", "set", &reference, "env"], 2, "KEY=VALUE");
    fails(&home, &["label", "set", &format!("{}/app", registry.host()), "a=b"], 2, "app:TAG");
    let value: Value = copied("last");
    assert_eq!(value["future"], json!({"deep": [1, {"b": 2, "a": null}]}));
}
