//! The pages for people, as HTML.

use super::files::{TITLE, server_of};
use super::*;
use crate::registry::PlainLayer;

const EVIL: &str = "<img src=x onerror=alert(1)>";

async fn html(server: &TestServer, path: &str) -> String {
    let answer = server.request(Method::GET, path).header("accept", "text/html,*/*;q=0.8").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "content-type")), (200, Some("text/html; charset=utf-8")), "{path}");
    answer.text().await.unwrap()
}

#[tokio::test]
async fn repositories_are_listed_searched_and_paged() {
    let upstream = memory("memory:a");
    for number in 0..150 {
        upstream.add_repository(&format!("team/app-{number:03}"));
    }
    let server = server_of(&upstream).await;
    let first = html(&server, "/").await;
    assert!(first.contains("href=\"/files/up/team/app-000\"") && !first.contains("app-100"));
    let next = first.split("rel=\"next\" href=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().replace("&amp;", "&");
    let second = html(&server, &format!("/{next}")).await;
    assert!(second.contains("app-100") && second.contains("app-149") && !second.contains("app-099") && !second.contains("rel=\"next\""));
    let found = html(&server, "/?q=APP-07+team").await;
    assert!(found.contains("app-070") && !found.contains("app-080"));
    // A complete name opens even if no list has it.
    assert!(html(&server, "/?q=up%2Fother%2Fapp:v1").await.contains("href=\"/files/up/other/app:v1/\""));
    let nothing = html(&server, "/?q=zzz").await;
    assert!(nothing.contains("No repository") && !nothing.contains("/files/"));
}

#[tokio::test]
async fn an_upstream_without_a_list_is_named() {
    let upstream = memory("memory:a");
    upstream.set_catalog(false);
    let server = server_of(&upstream).await;
    assert!(html(&server, "/").await.contains("does not list its repositories"));
}

#[tokio::test]
async fn tags_are_listed_filtered_and_paged() {
    let upstream = memory("memory:a");
    let digest = add_image(&upstream, "app", "v000", b"layer");
    for number in 1..150 {
        upstream.tag("app", &format!("v{number:03}"), digest);
    }
    let server = server_of(&upstream).await;
    let first = html(&server, "/files/up/app").await;
    assert!(first.contains("href=\"/files/up/app:v000/\"") && first.contains("last=v099") && !first.contains("v120"));
    assert!(first.contains(&format!("ocifs mount <bdi>{}</bdi>/", server.base.trim_start_matches("http://"))));
    let filtered = html(&server, "/files/up/app?tag=v12").await;
    assert!(filtered.contains("v125") && !filtered.contains("v099"));
}

#[tokio::test]
async fn names_and_annotations_are_never_markup() {
    let upstream = memory("memory:a");
    let layers: &[PlainLayer<'_>] = &[("a/b", b"one", &[(TITLE, EVIL)]), ("a/b\"><b>", b"two", &[(TITLE, "\u{202e}gpj")])];
    upstream.add_artifact("app", "v1", ("a/b", b"{}"), layers, &[("<b>key", EVIL), ("x", "</dd><script>")]);
    let server = server_of(&upstream).await;
    let path = format!("/?q={}", percent_encoding::utf8_percent_encode(EVIL, percent_encoding::NON_ALPHANUMERIC));
    for path in ["/files/up/app:v1/", "/files/up/app:v1/%3Cimg%20src=x%20onerror=alert(1)%3Ex", path.as_str()] {
        let answer = server.request(Method::GET, path).header("accept", "text/html").send().await.unwrap();
        let page = answer.text().await.unwrap();
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"), "{page}");
        assert!(!page.contains("<img") && !page.contains("<script") && !page.contains("<b>") && !page.contains('\u{202e}'), "{page}");
    }
}

#[tokio::test]
async fn a_page_describes_an_artifact_and_its_referrers() {
    let upstream = memory("memory:a");
    let digest = upstream.add_artifact("app", "v1", ("a/b", b"{}"), &[("c/d", b"data", &[(TITLE, "file")])], &[("k", "v")]);
    let referrer = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "example/sbom", "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}").to_string(), "size": 2},
        "layers": [], "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.to_string(), "size": 1}});
    let referrer = upstream.add_manifest("app", referrer.to_string());
    let server = server_of(&upstream).await;
    let page = html(&server, "/files/up/app:v1/").await;
    let host = server.base.trim_start_matches("http://");
    assert!(page.contains("<title>up/app:v1 · ocifs</title>"), "{page}");
    for expected in [
        digest.to_string(),
        format!("/files/up/app@{referrer}/"),
        "example/sbom".to_owned(),
        format!("/v2/up/app/blobs/{}", Digest::of(b"data")),
        format!("ocifs mount <bdi>{host}/up/app:v1</bdi> ~/"),
        "href=\"/files/up/app:v1/file\"".to_owned(),
    ] {
        assert!(page.contains(&expected), "{expected} is missing in {page}");
    }
}
