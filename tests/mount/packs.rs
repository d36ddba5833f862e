//! `pack` and `unpack` by command: sources on web servers and in S3, members from registries and layouts, and back.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::commands::{fails, fixture, json as printed, manifest, prints};
use crate::support::mounting::{Home, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::skip::{Need, lacks, search_path};

/// A server process on its own port, ended with the test.
struct Server {
    process: Child,
    host: String,
}

impl Server {
    fn start(program: &str, arguments: impl Fn(u16) -> Vec<String>, directory: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(program)
            .args(arguments(port))
            .current_dir(directory)
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, host: format!("127.0.0.1:{port}") };
        for _ in 0..600 {
            if TcpStream::connect(&server.host).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{program} does not listen");
    }

    fn files(directory: &Path) -> Self {
        let arguments = |port: u16| ["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()].map(str::to_owned).to_vec();
        Self::start("python3", arguments, directory)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pack_file(home: &Home, text: &str) -> String {
    home.write("pack.yaml", text).to_str().unwrap().to_owned()
}

fn pulled(home: &Home, reference: &str, name: &str) -> std::path::PathBuf {
    let directory = home.path(name);
    prints(home, &["pull", reference, directory.to_str().unwrap()]);
    directory
}

#[test]
fn a_pack_of_every_source_is_pulled_unchanged_and_repacks_to_its_digest() {
    if lacks(&[Need::Tool("docker-registry"), Need::Tool("python3")]) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    for (name, content) in
        [("src/bin/tool", "tool"), ("src/docs/a.txt", "a"), ("src/docs/b/c.json", "{}"), ("src/config.json", "{\"x\":1}")]
    {
        home.write(name, content);
    }
    home.write("web/data.tgz", "from the web");
    home.write("web/other/data.tgz", "another");
    let server = Server::files(&home.path("web"));
    let title = "org.opencontainers.image.title";
    let text = format!(
        "type: application/vnd.acme\nannotations: {{team: blue}}\nconfig: {{from: 'file:config.json', type: application/vnd.acme.config}}\nitems:\n  - from: file:bin/tool\n  - from: dir:docs\n  - from: http://{0}/data.tgz\n    annotations: {{{title}: one.tgz}}\n  - from: http://{0}/other/data.tgz\n    annotations: {{{title}: two.tgz}}\n    sha256: {1}\n",
        server.host,
        sha256("one"),
    );
    let file = pack_file(&home, &text);
    let source = home.path("src");
    let arguments = |place: &str| {
        vec!["pack".to_owned(), "-f".to_owned(), file.clone(), "-C".to_owned(), source.to_str().unwrap().to_owned(), place.to_owned()]
    };
    let at = format!("{}/team/pack:v1", registry.host());
    let run = |place: &str| {
        let arguments = arguments(place);
        printed(&home, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let wrong = run_fails(&home, &arguments(&at));
    assert!(wrong.contains("item[3]") && wrong.contains("SHA-256"), "{wrong}");
    fails(&home, &["resolve", &at], 10, "v1");
    let right = text.replace(&sha256("one"), &sha256("another"));
    pack_file(&home, &right);
    let first = run(&format!("{at},latest"));
    assert_eq!(first["references"], json!([at, at.replace("v1", "latest")]));
    let again = run(&at);
    assert_eq!((&again["digest"], &again["sent"]), (&first["digest"], &json!([0, 0])));
    let manifest = manifest(&home, &at);
    assert_eq!(
        (&manifest["config"]["mediaType"], &manifest["annotations"]),
        (&json!("application/vnd.acme.config"), &json!({"team": "blue"}))
    );
    let directory = pulled(&home, &at, "pulled");
    for (name, content) in [("tool", "tool"), ("a.txt", "a"), ("b/c.json", "{}"), ("one.tgz", "from the web"), ("two.tgz", "another")] {
        assert_eq!(std::fs::read_to_string(directory.join(name)).unwrap(), content, "{name}");
    }
    // A copy in a layout is unpacked, and packed again elsewhere.
    let layout = format!("oci:{}", home.path("layout").display());
    prints(&home, &["cp", &at, &layout]);
    let out = home.path("out");
    let out = out.to_str().unwrap();
    let unpacked = printed(&home, &["unpack", &format!("{layout}:v1"), out]);
    assert_eq!((&unpacked["reproducible"], &unpacked["files"]), (&json!(true), &json!(6)));
    let back = format!("oci-archive:{}", home.path("back.tar").display());
    let packed = printed(&home, &["pack", "-C", out, "-f", &format!("{out}/pack.yaml"), &format!("{back}:v2")]);
    assert_eq!(packed["digest"], first["digest"]);
    assert_eq!(prints(&home, &["resolve", &format!("{back}:v2")]).trim(), first["digest"].as_str().unwrap());
}

fn sha256(content: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(content.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run_fails(home: &Home, arguments: &[String]) -> String {
    let output = home.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!output.status.success(), "{}", text(&output));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_missing_source_or_dying_registry_leaves_no_tag_and_a_rerun_completes() {
    if lacks(&[Need::Tool("docker-registry"), Need::Tool("python3")]) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    home.write("web/a", "a");
    home.write("b", "b");
    let server = Server::files(&home.path("web"));
    let proxy = Proxy::start(registry.url());
    let at = format!("{}/pack:v1", proxy.host());
    let base = home.path("");
    let file = pack_file(&home, &format!("items: [{{from: 'file:b'}}, {{from: 'http://{}/none'}}]", server.host));
    let pack = ["pack", "-f", &file, "-C", base.to_str().unwrap(), &at];
    fails(&home, &pack, 10, "item[1]: ");
    let file = pack_file(&home, &format!("items: [{{from: 'file:b'}}, {{from: 'http://{}/a'}}]", server.host));
    let pack = ["pack", "-f", &file, "-C", base.to_str().unwrap(), &at];
    proxy.spoil("/manifests/", 99, Fault::Status(500));
    let output = home.run(&pack);
    assert_eq!(output.status.code(), Some(14), "{}", text(&output));
    proxy.mend();
    fails(&home, &["resolve", &at], 10, "v1");
    prints(&home, &pack);
    prints(&home, &["resolve", &at]);
    for (text, word) in [
        ("items: []", "at least one item"),
        ("items: [{from: 'file:b'}, {from: 'x'}]", "item[1]: invalid source format"),
        ("items: [{from: 'oci://layout:v1'}]", "tools disagree"),
        ("items: [{from: 'cr://reg.io/a'}]", "has no tag"),
        ("titel: x\nitems: [{from: 'file:b'}]", "titel"),
    ] {
        let file = pack_file(&home, text);
        fails(&home, &["pack", "-f", &file, "-C", base.to_str().unwrap(), &at], 2, word);
    }
    fails(&home, &["pack", "-f", "none.yaml", &at], 10, "none.yaml");
    fails(&home, &["pack", &at], 2, "--file");
}

#[test]
fn artifacts_of_registries_and_layouts_become_members_of_an_index() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let (home, registry, other) = (Home::new(), Registry::plain(), Registry::plain());
    let theirs = format!("{}/their/image:v1", other.host());
    prints(&home, &["cp", &format!("{}:l3", fixture("image-umoci")), &theirs]);
    prints(&home, &["cp", &format!("{}:v1", fixture("oras-files")), &format!("oci:{}", home.path("layout").display())]);
    home.write("tool", "for arm");
    let text = format!(
        "items:\n  - {{from: 'cr://{theirs}', platform: linux/amd64}}\n  - {{from: 'oci:layout:v1', annotations: {{k: v}}}}\n  - {{from: 'file:tool', platform: linux/arm64/v8, type: a/b}}\n"
    );
    let file = pack_file(&home, &text);
    let at = format!("{}/pack:v1", registry.host());
    let base = home.path("");
    let packed = printed(&home, &["pack", "-f", &file, "-C", base.to_str().unwrap(), &at]);
    let index = manifest(&home, &at);
    let members: Vec<&Value> = index["manifests"].as_array().unwrap().iter().collect();
    assert_eq!(members[0]["digest"].as_str().unwrap(), prints(&home, &["resolve", &theirs]).trim());
    assert_eq!((&members[1]["annotations"], &members[2]["artifactType"]), (&json!({"k": "v"}), &json!("a/b")));
    let amd = pulled(&home, &format!("{}/pack@{}", registry.host(), members[0]["digest"].as_str().unwrap()), "amd");
    assert!(amd.read_dir().unwrap().count() > 0);
    let out = home.path("out");
    let out = out.to_str().unwrap();
    let unpacked = printed(&home, &["unpack", &at, out]);
    assert_eq!((&unpacked["reproducible"], &unpacked["members"], &unpacked["files"]), (&json!(true), &json!(2), &json!(1)));
    let again = printed(&home, &["pack", "-C", out, "-f", &format!("{out}/pack.yaml"), &format!("{}/again:v1", registry.host())]);
    assert_eq!(again["digest"], packed["digest"]);
    fails(&home, &["unpack", &at, out], 2, "not empty");
}

/// Both registries accept the same login: if the source received it, the pack would succeed.
#[test]
fn a_login_typed_for_the_destination_is_not_sent_to_the_registries_of_a_pack_file() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let protected = || Registry::start(Variant { htpasswd: true, ..Variant::default() });
    let (home, destination, source) = (Home::new(), protected(), protected());
    let proxy = Proxy::start(source.url());
    let pack = |from: &str, header: &[&str]| {
        let file = pack_file(&home, &format!("items: [{{from: '{from}'}}]"));
        let (at, base) = (format!("{}/pack:v1", destination.host()), home.path(""));
        let flags = ["pack", "-f", &file, "-C", base.to_str().unwrap(), &at, "-u", USER, "--password-stdin"];
        let mut child = home.ocifs(&[&flags[..], header].concat()).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    home.write("a", "a");
    let output = pack("file:a", &[]);
    assert!(output.status.success(), "the login is right for the destination: {}", text(&output));
    for header in [&[][..], &["-H", "Authorization: Basic dXNlcjpwYXNzd29yZA=="]] {
        let output = pack(&format!("cr://{}/their/image:v1", proxy.host()), header);
        assert_eq!(output.status.code(), Some(11), "{}", text(&output));
        let requests = proxy.requests();
        assert!(!requests.is_empty() && requests.iter().all(|request| !request.authorized), "{requests:?}");
        proxy.forget();
    }
}

#[test]
fn objects_of_s3_are_packed() {
    if lacks(&[Need::Tool("docker-registry"), Need::Tool("moto_server"), Need::Tool("curl")]) {
        return;
    }
    let (mut home, registry) = (Home::new(), Registry::plain());
    home.write("object", "from a bucket");
    let server =
        Server::start("moto_server", |port| ["-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned).to_vec(), &home.path(""));
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl").args(["-fsS", "-X", "PUT"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    curl(&[&format!("http://{}/bucket", server.host)]);
    let object = format!("@{}", home.path("object").display());
    curl(&[
        "-H",
        "Content-Type: application/octet-stream",
        "--data-binary",
        &object,
        &format!("http://{}/bucket/deep/object.json", server.host),
    ]);
    for (name, value) in [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")] {
        home.set(name, value);
    }
    home.set("AWS_ENDPOINT_URL", format!("http://{}", server.host));
    let at = format!("{}/pack:v1", registry.host());
    let title = "org.opencontainers.image.title";
    let file = pack_file(&home, &format!("items: [{{from: 's3+http://bucket/deep/object.json', annotations: {{{title}: a.json}}}}]"));
    prints(&home, &["pack", "-f", &file, &at]);
    let manifest = manifest(&home, &at);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/json");
    let directory = pulled(&home, &at, "pulled");
    assert_eq!(std::fs::read_to_string(directory.join("a.json")).unwrap(), "from a bucket");
    let file = pack_file(&home, "items: [{from: 's3+http://bucket/none'}]");
    fails(&home, &["pack", "-f", &file, &at], 10, "item[0]: s3://bucket/none");
    let file = pack_file(&home, "items: [{from: 's3://bucket/deep/object.json'}]");
    fails(&home, &["pack", "-f", &file, &at], 14, "item[0]: s3://bucket/deep/object.json");
}
