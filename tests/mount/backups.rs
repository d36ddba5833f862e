//! `backup` and `restore`: content is restored unchanged, and nothing is fetched or sent twice.

use crate::support::commands::{fails, fixture, json, manifest, prints};
use crate::support::mounting::Home;
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 1] = [Need::Tool("docker-registry")];

/// A registry with two tags at `team/app`, one of which has signatures and other referrers.
fn registry(home: &Home) -> (Registry, String) {
    let registry = Registry::plain();
    let place = format!("{}/team/app", registry.host());
    prints(home, &["cp", "-r", &format!("{}:v1", fixture("oras-referrers")), &place]);
    prints(home, &["cp", &format!("{}:v2", fixture("oras-files")), &place]);
    (registry, place)
}

fn digests(home: &Home, place: &str) -> Vec<String> {
    ["v1", "v2"].map(|tag| prints(home, &["resolve", &format!("{place}:{tag}")])).to_vec()
}

fn referrers(home: &Home, place: &str) -> Vec<String> {
    let found = json(home, &["discover", &format!("{place}:v1")]);
    let mut found: Vec<String> =
        found["referrers"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

#[test]
fn a_backup_is_restored_with_digests_and_referrers_from_a_directory_and_a_tar() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (registry, place) = registry(&home);
    assert!(referrers(&home, &place).len() > 1);
    for name in ["folder", "backup.tar"] {
        let path = home.path(name);
        let path = path.to_str().unwrap();
        prints(&home, &["backup", &place, path]);
        let other = Registry::plain();
        let there = format!("{}/other/name", other.host());
        let planned = json(&home, &["restore", path, &there, "--dry-run"]);
        assert!(planned["tags"].as_array().unwrap().iter().all(|tag| tag["before"].is_null()));
        fails(&home, &["resolve", &format!("{there}:v1")], 10, "v1");
        prints(&home, &["restore", path, &there]);
        assert_eq!((digests(&home, &there), referrers(&home, &there)), (digests(&home, &place), referrers(&home, &place)));
        let again = json(&home, &["restore", "--input", path, &there]);
        assert_eq!(again["sent"], serde_json::json!([0, 0]));
        let planned = prints(&home, &["restore", path, &format!("{there}:v2"), "-n"]);
        assert!(planned.contains(":v2") && planned.contains("unchanged") && !planned.contains(":v1"), "{planned}");
        let bare = format!("{}/bare", other.host());
        prints(&home, &["restore", path, &bare, "--exclude-referrers"]);
        assert_eq!((digests(&home, &bare), referrers(&home, &bare).len()), (digests(&home, &place), 0));
    }
    drop(registry);
}

#[test]
fn a_second_backup_fetches_only_new_content_and_an_interrupted_one_resumes() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (registry, place) = registry(&home);
    let proxy = Proxy::start(registry.url());
    let source = format!("{}/team/app", proxy.host());
    for name in ["folder", "backup.tar"] {
        let path = home.path(name);
        let path = path.to_str().unwrap();
        let manifest = manifest(&home, &format!("{place}:v2"));
        // The last blob is empty, and empty blobs are not fetched.
        let last = manifest["layers"][2]["digest"].as_str().unwrap().to_owned();
        proxy.spoil_method("GET", &last, 99, Fault::Status(404));
        fails(&home, &["backup", &source, "-o", path, "--concurrency", "1"], 10, &last);
        proxy.mend();
        proxy.forget();
        prints(&home, &["backup", &source, "-o", path]);
        let fetched = |part: &str| proxy.requests().iter().filter(|seen| seen.method == "GET" && seen.path.contains(part)).count();
        assert_eq!(fetched("/blobs/"), 1, "{name}");
        proxy.forget();
        prints(&home, &["backup", &source, "-o", path]);
        assert_eq!(fetched("/blobs/"), 0, "{name}");
        proxy.forget();
        prints(&home, &["cp", &format!("{}:wasm", fixture("oras-files")), &format!("{place}:{}", name.replace('.', "-"))]);
        prints(&home, &["backup", &source, "-o", path]);
        assert!(fetched("/blobs/") <= 2, "{name}");
        let kept = json(&home, &["restore", path, &format!("{}/x", registry.host()), "-n"]);
        let count = kept["tags"].as_array().unwrap().iter().filter(|tag| !tag["reference"].as_str().unwrap().contains("sha256-")).count();
        assert!(count >= 3, "{kept}");
    }
}

#[test]
fn a_backup_of_oras_is_restored_and_anything_else_is_refused() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let theirs = fixture("oras-backup");
    let there = format!("{}/app", registry.host());
    prints(&home, &["restore", theirs.strip_prefix("oci:").unwrap(), &there]);
    let of = |place: &str| (prints(&home, &["resolve", &format!("{place}:v1")]), referrers(&home, place));
    assert_eq!(of(&there), of(&theirs));
    fails(&home, &["restore", home.path("none").to_str().unwrap(), &there], 10, "none");
    fails(&home, &["restore", home.path("none.tar").to_str().unwrap(), &there], 10, "none.tar");
    fails(&home, &["restore", home.path("state").to_str().unwrap(), &there], 2, "not an OCI image layout");
    fails(&home, &["restore", &there], 2, "PATH");
    fails(&home, &["backup", &format!("{}/none", registry.host()), home.path("x").to_str().unwrap()], 10, "none");
    fails(&home, &["backup", &there], 2, "PATH");
    assert!(!home.path("x").exists());
}
