//! Manifests, lists and small blobs of upstreams.

use serde_json::json;

use super::*;
use crate::error::ErrorKind;
use crate::oci::media_type;
use crate::registry::{Fault, RequestKind};

#[tokio::test]
async fn the_base_path_names_the_api_version() {
    let server = Setup::of(&[]).start().await;
    for path in ["/v2", "/v2/"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "docker-distribution-api-version")), (200, Some("registry/2.0")));
        assert_eq!(answer.text().await.unwrap(), "{}");
    }
    assert_eq!(refusal(server.request(Method::POST, "/v2/").send().await.unwrap()).await, (405, "UNSUPPORTED".to_owned()));
    for path in ["/v2/none/app/manifests/v1", "/v3", "/v2/app"] {
        assert_eq!(refusal(server.get(path).await).await, (404, "NAME_UNKNOWN".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_manifest_is_served_by_tag_and_by_digest_and_to_head() {
    let upstream = memory("memory:a");
    let digest = add_image(&upstream, "team/sub/app", "v1", b"layer");
    let server = Setup::of(&[("up", "reg.example", &upstream)]).start().await;
    for reference in ["v1", &digest.to_string()] {
        let path = format!("/v2/up/team/sub/app/manifests/{reference}");
        let answer = server.get(&path).await;
        assert_eq!(header(&answer, "docker-content-digest"), Some(digest.to_string().as_str()));
        assert_eq!(header(&answer, "content-type"), Some(media_type::OCI_MANIFEST));
        assert_eq!(header(&answer, "etag"), Some(format!("\"{digest}\"").as_str()));
        let (length, head) = (answer.content_length(), server.head(&path).await);
        let body = answer.bytes().await.unwrap();
        assert_eq!((Digest::of(&body), length), (digest, Some(body.len() as u64)));
        assert_eq!(header(&head, "content-length"), Some(body.len().to_string().as_str()));
        assert_eq!(header(&head, "docker-content-digest"), Some(digest.to_string().as_str()));
        let known = server.request(Method::GET, &path).header("if-none-match", format!("\"{digest}\"")).send().await.unwrap();
        assert_eq!(known.status().as_u16(), 304);
    }
    let missing = Digest::of(b"nothing");
    for reference in ["v2", &missing.to_string()] {
        let answer = server.get(&format!("/v2/up/team/sub/app/manifests/{reference}")).await;
        assert_eq!(refusal(answer).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    }
}

#[tokio::test]
async fn unaccepted_media_types_are_not_sent() {
    let upstream = memory("memory:a");
    add_image(&upstream, "app", "v1", b"layer");
    let server = Setup::of(&[("up", "reg.example", &upstream)]).start().await;
    let asked = |accept: &str| server.request(Method::GET, "/v2/up/app/manifests/v1").header("accept", accept.to_owned()).send();
    assert_eq!(asked("*/*").await.unwrap().status().as_u16(), 200);
    assert_eq!(asked(media_type::OCI_MANIFEST).await.unwrap().status().as_u16(), 200);
    assert_eq!(refusal(asked(media_type::OCI_INDEX).await.unwrap()).await, (404, "MANIFEST_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn a_fresh_tag_costs_one_request_and_an_expired_one_a_head() {
    let upstream = memory("memory:a");
    add_image(&upstream, "app", "v1", b"one");
    let server = Setup::of(&[("up", "reg.example", &upstream)]).start().await;
    for _ in 0..3 {
        assert_eq!(server.get("/v2/up/app/manifests/v1").await.status().as_u16(), 200);
    }
    assert_eq!(upstream.requests().len(), 1);

    let setup = Setup { tag_ttl: Duration::ZERO, ..Setup::of(&[("up", "reg.example", &upstream)]) };
    let server = setup.start().await;
    server.get("/v2/up/app/manifests/v1").await;
    let moved = add_image(&upstream, "app", "v1", b"two");
    upstream.forget_requests();
    let answer = server.get("/v2/up/app/manifests/v1").await;
    assert_eq!(header(&answer, "docker-content-digest"), Some(moved.to_string().as_str()));
    assert_eq!(header(&answer, "warning"), None);
    let kinds: Vec<_> = upstream.requests().iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [RequestKind::Resolve, RequestKind::Manifest]);
}

#[tokio::test]
async fn the_last_known_manifest_is_served_with_a_warning_while_the_upstream_fails() {
    for kind in [ErrorKind::Unreachable, ErrorKind::TimedOut] {
        let upstream = memory("memory:a");
        let digest = add_image(&upstream, "app", "v1", b"one");
        let mut setup = Setup::of(&[("up", "reg.example", &upstream)]);
        setup.tag_ttl = Duration::ZERO;
        let directory = Arc::clone(&setup.directory);
        let server = setup.start().await;
        assert_eq!(header(&server.get("/v2/up/app/manifests/v1").await, "warning"), None);
        for request in [RequestKind::Resolve, RequestKind::Manifest, RequestKind::Ping, RequestKind::Blob, RequestKind::BlobSize] {
            upstream.plan(request, 0, u32::MAX, Fault::Error(kind));
        }
        let stale = server.get("/v2/up/app/manifests/v1").await;
        assert_eq!(header(&stale, "docker-content-digest"), Some(digest.to_string().as_str()));
        assert!(header(&stale, "warning").unwrap().starts_with("299 - \"") && header(&stale, "age").is_some());
        assert!(matches!(server.get("/v2/up/app/manifests/v2").await.status().as_u16(), 502 | 504));
        server.stop().await;

        // A server that starts while the upstream is unreachable knows what the previous one knew.
        let again = Setup { directory, tag_ttl: Duration::ZERO, ..Setup::of(&[("up", "reg.example", &upstream)]) }.start().await;
        let stale = again.get("/v2/up/app/manifests/v1").await;
        assert_eq!((stale.status().as_u16(), header(&stale, "warning").is_some()), (200, true));
        upstream.mend();
    }
}

#[tokio::test]
async fn pulled_content_is_pulled_again_without_the_upstream() {
    let upstream = memory("memory:a");
    add_image(&upstream, "app", "v1", b"a layer");
    let setup = Setup::of(&[("up", "reg.example", &upstream)]);
    let directory = Arc::clone(&setup.directory);
    let server = setup.start().await;
    let layer = format!("/v2/up/app/blobs/{}", Digest::of(b"a layer"));
    server.get("/v2/up/app/manifests/v1").await;
    assert_eq!(server.get(&layer).await.bytes().await.unwrap(), &b"a layer"[..]);
    server.stop().await;
    let gone = memory("memory:a");
    for request in [RequestKind::Resolve, RequestKind::Manifest, RequestKind::Ping, RequestKind::Blob, RequestKind::BlobSize] {
        gone.plan(request, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    }
    let again = Setup { directory, ..Setup::of(&[("up", "reg.example", &gone)]) }.start().await;
    assert_eq!(again.get("/v2/up/app/manifests/v1").await.status().as_u16(), 200);
    assert_eq!(again.get(&layer).await.bytes().await.unwrap(), &b"a layer"[..]);
    assert_eq!(refusal(again.get(&format!("/v2/up/app/blobs/{}", Digest::of(b"other"))).await).await, (502, "UNAVAILABLE".to_owned()));
}

#[tokio::test]
async fn upstream_failures_are_distinguished() {
    let upstream = memory("memory:a");
    let server = Setup::of(&[("up", "reg.example", &upstream)]).start().await;
    for (kind, status, code) in [
        (ErrorKind::Denied, 403, "DENIED"),
        (ErrorKind::NotFound, 404, "MANIFEST_UNKNOWN"),
        (ErrorKind::Unreachable, 502, "UNAVAILABLE"),
        (ErrorKind::TimedOut, 504, "UNAVAILABLE"),
    ] {
        upstream.plan(RequestKind::Manifest, 0, 1, Fault::Error(kind));
        let digest = Digest::of(status.to_string().as_bytes());
        assert_eq!(refusal(server.get(&format!("/v2/up/app/manifests/{digest}")).await).await, (status, code.to_owned()));
    }
}

#[tokio::test]
async fn one_name_in_two_upstreams_is_two_repositories() {
    let (one, two) = (memory("memory:a"), memory("memory:b"));
    let digests = [add_image(&one, "app", "v1", b"one"), add_image(&two, "app", "v1", b"two")];
    let server = Setup::of(&[("a", "a.example", &one), ("b", "b.example", &two)]).start().await;
    for (prefix, digest) in ["a", "b"].into_iter().zip(digests) {
        let answer = server.get(&format!("/v2/{prefix}/app/manifests/v1")).await;
        assert_eq!(header(&answer, "docker-content-digest"), Some(digest.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_digest_of_one_repository_is_unknown_in_another() {
    let (one, two) = (memory("memory:a"), memory("memory:b"));
    let digest = add_image(&one, "secret", "v1", b"a secret layer");
    add_image(&one, "open", "v1", b"an open layer");
    // A manifest may name any digest, which gives no access to it.
    let claim = json!({"schemaVersion": 2, "config": {"mediaType": "a/b", "digest": Digest::of(b"a secret layer").to_string(), "size": 14},
        "layers": []});
    let claim = one.add_manifest("open", claim.to_string());
    one.tag("open", "claim", claim);
    two.add_repository("secret");
    let server = Setup::of(&[("a", "a.example", &one), ("b", "b.example", &two)]).start().await;
    let blob = Digest::of(b"a secret layer");
    assert_eq!(server.get(&format!("/v2/a/secret/manifests/{digest}")).await.status().as_u16(), 200);
    assert_eq!(server.get(&format!("/v2/a/secret/blobs/{blob}")).await.bytes().await.unwrap(), &b"a secret layer"[..]);
    assert_eq!(server.get("/v2/a/open/manifests/claim").await.status().as_u16(), 200);
    for repository in ["a/open", "b/secret"] {
        let manifest = server.get(&format!("/v2/{repository}/manifests/{digest}")).await;
        assert_eq!(refusal(manifest).await, (404, "MANIFEST_UNKNOWN".to_owned()), "{repository}");
        let path = format!("/v2/{repository}/blobs/{blob}");
        assert_eq!(refusal(server.get(&path).await).await, (404, "BLOB_UNKNOWN".to_owned()), "{repository}");
        assert_eq!(server.head(&path).await.status().as_u16(), 404);
    }
}

#[tokio::test]
async fn docker_hub_serves_plain_names_below_library() {
    let hub = memory("memory:hub");
    add_image(&hub, "library/alpine", "3", b"root");
    let server = Setup { default_upstream: Some("docker".to_owned()), ..Setup::of(&[("docker", "docker.io", &hub)]) }.start().await;
    for path in ["docker/alpine", "docker/library/alpine", "library/alpine", "alpine"] {
        assert_eq!(server.get(&format!("/v2/{path}/manifests/3")).await.status().as_u16(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_namespace_only_chooses_among_the_upstreams() {
    let (one, two) = (memory("memory:a"), memory("memory:b"));
    add_image(&one, "team/app", "v1", b"one");
    let server = Setup::of(&[("a", "a.example:8443", &one), ("b", "b.example", &two)]).start().await;
    assert_eq!(server.get("/v2/team/app/manifests/v1?ns=a.example:8443").await.status().as_u16(), 200);
    let named = server.request(Method::GET, "/v2/team/app/manifests/v1").header("OCI-Namespace", "a.example:8443").send().await.unwrap();
    assert_eq!(named.status().as_u16(), 200);
    for namespace in ["b.example", "127.0.0.1:22", "169.254.169.254", "a.example", "a.example:8443@evil", "%00"] {
        let answer = server.get(&format!("/v2/team/app/manifests/v1?ns={namespace}")).await;
        assert_eq!(answer.status().as_u16(), 404, "{namespace}");
    }
}

#[tokio::test]
async fn tags_and_repositories_come_in_pages_with_their_prefix() {
    let (one, two) = (memory("memory:a"), memory("memory:b"));
    for tag in ["v2", "v1", "v3"] {
        add_image(&one, "app", tag, b"one");
    }
    add_image(&two, "team/web", "v1", b"two");
    let server = Setup::of(&[("a", "a.example", &one), ("b", "b.example", &two)]).start().await;
    let first = server.get("/v2/a/app/tags/list?n=2").await;
    assert_eq!(header(&first, "link"), Some("</v2/a/app/tags/list?n=2&last=v2>; rel=\"next\""));
    assert_eq!(first.json::<Value>().await.unwrap(), json!({"name": "a/app", "tags": ["v1", "v2"]}));
    assert_eq!(server.json("/v2/a/app/tags/list?n=2&last=v2").await["tags"], json!(["v3"]));
    assert_eq!(server.json("/v2/_catalog").await["repositories"], json!(["a/app", "b/team/web"]));
    assert_eq!(refusal(server.get("/v2/a/none/tags/list").await).await, (404, "NAME_UNKNOWN".to_owned()));
    assert_eq!(refusal(server.get("/v2/a/app/tags/list?n=x").await).await, (400, "PAGINATION_NUMBER_INVALID".to_owned()));
}

#[tokio::test]
async fn referrers_are_an_index_that_can_be_filtered() {
    let upstream = memory("memory:a");
    let subject = add_image(&upstream, "app", "v1", b"one");
    for kind in ["a/sbom", "a/signature"] {
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
            "config": {"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}").to_string(), "size": 2}, "layers": [],
            "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": subject.to_string(), "size": 1}, "annotations": {"k": kind}});
        upstream.add_manifest("app", manifest.to_string());
    }
    let server = Setup::of(&[("up", "reg.example", &upstream)]).start().await;
    let path = format!("/v2/up/app/referrers/{subject}");
    let all = server.get(&path).await;
    assert_eq!((header(&all, "content-type"), header(&all, "oci-filters-applied")), (Some(media_type::OCI_INDEX), None));
    assert_eq!(all.json::<Value>().await.unwrap()["manifests"].as_array().unwrap().len(), 2);
    let some = server.get(&format!("{path}?artifactType=a%2Fsbom")).await;
    assert_eq!(header(&some, "oci-filters-applied"), Some("artifactType"));
    let some: Value = some.json().await.unwrap();
    assert_eq!((some["manifests"].as_array().unwrap().len(), &some["manifests"][0]["annotations"]["k"]), (1, &json!("a/sbom")));
    assert_eq!(server.json(&format!("/v2/up/none/referrers/{subject}")).await["manifests"], json!([]));
}

#[tokio::test]
async fn nothing_is_written_to_an_upstream() {
    let upstream = memory("memory:a");
    let digest = add_image(&upstream, "app", "v1", b"one");
    let server = Setup::of(&[("up", "reg.example", &upstream)]).start().await;
    for (method, path) in [
        (Method::POST, "/v2/up/app/blobs/uploads/".to_owned()),
        (Method::PUT, "/v2/up/app/manifests/v1".to_owned()),
        (Method::DELETE, format!("/v2/up/app/manifests/{digest}")),
        (Method::PATCH, "/v2/up/app/blobs/uploads/x".to_owned()),
    ] {
        let answer = server.request(method, &path).send().await.unwrap();
        assert_eq!(header(&answer, "allow"), Some("GET, HEAD"), "{path}");
        assert_eq!(refusal(answer).await, (405, "UNSUPPORTED".to_owned()), "{path}");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn foreign_host_names_are_refused() {
    let server = Setup::of(&[]).start().await;
    let asked = |name: &'static str, value: &'static str| server.request(Method::GET, "/v2/").header(name, value).send();
    assert_eq!(asked("host", "evil.example").await.unwrap().status().as_u16(), 421);
    assert_eq!(asked("origin", "http://evil.example").await.unwrap().status().as_u16(), 403);
    assert_eq!(asked("host", "localhost").await.unwrap().status().as_u16(), 200);
}
