//! Access control: users, rules, anonymous clients, TLS.

use serde_json::json;

use super::*;

/// Sets a request's user.
pub(super) fn as_user(request: RequestBuilder, user: &str) -> RequestBuilder {
    request.basic_auth(user, Some(format!("{user}-password")))
}

pub(super) fn passwords(directory: &TempDir) -> Passwords {
    let path = directory.path().join("htpasswd");
    let line = |user: &str| format!("{user}:{}\n", bcrypt::hash(format!("{user}-password"), 4).unwrap());
    std::fs::write(&path, format!("{}{}", line("alice"), line("bob"))).unwrap();
    Passwords::open(&path).unwrap()
}

/// A server with passwords and these rules.
pub(super) async fn asking(
    upstreams: &[(&'static str, &'static str, &Arc<Memory>)],
    rules: Option<&str>,
    anonymous_pull: bool,
) -> TestServer {
    let setup = Setup { has_store: true, ..Setup::of(upstreams) };
    let passwords = Some(passwords(&setup.directory));
    let access = Access { rules: rules.map(|rules| Rules::parse(rules).unwrap()).into(), anonymous_pull, ..Access::default() };
    Setup { passwords, access, ..setup }.start().await
}

#[tokio::test]
async fn without_a_password_nothing_is_revealed() {
    let upstream = memory("memory:a");
    let digest = add_image(&upstream, "app", "v1", b"layer");
    let server = asking(&[("up", "reg.example", &upstream)], None, false).await;
    for path in ["/v2/".to_owned(), "/v2/_catalog".to_owned(), "/v2/up/app/manifests/v1".to_owned(), format!("/v2/up/app/blobs/{digest}")] {
        let answer = server.get(&path).await;
        assert!(header(&answer, "www-authenticate").unwrap().starts_with("Basic realm="), "{path}");
        assert_eq!(refusal(answer).await, (401, "UNAUTHORIZED".to_owned()));
        let wrong = server.request(Method::GET, &path).basic_auth("alice", Some("x")).send().await.unwrap();
        assert_eq!(wrong.status().as_u16(), 401);
    }
    assert_eq!(as_user(server.request(Method::GET, "/v2/up/app/manifests/v1"), "alice").send().await.unwrap().status().as_u16(), 200);
    assert_eq!(server.get("/healthz").await.status().as_u16(), 200);
}

#[tokio::test]
async fn each_user_reads_only_their_own_repositories() {
    let upstream = memory("memory:a");
    let digest = add_image(&upstream, "a/app", "v1", b"a secret layer");
    add_image(&upstream, "b/app", "v1", b"b");
    let rules = "alice: {up/a: [pull], a: [pull, push]}\nbob: {up/b: [pull], b: [pull, push]}\n";
    let server = asking(&[("up", "reg.example", &upstream)], Some(rules), false).await;
    let blob = Digest::of(b"a secret layer");
    let status = async |user: &str, path: &str| as_user(server.request(Method::GET, path), user).send().await.unwrap().status().as_u16();
    assert_eq!(status("alice", "/v2/up/a/app/manifests/v1").await, 200);
    assert_eq!(status("alice", &format!("/v2/up/a/app/blobs/{blob}")).await, 200);
    for path in ["manifests/v1".to_owned(), format!("manifests/{digest}"), format!("blobs/{blob}"), "tags/list".to_owned()] {
        assert_eq!(status("bob", &format!("/v2/up/a/app/{path}")).await, 403, "{path}");
    }
    assert_eq!(status("bob", &format!("/v2/up/b/app/blobs/{blob}")).await, 404);
    let listed = as_user(server.request(Method::GET, "/v2/_catalog"), "bob").send().await.unwrap();
    assert_eq!(listed.json::<Value>().await.unwrap()["repositories"], json!(["up/b/app"]));
}

#[tokio::test]
async fn mounting_a_blob_needs_pull_rights_on_its_source() {
    let rules = "alice: {a: [pull, push]}\nbob: {b: [pull, push]}\n";
    let server = asking(&[], Some(rules), false).await;
    let digest = Digest::of(b"secret");
    let posted = as_user(server.request(Method::POST, &format!("/v2/a/blobs/uploads/?digest={digest}")), "alice").body("secret");
    assert_eq!(posted.send().await.unwrap().status().as_u16(), 201);
    let mount = as_user(server.request(Method::POST, &format!("/v2/b/blobs/uploads/?mount={digest}&from=a")), "bob").send().await.unwrap();
    assert_eq!(mount.status().as_u16(), 202);
    let blob = as_user(server.request(Method::GET, &format!("/v2/b/blobs/{digest}")), "bob").send().await.unwrap();
    assert_eq!(blob.status().as_u16(), 404);
}

#[tokio::test]
async fn an_upload_belongs_to_its_user() {
    let server = asking(&[], None, false).await;
    let begun = as_user(server.request(Method::POST, "/v2/app/blobs/uploads/"), "alice").send().await.unwrap();
    let location = header(&begun, "location").unwrap().to_owned();
    for (user, status) in [("bob", 404), ("alice", 204)] {
        let answer = as_user(server.request(Method::GET, &location), user).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{user}");
    }
}

#[tokio::test]
async fn anonymous_clients_pull_where_allowed_and_do_not_push() {
    let upstream = memory("memory:a");
    add_image(&upstream, "app", "v1", b"layer");
    let server = asking(&[("up", "reg.example", &upstream)], None, true).await;
    assert_eq!(server.get("/v2/up/app/manifests/v1").await.status().as_u16(), 200);
    let push = server.request(Method::POST, "/v2/app/blobs/uploads/").send().await.unwrap();
    assert_eq!(refusal(push).await, (401, "UNAUTHORIZED".to_owned()));
}

#[tokio::test]
async fn a_read_only_server_refuses_writes() {
    let setup = Setup { access: Access { read_only: true, ..Access::default() }, ..Setup::hosting() };
    let server = setup.start().await;
    let push = server.request(Method::POST, "/v2/app/blobs/uploads/").send().await.unwrap();
    assert_eq!(refusal(push).await, (405, "UNSUPPORTED".to_owned()));
}

#[tokio::test]
async fn tls_uses_the_current_certificate() {
    let setup = Setup::hosting();
    let path = |name: &str| setup.directory.path().join(name);
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let write = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        made.cert.pem()
    };
    let first = write();
    let loaded = Certificate::open(&certificate, &key).unwrap();
    let server = Setup { certificate: Some(loaded), directory: Arc::clone(&setup.directory), ..setup }.start().await;
    let port = server.base.rsplit(':').next().unwrap().to_owned();
    let asked = async |pem: &str| {
        let root = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
        client.get(format!("https://localhost:{port}/v2/")).send().await.map(|answer| answer.status().as_u16())
    };
    assert_eq!(asked(&first).await.unwrap(), 200);
    let second = write();
    for file in [&certificate, &key] {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(5)).unwrap();
    }
    assert_eq!(asked(&second).await.unwrap(), 200);
    assert!(asked(&first).await.is_err());
}
