//! Failures while putting manifests and linking referrers.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::{Value, json};

use super::scripted::{Received, Reply, Server, reply};
use super::writable::{FULL, Manner, Writable, error, writer};
use super::writing::{descriptor, manifest, silent, source};
use super::{repository, tag};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Tag, Version, media_type};
use crate::registry::{HttpRegistry, Pull, Push};

fn is_put(request: &Received) -> bool {
    request.method == "PUT" && request.path.contains("/manifests/")
}

fn puts(server: &Server) -> usize {
    server.log().iter().filter(|request| is_put(request)).count()
}

async fn prepared(manner: Manner) -> (Writable, HttpRegistry, Server) {
    let registry = Writable::new(manner);
    let server = registry.serve(|_, _| None).await;
    let client = writer(&server.authority);
    client.push_blob(&repository(), &descriptor(b"{}"), source(b"{}"), silent()).await.unwrap();
    (registry, client, server)
}

fn by_digest(manifest: &Manifest) -> Version {
    Version::Digest(manifest.digest)
}

#[tokio::test]
async fn the_bytes_of_a_manifest_are_sent_as_they_are_with_their_type() {
    let (_, client, server) = prepared(FULL).await;
    let one = manifest(&[b"{}"], "one", None);
    client.push_manifest(&repository(), &tag("v1"), &one).await.unwrap();
    let sent = server.log().into_iter().find(is_put).unwrap();
    assert_eq!((sent.path.as_str(), sent.bytes.as_slice()), ("/v2/team/app/manifests/v1", one.raw.as_ref()));
    assert_eq!(sent.header("content-type"), Some(media_type::OCI_MANIFEST));
}

#[tokio::test]
async fn after_a_lost_answer_a_tag_is_checked_before_it_is_put_again() {
    let one = manifest(&[b"{}"], "one", None);
    for (version, done, expected, sent) in [
        (tag("v1"), true, Ok(()), 1),
        (tag("v1"), false, Err(ErrorKind::Unreachable), 1),
        (by_digest(&one), true, Ok(()), 1),
        (by_digest(&one), false, Ok(()), 2),
    ] {
        let (registry, _, _) = prepared(FULL).await;
        let seen = AtomicUsize::new(0);
        let server = registry
            .serve(move |request, registry| {
                if !is_put(request) || seen.fetch_add(1, Ordering::SeqCst) > 0 {
                    return None;
                }
                if done {
                    registry.answer(request);
                }
                Some(Reply(Vec::new()))
            })
            .await;
        let put = writer(&server.authority).push_manifest(&repository(), &version, &one).await;
        assert_eq!((put.map_err(|error| error.kind), puts(&server)), (expected, sent), "{version} {done}");
    }
}

/// A referrers list under the fallback tag, where the API answers `api`.
async fn listed(
    api: impl Fn() -> Option<Reply> + Send + Sync + 'static,
    tagged: bool,
) -> (Result<Vec<Descriptor>, Error>, Manifest, Server) {
    let (registry, client, _server) = prepared(Manner { referrers: false, ..FULL }).await;
    let subject = manifest(&[b"{}"], "subject", None);
    let referrer = manifest(&[b"{}"], "referrer", Some(&subject));
    client.push_manifest(&repository(), &by_digest(&referrer), &referrer).await.unwrap();
    if tagged {
        let entry = json!({"mediaType": referrer.media_type, "digest": referrer.digest.to_string(), "size": referrer.raw.len(),
            "artifactType": media_type::OCI_EMPTY});
        let raw = Bytes::from(json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry]}).to_string());
        let index = Manifest::parse(raw.clone(), Digest::of(&raw)).unwrap();
        let name = subject.digest.path_name();
        client.push_manifest(&repository(), &tag(&name), &index).await.unwrap();
    }
    let server = registry.serve(move |request, _| if request.path.contains("/referrers/") { api() } else { None }).await;
    let found = writer(&server.authority).referrers(&repository(), &subject.digest).await;
    (found, referrer, server)
}

#[tokio::test]
async fn referrers_from_the_fallback_tag_are_found_whatever_the_api_says() {
    let elsewhere = Server::start(|_, _| error(404, "NOT_FOUND")).await;
    let away = elsewhere.url("/login");
    let answers: [Option<Reply>; 8] = [
        None,
        Some(reply(303, &[("Location", "/a/page")], b"")),
        Some(reply(303, &[("Location", &away)], b"")),
        Some(reply(303, &[], b"")),
        Some(error(404, "NOT_FOUND")),
        Some(reply(429, &[], b"")),
        Some(error(403, "DENIED")),
        Some(reply(200, &[("Content-Type", "text/html")], b"<html>")),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let (found, referrer, _) = listed(move || answer.clone(), true).await;
        let found = found.unwrap_or_else(|error| panic!("{number}: {error}"));
        let found: Vec<_> = found.iter().map(|entry| (entry.digest, entry.artifact_type.as_deref())).collect();
        assert_eq!(found, [(referrer.digest, Some("application/vnd.example.kind"))], "{number}");
    }
}

#[tokio::test]
async fn an_unavailable_list_of_referrers_is_an_error_not_empty() {
    for (answer, expected) in [
        (reply(429, &[], b""), ErrorKind::Unreachable),
        (error(500, "UNKNOWN"), ErrorKind::Unreachable),
        (error(403, "DENIED"), ErrorKind::Denied),
    ] {
        let (found, ..) = listed(move || Some(answer.clone()), false).await;
        assert_eq!(found.unwrap_err().kind, expected);
    }
    let (found, ..) = listed(|| None, false).await;
    assert!(found.unwrap().is_empty(), "a registry without the API that has no such tag has none");
}

#[tokio::test]
async fn a_busy_registry_gets_the_manifest_again() {
    for struck in [reply(429, &[("Retry-After", "0")], b""), error(503, "UNAVAILABLE")] {
        let (registry, _, _) = prepared(FULL).await;
        let seen = AtomicUsize::new(0);
        let server =
            registry.serve(move |request, _| (is_put(request) && seen.fetch_add(1, Ordering::SeqCst) == 0).then(|| struck.clone())).await;
        writer(&server.authority).push_manifest(&repository(), &tag("v1"), &manifest(&[], "one", None)).await.unwrap();
        assert_eq!(puts(&server), 2);
    }
}

#[tokio::test]
async fn a_refused_manifest_is_invalid_with_the_registry_s_message() {
    let words = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no \u001b]0;x\u0007 layers"}]}"#;
    for (struck, expected) in [
        (reply(400, &[], words.as_bytes()), ErrorKind::Invalid),
        (reply(422, &[], words.as_bytes()), ErrorKind::Invalid),
        (reply(413, &[], words.as_bytes()), ErrorKind::NoSpace),
        (reply(403, &[], words.as_bytes()), ErrorKind::Denied),
        (reply(405, &[], words.as_bytes()), ErrorKind::Unsupported),
        (error(500, "MANIFEST_BLOB_UNKNOWN"), ErrorKind::Invalid),
        (error(400, "DIGEST_INVALID"), ErrorKind::Invalid),
    ] {
        let server = Server::start(move |_, _| struck.clone()).await;
        let refused = writer(&server.authority).push_manifest(&repository(), &tag("v1"), &manifest(&[], "one", None)).await.unwrap_err();
        assert_eq!((refused.kind, server.log().len()), (expected, 1), "{refused}");
        assert!(refused.message.chars().all(|character| (' '..='~').contains(&character)), "{refused:?}");
        assert!(refused.message.contains("INVALID") || refused.message.contains("UNKNOWN"), "{refused}");
    }
}

#[tokio::test]
async fn a_manifest_stored_with_another_digest_is_an_integrity_error() {
    let other = Digest::of(b"other").to_string();
    let server = Server::start(move |_, _| reply(201, &[("Docker-Content-Digest", &other)], b"")).await;
    let client = writer(&server.authority);
    let stored = client.push_manifest(&repository(), &tag("v1"), &manifest(&[], "one", None)).await.unwrap_err();
    assert_eq!(stored.kind, ErrorKind::Integrity, "{stored}");
    let wrong = client.push_manifest(&repository(), &Version::Digest(Digest::of(b"x")), &manifest(&[], "one", None)).await.unwrap_err();
    assert_eq!((wrong.kind, server.log().len()), (ErrorKind::Invalid, 1), "what is wrong is not sent");
}

/// The subject, a referrer of it, and the fallback tag.
async fn pushed(client: &HttpRegistry, note: &str) -> (Manifest, Manifest, Version) {
    let subject = manifest(&[b"{}"], "subject", None);
    let referrer = manifest(&[b"{}"], note, Some(&subject));
    for manifest in [&subject, &referrer] {
        client.push_manifest(&repository(), &by_digest(manifest), manifest).await.unwrap();
    }
    let name = Version::Tag(Tag::parse(&subject.digest.path_name()).unwrap());
    (subject, referrer, name)
}

#[tokio::test]
async fn no_fallback_tag_is_written_if_the_registry_lists_referrers() {
    let (_, client, server) = prepared(FULL).await;
    let (subject, referrer, _) = pushed(&client, "one").await;
    let before = server.log().len();
    client.link_referrer(&repository(), &subject.digest, &referrer.descriptor()).await.unwrap();
    assert_eq!(server.log().len(), before, "its answer said so");
    writer(&server.authority).link_referrer(&repository(), &subject.digest, &referrer.descriptor()).await.unwrap();
    assert_eq!((server.log().len(), puts(&server)), (before + 1, 2), "another process asks once");
}

#[tokio::test]
async fn the_fallback_tag_keeps_entries_of_others_and_drops_missing_manifests() {
    let (registry, client, _server) = prepared(Manner { referrers: false, ..FULL }).await;
    let (subject, first, name) = pushed(&client, "first").await;
    client.link_referrer(&repository(), &subject.digest, &first.descriptor()).await.unwrap();
    // Another tool adds members and annotations of its own.
    let mut index: Value = serde_json::from_slice(&client.manifest(&repository(), &name).await.unwrap().raw).unwrap();
    index["annotations"] = json!({"by": "another"});
    let raw = Bytes::from(index.to_string());
    let digest = Digest::of(&raw);
    client.push_manifest(&repository(), &name, &Manifest::parse(raw, digest).unwrap()).await.unwrap();
    let (_, second, _) = pushed(&client, "second").await;
    client.link_referrer(&repository(), &subject.digest, &second.descriptor()).await.unwrap();
    let found = client.manifest(&repository(), &name).await.unwrap();
    let members = |index: &Manifest| index.index().unwrap().manifests.iter().map(|member| member.digest).collect::<Vec<_>>();
    assert_eq!(members(&found), [first.digest, second.digest]);
    assert_eq!(found.annotations()["by"], "another");
    registry.held.lock().manifests.remove(&("team/app".to_owned(), first.digest.to_string()));
    let (_, third, _) = pushed(&client, "third").await;
    client.link_referrer(&repository(), &subject.digest, &third.descriptor()).await.unwrap();
    assert_eq!(members(&client.manifest(&repository(), &name).await.unwrap()), [second.digest, third.digest]);
}

#[tokio::test]
async fn referrers_that_are_linked_at_once_are_all_found() {
    let (_, client, _server) = prepared(Manner { referrers: false, ..FULL }).await;
    let mut linked = Vec::new();
    for name in ["one", "two", "three", "four", "five", "six"] {
        linked.push(pushed(&client, name).await);
    }
    let (repository, subject) = (repository(), linked[0].0.digest);
    let linking = linked.iter().map(|(_, referrer, _)| {
        let (client, repository, referrer) = (&client, &repository, referrer.descriptor());
        async move { client.link_referrer(repository, &subject, &referrer).await }
    });
    futures_util::future::try_join_all(linking).await.unwrap();
    let mut found: Vec<Digest> = client.referrers(&repository, &subject).await.unwrap().iter().map(|found| found.digest).collect();
    let mut expected: Vec<Digest> = linked.iter().map(|(_, referrer, _)| referrer.digest).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn an_overwritten_entry_is_added_again_a_limited_number_of_times() {
    for (overwritten, expected) in [(1, Ok(())), (usize::MAX, Err(ErrorKind::Busy))] {
        let (registry, client, _server) = prepared(Manner { referrers: false, ..FULL }).await;
        let (subject, referrer, name) = pushed(&client, "one").await;
        let (tag, seen) = (name.to_path(), AtomicUsize::new(0));
        let server = registry
            .serve(move |request, registry| {
                if !is_put(request) || !request.path.ends_with(&tag) || seen.fetch_add(1, Ordering::SeqCst) >= overwritten {
                    return None;
                }
                // The put succeeds, and someone else's list follows at once.
                let taken = registry.answer(request);
                let other = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}).to_string();
                registry.answer(&Received { bytes: other.into_bytes(), ..request.clone() });
                Some(taken)
            })
            .await;
        let linked = writer(&server.authority).link_referrer(&repository(), &subject.digest, &referrer.descriptor()).await;
        assert_eq!(linked.map_err(|error| error.kind), expected);
    }
}

#[tokio::test]
async fn a_fallback_tag_that_holds_something_else_is_left_alone() {
    let (_, client, server) = prepared(Manner { referrers: false, ..FULL }).await;
    let (subject, referrer, name) = pushed(&client, "one").await;
    client.push_manifest(&repository(), &name, &subject).await.unwrap();
    let before = puts(&server);
    let occupied = client.link_referrer(&repository(), &subject.digest, &referrer.descriptor()).await.unwrap_err();
    assert_eq!((occupied.kind, puts(&server)), (ErrorKind::Conflict, before), "{occupied}");
}
