//! What goes wrong with uploads, and where their bytes and credentials go.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use serde_json::json;

use super::scripted::{Part, Received, Reply, Server, reply};
use super::writable::{FULL, Manner, Writable, error, writer};
use super::writing::{self, descriptor, silent, source, takes};
use super::{client_with, config, repository, small_requests};
use crate::error::ErrorKind;
use crate::oci::Repository;
use crate::registry::{Error, HttpRegistry, Push, TagDeletion, UploadSource, Uploaded};

/// Three and a half chunks, in text that shows where it comes from.
fn data() -> Vec<u8> {
    (0..500).flat_map(|number| format!("{number:06}\n").into_bytes()).collect()
}

async fn push(client: &HttpRegistry) -> Result<(), Error> {
    client.push_blob(&repository(), &descriptor(&data()), source(&data()), silent()).await
}

/// The chunks that were sent, by their range, and the questions between them.
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

/// Strikes the request of this method and number (from 0).
fn once(method: &'static str, number: usize, struck: Reply) -> impl Fn(&Received, &Writable) -> Option<Reply> + Send + Sync {
    let seen = AtomicUsize::new(0);
    move |request, _| (is(request, method) && seen.fetch_add(1, Ordering::SeqCst) == number).then(|| struck.clone())
}

fn nothing() -> Reply {
    Reply(Vec::new())
}

#[tokio::test]
async fn every_manner_of_registry_takes_what_is_pushed() {
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
async fn chunks_are_as_large_as_the_registry_wants_them() {
    let server = Writable::new(Manner { least: 3000, ..FULL }).serve(|_, _| None).await;
    push(&writer(&server.authority)).await.unwrap();
    assert_eq!(trail(&server), ["POST", "0-2999", "3000-3499", "PUT"]);
}

#[tokio::test]
async fn a_lost_session_begins_anew_and_says_so() {
    for method in ["PATCH", "PUT"] {
        let registry = Writable::new(FULL);
        let server = registry.serve(once(method, usize::from(method == "PATCH"), error(404, "BLOB_UPLOAD_UNKNOWN"))).await;
        let told: Arc<Mutex<Vec<u64>>> = Arc::default();
        let kept = Arc::clone(&told);
        let uploaded: Uploaded = Arc::new(move |offset| kept.lock().unwrap().push(offset));
        writer(&server.authority).push_blob(&repository(), &descriptor(&data()), source(&data()), uploaded).await.unwrap();
        assert!(registry.blob(&data()));
        assert_eq!(registry.held.lock().unwrap().opened, 2, "{method}");
        let told = told.lock().unwrap();
        assert_eq!(told.last(), Some(&3500));
        assert!(told.windows(2).any(|pair| pair[0] > 0 && pair[1] == 0), "it went back: {told:?}");
    }
}

#[tokio::test]
async fn a_session_that_is_lost_again_and_again_is_unreachable_and_not_absent() {
    let registry = Writable::new(FULL);
    // The first chunk is taken: the registry takes chunks.
    let second = |request: &Received| is(request, "PATCH") && request.header("content-range") != Some("0-999");
    let server = registry.serve(move |request, _| second(request).then(|| error(404, "BLOB_UPLOAD_UNKNOWN"))).await;
    let error = push(&writer(&server.authority)).await.unwrap_err();
    assert_eq!((error.kind, registry.held.lock().unwrap().opened), (ErrorKind::Unreachable, 5), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_in_a_chunk_goes_on_where_the_registry_says() {
    let registry = Writable::new(FULL);
    let (honest, cut) = (registry.clone(), AtomicUsize::new(0));
    let limit = move |request: &Received| match is(request, "PATCH") && cut.fetch_add(1, Ordering::SeqCst) == 1 {
        true => 400,
        false => usize::MAX,
    };
    let server = Server::start_cutting(limit, move |request, _| {
        let sent = request.header("content-length").is_some_and(|length| length != request.bytes.len().to_string());
        if sent {
            // What arrived is kept, as real registries do, and the connection ends.
            honest.held.lock().unwrap().sessions.get_mut("s1").unwrap().extend_from_slice(&request.bytes);
            return nothing();
        }
        honest.answer(request)
    })
    .await;
    push(&writer(&server.authority)).await.unwrap();
    assert!(registry.blob(&data()));
    assert_eq!(trail(&server), ["POST", "0-999", "1000-1999", "GET", "1400-2399", "2400-3399", "3400-3499", "PUT"]);
}

#[tokio::test]
async fn a_chunk_is_never_repeated_without_asking_how_far_the_registry_got() {
    for struck in [nothing(), error(500, "UNKNOWN"), error(416, "RANGE_INVALID"), reply(429, &[("Retry-After", "0")], b"")] {
        let registry = Writable::new(FULL);
        let server = registry.serve(once("PATCH", 1, struck)).await;
        push(&writer(&server.authority)).await.unwrap();
        assert!(registry.blob(&data()));
        assert_eq!(trail(&server), ["POST", "0-999", "1000-1999", "GET", "1000-1999", "2000-2999", "3000-3499", "PUT"]);
    }
}

#[tokio::test]
async fn a_wrong_range_is_checked_with_the_session_and_what_is_too_much_is_given_up() {
    // Done, and told wrongly: the session knows better.
    let registry = Writable::new(FULL);
    let (seen, done) = (AtomicUsize::new(0), registry.clone());
    let server = registry
        .serve(move |request, _| {
            if !is(request, "PATCH") || seen.fetch_add(1, Ordering::SeqCst) != 1 {
                return None;
            }
            done.answer(request);
            Some(reply(202, &[("Range", "0-499")], b""))
        })
        .await;
    push(&writer(&server.authority)).await.unwrap();
    assert_eq!(trail(&server), ["POST", "0-999", "1000-1999", "GET", "2000-2999", "3000-3499", "PUT"]);
    // More than was sent: nobody knows what is in it.
    let registry = Writable::new(FULL);
    let (seen, done) = (AtomicUsize::new(0), registry.clone());
    let server = registry
        .serve(move |request, _| {
            if !is(request, "PATCH") || seen.fetch_add(1, Ordering::SeqCst) != 1 {
                return None;
            }
            done.held.lock().unwrap().sessions.get_mut("s1").unwrap().extend_from_slice(&[0; 9000]);
            Some(done.answer(request))
        })
        .await;
    push(&writer(&server.authority)).await.unwrap();
    assert!(registry.blob(&data()));
    assert_eq!(trail(&server)[..5], ["POST", "0-999", "1000-1999", "GET", "DELETE"]);
}

#[tokio::test]
async fn a_registry_that_never_moves_on_ends_the_upload() {
    let registry = Writable::new(FULL);
    let second = |request: &Received| is(request, "PATCH") && request.header("content-range") != Some("0-999");
    let server = registry.serve(move |request, _| second(request).then(|| error(416, "RANGE_INVALID"))).await;
    let error = push(&writer(&server.authority)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert_eq!(trail(&server).iter().filter(|sent| *sent == "1000-1999").count(), 6, "{:?}", trail(&server));
}

/// A registry that fails every other chunk, and then `forgets` so many bytes of what it had confirmed.
async fn back_and_forth(forgets: usize) -> (Result<(), Error>, Server, bool) {
    let registry = Writable::new(FULL);
    let seen = AtomicUsize::new(0);
    let server = registry
        .serve(move |request, registry| {
            if !is(request, "PATCH") || seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                return None;
            }
            for data in registry.held.lock().unwrap().sessions.values_mut() {
                let kept = data.len().saturating_sub(forgets);
                data.truncate(kept);
            }
            Some(error(500, "UNKNOWN"))
        })
        .await;
    let pushed = push(&writer(&server.authority)).await;
    let there = registry.blob(&data());
    (pushed, server, there)
}

#[tokio::test]
async fn an_upload_that_goes_back_and_forth_ends() {
    let (pushed, server, there) = back_and_forth(0).await;
    assert!(pushed.is_ok() && there, "what is confirmed and kept is progress: {pushed:?}");
    assert_eq!(server.log().iter().filter(|request| is(request, "PATCH")).count(), 7);
    for forgets in [1000, usize::MAX] {
        let (pushed, server, _) = back_and_forth(forgets).await;
        let error = pushed.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        let sent: usize = server.log().iter().map(|request| request.bytes.len()).sum();
        assert!(sent <= 12_000, "{sent} bytes were sent of {}", data().len());
    }
}

#[tokio::test]
async fn a_registry_that_takes_no_chunks_gets_large_blobs_in_one_request() {
    for (status, remembered) in [(400, false), (404, false), (405, true), (411, true), (415, true), (416, false), (501, true)] {
        let registry = Writable::new(FULL);
        let server = registry.serve(move |request, _| is(request, "PATCH").then(|| error(status, "UNSUPPORTED"))).await;
        let client = writer(&server.authority);
        push(&client).await.unwrap_or_else(|error| panic!("{status}: {error}"));
        assert!(registry.blob(&data()));
        assert_eq!(trail(&server), ["POST", "0-999", "DELETE", "POST", "PUT"], "{status}");
        assert_eq!(server.log().last().unwrap().bytes, data());
        let other: Vec<u8> = data().into_iter().rev().collect();
        client.push_blob(&repository(), &descriptor(&other), source(&other), silent()).await.unwrap();
        let expected: &[&str] = if remembered { &["POST", "PUT"] } else { &["POST", "0-999", "DELETE", "POST", "PUT"] };
        assert_eq!(trail(&server)[5..], *expected, "{status}");
    }
    // In the middle of a session that took chunks, or of any other kind, a refusal is one.
    for (status, first) in [(415, "1000-1999"), (403, "0-999")] {
        let registry = Writable::new(FULL);
        let refuses = move |request: &Received| is(request, "PATCH") && request.header("content-range") == Some(first);
        let server = registry.serve(move |request, _| refuses(request).then(|| error(status, "UNSUPPORTED"))).await;
        push(&writer(&server.authority)).await.unwrap_err();
        assert!(trail(&server).iter().all(|sent| sent != "PUT"), "{:?}", trail(&server));
    }
}

#[tokio::test]
async fn a_chunk_that_is_answered_by_201_is_taken() {
    let registry = Writable::new(FULL);
    let server = registry
        .serve(|request, registry| {
            if !is(request, "PATCH") {
                return None;
            }
            registry.answer(request);
            let last = request.header("content-range").unwrap().split('-').nth(1).unwrap().to_owned();
            Some(reply(201, &[("Location", &request.path), ("Range", &format!("0-{last}"))], b""))
        })
        .await;
    push(&writer(&server.authority)).await.unwrap();
    assert!(registry.blob(&data()));
    assert_eq!(trail(&server), ["POST", "0-999", "1000-1999", "2000-2999", "3000-3499", "PUT"]);
}

/// A port on which nobody listens until `back` is called.
async fn closed_port() -> (String, impl AsyncFnOnce(&Writable) -> Server) {
    let held = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = held.local_addr().unwrap().to_string();
    drop(held);
    let address = authority.clone();
    let back = async move |registry: &Writable| {
        let registry = registry.clone();
        Server::start_at(&address, move |request, _| registry.answer(request)).await
    };
    (authority, back)
}

#[tokio::test]
async fn several_uploads_wait_for_a_registry_that_restarts() {
    let registry = Writable::new(FULL);
    let (authority, back) = closed_port().await;
    let mut config = config(&authority);
    small_requests(&mut config);
    // Not one failure is forgiven, but for a registry that is not there yet.
    config.timing.retries = 0;
    let client = HttpRegistry::new(config).unwrap();
    let blobs: Vec<Vec<u8>> = (0..4u8).map(|number| [data(), vec![number]].concat()).collect();
    let repository = repository();
    let descriptors: Vec<_> = blobs.iter().map(|blob| descriptor(blob)).collect();
    let uploads =
        blobs.iter().zip(&descriptors).map(|(blob, descriptor)| client.push_blob(&repository, descriptor, source(blob), silent()));
    let returning = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        back(&registry).await
    };
    let (uploads, _server) = tokio::join!(futures_util::future::join_all(uploads), returning);
    for (upload, blob) in uploads.into_iter().zip(&blobs) {
        upload.unwrap();
        assert!(registry.blob(blob));
    }
}

#[tokio::test]
async fn uploads_to_a_registry_that_stays_away_end_together_and_the_next_do_not_wait_again() {
    let (authority, _) = closed_port().await;
    let mut config = config(&authority);
    config.timing.progress = Duration::from_millis(400);
    config.timing.backoff = Duration::from_millis(20);
    let client = HttpRegistry::new(config).unwrap();
    let (blob, repository) = (descriptor(b"small"), repository());
    let uploads = (0..8).map(|_| client.push_blob(&repository, &blob, source(b"small"), silent()));
    for upload in futures_util::future::join_all(uploads).await {
        let error = upload.unwrap_err();
        assert!(error.kind == ErrorKind::Unreachable && error.message.contains("--io-timeout"), "{error}");
    }
    let error = client.push_blob(&repository, &blob, source(b"small"), silent()).await.unwrap_err();
    assert!(!error.message.contains("--io-timeout"), "one attempt only: {error}");
}

#[tokio::test]
async fn a_final_answer_that_was_lost_is_asked_for() {
    for data in [data(), b"small".to_vec()] {
        for done in [true, false] {
            let registry = Writable::new(FULL);
            let seen = AtomicUsize::new(0);
            let server = registry
                .serve(move |request, registry| {
                    if !is(request, "PUT") || seen.fetch_add(1, Ordering::SeqCst) != 0 {
                        return None;
                    }
                    if done {
                        registry.answer(request);
                    }
                    Some(nothing())
                })
                .await;
            let client = writer(&server.authority);
            client.push_blob(&repository(), &descriptor(&data), source(&data), silent()).await.unwrap();
            assert!(registry.blob(&data));
            let puts = server.log().iter().filter(|request| request.method == "PUT").count();
            assert_eq!(puts, if done { 1 } else { 2 });
            let after = server.log().into_iter().skip_while(|request| request.method != "PUT").nth(1).unwrap();
            assert_eq!(after.method, "HEAD", "the blob is asked for first");
        }
    }
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
async fn a_busy_registry_is_obeyed_and_one_that_asks_for_too_much_is_unreachable() {
    let registry = Writable::new(FULL);
    let server = registry.serve(once("POST", 0, reply(429, &[("Retry-After", "0")], b""))).await;
    push(&writer(&server.authority)).await.unwrap();
    let server = registry.serve(once("PATCH", 0, reply(503, &[("Retry-After", "3600")], b""))).await;
    let error = push(&writer(&server.authority)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("3600 s"), "{error}");
}

/// A source that changes its mind.
struct Unsteady {
    right: Vec<u8>,
    wrong: Vec<u8>,
    reads: AtomicUsize,
    /// Reads that give the wrong bytes; more fail.
    wrong_reads: usize,
    fails: bool,
}

#[async_trait]
impl UploadSource for Unsteady {
    fn length(&self) -> u64 {
        self.right.len() as u64
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let number = self.reads.fetch_add(1, Ordering::SeqCst);
        if self.fails && number > 0 {
            return Err(io::Error::other("the disk is gone"));
        }
        let data = if number < self.wrong_reads { &self.wrong } else { &self.right };
        let start = offset as usize;
        Ok(Bytes::copy_from_slice(&data[start..data.len().min(start + length)]))
    }
}

#[tokio::test]
async fn bytes_that_are_not_those_of_the_digest_are_an_integrity_error_and_nothing_is_stored() {
    let wrong = data().iter().map(|byte| byte ^ 1).collect();
    let registry = Writable::new(FULL);
    let server = registry.serve(|_, _| None).await;
    let unsteady = Unsteady { right: data(), wrong, reads: AtomicUsize::new(0), wrong_reads: 1, fails: false };
    let client = writer(&server.authority);
    let error = client.push_blob(&repository(), &descriptor(&data()), Arc::new(unsteady), silent()).await.unwrap_err();
    assert_eq!((error.kind, registry.blob(&data())), (ErrorKind::Integrity, false), "{error}");
    let short = client.push_blob(&repository(), &descriptor(&data()), source(b"short"), silent()).await.unwrap_err();
    assert_eq!(short.kind, ErrorKind::Integrity, "{short}");
}

#[tokio::test]
async fn a_session_that_was_disturbed_and_has_the_wrong_digest_begins_anew() {
    // Something else is in the session than was sent, and its length says nothing of that.
    let registry = Writable::new(FULL);
    let seen = AtomicUsize::new(0);
    let server = registry
        .serve(move |request, registry| {
            let strikes = is(request, "PATCH") && seen.fetch_add(1, Ordering::SeqCst) == 1;
            strikes.then(|| {
                registry.held.lock().unwrap().sessions.get_mut("s1").unwrap()[0] ^= 1;
                nothing()
            })
        })
        .await;
    push(&writer(&server.authority)).await.unwrap();
    assert!(registry.blob(&data()));
    assert_eq!(registry.held.lock().unwrap().opened, 2);
}

#[tokio::test]
async fn a_source_that_cannot_be_read_is_told_and_its_session_given_up() {
    let registry = Writable::new(FULL);
    let server = registry.serve(|_, _| None).await;
    let unsteady = Unsteady { right: data(), wrong: Vec::new(), reads: AtomicUsize::new(0), wrong_reads: 0, fails: true };
    let error = writer(&server.authority).push_blob(&repository(), &descriptor(&data()), Arc::new(unsteady), silent()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Other);
    assert!(error.message.contains("the disk is gone"), "{error}");
    assert!(registry.held.lock().unwrap().sessions.is_empty());
}

#[tokio::test]
async fn a_registry_that_takes_nothing_more_times_out() {
    for silent_after in [500, usize::MAX] {
        let limit = move |request: &Received| if is(request, "PATCH") { silent_after } else { usize::MAX };
        let registry = Writable::new(FULL);
        let server = Server::start_cutting(limit, move |request, _| match is(request, "PATCH") || is(request, "GET") {
            true => Reply(vec![Part::Hang]),
            false => registry.answer(request),
        })
        .await;
        let mut config = config(&server.authority);
        small_requests(&mut config);
        config.timing.progress = Duration::from_millis(200);
        let error = push(&HttpRegistry::new(config).unwrap()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    }
}

fn stored(authority: &str) -> serde_json::Value {
    json!({"auths": {authority: {"auth": base64::engine::general_purpose::STANDARD.encode("me:hunter2")}}})
}

fn asks_for_password() -> Reply {
    reply(401, &[("WWW-Authenticate", r#"Basic realm="x""#)], b"")
}

#[tokio::test]
async fn an_upload_goes_to_another_origin_without_credentials_and_only_where_a_202_named_it() {
    for by_redirect in [false, true] {
        let registry = Writable::new(FULL);
        let storage = registry.serve(|_, _| None).await;
        let away = storage.url("");
        let home = registry.clone();
        let server = registry
            .serve(move |request, _| {
                if request.header("authorization").is_none() {
                    return Some(asks_for_password());
                }
                if by_redirect {
                    let moved = reply(307, &[("Location", &format!("{away}{}", request.path))], b"");
                    return (request.method != "POST" && request.method != "HEAD").then_some(moved);
                }
                if request.method != "POST" {
                    return None;
                }
                home.answer(request);
                Some(reply(202, &[("Location", &format!("{away}/v2/team/app/blobs/uploads/s1?_state=a%2Bb"))], b""))
            })
            .await;
        let directory = tempfile::tempdir().unwrap();
        let client = client_with(&server.authority, &directory, &stored(&server.authority), small_requests);
        let pushed = push(&client).await;
        let away = storage.log();
        if by_redirect {
            let error = pushed.unwrap_err();
            assert!(error.message.contains("redirected") && away.is_empty(), "{error}");
            continue;
        }
        pushed.unwrap();
        assert!(registry.blob(&data()));
        assert_eq!(away.iter().map(|request| request.bytes.len()).sum::<usize>(), data().len());
        assert!(away.iter().all(|request| !request.headers.contains_key("authorization") && !format!("{request:?}").contains("hunter2")));
    }
}

/// Tokens that count, with their scopes.
type Tokens = Arc<Mutex<Vec<(String, Vec<String>)>>>;

/// A registry with a token server of its own.
struct Guarded {
    server: Server,
    registry: Writable,
    tokens: Tokens,
}

/// The scopes of a token request.
fn scopes(path: &str) -> Vec<String> {
    let plain = path.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    plain.split(['?', '&']).filter_map(|pair| pair.strip_prefix("scope=")).map(str::to_owned).collect()
}

impl Guarded {
    /// The registry asks for the scope that `wants` makes of a request.
    async fn start(wants: fn(&Received) -> String) -> Self {
        let registry = Writable::new(Manner { tag_deletes: false, ..FULL });
        let tokens = Tokens::default();
        let realm: Arc<OnceLock<String>> = Arc::default();
        let (known, valid, given) = (Arc::clone(&realm), Arc::clone(&tokens), AtomicUsize::new(0));
        let server = registry
            .serve(move |request, _| {
                if request.path.starts_with("/token") {
                    let token = format!("t{}", given.fetch_add(1, Ordering::SeqCst));
                    valid.lock().unwrap().push((format!("Bearer {token}"), scopes(&request.path)));
                    return Some(reply(200, &[], json!({"token": token, "expires_in": 300}).to_string().as_bytes()));
                }
                let wanted = wants(request);
                let (name, actions) = wanted.rsplit_once(':').unwrap();
                let valid = valid.lock().unwrap();
                let sent = valid.iter().find(|(token, _)| request.header("authorization") == Some(token));
                let allowed = sent
                    .into_iter()
                    .flat_map(|(_, scopes)| scopes)
                    .filter_map(|scope| scope.rsplit_once(':'))
                    .any(|(of, has)| of == name && actions.split(',').all(|action| has.split(',').any(|has| has == action)));
                let challenge = format!(r#"Bearer realm="{}",service="reg",scope="{wanted}""#, known.get().unwrap());
                (!allowed).then(|| reply(401, &[("WWW-Authenticate", &challenge)], b""))
            })
            .await;
        realm.set(server.url("/token")).unwrap();
        Self { server, registry, tokens }
    }

    /// The scopes of the token requests, in order.
    fn scopes(&self) -> Vec<String> {
        let tokens = self.server.log().into_iter().filter(|request| request.path.starts_with("/token"));
        tokens.map(|request| scopes(&request.path).join(" ")).collect()
    }
}

fn by_method(request: &Received) -> String {
    match request.method.as_str() {
        "GET" | "HEAD" => "repository:team/app:pull".to_owned(),
        "DELETE" if !request.path.contains("/uploads/") => "repository:team/app:delete".to_owned(),
        _ => "repository:team/app:pull,push".to_owned(),
    }
}

#[tokio::test]
async fn one_token_for_pulling_and_pushing_serves_a_whole_upload_and_another_one_a_deletion() {
    let guarded = Guarded::start(by_method).await;
    let client = writer(&guarded.server.authority);
    assert!(!client.has_blob(&repository(), &descriptor(&data())).await.unwrap());
    push(&client).await.unwrap();
    assert!(guarded.registry.blob(&data()));
    assert_eq!(guarded.scopes(), ["repository:team/app:pull,push"]);
    client.push_blob(&repository(), &descriptor(b"{}"), source(b"{}"), silent()).await.unwrap();
    let one = writing::manifest(&[b"{}"], "one", None);
    client.push_manifest(&repository(), &super::tag("v1"), &one).await.unwrap();
    client.delete_tag(&repository(), &writing::name("v1"), &one.digest).await.unwrap();
    let scopes = guarded.scopes();
    assert_eq!(scopes[1..], ["repository:team/app:pull", "repository:team/app:pull,push,delete"]);
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories() {
    let guarded = Guarded::start(by_method).await;
    let other = Repository::parse("team/other").unwrap();
    let blob = descriptor(b"mounted");
    guarded.registry.held.lock().unwrap().blobs.insert(("team/other".to_owned(), blob.digest.to_string()), b"mounted".to_vec());
    assert!(writer(&guarded.server.authority).mount_blob(&repository(), &blob, &other).await.unwrap());
    assert_eq!(guarded.scopes(), ["repository:team/app:pull,push repository:team/other:pull"]);
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_an_upload_is_replaced() {
    let guarded = Guarded::start(by_method).await;
    let client = writer(&guarded.server.authority);
    client.push_blob(&repository(), &descriptor(b"small"), source(b"small"), silent()).await.unwrap();
    // Once the second chunk begins, the token that the client holds counts no more.
    let (tokens, revoked) = (Arc::clone(&guarded.tokens), AtomicUsize::new(0));
    let uploaded: Uploaded = Arc::new(move |offset| {
        if offset == 1000 && revoked.fetch_add(1, Ordering::SeqCst) == 0 {
            tokens.lock().unwrap().clear();
        }
    });
    client.push_blob(&repository(), &descriptor(&data()), source(&data()), uploaded).await.unwrap();
    assert!(guarded.registry.blob(&data()));
    assert_eq!(guarded.scopes(), ["repository:team/app:pull,push"; 2]);
}

#[tokio::test]
async fn the_session_of_a_refused_mount_is_used_by_the_upload_or_given_up() {
    let registry = Writable::new(Manner { mounts: false, ..FULL });
    let server = registry.serve(|_, _| None).await;
    let client = writer(&server.authority);
    let blob = descriptor(&data());
    for from in ["team/other", "team/third"] {
        assert!(!client.mount_blob(&repository(), &blob, &Repository::parse(from).unwrap()).await.unwrap());
    }
    push(&client).await.unwrap();
    assert!(registry.blob(&data()));
    assert_eq!(trail(&server), ["POST", "POST", "DELETE", "0-999", "1000-1999", "2000-2999", "3000-3499", "PUT"]);
    // One that ended meanwhile costs a new one.
    client.mount_blob(&repository(), &descriptor(b"small"), &Repository::parse("team/other").unwrap()).await.unwrap();
    registry.held.lock().unwrap().sessions.clear();
    client.push_blob(&repository(), &descriptor(b"small"), source(b"small"), silent()).await.unwrap();
    assert!(registry.blob(b"small"));
}

#[tokio::test]
async fn a_blob_is_there_only_with_its_size_and_as_the_registry_itself_says() {
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
