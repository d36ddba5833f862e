//! `manifest`, `blob` and `attach`: exact stored bytes, and attachments.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::artifacts::{Draft, MANIFEST};
use crate::support::commands::{fails, fixture, json as printed, prints};
use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 1] = [Need::Tool("docker-registry")];

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A registry with the files of ORAS at `app:v1`.
fn registry(home: &Home) -> (Registry, String) {
    let registry = Registry::plain();
    let place = format!("{}/app", registry.host());
    prints(home, &["cp", &format!("{}:v1", fixture("oras-files")), &format!("{place}:v1,v2")]);
    (registry, place)
}

/// Standard output of a command with this standard input.
fn piped(home: &Home, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = home.ocifs(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    output.stdout
}

#[test]
fn a_manifest_and_its_config_are_printed_byte_for_byte() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (_registry, place) = registry(&home);
    let reference = format!("{place}:v1");
    let wanted = prints(&home, &["resolve", &reference]);
    let raw = home.run(&["manifest", "get", &reference]).stdout;
    assert_eq!(digest(&raw), wanted.trim());
    let file = home.path("manifest.json");
    prints(&home, &["manifest", "fetch", &reference, "-o", file.to_str().unwrap()]);
    assert_eq!(std::fs::read(&file).unwrap(), raw);
    let value: Value = serde_json::from_slice(&raw).unwrap();
    let descriptor: Value = serde_json::from_str(&prints(&home, &["manifest", "get", "--descriptor", &reference])).unwrap();
    assert_eq!(descriptor, json!({"mediaType": MANIFEST, "digest": wanted.trim(), "size": raw.len()}));
    let pretty = prints(&home, &["manifest", "get", "--pretty", &reference]);
    assert!(pretty.contains("\n  \"config\"") && serde_json::from_str::<Value>(&pretty).unwrap() == value, "{pretty}");
    let config = home.run(&["manifest", "fetch-config", &reference]).stdout;
    assert_eq!((digest(&config).as_str(), config.len()), (value["config"]["digest"].as_str().unwrap(), 2));
    let of_config: Value = serde_json::from_str(&prints(&home, &["manifest", "config", "--descriptor", &reference])).unwrap();
    assert_eq!(of_config["digest"], value["config"]["digest"]);
    fails(&home, &["manifest", "config", &format!("{}:members", fixture("image-index"))], 2, "index");
}

#[test]
fn a_manifest_is_put_by_tags_or_digest_and_a_wrong_one_is_refused() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (_registry, place) = registry(&home);
    let raw = home.run(&["manifest", "get", &format!("{place}:v1")]).stdout;
    let mut value: Value = serde_json::from_slice(&raw).unwrap();
    value["annotations"]["note"] = json!("changed");
    let changed = serde_json::to_vec_pretty(&value).unwrap();
    let file = home.write("changed.json", &changed);
    let file = file.to_str().unwrap();
    let report = printed(&home, &["manifest", "put", &format!("{place}:new,other"), file]);
    assert_eq!(report["references"], json!([format!("{place}:new"), format!("{place}:other")]));
    for tag in ["new", "other"] {
        assert_eq!(prints(&home, &["resolve", &format!("{place}:{tag}")]).trim(), digest(&changed));
    }
    let again = piped(&home, &["manifest", "push", &format!("{place}:stdin"), "-"], &changed);
    assert_eq!(String::from_utf8(again).unwrap(), format!("{place}:stdin  {}\n", digest(&changed)));
    prints(&home, &["manifest", "put", &format!("{place}@{}", digest(&changed)), file]);
    fails(&home, &["manifest", "put", &format!("{place}@{}", digest(b"x")), file], 2, "digest");
    value.as_object_mut().unwrap().remove("mediaType");
    let untyped = home.write("untyped.json", value.to_string());
    let untyped = untyped.to_str().unwrap();
    fails(&home, &["manifest", "put", &format!("{place}:no"), untyped], 2, "--media-type");
    prints(&home, &["manifest", "put", &format!("{place}:yes"), untyped, "--media-type", MANIFEST]);
    value["mediaType"] = json!(MANIFEST);
    value["layers"] = json!([{"mediaType": "a/b", "digest": digest(b"never sent"), "size": 10}]);
    let dangling = home.write("dangling.json", value.to_string());
    fails(&home, &["manifest", "put", &format!("{place}:dangling"), dangling.to_str().unwrap()], 2, "manifest");
    fails(&home, &["resolve", &format!("{place}:dangling")], 10, "dangling");
    fails(&home, &["manifest", "put", &format!("{place}:none"), "none.json"], 10, "none.json");
}

#[test]
fn deleting_a_manifest_removes_its_tags_and_referrers_entry() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (_registry, place) = registry(&home);
    let reference = format!("{place}:v1");
    fails(&home, &["manifest", "rm", &reference], 2, "--yes");
    let note = printed(&home, &["attach", &reference, "--artifact-type", "application/vnd.example.note", "-a", "k=v"]);
    let count = || printed(&home, &["discover", &reference])["referrers"].as_array().unwrap().len();
    assert_eq!(count(), 1);
    prints(&home, &["manifest", "rm", "-y", note["reference"].as_str().unwrap()]);
    assert_eq!(count(), 0);
    prints(&home, &["manifest", "delete", "-y", &reference]);
    assert_eq!(prints(&home, &["repo", "tags", "--exclude-digest-tags", &place]), "");
    fails(&home, &["manifest", "rm", "-y", &reference], 10, "v1");
    assert_eq!(prints(&home, &["manifest", "rm", "-f", &reference]), "");
}

#[test]
fn a_blob_survives_a_round_trip_and_wrong_bytes_are_an_error() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (registry, place) = registry(&home);
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    let file = home.write("blob", &content);
    let file = file.to_str().unwrap();
    let report = printed(&home, &["blob", "put", &place, file]);
    assert_eq!((report["digest"].as_str().unwrap(), report["sent"].as_bool()), (digest(&content).as_str(), Some(true)));
    assert_eq!(printed(&home, &["blob", "push", &place, file])["sent"], false);
    let reference = format!("{place}@{}", digest(&content));
    assert_eq!(home.run(&["blob", "get", &reference]).stdout, content);
    let copy = home.path("copy");
    prints(&home, &["blob", "fetch", &reference, "-o", copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(&copy).unwrap(), content);
    let descriptor: Value = serde_json::from_str(&prints(&home, &["blob", "get", "--descriptor", &reference])).unwrap();
    assert_eq!(descriptor["size"], content.len());
    fails(&home, &["blob", "put", &format!("{place}@{}", digest(b"x")), file], 2, "digest");
    fails(&home, &["blob", "put", &place, file, "--size", "7"], 2, "3000000 bytes");
    // ORAS requires --size here; ocifs spools to an unnamed file.
    let from_stdin = piped(&home, &["blob", "put", &place, "-"], b"from a pipe");
    assert_eq!(String::from_utf8(from_stdin).unwrap().trim(), format!("{place}@{}", digest(b"from a pipe")));

    let broken = home.path("broken");
    let mut bytes = content.clone();
    bytes[2_999_999] ^= 1;
    std::fs::write(registry.blob_file(&digest(&content)), &bytes).unwrap();
    fails(&home, &["blob", "get", &reference, "-o", broken.to_str().unwrap()], 1, "digest");
    assert!(!broken.exists());
    fails(&home, &["blob", "rm", &reference], 2, "--yes");
    prints(&home, &["blob", "rm", "-y", &reference]);
    fails(&home, &["blob", "rm", "-y", &reference], 10, "blob");
    assert_eq!(prints(&home, &["blob", "delete", "-f", &reference]), "");
    fails(&home, &["blob", "get", &format!("{place}:v1")], 2, &format!("{place}@sha256:"));
}

#[test]
fn an_index_is_created_with_platforms_and_updated_member_by_member() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let place = format!("{}/multi", registry.host());
    for tag in ["linux-amd64", "linux-arm64", "linux-arm-v7", "windows-amd64"] {
        prints(&home, &["cp", &format!("{}:{tag}", fixture("image-index")), &format!("{place}:{tag}")]);
    }
    let members = |tag: &str| {
        let index: Value = serde_json::from_slice(&home.run(&["manifest", "get", &format!("{place}:{tag}")]).stdout).unwrap();
        let member = |member: &Value| format!("{}/{}", member["platform"]["os"], member["platform"]["architecture"]).replace('"', "");
        (index["manifests"].as_array().unwrap().iter().map(member).collect::<Vec<_>>(), index)
    };
    prints(&home, &["manifest", "index", "create", &format!("{place}:all,latest"), "linux-amd64", "windows-amd64", "-a", "k=v"]);
    let (found, index) = members("all");
    assert_eq!((found, &index["annotations"]), (vec!["linux/amd64".to_owned(), "windows/amd64".to_owned()], &json!({"k": "v"})));
    assert_eq!(members("latest").1, index);
    let arm = prints(&home, &["resolve", &format!("{place}:linux-arm64")]);
    prints(
        &home,
        &["manifest", "index", "update", &format!("{place}:all"), "--add", arm.trim(), "--remove", "windows-amd64", "--tag", "v2"],
    );
    assert_eq!(members("all").0, ["linux/amd64", "linux/arm64"]);
    assert_eq!(members("v2").1, members("all").1);
    assert_eq!(members("all").1["annotations"], json!({"k": "v"}));
    prints(&home, &["manifest", "index", "update", &format!("{place}:latest"), "--merge", "all"]);
    assert_eq!(members("latest").0, ["linux/amd64", "windows/amd64", "linux/arm64"]);
    let file = home.path("index.json");
    prints(&home, &["manifest", "index", "pack", &place, "linux-amd64", "-o", file.to_str().unwrap()]);
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(written["manifests"].as_array().unwrap().len(), 1);
    fails(&home, &["manifest", "index", "update", &format!("{place}:all"), "--remove", "windows-amd64"], 10, "no member");
    fails(&home, &["manifest", "index", "update", &format!("{place}:all")], 2, "--add");
    fails(&home, &["manifest", "index", "create", &format!("{place}:x"), "none"], 10, "none");
    fails(&home, &["manifest", "index", "update", &format!("{place}:linux-amd64"), "--add", "all"], 2, "not an index");
}

#[test]
fn attachments_are_as_oras_writes_them_and_are_discovered() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (_registry, place) = registry(&home);
    let reference = format!("{place}:v1");
    home.write("work/foobar/bar", "bar");
    let work = home.path("work");
    let work = work.to_str().unwrap();
    fails(&home, &["attach", &reference, "--artifact-type", "a/b"], 2, "nothing to attach");
    fails(&home, &["attach", &reference, "-C", work, "--artifact-type", "a/b", "none"], 10, "none");
    fails(&home, &["attach", &place, "--artifact-type", "a/b", "-a", "k=v"], 2, ":TAG");
    let export = home.path("export.json");
    let flags = ["--artifact-type", "application/vnd.example.sbom", "-a", "k=v", "--export-manifest", export.to_str().unwrap()];
    let report = printed(&home, &[&["attach", &reference, "-C", work, "foobar/bar"], &flags[..]].concat());
    let raw = std::fs::read(&export).unwrap();
    assert_eq!(report["digest"].as_str().unwrap(), digest(&raw));
    let manifest: Value = serde_json::from_slice(&raw).unwrap();
    let bar = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";
    let layer = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": bar, "size": 3,
        "annotations": {"org.opencontainers.image.title": "foobar/bar"}});
    assert_eq!(manifest["layers"], json!([layer]));
    let subject = prints(&home, &["resolve", &reference]);
    assert_eq!(manifest["subject"]["digest"], subject.trim());
    assert_eq!(manifest["annotations"], json!({"k": "v"}), "no time is written unasked");
    prints(&home, &["attach", &reference, "--artifact-type", "application/vnd.example.note", "-a", "second=1"]);
    let found = printed(&home, &["discover", &reference]);
    let mut types: Vec<&str> = found["referrers"].as_array().unwrap().iter().map(|node| node["artifactType"].as_str().unwrap()).collect();
    types.sort_unstable();
    assert_eq!(types, ["application/vnd.example.note", "application/vnd.example.sbom"]);
    assert_eq!(prints(&home, &["repo", "tags", "--exclude-digest-tags", &place]), "v1\nv2\n", "no tag is put");
}

#[test]
fn attachments_of_several_writers_at_once_are_all_found() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (_registry, place) = registry(&home);
    let reference = format!("{place}:v1");
    let attach = |number: usize| {
        let note = format!("writer={number}");
        let flags = ["attach", &reference, "--artifact-type", "application/vnd.example.note", "-a", &note];
        home.ocifs(&flags).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in (0..6).map(attach).collect::<Vec<_>>() {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let found = printed(&home, &["discover", &reference]);
    let mut writers: Vec<&str> =
        found["referrers"].as_array().unwrap().iter().map(|node| node["annotations"]["writer"].as_str().unwrap()).collect();
    writers.sort_unstable();
    assert_eq!(writers, ["0", "1", "2", "3", "4", "5"]);
}

#[test]
fn a_layout_takes_attachments_and_blobs_too() {
    let home = Home::new();
    let mut draft = Draft::new();
    draft.files("v1", &[("file", b"content")]);
    let place = format!("oci:{}", draft.path().display());
    prints(&home, &["attach", &format!("{place}:v1"), "--artifact-type", "application/vnd.example.note", "-a", "k=v"]);
    let found = printed(&home, &["discover", &format!("{place}:v1")]);
    assert_eq!(found["referrers"][0]["annotations"], json!({"k": "v"}));
    let file = home.write("loose", "loose");
    prints(&home, &["blob", "put", &place, file.to_str().unwrap()]);
    let reference = format!("{place}@{}", digest(b"loose"));
    assert_eq!(prints(&home, &["blob", "get", &reference]), "loose");
    prints(&home, &["blob", "rm", "-y", &reference]);
    fails(&home, &["blob", "rm", "-y", &format!("{place}@{}", digest(b"content"))], 13, "part of an artifact");
    assert_eq!(prints(&home, &["ls", &format!("{place}:v1")]), "file\n");
}

#[test]
fn an_attach_interrupted_by_a_dying_registry_is_completed_by_the_next() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (registry, place) = registry(&home);
    let proxy = Proxy::start(registry.url());
    let reference = place.replace(&registry.host(), &proxy.host()) + ":v1";
    let flags = ["attach", &reference, "--artifact-type", "application/vnd.example.note", "-a", "k=v", "--io-timeout", "1s"];
    proxy.spoil_method("PUT", "/manifests/", 1000, Fault::Status(500));
    fails(&home, &flags, 14, "manifest");
    proxy.mend();
    assert_eq!(printed(&home, &["discover", &reference])["referrers"], json!([]));
    prints(&home, &flags);
    assert_eq!(printed(&home, &["discover", &reference])["referrers"].as_array().unwrap().len(), 1);
}
