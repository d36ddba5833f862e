//! The suite against Debian's real `docker-registry`, also with a password.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::suite::{Sample, conforms};
use super::writing::{Manner, descriptor, manifest, name, silent, source, takes};
use super::{client, client_with, config, repository, tag};
use crate::error::ErrorKind;
use crate::oci::{Digest, Repository, media_type};
use crate::registry::{HttpConfig, HttpRegistry, Pull, Push, TagDeletion, UploadSizes};

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
        // It may have exited already; the test would have noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How to configure the registry.
#[derive(Clone, Copy, Default)]
struct Settings {
    password: bool,
    deletes: bool,
    read_only: bool,
}

/// Starts the registry, or reports loudly that it is missing.
async fn start(Settings { password, deletes, read_only }: Settings) -> Option<Running> {
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
        "storage": {"filesystem": {"rootdirectory": storage}, "delete": {"enabled": deletes},
            "maintenance": {"readonly": {"enabled": read_only}}}});
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

/// Uploads the sample with plain requests, independent of the client under test.
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
    let Some(registry) = start(Settings::default()).await else { return };
    let sample = Sample::new();
    let referrer = json!({"mediaType": media_type::OCI_MANIFEST, "digest": sample.referrer.to_string(), "size": sample.manifests[1].len(),
        "artifactType": "application/vnd.example.note", "annotations": {"note": "text"}});
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [referrer]}).to_string();
    push(&registry.authority, &sample, &index).await;
    conforms(&client(&registry.authority), &sample, Some(&Repository::parse("team/none").unwrap())).await;
}

fn stored(authority: &str, password: &str) -> serde_json::Value {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("me:{password}"));
    json!({"auths": {authority: {"auth": auth}}})
}

#[tokio::test]
async fn docker_registry_accepts_only_the_right_password() {
    let Some(registry) = start(Settings { password: true, ..Settings::default() }).await else { return };
    let stored = |password: &str| stored(&registry.authority, password);
    let directory = tempfile::tempdir().unwrap();
    client_with(&registry.authority, &directory, &stored("secret"), |_| {}).ping(None).await.unwrap();
    let wrong = client_with(&registry.authority, &directory, &stored("wrong"), |_| {}).ping(None).await.unwrap_err();
    let none = HttpRegistry::new(config(&registry.authority)).unwrap().ping(None).await.unwrap_err();
    assert_eq!((wrong.kind, none.kind), (ErrorKind::Denied, ErrorKind::Denied), "{wrong} {none}");
}

/// Requests small enough that a test takes several, and large enough that each has several pieces.
fn small(config: &mut HttpConfig) {
    config.upload = UploadSizes { whole: 1 << 20, chunk: 2 << 20, smallest: 1 << 20 };
}

fn writer(authority: &str) -> HttpRegistry {
    let mut config = config(authority);
    small(&mut config);
    HttpRegistry::new(config).unwrap()
}

#[tokio::test]
async fn docker_registry_conforms_to_pushes_with_and_without_deletes() {
    for deletes in [true, false] {
        let Some(registry) = start(Settings { deletes, ..Settings::default() }).await else { return };
        let manner = Manner { mounts: true, deletion: deletes.then_some(TagDeletion::ByThrowAway), large: 5 << 20 };
        takes(&writer(&registry.authority), manner).await;
    }
}

#[tokio::test]
async fn docker_registry_accepts_pushes_only_with_the_right_password() {
    let Some(registry) = start(Settings { password: true, deletes: true, ..Settings::default() }).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let manner = Manner { mounts: true, deletion: Some(TagDeletion::ByThrowAway), large: 3 << 20 };
    takes(&client_with(&registry.authority, &directory, &stored(&registry.authority, "secret"), small), manner).await;
    let wrong = client_with(&registry.authority, &directory, &stored(&registry.authority, "wrong"), small);
    let one = manifest(&[b"small"], "one", None);
    let errors = [
        wrong.push_blob(&repository(), &descriptor(b"new"), source(b"new"), silent()).await.unwrap_err(),
        wrong.push_manifest(&repository(), &tag("v1"), &one).await.unwrap_err(),
        wrong.delete_tag(&repository(), &name("v3"), &one.digest).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    }
}

#[tokio::test]
async fn a_read_only_docker_registry_is_unsupported() {
    let Some(registry) = start(Settings { read_only: true, ..Settings::default() }).await else { return };
    let client = writer(&registry.authority);
    let one = manifest(&[], "one", None);
    let errors = [
        client.push_blob(&repository(), &descriptor(b"new"), source(b"new"), silent()).await.unwrap_err(),
        client.push_manifest(&repository(), &tag("v1"), &one).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    }
}

/// Proxies connections to the registry and breaks the first one that has carried this many bytes to it.
async fn breaking(authority: &str, after: u64) -> (String, Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (own, authority) = (listener.local_addr().unwrap().to_string(), authority.to_owned());
    let broken = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&broken);
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (authority, broken) = (authority.clone(), Arc::clone(&broken));
            connections.spawn(async move {
                let registry = TcpStream::connect(authority).await.unwrap();
                let ((from_client, mut to_client), (mut from_registry, mut to_registry)) = (client.into_split(), registry.into_split());
                let mut limited = from_client.take(if broken.load(Ordering::SeqCst) { u64::MAX } else { after });
                tokio::select! {
                    // Ends at the limit or at the client's EOF; then the connection ends too.
                    copied = tokio::io::copy(&mut limited, &mut to_registry) => {
                        if copied.is_ok_and(|copied| copied == after) {
                            broken.store(true, Ordering::SeqCst);
                        }
                    }
                    _ = tokio::io::copy(&mut from_registry, &mut to_client) => {}
                }
            });
        }
    });
    (own, told, task)
}

#[tokio::test]
async fn docker_registry_has_the_whole_blob_after_a_broken_chunk() {
    let Some(registry) = start(Settings::default()).await else { return };
    let (authority, broken, proxy) = breaking(&registry.authority, 3 << 20).await;
    let data: Vec<u8> = (0..7_u32 << 20).map(|number| (number % 241) as u8).collect();
    let client = writer(&authority);
    client.push_blob(&repository(), &descriptor(&data), source(&data), silent()).await.unwrap();
    assert!(broken.load(Ordering::SeqCst));
    let direct = writer(&registry.authority);
    let stored = direct.blob(&repository(), &descriptor(&data), 0..data.len() as u64).await.unwrap();
    assert!(super::collect(stored).await.unwrap() == data);
    proxy.abort();
}
