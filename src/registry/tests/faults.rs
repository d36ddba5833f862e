//! Transfer failures, and faulty registries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::scripted::{Part, Received, Reply, Server, raw, reply};
use super::{client, collect, config, repository, tag};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Version, media_type};
use crate::registry::{HttpRegistry, Pull};

const SIZE: usize = 200_000;
const BIG: usize = 8 << 20;

fn data() -> Vec<u8> {
    (0..SIZE as u32).map(|number| (number * 13 % 253) as u8).collect()
}

fn blob() -> Descriptor {
    Descriptor::new("a/b", Digest::of(&data()), SIZE as u64)
}

fn manifest() -> String {
    let plain = json!({"mediaType": "a/b", "digest": Digest::of(b"{}").to_string(), "size": 2});
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": plain, "layers": []}).to_string()
}

/// The correct response to a request for the blob.
fn honest(request: &Received) -> Reply {
    let data = data();
    match request.header("range") {
        None => reply(200, &[], &data),
        Some(range) => {
            let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            reply(206, &[("Content-Range", &format!("bytes {first}-{last}/{SIZE}"))], &data[first..=last])
        }
    }
}

async fn read(client: &HttpRegistry, range: std::ops::Range<u64>) -> Result<Vec<u8>, Error> {
    collect(client.blob(&repository(), &blob(), range).await?).await
}

#[tokio::test]
async fn a_broken_transfer_is_resumed_where_it_broke() {
    let length = SIZE.to_string();
    let server = Server::start(move |request, before| match before {
        0 => raw(200, &[("Content-Length", &length)], &data()[..70_000]),
        1 => raw(206, &[("Content-Length", "130000"), ("Content-Range", "bytes 70000-199999/200000")], &data()[70_000..100_000]),
        _ => honest(request),
    })
    .await;
    assert!(read(&client(&server.authority), 0..SIZE as u64).await.unwrap() == data());
    let ranges: Vec<_> = server.log().iter().map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=70000-199999".to_owned()), Some("bytes=100000-199999".to_owned())]);
}

#[tokio::test]
async fn a_transfer_without_progress_ends_after_the_retries() {
    let server = Server::start(|_, _| raw(200, &[("Content-Length", "200000")], b"")).await;
    let error = read(&client(&server.authority), 0..SIZE as u64).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert_eq!(server.log().len(), 6);
}

#[tokio::test]
async fn a_full_response_to_a_range_request_is_cut_to_the_range() {
    let server = Server::start(|_, _| reply(200, &[], &data())).await;
    let client = client(&server.authority);
    for range in [0..10, 65_000..130_000, 199_999..200_000] {
        assert!(read(&client, range.clone()).await.unwrap() == data()[range.start as usize..range.end as usize], "{range:?}");
    }
    assert!(read(&client, 7..7).await.unwrap().is_empty());
    assert_eq!(server.log().len(), 3, "nothing needs no request");
}

#[tokio::test]
async fn a_registry_that_sends_what_comes_before_a_range_is_remembered() {
    let server = Server::start(|_, _| reply(200, &[], &data())).await;
    let client = client(&server.authority);
    for (range, ignores) in [(0..10, false), (0..SIZE as u64, false), (1..10, true), (0..10, true)] {
        read(&client, range.clone()).await.unwrap();
        assert_eq!(client.ignores_ranges(), ignores, "{range:?}");
    }
}

#[tokio::test]
async fn a_blob_that_is_longer_or_shorter_than_its_descriptor_is_an_integrity_error() {
    let (mut longer, shorter) = (data(), data()[..SIZE - 1].to_vec());
    longer.push(0);
    for wrong in [longer, shorter] {
        let chunks = [format!("{:x}\r\n", wrong.len()).into_bytes(), wrong.clone(), b"\r\n0\r\n\r\n".to_vec()].concat();
        for answer in [reply(200, &[], &wrong), raw(200, &[("Transfer-Encoding", "chunked")], &chunks)] {
            let server = Server::start(move |_, _| answer.clone()).await;
            let error = read(&client(&server.authority), 0..SIZE as u64).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
            assert_eq!(server.log().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_response_with_the_wrong_range_is_an_integrity_error() {
    for (range, length) in
        [("bytes 0-9/200000", 10), ("bytes 100-110/200000", 11), ("bytes 100-109/200001", 10), ("bytes 100-109/200000", 9), ("garbage", 10)]
    {
        let server = Server::start(move |_, _| reply(206, &[("Content-Range", range)], &data()[..length])).await;
        assert_eq!(read(&client(&server.authority), 100..110).await.unwrap_err().kind, ErrorKind::Integrity, "{range}");
    }
    let server = Server::start(|_, _| reply(206, &[], &data()[100..110])).await;
    assert_eq!(read(&client(&server.authority), 100..110).await.unwrap_err().kind, ErrorKind::Integrity);
    let server = Server::start(|_, _| reply(416, &[], b"")).await;
    assert_eq!(read(&client(&server.authority), 100..110).await.unwrap_err().kind, ErrorKind::Integrity);
}

#[tokio::test]
async fn a_stall_times_out_and_a_trickle_does_not() {
    let mut trickle = raw(200, &[("Content-Length", "200000")], b"");
    for piece in data().chunks(20_000) {
        trickle = trickle.then(Part::Wait(Duration::from_millis(50))).then(Part::Send(piece.to_vec()));
    }
    let stalled = raw(200, &[("Content-Length", "200000")], &data()[..1000]).then(Part::Hang);
    let server = Server::start(move |_, before| if before == 0 { trickle.clone() } else { stalled.clone() }).await;
    let mut config = config(&server.authority);
    config.timing.progress = Duration::from_millis(400);
    let client = HttpRegistry::new(config).unwrap();
    assert!(read(&client, 0..SIZE as u64).await.unwrap() == data());
    assert_eq!(read(&client, 0..SIZE as u64).await.unwrap_err().kind, ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_stalled_connection_is_replaced_before_the_deadline() {
    let stalled = raw(200, &[("Content-Length", "200000")], &data()[..1000]).then(Part::Hang);
    let server = Server::start(move |request, before| if before == 0 { stalled.clone() } else { honest(request) }).await;
    let mut config = config(&server.authority);
    config.timing.progress = Duration::from_millis(1000);
    assert!(read(&HttpRegistry::new(config).unwrap(), 0..SIZE as u64).await.unwrap() == data());
}

#[tokio::test]
async fn a_registry_that_accepts_and_says_nothing_times_out() {
    let server = Server::start(|_, _| Reply(vec![Part::Hang])).await;
    let mut config = config(&server.authority);
    config.timing.progress = Duration::from_millis(200);
    let error = HttpRegistry::new(config).unwrap().tags(&repository(), None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
}

#[tokio::test]
async fn transient_statuses_are_retried_and_permanent_ones_are_not() {
    for (status, kind, requests) in [
        (503, ErrorKind::Unreachable, 6),
        (500, ErrorKind::Unreachable, 6),
        (429, ErrorKind::Unreachable, 6),
        (404, ErrorKind::NotFound, 1),
        (403, ErrorKind::Denied, 1),
        (401, ErrorKind::Denied, 1),
        (418, ErrorKind::Other, 1),
    ] {
        let server = Server::start(move |_, _| reply(status, &[], b"{}")).await;
        let error = client(&server.authority).manifest(&repository(), &tag("v1")).await.unwrap_err();
        assert_eq!((error.kind, server.log().len()), (kind, requests), "{status}: {error}");
    }
    let server = Server::start(|_, before| if before < 3 { reply(503, &[], b"") } else { reply(200, &[], manifest().as_bytes()) }).await;
    assert!(client(&server.authority).manifest(&repository(), &tag("v1")).await.is_ok());
}

#[tokio::test]
async fn reachability_is_decided_after_three_attempts() {
    let server = Server::start(|_, _| reply(503, &[], b"{}")).await;
    let error = client(&server.authority).ping(None).await.unwrap_err();
    assert_eq!((error.kind, server.log().len()), (ErrorKind::Unreachable, 3), "{error}");
}

#[tokio::test]
async fn retry_after_is_honoured_within_reason() {
    let server = Server::start(|_, before| match before {
        0 => reply(429, &[("Retry-After", "0")], b""),
        1 => reply(429, &[("Retry-After", "soon")], b""),
        _ => reply(200, &[], manifest().as_bytes()),
    })
    .await;
    assert!(client(&server.authority).manifest(&repository(), &tag("v1")).await.is_ok());
    let server = Server::start(|_, _| reply(429, &[("Retry-After", "99999999")], b"")).await;
    let error = client(&server.authority).manifest(&repository(), &tag("v1")).await.unwrap_err();
    assert_eq!((error.kind, server.log().len()), (ErrorKind::Unreachable, 1));
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_clamped_between_a_second_and_a_minute() {
    for (seconds, waited) in [(1, true), (7, true), (60, true), (61, false)] {
        let server = Server::start(move |_, before| match before {
            0 => reply(503, &[("Retry-After", &format!("{seconds}"))], b""),
            _ => reply(200, &[], manifest().as_bytes()),
        })
        .await;
        let begun = tokio::time::Instant::now();
        let read = client(&server.authority).manifest(&repository(), &tag("v1")).await;
        // The test clock advances only while something waits.
        assert_eq!((read.is_ok(), server.log().len()), (waited, if waited { 2 } else { 1 }), "{seconds}");
        assert_eq!(begun.elapsed() >= Duration::from_secs(seconds), waited, "{seconds}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_hung_registry_is_awaited_once_and_then_only_probed() {
    let hanging = Arc::new(AtomicBool::new(true));
    let hangs = Arc::clone(&hanging);
    let server = Server::start(move |_, _| match hangs.load(Ordering::SeqCst) {
        true => Reply(vec![Part::Hang]),
        false => reply(200, &[], manifest().as_bytes()),
    })
    .await;
    let mut config = super::config(&server.authority);
    config.timing.progress = Duration::from_secs(2);
    config.timing.header = Duration::from_secs(1);
    let client = HttpRegistry::new(config).unwrap();
    let (repository, version) = (repository(), tag("v1"));
    let first = client.manifest(&repository, &version).await.unwrap_err();
    assert!(first.message.contains("within 2 s"), "{first}");
    let requests = server.log().len();
    for _ in 0..32 {
        let next = client.manifest(&repository, &version).await.unwrap_err();
        assert!(next.kind == ErrorKind::TimedOut && next.message.contains("within 0.1 s"), "{next}");
    }
    assert_eq!(server.log().len(), requests + 32, "one request each");
    hanging.store(false, Ordering::SeqCst);
    client.manifest(&repository, &version).await.unwrap();
}

#[tokio::test]
async fn downloads_that_restart_from_zero_end_eventually() {
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    // A little more each time, always from the start.
    let server = Server::start(move |_, before| {
        let sent = ((before + 1) * (70 << 10)).min(BIG);
        counted.fetch_add(sent, Ordering::SeqCst);
        let mut head = format!("HTTP/1.1 200 x\r\nConnection: close\r\nContent-Length: {BIG}\r\n\r\n").into_bytes();
        head.resize(head.len() + sent, b'x');
        Reply(vec![Part::Send(head)])
    })
    .await;
    let blob = Descriptor::new("a/b", Digest::of(b"whatever"), BIG as u64);
    let client = client(&server.authority);
    let ended = collect(client.blob(&repository(), &blob, 0..BIG as u64).await.unwrap()).await;
    assert_eq!(ended.unwrap_err().kind, ErrorKind::Unreachable);
    assert!(server.log().len() < 12, "{} requests", server.log().len());
}

#[tokio::test]
async fn an_absent_registry_is_unreachable_and_not_hammered() {
    let server = Server::start(|_, _| reply(200, &[], b"")).await;
    let authority = server.authority.clone();
    drop(server);
    let client = client(&authority);
    for _ in 0..2 {
        for error in [
            client.ping(None).await.unwrap_err(),
            client.resolve(&repository(), &tag("v1")).await.unwrap_err(),
            client.tags(&repository(), None).await.unwrap_err(),
            read(&client, 0..10).await.unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
        }
    }
    assert!(!client.ping(None).await.unwrap_err().message.contains("attempts"), "tried once only while it is away");
    let unknown = super::client("no-such-host.invalid");
    assert_eq!(unknown.ping(None).await.unwrap_err().kind, ErrorKind::Unreachable);
}

#[tokio::test]
async fn the_reason_of_an_outage_is_known_while_requests_are_still_retried() {
    let server = Server::start(|_, _| reply(200, &[], b"")).await;
    let authority = server.authority.clone();
    drop(server);
    let client = Arc::new(client(&authority));
    assert!(client.unanswered().is_none());
    let asking = {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.resolve(&repository(), &tag("v1")).await })
    };
    let reason = loop {
        tokio::task::yield_now().await;
        if let Some(reason) = client.unanswered() {
            break reason;
        }
    };
    assert!(reason.message.contains("connection refused"), "{reason}");
    asking.abort();
    let _server = Server::start_at(&authority, |_, _| reply(404, &[], b"")).await;
    assert!(client.resolve(&repository(), &tag("v1")).await.is_err() && client.unanswered().is_none());
}

#[tokio::test]
async fn a_manifest_is_at_most_4_mib_whatever_the_header_says() {
    let large = vec![b' '; 5 << 20];
    let chunks = [format!("{:x}\r\n", large.len()).into_bytes(), large.clone(), b"\r\n0\r\n\r\n".to_vec()].concat();
    for answer in [reply(200, &[], &large), raw(200, &[("Transfer-Encoding", "chunked")], &chunks)] {
        let server = Server::start(move |_, _| answer.clone()).await;
        let error = client(&server.authority).manifest(&repository(), &tag("v1")).await.unwrap_err();
        assert_eq!((error.kind, server.log().len()), (ErrorKind::Integrity, 1), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_must_have_the_digest_that_was_asked_for_or_named() {
    let other = Digest::of(b"other");
    let named = other.to_string();
    let server = Server::start(move |_, _| reply(200, &[("Docker-Content-Digest", &named)], manifest().as_bytes())).await;
    let client = client(&server.authority);
    for version in [tag("v1"), Version::Digest(other)] {
        assert_eq!(client.manifest(&repository(), &version).await.unwrap_err().kind, ErrorKind::Integrity);
    }
    // The registry's header is irrelevant if a digest was requested.
    let own = Version::Digest(Digest::of(manifest().as_bytes()));
    assert!(client.manifest(&repository(), &own).await.is_ok());
    assert_eq!(client.resolve(&repository(), &own).await.unwrap_err().kind, ErrorKind::Integrity);
}

#[tokio::test]
async fn bodies_that_are_not_manifests_are_integrity_errors() {
    let index = media_type::OCI_INDEX;
    for (kind, body) in [("text/html", "<html>".to_owned()), (index, manifest()), ("", r#"{"manifests":[],"layers":[]}"#.to_owned())] {
        let server = Server::start(move |_, _| reply(200, &[("Content-Type", kind)], body.as_bytes())).await;
        assert_eq!(client(&server.authority).manifest(&repository(), &tag("v1")).await.unwrap_err().kind, ErrorKind::Integrity, "{kind}");
    }
}

#[tokio::test]
async fn an_unrequested_content_encoding_is_refused() {
    let server = Server::start(|_, _| reply(200, &[("Content-Encoding", "gzip")], &data())).await;
    assert_eq!(read(&client(&server.authority), 0..SIZE as u64).await.unwrap_err().kind, ErrorKind::Integrity);
    assert_eq!(server.log()[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn an_encoded_refusal_keeps_its_status() {
    let server = Server::start(|_, _| reply(404, &[("Content-Encoding", "gzip")], b"garbage")).await;
    assert_eq!(read(&client(&server.authority), 0..SIZE as u64).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn one_reset_connection_costs_other_requests_no_attempts() {
    let server = Server::start(|request, before| match (request.path.as_str(), before % 2) {
        (_, 0) => Reply(Vec::new()),
        _ => reply(200, &[], br#"{"tags":[]}"#),
    })
    .await;
    let client = client(&server.authority);
    for _ in 0..5 {
        client.tags(&repository(), None).await.unwrap();
    }
    assert_eq!(server.log().len(), 10);
}

#[tokio::test]
async fn pagination_never_leaves_the_host_and_always_ends() {
    let foreign = Server::start(|_, _| reply(200, &[], br#"{"tags":["evil"]}"#)).await;
    let elsewhere = format!("<{}>; rel=\"next\"", foreign.url("/v2/team/app/tags/list?last=a"));
    for link in [
        elsewhere,
        "<//evil.invalid/v2/team/app/tags/list>; rel=\"next\"".to_owned(),
        "</v2/other/tags/list?last=a>; rel=\"next\"".to_owned(),
        "</v2/team/app/tags/list?n=1000>; rel=\"next\"".to_owned(),
    ] {
        let server = Server::start(move |_, _| reply(200, &[("Link", &link)], br#"{"tags":["a"]}"#)).await;
        let error = client(&server.authority).tags(&repository(), None).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
    }
    assert!(foreign.log().is_empty());
    let server = Server::start(|_, _| reply(200, &[], b"{}")).await;
    let client = client(&server.authority);
    for cursor in [foreign.url("/v2/team/app/tags/list"), "/v2/other/tags/list".to_owned(), "http://[".to_owned()] {
        assert_eq!(client.tags(&repository(), Some(&cursor)).await.unwrap_err().kind, ErrorKind::Integrity, "{cursor}");
    }
    assert!(server.log().is_empty());
}

#[tokio::test]
async fn endless_large_pages_of_referrers_are_refused_before_they_fill_the_memory() {
    let subject = Digest::of(b"subject");
    let page = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [], "annotations": {"x": "y".repeat(7 << 20)}})
        .to_string();
    let server = Server::start(move |_, before| {
        let link = format!("<?page={before}>; rel=\"next\"");
        reply(200, &[("Content-Type", media_type::OCI_INDEX), ("Link", &link)], page.as_bytes())
    })
    .await;
    let error = client(&server.authority).referrers(&repository(), &subject).await.unwrap_err();
    assert!(error.kind == ErrorKind::Integrity && error.message.contains("32 MiB"), "{error}");
    assert_eq!(server.log().iter().filter(|request| request.path.contains("/referrers/")).count(), 5);
}

#[tokio::test]
async fn null_and_missing_lists_are_empty_and_registries_without_a_catalog_say_unsupported() {
    let server = Server::start(|_, _| reply(200, &[], br#"{"name":"team/app","tags":null}"#)).await;
    assert!(client(&server.authority).tags(&repository(), None).await.unwrap().names.is_empty());
    for status in [401, 403, 404, 405, 501] {
        let server = Server::start(move |_, _| reply(status, &[], b"")).await;
        assert_eq!(client(&server.authority).repositories(None).await.unwrap_err().kind, ErrorKind::Unsupported, "{status}");
    }
    let server = Server::start(|_, _| reply(502, &[], b"")).await;
    assert_eq!(client(&server.authority).repositories(None).await.unwrap_err().kind, ErrorKind::Unreachable);
}

#[tokio::test]
async fn registry_text_is_escaped_before_display() {
    let body = "{\"errors\":[{\"code\":\"X\",\"message\":\"\\u001b]0;x\\u0007\\u001b[2J\\u202e\"}]}";
    let server = Server::start(move |_, _| reply(403, &[], body.as_bytes())).await;
    let error = client(&server.authority).tags(&repository(), None).await.unwrap_err();
    assert!(error.message.chars().all(|character| (' '..='~').contains(&character)), "{:?}", error.message);
}
