//! Names and text with control characters: data in the mount, escaped wherever our own commands print them.

use crate::support::artifacts::{Draft, LAYER, MANIFEST, tar};
use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

/// Clears the screen, sets the title, reverses the text direction, rings the bell.
const EVIL: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}\u{9b}31m\r\nname";

/// Everything a command prints consists of lines of harmless characters.
#[track_caller]
fn is_tame(output: &Output) {
    for stream in [&output.stdout, &output.stderr] {
        let said = std::str::from_utf8(stream).unwrap_or_else(|_| panic!("not UTF-8: {}", text(output)));
        let wild = |character: char| (character.is_control() && character != '\n') || ('\u{202a}'..='\u{202e}').contains(&character);
        assert!(!said.contains(wild), "{said:?}");
    }
}

/// A layout whose artifact contains `EVIL` in every text.
fn evil() -> Draft {
    let mut draft = Draft::new();
    let mut layer = draft.blob(&format!("application/x{EVIL}"), b"content\n");
    layer["annotations"] = json!({ "org.opencontainers.image.title": EVIL });
    let config = draft.blob(&format!("application/c{EVIL}"), b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": format!("application/a{EVIL}"), "config": config, "layers": [layer],
        "annotations": { format!("key{EVIL}"): EVIL, "org.opencontainers.image.title": EVIL },
    });
    draft.tag("evil", &manifest);
    draft.tag("twin", &manifest);
    draft
}

#[test]
fn manifest_text_is_escaped_on_the_terminal() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let draft = evil();
    let home = Home::new();
    let source = format!("oci:{}", draft.path().display());
    for format in ["text", "json"] {
        let output = home.run(&["inspect", &format!("{source}:evil"), "--format", format]);
        assert!(output.status.success(), "{}", text(&output));
        is_tame(&output);
        assert!(String::from_utf8_lossy(&output.stdout).contains("application/x"), "{}", text(&output));
    }
    let mount = home.mount(&source, &[]);
    assert!(!mount.ls("evil").unwrap().is_empty());
    for format in ["text", "json"] {
        is_tame(&home.run(&["status", "--format", format]));
    }
    // The metadata directory shows the exact bytes: they are data, like file content.
    assert!(!mount.cat(".oci/tags/evil/manifest.json").unwrap().is_empty());
    assert!(!mount.log().contains(['\u{1b}', '\u{7}', '\u{202e}']), "{}", mount.log());
    mount.unmount();
}

#[test]
fn names_in_archives_are_shown_as_they_are_and_logged_escaped() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let mut draft = Draft::new();
    let odd = [&b"es\x1b[2Jcape"[..], b"new\nline", b"not\xffutf8", b"\xe2\x80\xaerotcerid", b"tab\there", b"-rf", b"~", b"a\\b", b" "];
    let mut members = Vec::new();
    for name in odd {
        let mut archive = tar(&[("x", b"content")]);
        archive.truncate(1024);
        archive[..name.len()].copy_from_slice(name);
        archive[148..156].fill(b' ');
        let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
        archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        members.extend(archive);
    }
    // A hard link without a target is dropped with a warning that names it.
    let mut header = tar::Header::new_ustar();
    header.set_path("li\u{1b}[2Jnk").unwrap();
    header.set_entry_type(tar::EntryType::Link);
    header.set_link_name("no\u{7}where").unwrap();
    header.set_size(0);
    header.set_cksum();
    members.extend(header.as_bytes());
    members.extend([0; 1024]);
    let layer = draft.blob(LAYER, &members);
    draft.image("odd", &[layer]);
    let home = Home::new();
    let mount = home.mount(&format!("oci:{}", draft.path().display()), &[]);
    let mut names: Vec<Vec<u8>> =
        std::fs::read_dir(mount.path("odd")).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
    names.sort();
    let mut expected: Vec<Vec<u8>> = odd.iter().map(|name| name.to_vec()).collect();
    expected.sort();
    assert_eq!(names, expected);
    for name in odd {
        assert_eq!(std::fs::read(mount.path("odd").join(std::ffi::OsStr::from_bytes(name))).unwrap(), b"content");
    }
    let log = mount.log();
    assert!(log.contains("nk") && !log.contains(['\u{1b}', '\u{7}']), "{log}");
    mount.unmount();
}

#[test]
fn layout_names_that_are_not_tags_are_one_component_and_hide_nothing() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let draft = evil();
    let mut entries = draft.layout().entries();
    let names = [EVIL, "..", ".", "../../x", "/abs", "a/b:v1", "", ".oci", "x\u{0}y"];
    for name in names {
        let mut entry = entries[0].clone();
        entry["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
        entries.push(entry);
    }
    std::fs::write(draft.path().join("index.json"), json!({ "schemaVersion": 2, "manifests": entries }).to_string()).unwrap();
    let home = Home::new();
    let source = format!("oci:{}", draft.path().display());
    let mount = home.mount(&source, &[]);
    let shown = mount.ls("").unwrap();
    assert!(shown.contains(&"evil".to_owned()) && shown.contains(&"twin".to_owned()) && shown.contains(&"a_b:v1".to_owned()), "{shown:?}");
    for name in &shown {
        assert!(!name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']), "{name:?}");
        assert!(!mount.ls(name).unwrap().is_empty(), "{name:?}");
    }
    assert!(!mount.log().contains(['\u{1b}', '\u{7}']), "{}", mount.log());
    mount.unmount();
    is_tame(&home.run(&["inspect", &source]));
    is_tame(&home.run(&["inspect", &format!("{source}:{EVIL}")]));
}

#[test]
fn registry_messages_are_escaped_on_the_terminal() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    let mut draft = Draft::new();
    draft.files("v1", &[("file", b"content\n")]);
    draft.layout().push(&registry.url(), "app");
    let proxy = Proxy::start(registry.url());
    // Lists with malformed names: those are hidden, and the others stay.
    let tags = json!({ "name": "app", "tags": ["v1", EVIL, "..", "a/b", "", "x".repeat(200), "sha256:abc"] });
    let catalog = json!({ "repositories": ["app", EVIL, "../etc", "/abs", "App", "a//b"] });
    for (path, answer) in [("tags/list", tags), ("_catalog", catalog)] {
        proxy.spoil(path, usize::MAX, Fault::Answer("application/json".to_owned(), answer.to_string().into()));
    }
    let home = Home::new();
    let mount = home.mount(&proxy.host(), &[]);
    assert_eq!(mount.ls("").unwrap(), ["app"]);
    assert_eq!(mount.ls("app").unwrap(), ["v1"]);
    assert_eq!(mount.cat("app/v1/file").unwrap(), b"content\n");
    assert!(!mount.log().contains(['\u{1b}', '\u{7}']), "{}", mount.log());
    mount.unmount();
    // A malformed list does not hide names that can be looked up.
    proxy.mend();
    for path in ["tags/list", "_catalog"] {
        proxy.spoil(path, usize::MAX, Fault::Answer("text/html".to_owned(), format!("<html>{EVIL}").into()));
    }
    let mount = home.mount(&format!("{}/app", proxy.host()), &[]);
    assert_eq!(mount.cat("v1/file").unwrap(), b"content\n");
    mount.unmount();
    // A manifest with text.
    let manifest = json!({ "schemaVersion": 2, "mediaType": format!("x{EVIL}"), "manifests": [] });
    proxy.spoil("manifests/", usize::MAX, Fault::Answer(MANIFEST.to_owned(), manifest.to_string().into()));
    let output = home.try_mount(&format!("{}/app:v1", proxy.host()), &[]).err().unwrap();
    is_tame(&output);
    crate::support::refusal::refused(&output, 1);
}
