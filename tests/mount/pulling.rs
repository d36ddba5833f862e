//! Pulling by command: the result equals what each artifact's own tool unpacks, and nothing is written outside the target.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json as value;

use crate::support::artifacts::{self, Draft, LAYER, MANIFEST, gzip, noise};
use crate::support::commands::{self, fails, json, prints};
use crate::support::folding::Folding;
use crate::support::layouts::{Layout, fixtures};
use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::{Registry, Variant};
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};

const PASSPHRASE: &str = "correct horse battery staple\n";
const REGISTRY: [Need; 1] = [Need::Tool("docker-registry")];

/// The reference of a tag of a fixture.
fn fixture(name: &str, tag: &str) -> String {
    format!("{}:{tag}", commands::fixture(name))
}

fn draft(draft: &Draft, tag: &str) -> String {
    format!("oci:{}:{tag}", draft.path().display())
}

/// Every path below a directory, sorted; temporary names too.
fn everything(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path.clone());
            }
            found.push(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// Pulls every fixture tag with an expected list, and compares.
fn every_tag(reference: impl Fn(&str, &str) -> String) {
    let home = Home::new();
    let passphrase = home.write_private("passphrase", PASSPHRASE);
    let (mut compared, mut differences) = (0, Vec::new());
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let entry = entry.unwrap();
        if !entry.path().is_dir() {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        for tag in Layout::fixture(&name).tags() {
            let expected = entry.path().join("expected").join(format!("{tag}.tsv"));
            if !expected.is_file() {
                continue;
            }
            let out = home.path(&format!("{name}-{tag}"));
            let pulled = home.run(&[
                "pull",
                &reference(&name, &tag),
                out.to_str().unwrap(),
                "--same-owner",
                "--platform=linux/amd64",
                "--passphrase-file",
                passphrase.to_str().unwrap(),
            ]);
            let mut treelist = Command::new("python3");
            treelist.arg(fixtures().join("treelist")).args(["--links", "--xattrs", "--compare"]).arg(expected).arg(&out);
            let listed = treelist.output().unwrap();
            compared += 1;
            if !pulled.status.success() || !listed.status.success() {
                differences.push(format!("{name}:{tag}: {}{}", text(&pulled), text(&listed)));
            }
        }
    }
    assert!(differences.is_empty() && compared > 50, "{compared} compared\n{}", differences.join("\n"));
}

#[test]
fn every_fixture_pulled_from_its_layout_equals_its_tool_s_tree() {
    if lacks(&[Need::Root, Need::Tool("python3")]) {
        return;
    }
    every_tag(fixture);
}

#[test]
fn every_fixture_pulled_from_a_registry_equals_its_tool_s_tree() {
    if lacks(&[Need::Root, Need::Tool("python3"), Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    for entry in std::fs::read_dir(fixtures()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        Layout::fixture(&name).push(&registry.url(), &format!("team/{name}"));
    }
    every_tag(|name, tag| format!("{}/team/{name}:{tag}", registry.host()));
}

#[test]
fn twelve_thousand_small_files_are_pulled_and_a_second_pull_writes_none() {
    let home = Home::new();
    let files: Vec<(String, Vec<u8>)> =
        (0..12_000).map(|number| (format!("d{:03}/f{number}", number % 150), format!("file {number}\n").into_bytes())).collect();
    let half = |files: &[(String, Vec<u8>)]| {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        gzip(&artifacts::tar(&files))
    };
    let mut artifact = Draft::new();
    let layers = [half(&files[..6000]), half(&files[6000..])].map(|layer| artifact.blob(&format!("{LAYER}+gzip"), &layer));
    artifact.image("v1", &layers);
    let (reference, out) = (draft(&artifact, "v1"), home.path("out"));
    let report = prints(&home, &["pull", &reference, out.to_str().unwrap()]);
    assert!(report.contains("12000 files"), "{report}");
    for (path, bytes) in &files {
        assert_eq!(std::fs::read(out.join(path)).unwrap(), *bytes, "{path}");
    }
    assert_eq!(everything(&out).len(), 12_150);
    let report = prints(&home, &["pull", &reference, out.to_str().unwrap()]);
    assert!(report.contains(" 0 files") && report.contains("12000 already there"), "{report}");
}

#[test]
fn the_umask_counts_and_set_id_bits_are_dropped() {
    let home = Home::new();
    let out = home.path("out");
    let mut command = Command::new("bash");
    command.args(["-c", r#"umask 027; exec "$0" "$@""#]).arg("timeout");
    let pulled = home.ocifs(&["pull", &fixture("oras-dirs", "dir"), out.to_str().unwrap()]);
    let variables: Vec<(OsString, Option<OsString>)> =
        pulled.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    command.args(pulled.get_args()).env_clear().envs(variables.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let mode = |name: &str| out.join(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!([mode("site/bin/run.sh"), mode("site/bin/tool"), mode("site/bin"), mode("site/closed")], [0o750, 0o750, 0o750, 0o700]);
}

#[test]
fn existing_links_lead_nothing_outside() {
    let home = Home::new();
    let mut artifact = Draft::new();
    artifact.files("v1", &[("a/b/c.txt", b"new"), ("top.txt", b"new"), ("../up.txt", b"new"), ("/srv/root.txt", b"new")]);
    let (out, outside) = (home.path("out"), home.path("outside"));
    std::fs::create_dir_all(outside.join("b")).unwrap();
    for name in ["b/c.txt", "top.txt", "up.txt"] {
        std::fs::write(outside.join(name), "old").unwrap();
    }
    for attempt in ["a", "a/b", "a/b/c.txt"] {
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir_all(out.join(attempt).parent().unwrap()).unwrap();
        symlink(outside.join(attempt.trim_start_matches("a/")), out.join(attempt)).unwrap();
        symlink(outside.join("top.txt"), out.join("top.txt")).unwrap();
        symlink("dangling", out.join("up.txt")).unwrap();
        prints(&home, &["pull", &draft(&artifact, "v1"), out.to_str().unwrap()]);
        for name in ["b/c.txt", "top.txt", "up.txt"] {
            assert_eq!(std::fs::read_to_string(outside.join(name)).unwrap(), "old", "{attempt}: {name}");
        }
        assert_eq!(everything(&outside), ["b", "b/c.txt", "top.txt", "up.txt"], "{attempt}");
        assert_eq!(std::fs::read_to_string(out.join("a/b/c.txt")).unwrap(), "new", "{attempt}");
        assert!(!home.path("up.txt").exists());
    }
}

#[test]
fn escaping_and_duplicate_titles_get_safe_names_as_in_a_mount() {
    // `oras pull` refuses the first and overwrites the second; here no data is lost.
    let home = Home::new();
    let mut artifact = Draft::new();
    artifact.files("v1", &[("../x", b"escaped"), ("same", b"one"), ("same", b"two")]);
    let out = home.path("out");
    prints(&home, &["pull", &draft(&artifact, "v1"), out.to_str().unwrap()]);
    let mut contents: Vec<String> = everything(&out).iter().map(|name| std::fs::read_to_string(out.join(name)).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, ["escaped", "one", "two"]);
    assert!(!home.path("x").exists());
}

#[test]
fn unnamed_layers_are_files_by_their_digest() {
    // `oras pull` skips them with a hint.
    let home = Home::new();
    let mut artifact = Draft::new();
    let (config, layer) = (artifact.blob("application/vnd.oci.empty.v1+json", b"{}"), artifact.blob("application/octet-stream", b"bytes"));
    artifact.tag("v1", &value!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] }));
    let out = home.path("out");
    prints(&home, &["pull", &draft(&artifact, "v1"), out.to_str().unwrap()]);
    let name = layer["digest"].as_str().unwrap().replace(':', "-");
    assert_eq!(std::fs::read(out.join(&name)).unwrap(), b"bytes");
    assert_eq!(everything(&out), [name]);
}

#[test]
fn existing_files_are_kept_on_request_and_the_second_pull_fails() {
    let home = Home::new();
    let mut artifact = Draft::new();
    artifact.files("v1", &[("one", b"1"), ("two", b"2")]);
    let (reference, out) = (draft(&artifact, "v1"), home.path("out"));
    let out = out.to_str().unwrap();
    prints(&home, &["pull", "-k", &reference, out]);
    std::fs::write(home.path("out/one"), "mine").unwrap();
    std::fs::remove_file(home.path("out/two")).unwrap();
    let output = home.run(&["pull", "--keep-old-files", &reference, out]);
    assert!(output.status.code() == Some(1) && text(&output).contains("out/one"), "{}", text(&output));
    assert_eq!((std::fs::read_to_string(home.path("out/one")).unwrap().as_str(), home.path("out/two").exists()), ("mine", true));
    prints(&home, &["pull", &reference, out]);
    assert_eq!(std::fs::read_to_string(home.path("out/one")).unwrap(), "1");
}

#[test]
fn a_platform_is_selected_and_a_missing_one_lists_the_available_ones() {
    let home = Home::new();
    let index = fixture("image-index", "buildkit");
    let report = |platform: &str| {
        let out = home.path(&platform.replace('/', "-"));
        json(&home, &["pull", &index, out.to_str().unwrap(), "--platform", platform])["pulled"][0]["platform"].as_str().unwrap().to_owned()
    };
    assert_eq!([report("linux/amd64"), report("linux/arm64")], ["linux/amd64", "linux/arm64"]);
    fails(&home, &["pull", &index, home.path("none").to_str().unwrap(), "--platform", "plan9/mips"], 10, "linux/amd64");
    assert!(!home.path("none").exists());
}

#[test]
fn a_glob_fetches_only_the_blobs_it_needs() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let proxy = Proxy::start(registry.url());
    let mut artifact = Draft::new();
    artifact.files("v1", &[("docs/a.md", &noise(1, 70_000)), ("docs/b.md", &noise(2, 70_000)), ("model.bin", &noise(3, 900_000))]);
    artifact.layout().push(&registry.url(), "app");
    let reference = format!("{}/app:v1", proxy.host());
    let out = home.path("out");
    prints(&home, &["pull", &reference, out.to_str().unwrap(), "--path", "docs"]);
    assert_eq!(everything(&out), ["docs", "docs/a.md", "docs/b.md"]);
    let sent: u64 = proxy.requests().iter().filter(|request| request.path.contains("/blobs/")).map(|request| request.sent).sum();
    assert_eq!(sent, 140_000);
    fails(&home, &["pull", &reference, home.path("none").to_str().unwrap(), "--path", "*.md"], 10, "*.md");
    assert!(!home.path("none").exists());
}

#[test]
fn one_file_goes_to_standard_output_and_a_closed_pipe_is_not_an_error() {
    let home = Home::new();
    let mut artifact = Draft::new();
    let bytes = noise(1, 3_000_000);
    artifact.files("v1", &[("one", &bytes), ("two", b"2")]);
    let reference = draft(&artifact, "v1");
    let output = home.run(&["pull", &reference, "-o", "-", "--path", "one"]);
    assert!(output.status.success() && output.stdout == bytes && output.stderr.is_empty());
    fails(&home, &["pull", &reference, "-o", "-"], 2, "--path");
    fails(&home, &["pull", &reference, "-o", "-", "--format", "json"], 2, "standard output");
    let mut pulling =
        home.ocifs(&["pull", &reference, "-o", "-", "--path", "one"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(pulling.stdout.take());
    let output = pulling.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
}

#[test]
fn a_reference_without_a_tag_is_an_error_with_the_right_spelling_and_never_latest() {
    let home = Home::new();
    for (reference, code, word) in [
        ("reg.io/app", 2, "reg.io/app:TAG"),
        ("reg.io", 2, "name an artifact"),
        (&fixture("oras-files", "v99"), 10, "v99"),
        (fixture("oras-files", "").trim_end_matches(':'), 2, "name one, like"),
        ("oci:/nowhere:v1", 10, "/nowhere"),
    ] {
        fails(&home, &["pull", reference, home.path("out").to_str().unwrap()], code, word);
    }
    assert!(!home.path("out").exists());
}

#[test]
fn the_spellings_of_other_tools_mean_the_same() {
    let home = Home::new();
    let reference = fixture("oras-files", "v1");
    for (number, flags) in [["-o"].as_slice(), &["--output"], &["-l"], &["--local"], &[]].into_iter().enumerate() {
        let out = home.path(&format!("out{number}"));
        let out = out.to_str().unwrap();
        prints(&home, &[&["pull", &reference], flags, &[out]].concat());
        let remote = format!("{out}-remote");
        prints(&home, &["pull", "-r", &reference, "-l", &remote, "-q"]);
        assert!(everything(Path::new(out)) == everything(Path::new(&remote)) && !everything(Path::new(out)).is_empty());
    }
    let inside = home.path("inside");
    std::fs::create_dir(&inside).unwrap();
    let output = home.ocifs(&["pull", &reference]).current_dir(&inside).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(everything(&inside), everything(&home.path("out0")));
}

#[test]
fn the_report_names_every_file_with_its_whole_path_size_and_digest() {
    let home = Home::new();
    let mut artifact = Draft::new();
    artifact.files("v1", &[("a/one", b"hello"), ("two", b"")]);
    let output = home.ocifs(&["pull", &draft(&artifact, "v1"), "out", "--format", "json"]).current_dir(home.path("")).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let pulled = &report["pulled"][0];
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let path = |name: &str| home.path("out").join(name).to_str().unwrap().to_owned();
    assert_eq!(pulled["files"][0], value!({ "path": path("a/one"), "size": 5, "digest": digest }));
    assert_eq!(
        (pulled["files"][1]["path"].as_str(), pulled["directory"].as_str()),
        (Some(&*path("two")), Some(home.path("out").to_str().unwrap()))
    );
    assert!(pulled["digest"].as_str().unwrap().starts_with("sha256:"));
}

#[test]
fn an_encrypted_artifact_without_its_passphrase_costs_no_blob_and_writes_nothing() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let proxy = Proxy::start(registry.url());
    Layout::fixture("oci-sync-go").push(&registry.url(), "app");
    let (reference, out) = (format!("{}/app:sealed", proxy.host()), home.path("out"));
    fails(&home, &["pull", &reference, out.to_str().unwrap()], 12, "passphrase");
    assert_eq!(proxy.count("GET", "/blobs/"), 0);
    let wrong = home.write_private("wrong", "correct horse battery stable");
    fails(&home, &["pull", &reference, out.to_str().unwrap(), "--passphrase-file", wrong.to_str().unwrap()], 12, "passphrase");
    assert!(!out.exists());
}

#[test]
fn an_unneeded_passphrase_causes_a_warning() {
    let home = Home::new();
    let (out, passphrase) = (home.path("out"), home.write_private("passphrase", PASSPHRASE));
    let flags = ["--passphrase-file", passphrase.to_str().unwrap()];
    let output = home.run(&[&["pull", &fixture("oci-sync-go", "dir"), out.to_str().unwrap()], flags.as_slice()].concat());
    assert!(output.status.success() && !everything(&out).is_empty(), "{}", text(&output));
    assert!(text(&output).contains("not encrypted"), "{}", text(&output));
}

#[test]
fn a_wrong_password_is_reported_as_such() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::start(Variant { htpasswd: true, ..Variant::default() }));
    fails(&home, &["pull", &format!("{}/app:v1", registry.host()), home.path("out").to_str().unwrap()], 11, &registry.host());
}

#[test]
fn the_subject_is_pulled_on_request_and_the_artifact_wins() {
    let home = Home::new();
    let mut artifact = Draft::new();
    artifact.files("base", &[("base.txt", b"base"), ("both.txt", b"base")]);
    let base = artifact.layout().entries()[0].clone();
    let config = artifact.blob("application/vnd.oci.empty.v1+json", b"{}");
    let mut layer = artifact.blob("application/octet-stream", b"report");
    layer["annotations"] = value!({ "org.opencontainers.image.title": "both.txt" });
    let subject = value!({ "mediaType": base["mediaType"], "digest": base["digest"], "size": base["size"] });
    artifact.tag("report", &value!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer], "subject": subject }));
    let (alone, out) = (home.path("alone"), home.path("out"));
    prints(&home, &["pull", &draft(&artifact, "report"), alone.to_str().unwrap()]);
    assert_eq!(everything(&alone), ["both.txt"]);
    prints(&home, &["pull", &draft(&artifact, "report"), out.to_str().unwrap(), "--include-subject"]);
    assert_eq!(everything(&out), ["base.txt", "both.txt"]);
    assert_eq!(std::fs::read_to_string(out.join("both.txt")).unwrap(), "report");
}

#[test]
fn a_registry_that_dies_midway_leaves_whole_files_and_the_next_pull_completes() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let proxy = Proxy::start(registry.url());
    let mut artifact = Draft::new();
    let bytes: Vec<Vec<u8>> = (0..6).map(|number| noise(number, 2_000_000)).collect();
    let names: Vec<String> = (0..6).map(|number| format!("d/f{number}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().zip(&bytes).map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    artifact.files("v1", &files);
    artifact.image("image", &[artifact.blob(&format!("{LAYER}+gzip"), &gzip(&artifacts::tar(&files)))]);
    artifact.layout().push(&registry.url(), "app");
    for tag in ["v1", "image"] {
        let (reference, out) = (format!("{}/app:{tag}", proxy.host()), home.path(tag));
        let arguments = ["pull", &reference, out.to_str().unwrap(), "--io-timeout", "2s", "--concurrency", "1"];
        let layers = artifact.layout().manifest(tag)["layers"].as_array().unwrap().clone();
        let digest = layers.get(3).unwrap_or(&layers[0])["digest"].as_str().unwrap();
        proxy.spoil(digest, 1, Fault::Cut(500_000));
        proxy.spoil(digest, 1000, Fault::Break);
        let output = home.run(&arguments);
        assert_eq!(output.status.code(), Some(14), "{}", text(&output));
        if out.exists() {
            for path in everything(&out).iter().filter(|path| *path != "d") {
                let whole = files.iter().find(|(name, _)| name == path).unwrap_or_else(|| panic!("{path} is no file of the artifact")).1;
                assert!(std::fs::read(out.join(path)).unwrap() == whole, "{path} is not whole");
            }
        }
        proxy.mend();
        prints(&home, &arguments);
        assert_eq!(everything(&out).len(), 7);
        assert!(files.iter().all(|(name, bytes)| std::fs::read(out.join(name)).unwrap() == *bytes));
    }
}

#[test]
fn bytes_with_a_wrong_digest_get_no_name() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let mut artifact = Draft::new();
    artifact.files("v1", &[("large", &noise(1, 6_000_000))]);
    artifact.layout().push(&registry.url(), "app");
    let digest = artifact.layout().manifest("v1")["layers"][0]["digest"].as_str().unwrap().to_owned();
    let stored = registry.blob_file(&digest);
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[5_000_000] ^= 1;
    std::fs::write(stored, bytes).unwrap();
    let out = home.path("out");
    fails(&home, &["pull", &format!("{}/app:v1", registry.host()), out.to_str().unwrap()], 1, &digest);
    assert!(everything(&out).is_empty());
}

#[test]
fn ctrl_c_leaves_no_temporary_file() {
    if lacks(&REGISTRY) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let proxy = Proxy::start(registry.url());
    let mut artifact = Draft::new();
    artifact.files("v1", &[("large", &noise(1, 6_000_000))]);
    artifact.layout().push(&registry.url(), "app");
    proxy.spoil("/blobs/", 1000, Fault::Stall(3_000_000));
    let out = home.path("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocifs"));
    let prepared = home.ocifs(&["pull", &format!("{}/app:v1", proxy.host()), out.to_str().unwrap()]);
    // Without `timeout`, which would take the signal.
    let arguments = prepared.get_args().skip_while(|argument| *argument != "pull");
    command.args(arguments).env_clear().envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?)))).stderr(Stdio::piped());
    let pulling = command.spawn().unwrap();
    while proxy.requests().iter().all(|request| request.sent < 1_000_000) || !out.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&pulling), rustix::process::Signal::INT).unwrap();
    let output = pulling.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(everything(&out).is_empty() && text(&output).contains("the next pull resumes"), "{}", text(&output));
    proxy.mend();
    prints(&home, &["pull", &format!("{}/app:v1", proxy.host()), out.to_str().unwrap()]);
    assert_eq!(out.join("large").metadata().unwrap().len(), 6_000_000);
}

#[test]
fn names_the_file_system_considers_equal_are_an_error_naming_both() {
    if lacks(&[Need::Fuse, Need::Root]) {
        return;
    }
    let home = Home::new();
    let folding = Folding::mount(home.path("folding"), home.path("store"));
    let mut artifact = Draft::new();
    artifact.files("clash", &[("d/Makefile", b"large"), ("d/makefile", b"small"), ("top", b"x")]);
    artifact.files("directories", &[("Docs/a", b"1"), ("docs/b", b"2")]);
    artifact.files("fine", &[("d/Makefile", b"1"), ("d/other", b"2"), ("D2/Makefile", b"3")]);
    let out = |tag: &str| folding.path().join(tag).to_str().unwrap().to_owned();
    for (tag, one, other) in [("clash", "Makefile", "makefile"), ("directories", "Docs", "docs")] {
        fails(&home, &["pull", &draft(&artifact, tag), &out(tag)], 1, &format!("{one} and {other} would be the same file"));
    }
    assert!(everything(Path::new(&out("clash"))).iter().all(|path| !path.contains(".ocifs-")));
    prints(&home, &["pull", &draft(&artifact, "clash"), &out("chosen"), "--path", "d/makefile"]);
    assert_eq!(std::fs::read_to_string(Path::new(&out("chosen")).join("d/makefile")).unwrap(), "small");
    // This file system has no unnamed files and no hard links, and a pull works without them.
    for flags in [&[][..], &["--quiet"]] {
        prints(&home, &[&["pull", &draft(&artifact, "fine"), &out("fine")], flags].concat());
        assert_eq!(everything(Path::new(&out("fine"))), ["d", "d/makefile", "d/other", "d2", "d2/makefile"]);
    }
    let kept = home.run(&["pull", "-k", &draft(&artifact, "fine"), &out("fine")]);
    assert_eq!(kept.status.code(), Some(1), "{}", text(&kept));
    assert_eq!(std::fs::read_to_string(Path::new(&out("fine")).join("D/MAKEFILE")).unwrap(), "1");
}

/// A small in-memory file system, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn new(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir(&path).unwrap();
        assert!(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).status().unwrap().success());
        Self(path)
    }

    fn resize(&self, size: &str) {
        assert!(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_reported_and_a_second_pull_completes() {
    if lacks(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    let small = Small::new(home.path("small"), "3m");
    let mut artifact = Draft::new();
    let bytes: Vec<Vec<u8>> = (0..5).map(|number| noise(number, 1_000_000)).collect();
    let names: Vec<String> = (0..5).map(|number| format!("d/f{number}")).collect();
    artifact.files("v1", &names.iter().zip(&bytes).map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>());
    let (reference, out) = (draft(&artifact, "v1"), home.path("small/out"));
    let arguments = ["pull", &reference, out.to_str().unwrap(), "--concurrency", "2"];
    fails(&home, &arguments, 1, "free some space");
    fails(&home, &arguments, 1, "small/out/d/f");
    for path in everything(&out).iter().filter(|path| *path != "d") {
        assert_eq!(out.join(path).metadata().unwrap().len(), 1_000_000, "{path}");
    }
    small.resize("8m");
    prints(&home, &arguments);
    assert!(names.iter().zip(&bytes).all(|(name, bytes)| std::fs::read(out.join(name)).unwrap() == *bytes));
    assert_eq!(everything(&out).len(), 6);
}

#[test]
fn an_unprivileged_user_pulls_twice_and_cannot_restore_owners() {
    if lacks(&[Need::Root, Need::Tool("setpriv")]) {
        return;
    }
    let shell = Shell::new();
    let variables = [("OCIFS", OsString::from(env!("CARGO_BIN_EXE_ocifs"))), ("LAYOUT", fixtures().join("image-umoci/layout").into())];
    shell.run(r#"cp "$OCIFS" ocifs; cp -r "$LAYOUT" layout; chmod -R a+rX layout; mkdir home; chown 65534:65534 home"#, &variables);
    let as_nobody = |script: &str| {
        let script =
            format!("exec setpriv --reuid 65534 --regid 65534 --clear-groups env -i PATH=\"$PATH\" HOME=$PWD/home bash -euc '{script}'");
        shell.attempt::<&str>(&script, &[])
    };
    // Directories their owner cannot write to, cannot enter, or can only enter.
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode) in [(".", 0o555), ("ro", 0o555), ("ro/f", 0o444), ("none", 0), ("none/f", 0o600), ("pass", 0o100), ("pass/f", 0o644)] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if path.ends_with('f') { tar::EntryType::Regular } else { tar::EntryType::Directory });
        header.set_mode(mode);
        header.set_size(0);
        archive.append_data(&mut header, path, &[][..]).unwrap();
    }
    let mut closed = Draft::new();
    closed.image("v1", &[closed.blob(LAYER, &archive.into_inner().unwrap())]);
    shell.run(r#"cp -r "$LAYOUT" closed; chmod -R a+rX closed"#, &[("LAYOUT", closed.path())]);
    for reference in ["oci:layout:l1", "oci:layout:l1", "oci:closed:v1", "oci:closed:v1"] {
        let out = if reference.contains("closed") { "home/closed" } else { "home/out" };
        let output = as_nobody(&format!("./ocifs pull {reference} {out}"));
        assert!(output.status.success(), "{reference}: {}", text(&output));
        assert_eq!(shell.path(out).metadata().unwrap().uid(), 65534);
    }
    let mode = |name: &str| shell.path("home/closed").join(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!([mode(""), mode("ro"), mode("ro/f"), mode("none"), mode("none/f"), mode("pass")], [0o755, 0o555, 0o444, 0, 0o600, 0o100]);
    let output = as_nobody("./ocifs pull oci:layout:l1 home/again --same-owner");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("home/again"), "{}", text(&output));
}
