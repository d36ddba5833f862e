//! Uploads: how blobs are split, and what refusals mean.

mod authority;
mod away;
mod sessions;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::scripted::{Received, Reply, Server, reply};
use super::writable::{FULL, Manner, Writable, error, writer};
use super::writing::{self, descriptor, silent, source, takes};
use super::{config, repository, small_requests};
use crate::error::{Error, ErrorKind};
use crate::registry::{HttpRegistry, Push, TagDeletion, Uploaded};

/// Three and a half chunks, of text that reveals its offset.
fn data() -> Vec<u8> {
    (0..500).flat_map(|number| format!("{number:06}\n").into_bytes()).collect()
}

async fn push(client: &HttpRegistry) -> Result<(), Error> {
    client.push_blob(&repository(), &descriptor(&data()), source(&data()), silent()).await
}

/// The ranges of the chunks sent, and the queries between them.
fn trail(server: &Server) -> Vec<String> {
    let told = |request: &Received| match request.method.as_str() {
        "PATCH" => request.header("content-range").unwrap().to_owned(),
        other => other.to_owned(),
    };
    server.log().iter().map(told).collect()
}

fn is(request: &Received, method: &str) -> bool {
    request.method == method && request.path.contains("/blobs/uploads/")
}

/// Replies to the request with this method and number (from 0).
fn once(method: &'static str, number: usize, struck: Reply) -> impl Fn(&Received, &Writable) -> Option<Reply> + Send + Sync {
    let seen = AtomicUsize::new(0);
    move |request, _| (is(request, method) && seen.fetch_add(1, Ordering::SeqCst) == number).then(|| struck.clone())
}

fn nothing() -> Reply {
    Reply(Vec::new())
}

#[tokio::test]
async fn every_kind_of_registry_accepts_pushes() {
    let direct = Some(TagDeletion::Direct);
    for (manner, deletion) in [
        (FULL, direct),
        (Manner { absolute: true, least: 1500, ..FULL }, direct),
        (Manner { referrers: false, ..FULL }, direct),
        (Manner { tag_deletes: false, ..FULL }, Some(TagDeletion::ByThrowAway)),
        (Manner { tag_deletes: false, deletes: false, referrers: false, ..FULL }, None),
    ] {
        let server = Writable::new(manner).serve(|_, _| None).await;
        takes(&writer(&server.authority), writing::Manner { mounts: true, deletion, large: 10_000 }).await;
    }
}

#[tokio::test]
async fn small_blobs_are_one_request_and_large_ones_chunks_in_order() {
    let registry = Writable::new(FULL);
    let server = registry.serve(|_, _| None).await;
    let client = writer(&server.authority);
    push(&client).await.unwrap();
    assert_eq!(trail(&server), ["POST", "0-999", "1000-1999", "2000-2999", "3000-3499", "PUT"]);
    client.push_blob(&repository(), &descriptor(b"small"), source(b"small"), silent()).await.unwrap();
    let last = server.log().pop().unwrap();
    assert_eq!((last.method.as_str(), last.body.as_str(), last.header("content-length")), ("PUT", "small", Some("5")));
    assert!(last.path.ends_with(&format!("?_state=a%2Bb&digest=sha256%3A{}", descriptor(b"small").digest.hex())), "{}", last.path);
}

#[tokio::test]
async fn chunks_respect_the_registry_s_minimum_size() {
    let server = Writable::new(Manner { least: 3000, ..FULL }).serve(|_, _| None).await;
    push(&writer(&server.authority)).await.unwrap();
    assert_eq!(trail(&server), ["POST", "0-2999", "3000-3499", "PUT"]);
}

#[tokio::test]
async fn refusals_have_kinds_and_are_not_repeated() {
    let quota = reply(403, &[], br#"{"errors":[{"code":"DENIED","message":"quota \u001b[2J exceeded"}]}"#);
    for (struck, expected) in [
        (error(413, "SIZE_INVALID"), ErrorKind::NoSpace),
        (quota, ErrorKind::NoSpace),
        (error(507, "UNKNOWN"), ErrorKind::NoSpace),
        (error(403, "DENIED"), ErrorKind::Denied),
        (error(405, "UNSUPPORTED"), ErrorKind::Unsupported),
        (error(400, "BLOB_UPLOAD_INVALID"), ErrorKind::Invalid),
        (reply(302, &[("Location", "/elsewhere")], b""), ErrorKind::Unreachable),
    ] {
        let registry = Writable::new(FULL);
        let server = registry.serve(move |request, _| is(request, "PUT").then(|| struck.clone())).await;
        let client = writer(&server.authority);
        let error = client.push_blob(&repository(), &descriptor(b"small"), source(b"small"), silent()).await.unwrap_err();
        assert_eq!(error.kind, expected, "{error}");
        assert!(error.message.chars().all(|character| (' '..='~').contains(&character)), "{error:?}");
        assert_eq!(server.log().iter().filter(|request| request.method == "PUT").count(), 1);
    }
    for (struck, expected) in [
        (error(404, "NAME_UNKNOWN"), ErrorKind::NotFound),
        (error(405, "UNSUPPORTED"), ErrorKind::Unsupported),
        (error(401, "UNAUTHORIZED"), ErrorKind::Denied),
        (reply(202, &[], b""), ErrorKind::Unreachable),
        (reply(202, &[("Location", "ftp://x/y")], b""), ErrorKind::Unreachable),
    ] {
        let server = Server::start(move |_, _| struck.clone()).await;
        let error = push(&writer(&server.authority)).await.unwrap_err();
        assert_eq!((error.kind, server.log().len()), (expected, 1), "{error}");
    }
}

#[tokio::test]
async fn a_chunk_that_is_too_large_is_made_smaller_down_to_a_limit() {
    let registry = Writable::new(FULL);
    let too_large = |most: usize| {
        move |request: &Received, _: &Writable| (is(request, "PATCH") && request.bytes.len() > most).then(|| error(413, "SIZE_INVALID"))
    };
    let server = registry.serve(too_large(600)).await;
    push(&writer(&server.authority)).await.unwrap();
    assert!(registry.blob(&data()));
    assert_eq!(trail(&server)[..4], ["POST", "0-999", "GET", "0-499"]);
    let server = Writable::new(FULL).serve(too_large(50)).await;
    let error = push(&writer(&server.authority)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    assert_eq!(trail(&server).last().unwrap(), "DELETE", "the session is given up");
}

#[tokio::test]
async fn retry_after_is_honoured_for_uploads_up_to_a_limit() {
    let registry = Writable::new(FULL);
    let server = registry.serve(once("POST", 0, reply(429, &[("Retry-After", "0")], b""))).await;
    push(&writer(&server.authority)).await.unwrap();
    let server = registry.serve(once("PATCH", 0, reply(503, &[("Retry-After", "3600")], b""))).await;
    let error = push(&writer(&server.authority)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("3600 s"), "{error}");
}

#[tokio::test]
async fn a_blob_exists_only_with_the_right_size_on_the_registry_itself() {
    let blob = descriptor(b"small");
    for (answer, expected) in [
        (reply(200, &[], b"small"), Ok(true)),
        (reply(200, &[], b"smaller"), Ok(false)),
        (reply(404, &[], b""), Ok(false)),
        (reply(405, &[], b""), Ok(false)),
        (reply(403, &[], b""), Err(ErrorKind::Denied)),
        (reply(500, &[], b""), Err(ErrorKind::Unreachable)),
    ] {
        let server = Server::start(move |_, _| answer.clone()).await;
        let found = writer(&server.authority).has_blob(&repository(), &blob).await;
        assert_eq!(found.map_err(|error| error.kind), expected);
    }
    let storage = Server::start(|_, _| reply(403, &[], b"")).await;
    let away = storage.url("/signed");
    let server = Server::start(move |_, _| reply(307, &[("Location", &away)], b"")).await;
    assert!(!writer(&server.authority).has_blob(&repository(), &blob).await.unwrap());
}
