//! Mirrors of containerd's and podman's files: a mount reads from them and writes past them.

use crate::serving::Running;
use crate::support::artifacts::{Draft, noise};
use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::skip::{Need, lacks};
use crate::support::stored_login;

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

/// `team/app:v1`: a small file and one of several spans.
fn draft() -> (Draft, Vec<u8>) {
    let (mut draft, large) = (Draft::new(), noise(7, 5 << 20));
    draft.files("v1", &[("small", b"small\n"), ("large", &large)]);
    (draft, large)
}

/// Writes the `hosts.toml` of a registry, as containerd reads it.
fn mirror(home: &Home, registry: &str, text: &str) {
    home.write(&format!("config/containerd/certs.d/{}_/hosts.toml", registry.replace(':', "_")), text);
}

fn host(url: &str) -> String {
    format!("[host.\"{url}\"]\n")
}

#[test]
fn a_mount_reads_from_the_mirror_and_writes_to_the_registry_itself() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, other, (draft, large)) = (Registry::plain(), Registry::plain(), draft());
    draft.layout().push(&registry.url(), "team/app");
    draft.layout().push(&other.url(), "team/app");
    let (origin, near) = (Proxy::start(registry.url()), Proxy::start(other.url()));
    let home = Home::new();
    mirror(&home, &origin.host(), &host(&near.url()));
    let mount = home.mount(&format!("{}/team/app", origin.host()), &["--tag-ttl", "0s"]);
    assert_eq!((mount.cat("v1/small").unwrap(), mount.cat("v1/large").unwrap()), (b"small\n".to_vec(), large));
    assert_eq!((origin.count("", "/manifests/"), origin.count("", "/blobs/")), (0, 0), "{:?}", origin.requests());
    assert!(near.requests().iter().all(|request| request.path.contains("ns=127.0.0.1%3A")), "{:?}", near.requests());
    // The mirror keeps the old version: neither the publish nor the mount afterwards must take that for the truth.
    mount.write("v1/small", "new\n");
    mount.sync(&[]);
    assert!(origin.count("HEAD", "/manifests/v1") > 0 && origin.count("PUT", "/manifests/v1") == 1, "{:?}", origin.requests());
    assert!(near.requests().iter().all(|request| ["GET", "HEAD"].contains(&request.method.as_str())), "{:?}", near.requests());
    assert_eq!(mount.cat("v1/small").unwrap(), b"new\n");
    mount.unmount();
    // Without mirrors there are none.
    near.forget();
    let fresh = Home::new();
    mirror(&fresh, &origin.host(), &host(&near.url()));
    let mount = fresh.mount(&format!("{}/team/app:v1", origin.host()), &["--no-mirrors"]);
    assert_eq!((mount.cat("small").unwrap(), near.requests().len()), (b"new\n".to_vec(), 0));
    mount.unmount();
}

#[test]
fn a_mirror_that_is_down_or_wrong_is_skipped() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, (draft, large)) = (Registry::plain(), draft());
    draft.layout().push(&registry.url(), "team/app");
    let lying = Proxy::start(registry.url());
    lying.spoil("/blobs/", 100, Fault::Flip(1));
    let down = Proxy::start(registry.url());
    down.refuse();
    let home = Home::new();
    mirror(&home, &registry.host(), &(host(&down.url()) + &host(&lying.url())));
    let mount = home.mount(&format!("{}/team/app:v1", registry.host()), &[]);
    assert_eq!((mount.cat("small").unwrap(), mount.cat("large").unwrap()), (b"small\n".to_vec(), large.clone()));
    let log = mount.log();
    assert!(log.contains("for 30 s:") && log.contains("a mirror has wrong bytes for team/app@sha256:"), "{log}");
    assert!(mount.cat("nothing").unwrap_err().kind() == std::io::ErrorKind::NotFound);
    mount.unmount();
    // The same for a copy, which checks before the destination does.
    let layout = home.path("copy");
    let copied = home.run(&["cp", &format!("{}/team/app:v1", registry.host()), &format!("oci:{}:v1", layout.display())]);
    assert!(copied.status.success(), "{}", text(&copied));
    let mount = home.mount(&format!("oci:{}:v1", layout.display()), &[]);
    assert_eq!(mount.cat("large").unwrap(), large);
    mount.unmount();
}

#[test]
fn an_index_and_its_spans_from_a_lying_mirror_are_skipped() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home, content) = (Registry::plain(), Home::new(), noise(9, 6 << 20));
    home.write("data/large", &content);
    home.write("data/run.sh", "#!/bin/sh\n");
    let reference = format!("{}/team/app:v1", registry.host());
    let pushed = home.run(&["push", &reference, home.path("data").to_str().unwrap()]);
    assert!(pushed.status.success(), "{}", text(&pushed));
    let lying = Proxy::start(registry.url());
    // First every blob is wrong, then only those beyond 3000 bytes: the data behind a good index.
    for fault in [Fault::Flip(0), Fault::Flip(3000)] {
        let reader = Home::new();
        lying.mend();
        lying.spoil("/blobs/", 200, fault);
        mirror(&reader, &registry.host(), &host(&lying.url()));
        let mount = reader.mount(&reference, &[]);
        assert_eq!((mount.cat("data/large").unwrap(), mount.cat("data/run.sh").unwrap()), (content.clone(), b"#!/bin/sh\n".to_vec()));
        assert!(mount.log().contains("a mirror has wrong bytes"), "{}", mount.log());
        mount.unmount();
    }
}

#[test]
fn a_local_cache_serves_its_content_during_an_outage() {
    if lacks(&NEEDS) {
        return;
    }
    let (mut registry, (draft, large), served) = (Registry::plain(), draft(), Home::new());
    draft.layout().push(&registry.url(), "team/app");
    let host_name = registry.host();
    let server = Running::start(&served, &["--listen", "127.0.0.1:0", "--upstream", &format!("up={host_name}")]);
    let read = |home: &Home| {
        mirror(home, &host_name, &host(&server.base));
        let mount = home.mount(&format!("{host_name}/team/app:v1"), &[]);
        assert_eq!((mount.cat("small").unwrap(), mount.cat("large").unwrap()), (b"small\n".to_vec(), large.clone()));
        mount.unmount();
    };
    read(&Home::new());
    registry.stop();
    read(&Home::new());
}

#[test]
fn a_registry_s_login_is_not_sent_to_its_mirror() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, (draft, _)) = (Registry::start(Variant { htpasswd: true, ..Variant::default() }), draft());
    registry.writing(|url| draft.layout().push(url, "team/app"));
    // The mirror asks for a login too.
    let near = Proxy::start(registry.url());
    let home = Home::new();
    mirror(&home, &registry.host(), &host(&near.url()));
    home.write_private(".docker/config.json", stored_login(&registry.host(), USER, PASSWORD));
    let mount = home.mount(&format!("{}/team/app:v1", registry.host()), &[]);
    assert_eq!(mount.cat("small").unwrap(), b"small\n");
    assert!(!near.requests().is_empty() && near.requests().iter().all(|request| !request.authorized), "{:?}", near.requests());
    mount.unmount();
    home.write_private(".docker/config.json", stored_login("elsewhere.example", USER, PASSWORD));
    let reference = format!("{}/team/app:v1", registry.host());
    let password = std::fs::File::open(home.write("password", PASSWORD)).unwrap();
    let output = home.ocifs(&["resolve", &reference, "-u", USER, "--password-stdin"]).stdin(password).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(near.requests().iter().all(|request| !request.authorized), "{:?}", near.requests());
}

#[test]
fn a_blocked_registry_is_refused_and_a_broken_file_is_named() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, (draft, _), home) = (Registry::plain(), draft(), Home::new());
    draft.layout().push(&registry.url(), "team/app");
    let reference = format!("{}/team/app:v1", registry.host());
    let entry = |settings: &str| format!("[[registry]]\nprefix = \"{}/team\"\n{settings}\n", registry.host());
    let file = home.write("config/containers/registries.conf.d/mine.conf", entry("blocked = true"));
    let refused = |arguments: &[&str], code: i32, words: &[&str]| {
        let output = home.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(words.iter().all(|word| text(&output).contains(word)), "{}", text(&output));
    };
    let named: &str = file.to_str().unwrap();
    let directory = home.path("mounts");
    refused(&["mount", &reference, directory.to_str().unwrap()], 11, &["is blocked by", named, "--no-mirrors"]);
    refused(&["resolve", &reference], 11, &["is blocked by", named]);
    refused(&["tag", &reference, "v2"], 11, &["is blocked by", named]);
    assert!(home.run(&["resolve", "--no-mirrors", &reference]).status.success());
    home.write("config/containers/registries.conf.d/mine.conf", entry("blokced = true"));
    refused(&["resolve", &reference], 2, &[named, "line 3: `blokced`: unknown key", "--no-mirrors"]);
    assert!(home.run(&["resolve", "--no-mirrors", &reference]).status.success());
    // Not its business: a file for another registry, and a layout.
    home.write("config/containers/registries.conf.d/mine.conf", "");
    mirror(&home, "other.example:1", "[host");
    assert!(home.run(&["resolve", &reference]).status.success());
}

#[test]
fn content_is_read_from_podman_s_location() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, (draft, large), mut home) = (Registry::plain(), draft(), Home::new());
    draft.layout().push(&registry.url(), "inside/bar/app");
    let rule = format!("[[registry]]\nprefix = \"example.invalid/foo\"\nlocation = \"{}/inside/bar\"\ninsecure = true\n", registry.host());
    let file = home.write("elsewhere.conf", rule);
    home.set("CONTAINERS_REGISTRIES_CONF", file);
    // Plain HTTP is expected on this machine: no warning about TLS.
    let resolved = home.run(&["resolve", "example.invalid/foo/app:v1"]);
    assert!(resolved.status.success() && resolved.stderr.is_empty(), "{}", text(&resolved));
    let mount = home.mount("example.invalid/foo/app:v1", &[]);
    assert_eq!(mount.cat("large").unwrap(), large);
    mount.unmount();
}

#[test]
fn doctor_shows_each_mirror_and_its_state() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let (registry, home) = (Registry::plain(), Home::new());
    let down = Proxy::start(registry.url());
    down.refuse();
    let near = Proxy::start(registry.url());
    mirror(&home, &registry.host(), &(host(&down.url()) + &host(&near.url())));
    let output = home.run(&["doctor", "--format", "json", &registry.host()]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mirrors: Vec<_> = report["findings"].as_array().unwrap().iter().filter(|finding| finding["step"] == "mirror").collect();
    let verdicts: Vec<_> = mirrors.iter().map(|finding| finding["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["warning", "ok"], "{}", text(&output));
    assert!(
        mirrors[0]["found"].as_str().unwrap().contains("connection refused")
            && mirrors[1]["found"].as_str().unwrap().contains("hosts.toml")
    );
}
