//! Encrypted artifacts without the right passphrase: ENOKEY, EKEYREJECTED and exit code 12, never a byte of plaintext.

use crate::support::artifacts::{Draft, MANIFEST};
use crate::support::layouts::Layout;
use crate::support::mounting::Home;
use crate::support::refusal::refused_with;
use crate::support::skip::{Need, lacks};
use serde_json::json;

const ENOKEY: i32 = 126;
const EKEYREJECTED: i32 = 129;
const EBADMSG: i32 = 74;
const FIXTURES: [&str; 2] = ["oci-sync-go", "oci-sync-rust"];

fn source(fixture: &str) -> String {
    format!("oci:{}", Layout::fixture(fixture).path().display())
}

#[test]
fn without_a_passphrase_the_tag_is_enokey_and_its_mount_exit_code_12() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    for fixture in FIXTURES {
        let home = Home::new();
        let mount = home.mount(&source(fixture), &[]);
        assert_eq!(mount.ls("sealed").unwrap_err().raw_os_error(), Some(ENOKEY), "{fixture}");
        assert_eq!(std::fs::metadata(mount.path("sealed/none")).unwrap_err().raw_os_error(), Some(ENOKEY), "{fixture}");
        assert!(!mount.ls("dir").unwrap().is_empty(), "{fixture}: a neighbour");
        assert!(mount.log().lines().any(|line| line.contains("sha256:") && line.contains("passphrase")), "{}", mount.log());
        mount.unmount();
        let output = home.try_mount(&format!("{}:sealed", source(fixture)), &[]).err().unwrap();
        refused_with(&output, 12, &["encrypted", "--passphrase-file"]);
    }
}

#[test]
fn with_a_wrong_passphrase_the_tag_is_ekeyrejected() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    for fixture in FIXTURES {
        let home = Home::new();
        let file = home.write_private("passphrase", "correct horse battery stable");
        let flags = ["--passphrase-file", file.to_str().unwrap()];
        let mount = home.mount(&source(fixture), &flags);
        for _ in 0..2 {
            assert_eq!(mount.ls("sealed").unwrap_err().raw_os_error(), Some(EKEYREJECTED), "{fixture}");
        }
        assert!(!mount.ls("dir").unwrap().is_empty(), "{fixture}: a neighbour");
        assert!(mount.log().lines().any(|line| line.contains("sha256:") && line.contains("passphrase")), "{}", mount.log());
        assert!(!mount.log().contains("battery"), "the log tells no secret");
        mount.unmount();
        let output = home.try_mount(&format!("{}:sealed", source(fixture)), &flags).err().unwrap();
        refused_with(&output, 12, &["passphrase"]);
    }
}

#[test]
fn passphrases_that_cannot_be_read_are_named() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let source = format!("{}:sealed", source("oci-sync-go"));
    let missing = home.path("none");
    let output = home.try_mount(&source, &["--passphrase-file", missing.to_str().unwrap()]).err().unwrap();
    refused_with(&output, 12, &[missing.to_str().unwrap()]);
    let output = home.try_mount(&source, &["--passphrase-command", "exit 7"]).err().unwrap();
    refused_with(&output, 12, &["exit 7"]);
    let output = home.try_mount(&source, &["--passphrase-fd", "77"]).err().unwrap();
    refused_with(&output, 12, &["77"]);
}

#[test]
fn artifacts_sealed_by_a_later_version_are_recognised_and_need_a_key() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let mut draft = Draft::new();
    draft.files("plain", &[("file", b"content\n")]);
    let mut sealed = draft.layout().manifest("plain");
    sealed["annotations"] = json!({ "dev.ocifs.seal": "YWdlLWVuY3J5cHRpb24ub3JnL3YxCg" });
    draft.tag("sealed", &sealed);
    let home = Home::new();
    let source = format!("oci:{}", draft.path().display());
    let mount = home.mount(&source, &[]);
    assert_eq!(mount.ls("sealed").unwrap_err().raw_os_error(), Some(ENOKEY));
    assert_eq!(mount.ls("plain").unwrap(), ["file"]);
    mount.unmount();
    refused_with(&home.try_mount(&format!("{source}:sealed"), &[]).err().unwrap(), 12, &["sealed"]);
    let any = home.write_private("any", "any").to_str().unwrap().to_owned();
    refused_with(&home.try_mount(&format!("{source}:sealed"), &["--passphrase-file", &any]).err().unwrap(), 12, &["sealed"]);
}

#[test]
fn malformed_envelopes_are_damage_not_wrong_keys() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let layout = Layout::fixture("oci-sync-go");
    let good = layout.manifest("sealed");
    let envelope = layout.blob(good["layers"][0]["digest"].as_str().unwrap());
    let mut draft = Draft::new();
    draft.files("neighbour", &[("file", b"content\n")]);
    for (name, bytes) in [("empty", &b""[..]), ("short", &envelope[..59])] {
        let mut manifest = good.clone();
        let blob = draft.blob(manifest["layers"][0]["mediaType"].as_str().unwrap(), bytes);
        (manifest["layers"][0]["digest"], manifest["layers"][0]["size"]) = (blob["digest"].clone(), blob["size"].clone());
        manifest["config"] = draft.blob(good["config"]["mediaType"].as_str().unwrap(), b"{}");
        manifest["mediaType"] = json!(MANIFEST);
        draft.tag(name, &manifest);
    }
    let home = Home::new();
    std::fs::write(home.path("passphrase"), "correct horse battery staple").unwrap();
    let mount = home.mount(&format!("oci:{}", draft.path().display()), &["--passphrase-file", home.path("passphrase").to_str().unwrap()]);
    for name in ["empty", "short"] {
        assert_eq!(mount.ls(name).unwrap_err().raw_os_error(), Some(EBADMSG), "{name}");
    }
    assert_eq!(mount.ls("neighbour").unwrap(), ["file"]);
    mount.unmount();
}
