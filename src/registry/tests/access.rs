//! Where credentials go, and where they must not.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};

use super::scripted::{Part, Received, Reply, Server, reply};
use super::{client, client_with, collect, repository, tag};
use crate::error::ErrorKind;
use crate::oci::{Descriptor, Digest};
use crate::registry::{Pull, Trust};

const SECRET: &str = "hunter2";

fn basic() -> String {
    format!("Basic {}", encoded())
}

fn encoded() -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("me:{SECRET}"))
}

fn stored(authority: &str) -> Value {
    json!({"auths": {authority: {"auth": encoded()}}})
}

/// No header, path or body contains the password, in any encoding.
fn saw_no_secret(server: &Server) -> bool {
    server.log().iter().all(|request| {
        let text = format!("{request:?}");
        !request.headers.contains_key("authorization") && !text.contains(SECRET) && !text.contains(&encoded())
    })
}

fn empty_list() -> Reply {
    reply(200, &[], br#"{"tags":["v1"]}"#)
}

/// A registry that demands a token from `realm`.
fn wants_token(request: &Received, realm: &str, token: &str) -> Reply {
    if request.header("authorization") == Some(&format!("Bearer {token}")) {
        return empty_list();
    }
    let challenge = format!(r#"Bearer realm="{realm}",service="reg",scope="repository:team/app:pull""#);
    reply(401, &[("WWW-Authenticate", &challenge)], b"")
}

#[tokio::test]
async fn a_password_is_sent_after_the_first_challenge_and_then_preemptively() {
    let server = Server::start(|request, _| match request.header("authorization") {
        Some(header) if header == basic() => empty_list(),
        _ => reply(401, &[("WWW-Authenticate", r#"Basic realm="x""#)], b""),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let client = client_with(&server.authority, &directory, &stored(&server.authority), |_| {});
    client.tags(&repository(), None).await.unwrap();
    client.tags(&repository(), None).await.unwrap();
    let sent: Vec<_> = server.log().iter().map(|request| request.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true, true]);
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_named_by_its_file_only() {
    let server = Server::start(|_, _| reply(401, &[("WWW-Authenticate", r#"Basic realm="x""#)], b"")).await;
    let directory = tempfile::tempdir().unwrap();
    let client = client_with(&server.authority, &directory, &stored(&server.authority), |_| {});
    for error in [client.ping(None).await.unwrap_err(), client.tags(&repository(), None).await.unwrap_err()] {
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.message.contains("auth.json") && !error.message.contains(SECRET), "{error}");
    }
    let anonymous = super::client(&server.authority).ping(None).await.unwrap_err();
    assert!(anonymous.message.contains("no credentials are stored"), "{anonymous}");
}

#[tokio::test]
async fn a_rotated_password_takes_effect_without_a_new_client() {
    let server = Server::start(|request, _| match request.header("authorization") {
        Some(header) if header == basic() => empty_list(),
        _ => reply(401, &[("WWW-Authenticate", r#"Basic realm="x""#)], b""),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let client = client_with(&server.authority, &directory, &json!({}), |_| {});
    assert_eq!(client.tags(&repository(), None).await.unwrap_err().kind, ErrorKind::Denied);
    std::fs::write(directory.path().join("auth.json"), stored(&server.authority).to_string()).unwrap();
    client.tags(&repository(), None).await.unwrap();
}

#[tokio::test]
async fn a_token_is_requested_once_for_all_callers_and_used_until_refused() {
    let realm: Arc<std::sync::OnceLock<String>> = Arc::default();
    let (known, current) = (Arc::clone(&realm), Arc::new(std::sync::atomic::AtomicU32::new(1)));
    let valid = Arc::clone(&current);
    let server = Server::start(move |request, _| {
        let token = format!("token{}", valid.load(std::sync::atomic::Ordering::SeqCst));
        if request.path.starts_with("/token") {
            assert_eq!(request.header("authorization"), Some(basic().as_str()));
            assert!(request.path.contains("service=reg&scope=repository%3Ateam%2Fapp%3Apull"), "{}", request.path);
            return reply(200, &[], json!({"access_token": token, "expires_in": 300}).to_string().as_bytes());
        }
        wants_token(request, known.get().unwrap(), &token)
    })
    .await;
    realm.set(server.url("/token")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let client = client_with(&server.authority, &directory, &stored(&server.authority), |_| {});
    let tokens = || server.log().iter().filter(|request| request.path.starts_with("/token")).count();
    let repository = repository();
    let many = futures_util::future::join_all((0..32).map(|_| client.tags(&repository, None))).await;
    assert!(many.iter().all(Result::is_ok));
    assert_eq!(tokens(), 1);
    current.store(2, std::sync::atomic::Ordering::SeqCst);
    let many = futures_util::future::join_all((0..32).map(|_| client.tags(&repository, None))).await;
    assert!(many.iter().all(Result::is_ok), "{many:?}");
    assert_eq!(tokens(), 2);
    assert!(
        server
            .log()
            .iter()
            .filter(|request| !request.path.starts_with("/token"))
            .all(|request| request.header("authorization") != Some(&basic()))
    );
}

#[tokio::test]
async fn a_token_server_elsewhere_gets_no_credentials_unless_it_is_trusted() {
    for host in ["127.0.0.1", "localhost"] {
        let foreign = Server::start(|request, _| {
            let token = if request.header("authorization") == Some(&basic()) { "good" } else { "anonymous" };
            reply(200, &[], json!({"token": token}).to_string().as_bytes())
        })
        .await;
        let origin = foreign.url("").replace("127.0.0.1", host);
        let realm = format!("{origin}/token");
        let server = Server::start(move |request, _| wants_token(request, &realm, "good")).await;
        let directory = tempfile::tempdir().unwrap();
        let client = client_with(&server.authority, &directory, &stored(&server.authority), |_| {});
        let error = client.tags(&repository(), None).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.message.contains(&origin) && error.message.contains("were not sent"), "{error}");
        assert!(!foreign.log().is_empty() && saw_no_secret(&foreign));
        let trusting =
            client_with(&server.authority, &directory, &stored(&server.authority), |config| config.trusted_realms = vec![origin.clone()]);
        trusting.tags(&repository(), None).await.unwrap();
    }
}

#[tokio::test]
async fn malformed_realms_get_no_request() {
    let foreign = Server::start(|_, _| reply(200, &[], br#"{"token":"x"}"#)).await;
    let with_user = foreign.url("/token").replace("http://", "http://u:p@");
    for realm in
        [with_user, "/token".to_owned(), "file:///etc/passwd".to_owned(), format!("//{}/token", foreign.authority), "x".repeat(40_000)]
    {
        let server = Server::start(move |request, _| wants_token(request, &realm, "good")).await;
        let directory = tempfile::tempdir().unwrap();
        let client = client_with(&server.authority, &directory, &stored(&server.authority), |_| {});
        assert_eq!(client.tags(&repository(), None).await.unwrap_err().kind, ErrorKind::Denied);
    }
    assert!(foreign.log().is_empty());
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post_and_goes_nowhere_else() {
    let realm: Arc<std::sync::OnceLock<String>> = Arc::default();
    let known = Arc::clone(&realm);
    let server = Server::start(move |request, _| {
        if request.path == "/token" {
            assert_eq!(request.method, "POST");
            assert!(
                request.body.contains("grant_type=refresh_token") && request.body.contains(&format!("refresh_token={SECRET}")),
                "{}",
                request.body
            );
            return reply(200, &[], br#"{"access_token":"good"}"#);
        }
        wants_token(request, known.get().unwrap(), "good")
    })
    .await;
    realm.set(server.url("/token")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let content = json!({"auths": {&server.authority: {"identitytoken": SECRET}}});
    let client = client_with(&server.authority, &directory, &content, |_| {});
    client.tags(&repository(), None).await.unwrap();
    assert!(server.log().iter().filter(|request| request.path != "/token").all(|request| !format!("{request:?}").contains(SECRET)));
}

#[tokio::test]
async fn unusable_token_responses_are_refused_and_token_redirects_not_followed() {
    let foreign = Server::start(|_, _| reply(200, &[], br#"{"token":"good"}"#)).await;
    let elsewhere = foreign.url("/token");
    let large = json!({"token": "x".repeat(70_000)}).to_string();
    for answer in [
        reply(200, &[], b"{}"),
        reply(200, &[], b"<html>"),
        reply(200, &[], br#"{"token":"a\nb"}"#),
        reply(200, &[], br#"{"token":null,"access_token":null}"#),
        reply(200, &[], large.as_bytes()),
        reply(307, &[("Location", &elsewhere)], b""),
        reply(401, &[], b""),
    ] {
        let realm: Arc<std::sync::OnceLock<String>> = Arc::default();
        let known = Arc::clone(&realm);
        let server = Server::start(move |request, _| {
            if request.path.starts_with("/token") { answer.clone() } else { wants_token(request, known.get().unwrap(), "good") }
        })
        .await;
        realm.set(server.url("/token")).unwrap();
        let error = client(&server.authority).tags(&repository(), None).await.unwrap_err();
        assert_ne!(error.kind, ErrorKind::NotFound, "{error}");
    }
    assert!(foreign.log().is_empty());
}

#[tokio::test]
async fn useless_token_responses_count_as_none() {
    for answer in [
        json!({"token": "good", "access_token": null, "expires_in": null}),
        json!({"token": null, "access_token": "good", "expires_in": 0}),
        json!({"token": "", "access_token": "good", "expires_in": -5}),
        json!({"token": "good", "expires_in": 300.5, "issued_at": null}),
    ] {
        let realm: Arc<std::sync::OnceLock<String>> = Arc::default();
        let known = Arc::clone(&realm);
        let body = answer.to_string();
        let server = Server::start(move |request, _| match request.path.starts_with("/token") {
            true => reply(200, &[], body.as_bytes()),
            false => wants_token(request, known.get().unwrap(), "good"),
        })
        .await;
        realm.set(server.url("/token")).unwrap();
        let client = client(&server.authority);
        for _ in 0..2 {
            client.tags(&repository(), None).await.unwrap_or_else(|error| panic!("{answer}: {error}"));
        }
        // Cached, since an invalid lifetime falls back to the default.
        assert_eq!(server.log().iter().filter(|request| request.path.starts_with("/token")).count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn an_unmeetable_challenge_does_not_hide_a_meetable_one() {
    let foreign = Server::start(|_, _| reply(200, &[], br#"{"token":"stranger"}"#)).await;
    for unusable in ["file:///etc/passwd".to_owned(), "/token".to_owned(), "http://u:p@127.0.0.1/t".to_owned(), foreign.url("/token")] {
        let challenge = format!(r#"Bearer realm="{unusable}", Basic realm="x""#);
        let server = Server::start(move |request, _| match request.header("authorization") {
            Some(header) if header == basic() => empty_list(),
            _ => reply(401, &[("WWW-Authenticate", &challenge)], b""),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let client = client_with(&server.authority, &directory, &stored(&server.authority), |_| {});
        for _ in 0..2 {
            client.tags(&repository(), None).await.unwrap();
        }
        assert_eq!(server.log().len(), 3, "what worked is sent at once");
    }
    assert!(foreign.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_a_token_server_is_honoured() {
    for status in [429, 503] {
        let realm: Arc<std::sync::OnceLock<String>> = Arc::default();
        let (known, asked) = (Arc::clone(&realm), std::sync::atomic::AtomicU32::new(0));
        let server = Server::start(move |request, _| match request.path.starts_with("/token") {
            true if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => reply(status, &[("Retry-After", "45")], b""),
            true => reply(200, &[], br#"{"token":"good"}"#),
            false => wants_token(request, known.get().unwrap(), "good"),
        })
        .await;
        realm.set(server.url("/token")).unwrap();
        let begun = tokio::time::Instant::now();
        client(&server.authority).tags(&repository(), None).await.unwrap();
        // The test clock advances only while something waits.
        assert!(begun.elapsed() >= std::time::Duration::from_secs(45), "{status}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_token_is_requested_only_for_the_needed_scope() {
    for (wanted, expected) in [
        ("repository:team/app:pull,push,delete", "repository:team/app:pull"),
        ("repository:other/app:pull", "repository:team/app:pull"),
        ("repository:team/app:*", "repository:team/app:pull"),
        ("registry:catalog:*", "repository:team/app:pull"),
        ("repository:team/app:pull repository:other/app:pull,push", "repository:team/app:pull"),
        ("repository:team/app:metadata_read", "repository:team/app:metadata_read"),
        ("repository:team/app:metadata_read,push repository:team/app:delete", "repository:team/app:metadata_read"),
        ("", "repository:team/app:pull"),
    ] {
        let realm: Arc<std::sync::OnceLock<String>> = Arc::default();
        let known = Arc::clone(&realm);
        let server = Server::start(move |request, _| {
            if request.path.starts_with("/token") {
                return reply(200, &[], br#"{"token":"good"}"#);
            }
            if request.header("authorization") == Some("Bearer good") {
                return empty_list();
            }
            let challenge = format!(r#"Bearer realm="{}",service="reg",scope="{wanted}""#, known.get().unwrap());
            reply(401, &[("WWW-Authenticate", &challenge)], b"")
        })
        .await;
        realm.set(server.url("/token")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        client_with(&server.authority, &directory, &stored(&server.authority), |_| {}).tags(&repository(), None).await.unwrap();
        let asked: Vec<String> = server.log().into_iter().map(|request| request.path).filter(|path| path.starts_with("/token")).collect();
        let scope = expected.replace(':', "%3A").replace('/', "%2F").replace(',', "%2C");
        assert_eq!(asked, [format!("/token?service=reg&scope={scope}")], "{wanted}");
    }
}

#[tokio::test]
async fn a_registry_gets_no_token_for_another_registry_of_its_token_server() {
    let shared = Server::start(|_, _| reply(200, &[], br#"{"token":"good"}"#)).await;
    let origin = shared.url("");
    let realm = shared.url("/token");
    let server = Server::start(move |request, _| match request.header("authorization") {
        Some("Bearer good") => empty_list(),
        _ => reply(401, &[("WWW-Authenticate", &format!(r#"Bearer realm="{realm}",service="other.io""#))], b""),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let trusting = |realm: String| {
        client_with(&server.authority, &directory, &stored(&server.authority), |config| config.trusted_realms = vec![realm])
    };
    let error = trusting(origin.clone()).tags(&repository(), None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(error.message.contains(&format!("--trusted-realm {origin}?service=other.io")), "{error}");
    assert!(shared.log().is_empty());
    trusting(format!("{origin}?service=other.io")).tags(&repository(), None).await.unwrap();
    assert_eq!(shared.log().len(), 1);
    assert_eq!(trusting(format!("{origin}?service=this.io")).tags(&repository(), None).await.unwrap_err().kind, ErrorKind::Denied);
    assert_eq!(shared.log().len(), 1);
}

#[tokio::test]
async fn redirects_drop_the_credentials_for_good() {
    let data = b"blob".to_vec();
    let blob = Descriptor::new("a/b", Digest::of(&data), 4);
    let back: Arc<std::sync::OnceLock<String>> = Arc::default();
    let home = Arc::clone(&back);
    let storage = Server::start(move |_, _| reply(307, &[("Location", home.get().unwrap())], b"")).await;
    let away = storage.url("/signed?signature=abc");
    let server = Server::start(move |request, _| match (request.path.as_str(), request.header("authorization")) {
        ("/back", None) => reply(200, &[], b"blob"),
        ("/back", Some(_)) => reply(400, &[], b""),
        (_, Some(_)) => reply(307, &[("Location", &away)], b""),
        (_, None) => reply(401, &[("WWW-Authenticate", r#"Basic realm="x""#)], b""),
    })
    .await;
    back.set(server.url("/back")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let client = client_with(&server.authority, &directory, &stored(&server.authority), |_| {});
    assert_eq!(collect(client.blob(&repository(), &blob, 0..4).await.unwrap()).await.unwrap(), data);
    assert!(saw_no_secret(&storage) && storage.log().len() == 1);
}

#[tokio::test]
async fn a_redirect_to_plain_http_elsewhere_makes_the_transport_untrusted() {
    let blob = Descriptor::new("a/b", Digest::of(b"blob"), 4);
    // Not loopback by name, yet this machine.
    for (host, trust) in [("127.0.0.1", Trust::Transport), ("0.0.0.0", Trust::Digest)] {
        let storage = Server::start(|_, _| reply(200, &[], b"blob")).await;
        let away = storage.url("/signed").replace("127.0.0.1", host);
        let server = Server::start(move |_, _| reply(307, &[("Location", &away)], b"")).await;
        let client = client(&server.authority);
        assert_eq!(client.trust(), Trust::Transport);
        let stream = client.blob(&repository(), &blob, 0..4).await.unwrap();
        assert_eq!(client.trust(), trust, "before a byte of it is read");
        assert_eq!(collect(stream).await.unwrap(), b"blob");
    }
}

#[tokio::test]
async fn a_redirect_target_is_reused_until_it_refuses() {
    let blob = Descriptor::new("a/b", Digest::of(b"blob"), 4);
    let storage = Server::start(|_, before| match before {
        2 => reply(403, &[], b"expired"),
        _ => reply(206, &[("Content-Range", "bytes 1-2/4")], b"lo"),
    })
    .await;
    let away = storage.url("/signed");
    let server = Server::start(move |_, _| reply(307, &[("Location", &away)], b"")).await;
    let client = client(&server.authority);
    for _ in 0..3 {
        assert_eq!(collect(client.blob(&repository(), &blob, 1..3).await.unwrap()).await.unwrap(), b"lo");
    }
    assert_eq!((server.log().len(), storage.log().len()), (2, 4));
}

#[tokio::test]
async fn the_registry_is_asked_again_when_a_redirect_target_is_gone() {
    let blob = Descriptor::new("a/b", Digest::of(b"blob"), 4);
    let part = || reply(206, &[("Content-Range", "bytes 1-2/4")], b"lo");
    let first = Server::start(move |_, before| if before == 0 { part() } else { Reply(Vec::new()) }).await;
    let second = Server::start(move |_, _| part()).await;
    let places = [first.url("/signed"), second.url("/signed")];
    let server = Server::start(move |_, before| reply(307, &[("Location", &places[before.min(1)])], b"")).await;
    let client = client(&server.authority);
    for _ in 0..2 {
        assert_eq!(collect(client.blob(&repository(), &blob, 1..3).await.unwrap()).await.unwrap(), b"lo");
    }
    assert_eq!((server.log().len(), second.log().len()), (2, 1));
}

#[tokio::test]
async fn redirect_loops_and_non_http_redirects_are_errors() {
    let server = Server::start(|_, _| reply(302, &[("Location", "/again")], b"")).await;
    let error = client(&server.authority).tags(&repository(), None).await.unwrap_err();
    assert_eq!((error.kind, server.log().len()), (ErrorKind::Unreachable, 6), "{error}");
    for location in ["file:///etc/passwd", "http://u:p@127.0.0.1/", "http://"] {
        let server = Server::start(move |_, _| reply(307, &[("Location", location)], b"")).await;
        let error = client(&server.authority).manifest(&repository(), &tag("v1")).await.unwrap_err();
        assert_eq!((error.kind, server.log().len()), (ErrorKind::Unreachable, 1), "{error}");
    }
}

#[tokio::test]
async fn a_404_from_a_storage_host_does_not_prove_absence() {
    let blob = Descriptor::new("a/b", Digest::of(b"blob"), 4);
    let storage = Server::start(|_, _| reply(404, &[], b"")).await;
    let away = storage.url("/signed?secret=query");
    let server = Server::start(move |_, _| reply(307, &[("Location", &away)], b"")).await;
    let error = client(&server.authority).blob(&repository(), &blob, 0..4).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(!error.message.contains("secret=query"), "{error}");
}

#[tokio::test]
async fn without_credentials_a_registry_with_tokens_passes_the_first_check() {
    let realm: Arc<std::sync::OnceLock<String>> = Arc::default();
    let known = Arc::clone(&realm);
    let server = Server::start(move |request, _| {
        if request.path.starts_with("/token") { reply(401, &[], b"") } else { wants_token(request, known.get().unwrap(), "good") }
    })
    .await;
    realm.set(server.url("/token")).unwrap();
    client(&server.authority).ping(None).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let wrong = client_with(&server.authority, &directory, &stored(&server.authority), |_| {});
    assert_eq!(wrong.ping(None).await.unwrap_err().kind, ErrorKind::Denied);
    let hanging = Server::start(|_, _| Reply(vec![Part::Hang])).await;
    let impatient =
        client_with(&hanging.authority, &directory, &json!({}), |config| config.timing.progress = std::time::Duration::from_millis(100));
    assert_eq!(impatient.ping(None).await.unwrap_err().kind, ErrorKind::TimedOut);
}
