//! Sessions that are lost, disturbed, truncated or fall behind, and sources that change.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::super::scripted::Part;
use super::*;
use crate::registry::UploadSource;

#[tokio::test]
async fn a_lost_session_restarts_and_is_logged() {
    for method in ["PATCH", "PUT"] {
        let registry = Writable::new(FULL);
        let server = registry.serve(once(method, usize::from(method == "PATCH"), error(404, "BLOB_UPLOAD_UNKNOWN"))).await;
        let told: Arc<Mutex<Vec<u64>>> = Arc::default();
        let kept = Arc::clone(&told);
        let uploaded: Uploaded = Arc::new(move |offset| kept.lock().push(offset));
        writer(&server.authority).push_blob(&repository(), &descriptor(&data()), source(&data()), uploaded).await.unwrap();
        assert!(registry.blob(&data()));
        assert_eq!(registry.held.lock().opened, 2, "{method}");
        let told = told.lock();
        assert_eq!(told.last(), Some(&3500));
        assert!(told.windows(2).any(|pair| pair[0] > 0 && pair[1] == 0), "it went back: {told:?}");
    }
}

#[tokio::test]
async fn repeatedly_lost_sessions_are_unreachable_not_absent() {
    let registry = Writable::new(FULL);
    // The first chunk is accepted, so the registry takes chunks.
    let second = |request: &Received| is(request, "PATCH") && request.header("content-range") != Some("0-999");
    let server = registry.serve(move |request, _| second(request).then(|| error(404, "BLOB_UPLOAD_UNKNOWN"))).await;
    let error = push(&writer(&server.authority)).await.unwrap_err();
    assert_eq!((error.kind, registry.held.lock().opened), (ErrorKind::Unreachable, 5), "{error}");
}

#[tokio::test]
async fn a_broken_chunk_resumes_where_the_registry_says() {
    let registry = Writable::new(FULL);
    let (honest, cut) = (registry.clone(), AtomicUsize::new(0));
    let limit = move |request: &Received| match is(request, "PATCH") && cut.fetch_add(1, Ordering::SeqCst) == 1 {
        true => 400,
        false => usize::MAX,
    };
    let server = Server::start_cutting(limit, move |request, _| {
        let sent = request.header("content-length").is_some_and(|length| length != request.bytes.len().to_string());
        if sent {
            // The bytes that arrived are kept, as by real registries, and the connection ends.
            honest.held.lock().sessions.get_mut("s1").unwrap().extend_from_slice(&request.bytes);
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
async fn a_chunk_is_never_resent_without_asking_for_the_offset() {
    for struck in [nothing(), error(500, "UNKNOWN"), error(416, "RANGE_INVALID"), reply(429, &[("Retry-After", "0")], b"")] {
        let registry = Writable::new(FULL);
        let server = registry.serve(once("PATCH", 1, struck)).await;
        push(&writer(&server.authority)).await.unwrap();
        assert!(registry.blob(&data()));
        assert_eq!(trail(&server), ["POST", "0-999", "1000-1999", "GET", "1000-1999", "2000-2999", "3000-3499", "PUT"]);
    }
}

#[tokio::test]
async fn a_wrong_range_is_checked_and_excess_data_abandons_the_session() {
    // Accepted but reported wrongly: the session query is right.
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
    // The session holds more than was sent: its content is unknown.
    let registry = Writable::new(FULL);
    let (seen, done) = (AtomicUsize::new(0), registry.clone());
    let server = registry
        .serve(move |request, _| {
            if !is(request, "PATCH") || seen.fetch_add(1, Ordering::SeqCst) != 1 {
                return None;
            }
            done.held.lock().sessions.get_mut("s1").unwrap().extend_from_slice(&[0; 9000]);
            Some(done.answer(request))
        })
        .await;
    push(&writer(&server.authority)).await.unwrap();
    assert!(registry.blob(&data()));
    assert_eq!(trail(&server)[..5], ["POST", "0-999", "1000-1999", "GET", "DELETE"]);
}

#[tokio::test]
async fn an_upload_without_progress_ends() {
    let registry = Writable::new(FULL);
    let second = |request: &Received| is(request, "PATCH") && request.header("content-range") != Some("0-999");
    let server = registry.serve(move |request, _| second(request).then(|| error(416, "RANGE_INVALID"))).await;
    let error = push(&writer(&server.authority)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert_eq!(trail(&server).iter().filter(|sent| *sent == "1000-1999").count(), 6, "{:?}", trail(&server));
}

/// A registry that fails every other chunk, and then `forgets` this many confirmed bytes.
async fn back_and_forth(forgets: usize) -> (Result<(), Error>, Server, bool) {
    let registry = Writable::new(FULL);
    let seen = AtomicUsize::new(0);
    let server = registry
        .serve(move |request, registry| {
            if !is(request, "PATCH") || seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                return None;
            }
            for data in registry.held.lock().sessions.values_mut() {
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
async fn an_upload_that_oscillates_ends() {
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
async fn a_registry_without_chunk_support_gets_large_blobs_in_one_request() {
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
    // In a session that accepted chunks, or with any other status, a refusal is final.
    for (status, first) in [(415, "1000-1999"), (403, "0-999")] {
        let registry = Writable::new(FULL);
        let refuses = move |request: &Received| is(request, "PATCH") && request.header("content-range") == Some(first);
        let server = registry.serve(move |request, _| refuses(request).then(|| error(status, "UNSUPPORTED"))).await;
        push(&writer(&server.authority)).await.unwrap_err();
        assert!(trail(&server).iter().all(|sent| sent != "PUT"), "{:?}", trail(&server));
    }
}

#[tokio::test]
async fn a_chunk_answered_with_201_completes_the_upload() {
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

#[tokio::test]
async fn a_lost_final_answer_is_checked() {
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

/// A source that changes between reads.
struct Unsteady {
    right: Vec<u8>,
    wrong: Vec<u8>,
    reads: AtomicUsize,
    /// Reads that return wrong bytes; later ones fail.
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
async fn bytes_with_a_wrong_digest_are_an_integrity_error_and_not_stored() {
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
async fn a_disturbed_session_with_a_wrong_digest_restarts() {
    // The session holds other bytes than were sent, of the same length.
    let registry = Writable::new(FULL);
    let seen = AtomicUsize::new(0);
    let server = registry
        .serve(move |request, registry| {
            let strikes = is(request, "PATCH") && seen.fetch_add(1, Ordering::SeqCst) == 1;
            strikes.then(|| {
                registry.held.lock().sessions.get_mut("s1").unwrap()[0] ^= 1;
                nothing()
            })
        })
        .await;
    push(&writer(&server.authority)).await.unwrap();
    assert!(registry.blob(&data()));
    assert_eq!(registry.held.lock().opened, 2);
}

#[tokio::test]
async fn an_unreadable_source_is_reported_and_its_session_cancelled() {
    let registry = Writable::new(FULL);
    let server = registry.serve(|_, _| None).await;
    let unsteady = Unsteady { right: data(), wrong: Vec::new(), reads: AtomicUsize::new(0), wrong_reads: 0, fails: true };
    let error = writer(&server.authority).push_blob(&repository(), &descriptor(&data()), Arc::new(unsteady), silent()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Other);
    assert!(error.message.contains("the disk is gone"), "{error}");
    assert!(registry.held.lock().sessions.is_empty());
}

#[tokio::test]
async fn a_registry_that_stops_reading_times_out() {
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
