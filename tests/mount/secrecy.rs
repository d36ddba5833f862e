//! Encrypted content stays encrypted: copies of an encrypted tag, copies of its files, and a passphrase given to a sync.

use crate::support::artifacts::Draft;
use crate::support::mounting::{Home, Mount, text};
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use std::path::PathBuf;
use std::process::Output;

const MAP: &str = "the treasure map\n";

/// A layout with a plain tag, and a home with a passphrase.
fn proxied() -> (Draft, Home, PathBuf) {
    let mut draft = Draft::new();
    draft.files("plain", &[("file", b"content\n")]);
    let home = Home::new();
    let secret = home.write("secret", "tell nobody\n");
    (draft, home, secret)
}

/// The command exited with this code and printed all of this.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let told = text(output);
    assert!(output.status.code() == Some(code) && words.iter().all(|word| told.contains(word)), "{told}");
}

fn source(draft: &Draft) -> String {
    format!("oci:{}", draft.path().display())
}

fn digest(shell: &Shell, mount: &Mount<'_>, tag: &str) -> String {
    shell.at(&mount.path(tag), "getfattr --only-values -n user.oci.digest $M")
}

/// Whether any blob of the layout reveals the plaintext.
fn is_public(shell: &Shell, draft: &Draft) -> bool {
    let script = r#"for blob in "$L"/blobs/sha256/*; do { zcat -f "$blob" 2>/dev/null || cat "$blob"; } | grep -qa "treasure map" && echo yes; done; true"#;
    !shell.run(script, &[("L", draft.path())]).is_empty()
}

#[test]
fn a_copy_of_an_encrypted_tag_is_a_retag_and_single_files_need_plaintext() {
    if lacks(&[Need::Fuse, Need::Tool("getfattr")]) {
        return;
    }
    let (draft, home, secret) = proxied();
    let shell = Shell::new();
    let with_key = ["--passphrase-file", secret.to_str().unwrap()];
    let mount = home.mount(&source(&draft), &[&with_key[..], &["--as-kind", "oci-sync"]].concat());
    std::fs::create_dir(mount.path("sealed")).unwrap();
    std::fs::write(mount.path("sealed/map"), MAP).unwrap();
    let sync = |mount: &Mount<'_>, flags: &[&str]| home.run(&[&["sync", mount.root().to_str().unwrap()], flags].concat());
    assert!(sync(&mount, &[]).status.success());
    mount.unmount();

    let mount = home.mount(&source(&draft), &with_key);
    shell.at(mount.root(), "cp -a $M/sealed $M/copy");
    let output = sync(&mount, &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(digest(&shell, &mount, "copy"), digest(&shell, &mount, "sealed"));
    shell.at(mount.root(), "mkdir $M/part; cp $M/sealed/map $M/part/renamed");
    refused(&sync(&mount, &[]), 12, &["renamed", "encrypted", "--plaintext"]);
    refused(&home.run(&["umount", mount.root().to_str().unwrap()]), 16, &["renamed", "--plaintext"]);
    assert!(!is_public(&shell, &draft));
    let output = home.run(&["umount", "--plaintext", mount.root().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(is_public(&shell, &draft));
}

#[test]
fn a_passphrase_given_to_a_sync_encrypts_a_new_tag_and_appears_nowhere() {
    if lacks(&[Need::Fuse, Need::Tool("getfattr")]) {
        return;
    }
    let (draft, home, secret) = proxied();
    let shell = Shell::new();
    let mount = home.mount(&source(&draft), &[]);
    std::fs::create_dir(mount.path("sealed")).unwrap();
    std::fs::write(mount.path("sealed/map"), MAP).unwrap();
    let root = mount.root().to_str().unwrap();
    let output = home.run(&["sync", root, "--as-kind", "oci-sync", "--passphrase-file", secret.to_str().unwrap()]);
    assert!(output.status.success() && !text(&output).contains("not encrypted"), "{}", text(&output));
    assert!(!is_public(&shell, &draft));
    // It stays in the mount that published it.
    assert_eq!(mount.cat("sealed/map").unwrap(), MAP.as_bytes());
    let daemon = mount.daemon().as_raw_nonzero();
    for place in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{daemon}/{place}")).unwrap();
        assert!(!bytes.windows(11).any(|window| window == b"tell nobody"), "{place}");
    }
    assert!(!mount.log().contains("tell nobody"));
    // The next sync has no passphrase.
    std::fs::write(mount.path("sealed/map"), "another").unwrap();
    refused(&home.run(&["sync", root]), 12, &["passphrase"]);
    let output = home.run(&["sync", root, "--passphrase-file", secret.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    std::fs::create_dir(mount.path("open")).unwrap();
    std::fs::write(mount.path("open/file"), "x").unwrap();
    let output = home.run(&["sync", root, "--as-kind", "oci-sync"]);
    assert!(output.status.success() && text(&output).contains("not encrypted"), "{}", text(&output));
    mount.unmount();
}
