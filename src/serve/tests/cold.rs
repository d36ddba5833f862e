//! Blobs that are not cached yet: streamed while they are stored and verified.

use futures_util::future::join_all;

use super::*;
use crate::error::ErrorKind;
use crate::registry::{Fault, RequestKind};

const MIB: u64 = 1 << 20;

/// Blob bytes requested from an upstream.
fn asked(memory: &Memory) -> u64 {
    memory.requests().into_iter().filter_map(|request| request.range).map(|range| range.end - range.start).sum()
}

async fn server_of(upstream: &Arc<Memory>) -> TestServer {
    Setup::of(&[("up", "reg.example", upstream)]).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_cold_clients_fetch_each_byte_once() {
    let (upstream, data) = (memory("memory:a"), noise(9 * MIB as usize + 77));
    let digest = upstream.add_blob("app", "a/b", data.clone()).digest;
    let server = server_of(&upstream).await;
    let path = format!("/v2/up/app/blobs/{digest}");
    let bodies = join_all((0..32).map(|_| async { server.get(&path).await.bytes().await.unwrap() })).await;
    assert!(bodies.iter().all(|body| *body == data));
    assert_eq!((asked(&upstream), upstream.count(RequestKind::BlobSize)), (data.len() as u64, 1));
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), data);
    assert_eq!(asked(&upstream), data.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_head_requests_have_correct_headers() {
    let (upstream, data) = (memory("memory:a"), noise(3 * MIB as usize));
    let digest = upstream.add_blob("app", "a/b", data.clone()).digest;
    let server = server_of(&upstream).await;
    let path = format!("/v2/up/app/blobs/{digest}");
    let head = server.head(&path).await;
    assert_eq!((header(&head, "content-length"), header(&head, "accept-ranges")), (Some("3145728"), Some("bytes")));
    assert_eq!(header(&head, "docker-content-digest"), Some(digest.to_string().as_str()));
    let etag = header(&head, "etag").unwrap().to_owned();
    let ranged =
        |range: &'static str, if_range: String| server.request(Method::GET, &path).header("range", range).header("if-range", if_range);
    let part = ranged("bytes=1048570-2097160", etag.clone()).send().await.unwrap();
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, Some("bytes 1048570-2097160/3145728")));
    assert_eq!(part.bytes().await.unwrap(), data[1_048_570..=2_097_160]);
    let other = ranged("bytes=0-9", "\"other\"".to_owned()).send().await.unwrap();
    assert_eq!((other.status().as_u16(), other.bytes().await.unwrap().len()), (200, data.len()));
    let beyond = ranged("bytes=3145728-", etag).send().await.unwrap();
    assert_eq!((beyond.status().as_u16(), header(&beyond, "content-range")), (416, Some("bytes */3145728")));
    assert!(beyond.bytes().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_cut_the_connection_and_are_not_kept() {
    for trust in [Trust::Transport, Trust::Digest] {
        let (upstream, data) = (Arc::new(Memory::with_origin("memory:a", trust)), noise(4 * MIB as usize + 5));
        let digest = upstream.add_blob("app", "a/b", data.clone()).digest;
        upstream.plan(RequestKind::Blob, 0, 1, Fault::Flipped(9));
        let server = server_of(&upstream).await;
        let path = format!("/v2/up/app/blobs/{digest}");
        let answer = server.get(&path).await;
        assert_eq!((answer.status().as_u16(), answer.content_length()), (200, Some(data.len() as u64)));
        answer.bytes().await.unwrap_err();
        // A client that arrives before the failed read has ended shares its failure. The next one gets the right bytes, requested again from the
        // upstream.
        let mut answer = server.get(&path).await;
        while answer.status().as_u16() == 502 {
            answer = server.get(&path).await;
        }
        assert!(answer.bytes().await.unwrap() == data);
        assert!(asked(&upstream) > data.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_with_wrong_bytes_is_a_bad_gateway() {
    let upstream = memory("memory:a");
    let digest = upstream.add_blob("app", "a/b", &b"small"[..]).digest;
    upstream.plan(RequestKind::Blob, 0, 1, Fault::Flipped(0));
    let server = server_of(&upstream).await;
    let path = format!("/v2/up/app/blobs/{digest}");
    assert_eq!(refusal(server.get(&path).await).await, (502, "UNAVAILABLE".to_owned()));
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), &b"small"[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_stop_others() {
    let (upstream, data) = (memory("memory:a"), noise(6 * MIB as usize));
    let digest = upstream.add_blob("app", "a/b", data.clone()).digest;
    upstream.plan(RequestKind::Blob, 0, 1, Fault::StallAfter(MIB / 2));
    let server = server_of(&upstream).await;
    let path = format!("/v2/up/app/blobs/{digest}");
    let (leaving, staying) = (server.request(Method::GET, &path).send(), server.request(Method::GET, &path).send());
    let (leaving, staying) = (tokio::spawn(leaving), tokio::spawn(staying));
    while upstream.count(RequestKind::Blob) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    leaving.abort();
    upstream.release();
    assert_eq!(staying.await.unwrap().unwrap().bytes().await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_upstream_response_is_never_a_complete_blob() {
    let (upstream, data) = (memory("memory:a"), noise(4 * MIB as usize));
    let digest = upstream.add_blob("app", "a/b", data.clone()).digest;
    let server = server_of(&upstream).await;
    let path = format!("/v2/up/app/blobs/{digest}");
    for tenth in 0..10 {
        upstream.plan(RequestKind::Blob, 0, u32::MAX, Fault::Short(tenth * data.len() as u64 / 10, ErrorKind::Unreachable));
        let answer = server.get(&path).await;
        if answer.status().as_u16() == 200
            && let Ok(body) = answer.bytes().await
        {
            assert_eq!(body, data, "{tenth}");
        }
        upstream.mend();
    }
    // A request that failed without an answer is retried after a moment.
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_is_served() {
    let upstream = memory("memory:a");
    let digest = upstream.add_blob("app", "a/b", &b""[..]).digest;
    let server = server_of(&upstream).await;
    let answer = server.get(&format!("/v2/up/app/blobs/{digest}")).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "content-length")), (200, Some("0")));
    assert!(answer.bytes().await.unwrap().is_empty());
}
