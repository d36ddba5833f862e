//! Passed-on logins: who reads what, for how long, and with whose login the upstream is asked.

use std::collections::HashSet;
use std::ops::Range;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;

use super::access::as_user;
use super::files::TITLE;
use super::*;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Manifest, Repository, Version};
use crate::registry::{BlobStream, Credential, Fault, Page, PlainLayer, RequestKind, Resolved};

/// The rules of an upstream, which a test can change.
#[derive(Default)]
struct Rules {
    /// Who may read what; the user without a name stands for everybody.
    readers: HashSet<(&'static str, &'static str)>,
    /// Users with a valid password.
    users: HashSet<&'static str>,
    /// A repository the user may not read looks absent.
    hides: bool,
    /// The upstream does not answer.
    is_away: bool,
    /// Checked logins, and requests by user and repository.
    checks: usize,
    asked: Vec<(String, String)>,
}

/// An upstream that authenticates its users.
#[derive(Clone)]
struct Guarded {
    memory: Arc<Memory>,
    rules: Arc<Mutex<Rules>>,
}

/// The upstream as reached with one login.
struct Door {
    guarded: Guarded,
    user: String,
    is_right: bool,
}

impl Guarded {
    fn new(readers: &[(&'static str, &'static str)]) -> Self {
        let users = ["alice", "bob"].into_iter().collect();
        let rules = Rules { readers: readers.iter().copied().collect(), users, ..Rules::default() };
        Self { memory: memory("memory:guarded"), rules: Arc::new(Mutex::new(rules)) }
    }

    fn setup(&self, ttl: Duration) -> Setup {
        let guarded = self.clone();
        let connect = move |credential| -> Result<Arc<dyn Account>, Error> {
            let (user, is_right) = match credential {
                Credential::Password { user, password } => (user.clone(), password.expose() == format!("{user}-password")),
                _ => (String::new(), true),
            };
            Ok(Arc::new(Door { guarded: guarded.clone(), user, is_right }))
        };
        let pass_credentials = Some(PassCredentials { ttl, connect: Box::new(connect) });
        Setup { pass_credentials, ..Setup::of(&[("up", "reg.example", &self.memory)]) }
    }

    fn requests_of(&self, user: &str) -> Vec<String> {
        self.rules.lock().asked.iter().filter(|(asked, _)| asked == user).map(|(_, repository)| repository.clone()).collect()
    }
}

impl Door {
    fn enter(&self, repository: &Repository) -> Result<(), Error> {
        let mut rules = self.guarded.rules.lock();
        if rules.is_away {
            return Err(Error::new(ErrorKind::Unreachable, "the upstream is away"));
        }
        rules.asked.push((self.user.clone(), repository.to_string()));
        let may = |user: &str| rules.readers.iter().any(|(reader, name)| *reader == user && *name == repository.as_str());
        match self.is_right && (may(&self.user) || may("")) {
            true => Ok(()),
            false if rules.hides => Err(Error::new(ErrorKind::NotFound, "there is no such repository")),
            false => Err(Error::new(ErrorKind::Denied, "this login may not read that")),
        }
    }
}

#[async_trait]
impl Account for Door {
    async fn is_accepted(&self) -> Result<bool, Error> {
        let mut rules = self.guarded.rules.lock();
        rules.checks += 1;
        if rules.is_away {
            return Err(Error::new(ErrorKind::Unreachable, "the upstream is away"));
        }
        match self.is_right && rules.users.contains(self.user.as_str()) {
            true => Ok(true),
            false => Err(Error::new(ErrorKind::Denied, "wrong password")),
        }
    }
}

#[async_trait]
impl Pull for Door {
    fn origin(&self) -> &str {
        self.guarded.memory.origin()
    }

    fn trust(&self) -> Trust {
        Trust::Transport
    }

    async fn ping(&self, _about: Option<&Repository>) -> Result<(), Error> {
        match self.guarded.rules.lock().is_away {
            true => Err(Error::new(ErrorKind::Unreachable, "the upstream is away")),
            false => Ok(()),
        }
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        self.enter(repository)?;
        self.guarded.memory.resolve(repository, version).await
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        self.enter(repository)?;
        self.guarded.memory.manifest(repository, version).await
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        self.enter(repository)?;
        self.guarded.memory.blob(repository, descriptor, range).await
    }

    async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        self.enter(repository)?;
        self.guarded.memory.blob_size(repository, digest).await
    }

    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
        self.enter(repository)?;
        self.guarded.memory.tags(repository, after).await
    }

    async fn repositories(&self, _after: Option<&str>) -> Result<Page, Error> {
        Err(Error::unsupported("no list of repositories"))
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        // The error our client gives for a registry without such a list.
        if self.enter(repository).is_err() {
            return Ok(Vec::new());
        }
        self.guarded.memory.referrers(repository, subject).await
    }
}

const LONG: Duration = Duration::from_secs(3600);

async fn status(server: &TestServer, user: &str, path: &str) -> u16 {
    as_user(server.request(Method::GET, path), user).send().await.unwrap().status().as_u16()
}

/// Two repositories that share one layer and have another one each; and paths of the first.
fn two_repositories(guarded: &Guarded) -> Vec<String> {
    let digest = add_image(&guarded.memory, "a/app", "v1", b"a secret layer");
    guarded.memory.add_blob("a/app", "x/y", &b"shared"[..]);
    add_image(&guarded.memory, "b/app", "v1", b"shared");
    let below = [
        "manifests/v1".to_owned(),
        format!("manifests/{digest}"),
        format!("blobs/{}", Digest::of(b"a secret layer")),
        "tags/list".to_owned(),
        format!("referrers/{digest}"),
        format!("blobs/{}", Digest::of(b"shared")),
    ];
    below.iter().map(|path| format!("/v2/up/a/app/{path}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_s_cached_content_is_not_served_to_another() {
    for hides in [false, true] {
        let guarded = Guarded::new(&[("alice", "a/app"), ("bob", "b/app")]);
        guarded.rules.lock().hides = hides;
        let paths = two_repositories(&guarded);
        let server = guarded.setup(LONG).start().await;
        for path in &paths {
            assert_eq!(status(&server, "alice", path).await, 200, "{path}");
        }
        // Twice: a refusal does not open anything either.
        for path in paths.iter().chain(&paths) {
            assert_eq!(status(&server, "bob", path).await, if hides { 404 } else { 403 }, "{path}");
            assert_eq!(server.get(path).await.status().as_u16(), 401, "{path}");
            let wrong = server.request(Method::GET, path).basic_auth("alice", Some("bob-password")).send().await.unwrap();
            assert_eq!(wrong.status().as_u16(), 401, "{path}");
        }
        // One digest, two repositories.
        let secret = format!("/v2/up/b/app/blobs/{}", Digest::of(b"a secret layer"));
        assert_eq!(status(&server, "bob", &format!("/v2/up/b/app/blobs/{}", Digest::of(b"shared"))).await, 200);
        assert_eq!(status(&server, "bob", &secret).await, 404);
        assert_eq!(status(&server, "bob", &paths[1].replace("/a/app/", "/b/app/")).await, 404);
        assert_eq!(status(&server, "alice", &secret).await, if hides { 404 } else { 403 });
        // Names are not revealed to those who may not read them.
        let listed = as_user(server.request(Method::GET, "/v2/_catalog"), "bob").send().await.unwrap();
        assert_eq!(listed.json::<Value>().await.unwrap()["repositories"], json!(["up/b/app"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_checked_once_and_used_only_for_its_own_requests() {
    let guarded = Guarded::new(&[("alice", "a/app"), ("bob", "b/app")]);
    let paths = two_repositories(&guarded);
    let server = guarded.setup(LONG).start().await;
    for path in paths.iter().chain(&paths) {
        assert_eq!(status(&server, "alice", path).await, 200, "{path}");
    }
    assert_eq!(guarded.rules.lock().checks, 1);
    let asked = guarded.requests_of("alice").len();
    for path in &paths[..3] {
        assert_eq!(status(&server, "alice", path).await, 200);
    }
    assert_eq!(guarded.requests_of("alice").len(), asked, "cached and granted content causes no request");
    status(&server, "bob", "/v2/up/b/app/manifests/v1").await;
    assert_eq!((guarded.requests_of("bob").contains(&"a/app".to_owned()), guarded.requests_of("").len()), (false, 0));
    assert!(guarded.requests_of("alice").iter().all(|repository| repository == "a/app"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_right_ends_when_the_login_expires() {
    let guarded = Guarded::new(&[("alice", "a/app"), ("bob", "a/app")]);
    let paths = two_repositories(&guarded);
    let server = guarded.setup(Duration::from_millis(300)).start().await;
    for user in ["alice", "bob"] {
        for path in &paths {
            assert_eq!(status(&server, user, path).await, 200, "{path}");
        }
    }
    guarded.rules.lock().readers.remove(&("alice", "a/app"));
    for path in &paths {
        while status(&server, "alice", path).await == 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((status(&server, "alice", path).await, status(&server, "bob", path).await), (403, 200), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_ends_when_the_login_expires_and_is_wiped() {
    let guarded = Guarded::new(&[("alice", "a/app")]);
    let paths = two_repositories(&guarded);
    let server = guarded.setup(Duration::from_millis(300)).start().await;
    let idle = Arc::strong_count(&guarded.rules);
    assert_eq!(status(&server, "alice", &paths[0]).await, 200);
    guarded.rules.lock().users.remove("alice");
    while status(&server, "alice", &paths[0]).await == 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status(&server, "alice", &paths[0]).await, 401);
    // Every holder of the password also holds the rules of this upstream.
    while Arc::strong_count(&guarded.rules) > idle {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_refused_meanwhile_gets_nothing_another_one_fetched() {
    let guarded = Guarded::new(&[("alice", "a/app"), ("bob", "a/app")]);
    let paths = two_repositories(&guarded);
    let server = guarded.setup(LONG).start().await;
    for user in ["bob", "alice"] {
        assert_eq!(status(&server, user, &paths[0]).await, 200);
    }
    guarded.rules.lock().readers.remove(&("alice", "a/app"));
    // Not cached yet, so the upstream is asked and refuses.
    for _ in 0..2 {
        assert_eq!(status(&server, "alice", &paths[2]).await, 403);
    }
    assert_eq!(status(&server, "bob", &paths[2]).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn during_an_outage_only_known_logins_are_served() {
    let guarded = Guarded::new(&[("alice", "a/app"), ("bob", "a/app")]);
    let paths = two_repositories(&guarded);
    let server = Setup { tag_ttl: Duration::ZERO, ..guarded.setup(LONG) }.start().await;
    assert_eq!(status(&server, "alice", &paths[0]).await, 200);
    guarded.rules.lock().is_away = true;
    let stale = as_user(server.request(Method::GET, &paths[0]), "alice").send().await.unwrap();
    assert_eq!((stale.status().as_u16(), header(&stale, "warning").is_some()), (200, true));
    assert_eq!(status(&server, "bob", &paths[0]).await, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_clients_read_public_content_where_allowed() {
    for anonymous_pull in [false, true] {
        let guarded = Guarded::new(&[("", "b/app"), ("alice", "a/app")]);
        let paths = two_repositories(&guarded);
        let access = Access { anonymous_pull, ..Access::default() };
        let server = Setup { access, ..guarded.setup(LONG) }.start().await;
        assert_eq!(status(&server, "alice", &paths[0]).await, 200);
        let open = if anonymous_pull { 200 } else { 401 };
        assert_eq!(server.get("/v2/up/b/app/manifests/v1").await.status().as_u16(), open);
        assert_eq!(server.get("/v2/").await.status().as_u16(), open);
        let empty = server.request(Method::GET, "/v2/up/b/app/manifests/v1").basic_auth("", Some("")).send().await.unwrap();
        assert_eq!(empty.status().as_u16(), open);
        for path in &paths {
            let answer = server.get(path).await;
            assert!(header(&answer, "www-authenticate").unwrap().starts_with("Basic realm="));
            assert_eq!(refusal(answer).await, (401, "UNAUTHORIZED".to_owned()), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_wrong_password_reaches_the_upstream_once() {
    let guarded = Guarded::new(&[]);
    let server = guarded.setup(LONG).start().await;
    for _ in 0..5 {
        let answer = server.request(Method::GET, "/v2/").basic_auth("alice", Some("wrong")).send().await.unwrap();
        assert_eq!(refusal(answer).await, (401, "UNAUTHORIZED".to_owned()));
    }
    assert_eq!(guarded.rules.lock().checks, 1);
    assert_eq!(status(&server, "alice", "/v2/").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_upstream_has_rights_in_the_store() {
    let guarded = Guarded::new(&[]);
    let rules = Some(super::Rules::parse("alice: {team: [pull, push]}").unwrap()).into();
    let server = Setup { has_store: true, access: Access { rules, ..Access::default() }, ..guarded.setup(LONG) }.start().await;
    let begin = |user: &'static str| as_user(server.request(Method::POST, "/v2/team/app/blobs/uploads/"), user).send();
    assert_eq!(begin("alice").await.unwrap().status().as_u16(), 202);
    assert_eq!(begin("bob").await.unwrap().status().as_u16(), 403);
    let posing = server.request(Method::POST, "/v2/team/app/blobs/uploads/").basic_auth("alice", Some("bob-password"));
    assert_eq!(posing.send().await.unwrap().status().as_u16(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_response_continues_after_its_login_expires() {
    let guarded = Guarded::new(&[("alice", "a/app")]);
    let data = noise(8 << 20);
    let digest = guarded.memory.add_blob("a/app", "x/y", data.clone()).digest;
    guarded.memory.plan(RequestKind::Blob, 0, 1, Fault::StallAfter(2 << 20));
    let server = guarded.setup(Duration::from_millis(300)).start().await;
    let answer = as_user(server.request(Method::GET, &format!("/v2/up/a/app/blobs/{digest}")), "alice").send().await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    guarded.memory.release();
    assert_eq!(answer.bytes().await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_pages_are_served_only_to_those_the_upstream_admits() {
    let guarded = Guarded::new(&[("alice", "a/app"), ("bob", "b/app")]);
    let layers: &[PlainLayer<'_>] = &[("a/b", b"a secret file", &[(TITLE, "file")])];
    let digest = guarded.memory.add_artifact("a/app", "v1", ("a/b", b"{}"), layers, &[]);
    add_image(&guarded.memory, "b/app", "v1", b"b");
    let server = guarded.setup(LONG).start().await;
    let paths = ["", ":v1/", ":v1/file", ":v1?title=file", &format!("@{digest}/file")].map(|below| format!("/files/up/a/app{below}"));
    for path in &paths {
        assert_eq!(status(&server, "alice", path).await, 200, "{path}");
    }
    for path in &paths {
        assert_eq!((status(&server, "bob", path).await, server.get(path).await.status().as_u16()), (403, 401), "{path}");
    }
    assert_eq!(status(&server, "bob", "/v2/up/b/app/manifests/v1").await, 200);
    let home = as_user(server.request(Method::GET, "/?q=app"), "bob").send().await.unwrap().text().await.unwrap();
    assert!(home.contains("/files/up/b/app") && !home.contains("/files/up/a/app"), "{home}");
}
