//! The store against the cases of the specification's conformance suite, under their original names.

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::oci::{Algorithm, Hasher, media_type};

const EMPTY: &[u8] = b"{}";

pub(super) fn digest_as(algorithm: Algorithm, data: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(data);
    hasher.finish()
}

const BOTH: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

impl TestServer {
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response {
        let mut request = self.request(method, path).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// Starts an upload and returns its location.
    pub(super) async fn begin(&self, repository: &str) -> String {
        let begun = self.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], "").await;
        assert_eq!(begun.status().as_u16(), 202);
        header(&begun, "location").unwrap().to_owned()
    }

    pub(super) async fn push_blob_as(&self, repository: &str, algorithm: Algorithm, data: &[u8]) -> Digest {
        let (digest, location) = (digest_as(algorithm, data), self.begin(repository).await);
        let put = self.send(Method::PUT, &format!("{location}?digest={digest}"), &[], data.to_vec()).await;
        assert_eq!(put.status().as_u16(), 201);
        assert_eq!(header(&put, "docker-content-digest"), Some(digest.to_string().as_str()));
        digest
    }

    pub(super) async fn push_blob(&self, repository: &str, data: &[u8]) -> Digest {
        self.push_blob_as(repository, Algorithm::Sha256, data).await
    }

    pub(super) async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Response {
        let kind = manifest["mediaType"].as_str().unwrap().to_owned();
        self.send(Method::PUT, &format!("/v2/{repository}/manifests/{reference}"), &[("content-type", &kind)], manifest.to_string()).await
    }

    async fn status(&self, method: Method, path: &str) -> u16 {
        self.send(method, path, &[], "").await.status().as_u16()
    }
}

pub(super) fn descriptor(media_type: &str, algorithm: Algorithm, data: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest_as(algorithm, data).to_string(), "size": data.len()})
}

/// A manifest with a config and one layer, plus additional members.
pub(super) fn image(layer: &[u8], more: &Value) -> Value {
    image_as(Algorithm::Sha256, layer, more)
}

fn image_as(algorithm: Algorithm, layer: &[u8], more: &Value) -> Value {
    let mut manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, algorithm, EMPTY),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", algorithm, layer)]});
    for (name, value) in more.as_object().unwrap() {
        manifest[name] = value.clone();
    }
    manifest
}

fn of(manifest: &Value) -> Digest {
    Digest::of(manifest.to_string().as_bytes())
}

/// A server with an empty store, and an image pushed to `app`.
async fn with_image(more: &Value) -> (TestServer, Value) {
    let server = Setup::hosting().start().await;
    server.push_blob("app", EMPTY).await;
    server.push_blob("app", b"layer").await;
    (server, image(b"layer", more))
}

/// Puts a manifest by digest and by tag and reads it back both ways.
async fn round_trip(server: &TestServer, manifest: &Value) {
    let digest = of(manifest).to_string();
    for reference in [digest.as_str(), "tagged"] {
        let put = server.put_manifest("app", reference, manifest).await;
        assert_eq!((put.status().as_u16(), header(&put, "docker-content-digest")), (201, Some(digest.as_str())), "{manifest}");
        assert_eq!(header(&put, "location"), Some(format!("/v2/app/manifests/{digest}").as_str()));
    }
    for reference in [digest.as_str(), "tagged"] {
        let path = format!("/v2/app/manifests/{reference}");
        let (got, head) = (server.get(&path).await, server.head(&path).await);
        assert_eq!(header(&got, "content-type"), manifest["mediaType"].as_str());
        assert_eq!(header(&head, "docker-content-digest"), Some(digest.as_str()));
        assert_eq!(header(&head, "content-length"), Some(manifest.to_string().len().to_string().as_str()));
        assert_eq!(got.bytes().await.unwrap(), manifest.to_string());
    }
}

#[tokio::test]
async fn empty_repository() {
    let server = Setup::hosting().start().await;
    assert_eq!(server.status(Method::GET, "/v2/").await, 200);
    let referrers = server.get(&format!("/v2/app/referrers/{}", Digest::of(b"x"))).await;
    assert_eq!((referrers.status().as_u16(), header(&referrers, "content-type")), (200, Some(media_type::OCI_INDEX)));
    assert_eq!(referrers.json::<Value>().await.unwrap()["manifests"], json!([]));
    assert_eq!(refusal(server.get("/v2/app/tags/list").await).await, (404, "NAME_UNKNOWN".to_owned()));
    server.push_blob("app", EMPTY).await;
    assert_eq!(server.json("/v2/app/tags/list").await, json!({"name": "app", "tags": []}));
}

#[tokio::test]
async fn blob_get_missing() {
    let server = Setup::hosting().start().await;
    for algorithm in BOTH {
        let path = format!("/v2/app/blobs/{}", digest_as(algorithm, b"x"));
        assert_eq!(refusal(server.get(&path).await).await, (404, "BLOB_UNKNOWN".to_owned()));
        assert_eq!(server.status(Method::HEAD, &path).await, 404);
    }
}

#[tokio::test]
async fn blob_post_only() {
    let server = Setup::hosting().start().await;
    for algorithm in BOTH {
        for data in [&b"content"[..], b"", EMPTY] {
            let digest = digest_as(algorithm, data);
            let posted = server.send(Method::POST, &format!("/v2/app/blobs/uploads/?digest={digest}"), &[], data.to_vec()).await;
            assert_eq!((posted.status().as_u16(), header(&posted, "location")), (201, Some(format!("/v2/app/blobs/{digest}").as_str())));
            assert_eq!(header(&posted, "docker-content-digest"), Some(digest.to_string().as_str()));
            assert_eq!(server.get(&format!("/v2/app/blobs/{digest}")).await.bytes().await.unwrap(), data);
        }
    }
}

#[tokio::test]
async fn blob_post_put_and_get_with_ranges() {
    let (server, data) = (Setup::hosting().start().await, noise(2000));
    for algorithm in BOTH {
        let path = format!("/v2/app/blobs/{}", server.push_blob_as("app", algorithm, &data).await);
        assert_eq!(header(&server.head(&path).await, "content-length"), Some("2000"));
        for (range, expected) in [
            ("500-1499", Some(500..1500)),
            ("500-", Some(500..2000)),
            ("-500", Some(1500..2000)),
            ("1500-5000", Some(1500..2000)),
            ("500-0", None),
            ("2000-5000", None),
            ("5000-10000", None),
        ] {
            let answer = server.send(Method::GET, &path, &[("range", &format!("bytes={range}"))], "").await;
            match expected {
                Some(expected) => {
                    assert_eq!(answer.status().as_u16(), 206, "{range}");
                    assert_eq!(answer.bytes().await.unwrap(), data[expected]);
                }
                None => assert_eq!(answer.status().as_u16(), 416, "{range}"),
            }
        }
    }
}

#[tokio::test]
async fn blob_chunked_single_stream_and_multi() {
    let (server, data) = (Setup::hosting().start().await, noise(3000));
    for algorithm in BOTH {
        let digest = digest_as(algorithm, &data);
        for (ends, last) in [(&[3000][..], 3000..3000), (&[1000, 3000], 3000..3000), (&[1000, 2000], 2000..3000)] {
            for ranged in [true, false] {
                let mut location = server.begin("app").await;
                let mut start = 0;
                for end in ends {
                    let chunk = start..*end;
                    start = *end;
                    let named = format!("{}-{}", chunk.start, chunk.end - 1);
                    let headers: &[(&str, &str)] = if ranged { &[("content-range", &named)] } else { &[] };
                    let patched = server.send(Method::PATCH, &location, headers, data[chunk.clone()].to_vec()).await;
                    assert_eq!(
                        (patched.status().as_u16(), header(&patched, "range")),
                        (202, Some(format!("0-{}", chunk.end - 1).as_str()))
                    );
                    location = header(&patched, "location").unwrap().to_owned();
                }
                let put = server.send(Method::PUT, &format!("{location}?digest={digest}"), &[], data[last.clone()].to_vec()).await;
                assert_eq!(put.status().as_u16(), 201);
                assert_eq!(server.get(&format!("/v2/app/blobs/{digest}")).await.bytes().await.unwrap(), data);
                assert_eq!(server.status(Method::DELETE, &format!("/v2/app/blobs/{digest}")).await, 202);
            }
        }
    }
}

#[tokio::test]
async fn blob_chunked_out_of_order_and_get_stale_session() {
    let (server, data) = (Setup::hosting().start().await, noise(2000));
    let location = server.begin("app").await;
    let put = |method, range: &'static str, from: usize, to: usize, query: String| {
        let data = data[from..to].to_vec();
        let (server, location) = (&server, &location);
        async move { server.send(method, &format!("{location}{query}"), &[("content-range", range)], data).await }
    };
    assert_eq!(put(Method::PATCH, "0-999", 0, 1000, String::new()).await.status().as_u16(), 202);
    let gap = put(Method::PATCH, "1500-1999", 1500, 2000, String::new()).await;
    assert_eq!((gap.status().as_u16(), header(&gap, "range")), (416, Some("0-999")));
    assert_eq!(put(Method::PATCH, "0-999", 0, 1000, String::new()).await.status().as_u16(), 416);
    let digest = Digest::of(&data);
    assert_eq!(put(Method::PUT, "1500-1999", 1500, 2000, format!("?digest={digest}")).await.status().as_u16(), 416);
    assert_eq!(refusal(put(Method::PATCH, "1000-1999", 1000, 1500, String::new()).await).await, (400, "SIZE_INVALID".to_owned()));
    let status = server.get(&location).await;
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, Some("0-999")));
    assert_eq!(put(Method::PUT, "1000-1999", 1000, 2000, format!("?digest={digest}")).await.status().as_u16(), 201);
    assert_eq!(refusal(server.get(&location).await).await, (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn blob_post_cancel() {
    let server = Setup::hosting().start().await;
    let location = server.begin("app").await;
    assert_eq!(server.status(Method::DELETE, &location).await, 204);
    assert_eq!(refusal(server.get(&location).await).await, (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    assert_eq!(server.send(Method::PATCH, &location, &[], "x").await.status().as_u16(), 404);
}

#[tokio::test]
async fn blob_mount_mount_anonymous_and_mount_missing() {
    let server = Setup::hosting().start().await;
    for algorithm in BOTH {
        let digest = server.push_blob_as("source/app", algorithm, b"content").await;
        let mount = |query: String| {
            let server = &server;
            async move { server.send(Method::POST, &format!("/v2/target/app/blobs/uploads/?{query}"), &[], "").await }
        };
        let missing = Digest::of(b"missing");
        for query in [format!("mount={digest}"), format!("mount={digest}&from=other"), format!("mount={missing}&from=source/app")] {
            let begun = mount(query).await;
            assert_eq!((begun.status().as_u16(), header(&begun, "location").is_some()), (202, true));
        }
        assert_eq!(server.status(Method::HEAD, &format!("/v2/target/app/blobs/{digest}")).await, 404);
        let mounted = mount(format!("mount={digest}&from=source%2Fapp")).await;
        assert_eq!(
            (mounted.status().as_u16(), header(&mounted, "location")),
            (201, Some(format!("/v2/target/app/blobs/{digest}").as_str()))
        );
        // Deleting from one repository does not affect the other.
        assert_eq!(server.status(Method::DELETE, &format!("/v2/source/app/blobs/{digest}")).await, 202);
        assert_eq!(server.get(&format!("/v2/target/app/blobs/{digest}")).await.bytes().await.unwrap(), &b"content"[..]);
    }
}

#[tokio::test]
async fn blob_bad_digest_on_each_way_to_push() {
    let server = Setup::hosting().start().await;
    for algorithm in BOTH {
        let wrong = digest_as(algorithm, b"other");
        let posted = server.send(Method::POST, &format!("/v2/app/blobs/uploads/?digest={wrong}"), &[], "content").await;
        assert_eq!(refusal(posted).await, (400, "DIGEST_INVALID".to_owned()));
        let location = server.begin("app").await;
        let put = server.send(Method::PUT, &format!("{location}?digest={wrong}"), &[], "content").await;
        assert_eq!(refusal(put).await, (400, "DIGEST_INVALID".to_owned()));
        let location = server.begin("app").await;
        assert_eq!(server.send(Method::PATCH, &location, &[], "content").await.status().as_u16(), 202);
        let put = server.send(Method::PUT, &format!("{location}?digest={wrong}"), &[], "").await;
        assert_eq!(refusal(put).await, (400, "DIGEST_INVALID".to_owned()));
        for bad in ["", "?digest=", "?digest=sha256:00", "?digest=md5:900150983cd24fb0d6963f7d28e17f72"] {
            let location = server.begin("app").await;
            let put = server.send(Method::PUT, &format!("{location}{bad}"), &[], "content").await;
            assert_eq!(refusal(put).await, (400, "DIGEST_INVALID".to_owned()), "{bad}");
        }
        assert_eq!(server.status(Method::HEAD, &format!("/v2/app/blobs/{wrong}")).await, 404);
    }
}

#[tokio::test]
async fn blob_delete_is_atomic_and_spares_what_is_in_use() {
    let (server, manifest) = with_image(&json!({})).await;
    assert_eq!(server.put_manifest("app", "v1", &manifest).await.status().as_u16(), 201);
    let (used, loose) = (Digest::of(b"layer"), server.push_blob("app", b"loose").await);
    let answer = server.send(Method::DELETE, &format!("/v2/app/blobs/{used}"), &[], "").await;
    assert_eq!(refusal(answer).await, (405, "DENIED".to_owned()));
    let path = format!("/v2/app/blobs/{loose}");
    assert_eq!(server.status(Method::DELETE, &path).await, 202);
    for method in [Method::HEAD, Method::GET, Method::DELETE] {
        assert_eq!(server.status(method, &path).await, 404);
    }
}

#[tokio::test]
async fn image_image_uncompressed_data_field_and_custom_fields() {
    let custom = json!({"annotations": {"a": "b"}, "org.example.custom": {"deep": [1, null]}, "artifactType": "application/vnd.example"});
    for more in [json!({}), custom] {
        let (server, manifest) = with_image(&more).await;
        round_trip(&server, &manifest).await;
    }
    let (server, mut manifest) = with_image(&json!({})).await;
    manifest["config"]["data"] = json!("e30=");
    round_trip(&server, &manifest).await;
}

#[tokio::test]
async fn large_manifest() {
    let (server, manifest) = with_image(&json!({"annotations": {"a": "x".repeat((4 << 20) - 1000)}})).await;
    round_trip(&server, &manifest).await;
    let (server, manifest) = with_image(&json!({"annotations": {"a": "x".repeat(5 << 20)}})).await;
    assert_eq!(server.put_manifest("app", "v1", &manifest).await.status().as_u16(), 413);
    assert_eq!(server.status(Method::GET, "/v2/app/manifests/v1").await, 404);
}

#[tokio::test]
async fn index_nested_index_and_empty_index() {
    let (server, manifest) = with_image(&json!({})).await;
    let index = |members: Vec<Value>| json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": members});
    let member = |value: &Value| descriptor(value["mediaType"].as_str().unwrap(), Algorithm::Sha256, value.to_string().as_bytes());
    round_trip(&server, &index(Vec::new())).await;
    let inner = index(vec![member(&manifest)]);
    // An index is put after its members.
    assert_eq!(refusal(server.put_manifest("app", "v1", &inner).await).await, (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    server.put_manifest("app", &of(&manifest).to_string(), &manifest).await;
    round_trip(&server, &inner).await;
    round_trip(&server, &index(vec![member(&inner), member(&manifest)])).await;
    // A member stays while its index does.
    let path = format!("/v2/app/manifests/{}", of(&manifest));
    assert_eq!(refusal(server.send(Method::DELETE, &path, &[], "").await).await, (405, "DENIED".to_owned()));
    assert_eq!(server.status(Method::GET, &path).await, 200);
}

#[tokio::test]
async fn artifact_artifact_without_layers_and_no_layers() {
    let server = Setup::hosting().start().await;
    server.push_blob("app", EMPTY).await;
    let empty = descriptor(media_type::OCI_EMPTY, Algorithm::Sha256, EMPTY);
    for layers in [json!([]), json!([empty.clone()])] {
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/vnd.example",
            "config": empty.clone(), "layers": layers});
        round_trip(&server, &manifest).await;
    }
}

#[tokio::test]
async fn non_distributable_layers_need_not_be_pushed() {
    let (server, mut manifest) = with_image(&json!({})).await;
    let mut elsewhere = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Algorithm::Sha256, b"elsewhere");
    elsewhere["urls"] = json!(["https://store.example/blobs/elsewhere"]);
    manifest["layers"].as_array_mut().unwrap().push(elsewhere);
    round_trip(&server, &manifest).await;
}

#[tokio::test]
async fn sparse_manifests_are_refused() {
    let server = Setup::hosting().start().await;
    server.push_blob("app", EMPTY).await;
    server.push_blob("other", b"layer").await;
    let manifest = image(b"layer", &json!({}));
    for reference in ["v1", &of(&manifest).to_string()] {
        assert_eq!(refusal(server.put_manifest("app", reference, &manifest).await).await, (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
        assert_eq!(server.status(Method::GET, &format!("/v2/app/manifests/{reference}")).await, 404);
    }
}

#[tokio::test]
async fn bad_digest_image_invalid_digest_format_and_wrong_types() {
    let (server, manifest) = with_image(&json!({})).await;
    for reference in [Digest::of(b"other").to_string(), "sha256:xyz".to_owned(), "md5:900150983cd24fb0d6963f7d28e17f72".to_owned()] {
        let put = server.put_manifest("app", &reference, &manifest).await;
        assert_eq!(refusal(put).await, (400, "DIGEST_INVALID".to_owned()), "{reference}");
    }
    assert!(matches!(server.status(Method::GET, "/v2/app/manifests/sha256:xyz").await, 400 | 404));
    let path = "/v2/app/manifests/v1";
    for (kind, body) in [
        (media_type::OCI_INDEX, manifest.to_string()),
        ("", manifest.to_string()),
        (media_type::OCI_MANIFEST, "{".to_owned()),
        (media_type::OCI_MANIFEST, "[]".to_owned()),
        (media_type::OCI_MANIFEST, json!({"schemaVersion": 2}).to_string()),
    ] {
        let put = server.send(Method::PUT, path, &[("content-type", kind)], body).await;
        assert_eq!(refusal(put).await, (400, "MANIFEST_INVALID".to_owned()), "{kind}");
    }
    for tag in ["-bad", &"x".repeat(129)] {
        assert_eq!(server.put_manifest("app", tag, &manifest).await.status().as_u16(), 400);
    }
    assert_eq!(server.status(Method::GET, path).await, 404);
}

#[tokio::test]
async fn sha512_image() {
    let server = Setup::hosting().start().await;
    server.push_blob_as("app", Algorithm::Sha512, EMPTY).await;
    server.push_blob_as("app", Algorithm::Sha512, b"layer").await;
    let manifest = image_as(Algorithm::Sha512, b"layer", &json!({}));
    let digest = digest_as(Algorithm::Sha512, manifest.to_string().as_bytes());
    let put = server.put_manifest("app", &format!("{digest}?tag=v1"), &manifest).await;
    assert_eq!((put.status().as_u16(), header(&put, "docker-content-digest")), (201, Some(digest.to_string().as_str())));
    for reference in ["v1", &digest.to_string()] {
        let got = server.get(&format!("/v2/app/manifests/{reference}")).await;
        assert_eq!(header(&got, "docker-content-digest"), Some(digest.to_string().as_str()), "{reference}");
        assert_eq!(got.text().await.unwrap(), manifest.to_string());
    }
}

#[tokio::test]
async fn tag_params_put_several_tags_at_once() {
    let (server, manifest) = with_image(&json!({})).await;
    let digest = of(&manifest);
    let put = server.put_manifest("app", &format!("{digest}?tag=a&tag=b&tag=c"), &manifest).await;
    let told: Vec<_> = put.headers().get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap()).collect();
    assert_eq!((put.status().as_u16(), told), (201, vec!["a", "b", "c"]));
    assert_eq!(server.json("/v2/app/tags/list").await["tags"], json!(["a", "b", "c"]));
    let bad = server.put_manifest("app", &format!("{digest}?tag=d&tag=-bad"), &manifest).await;
    assert_eq!(refusal(bad).await, (400, "MANIFEST_INVALID".to_owned()));
    assert_eq!(server.json("/v2/app/tags/list").await["tags"], json!(["a", "b", "c"]));
}

#[tokio::test]
async fn tag_list_with_n_and_last() {
    let (server, manifest) = with_image(&json!({})).await;
    for tag in ["v3", "v1", "v2", "V4"] {
        server.put_manifest("app", tag, &manifest).await;
    }
    assert_eq!(server.json("/v2/app/tags/list").await["tags"], json!(["V4", "v1", "v2", "v3"]));
    let page = server.get("/v2/app/tags/list?n=2").await;
    assert_eq!(header(&page, "link"), Some("</v2/app/tags/list?n=2&last=v1>; rel=\"next\""));
    assert_eq!(server.json("/v2/app/tags/list?n=2&last=v1").await["tags"], json!(["v2", "v3"]));
    assert_eq!(server.json("/v2/app/tags/list?n=0").await["tags"], json!([]));
}

#[tokio::test]
async fn tag_delete_and_manifest_delete() {
    let (server, manifest) = with_image(&json!({})).await;
    let digest = of(&manifest);
    for tag in ["v1", "v2"] {
        server.put_manifest("app", tag, &manifest).await;
    }
    assert_eq!(server.status(Method::DELETE, "/v2/app/manifests/v1").await, 202);
    assert_eq!(server.json("/v2/app/tags/list").await["tags"], json!(["v2"]));
    assert_eq!(server.status(Method::GET, "/v2/app/manifests/v2").await, 200);
    assert_eq!(refusal(server.send(Method::DELETE, "/v2/app/manifests/v1", &[], "").await).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    let path = format!("/v2/app/manifests/{digest}");
    assert_eq!(server.status(Method::DELETE, &path).await, 202);
    for gone in [path.as_str(), "/v2/app/manifests/v2"] {
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            assert_eq!(server.status(method, gone).await, 404, "{gone}");
        }
    }
    // The blobs stay for later manifests.
    assert_eq!(server.put_manifest("app", "v1", &manifest).await.status().as_u16(), 201);
}

#[tokio::test]
async fn artifacts_with_subject_index_with_subject_and_missing_subject() {
    let (server, manifest) = with_image(&json!({})).await;
    let subject = descriptor(media_type::OCI_MANIFEST, Algorithm::Sha256, manifest.to_string().as_bytes());
    let named = subject["digest"].as_str().unwrap().to_owned();
    let more = |kind: &str| json!({"subject": subject, "artifactType": kind, "annotations": {"kind": kind}});
    // The subject is pushed last: it may be missing.
    let (sbom, signature) = (image(b"layer", &more("a/sbom")), image(b"layer", &more("a/signature")));
    let index =
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [], "subject": subject, "artifactType": "a/index"});
    for (reference, referrer) in [(of(&sbom).to_string(), &sbom), ("signed".to_owned(), &signature), (of(&index).to_string(), &index)] {
        let put = server.put_manifest("app", &reference, referrer).await;
        assert_eq!((put.status().as_u16(), header(&put, "oci-subject")), (201, Some(named.as_str())));
    }
    let plain = image(b"layer", &json!({"subject": subject}));
    server.put_manifest("app", "plain", &plain).await;
    assert_eq!(header(&server.put_manifest("app", "v1", &manifest).await, "oci-subject"), None);
    let found = server.json(&format!("/v2/app/referrers/{named}")).await;
    let mut types: Vec<&str> = found["manifests"].as_array().unwrap().iter().map(|entry| entry["artifactType"].as_str().unwrap()).collect();
    types.sort_unstable();
    assert_eq!(types, ["a/index", "a/sbom", "a/signature", media_type::OCI_CONFIG]);
    let filtered = server.get(&format!("/v2/app/referrers/{named}?artifactType=a/sbom")).await;
    assert_eq!(header(&filtered, "oci-filters-applied"), Some("artifactType"));
    let filtered: Value = filtered.json().await.unwrap();
    assert_eq!((filtered["manifests"].as_array().unwrap().len(), &filtered["manifests"][0]["annotations"]["kind"]), (1, &json!("a/sbom")));
    assert_eq!(server.status(Method::DELETE, &format!("/v2/app/manifests/{}", of(&sbom))).await, 202);
    assert_eq!(server.json(&format!("/v2/app/referrers/{named}")).await["manifests"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn catalog_lists_what_was_put() {
    let (server, manifest) = with_image(&json!({})).await;
    server.push_blob("team/index.json", EMPTY).await;
    server.push_blob("team/index.json", b"layer").await;
    for repository in ["app", "team/index.json"] {
        server.put_manifest(repository, "v1", &manifest).await;
    }
    assert_eq!(server.json("/v2/_catalog").await["repositories"], json!(["app", "team/index.json"]));
    assert_eq!(server.json("/v2/_catalog?n=1").await["repositories"], json!(["app"]));
}
