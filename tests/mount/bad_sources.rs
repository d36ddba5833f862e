//! Sources that cannot be mounted: a specific exit code, a one-line reason, and nothing stays mounted.

use crate::support::artifacts::Draft;
use crate::support::layouts::Layout;
use crate::support::mounting::Home;
use crate::support::refusal::{refused, refused_with};
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::skip::{Need, lacks};
use base64::Engine;
use std::net::TcpListener;

const REGISTRY: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
const ABSENT: &str = "sha256:00000000000000000000000000000000000000000000000000000000deadbeef";

/// Tries to mount and to inspect; both must fail with this code and these words.
#[track_caller]
fn neither_mounts_nor_inspects(home: &Home, source: &str, flags: &[&str], code: i32, words: &[&str]) {
    refused_with(&home.try_mount(source, flags).err().expect("it must not mount"), code, words);
    refused_with(&home.run(&[&["inspect", source], flags].concat()), code, words);
    assert!(!crate::support::mounting::any_mounted_below(&home.path("mounts")));
}

/// A registry with `team/app:v1`.
fn team(variant: Variant) -> Registry {
    let registry = Registry::start(variant);
    let mut draft = Draft::new();
    draft.files("v1", &[("file", b"content\n")]);
    registry.writing(|url| draft.layout().push(url, "team/app"));
    registry
}

/// A `config.json` with this password for a registry.
fn login(home: &Home, host: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
    let file = home.path("login.json");
    std::fs::write(&file, serde_json::json!({ "auths": { host: { "auth": pair } } }).to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn an_unknown_host_is_unreachable() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    neither_mounts_nor_inspects(&home, "no-such-host.invalid/team/app:v1", &[], 14, &["no-such-host.invalid"]);
    refused_with(&home.try_mount("no-such-host.invalid", &[]).err().unwrap(), 14, &["no-such-host.invalid", "host name", "--offline"]);
}

#[test]
fn a_refused_connection_is_unreachable() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    refused_with(&home.try_mount(&format!("{address}/team"), &[]).err().unwrap(), 14, &[&address.to_string(), "refused", "--offline"]);
    refused_with(&home.run(&["inspect", &format!("{address}/team:v1")]), 14, &[&address.to_string(), "refused"]);
}

#[test]
fn servers_that_are_not_registries_are_named_as_such() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    // Accepts, reads a little and hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 16]);
            let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
        }
    });
    refused_with(&home.try_mount(&format!("{address}/team"), &[]).err().unwrap(), 14, &[&address.to_string()]);
}

#[test]
fn a_wrong_password_fails_the_mount() {
    if lacks(&REGISTRY) {
        return;
    }
    let registry = team(Variant { htpasswd: true, ..Variant::default() });
    let home = Home::new();
    let host = registry.host();
    let wrong = login(&home, &host, "not-the-password");
    for source in [host.clone(), format!("{host}/team"), format!("{host}/team/app:v1")] {
        let line = refused(&home.try_mount(&source, &["--registry-config", &wrong]).err().unwrap(), 11);
        assert!(line.contains(&host) && !line.contains("not-the-password"), "{line}");
    }
    refused_with(&home.run(&["inspect", &format!("{host}/team/app:v1"), "--registry-config", &wrong]), 11, &[&host]);
    refused_with(&home.try_mount(&host, &[]).err().unwrap(), 11, &[&host, "credentials"]);
    let right = login(&home, &host, PASSWORD);
    let mount = home.mount(&host, &["--registry-config", &right]);
    assert_eq!(mount.cat("team/app/v1/file").unwrap(), b"content\n");
    mount.unmount();
}

#[test]
fn a_password_refused_by_a_token_server_fails_the_mount() {
    if lacks(&REGISTRY) {
        return;
    }
    let registry = team(Variant { tokens: true, ..Variant::default() });
    let home = Home::new();
    let host = registry.host();
    let realm = registry.tokens().realm().to_owned();
    let origin = realm.split('/').take(3).collect::<Vec<_>>().join("/");
    let wrong = login(&home, &host, "not-the-password");
    for source in [host.clone(), format!("{host}/team/app:v1")] {
        let output = home.try_mount(&source, &["--registry-config", &wrong, "--trusted-realm", &origin]).err().unwrap();
        refused_with(&output, 11, &[&host]);
    }
    let right = login(&home, &host, PASSWORD);
    home.mount(&format!("{host}/team"), &["--registry-config", &right, "--trusted-realm", &origin]).unmount();
}

#[test]
fn unknown_names_are_not_found_when_mounted_and_enoent_inside_a_mount() {
    if lacks(&REGISTRY) {
        return;
    }
    let registry = team(Variant::default());
    let home = Home::new();
    let host = registry.host();
    for name in ["team/none:v1".to_owned(), "team/app:none".to_owned(), format!("team/app@{ABSENT}"), format!("team/none@{ABSENT}")] {
        neither_mounts_nor_inspects(&home, &format!("{host}/{name}"), &[], 10, &[&host, &name]);
    }
    let mount = home.mount(&host, &[]);
    let plain = ABSENT.replace(':', "-");
    for name in ["none", "team/none", "team/none/v1", "team/app/none", &format!("team/app/@{plain}"), "team/app:none", "team/app/v1/none"] {
        let error = std::fs::metadata(mount.path(name)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(2), "{name}: {error}");
    }
    assert_eq!(mount.cat("team/app/v1/file").unwrap(), b"content\n");
    mount.unmount();
    // An empty source is a prefix.
    let empty = home.mount(&format!("{host}/nothing/yet"), &[]);
    assert_eq!(empty.ls("").unwrap(), Vec::<String>::new());
    empty.unmount();
}

#[test]
fn malformed_references_are_usage_errors() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let upper = format!("sha256:{}", "AB".repeat(32));
    let sources = [
        "127.0.0.1:5000/App:v1",
        "127.0.0.1:5000/app@sha256:../../x",
        &format!("127.0.0.1:5000/app@{upper}"),
        "127.0.0.1:5000/app@md5:d41d8cd98f00b204e9800998ecf8427e",
        "127.0.0.1:5000/app@sha256:abc",
        "127.0.0.1:5000/a//b",
        "127.0.0.1:5000/../etc",
        "127.0.0.1:5000/app:",
        "127.0.0.1:5000/app:v 1",
        "127.0.0.1:5000/app:\u{1b}[2Jv1",
        "127.0.0.1:99999/app:v1",
        "oci:",
        "",
    ];
    for source in sources {
        refused(&home.try_mount(source, &[]).err().unwrap_or_else(|| panic!("mounts {source:?}")), 2);
        refused(&home.run(&["inspect", source]), 2);
    }
    let layout = Layout::fixture("oras-files").path().display().to_string();
    refused(&home.try_mount(&format!("oci:{layout}@sha256:../../x"), &[]).err().unwrap(), 2);
}

#[test]
fn directories_that_are_not_layouts_are_refused() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let at = |name: &str| format!("oci:{}", home.path(name).display());
    std::fs::write(home.path("file"), "").unwrap();
    std::fs::create_dir(home.path("empty")).unwrap();
    neither_mounts_nor_inspects(&home, &at("none"), &[], 10, &["none"]);
    neither_mounts_nor_inspects(&home, &at("file"), &[], 2, &["file", "not"]);
    refused_with(&home.run(&["inspect", &at("empty")]), 2, &["empty", "oci-layout"]);
    refused_with(&home.try_mount(&at("empty"), &["--read-only"]).err().expect("nothing can be read there"), 2, &["empty", "oci-layout"]);
    // An empty directory becomes a layout when written to.
    home.mount(&at("empty"), &[]).unmount();
    assert_eq!(std::fs::read_dir(home.path("empty")).unwrap().count(), 0);
    for (marker, index) in [("{", "{}"), (r#"{"imageLayoutVersion":"2.0.0"}"#, "{}"), ("[]", "{}")] {
        std::fs::write(home.path("empty/oci-layout"), marker).unwrap();
        std::fs::write(home.path("empty/index.json"), index).unwrap();
        neither_mounts_nor_inspects(&home, &at("empty"), &[], 2, &["version 1"]);
    }
    std::fs::write(home.path("empty/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    for index in ["garbage", "[]", "{\"manifests\": 3}"] {
        std::fs::write(home.path("empty/index.json"), index).unwrap();
        neither_mounts_nor_inspects(&home, &at("empty"), &[], 1, &["index.json"]);
    }
    std::fs::remove_file(home.path("empty/index.json")).unwrap();
    refused_with(&home.run(&["inspect", &at("empty")]), 2, &["empty", "index.json"]);
    refused_with(&home.try_mount(&at("empty"), &["--read-only"]).err().expect("nothing can be read there"), 2, &["index.json"]);
    // A name missing in the layout, harmless and hostile.
    let fixture = format!("oci:{}", Layout::fixture("oras-files").path().display());
    neither_mounts_nor_inspects(&home, &format!("{fixture}:none"), &[], 10, &["none"]);
    neither_mounts_nor_inspects(&home, &format!("{fixture}@{ABSENT}"), &[], 10, &["deadbeef"]);
    neither_mounts_nor_inspects(&home, &format!("{fixture}:\u{1b}[2J"), &[], 10, &["u{1b}"]);
}

#[test]
fn files_named_by_the_user_must_be_suitable() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let file = |name: &str, content: &str| {
        std::fs::write(home.path(name), content).unwrap();
        home.path(name).to_str().unwrap().to_owned()
    };
    let (none, text) = (home.path("none").to_str().unwrap().to_owned(), file("text", "{ hunter2"));
    for flag in ["--registry-config", "--ca-file"] {
        for path in [&none, &text] {
            let line = refused(&home.try_mount("127.0.0.1:1/team", &[flag, path]).err().unwrap(), 2);
            assert!(line.contains(path.as_str()) && !line.contains("hunter2"), "{line}");
        }
    }
    for (content, words) in [("cache-size: [", "line 1"), ("no-such-key: 1", "no-such-key"), ("cache-size: 12Q", "cache-size")] {
        let config = file("config.yaml", content);
        let output = home.try_mount("127.0.0.1:1/team", &["--config", &config]).err().unwrap();
        refused_with(&output, 2, &[&config, words]);
    }
}
