//! `ls`, `list`, `repo` and `discover`: their output for registries, repositories and artifacts, and the requests it costs.

use std::process::Stdio;

use serde_json::Value;

use crate::support::artifacts::Draft;
use crate::support::commands::{fails, fixture, json, prints};
use crate::support::layouts::{Layout, fixtures};
use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 1] = [Need::Tool("docker-registry")];

/// A registry with the fixtures at these repositories.
fn registry(home: &Home, places: &[(&str, &str)]) -> Registry {
    let registry = Registry::plain();
    for (name, repository) in places {
        prints(home, &["cp", "--all-tags", &fixture(name), &format!("{}/{repository}", registry.host())]);
    }
    registry
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
}

fn column<'a>(rows: &'a Value, key: &str) -> Vec<&'a str> {
    rows.as_array().unwrap().iter().map(|row| row[key].as_str().unwrap()).collect()
}

#[test]
fn a_registry_lists_repositories_and_a_repository_its_tags_and_children() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let registry = registry(&home, &[("oci-sync-go", "team/app"), ("helm", "team/app/web"), ("oras-files", "teamwork")]);
    let host = registry.host();
    assert_eq!(prints(&home, &["ls", &host]), format!("{host}/team/app\n{host}/team/app/web\n{host}/teamwork\n"));
    assert_eq!(prints(&home, &["ls", &format!("{host}/team")]), format!("{host}/team/app\n{host}/team/app/web\n"));
    let shown = prints(&home, &["ls", &format!("{host}/team/app")]);
    assert!(shown.starts_with("TAG ") && shown.ends_with(&format!("\n\n{host}/team/app/web\n")), "{shown}");
    let listed = json(&home, &["ls", &format!("{host}/team/app")]);
    assert_eq!(listed["repositories"], serde_json::json!(["team/app/web"]));
    assert_eq!(column(&listed["tags"], "tag"), ["cwd", "dir", "dot", "file", "sealed", "sealed-file"]);
    let sealed = &listed["tags"][4];
    assert_eq!((sealed["encrypted"].as_bool(), sealed["kind"].as_str()), (Some(true), Some("oci-sync")));
    assert_eq!(sealed["labels"], serde_json::json!({"env": "prod"}));
    let digest = prints(&home, &["resolve", &format!("{host}/team/app:sealed")]);
    assert_eq!(sealed["digest"].as_str().unwrap(), digest.trim());
    let yaml = prints(&home, &["ls", &format!("{host}/team/app"), "--format", "yaml"]);
    assert!(yaml.contains(&format!("digest: {}", digest.trim())), "{yaml}");
}

#[test]
fn labels_select_tags_by_key_or_value_and_all_must_match() {
    let home = Home::new();
    let place = fixture("oci-sync-go");
    let found = |labels: &[&str]| {
        let flags: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
        let listed = json(&home, &[&["list", "-r", &place], flags.as_slice()].concat());
        let same = json(&home, &[&["ls", &place], flags.as_slice()].concat());
        let tags: Vec<String> = column(&listed, "tag").into_iter().map(str::to_owned).collect();
        assert_eq!(column(&same["tags"], "tag"), tags, "{labels:?}");
        tags
    };
    assert_eq!(found(&["env"]), ["dir", "sealed"]);
    assert_eq!(found(&["env=prod", "owner"]), ["dir"]);
    assert!(found(&["env=test"]).is_empty());
    assert!(found(&["io.oci-sync.version"]).is_empty(), "what carries the format is no label");
}

#[test]
fn list_shows_only_oci_sync_artifacts_with_oci_sync_s_keys() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let registry = registry(&home, &[("oci-sync-go", "one"), ("oci-sync-rust", "two"), ("oras-files", "three")]);
    let listed = json(&home, &["list", "-r", &registry.host()]);
    let mut repositories = column(&listed, "repo");
    repositories.dedup();
    assert_eq!(repositories, ["one", "two"]);
    for artifact in listed.as_array().unwrap() {
        let mut keys: Vec<&str> = artifact.as_object().unwrap().keys().map(String::as_str).collect();
        keys.retain(|key| *key != "labels");
        assert_eq!(keys, ["digest", "encrypted", "fullName", "repo", "size", "tag", "version"]);
        let name = format!("{}/{}:{}", registry.host(), artifact["repo"].as_str().unwrap(), artifact["tag"].as_str().unwrap());
        assert_eq!(artifact["fullName"], name);
    }
    let table = prints(&home, &["list", "-r", &format!("{}/one", registry.host()), "-f", "table"]);
    assert!(table.starts_with("REPO  TAG ") && table.ends_with("Total: 6 artifact(s)\n"), "{table}");
    assert!(table.contains(&format!("{}...", &listed[0]["digest"].as_str().unwrap()[..32])), "{table}");
    assert_eq!(prints(&home, &["list", "-r", &format!("{}/three", registry.host()), "-f", "json"]), "[]\n");
}

/// A path in an expected tree, with odd bytes as `\\xNN`.
fn unescaped(path: &str) -> String {
    let mut parts = path.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn the_listed_tree_equals_the_tool_s_own() {
    let home = Home::new();
    let mut compared = 0;
    for name in ["oras-dirs", "oras-files", "image-umoci", "image-estargz", "oci-sync-go", "helm"] {
        for tag in Layout::fixture(name).tags() {
            let expected = fixtures().join(name).join("expected").join(format!("{tag}.tsv"));
            let Ok(expected) = std::fs::read_to_string(&expected) else { continue };
            let output = home.run(&["ls", "-R", "--format", "json", &format!("{}:{tag}", fixture(name))]);
            if output.status.code() == Some(12) {
                continue;
            }
            assert!(output.status.success(), "{name}:{tag}: {}", text(&output));
            let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
            let rows = listed["entries"].as_array().unwrap().iter();
            let found: std::collections::BTreeMap<&str, &Value> = rows.map(|row| (row["path"].as_str().unwrap(), row)).collect();
            for line in expected.lines() {
                let columns: Vec<&str> = line.split('\t').collect();
                let path = unescaped(columns[7]);
                let entry = found.get(path.as_str()).unwrap_or_else(|| panic!("{name}:{tag}: {line}"));
                if columns[0] == "f" {
                    assert_eq!(entry["size"].to_string(), columns[4], "{name}:{tag}: {line}");
                    assert_eq!(entry["sha256"].as_str(), Some(columns[6]), "{name}:{tag}: {line}");
                }
            }
            assert_eq!(found.len(), expected.lines().count(), "{name}:{tag}");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn a_directory_a_file_and_everything_below_are_listed_by_path() {
    let home = Home::new();
    let place = format!("{}:mixed", fixture("oras-dirs"));
    assert_eq!(prints(&home, &["ls", &place]), "docs/\none.txt\nsite/\n");
    assert_eq!(prints(&home, &["ls", &format!("{place}/docs/")]), "docs/img/\ndocs/readme.md\n");
    let file = prints(&home, &["ls", "-l", &format!("{place}/docs/./readme.md")]);
    assert!(file.starts_with("-rw-r--r-- ") && file.ends_with(" 7 2023-11-14 22:13 docs/readme.md\n"), "{file}");
    assert!(prints(&home, &["ls", "-R", &place]).contains("site/bin/run.sh\n"));
    fails(&home, &["ls", &format!("{place}/docs/none")], 10, "docs/none");
    let link = format!("{}:dot", fixture("oras-dirs"));
    assert!(prints(&home, &["ls", "-l", &link]).contains("k -> y/z\n"));
    fails(&home, &["ls", &format!("{link}/k/x")], 10, "symlink to y/z");
}

#[test]
fn listing_tags_or_an_indexed_tree_fetches_no_layer() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, (registry, layers)) = (Home::new(), super::attached_index::published(&[7; 1 << 20]));
    let proxy = Proxy::start(registry.url());
    let place = format!("{}/team/data", proxy.host());
    assert_eq!(column(&json(&home, &["ls", &place])["tags"], "tag"), ["v1"]);
    assert_eq!(proxy.count("GET", "/blobs/"), 0);
    assert_eq!(prints(&home, &["ls", &format!("{place}:v1")]), "packed\nraw\n");
    assert_eq!(prints(&home, &["ls", &format!("{place}:v1/packed")]), "packed\n");
    for data in [&layers[0], &layers[2]] {
        assert_eq!(proxy.count("GET", data["digest"].as_str().unwrap()), 0);
    }
    prints(&home, &["ls", &format!("{place}:v1")]);
    assert_eq!(proxy.count("GET", "/blobs/"), 2, "the indexes are kept");
}

#[test]
fn absent_names_are_reported_with_the_right_spelling() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let registry = registry(&home, &[("oras-files", "team/app")]);
    let host = registry.host();
    fails(&home, &["ls", &format!("{host}/team/app/v1")], 10, &format!("did you mean the tag {host}/team/app:v1?"));
    fails(&home, &["repo", "tags", &format!("{host}/team/app/v1")], 10, &format!("{host}/team/app:v1"));
    fails(&home, &["ls", &format!("{host}/nothing")], 10, "neither a repository nor a prefix");
    fails(&home, &["ls", &format!("{host}/team/app:none")], 10, "none");
    fails(&home, &["ls", &format!("oci://{host}/team/app")], 2, "oci:");
    fails(&home, &["ls", &format!("https://{host}/team/app")], 2, &format!("write {host}/team/app"));
    fails(&home, &["list", "-r", &format!("{host}/team/app:v1")], 2, "inspect");
    fails(&home, &["discover", &format!("{host}/team/app")], 2, "team/app:TAG");
    fails(&home, &["ls", "127.0.0.1:1/team/app"], 14, "127.0.0.1:1");
}

#[test]
fn a_registry_without_a_catalog_says_so_and_lists_the_tags_of_a_repository() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let registry = registry(&home, &[("oras-files", "team/app")]);
    let proxy = Proxy::start(registry.url());
    proxy.spoil("/_catalog", 1000, Fault::Status(401));
    fails(&home, &["ls", &proxy.host()], 1, "does not list its repositories");
    let listed = json(&home, &["ls", &format!("{}/team/app", proxy.host())]);
    assert_eq!(listed["complete"], false);
    assert!(column(&listed["tags"], "tag").contains(&"v1"));
}

#[test]
fn one_broken_manifest_hides_no_other_tag() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let registry = registry(&home, &[("oras-files", "app")]);
    // With a cache of its own, which would otherwise have the manifest.
    let digest = prints(&Home::new(), &["resolve", &format!("{}/app:v2", registry.host())]);
    std::fs::write(registry.blob_file(digest.trim()), "{}").unwrap();
    let output = home.run(&["ls", &format!("{}/app", registry.host())]);
    assert_ne!(output.status.code(), Some(0));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("\nv1 ") && !shown.contains("\nv2 "), "{shown}");
    assert!(text(&output).contains("app:v2: ") && text(&output).contains("1 of "), "{}", text(&output));
}

#[test]
fn repo_lists_bare_names_by_whole_components_and_after_a_name() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let registry = registry(&home, &[("oras-fallback", "team/app"), ("helm", "teamwork"), ("oras-files", "team/web")]);
    let host = registry.host();
    let names = |arguments: &[&str]| prints(&home, arguments).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&["repo", "ls", &host]), ["team/app", "team/web", "teamwork"]);
    assert_eq!(names(&["repo", "list", &format!("{host}/team")]), ["team/app", "team/web"]);
    assert_eq!(names(&["repo", "ls", &host, "--last", "team/app"]), ["team/web", "teamwork"]);
    let found = json(&home, &["repo", "ls", &host]);
    assert_eq!((found["registry"].as_str(), strings(&found["repositories"]).len()), (Some(host.as_str()), 3));
    let all = names(&["repo", "tags", &format!("{host}/team/app")]);
    assert!(all.iter().any(|tag| tag.starts_with("sha256-")), "{all:?}");
    assert_eq!(names(&["repo", "tags", "--exclude-digest-tags", &format!("{host}/team/app")]), ["v1"]);
    let web = format!("{host}/team/web");
    assert_eq!(names(&["repo", "show-tags", &format!("{web}:v1")]), ["latest", "stable", "v1"], "tags of one digest");
    assert_eq!(names(&["repo", "tags", &web, "--last", "v10"]), ["v2", "wasm"]);
    assert!(strings(&json(&home, &["repo", "tags", &web])["tags"]).contains(&"wasm"));
}

#[test]
fn referrers_are_discovered_by_the_fallback_tag_by_type_and_by_depth() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let (registry, source) = (Registry::plain(), format!("{}:v1", fixture("oras-referrers")));
    let place = format!("{}/app:v1", registry.host());
    prints(&home, &["cp", "-r", &source, &place]);
    let (there, here) = (json(&home, &["discover", &place]), json(&home, &["discover", &source]));
    let digests = |node: &Value| {
        let mut found: Vec<String> = column(&node["referrers"], "digest").into_iter().map(str::to_owned).collect();
        found.sort();
        found
    };
    assert_eq!(digests(&there), digests(&here));
    assert_eq!(there["referrers"].as_array().unwrap().len(), 4);
    let sbom = there["referrers"].as_array().unwrap().iter().find(|node| node["artifactType"] == "application/spdx+json").unwrap();
    assert_eq!(sbom["referrers"][0]["artifactType"], "application/vnd.example.signature.v1");
    let tree = prints(&home, &["discover", &place]);
    assert!(tree.contains("── application/spdx+json\n") && tree.contains(sbom["digest"].as_str().unwrap()), "{tree}");
    let flat = json(&home, &["discover", "--depth", "1", &place]);
    assert!(flat["referrers"].as_array().unwrap().iter().all(|node| node["referrers"] == serde_json::json!([])));
    let filtered = json(&home, &["discover", "--artifact-type", "application/vnd.example.scan", &place]);
    assert_eq!(column(&filtered["referrers"], "artifactType"), ["application/vnd.example.scan"]);
    assert_eq!(prints(&home, &["discover", "--format", "table", &place]).lines().count(), 6);
    let none = json(&home, &["discover", &format!("{}:v1", fixture("oras-files"))]);
    assert_eq!(none["referrers"], serde_json::json!([]));
}

#[test]
fn names_from_a_registry_cannot_control_the_terminal() {
    let home = Home::new();
    let mut draft = Draft::new();
    draft.files("v1", &[("\u{1b}[2J.txt", b"x")]);
    let place = format!("oci:{}:v1", draft.path().display());
    for format in ["text", "json", "yaml"] {
        let shown = prints(&home, &["ls", "-l", &place, "--format", format]);
        assert!(!shown.contains('\u{1b}') && shown.contains(".txt"), "{shown:?}");
    }
}

#[test]
fn a_pipe_closed_early_is_not_an_error() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = home.ocifs(&["ls", "-R", &format!("{}:mixed", fixture("oras-dirs"))]);
    let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
}
