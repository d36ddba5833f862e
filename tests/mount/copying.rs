//! Copies, digests and tags by command, with a real registry: skopeo and a mount see what arrived.

use std::path::Path;
use std::process::Command;

use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 2] = [Need::Tool("docker-registry"), Need::Tool("skopeo")];
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn layout(name: &str) -> String {
    format!("oci:{FIXTURES}/{name}/layout")
}

fn runs(home: &Home, arguments: &[&str]) -> String {
    let output = home.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn fails(home: &Home, arguments: &[&str], code: i32, word: &str) {
    let output = home.run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
    assert!(text(&output).contains(word), "{arguments:?}: {}", text(&output));
}

/// The digest reported by skopeo.
fn by_skopeo(reference: &str) -> String {
    let output =
        Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]).output().unwrap();
    assert!(output.status.success(), "{reference}: {}", text(&output));
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), &output.stdout).unwrap();
    let digest = Command::new("skopeo").arg("manifest-digest").arg(path.path()).output().unwrap();
    String::from_utf8(digest.stdout).unwrap().trim().to_owned()
}

/// A tag of a fixture.
fn tag_of(home: &Home, name: &str) -> String {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(Path::new(FIXTURES).join(name).join("layout/index.json")).unwrap()).unwrap();
    let tags = index["manifests"].as_array().unwrap().iter();
    let tag = tags.filter_map(|entry| entry["annotations"]["org.opencontainers.image.ref.name"].as_str()).next().unwrap().to_owned();
    assert!(runs(home, &["resolve", &format!("{}:{tag}", layout(name))]).starts_with("sha256:"));
    tag
}

#[test]
fn copies_keep_their_digest_from_layout_to_registry_to_registry_and_back() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, one, two) = (Home::new(), Registry::plain(), Registry::plain());
    for name in ["oras-files", "image-index", "image-estargz", "oci-sync-go"] {
        let tag = tag_of(&home, name);
        let source = format!("{}:{tag}", layout(name));
        let digest = runs(&home, &["resolve", &source]).trim().to_owned();
        let (first, second) = (format!("{}/a/{name}:v1", one.host()), format!("{}/b/{name}", two.host()));
        runs(&home, &["cp", &source, &format!("{first},v2")]);
        runs(&home, &["cp", &first, &second]);
        let back = format!("oci:{}", home.path(&format!("back-{name}")).display());
        runs(&home, &["cp", &format!("{second}:v1"), &format!("{back}:again")]);
        for reference in [&first, &format!("{}/a/{name}:v2", one.host()), &format!("{second}:v1")] {
            assert_eq!(by_skopeo(reference), digest, "{reference}");
        }
        assert_eq!(runs(&home, &["resolve", &format!("{back}:again")]).trim(), digest);
        let by_digest = runs(&home, &["resolve", "-l", &first]);
        assert_eq!(by_digest.trim(), format!("{}/a/{name}@{digest}", one.host()));
    }
}

#[test]
fn a_second_copy_sends_nothing_and_a_repository_of_the_same_registry_is_mounted_from() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let source = format!("{}:{}", layout("oras-files"), tag_of(&home, "oras-files"));
    let first = format!("{}/a:v1", registry.host());
    let blobs = |output: &str, key: &str| serde_json::from_str::<serde_json::Value>(output).unwrap()[key][1].as_u64().unwrap();
    let output = runs(&home, &["cp", "--format", "json", &source, &first]);
    assert!(blobs(&output, "sent") > 0, "{output}");
    let output = runs(&home, &["cp", "--format", "json", &source, &first]);
    assert_eq!(blobs(&output, "sent"), 0, "{output}");
    let output = runs(&home, &["cp", "--format", "json", &first, &format!("{}/b:v1", registry.host())]);
    assert_eq!(blobs(&output, "sent"), 0, "{output}");
    assert!(blobs(&output, "reused") > 0, "{output}");
}

#[test]
fn referrers_are_copied_on_request() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let source = format!("{}:{}", layout("oras-referrers"), tag_of(&home, "oras-referrers"));
    let digest = runs(&home, &["resolve", &source]).trim().replace(':', "-");
    for (flags, code) in [(&["cp"][..], 10), (&["cp", "-r"], 0)] {
        let destination = format!("{}/{}:v1", registry.host(), if code == 0 { "with" } else { "without" });
        runs(&home, &[flags, &[&source, &destination]].concat());
        // The fallback tag for referrers, on registries without the API.
        let listed = home.run(&["resolve", &destination.replace("v1", &digest)]);
        assert_eq!(listed.status.code(), Some(code), "{}", text(&listed));
    }
}

#[test]
fn all_tags_are_copied_and_more_tags_are_set() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let source = format!("{}:{}", layout("oras-files"), tag_of(&home, "oras-files"));
    let first = format!("{}/a:v1", registry.host());
    runs(&home, &["cp", &source, &first]);
    runs(&home, &["tag", &first, "v2", "latest"]);
    runs(&home, &["cp", "--all-tags", &format!("{}/a", registry.host()), &format!("{}/b", registry.host())]);
    for tag in ["v1", "v2", "latest"] {
        assert_eq!(by_skopeo(&format!("{}/b:{tag}", registry.host())), by_skopeo(&first));
    }
}

#[test]
fn each_side_is_reached_its_own_way() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, plain) = (Home::new(), Registry::plain());
    let secured = Registry::start(Variant { tls: true, htpasswd: true, ..Variant::default() });
    let auth = home.path("auth.json");
    let secret = base64(&format!("{USER}:{PASSWORD}"));
    std::fs::write(&auth, format!(r#"{{"auths":{{"{}":{{"auth":"{secret}"}}}}}}"#, secured.host())).unwrap();
    let source = format!("{}:{}", layout("oras-files"), tag_of(&home, "oras-files"));
    let (first, second) = (format!("{}/a:v1", secured.host()), format!("{}/a:v1", plain.host()));
    let (auth, authority) = (auth.to_str().unwrap().to_owned(), secured.ca_file().to_str().unwrap().to_owned());
    fails(&home, &["cp", &source, &first], 14, &secured.host());
    runs(&home, &["cp", "--registry-config", &auth, "--to-ca-file", &authority, &source, &first]);
    runs(&home, &["cp", "--registry-config", &auth, "--from-ca-file", &authority, &first, &second]);
    assert_eq!(runs(&home, &["resolve", &second]), runs(&home, &["resolve", &source]));
}

fn base64(text: &str) -> String {
    let output = Command::new("sh").args(["-c", "printf %s \"$0\" | base64 -w0", text]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_killed_copy_leaves_no_tag_and_the_next_completes_it() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let proxy = Proxy::start(registry.url());
    let source = format!("{}:{}", layout("oras-files"), tag_of(&home, "oras-files"));
    let destination = format!("{}/a:v1", proxy.host());
    proxy.spoil_method("PUT", "/manifests/", 1000, Fault::Status(500));
    fails(&home, &["cp", "--io-timeout", "1s", &source, &destination], 14, "a");
    proxy.mend();
    fails(&home, &["resolve", &destination], 10, "v1");
    runs(&home, &["cp", &source, &destination]);
    assert_eq!(runs(&home, &["resolve", &destination]), runs(&home, &["resolve", &source]));
}

#[test]
fn malformed_references_are_explained() {
    let home = Home::new();
    for (arguments, word) in [
        (&["cp", "reg.io/a", "reg.io/b"][..], "reg.io/a:TAG"),
        (&["cp", "reg.io/a:v1", "reg.io"], "name a repository"),
        (&["cp", "--all-tags", "reg.io/a:v1", "reg.io/b"], "--all-tags"),
        (&["cp", "reg.io/a:v1", "reg.io/b:v1,"], "tag"),
        (&["tag", "reg.io/a", "v2"], "reg.io/a:TAG"),
        (&["resolve", "reg.io/a"], "reg.io/a:TAG"),
    ] {
        fails(&home, arguments, 2, word);
    }
    let missing = format!("oci:{}:v1", home.path("none").display());
    fails(&home, &["cp", &missing, "reg.io/b:v1"], 10, "none");
}
