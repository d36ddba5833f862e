//! A malicious registry that tries to obtain another host's secrets, or to make its client use that client's certificate there: every lure, for
//! every kind of secret, in every operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::authority::{Asking, Authority, keep};
use super::scripted::{Part, Received, Reply, Server, reply};
use super::writable::{FULL, Writable};
use super::writing::{descriptor, manifest, name, silent, source};
use super::{client_with, collect, repository, small_requests, tag};
use crate::error::Error;
use crate::oci::{Digest, Manifest};
use crate::registry::{HttpRegistry, Pull, Push, Tls};

const PASSWORD: &str = "hunter2";
const STORED: &str = "stored-bearer";
const IDENTITY: &str = "identity-refresh";
const ISSUED: &str = "issued-at-home";
const SMALL: &[u8] = b"small";

/// The client's credentials for the registry.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Secret {
    Password,
    /// A token that the registry's own token server issues for the password.
    IssuedToken,
    StoredToken,
    IdentityToken,
    /// Only the client certificate, which the other cases have too.
    Certificate,
}

/// How the registry points elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lure {
    Realm,
    Redirect(u16),
    Location,
    Link,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Manifest,
    Blob,
    Tags,
    Referrers,
    Upload,
    Chunks,
    PutManifest,
    DeleteTag,
}

const SECRETS: [Secret; 5] = [Secret::Password, Secret::IssuedToken, Secret::StoredToken, Secret::IdentityToken, Secret::Certificate];
const READS: [Operation; 4] = [Operation::Manifest, Operation::Blob, Operation::Tags, Operation::Referrers];
const WRITES: [Operation; 4] = [Operation::Upload, Operation::Chunks, Operation::PutManifest, Operation::DeleteTag];
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

fn encoded() -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("me:{PASSWORD}"))
}

impl Secret {
    fn stored(self, authority: &str) -> Value {
        let entry = match self {
            Self::Password | Self::IssuedToken => json!({"auth": encoded()}),
            Self::StoredToken => json!({"registrytoken": STORED}),
            Self::IdentityToken => json!({"identitytoken": IDENTITY}),
            Self::Certificate => return json!({}),
        };
        json!({"auths": {authority: entry}})
    }

    /// The header that grants access; `None` if the registry is open.
    fn opens(self) -> Option<String> {
        match self {
            Self::Password => Some(format!("Basic {}", encoded())),
            Self::IssuedToken | Self::IdentityToken => Some(format!("Bearer {ISSUED}")),
            Self::StoredToken => Some(format!("Bearer {STORED}")),
            Self::Certificate => None,
        }
    }
}

fn large() -> Vec<u8> {
    (0..2500u32).map(|number| (number % 251) as u8).collect()
}

fn first() -> Manifest {
    manifest(&[SMALL], "first", None)
}

async fn run(client: &HttpRegistry, operation: Operation) -> Result<(), Error> {
    let repository = repository();
    match operation {
        Operation::Manifest => client.manifest(&repository, &tag("v1")).await.map(drop),
        Operation::Blob => collect(client.blob(&repository, &descriptor(SMALL), 0..5).await?).await.map(drop),
        Operation::Tags => match client.tags(&repository, None).await?.next {
            Some(next) => client.tags(&repository, Some(&next)).await.map(drop),
            None => Ok(()),
        },
        Operation::Referrers => client.referrers(&repository, &first().digest).await.map(drop),
        Operation::Upload => client.push_blob(&repository, &descriptor(b"new"), source(b"new"), silent()).await,
        Operation::Chunks => client.push_blob(&repository, &descriptor(&large()), source(&large()), silent()).await,
        Operation::PutManifest => client.push_manifest(&repository, &tag("v2"), &manifest(&[SMALL], "second", None)).await,
        Operation::DeleteTag => client.delete_tag(&repository, &name("v1"), &first().digest).await.map(drop),
    }
}

/// A registry that holds `v1`.
fn filled() -> Writable {
    let registry = Writable::new(FULL);
    {
        let mut held = registry.held.lock();
        let (place, manifest) = ("team/app".to_owned(), first());
        held.blobs.insert((place.clone(), Digest::of(SMALL).to_string()), SMALL.to_vec());
        held.tags.insert((place.clone(), "v1".to_owned()), manifest.digest.to_string());
        held.manifests.insert((place, manifest.digest.to_string()), manifest.raw.to_vec());
    }
    registry
}

/// The response with one header replaced.
fn with_header(answer: Reply, name: &str, value: &str) -> Reply {
    let Some(Part::Send(bytes)) = answer.0.first() else { panic!("an answer has a head") };
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let kept: Vec<&str> = head.split("\r\n").filter(|line| !line.starts_with(&format!("{name}: "))).collect();
    let mut changed = format!("{}\r\n{name}: {value}\r\n\r\n", kept.join("\r\n")).into_bytes();
    changed.extend_from_slice(&bytes[end + 4..]);
    Reply(vec![Part::Send(changed)])
}

/// The registry, the host it points to, and what this machine keeps for both.
struct Scene {
    home: Server,
    stranger: Server,
    offered: Arc<AtomicUsize>,
    folder: TempDir,
    /// The client certificates for both.
    own: Vec<u8>,
    theirs: Vec<u8>,
}

impl Scene {
    async fn new(secret: Secret, lure: Lure, writes: bool) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let registry = filled();
        let copy = Writable { held: Arc::clone(&registry.held), ..registry };
        let stranger =
            Server::start_tls(authority.acceptor(Asking::Optional), move |request, _| match request.path.starts_with("/token") {
                true => reply(200, &[], br#"{"token":"stranger"}"#),
                false => copy.answer(request),
            })
            .await;
        let (away, offered) = (format!("https://{}", stranger.authority), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&offered);
        let home = Server::start_tls(authority.acceptor(Asking::Optional), move |request, _| {
            let answer = answer(&registry, request, secret, lure, writes, &away);
            if matches!(answer.0.first(), Some(Part::Send(bytes)) if String::from_utf8_lossy(bytes).contains(&away)) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            answer
        })
        .await;
        let (own, theirs) = (authority.issue(), authority.issue());
        keep(folder.path(), &home.authority, &authority, &own);
        keep(folder.path(), &stranger.authority, &authority, &theirs);
        Self { home, stranger, offered, folder, own: own.der, theirs: theirs.der }
    }

    fn client(&self, secret: Secret, trusted_realms: Vec<String>) -> HttpRegistry {
        client_with(&self.home.authority, &self.folder, &secret.stored(&self.home.authority), |config| {
            config.plain_http = Some(false);
            config.tls = Tls { directories: vec![self.folder.path().to_owned()], ..Tls::default() };
            config.timing.retries = 1;
            config.trusted_realms = trusted_realms;
            small_requests(config);
        })
    }

    /// The stranger received no secret, and the registry only its own.
    fn check(&self, case: &str) {
        for request in self.stranger.log() {
            let text = format!("{request:?}");
            assert!(!request.headers.contains_key("authorization"), "{case}: {text}");
            for needle in [PASSWORD, STORED, IDENTITY, ISSUED, &encoded()] {
                assert!(!text.contains(needle), "{case}: {text}");
            }
        }
        assert_eq!(self.stranger.certificates(), Vec::<Vec<u8>>::new(), "{case}");
        let shown = self.home.certificates();
        assert!(!shown.is_empty() && shown.iter().all(|shown| *shown == self.own), "{case}");
    }
}

/// The registry's responses.
fn answer(registry: &Writable, request: &Received, secret: Secret, lure: Lure, writes: bool, away: &str) -> Reply {
    let place = |host: &str| format!("{host}{}", request.path);
    let home = format!("https://{}", request.header("host").unwrap());
    if request.path.starts_with("/token") {
        return reply(200, &[], json!({"token": ISSUED}).to_string().as_bytes());
    }
    let given = request.header("authorization");
    let challenge = |text: String| reply(401, &[("WWW-Authenticate", &text)], b"");
    match (lure, secret) {
        (Lure::Realm, _) if given == Some("Bearer stranger") => {}
        (Lure::Realm, _) => return challenge(format!(r#"Bearer realm="{away}/token",service="reg""#)),
        (_, Secret::Password) if given != secret.opens().as_deref() => return challenge(r#"Basic realm="x""#.to_owned()),
        _ if given != secret.opens().as_deref() => return challenge(format!(r#"Bearer realm="{home}/token",service="reg""#)),
        _ => {}
    }
    let is_write = !matches!(request.method.as_str(), "GET" | "HEAD");
    match lure {
        Lure::Redirect(status) if is_write == writes => reply(status, &[("Location", &place(away))], b""),
        Lure::Location if is_write == writes => {
            let answer = registry.answer(request);
            let session = registry.held.lock().opened;
            let target =
                if request.method == "POST" { format!("{away}/v2/team/app/blobs/uploads/s{session}?_state=a%2Bb") } else { place(away) };
            with_header(answer, "Location", &target)
        }
        Lure::Link => with_header(registry.answer(request), "Link", &format!(r#"<{}>; rel="next""#, place(away))),
        _ => registry.answer(request),
    }
}

async fn table(operations: &[Operation], lures: &[Lure], reached: impl Fn(Operation, Lure) -> Option<bool>) {
    for secret in SECRETS {
        for &lure in lures {
            for &operation in operations {
                let case = format!("{operation:?}, {lure:?}, {secret:?}");
                let scene = Scene::new(secret, lure, WRITES.contains(&operation)).await;
                let ended = run(&scene.client(secret, Vec::new()), operation).await;
                scene.check(&case);
                assert!(scene.offered.load(Ordering::SeqCst) > 0, "{case}: {ended:?}");
                if let Some(reached) = reached(operation, lure) {
                    assert_eq!(!scene.stranger.log().is_empty(), reached, "{case}: {ended:?}");
                }
                if lure != Lure::Realm && secret.opens().is_some() {
                    let opens = secret.opens();
                    assert!(scene.home.log().iter().any(|request| request.header("authorization") == opens.as_deref()), "{case}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_follow_redirects_without_secrets() {
    table(&READS, &REDIRECTS.map(Lure::Redirect), |_, _| Some(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_follow_no_other_pointers_to_other_hosts() {
    table(&READS, &[Lure::Location, Lure::Link], |_, _| Some(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_follow_no_redirect_to_another_host() {
    table(&WRITES, &REDIRECTS.map(Lure::Redirect), |_, _| Some(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_blob_bytes_follow_a_location_elsewhere_without_secrets() {
    let uploads = [Operation::Upload, Operation::Chunks];
    table(&WRITES, &[Lure::Location], |operation, _| Some(uploads.contains(&operation))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_of_another_host_sees_nothing_secret() {
    table(&[READS, WRITES].concat(), &[Lure::Realm], |_, _| None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_token_server_gets_password_and_certificate_only_for_tokens() {
    let scene = Scene::new(Secret::Password, Lure::Realm, false).await;
    let trusted = vec![format!("https://{}", scene.stranger.authority)];
    run(&scene.client(Secret::Password, trusted.clone()), Operation::Tags).await.unwrap();
    let asked = scene.stranger.log();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.header("authorization") == Secret::Password.opens().as_deref()));
    assert!(scene.stranger.certificates().iter().all(|shown| *shown == scene.theirs) && !scene.stranger.certificates().is_empty());
    // For anything but tokens it is treated as a stranger.
    let scene = Scene::new(Secret::Password, Lure::Redirect(307), false).await;
    let trusted = vec![format!("https://{}", scene.stranger.authority)];
    run(&scene.client(Secret::Password, trusted), Operation::Tags).await.unwrap();
    scene.check("redirected to a trusted token server");
    assert!(!scene.stranger.log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_back_to_the_registry_sends_no_certificate() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let back: Arc<std::sync::OnceLock<String>> = Arc::default();
    let target = Arc::clone(&back);
    let stranger =
        Server::start_tls(authority.acceptor(Asking::Optional), move |_, _| reply(307, &[("Location", target.get().unwrap())], b"")).await;
    let away = format!("https://{}/", stranger.authority);
    let home = Server::start_tls(authority.acceptor(Asking::Optional), move |request, _| match request.path.as_str() {
        "/back" => reply(200, &[], br#"{"tags":[]}"#),
        _ => reply(307, &[("Location", &away)], b""),
    })
    .await;
    back.set(format!("https://{}/back", home.authority)).unwrap();
    keep(folder.path(), &home.authority, &authority, &authority.issue());
    keep(folder.path(), &stranger.authority, &authority, &authority.issue());
    let client = client_with(&home.authority, &folder, &json!({}), |config| {
        config.plain_http = Some(false);
        config.tls = Tls { directories: vec![folder.path().to_owned()], ..Tls::default() };
    });
    run(&client, Operation::Tags).await.unwrap();
    assert_eq!((home.log().len(), home.certificates().len(), stranger.certificates().len()), (2, 1, 0));
}
