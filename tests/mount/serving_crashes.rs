//! Servers killed and disks cut off while clients push: whatever was answered with success is there and whole afterwards.
//!
//! Short by default; `OCIFS_LONG=1` (scripts/check --long) cuts 250 times each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::crashes::disk::Disk;
use super::serving::Running;
use super::support::artifacts::{digest, noise};
use super::support::mounting::Home;
use super::support::skip::{Need, lacks};
use super::support::{is_long, runtime};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Clients that push at the same time, each into a repository of its own.
const CLIENTS: u64 = 3;

/// A manifest that was put, with its tag.
#[derive(Clone)]
struct Tagged {
    repository: String,
    tag: String,
    digest: String,
}

/// An upload in progress: its path, all its bytes, and how many of them the server acknowledged.
#[derive(Clone)]
struct Session {
    location: String,
    bytes: Vec<u8>,
    acknowledged: usize,
}

/// The clients' record of one round.
#[derive(Default)]
struct Record {
    /// Blobs answered with 201: repository and digest.
    blobs: Vec<(String, String)>,
    /// Manifests sent, in order.
    sent: Vec<Tagged>,
    /// Manifests answered with 201, in order.
    accepted: Vec<Tagged>,
    /// The last unfinished upload of each client.
    sessions: Vec<Option<Session>>,
    /// An answer that was neither success nor caused by the cut.
    refused: Option<String>,
}

/// Clients that push until their server is gone.
struct Clients {
    record: Arc<Mutex<Record>>,
    /// The cut comes: errors no longer count.
    cutting: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(base: &str, seed: u64) -> Self {
        let record = Arc::new(Mutex::new(Record { sessions: vec![None; usize::try_from(CLIENTS).unwrap()], ..Record::default() }));
        let cutting = Arc::new(AtomicBool::new(false));
        let tasks = (0..CLIENTS).map(|number| {
            let pusher = Pusher {
                client: client(),
                base: base.to_owned(),
                number,
                repository: format!("app{number}"),
                record: Arc::clone(&record),
                random: StdRng::seed_from_u64(seed * CLIENTS + number),
            };
            let cutting = Arc::clone(&cutting);
            let record = Arc::clone(&record);
            runtime().spawn(async move {
                if let Err(refused) = pusher.push_on(seed).await
                    && !cutting.load(Ordering::SeqCst)
                {
                    record.lock().refused.get_or_insert(refused);
                }
            })
        });
        let tasks = tasks.collect();
        Self { record, cutting, tasks }
    }

    /// Waits until a manifest was accepted: a cut before that would prove nothing.
    fn wait_for_a_manifest(&self) {
        for _ in 0..3000 {
            if !self.record.lock().accepted.is_empty() || self.record.lock().refused.is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no manifest was accepted in half a minute");
    }

    /// Waits for the clients, whose server is gone, and returns what they recorded.
    fn finish(self) -> Record {
        for task in self.tasks {
            runtime().block_on(task).unwrap();
        }
        let record = std::mem::take(&mut *self.record.lock());
        assert!(record.refused.is_none(), "{}", record.refused.unwrap());
        record
    }
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap()
}

/// One client.
struct Pusher {
    client: Client,
    base: String,
    number: u64,
    repository: String,
    record: Arc<Mutex<Record>>,
    random: StdRng,
}

impl Pusher {
    /// Pushes images until a request fails.
    async fn push_on(mut self, seed: u64) -> Result<(), String> {
        for image in 0.. {
            let config = format!("{{\"image\":{image},\"seed\":{seed},\"client\":{}}}", self.number).into_bytes();
            let own = noise(self.random.random(), self.random.random_range(16..200_000));
            // The same bytes from all clients: equal blobs share their bytes across repositories.
            let common = noise(seed * 1000 + image, 50_000);
            for blob in [&config, &own, &common] {
                self.blob(blob, seed).await?;
            }
            let describe = |bytes: &[u8], kind: &str| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": describe(&config, "application/vnd.oci.image.config.v1+json"),
                "layers": [describe(&own, "application/octet-stream"), describe(&common, "application/octet-stream")],
            });
            let body = serde_json::to_vec(&manifest).unwrap();
            let put = Tagged { repository: self.repository.clone(), tag: format!("t{}", image % 3), digest: digest(&body) };
            self.record.lock().sent.push(put.clone());
            let path = format!("/v2/{}/manifests/{}", put.repository, put.tag);
            self.send(Method::PUT, &path, &[("content-type", MANIFEST)], body, StatusCode::CREATED).await?;
            self.record.lock().accepted.push(put);
        }
        Ok(())
    }

    /// Uploads a blob in one of the ways the specification has.
    async fn blob(&mut self, bytes: &[u8], seed: u64) -> Result<(), String> {
        let (digest, uploads) = (digest(bytes), format!("/v2/{}/blobs/uploads/", self.repository));
        let way = self.random.random_range(0..4);
        let begun = if way == 0 {
            let other = (self.number + seed) % CLIENTS;
            let answer = self.request(Method::POST, &format!("{uploads}?mount={digest}&from=app{other}"), &[], Vec::new()).await?;
            if answer.status() == StatusCode::CREATED {
                self.record.lock().blobs.push((self.repository.clone(), digest));
                return Ok(());
            }
            accepted(answer, StatusCode::ACCEPTED)?
        } else {
            self.send(Method::POST, &uploads, &[], Vec::new(), StatusCode::ACCEPTED).await?
        };
        let mut location = location(&begun);
        let mut rest = bytes;
        if way > 1 {
            let half = bytes.len() / 2;
            let mut session = Session { location: location.clone(), bytes: bytes.to_vec(), acknowledged: 0 };
            self.note(Some(session.clone()));
            let range = format!("0-{}", half.max(1) - 1);
            let headers = [("content-range", range.as_str()), ("content-type", "application/octet-stream")];
            if half > 0 {
                let patched = self.send(Method::PATCH, &location, &headers, bytes[..half].to_vec(), StatusCode::ACCEPTED).await?;
                location = self::location(&patched);
                session = Session { location: location.clone(), acknowledged: half, ..session };
                self.note(Some(session));
                rest = &bytes[half..];
            }
        }
        let end = format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' });
        let headers = [("content-type", "application/octet-stream")];
        self.send(Method::PUT, &end, &headers, rest.to_vec(), StatusCode::CREATED).await?;
        self.note(None);
        self.record.lock().blobs.push((self.repository.clone(), digest));
        Ok(())
    }

    fn note(&self, session: Option<Session>) {
        self.record.lock().sessions[usize::try_from(self.number).unwrap()] = session;
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>, due: StatusCode) -> Result<Response, String> {
        accepted(self.request(method, path, headers, body).await?, due)
    }

    async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Response, String> {
        request(&self.client, &self.base, method, path, headers, body).await
    }
}

async fn request(
    client: &Client,
    base: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Response, String> {
    let what = format!("{method} {path}");
    let mut request = client.request(method, format!("{base}{path}")).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.map_err(|error| format!("{what}: {error:?}"))
}

fn accepted(answer: Response, due: StatusCode) -> Result<Response, String> {
    if answer.status() == due { Ok(answer) } else { Err(format!("{} answered {}, not {due}", answer.url(), answer.status())) }
}

fn location(answer: &Response) -> String {
    answer.headers()["location"].to_str().unwrap().to_owned()
}

/// The state of an upload that a cut interrupted.
#[derive(PartialEq)]
enum Upload {
    Resumed,
    Complete,
    Forgotten,
}

/// Checks a server that was started again.
struct Checker {
    client: Client,
    base: String,
}

impl Checker {
    async fn get(&self, path: &str) -> (StatusCode, Vec<u8>) {
        let answer = request(&self.client, &self.base, Method::GET, path, &[("accept", MANIFEST)], Vec::new()).await.unwrap();
        let status = answer.status();
        (status, answer.bytes().await.unwrap_or_else(|error| panic!("GET {path}: {error:?}")).to_vec())
    }

    async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "GET {path}");
        serde_json::from_slice(&body).unwrap()
    }

    /// The body of a blob or manifest, which must be there and have its digest.
    async fn whole(&self, repository: &str, kind: &str, wanted: &str) -> Vec<u8> {
        let path = format!("/v2/{repository}/{kind}/{wanted}");
        let (status, body) = self.get(&path).await;
        assert_eq!(status, StatusCode::OK, "GET {path}");
        assert_eq!(digest(&body), wanted, "GET {path}");
        body
    }

    async fn manifest_is_whole(&self, repository: &str, wanted: &str) {
        let manifest: Value = serde_json::from_slice(&self.whole(repository, "manifests", wanted).await).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        for descriptor in layers.chain([&manifest["config"]]) {
            self.whole(repository, "blobs", descriptor["digest"].as_str().unwrap()).await;
        }
    }

    /// Everything that was answered with success, and every tag that is listed, whatever was answered.
    async fn nothing_accepted_is_lost(&self, record: &Record) {
        for (repository, digest) in &record.blobs {
            self.whole(repository, "blobs", digest).await;
        }
        for accepted in &record.accepted {
            self.manifest_is_whole(&accepted.repository, &accepted.digest).await;
            self.tag_is_new_enough(record, accepted).await;
        }
        for repository in self.json("/v2/_catalog").await["repositories"].as_array().unwrap() {
            let repository = repository.as_str().unwrap();
            for tag in self.json(&format!("/v2/{repository}/tags/list")).await["tags"].as_array().into_iter().flatten() {
                let (status, body) = self.get(&format!("/v2/{repository}/manifests/{}", tag.as_str().unwrap())).await;
                assert_eq!(status, StatusCode::OK, "{repository}:{tag} is listed");
                self.manifest_is_whole(repository, &digest(&body)).await;
            }
        }
    }

    /// A tag names the manifest that was accepted last, or one that was sent after it.
    async fn tag_is_new_enough(&self, record: &Record, accepted: &Tagged) {
        let (status, body) = self.get(&format!("/v2/{}/manifests/{}", accepted.repository, accepted.tag)).await;
        assert_eq!(status, StatusCode::OK, "{}:{}", accepted.repository, accepted.tag);
        let same = |other: &&Tagged| other.repository == accepted.repository && other.tag == accepted.tag;
        let mut later = record.sent.iter().filter(same).skip_while(|sent| sent.digest != accepted.digest);
        assert!(later.any(|sent| sent.digest == digest(&body)), "{}:{} went back", accepted.repository, accepted.tag);
    }

    /// An upload goes on where the server says it is, unless it was completed unheard.
    async fn upload_goes_on(&self, session: &Session) -> Upload {
        let known = request(&self.client, &self.base, Method::GET, &session.location, &[], Vec::new()).await.unwrap();
        let (wanted, repository) = (digest(&session.bytes), session.location.split('/').nth(2).unwrap());
        if known.status() == StatusCode::NOT_FOUND {
            let blob = format!("/v2/{repository}/blobs/{wanted}");
            return if self.get(&blob).await.0 == StatusCode::OK { Upload::Complete } else { Upload::Forgotten };
        }
        assert_eq!(known.status(), StatusCode::NO_CONTENT);
        let range = known.headers()["range"].to_str().unwrap().to_owned();
        let last: usize = range.strip_prefix("0-").and_then(|last| last.parse().ok()).unwrap_or_else(|| panic!("range {range}"));
        // "0-0" stands for nothing and for one byte; the session began empty, so it may be either.
        let arrived = if last == 0 { 0 } else { last + 1 };
        assert!(arrived <= session.bytes.len(), "{range} of {} bytes", session.bytes.len());
        let path = format!("{}{}digest={wanted}", session.location, if session.location.contains('?') { '&' } else { '?' });
        let rest = session.bytes[arrived..].to_vec();
        let put = request(&self.client, &self.base, Method::PUT, &path, &[("content-type", "application/octet-stream")], rest).await;
        let put = put.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED, "resumed at {arrived} of {}", session.bytes.len());
        self.whole(repository, "blobs", &wanted).await;
        Upload::Resumed
    }
}

/// Cuts a server off `rounds` times and checks after each. `cut` ends it for good.
fn cut_off(home: &Home, seeds: std::ops::Range<u64>, cut: &dyn Fn(Running), power: bool) {
    let (mut manifests, mut resumed) = (0, 0);
    let store = home.path("store");
    let arguments = ["--listen", "127.0.0.1:0", "--store", store.to_str().unwrap()];
    for seed in seeds.clone() {
        let mut random = StdRng::seed_from_u64(seed);
        let server = Running::start(home, &arguments);
        let clients = Clients::start(server.base(), seed);
        clients.wait_for_a_manifest();
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        clients.cutting.store(true, Ordering::SeqCst);
        cut(server);
        let record = clients.finish();
        let server = Running::start(home, &arguments);
        let checker = Checker { client: client(), base: server.base().to_owned() };
        runtime().block_on(async {
            checker.nothing_accepted_is_lost(&record).await;
            for session in record.sessions.iter().flatten() {
                let upload = checker.upload_goes_on(session).await;
                assert!(upload != Upload::Forgotten || power || session.acknowledged == 0, "an upload was forgotten in round {seed}");
                resumed += u64::from(upload == Upload::Resumed);
            }
        });
        manifests += record.accepted.len() as u64;
        server.ends_well();
    }
    println!("{} cuts, {manifests} manifests accepted, {resumed} uploads resumed", seeds.end - seeds.start);
    // A power cut may take an unfinished upload with it.
    assert!(manifests >= seeds.end - seeds.start && (resumed > 0 || power), "{manifests} manifests, {resumed} uploads resumed");
}

/// How often.
fn rounds(short: u64) -> u64 {
    if is_long() { 250 } else { short }
}

#[test]
fn a_server_killed_while_clients_push_keeps_everything_it_accepted() {
    let home = Home::new();
    cut_off(&home, 0..rounds(8), &|server| drop(server), false);
}

#[test]
fn a_power_cut_while_clients_push_keeps_everything_the_server_accepted() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("mkfs.ext4"), Need::Tool("losetup")]) {
        return;
    }
    let home = Home::new();
    std::fs::create_dir(home.path("store")).unwrap();
    let disk = Disk::new(&home, "store", 2048);
    let cut = |server: Running| {
        disk.cut();
        drop(server);
        disk.power_up();
    };
    cut_off(&home, 1000..1000 + rounds(6), &cut, true);
}
