//! Clients that are slow, lie about lengths, send garbage or never finish; and a server stopping meanwhile.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::observing::Lines;
use super::*;

/// A separate connection.
async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.base.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Sends bytes and reads whatever comes until the server closes.
async fn exchange(server: &TestServer, bytes: &[u8]) -> String {
    let mut stream = connect(server).await;
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        answer.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of the responses on one connection.
fn statuses(text: &str) -> Vec<u16> {
    text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect()
}

fn limited(limits: Limits) -> Setup {
    Setup { limits, ..Setup::hosting() }
}

async fn is_well(server: &TestServer) {
    assert_eq!(server.get("/v2/").await.status().as_u16(), 200);
}

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_client_that_never_finishes_its_request_head_is_cut_off() {
    let server = limited(Limits { head: SHORT, ..Limits::default() }).start().await;
    for begin in ["", "G", "GET /v2/ HTTP/1.1\r\nHost: loc", "PRI * HTTP/2.0\r\n\r\n"] {
        let answer = exchange(&server, begin.as_bytes()).await;
        assert!(statuses(&answer).iter().all(|status| *status == 408), "{answer}");
    }
    is_well(&server).await;
}

#[tokio::test]
async fn a_client_that_stalls_in_its_body_gets_408_and_received_bytes_stay() {
    let server = limited(Limits { stall: SHORT, ..Limits::default() }).start().await;
    let location = server.begin("app").await;
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n0123456789");
    let answer = exchange(&server, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("BLOB_UPLOAD_INVALID"), "{answer}");
    assert_eq!(header(&server.get(&location).await, "range"), Some("0-9"));
    let head = "PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    assert!(exchange(&server, head.as_bytes()).await.starts_with("HTTP/1.1 408 "));
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_response_is_cut_off() {
    let lines = Lines::default();
    let access_log = Some(AccessLog::new(AccessFormat::Json, lines.clone()).unwrap());
    let server = Setup { access_log, ..limited(Limits { stall: SHORT, ..Limits::default() }) }.start().await;
    let digest = server.push_blob("app", &noise(64 << 20)).await;
    let mut stream = connect(&server).await;
    stream.write_all(format!("GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    while !lines.json().iter().any(|line| line["kind"] == "blob" && line["complete"] == false) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    is_well(&server).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_that_ends() {
    let server = limited(Limits { connections: 2, ..Limits::default() }).start().await;
    let (first, _second) = (connect(&server).await, connect(&server).await);
    let mut third = connect(&server).await;
    third.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(tokio::time::timeout(SHORT, third.readable()).await.is_err());
    drop(first);
    assert_eq!(statuses(&rest(&mut third).await), [200]);
}

#[tokio::test]
async fn an_endless_body_is_refused_at_its_limit() {
    let server = Setup::hosting().start().await;
    let head = "PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut stream = connect(&server).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let chunk = [&b"10000\r\n"[..], &[b' '; 1 << 16], b"\r\n"].concat();
    // It ends, since the server stops reading.
    let endless = async { while writing.write_all(&chunk).await.is_ok() {} };
    let mut answer = Vec::new();
    let answered = async { drop(reading.read_to_end(&mut answer).await) };
    tokio::join!(endless, answered);
    // A client that is still sending may not see the response.
    let answer = String::from_utf8_lossy(&answer);
    assert!(statuses(&answer).iter().all(|status| *status == 413), "{answer}");
    is_well(&server).await;
}

#[tokio::test]
async fn a_manifest_of_five_mebibytes_is_too_large() {
    let server = Setup::hosting().start().await;
    let put = server.request(Method::PUT, "/v2/app/manifests/v1").body(vec![b' '; 5 << 20]).send().await.unwrap();
    assert_eq!(refusal(put).await, (413, "SIZE_INVALID".to_owned()));
    is_well(&server).await;
}

#[tokio::test]
async fn contradictory_lengths_are_refused() {
    let server = Setup::hosting().start().await;
    let digest = Digest::of(b"0123456789");
    for lengths in
        ["Content-Length: 5\r\nContent-Length: 6", "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: x"]
    {
        let request = format!("POST /v2/app/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n\r\n0123456789");
        assert_eq!(statuses(&exchange(&server, request.as_bytes()).await), [400], "{lengths}");
    }
    assert_eq!(server.head(&format!("/v2/app/blobs/{digest}")).await.status().as_u16(), 404);
}

#[tokio::test]
async fn garbage_after_a_request_ends_only_its_connection() {
    let server = Setup::hosting().start().await;
    let good = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for garbage in ["GARBAGE\r\n\r\n", "\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET /v2/ HTTP/9.9\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}\u{0}"] {
        let answer = exchange(&server, format!("{good}{good}{garbage}").as_bytes()).await;
        assert_eq!(statuses(&answer)[..2], [200, 200], "{garbage:?}: {answer}");
        assert!(statuses(&answer)[2..].iter().all(|status| *status == 400), "{garbage:?}: {answer}");
    }
    // The rest of an overlong body is parsed as the next request, which is invalid.
    let digest = Digest::of(b"01234");
    let upload =
        format!("POST /v2/app/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n0123456789\r\n\r\n");
    assert_eq!(statuses(&exchange(&server, upload.as_bytes()).await), [201, 400]);
    is_well(&server).await;
}

#[tokio::test]
async fn paths_with_dot_segments_or_encoded_separators_are_refused_on_the_wire() {
    let server = Setup::hosting().start().await;
    server.push_blob("secret", b"secret").await;
    let digest = Digest::of(b"secret");
    for path in [
        format!("/v2/open/../secret/blobs/{digest}"),
        format!("/v2/open/%2e%2e/secret/blobs/{digest}"),
        format!("/v2/open%2f..%2fsecret/blobs/{digest}"),
        format!("/v2/%2fsecret/blobs/{digest}"),
        format!("/v2/secret%00/blobs/{digest}"),
        format!("/v2/secret%0d%0ax:y/blobs/{digest}"),
        format!("/v2/../_blobs/sha256/{}", digest.hex()),
        format!("/v2/secret/blobs/..%2f..%2f{digest}"),
        format!("/v2/secret/blobs/uploads/..%2f..%2f{}", digest.hex()),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = exchange(&server, request.as_bytes()).await;
        assert!(matches!(statuses(&answer)[..], [400 | 404]), "{path}: {answer}");
        assert!(answer.contains("{\"errors\":[{\"code\":"), "{path}: {answer}");
    }
    // Bytes that are invalid in any path do not even reach the routes.
    for path in ["/v2/a\0b/tags/list", "/v2/a b/tags/list", "/v2/\u{7f}/tags/list"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(statuses(&exchange(&server, request.as_bytes()).await), [400], "{path:?}");
    }
}

#[tokio::test]
async fn ten_thousand_headers_and_an_endless_header_are_refused() {
    let server = Setup::hosting().start().await;
    let many: String = (0..10_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(1 << 20));
    for headers in [many, long] {
        let answer = exchange(&server, format!("GET /v2/ HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).await;
        // A client that is still sending may not see the response.
        assert!(statuses(&answer).iter().all(|status| *status == 431), "{answer}");
    }
    is_well(&server).await;
}

/// Sends ten of twenty bytes of an upload. Returns its path and the connection.
async fn half_an_upload(server: &TestServer) -> (String, TcpStream) {
    let location = server.begin("app").await;
    let mut stream = connect(server).await;
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n0123456789");
    stream.write_all(head.as_bytes()).await.unwrap();
    // Only one request at a time writes to it, which shows that this one has started.
    while server.get(&location).await.status().as_u16() != 409 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (location, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_progress_finishes_before_the_server_stops() {
    let server = Setup::hosting().start().await;
    let (_, mut stream) = half_an_upload(&server).await;
    let stopped = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!stopped.is_finished());
    stream.write_all(b"0123456789").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 202 ") && answer.contains("range: 0-19"), "{answer}");
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_cut_off_at_shutdown_keeps_received_bytes() {
    let setup = limited(Limits { drain: SHORT, ..Limits::default() });
    let directory = Arc::clone(&setup.directory);
    let server = setup.start().await;
    let (location, mut stream) = half_an_upload(&server).await;
    server.stop().await;
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
    let server = Setup { directory, ..Setup::hosting() }.start().await;
    assert_eq!(header(&server.get(&location).await, "range"), Some("0-9"));
    let whole = b"01234567890123456789";
    let put = server.request(Method::PUT, &format!("{location}?digest={}", Digest::of(whole))).body(&whole[10..]).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 201);
}
