//! The harness itself: each registry variant demands what it should, and the proxy corrupts what it is told to.

use crate::support::artifacts::{Draft, LAYER, gzip, tar, zstandard};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::runtime;
use crate::support::skip::{Need, lacks};
use crate::support::tokens::TokenRequest;
use std::time::Duration;

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

/// Status and body of a GET.
fn get(
    client: reqwest::Client,
    url: &str,
    prepare: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
) -> reqwest::Result<(u16, Vec<u8>)> {
    runtime().block_on(async {
        let answer = prepare(client.get(url)).send().await?;
        Ok((answer.status().as_u16(), answer.bytes().await?.to_vec()))
    })
}

fn status(url: &str) -> u16 {
    get(client().build().unwrap(), url, |request| request).unwrap().0
}

/// A draft with one file, and the digest of its layer.
fn one_file() -> (Draft, String) {
    let mut draft = Draft::new();
    draft.files("v1", &[("hello.txt", b"hello from a registry\n")]);
    let digest = draft.layout().manifest("v1")["layers"][0]["digest"].as_str().unwrap().to_owned();
    (draft, digest)
}

#[test]
fn pushed_artifacts_are_stored_byte_for_byte() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    let (mut draft, digest) = one_file();
    let archive = tar(&[("a", b"1"), ("b/c", b"2")]);
    let layers = [draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive)), draft.blob(&format!("{LAYER}+zstd"), &zstandard(&archive))];
    draft.image("image", &layers);
    draft.layout().push(&registry.url(), "team/app");
    for tag in draft.layout().tags() {
        let (status, body) = get(client().build().unwrap(), &format!("{}/v2/team/app/manifests/{tag}", registry.url()), |request| {
            request.header("accept", crate::support::artifacts::MANIFEST)
        })
        .unwrap();
        assert_eq!((status, serde_json::from_slice::<serde_json::Value>(&body).unwrap()), (200, draft.layout().manifest(&tag)), "{tag}");
    }
    assert_eq!(std::fs::read(registry.blob_file(&digest)).unwrap(), b"hello from a registry\n");
}

#[test]
fn the_password_variant_asks_for_it() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::start(Variant { htpasswd: true, ..Variant::default() });
    let url = format!("{}/v2/", registry.url());
    assert_eq!(status(&url), 401);
    assert_eq!(get(client().build().unwrap(), &url, |request| request.basic_auth(USER, Some("wrong"))).unwrap().0, 401);
    assert_eq!(get(client().build().unwrap(), &url, |request| request.basic_auth(USER, Some(PASSWORD))).unwrap().0, 200);
    let (draft, digest) = one_file();
    registry.writing(|url| draft.layout().push(url, "app"));
    let blob = format!("{}/v2/app/blobs/{digest}", registry.url());
    assert_eq!(get(client().build().unwrap(), &blob, |request| request.basic_auth(USER, Some(PASSWORD))).unwrap().0, 200);
}

#[test]
fn the_tls_variant_is_trusted_only_through_its_own_ca() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::start(Variant { tls: true, ..Variant::default() });
    let url = format!("{}/v2/", registry.url());
    let authority = reqwest::Certificate::from_pem(&std::fs::read(registry.ca_file()).unwrap()).unwrap();
    assert_eq!(get(client().tls_certs_merge([authority]).build().unwrap(), &url, |request| request).unwrap().0, 200);
    assert!(get(client().build().unwrap(), &url, |request| request).unwrap_err().is_connect());
}

#[test]
fn the_token_variant_accepts_tokens_of_its_token_server() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::start(Variant { tokens: true, ..Variant::default() });
    let (draft, digest) = one_file();
    registry.writing(|url| draft.layout().push(url, "team/app"));
    let blob = format!("{}/v2/team/app/blobs/{digest}", registry.url());
    assert_eq!(status(&blob), 401);
    let scope = "repository:team/app:pull";
    let realm = format!("{}?service=x&scope={scope}", registry.tokens().realm());
    let token = |password: Option<&str>| {
        let request = |request: reqwest::RequestBuilder| {
            if let Some(password) = password { request.basic_auth(USER, Some(password)) } else { request }
        };
        let (status, body) = get(client().build().unwrap(), &realm, request).unwrap();
        let answer = serde_json::from_slice::<serde_json::Value>(&body).ok();
        (status, answer.and_then(|answer| answer["token"].as_str().map(str::to_owned)).unwrap_or_default())
    };
    let with = |token: &str| get(client().build().unwrap(), &blob, |request| request.bearer_auth(token)).unwrap().0;
    assert_eq!(token(Some("wrong")).0, 401);
    assert_eq!(with(&token(Some(PASSWORD)).1), 200);
    assert_eq!(with(&token(None).1), 401);
    registry.tokens().set_anonymous(true);
    assert_eq!(with(&token(None).1), 200);
    // The registry forgives a minute of clock skew, so a short token shows in its claims, not in a refusal.
    registry.tokens().set_life(7, 7);
    assert_eq!(lifetime(&token(None).1), 7);
    let seen = registry.tokens().requests();
    assert_eq!(seen.len(), 5);
    assert_eq!(seen[1], TokenRequest { scopes: vec![scope.to_owned()], authenticated: true });
}

fn lifetime(token: &str) -> u64 {
    use base64::Engine;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap()
}

#[test]
fn the_read_only_variant_refuses_uploads() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::start(Variant { read_only: true, ..Variant::default() });
    let url = format!("{}/v2/app/blobs/uploads/", registry.url());
    let answer = runtime().block_on(client().build().unwrap().post(url).send()).unwrap();
    assert_eq!(answer.status().as_u16(), 405);
}

#[test]
fn a_registry_hangs_stops_and_comes_back_on_its_port() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let mut registry = Registry::plain();
    let url = format!("{}/v2/", registry.url());
    registry.hang();
    let hasty = client().timeout(Duration::from_millis(200)).build().unwrap();
    assert!(get(hasty, &url, |request| request).unwrap_err().is_timeout());
    registry.resume();
    assert_eq!(status(&url), 200);
    registry.stop();
    assert!(get(client().build().unwrap(), &url, |request| request).unwrap_err().is_connect());
    registry.start_again();
    assert_eq!(status(&url), 200);
}

#[test]
fn the_proxy_records_requests_and_spoils_the_chosen_answers() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    let proxy = Proxy::start(registry.url());
    let (draft, digest) = one_file();
    draft.layout().push(&proxy.url(), "app");
    proxy.forget();
    let blob = format!("{}/v2/app/blobs/{digest}", proxy.url());
    let ranged = get(client().build().unwrap(), &blob, |request| request.header("range", "bytes=6-9")).unwrap();
    assert_eq!(ranged, (206, b"from".to_vec()));
    let seen = proxy.requests();
    assert_eq!(
        (seen.len(), seen[0].method.as_str(), seen[0].range.as_deref(), seen[0].sent, seen[0].authorized),
        (1, "GET", Some("bytes=6-9"), 4, false)
    );

    proxy.spoil(&digest, 1, Fault::Flip(0));
    assert_eq!(get(client().build().unwrap(), &blob, |request| request).unwrap().1, b"iello from a registry\n");
    assert_eq!(get(client().build().unwrap(), &blob, |request| request).unwrap().1, b"hello from a registry\n");
    proxy.spoil(&digest, 1, Fault::Cut(5));
    assert!(get(client().build().unwrap(), &blob, |request| request).is_err());
    proxy.spoil(&digest, 1, Fault::Stall(5));
    let hasty = client().timeout(Duration::from_millis(300)).build().unwrap();
    assert!(get(hasty, &blob, |request| request).unwrap_err().is_timeout());
    proxy.spoil("/_catalog", 1, Fault::Status(404));
    assert_eq!(status(&format!("{}/v2/_catalog", proxy.url())), 404);
    assert_eq!(status(&format!("{}/v2/_catalog", proxy.url())), 200);
    proxy.spoil("/_catalog", 4, Fault::EveryOther(500));
    assert_eq!([0; 4].map(|_: i32| status(&format!("{}/v2/_catalog", proxy.url()))), [200, 500, 200, 500]);
    proxy.refuse();
    assert!(get(client().build().unwrap(), &blob, |request| request).unwrap_err().is_connect());
    proxy.listen_again();
    proxy.spoil("/blobs/", 1, Fault::Redirect(format!("{}/v2/app/blobs/{digest}", registry.url())));
    assert_eq!(status(&blob), 200);
    assert_eq!(proxy.count("GET", "/blobs/"), 6, "what was refused did not arrive");
    assert!(proxy.host().starts_with("127.0.0.1:"));
}
