//! Cases of oci-sync and ORAS not covered elsewhere; `tests/CASES.md` lists the test of every case by number.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json as value};

use crate::support::artifacts::{Draft, LAYER, MANIFEST, gzip, tar};
use crate::support::commands::{fails, json, prints};
use crate::support::mounting::{Home, text};
use crate::support::proxy::Proxy;
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 1] = [Need::Tool("docker-registry")];

fn at(home: &Home, name: &str) -> String {
    home.path(name).to_str().unwrap().to_owned()
}

fn read(home: &Home, name: &str) -> String {
    std::fs::read_to_string(home.path(name)).unwrap()
}

/// Files of ORAS's examples.
fn foobar(home: &Home) -> String {
    for (name, content) in [("foobar/foo1", "foo"), ("foobar/foo2", "foo"), ("foobar/bar", "bar"), ("config.json", "{\"config\":{}}")] {
        home.write(name, content);
    }
    at(home, "")
}

#[test]
fn an_encrypted_directory_is_listed_as_such_and_pulled_only_with_its_passphrase() {
    if lacks(&NEEDS) {
        return;
    }
    let (mut home, registry) = (Home::new(), Registry::plain());
    home.write("src/hello.txt", "hello");
    home.write("src/sub/nested.txt", "nested");
    home.write("src/sub/empty", "");
    std::fs::create_dir(home.path("src/hollow")).unwrap();
    let place = format!("{}/docs", registry.host());
    home.set("OCIFS_PASSPHRASE", "口令-пароль");
    for tag in ["one", "two"] {
        prints(&home, &["push", "-l", &at(&home, "src"), "-r", &format!("{place}:{tag}"), "--as-kind", "oci-sync"]);
    }
    let listed = json(&home, &["list", "-r", &place]);
    assert_eq!((&listed[0]["encrypted"], &listed[1]["encrypted"]), (&value!(true), &value!(true)));
    let layer = |tag: &str| {
        let manifest: Value = serde_json::from_str(&prints(&home, &["manifest", "get", &format!("{place}:{tag}")])).unwrap();
        manifest["layers"][0]["digest"].clone()
    };
    assert_ne!(layer("one"), layer("two"), "salt and nonce are fresh");
    for tag in ["one", "two"] {
        prints(&home, &["pull", "-r", &format!("{place}:{tag}"), "-l", &at(&home, tag)]);
        assert_eq!(read(&home, &format!("{tag}/src/sub/nested.txt")), "nested");
        assert_eq!(read(&home, &format!("{tag}/src/sub/empty")), "");
        assert!(home.path(&format!("{tag}/src/hollow")).is_dir());
    }
    home.set("OCIFS_PASSPHRASE", "another");
    fails(&home, &["pull", "-r", &format!("{place}:one"), "-l", &at(&home, "wrong")], 12, "passphrase");
    assert!(std::fs::read_dir(home.path("wrong")).map_or(0, Iterator::count) == 0, "nothing was written");
}

#[test]
fn a_file_keeps_its_name_and_the_working_directory_has_none() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    home.write("src/hello.txt", "hello");
    let reference = format!("{}/docs:v1", registry.host());
    let push = |path: &str| {
        let flags = ["push", "-l", path, "-r", &reference, "--as-kind", "oci-sync", "--format", "json"];
        let output = home.ocifs(&flags).current_dir(home.path("src")).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let first = push("hello.txt");
    prints(&home, &["pull", "-r", &reference, "-l", &at(&home, "file")]);
    assert_eq!(read(&home, "file/hello.txt"), "hello");
    home.write("src/hello.txt", "changed");
    let second = push(".");
    assert_eq!(second["before"], first["digest"], "the tag moves");
    prints(&home, &["pull", "-r", &reference, "-l", &at(&home, "dot")]);
    assert_eq!(read(&home, "dot/hello.txt"), "changed");
}

#[test]
fn an_empty_list_is_printed_as_such() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    home.write("a", "a");
    let place = format!("{}/plain", registry.host());
    prints(&home, &["push", &format!("{place}:v1"), "-C", &at(&home, ""), "a"]);
    assert_eq!(json(&home, &["list", "-r", &place]), value!([]));
    assert_eq!(json(&home, &["list", &registry.host()]), value!([]));
}

#[test]
fn a_push_like_oras_gives_its_descriptors_annotations_and_names() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let work = foobar(&home);
    let reference = |tag: &str| format!("{}/app:{tag}", registry.host());
    let push = |tag: &str, more: &[&str]| {
        prints(&home, &[&["push", &reference(tag), "--as-kind", "oras", "-C", &work], more].concat());
        serde_json::from_str::<Value>(&prints(&home, &["manifest", "get", &reference(tag)])).unwrap()
    };
    let exported = at(&home, "exported.json");
    let manifest = push("plain", &["foobar/bar", "--export-manifest", &exported]);
    let bar = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";
    let layer = value!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": bar, "size": 3,
        "annotations": { "org.opencontainers.image.title": "foobar/bar" } });
    assert_eq!(manifest["layers"], value!([layer]));
    assert_eq!(read(&home, "exported.json"), prints(&home, &["manifest", "get", &reference("plain")]));
    assert_eq!(push("typed", &["foobar/bar:application/custom"])["layers"][0]["mediaType"], "application/custom");
    home.write(
        "annotations.json",
        r#"{"$manifest": {"m": "1"}, "foobar/bar": {"org.opencontainers.image.title": "foobar/baz", "f": "2"}}"#,
    );
    let renamed = push("renamed", &["foobar/bar", "--annotation-file", &at(&home, "annotations.json"), "-a", "k=v"]);
    assert_eq!(renamed["annotations"], value!({ "k": "v", "m": "1" }));
    prints(&home, &["pull", &reference("renamed"), "-o", &at(&home, "out")]);
    assert_eq!(read(&home, "out/foobar/baz"), "bar");
    let nothing = push("nothing", &[]);
    assert_eq!(
        (nothing["artifactType"].as_str(), nothing["layers"].as_array().unwrap().len()),
        (Some("application/vnd.unknown.artifact.v1"), 1)
    );
    assert_eq!(nothing["layers"][0]["mediaType"], "application/vnd.oci.empty.v1+json");
    let configured = push("configured", &["foobar/bar", "--artifact-config", &at(&home, "config.json"), "--image-spec", "v1.0"]);
    let config = "sha256:46b68ac1696c3870d537f376868d9402400de28587e345264a77b65da09669be";
    assert_eq!((&configured["config"]["digest"], &configured["artifactType"]), (&value!(config), &Value::Null));
    fails(&home, &["push", &reference("never"), "-C", &work, "foobar/bar", "--image-spec", "v9"], 2, "image-spec");
    fails(&home, &["push", &reference("never"), "-C", &work, "foobar/none"], 10, "foobar/none");
    fails(&home, &["resolve", &reference("never")], 10, "never");
}

/// Unlike in ORAS, only the blob's digest in the manifest is verified. A contradicting annotation about the same bytes hides nothing.
#[test]
fn a_wrong_content_digest_annotation_hides_no_verified_byte() {
    let home = Home::new();
    let mut draft = Draft::new();
    let mut layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&tar(&[("dir/file", b"content")])));
    layer["annotations"] = value!({ "org.opencontainers.image.title": "dir", "io.deis.oras.content.unpack": "true",
        "io.deis.oras.content.digest": format!("sha256:{}", "0".repeat(64)) });
    let empty = draft.blob("application/vnd.oci.empty.v1+json", b"{}");
    let manifest = value!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "a/b", "config": empty, "layers": [layer] });
    draft.tag("v1", &manifest);
    prints(&home, &["pull", &format!("oci:{}:v1", draft.path().display()), &at(&home, "out")]);
    assert_eq!(read(&home, "out/dir/file"), "content");
}

/// A server with a fixed response, and the heads of the requests it received.
fn server(answer: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            kept.lock().push(String::from_utf8_lossy(&head).to_lowercase());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, heads)
}

#[test]
fn user_headers_reach_the_registry_but_no_redirect_target() {
    let home = Home::new();
    let (elsewhere, strayed) = server("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned());
    let location = format!("http://{elsewhere}/there");
    let (host, heads) =
        server(format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
    let digest = format!("sha256:{}", "1".repeat(64));
    let flags = ["blob", "get", &format!("{host}/app@{digest}"), "-H", "X-Trace: one", "--header", "X-Other: two"];
    assert!(!home.run(&flags).status.success());
    assert!(heads.lock().iter().any(|head| head.contains("x-trace: one") && head.contains("x-other: two")), "{heads:?}");
    assert!(!strayed.lock().is_empty() && strayed.lock().iter().all(|head| !head.contains("x-trace")), "{strayed:?}");
    fails(&home, &["resolve", "reg.io/app:v1", "-H", "nothing"], 2, "NAME: VALUE");
}

/// Runs a command with this standard input.
fn piped(home: &Home, arguments: &[&str], input: &str) -> Output {
    let mut child = home.ocifs(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_one_off_login_is_used_and_not_stored() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::start(Variant { htpasswd: true, ..Variant::default() }));
    home.write("a", "a");
    let reference = format!("{}/app:v1", registry.host());
    let login = ["-u", USER, "--password-stdin"];
    let work = at(&home, "");
    let push = [&["push", reference.as_str(), "-C", &work, "a"], &login[..]].concat();
    let wrong = piped(&home, &push, "wrong\n");
    assert_eq!(wrong.status.code(), Some(11), "{}", text(&wrong));
    let right = piped(&home, &push, &format!("{PASSWORD}\n"));
    assert!(right.status.success(), "{}", text(&right));
    fails(&home, &["resolve", &reference], 11, &registry.host());
    let copy = ["cp", &reference, &format!("oci:{}:v1", at(&home, "layout")), "--from-username", USER, "--from-password-stdin"];
    assert!(piped(&home, &copy, &format!("{PASSWORD}\n")).status.success());
    assert!(!home.path(".docker/config.json").exists());
    // There is no terminal to ask.
    fails(&home, &["resolve", &reference, "-u", USER], 2, "--password-stdin");
}

#[test]
fn a_host_is_reached_at_the_given_address() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    home.write("a", "a");
    let host = registry.host();
    let port = host.rsplit_once(':').unwrap().1;
    let reference = format!("reg.example:{port}/app:v1");
    let flags = ["--resolve", &format!("reg.example:{port}:127.0.0.1"), "--plain-http"];
    prints(&home, &[&["push", &reference, "-C", &at(&home, ""), "a"], &flags[..]].concat());
    assert_eq!(prints(&home, &[&["resolve", &reference], &flags[..]].concat()), prints(&home, &["resolve", &format!("{host}/app:v1")]));
    fails(&home, &["resolve", &reference, "--resolve", "reg.example"], 2, "HOST:PORT:ADDRESS");
}

#[test]
fn commands_that_pass_content_through_need_no_home_directory() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    home.write("a", "a");
    let reference = format!("{}/app:v1", registry.host());
    let run = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = home.ocifs(arguments);
        for name in ["HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(name);
        }
        let output = command.envs(variables.iter().copied()).env("TMPDIR", home.path("mounts")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    };
    for variables in [[("XDG_CACHE_HOME", "/proc/none")], [("HOME", "/proc/none")]] {
        run(&variables, &["push", &reference, "-C", &at(&home, ""), "a"]);
        run(&variables, &["ls", &reference]);
        run(&variables, &["pull", &reference, &at(&home, "out")]);
    }
    assert_eq!(std::fs::read_dir(home.path("mounts")).unwrap().count(), 0, "the temporary caches are gone");
}

#[test]
fn a_platform_is_resolved_to_its_member() {
    let home = Home::new();
    let index = format!("{}:buildkit", crate::support::commands::fixture("image-index"));
    let whole = prints(&home, &["resolve", &index]);
    let members: Value = serde_json::from_str(&prints(&home, &["manifest", "get", &index])).unwrap();
    let arm = members["manifests"].as_array().unwrap().iter().find(|member| member["platform"]["architecture"] == "arm64").unwrap();
    let resolved = prints(&home, &["resolve", &index, "--platform", "linux/arm64"]);
    assert_eq!(resolved.trim(), arm["digest"].as_str().unwrap());
    assert_ne!(resolved, whole);
    fails(&home, &["resolve", &index, "--platform", "plan9/mips"], 10, "linux/amd64");
}

#[test]
fn an_interrupted_command_reports_the_state_of_its_work() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let proxy = Proxy::start(registry.url());
    home.write("a", "a");
    let (reference, layout) = (format!("{}/app:v1", proxy.host()), format!("oci:{}:v1", at(&home, "layout")));
    prints(&home, &["push", &layout, "-C", &at(&home, ""), "a"]);
    registry.hang();
    for (arguments, said) in [
        (&["push", &reference, "a", "-C", &at(&home, "")][..], "run the same push again"),
        (&["cp", &layout, &reference], "run the same copy again"),
        (&["resolve", &reference], "interrupted\n"),
    ] {
        proxy.forget();
        let mut command = home.ocifs(arguments);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        while proxy.requests().is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(said) && !text(&output).contains("staged"), "{arguments:?}: {}", text(&output));
    }
    registry.resume();
}
