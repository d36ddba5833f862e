//! Files of artifacts over HTTP: which are sent, how, and to whom.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::access::{as_user, asking};
use super::*;
use crate::error::ErrorKind;
use crate::oci::media_type;
use crate::registry::{Fault, PlainLayer, RequestKind};

pub(super) const TITLE: &str = "org.opencontainers.image.title";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: (&str, &[u8]) = (media_type::OCI_CONFIG, b"{}");
const MIB: usize = 1 << 20;

/// An archive entry: a file with its bytes, or a link with its target.
enum Made<'a> {
    File(&'a [u8]),
    Link(&'a str),
}

fn archive(entries: &[(&str, Made<'_>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, made) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1_709_202_615);
        match made {
            Made::File(data) => {
                header.set_size(data.len() as u64);
                builder.append_data(&mut header, path, *data).unwrap();
            }
            Made::Link(target) => {
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// An image with one archive.
fn add_archive(memory: &Memory, tag: &str, entries: &[(&str, Made<'_>)]) -> Digest {
    memory.add_artifact("app", tag, CONFIG, &[(LAYER, &archive(entries), &[])], &[])
}

pub(super) async fn server_of(upstream: &Arc<Memory>) -> TestServer {
    Setup::of(&[("up", "reg.example", upstream)]).start().await
}

/// The response to a request, exactly as sent.
async fn raw(server: &TestServer, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(server.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn status(server: &TestServer, path: &str) -> u16 {
    server.get(path).await.status().as_u16()
}

async fn entries(server: &TestServer, path: &str) -> Value {
    server.request(Method::GET, path).header("accept", "application/json").send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_fetches_only_what_it_needs() {
    let (upstream, data) = (memory("memory:a"), noise(16 * MIB));
    upstream.add_artifact("data", "v1", ("a/b", b"{}"), &[("a/b", &data, &[(TITLE, "big/model.bin")])], &[]);
    let server = server_of(&upstream).await;
    let path = "/files/up/data:v1/big/model.bin";
    let head = server.head(path).await;
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, Some("16777216")));
    assert_eq!(upstream.count(RequestKind::Blob), 0);
    let part = server.request(Method::GET, path).header("range", "bytes=9000000-9000099").send().await.unwrap();
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, Some("bytes 9000000-9000099/16777216")));
    assert_eq!(part.bytes().await.unwrap(), data[9_000_000..9_000_100]);
    let fetched: u64 = upstream.requests().into_iter().filter_map(|request| request.range).map(|range| range.end - range.start).sum();
    assert!(fetched <= 2 * MIB as u64, "{fetched} bytes were fetched");
    assert_eq!(server.get(path).await.bytes().await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_an_archive_is_sent_whole_in_part_or_not_at_all() {
    let (upstream, data) = (memory("memory:a"), noise(3 * MIB));
    add_archive(&upstream, "v1", &[("etc/notes.txt", Made::File(b"hello")), ("srv/data", Made::File(&data))]);
    let server = server_of(&upstream).await;
    let path = "/files/up/app:v1/srv/data";
    let whole = server.get(path).await;
    let etag = format!("\"{}\"", Digest::of(&data));
    assert_eq!(header(&whole, "etag"), Some(etag.as_str()));
    assert_eq!(header(&whole, "last-modified"), Some("Thu, 29 Feb 2024 10:30:15 GMT"));
    assert_eq!((header(&whole, "accept-ranges"), header(&whole, "cache-control")), (Some("bytes"), Some("private, no-cache")));
    assert_eq!(whole.bytes().await.unwrap(), data);
    let asked = |name: &'static str, value: &str| server.request(Method::GET, path).header(name, value.to_owned());
    assert_eq!(asked("if-none-match", &etag).send().await.unwrap().status().as_u16(), 304);
    let end = asked("range", "bytes=-3").header("if-range", etag).send().await.unwrap();
    assert_eq!((end.status().as_u16(), end.bytes().await.unwrap().to_vec()), (206, data[3 * MIB - 3..].to_vec()));
    let moved = asked("range", "bytes=0-1").header("if-range", "\"other\"").send().await.unwrap();
    assert_eq!((moved.status().as_u16(), moved.bytes().await.unwrap().len()), (200, data.len()));
    assert_eq!(asked("range", "bytes=3145728-").send().await.unwrap().status().as_u16(), 416);
    let text = server.get("/files/up/app:v1/etc/notes.txt").await;
    assert_eq!(header(&text, "content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(header(&text, "content-disposition"), Some("inline; filename=\"notes.txt\""));
    assert_eq!(text.text().await.unwrap(), "hello");
    for (path, expected) in [("etc", 200), ("etc/", 200), ("etc/notes.txt/", 200), ("etc/notes.txt/x", 404), ("none", 404)] {
        assert_eq!(status(&server, &format!("/files/up/app:v1/{path}")).await, expected, "{path}");
    }
}

#[tokio::test]
async fn content_by_digest_is_cacheable_forever_and_empty_files_are_served() {
    let upstream = memory("memory:a");
    let digest = add_archive(&upstream, "v1", &[("empty", Made::File(b""))]);
    let server = server_of(&upstream).await;
    let answer = server.get(&format!("/files/up/app@{digest}/empty")).await;
    assert_eq!(header(&answer, "cache-control"), Some("private, max-age=31536000, immutable"));
    assert_eq!((header(&answer, "content-length"), header(&answer, "content-type")), (Some("0"), Some("application/octet-stream")));
    assert!(answer.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn links_are_followed_only_inside_the_artifact() {
    let upstream = memory("memory:a");
    let entries: &[(&str, Made<'_>)] = &[
        ("dir/sub/file", Made::File(b"inside")),
        ("relative", Made::Link("dir/sub/file")),
        ("absolute", Made::Link("/dir/sub/file")),
        ("dir/up", Made::Link("../dir/./sub//file")),
        ("to-dir", Made::Link("dir")),
        ("chain", Made::Link("to-dir/up")),
        ("out", Made::Link("../etc/passwd")),
        ("out-again", Made::Link("dir/../../etc/passwd")),
        ("etc-passwd", Made::Link("/etc/passwd")),
        ("through-file", Made::Link("relative/../relative")),
        ("loop-a", Made::Link("loop-b")),
        ("loop-b", Made::Link("loop-a")),
    ];
    add_archive(&upstream, "v1", entries);
    let server = server_of(&upstream).await;
    for path in ["relative", "absolute", "dir/up", "to-dir/sub/file", "to-dir/up", "chain"] {
        assert_eq!(server.get(&format!("/files/up/app:v1/{path}")).await.text().await.unwrap(), "inside", "{path}");
    }
    for path in ["out", "out-again", "etc-passwd", "through-file", "loop-a", "relative/x"] {
        assert_eq!(refusal(server.get(&format!("/files/up/app:v1/{path}")).await).await, (404, "NAME_UNKNOWN".to_owned()), "{path}");
    }
    let listed = self::entries(&server, "/files/up/app:v1/to-dir").await;
    assert_eq!(listed["entries"][1]["target"], "../dir/sub/file");
}

#[tokio::test]
async fn a_directory_is_html_for_browsers_and_json_for_programs() {
    let upstream = memory("memory:a");
    let digest = add_archive(&upstream, "v1", &[("a b/<x>", Made::File(b"hello")), ("z", Made::Link("a b"))]);
    let server = server_of(&upstream).await;
    let page = server.get("/files/up/app:v1").await;
    assert_eq!(header(&page, "content-type"), Some("text/html; charset=utf-8"));
    let listed = entries(&server, "/files/up/app:v1/").await;
    assert_eq!(listed["reference"], "up/app:v1");
    assert_eq!((&listed["digest"], &listed["kind"], &listed["next"]), (&json!(digest.to_string()), &json!("image"), &Value::Null));
    assert_eq!(listed["entries"][0]["url"], "/files/up/app:v1/a%20b/");
    assert_eq!(listed["entries"][1]["target"], "a b");
    let below = entries(&server, "/files/up/app:v1/a%20b/").await;
    let expected = json!([{
        "name": "<x>", "path": "a b/<x>", "kind": "file", "mode": "0644", "uid": 0, "gid": 0, "size": 5, "modified": "2024-02-29T10:30:15Z",
        "target": null, "sha256": Digest::of(b"hello").hex(), "url": "/files/up/app:v1/a%20b/%3Cx%3E",
    }]);
    assert_eq!(below["entries"], expected);
    let url = below["entries"][0]["url"].as_str().unwrap();
    assert_eq!(server.get(url).await.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn a_large_directory_comes_page_by_page() {
    let upstream = memory("memory:a");
    let names: Vec<String> = (0..2500).map(|number| format!("file-{number:04}")).collect();
    let made: Vec<(&str, Made<'_>)> = names.iter().map(|name| (name.as_str(), Made::File(b"x"))).collect();
    add_archive(&upstream, "v1", &made);
    let server = server_of(&upstream).await;
    let (mut next, mut found) = (Some("/files/up/app:v1/?platform=linux/amd64".to_owned()), Vec::new());
    while let Some(path) = next {
        let page = entries(&server, &path).await;
        found.extend(page["entries"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()));
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(found, names);
    assert_eq!(status(&server, "/files/up/app:v1/?after=x").await, 400);
}

#[tokio::test]
async fn untrusted_files_run_nothing_in_a_browser() {
    let upstream = memory("memory:a");
    let names = ["a.html", "a.svg", "a.js", "a.xml", "a", "a.txt"];
    let made: Vec<(&str, Made<'_>)> = names.iter().map(|name| (*name, Made::File(b"<script>alert(1)</script>"))).collect();
    add_archive(&upstream, "v1", &made);
    let server = server_of(&upstream).await;
    for name in names {
        let answer = server.get(&format!("/files/up/app:v1/{name}")).await;
        assert_eq!(header(&answer, "x-content-type-options"), Some("nosniff"));
        assert!(header(&answer, "content-security-policy").unwrap().contains("sandbox"), "{name}");
        let how = if name == "a.txt" { "inline" } else { "attachment" };
        assert!(header(&answer, "content-disposition").unwrap().starts_with(how), "{name}");
    }
    for path in ["/", "/files/up/app", "/files/up/app:v1/", "/files/up/app:v9/", "/files/..", "/style.css"] {
        let answer = server.request(Method::GET, path).header("accept", "text/html").send().await.unwrap();
        let policy = header(&answer, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("script") && !policy.contains("unsafe"), "{path}");
        for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("x-frame-options", "DENY")] {
            assert_eq!(header(&answer, name), Some(value), "{path}");
        }
    }
}

#[tokio::test]
async fn bad_paths_and_methods_are_refused() {
    let upstream = memory("memory:a");
    add_archive(&upstream, "v1", &[("etc/passwd", Made::File(b"x"))]);
    let server = server_of(&upstream).await;
    for path in ["etc%2fpasswd", "a%00", "%00", "etc//passwd", "..%2f..%2fetc/passwd"] {
        assert_eq!(refusal(server.get(&format!("/files/up/app:v1/{path}")).await).await, (400, "NAME_INVALID".to_owned()), "{path}");
    }
    // A client would resolve these itself.
    for path in ["../../etc/passwd", "%2e%2e/etc/passwd", "./etc", ".%2E/"] {
        let head = raw(&server, &format!("GET /files/up/app:v1/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{path}: {head}");
    }
    // Decoded once: the artifact has no such names.
    for path in ["%252e%252e/etc/passwd", "etc%252fpasswd", "etc%5cpasswd"] {
        assert_eq!(status(&server, &format!("/files/up/app:v1/{path}")).await, 404, "{path}");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let refused = server.request(method, "/files/up/app:v1/etc/passwd").send().await.unwrap();
        assert_eq!((header(&refused, "allow"), refused.status().as_u16()), (Some("GET, HEAD"), 405));
    }
    for path in ["/files/none/app:v1/", "/files/up/app:v2/", "/files/up/none:v1/x"] {
        assert_eq!(status(&server, path).await, 404, "{path}");
    }
}

#[tokio::test]
async fn a_layer_is_read_by_its_title() {
    let upstream = memory("memory:a");
    let layers: &[PlainLayer<'_>] = &[("a/b", b"one", &[(TITLE, "dir/one.txt")]), ("a/b", b"two", &[(TITLE, "two.html")])];
    upstream.add_artifact("app", "v1", ("a/b", b"{}"), layers, &[]);
    let server = server_of(&upstream).await;
    let one = server.get("/files/up/app:v1?title=dir%2Fone.txt").await;
    assert_eq!(header(&one, "etag"), Some(format!("\"{}\"", Digest::of(b"one")).as_str()));
    assert_eq!(header(&one, "content-disposition"), Some("inline; filename=\"one.txt\""));
    assert_eq!(one.text().await.unwrap(), "one");
    let two = server.request(Method::GET, "/files/up/app:v1?title=two.html").header("range", "bytes=1-1").send().await.unwrap();
    assert_eq!((two.status().as_u16(), header(&two, "content-disposition")), (206, Some("attachment; filename=\"two.html\"")));
    assert_eq!(two.text().await.unwrap(), "w");
    assert_eq!(refusal(server.get("/files/up/app:v1?title=none").await).await, (404, "BLOB_UNKNOWN".to_owned()));
    assert_eq!(status(&server, "/files/up/app:v1?title=").await, 400);
}

#[tokio::test]
async fn a_platform_selects_the_member_of_an_index() {
    let upstream = memory("memory:a");
    let members: Vec<Value> = ["amd64", "arm64"]
        .into_iter()
        .map(|architecture| {
            let layers: &[PlainLayer<'_>] = &[("a/b", architecture.as_bytes(), &[(TITLE, "arch")])];
            let digest = upstream.add_artifact("app", architecture, ("a/b", b"{}"), layers, &[]);
            let size = upstream.held("app")[&digest].len();
            json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": size,
                "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": members}).to_string();
    let index = upstream.add_manifest("app", index);
    upstream.tag("app", "v1", index);
    let server = server_of(&upstream).await;
    for (query, expected) in [("arch", "amd64"), ("arch?platform=linux/arm64", "arm64"), ("?title=arch&platform=linux%2Farm64", "arm64")] {
        assert_eq!(server.get(&format!("/files/up/app:v1/{query}")).await.text().await.unwrap(), expected, "{query}");
    }
    let listed = entries(&server, "/files/up/app:v1/?platform=linux/arm64").await;
    assert_eq!(
        (&listed["platform"], &listed["entries"][0]["url"]),
        (&json!("linux/arm64"), &json!("/files/up/app:v1/arch?platform=linux%2Farm64"))
    );
    assert_eq!(status(&server, "/files/up/app:v1?title=arch").await, 400);
    assert_eq!(status(&server, "/files/up/app:v1/?platform=windows/amd64").await, 404);
    assert_eq!(status(&server, "/files/up/app:v1/?platform=x").await, 400);
}

#[tokio::test]
async fn an_encrypted_artifact_reports_that_a_key_is_needed() {
    let upstream = memory("memory:a");
    let labels = [("io.oci-sync.version", "1"), ("io.oci-sync.encrypted", "true")];
    upstream.add_artifact("app", "v1", CONFIG, &[("application/vnd.oci.image.layer.v1.tar+gzip", &noise(4096), &[])], &labels);
    let server = server_of(&upstream).await;
    for path in ["/files/up/app:v1/", "/files/up/app:v1/secret.txt"] {
        let refused = server.get(path).await;
        assert_eq!(refused.status().as_u16(), 403);
        let body: Value = refused.json().await.unwrap();
        assert!(body["errors"][0]["message"].as_str().unwrap().contains("encrypted"), "{body}");
    }
    let page = server.request(Method::GET, "/files/up/app:v1/").header("accept", "text/html").send().await.unwrap();
    assert_eq!(page.status().as_u16(), 403);
    let page = page.text().await.unwrap();
    assert!(page.contains("encrypted") && page.contains("ocifs mount") && page.contains("io.oci-sync.encrypted"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_naming_blobs_of_another_repository_gives_no_access() {
    let upstream = memory("memory:a");
    let layer = archive(&[("secret-name", Made::File(b"secret bytes"))]);
    let secret: &[PlainLayer<'_>] = &[(LAYER, &layer, &[])];
    upstream.add_artifact("secret", "v1", CONFIG, secret, &[]);
    upstream.add_artifact("secret", "raw", ("a/b", b"{}"), &[("a/b", b"raw secret", &[(TITLE, "file")])], &[]);
    upstream.add_blob("open", CONFIG.0, CONFIG.1);
    let claim = |config: &str, kind: &str, data: &[u8], annotations: Value| {
        let descriptor = |kind: &str, data: &[u8]| json!({"mediaType": kind, "digest": Digest::of(data).to_string(), "size": data.len()});
        let mut layer = descriptor(kind, data);
        layer["annotations"] = annotations;
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": descriptor(config, b"{}"), "layers": [layer]});
        upstream.add_manifest("open", manifest.to_string())
    };
    upstream.tag("open", "tree", claim(CONFIG.0, LAYER, &layer, json!({})));
    upstream.tag("open", "raw", claim("a/b", "a/b", b"raw secret", json!({TITLE: "file"})));
    // Calling itself a manifest does not help.
    upstream.tag("open", "typed", claim("a/b", media_type::OCI_MANIFEST, b"raw secret", json!({TITLE: "file"})));
    let server = server_of(&upstream).await;
    // All of it is in the cache now.
    assert_eq!(server.get("/files/up/secret:v1/secret-name").await.text().await.unwrap(), "secret bytes");
    assert_eq!(server.get("/files/up/secret:raw/file").await.text().await.unwrap(), "raw secret");
    for path in ["tree/", "tree/secret-name", "raw/", "raw/file", "raw?title=file", "typed/", "typed/file", "typed?title=file"] {
        assert_eq!(refusal(server.get(&format!("/files/up/open:{path}")).await).await, (404, "BLOB_UNKNOWN".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn files_are_for_those_who_may_pull() {
    let upstream = memory("memory:a");
    add_archive(&upstream, "v1", &[("file", Made::File(b"x"))]);
    let rules = "alice: {up/app: [pull]}\nbob: {other: [pull]}\n";
    let server = asking(&[("up", "reg.example", &upstream)], Some(rules), false).await;
    for path in ["/", "/files/up/app", "/files/up/app:v1/", "/files/up/app:v1/file", "/files/up/app:v1?title=x"] {
        let stranger = server.get(path).await;
        assert!(header(&stranger, "www-authenticate").is_some(), "{path}");
        assert_eq!(stranger.status().as_u16(), 401, "{path}");
    }
    let status = async |user: &str, path: &str| as_user(server.request(Method::GET, path), user).send().await.unwrap().status().as_u16();
    for path in ["/files/up/app", "/files/up/app:v1/", "/files/up/app:v1/file"] {
        assert_eq!((status("alice", path).await, status("bob", path).await), (200, 403), "{path}");
    }
    let page = async |user: &str| as_user(server.request(Method::GET, "/?q=up/app"), user).send().await.unwrap().text().await.unwrap();
    assert!(page("alice").await.contains("/files/up/app") && !page("bob").await.contains("/files/up/app"));
}

#[tokio::test]
async fn files_of_the_store_are_served_until_they_are_deleted() {
    let server = Setup::hosting().start().await;
    let layer = archive(&[("docs/readme.md", Made::File(b"# hello"))]);
    let descriptor = |kind: &str, digest: &Digest, size: usize| json!({"mediaType": kind, "digest": digest.to_string(), "size": size});
    let (config, layer_digest) = (server.push_blob("team/app", b"{}").await, server.push_blob("team/app", &layer).await);
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(CONFIG.0, &config, 2), "layers": [descriptor(LAYER, &layer_digest, layer.len())]});
    assert_eq!(server.put_manifest("team/app", "v1", &manifest).await.status().as_u16(), 201);
    let digest = Digest::of(manifest.to_string().as_bytes());
    assert_eq!(server.get("/files/team/app:v1/docs/readme.md").await.text().await.unwrap(), "# hello");
    assert_eq!(status(&server, &format!("/files/team/app@{digest}/docs/readme.md")).await, 200);
    let delete = async |path: String| server.request(Method::DELETE, &path).send().await.unwrap().status().as_u16();
    assert_eq!(delete("/v2/team/app/manifests/v1".to_owned()).await, 202);
    let gone = server.get("/files/team/app:v1/docs/readme.md").await;
    assert_eq!(gone.status().as_u16(), 404);
    let gone: Value = gone.json().await.unwrap();
    assert_eq!(gone["errors"][0]["message"], "team/app:v1 does not exist");
    assert_eq!(delete(format!("/v2/team/app/manifests/{digest}")).await, 202);
    assert_eq!(status(&server, &format!("/files/team/app@{digest}/docs/readme.md")).await, 404);
    assert_eq!(status(&server, "/files/team/other:v1/").await, 404);
}

#[tokio::test]
async fn upstream_failures_are_reported_and_the_last_known_artifact_is_served() {
    let upstream = memory("memory:a");
    add_archive(&upstream, "v1", &[("file", Made::File(b"known"))]);
    let server = Setup { tag_ttl: Duration::ZERO, ..Setup::of(&[("up", "reg.example", &upstream)]) }.start().await;
    assert_eq!(server.get("/files/up/app:v1/file").await.text().await.unwrap(), "known");
    for kind in [RequestKind::Resolve, RequestKind::Manifest, RequestKind::Ping, RequestKind::Blob, RequestKind::BlobSize] {
        upstream.plan(kind, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    }
    let stale = server.get("/files/up/app:v1/file").await;
    assert!(header(&stale, "warning").unwrap().starts_with("299 - \"") && header(&stale, "age").is_some());
    assert_eq!(stale.text().await.unwrap(), "known");
    assert_eq!(refusal(server.get("/files/up/app:v2/file").await).await, (502, "UNAVAILABLE".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_sent_completely() {
    for by_digest in [false, true] {
        let (upstream, data) = (memory("memory:a"), noise(3 * MIB));
        let digest = upstream.add_artifact("app", "v1", ("a/b", b"{}"), &[("a/b", &data, &[(TITLE, "file")])], &[]);
        upstream.plan(RequestKind::Blob, 0, 9, Fault::Flipped(9));
        let server = server_of(&upstream).await;
        let version = if by_digest { format!("@{digest}") } else { ":v1".to_owned() };
        let answer = server.get(&format!("/files/up/app{version}/file")).await;
        // Clients that trust a digest get nothing before everything is verified.
        let (is_refused, body) = (answer.status().as_u16() == 502, answer.bytes().await);
        assert!(is_refused || (!by_digest && body.is_err()), "{version}");
    }
}
