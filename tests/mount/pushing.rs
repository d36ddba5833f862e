//! `ocifs push` with a real registry: what other tools and a mount see, what is sent again, what is refused.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use serde_json::Value;

use crate::support::mounting::{Home, text};
use crate::support::registry::Registry;
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

fn at(registry: &Registry, name: &str) -> String {
    format!("{}/{name}", registry.host())
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

fn json(home: &Home, arguments: &[&str]) -> Value {
    serde_json::from_str(&runs(home, &[arguments, &["--format", "json"]].concat())).unwrap()
}

/// A directory with files, both kinds of links, an empty directory and something large.
fn sample(home: &Home) -> String {
    let data = home.path("data");
    fs::create_dir_all(data.join("sub/empty")).unwrap();
    fs::write(data.join("a.txt"), "hello\n").unwrap();
    fs::write(data.join("sub/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(data.join("sub/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(data.join("big"), vec![5; 9 << 20]).unwrap();
    fs::hard_link(data.join("a.txt"), data.join("sub/again")).unwrap();
    symlink("../a.txt", data.join("sub/link")).unwrap();
    data.to_str().unwrap().to_owned()
}

#[test]
fn a_pushed_directory_mounts_unchanged_and_a_second_push_sends_nothing() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    let data = sample(&home);
    let reference = at(&registry, "team/app:v1");
    let first = json(&home, &["push", &format!("{reference},latest"), "-C", &data, "."]);
    assert_eq!(first["references"].as_array().unwrap().len(), 2);
    assert!(first["sent"][0].as_u64().unwrap() > 0 && first["before"].is_null());
    let again = json(&home, &["push", &reference, "-C", &data, "."]);
    assert_eq!((&again["digest"], &again["sent"][1], &again["before"]), (&first["digest"], &Value::from(0), &first["digest"]));
    for tag in ["v1", "latest"] {
        assert_eq!(runs(&home, &["resolve", &at(&registry, &format!("team/app:{tag}"))]).trim(), first["digest"].as_str().unwrap());
    }
    let mount = home.mount(&at(&registry, "team"), &[]);
    shell.run(
        r#"diff -r --no-dereference "$DATA" "$M"; test "$(stat -c %a "$M/sub/run")" = 755; test "$M/a.txt" -ef "$M/sub/again""#,
        &[("DATA", std::path::Path::new(&data)), ("M", &mount.path("app/v1"))],
    );
    // The mount produces the same artifact: the same code plans and packs it.
    shell.run(r#"mkdir "$M"; cp -a "$DATA"/* "$M"/"#, &[("DATA", std::path::Path::new(&data)), ("M", &mount.path("app/v2"))]);
    mount.sync(&[]);
    assert_eq!(runs(&home, &["resolve", &at(&registry, "team/app:v2")]).trim(), first["digest"].as_str().unwrap());
    mount.unmount();
}

#[test]
fn a_push_accepts_the_spellings_of_other_tools() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let data = sample(&home);
    let reference = |tag: &str| at(&registry, &format!("app:{tag}"));
    // oci-sync: the last component of the path, whatever precedes or follows it.
    let digests: Vec<Value> = [format!("{data}/"), data.clone(), format!("{data}/../data")]
        .iter()
        .map(|path| {
            json(&home, &["push", "-l", path, "-r", &reference("sync"), "--as-kind", "oci-sync", "--label", "team=a"])["digest"].clone()
        })
        .collect();
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "{digests:?}");
    // ORAS: types, annotations, the manifest as a file.
    let exported = home.path("manifest.json");
    let annotations = home.write("annotations.json", r#"{"$manifest": {"k": "v"}, "a.txt": {"note": "first"}}"#);
    let pushed = json(
        &home,
        &[
            "push",
            &reference("oras"),
            "--as-kind",
            "oras",
            "-C",
            &data,
            "a.txt:text/plain",
            "sub",
            "--artifact-type",
            "my/type",
            "--annotation-file",
            annotations.to_str().unwrap(),
            "--export-manifest",
            exported.to_str().unwrap(),
        ],
    );
    let manifest: Value = serde_json::from_slice(&fs::read(exported).unwrap()).unwrap();
    assert_eq!((&manifest["artifactType"], &manifest["annotations"]["k"]), (&Value::from("my/type"), &Value::from("v")));
    assert_eq!(
        (&manifest["layers"][0]["mediaType"], &manifest["layers"][0]["annotations"]["note"]),
        (&Value::from("text/plain"), &Value::from("first"))
    );
    assert_eq!(pushed["artifact_type"], "my/type");
    let mount = home.mount(&at(&registry, "app"), &[]);
    assert_eq!(mount.ls("sync").unwrap(), ["data"]);
    assert_eq!(mount.ls("oras").unwrap(), ["a.txt", "sub"]);
    assert_eq!(mount.ls("oras/sub").unwrap(), ["again", "empty", "link", "run"]);
    mount.unmount();
}

#[test]
fn standard_input_becomes_a_file_and_the_same_bytes_are_the_same_digest() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let reference = at(&registry, "app:v1");
    let push = || {
        let mut child = home.ocifs(&["push", &reference, "--title", "in/put.txt", "-", "--format", "json"]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"from a pipe\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["digest"].clone()
    };
    assert_eq!(push(), push());
    let mount = home.mount(&reference, &[]);
    assert_eq!(mount.cat("in/put.txt").unwrap(), b"from a pipe\n");
    mount.unmount();
    fails(&home, &["push", &reference, "-"], 2, "--title");
}

#[test]
fn an_encrypted_push_needs_its_passphrase_to_be_read() {
    if lacks(&NEEDS) {
        return;
    }
    let (mut home, registry) = (Home::new(), Registry::plain());
    let data = sample(&home);
    home.set("OCIFS_PASSPHRASE", "a secret");
    let reference = at(&registry, "app:v1");
    runs(&home, &["push", &reference, "--as-kind", "oci-sync", &data]);
    let mount = home.mount(&reference, &[]);
    assert_eq!(mount.cat("data/a.txt").unwrap(), b"hello\n");
    mount.unmount();
    home.set("OCIFS_PASSPHRASE", "another");
    let point = home.path("point");
    fs::create_dir(&point).unwrap();
    fails(&home, &["mount", &reference, point.to_str().unwrap()], 12, "passphrase");
}

#[test]
fn a_push_creates_a_layout_and_mistakes_are_explained() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let data = sample(&home);
    let layout = format!("oci:{}:v1", home.path("layout").display());
    let digest = json(&home, &["push", &layout, "-C", &data, "."])["digest"].clone();
    assert_eq!(runs(&home, &["resolve", &layout]).trim(), digest.as_str().unwrap());
    let reference = at(&registry, "app");
    fails(&home, &["push", &reference, &data], 2, &format!("write {reference}:TAG"));
    fails(&home, &["push", &format!("{reference}:v1"), "/no/such/file"], 10, "/no/such/file");
    fails(&home, &["push", &format!("{reference}:v1"), &format!("{data}:a/b")], 2, "--as-kind oras");
    fails(&home, &["push", &format!("{reference}:v1"), &data, "-a", "io.oci-sync.version=1"], 2, "reserved");
    fails(&home, &["resolve", &format!("{reference}:v1")], 10, "v1");
}

#[test]
fn more_directories_than_open_files_are_pushed() {
    let shell = Shell::new();
    let script = r#"for number in $(seq 300); do mkdir d$number; echo $number >d$number/file; done
(ulimit -n 128; "$OCIFS" push -q oci:layout:v1 d*); "$OCIFS" pull -q oci:layout:v1 pulled; cat pulled/*/file | wc -l"#;
    assert_eq!(shell.run(script, &[("OCIFS", env!("CARGO_BIN_EXE_ocifs"))]).trim(), "300");
}
