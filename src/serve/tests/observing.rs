//! Metrics and the access log.

use std::io::Write;

use parking_lot::Mutex;

use super::access::{as_user, asking};
use super::*;
use crate::error::ErrorKind;
use crate::registry::{Fault, RequestKind};

/// A log that tests can read.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub(super) fn json(&self) -> Vec<Value> {
        std::str::from_utf8(&self.0.lock()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The value of a series; zero if it does not exist.
async fn value(server: &TestServer, series: &str) -> u64 {
    let text = server.get("/metrics").await.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_hits_and_saved_bytes_are_counted() {
    let upstream = memory("memory:a");
    let layer = noise(3 << 20);
    add_image(&upstream, "app", "v1", &layer);
    let server = Setup::of(&[("up", "reg.example", &upstream)]).start().await;
    let blob = format!("/v2/up/app/blobs/{}", Digest::of(&layer));
    for _ in 0..3 {
        server.get("/v2/up/app/manifests/v1").await.bytes().await.unwrap();
        assert_eq!(server.get(&blob).await.bytes().await.unwrap(), layer);
    }
    server.get("/v2/up/app/manifests/none").await;
    for (series, expected) in [
        ("ocifs_requests_total{method=\"GET\",kind=\"manifest\",status=\"200\"}", 3),
        ("ocifs_requests_total{method=\"GET\",kind=\"manifest\",status=\"404\"}", 1),
        ("ocifs_request_duration_seconds_count{kind=\"blob\"}", 3),
        ("ocifs_upstream_answers_total{upstream=\"up\",kind=\"manifest\",source=\"hit\"}", 2),
        ("ocifs_upstream_answers_total{upstream=\"up\",kind=\"manifest\",source=\"miss\"}", 1),
        ("ocifs_upstream_answers_total{upstream=\"up\",kind=\"blob\",source=\"hit\"}", 2),
        ("ocifs_upstream_answers_total{upstream=\"up\",kind=\"blob\",source=\"miss\"}", 1),
        ("ocifs_upstream_requests_total{upstream=\"up\",operation=\"manifest\",outcome=\"not-found\"}", 1),
    ] {
        assert_eq!(value(&server, series).await, expected, "{series}");
    }
    let manifest = server.get("/v2/up/app/manifests/v1").await.content_length().unwrap();
    let (sent, received) = (3 * layer.len() as u64 + 4 * manifest, layer.len() as u64 + manifest);
    assert_eq!(value(&server, "ocifs_upstream_sent_bytes_total{upstream=\"up\"}").await, sent);
    assert_eq!(value(&server, "ocifs_upstream_received_bytes_total{upstream=\"up\"}").await, received);
    assert_eq!(value(&server, "ocifs_upstream_saved_bytes{upstream=\"up\"}").await, sent - received);
    let (used, size) = (value(&server, "ocifs_cache_used_bytes").await, value(&server, "ocifs_cache_size_bytes").await);
    assert!((layer.len() as u64..size).contains(&used), "{used} of {size}");
}

#[tokio::test]
async fn failed_upstream_requests_and_stale_responses_are_counted() {
    let upstream = memory("memory:a");
    add_image(&upstream, "app", "v1", b"one");
    let setup = Setup { tag_ttl: Duration::ZERO, ..Setup::of(&[("up", "reg.example", &upstream)]) };
    let server = setup.start().await;
    server.get("/v2/up/app/manifests/v1").await;
    upstream.plan(RequestKind::Resolve, 0, 1, Fault::Error(ErrorKind::Unreachable));
    server.get("/v2/up/app/manifests/v1").await;
    let failed = "ocifs_upstream_requests_total{upstream=\"up\",operation=\"resolve\",outcome=\"unreachable\"}";
    assert_eq!(value(&server, failed).await, 1);
    assert_eq!(value(&server, "ocifs_upstream_answers_total{upstream=\"up\",kind=\"manifest\",source=\"stale\"}").await, 1);
}

#[tokio::test]
async fn clients_cannot_create_metric_series() {
    let server = Setup::hosting().start().await;
    for number in 0..5 {
        let method = Method::from_bytes(format!("X{number}").as_bytes()).unwrap();
        server.request(method, &format!("/v2/app{number}/tags/list")).send().await.unwrap();
        server.get(&format!("/nowhere/{number}")).await;
    }
    let text = server.get("/metrics").await.text().await.unwrap();
    let series: Vec<&str> = text.lines().filter(|line| line.starts_with("ocifs_requests_total")).collect();
    assert_eq!(series.len(), 2, "{series:?}");
}

#[tokio::test]
async fn metrics_come_in_the_requested_format() {
    let server = Setup::hosting().start().await;
    let plain = server.get("/metrics").await;
    assert_eq!(header(&plain, "content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let open = server.request(Method::GET, "/metrics").header("accept", accept).send().await.unwrap();
    assert!(header(&open, "content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().await.unwrap().ends_with("# EOF\n"));
}

#[tokio::test]
async fn with_passwords_anonymous_clients_see_no_metrics() {
    for anonymous_pull in [false, true] {
        let server = asking(&[], None, anonymous_pull).await;
        assert_eq!(refusal(server.get("/metrics").await).await, (401, "UNAUTHORIZED".to_owned()));
        let wrong = server.request(Method::GET, "/metrics").basic_auth("alice", Some("x")).send().await.unwrap();
        assert_eq!(wrong.status().as_u16(), 401);
        assert_eq!(as_user(server.request(Method::GET, "/metrics"), "alice").send().await.unwrap().status().as_u16(), 200);
    }
}

#[tokio::test]
async fn every_request_is_logged_once_without_its_secrets() {
    let (lines, setup) = (Lines::default(), Setup::hosting());
    let passwords = Some(super::access::passwords(&setup.directory));
    let access_log = Some(AccessLog::new(AccessFormat::Json, lines.clone()).unwrap());
    let server = Setup { passwords, access_log, ..setup }.start().await;
    let location = {
        let begun = as_user(server.request(Method::POST, "/v2/app/blobs/uploads/"), "alice").send().await.unwrap();
        header(&begun, "location").unwrap().to_owned()
    };
    as_user(server.request(Method::GET, &format!("{location}?token=secret")), "alice").send().await.unwrap();
    server.request(Method::GET, "/v2/?a=secret").basic_auth("alice", Some("wrong-secret")).send().await.unwrap();
    server.request(Method::GET, "/healthz").header("user-agent", "probe/1").send().await.unwrap();
    server.stop().await;
    let logged = lines.json();
    let told: Vec<_> =
        logged.iter().map(|line| (line["kind"].as_str().unwrap(), line["status"].as_u64().unwrap(), &line["user"])).collect();
    let (alice, nobody) = (&Value::from("alice"), &Value::Null);
    assert_eq!(told, [("upload", 202, alice), ("upload", 204, alice), ("base", 401, nobody), ("probe", 200, nobody)]);
    assert_eq!((&logged[3]["agent"], &logged[3]["path"], &logged[3]["bytes"]), (&"probe/1".into(), &"/healthz".into(), &3.into()));
    assert!(logged.iter().all(|line| line["complete"] == true && line["client"].as_str().unwrap().starts_with("127.0.0.1:")), "{logged:?}");
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    let session = location.rsplit('/').next().unwrap();
    assert!(!text.contains("secret") && !text.contains("password") && !text.contains(session), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_shows_hits_lengths_and_truncated_responses() {
    let (upstream, lines) = (memory("memory:a"), Lines::default());
    let layer = noise(2 << 20);
    let digest = upstream.add_blob("app", "a/b", layer.clone()).digest;
    let bad = upstream.add_blob("app", "a/b", noise(5 << 20)).digest;
    let access_log = Some(AccessLog::new(AccessFormat::Json, lines.clone()).unwrap());
    let server = Setup { access_log, ..Setup::of(&[("up", "reg.example", &upstream)]) }.start().await;
    let path = format!("/v2/up/app/blobs/{digest}");
    for _ in 0..2 {
        server.get(&path).await.bytes().await.unwrap();
    }
    server.head(&path).await;
    upstream.plan(RequestKind::Blob, 0, 1, Fault::Flipped(9));
    server.get(&format!("/v2/up/app/blobs/{bad}")).await.bytes().await.unwrap_err();
    server.stop().await;
    let logged = lines.json();
    let told: Vec<_> = logged.iter().map(|line| (line["cache"].as_str().unwrap(), line["complete"].as_bool().unwrap())).collect();
    assert_eq!(told, [("miss", true), ("hit", true), ("hit", true), ("miss", false)]);
    let bytes: Vec<_> = logged.iter().map(|line| line["bytes"].as_u64().unwrap()).collect();
    assert_eq!(bytes[..3], [layer.len() as u64, layer.len() as u64, 0]);
}
