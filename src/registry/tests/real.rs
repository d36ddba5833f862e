//! The suite against the real `docker-registry` of Debian, also behind a password.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::json;

use super::suite::{Sample, conforms};
use super::{client, client_with, config};
use crate::error::ErrorKind;
use crate::oci::{Digest, Repository, media_type};
use crate::registry::{HttpRegistry, Pull};

const PROGRAM: &str = "docker-registry";
/// `me:secret` as `htpasswd -B` writes it.
const HTPASSWD: &str = "me:$2y$05$bGl8sa8FlVYitlPtNEV6a.PepOQymrn0H9/U8sjYQ2cxFJQf311X.\n";

struct Running {
    child: Child,
    authority: String,
    _directory: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the registry, or says loudly that it is missing.
async fn start(password: bool) -> Option<Running> {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(PROGRAM).is_file()));
    if !found {
        assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{PROGRAM} is missing, and CI=true allows no skip");
        eprintln!("SKIPPED: {PROGRAM} is not installed (apt-get install docker-registry)");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let authority = format!("127.0.0.1:{port}");
    let storage = directory.path().join("storage");
    let mut settings = json!({"version": 0.1, "log": {"level": "error"}, "http": {"addr": authority},
        "storage": {"filesystem": {"rootdirectory": storage}}});
    if password {
        let file = directory.path().join("htpasswd");
        std::fs::write(&file, HTPASSWD).unwrap();
        settings["auth"] = json!({"htpasswd": {"realm": "test", "path": file}});
    }
    let file = directory.path().join("config.yml");
    std::fs::write(&file, settings.to_string()).unwrap();
    let child = Command::new(PROGRAM).arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let running = Running { child, authority, _directory: directory };
    for _ in 0..600 {
        if tokio::net::TcpStream::connect(&running.authority).await.is_ok() {
            return Some(running);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{PROGRAM} did not start");
}

/// Uploads the sample with plain requests, apart from the client that is tested.
async fn push(authority: &str, sample: &Sample, index: &str) {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let base = format!("http://{authority}/v2/team/app");
    for blob in &sample.blobs {
        let started = http.post(format!("{base}/blobs/uploads/")).send().await.unwrap();
        let location = started.headers()["location"].to_str().unwrap().to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let put = http.put(format!("{location}{separator}digest={}", Digest::of(blob))).body(blob.clone()).send().await.unwrap();
        assert_eq!(put.status().as_u16(), 201);
    }
    let mut puts: Vec<(String, &str, &str)> = Vec::new();
    puts.extend(sample.manifests.iter().map(|raw| (Digest::of(raw.as_bytes()).to_string(), raw.as_str(), media_type::OCI_MANIFEST)));
    puts.extend(sample.tags.iter().map(|(name, _)| (name.clone(), sample.manifests[0].as_str(), media_type::OCI_MANIFEST)));
    puts.push((sample.subject.path_name(), index, media_type::OCI_INDEX));
    for (name, raw, kind) in puts {
        let put = http.put(format!("{base}/manifests/{name}")).header("Content-Type", kind).body(raw.to_owned()).send().await.unwrap();
        assert_eq!(put.status().as_u16(), 201, "{name}");
    }
}

#[tokio::test]
async fn the_client_conforms_against_docker_registry() {
    let Some(registry) = start(false).await else { return };
    let sample = Sample::new();
    let referrer = json!({"mediaType": media_type::OCI_MANIFEST, "digest": sample.referrer.to_string(), "size": sample.manifests[1].len(),
        "artifactType": "application/vnd.example.note", "annotations": {"note": "text"}});
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [referrer]}).to_string();
    push(&registry.authority, &sample, &index).await;
    conforms(&client(&registry.authority), &sample, Some(&Repository::parse("team/none").unwrap())).await;
}

#[tokio::test]
async fn docker_registry_takes_the_right_password_and_no_other() {
    let Some(registry) = start(true).await else { return };
    let stored = |password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("me:{password}"));
        json!({"auths": {&registry.authority: {"auth": auth}}})
    };
    let directory = tempfile::tempdir().unwrap();
    client_with(&registry.authority, &directory, &stored("secret"), |_| {}).ping(None).await.unwrap();
    let wrong = client_with(&registry.authority, &directory, &stored("wrong"), |_| {}).ping(None).await.unwrap_err();
    let none = HttpRegistry::new(config(&registry.authority)).unwrap().ping(None).await.unwrap_err();
    assert_eq!((wrong.kind, none.kind), (ErrorKind::Denied, ErrorKind::Denied), "{wrong} {none}");
}
