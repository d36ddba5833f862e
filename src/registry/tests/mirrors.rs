//! Scripted mirrors: which source is asked for what, what is skipped, and what never leaves the registry's own origin.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::authority::{Asking, Authority};
use super::scripted::{Part, Received, Reply, Server, raw, reply};
use super::writing::{descriptor, manifest, silent, source};
use super::{collect, config, quick, repository, tag};
use crate::error::ErrorKind;
use crate::oci::{Manifest, Registry, Repository, Version, media_type};
use crate::registry::{Credentials, HttpConfig, HttpRegistry, MirrorFiles, Mirrored, Pull, Push, Reaching, Timing, Trust};

const LAYER: &[u8] = b"the content of a layer";

fn sample() -> Manifest {
    manifest(&[LAYER], "mirrored", None)
}

/// The answers of a registry that has the sample under every repository name.
fn answer(received: &Received) -> Reply {
    let sample = sample();
    let digest = sample.digest.to_string();
    let path = received.path.split('?').next().unwrap();
    if path.ends_with("/manifests/v1") || path.ends_with(&format!("/manifests/{digest}")) {
        return reply(200, &[("Docker-Content-Digest", &digest), ("Content-Type", media_type::OCI_MANIFEST)], &sample.raw);
    }
    if path.ends_with(&format!("/blobs/{}", descriptor(LAYER).digest)) {
        return blob(received, LAYER);
    }
    if path.ends_with("/tags/list") {
        return reply(200, &[("Content-Type", "application/json")], br#"{"tags":["v1"]}"#);
    }
    if path.ends_with("/v2/") { reply(200, &[], b"") } else { reply(404, &[], b"") }
}

/// A blob, or the range of it that is asked for.
fn blob(received: &Received, data: &[u8]) -> Reply {
    let Some(range) = received.header("range").and_then(|range| range.strip_prefix("bytes=")) else { return reply(200, &[], data) };
    let (start, end) = range.split_once('-').unwrap();
    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
    reply(206, &[("Content-Range", &format!("bytes {start}-{end}/{}", data.len()))], &data[start..=end])
}

async fn whole() -> Server {
    Server::start(|received, _| answer(received)).await
}

/// A port that refuses connections.
fn closed() -> String {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The files of containerd and podman, and the login file.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// `hosts.toml` of a registry with these mirrors.
    fn hosts(registry: &str, mirrors: &[&str]) -> Self {
        let (files, mirrors) = (Self::new(), mirrors.iter().map(|mirror| format!("[host.\"http://{mirror}\"]\n")).collect::<String>());
        files.write(&format!("certs.d/{registry}/hosts.toml"), &mirrors);
        files
    }

    fn conf(text: &str) -> Self {
        let files = Self::new();
        files.write("registries.conf", text);
        files
    }

    fn open(&self, registry: &str) -> (Arc<dyn Pull>, HttpRegistry) {
        let name = Registry::parse(registry).unwrap();
        let places = MirrorFiles {
            hosts: vec![self.0.path().join("certs.d")],
            registries: Some(self.0.path().join("registries.conf")),
            ..MirrorFiles::default()
        };
        let rules = Arc::new(places.rules(&name).unwrap());
        let credentials = Arc::new(Credentials::new(vec![self.0.path().join("auth.json")], Vec::new()));
        let reaching = Reaching {
            credentials: Arc::clone(&credentials),
            certificates: Vec::new(),
            timing: Timing { progress: Duration::from_secs(4), ..quick() },
        };
        let own = HttpRegistry::new(HttpConfig { credentials, rules: Arc::clone(&rules), ..config(registry) }).unwrap();
        (Mirrored::over(Arc::new(own.clone()), &name, rules, &reaching).unwrap(), own)
    }
}

async fn read_all(pull: &dyn Pull) {
    let found = pull.manifest(&repository(), &tag("v1")).await.unwrap();
    assert_eq!(found.digest, sample().digest);
    assert_eq!(read_layer(pull).await.unwrap(), LAYER);
}

async fn read_layer(pull: &dyn Pull) -> Result<Vec<u8>, crate::error::Error> {
    collect(pull.blob(&repository(), &descriptor(LAYER), 0..LAYER.len() as u64).await?).await
}

fn paths(server: &Server) -> Vec<String> {
    server.log().into_iter().map(|received| format!("{} {}", received.method, received.path)).collect()
}

#[tokio::test]
async fn all_reads_go_to_the_mirror_which_is_told_the_registry_s_name() {
    let (origin, mirror) = (whole().await, whole().await);
    let (pull, _) = Files::hosts(&origin.authority, &[&mirror.authority]).open(&origin.authority);
    pull.ping(Some(&repository())).await.unwrap();
    pull.resolve(&repository(), &tag("v1")).await.unwrap();
    read_all(&*pull).await;
    assert!(paths(&origin).is_empty(), "{:?}", paths(&origin));
    let named = format!("?ns={}", origin.authority.replace(':', "%3A"));
    assert!(mirror.log().len() == 4 && mirror.log().iter().all(|received| received.path.ends_with(&named)), "{:?}", paths(&mirror));
    assert_eq!((pull.trust(), pull.origin()), (Trust::Digest, origin.url("").as_str()));
}

#[tokio::test]
async fn a_failed_mirror_is_skipped_and_not_retried_at_once() {
    let origin = whole().await;
    let refusing = Server::start(|_, _| reply(503, &[], b"")).await;
    let (pull, _) = Files::hosts(&origin.authority, &[&closed(), &refusing.authority]).open(&origin.authority);
    read_all(&*pull).await;
    read_all(&*pull).await;
    assert_eq!(refusing.log().len(), 1, "{:?}", paths(&refusing));
    assert_eq!(origin.log().len(), 4);
}

#[tokio::test]
async fn only_the_registry_itself_decides_absence() {
    let empty = Server::start(|_, _| reply(404, &[], b"")).await;
    let origin = whole().await;
    let (pull, _) = Files::hosts(&origin.authority, &[&empty.authority]).open(&origin.authority);
    read_all(&*pull).await;
    assert_eq!(pull.resolve(&repository(), &tag("v2")).await.unwrap_err().kind, ErrorKind::NotFound);
    let gone = closed();
    let (pull, _) = Files::hosts(&gone, &[&empty.authority]).open(&gone);
    for version in [tag("v1"), Version::Digest(sample().digest)] {
        assert_eq!(pull.resolve(&repository(), &version).await.unwrap_err().kind, ErrorKind::Unreachable);
        assert_eq!(pull.manifest(&repository(), &version).await.unwrap_err().kind, ErrorKind::Unreachable);
    }
    assert_eq!(read_layer(&*pull).await.unwrap_err().kind, ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_mirror_without_resolve_is_not_asked_for_tags() {
    let (origin, mirror, files) = (whole().await, whole().await, Files::new());
    let host = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n", mirror.authority);
    files.write(&format!("certs.d/{}/hosts.toml", origin.authority), &host);
    let (pull, _) = files.open(&origin.authority);
    read_all(&*pull).await;
    assert_eq!(paths(&origin), ["HEAD /v2/team/app/manifests/v1"], "only the digest of the tag");
    assert!(paths(&mirror).iter().all(|path| path.contains("sha256:")), "{:?}", paths(&mirror));
}

#[tokio::test]
async fn a_login_goes_only_to_its_own_host() {
    let guarded = |received: &Received, _| match received.header("authorization") {
        Some(_) => answer(received),
        None => reply(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
    };
    let (origin, mirror) = (Server::start(guarded).await, Server::start(guarded).await);
    let files = Files::hosts(&origin.authority, &[&mirror.authority]);
    let login = |user: &str| json!({"username": user, "password": "hunter2"});
    let auths = |auths| json!({ "auths": auths }).to_string();
    files.write("auth.json", &auths(json!({ &origin.authority: login("origin") })));
    read_all(&*files.open(&origin.authority).0).await;
    let sent = |server: &Server| server.log().iter().filter_map(|received| received.header("authorization").map(str::to_owned)).collect();
    let to_mirror: Vec<String> = sent(&mirror);
    assert!(to_mirror.is_empty() && !mirror.log().is_empty(), "{to_mirror:?}");
    files.write("auth.json", &auths(json!({ &origin.authority: login("origin"), &mirror.authority: login("mirror") })));
    let before = origin.log().len();
    read_all(&*files.open(&origin.authority).0).await;
    let to_mirror: Vec<String> = sent(&mirror);
    // "mirror:hunter2"
    assert!(!to_mirror.is_empty() && to_mirror.iter().all(|sent| sent == "Basic bWlycm9yOmh1bnRlcjI="), "{to_mirror:?}");
    assert_eq!(origin.log().len(), before);
}

#[tokio::test]
async fn blocked_registries_are_neither_read_nor_written() {
    let origin = whole().await;
    let text = format!("[[registry]]\nprefix = \"{}/team\"\nblocked = true\n", origin.authority);
    let (pull, own) = Files::conf(&text).open(&origin.authority);
    let error = pull.manifest(&repository(), &tag("v1")).await.unwrap_err();
    assert!(error.kind == ErrorKind::Denied && error.message.contains("registries.conf"), "{error}");
    assert_eq!(read_layer(&*pull).await.unwrap_err().kind, ErrorKind::Denied);
    let pushed = own.push_blob(&repository(), &descriptor(b"x"), source(b"x"), silent()).await;
    assert_eq!(pushed.unwrap_err().kind, ErrorKind::Denied);
    assert!(origin.log().is_empty(), "{:?}", paths(&origin));
    assert!(pull.resolve(&Repository::parse("other/app").unwrap(), &tag("v1")).await.is_ok());
}

#[tokio::test]
async fn wrong_bytes_of_a_mirror_are_refetched_from_the_registry() {
    let lying = Server::start(|received, _| {
        if received.path.contains("/manifests/") {
            let other = manifest(&[b"other"], "other", None);
            return reply(200, &[("Docker-Content-Digest", &sample().digest.to_string())], &other.raw);
        }
        blob(received, &[b'x'; LAYER.len()])
    });
    let (origin, lying) = (whole().await, lying.await);
    let (pull, _) = Files::hosts(&origin.authority, &[&lying.authority]).open(&origin.authority);
    assert_eq!(pull.manifest(&repository(), &Version::Digest(sample().digest)).await.unwrap().digest, sample().digest);
    // Only a reader of the whole blob can tell.
    assert_ne!(read_layer(&*pull).await.unwrap(), LAYER);
    assert!(pull.report_wrong_bytes(&repository(), &descriptor(LAYER).digest));
    assert_eq!(read_layer(&*pull).await.unwrap(), LAYER);
    assert!(
        !Files::new().open(&origin.authority).0.report_wrong_bytes(&repository(), &descriptor(LAYER).digest),
        "there is no other place"
    );
}

#[tokio::test]
async fn a_broken_transfer_continues_at_the_next_source() {
    let breaking = Server::start(|received, _| {
        if received.path.contains("/blobs/") {
            let length = LAYER.len().to_string();
            return raw(200, &[("Content-Length", &length)], &LAYER[..5]);
        }
        answer(received)
    });
    let (origin, breaking) = (whole().await, breaking.await);
    let (pull, _) = Files::hosts(&origin.authority, &[&breaking.authority]).open(&origin.authority);
    read_all(&*pull).await;
    let ranges: Vec<_> = origin.log().iter().map(|received| received.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [Some(format!("bytes=5-{}", LAYER.len() - 1))]);
}

#[tokio::test]
async fn podman_s_locations_rename_repositories_and_insecure_ones_may_use_plain_http() {
    let (origin, mirror, inside) = (whole().await, whole().await, whole().await);
    let text = format!(
        "[[registry]]\nprefix = \"{}/team\"\nlocation = \"{}/bar/team\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{}/mirrored\"\ninsecure = true\npull-from-mirror = \"tag-only\"\n",
        origin.authority, inside.authority, mirror.authority
    );
    let (pull, own) = Files::conf(&text).open(&origin.authority);
    read_all(&*pull).await;
    assert_eq!(paths(&mirror), ["GET /v2/mirrored/app/manifests/v1"]);
    assert_eq!(paths(&inside), [format!("GET /v2/bar/team/app/blobs/{}", descriptor(LAYER).digest)]);
    assert!(origin.log().is_empty());
    // A writer asks the registry itself.
    own.resolve(&repository(), &tag("v1")).await.unwrap();
    assert_eq!(paths(&origin), ["HEAD /v2/team/app/manifests/v1"]);
}

#[tokio::test]
async fn a_server_on_another_host_decides_absence() {
    let (origin, server, files) = (whole().await, Server::start(|_, _| reply(404, &[], b"")).await, Files::new());
    files.write(&format!("certs.d/{}/hosts.toml", origin.authority), &format!("server = \"http://{}\"\n", server.authority));
    let (pull, _) = files.open(&origin.authority);
    assert_eq!(pull.resolve(&repository(), &tag("v1")).await.unwrap_err().kind, ErrorKind::NotFound);
    assert!(origin.log().is_empty() && server.log().len() == 1);
}

#[tokio::test]
async fn tags_of_a_written_repository_are_resolved_by_the_registry_itself() {
    let (origin, mirror) = (whole().await, whole().await);
    let (pull, _) = Files::hosts(&origin.authority, &[&mirror.authority]).open(&origin.authority);
    pull.report_written(&repository());
    read_all(&*pull).await;
    assert_eq!(paths(&origin), ["GET /v2/team/app/manifests/v1"]);
    assert_eq!(paths(&mirror).len(), 1, "{:?}", paths(&mirror));
}

#[tokio::test]
async fn lists_come_from_the_registry_or_during_an_outage_from_a_mirror() {
    let mirror = whole().await;
    let origin = Server::start(|_, _| reply(200, &[("Content-Type", "application/json")], br#"{"tags":["v1","v2"]}"#)).await;
    let (pull, _) = Files::hosts(&origin.authority, &[&mirror.authority]).open(&origin.authority);
    assert_eq!(pull.tags(&repository(), None).await.unwrap().names, ["v1", "v2"]);
    let gone = closed();
    let (pull, _) = Files::hosts(&gone, &[&mirror.authority]).open(&gone);
    assert_eq!(pull.tags(&repository(), None).await.unwrap().names, ["v1"]);
    assert_eq!(pull.away_since(), None, "a mirror answers");
    let refusing = Server::start(|_, _| reply(404, &[], b"")).await;
    let (pull, _) = Files::hosts(&refusing.authority, &[&mirror.authority]).open(&refusing.authority);
    assert_eq!(pull.tags(&repository(), None).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn host_settings_are_honoured() {
    let (origin, authority, files) = (whole().await, Authority::new(), Files::new());
    let mirror = Server::start_tls(authority.acceptor(Asking::Optional), |received, _| {
        assert!(received.path.starts_with("/art/team/app/"), "{}", received.path);
        assert_eq!(received.header("x-token"), Some("hunter2"));
        answer(received)
    })
    .await;
    let (folder, issued) = (format!("certs.d/{}", origin.authority), authority.issue());
    files.write(&format!("{folder}/ca.pem"), &authority.pem);
    files.write(&format!("{folder}/me.pem"), &format!("{}{}", issued.certificate, issued.key));
    let host = format!(
        "[host.\"https://{}/art\"]\noverride_path = true\nca = \"ca.pem\"\nclient = \"me.pem\"\ndial_timeout = \"5s\"\n\
         [host.\"https://{}/art\".header]\nx-token = \"hunter2\"\n",
        mirror.authority, mirror.authority
    );
    files.write(&format!("{folder}/hosts.toml"), &host);
    read_all(&*files.open(&origin.authority).0).await;
    assert!(origin.log().is_empty() && mirror.log().len() == 2, "{:?} {:?}", paths(&origin), paths(&mirror));
    assert!(mirror.certificates().iter().all(|shown| *shown == issued.der) && !mirror.certificates().is_empty());
    // Without the authority it is not trusted, and passed over; with skip_verify it is reached.
    files.write(&format!("{folder}/hosts.toml"), &host.replace("ca = \"ca.pem\"\n", ""));
    read_all(&*files.open(&origin.authority).0).await;
    assert_eq!((origin.log().len(), mirror.log().len()), (2, 2));
    files.write(&format!("{folder}/hosts.toml"), &host.replace("ca = \"ca.pem\"", "skip_verify = true"));
    read_all(&*files.open(&origin.authority).0).await;
    assert_eq!((origin.log().len(), mirror.log().len()), (2, 4));
}

#[tokio::test]
async fn a_mirror_hanging_during_a_blob_is_abandoned() {
    let hung = Arc::new(AtomicBool::new(false));
    let kept = Arc::clone(&hung);
    let mirror = Server::start(move |received, _| {
        if !received.path.contains("/blobs/") {
            return answer(received);
        }
        kept.store(true, Ordering::Relaxed);
        raw(200, &[("Content-Length", &LAYER.len().to_string())], &LAYER[..5]).then(Part::Hang)
    })
    .await;
    let origin = whole().await;
    let (pull, _) = Files::hosts(&origin.authority, &[&mirror.authority]).open(&origin.authority);
    read_all(&*pull).await;
    assert!(hung.load(Ordering::Relaxed));
}
