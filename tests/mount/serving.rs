//! `ocifs serve` as a program: signals, the service manager, the configuration file, passed-on logins and full disks.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use reqwest::{Method, Response};

use super::staging_faults::SmallDisk;
use super::support::artifacts::noise;
use super::support::mounting::Home;
use super::support::registry::{PASSWORD, Registry, USER, Variant};
use super::support::runtime;
use super::support::skip::{Need, lacks};

/// A server that is killed when it is dropped.
pub struct Running {
    process: Child,
    /// `http://HOST:PORT`.
    pub base: String,
}

impl Running {
    /// Starts `ocifs serve` and waits until it listens.
    pub fn start(home: &Home, arguments: &[&str]) -> Self {
        Self::spawn(program(home), arguments)
    }

    fn spawn(mut command: Command, arguments: &[&str]) -> Self {
        let mut process = command.arg("serve").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let base = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("the server does not listen: {line}")).to_owned();
        Self { process, base }
    }

    /// Scheme, address and port.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn request(&self, method: Method, path: &str, login: Option<(&str, &str)>, body: Vec<u8>) -> Response {
        runtime().block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let mut request = client.request(method, format!("{}{path}", self.base)).body(body);
            if let Some((user, password)) = login {
                request = request.basic_auth(user, Some(password));
            }
            request.send().await.unwrap()
        })
    }

    fn status(&self, path: &str, login: Option<(&str, &str)>) -> u16 {
        self.request(Method::GET, path, login, Vec::new()).status().as_u16()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn ends_well(mut self) {
        self.signal(rustix::process::Signal::TERM);
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program itself, not a wrapper, so that signals and descriptors reach it.
fn program(home: &Home) -> Command {
    in_home(home, Command::new(env!("CARGO_BIN_EXE_ocifs")))
}

fn in_home(home: &Home, mut command: Command) -> Command {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home.path(""));
    for (variable, name) in [("XDG_CACHE_HOME", "cache"), ("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config")] {
        command.env(variable, home.path(name));
    }
    command.stdin(Stdio::null());
    command
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_service_manager_is_notified_and_sighup_rereads_the_rules() {
    let home = Home::new();
    let (manager, store) = (UnixDatagram::bind(home.path("notify")).unwrap(), home.path("store"));
    let rules = home.write("rules.yaml", "'*': {open: [push]}\n");
    let told = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };
    let mut command = program(&home);
    command.env("NOTIFY_SOCKET", home.path("notify"));
    let server = Running::spawn(command, &["--listen", "127.0.0.1:0", "--store", text(&store), "--access", text(&rules)]);
    assert_eq!(told(), "READY=1");
    let push =
        |repository: &str| server.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), None, Vec::new()).status().as_u16();
    assert_eq!((push("open"), push("other")), (202, 403));
    home.write("rules.yaml", "'*': {other: [push]}\n");
    server.signal(rustix::process::Signal::HUP);
    assert_eq!((told(), told()), ("RELOADING=1".to_owned(), "READY=1".to_owned()));
    assert_eq!((push("open"), push("other")), (403, 202));
    // Unreadable rules change nothing.
    home.write("rules.yaml", "'*': {other: [all]}\n");
    server.signal(rustix::process::Signal::HUP);
    assert_eq!((told(), told()), ("RELOADING=1".to_owned(), "READY=1".to_owned()));
    assert_eq!((push("open"), push("other")), (403, 202));
    server.ends_well();
    assert_eq!(told(), "STOPPING=1");
}

#[test]
fn a_hangup_reads_the_upstreams_again() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let home = Home::new();
    let registry = Registry::start(Variant { tls: true, ..Variant::default() });
    let (other, manifest) = (Registry::plain(), "/v2/up/team/app/manifests/v1");
    home.write("data/file", "content\n");
    registry.writing(|url| {
        let reference = format!("{}/team/app:v1", url.strip_prefix("http://").unwrap());
        assert!(home.run(&["push", &reference, text(&home.path("data"))]).status.success());
    });
    let manager = UnixDatagram::bind(home.path("notify")).unwrap();
    let told = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };
    let upstream = |host: &str| format!("serve:\n  listen: 127.0.0.1:0\n  upstream: [up={host}]\n");
    let reached = |how: &str| format!("registries:\n  {}:\n    plain-http: false\n{how}", registry.host());
    let trusted = reached(&format!("    ca-file: {}\n", text(&registry.ca_file())));
    let file = home.write("serve.yaml", upstream(&registry.host()) + &reached(""));
    let mut command = program(&home);
    command.env("NOTIFY_SOCKET", home.path("notify"));
    let server = Running::spawn(command, &["--config", text(&file)]);
    assert_eq!(told(), "READY=1");
    let hang_up = |content: String| {
        home.write("serve.yaml", content);
        server.signal(rustix::process::Signal::HUP);
        assert_eq!((told(), told()), ("RELOADING=1".to_owned(), "READY=1".to_owned()));
        server.status(manifest, None)
    };
    assert_eq!(server.status(manifest, None) / 100, 5);
    assert_eq!(hang_up(upstream(&registry.host()) + &trusted), 200);
    // A mistake changes nothing.
    assert_eq!(hang_up(upstream("bad host")), 200);
    assert_eq!(hang_up("serve:\n  upstrem: []\n".to_owned()), 200);
    assert_eq!(hang_up(upstream(&other.host())), 404);
    assert_eq!(server.status("/v2/new/team/app/manifests/v1", None), 404);
    assert_eq!(hang_up(upstream(&registry.host()).replace("up=", "new=") + &trusted), 404);
    assert_eq!(server.status("/v2/new/team/app/manifests/v1", None), 200);
    let metrics = server.request(Method::GET, "/metrics", None, Vec::new());
    let metrics = runtime().block_on(metrics.text()).unwrap();
    assert!(["up", "new"].iter().all(|prefix| metrics.contains(&format!("upstream=\"{prefix}\""))), "{metrics}");
    server.ends_well();
}

/// Listens, then executes the program with that socket, as systemd does.
const ACTIVATE: &str = "use Socket; use POSIX (); $^F = 10; socket(S, PF_INET, SOCK_STREAM, 0) or die; \
    bind(S, sockaddr_in(0, inet_aton($ENV{ADDRESS}))) or die; listen(S, 8) or die; POSIX::dup2(fileno(S), 3) or die; \
    $ENV{LISTEN_PID} = $$; $ENV{LISTEN_FDS} = 1; exec @ARGV or die";

fn activated(home: &Home, address: &str) -> Command {
    let mut command = in_home(home, Command::new("perl"));
    command.env("ADDRESS", address).args(["-e", ACTIVATE, env!("CARGO_BIN_EXE_ocifs")]);
    command
}

#[test]
fn a_socket_of_the_service_manager_is_served_under_the_rules_of_its_address() {
    let (home, store) = (Home::new(), Home::new());
    let server = Running::spawn(activated(&home, "127.0.0.1"), &["--listen", "192.0.2.1:1", "--store", text(&store.path("store"))]);
    assert_eq!(server.status("/v2/", None), 200);
    server.ends_well();
    // Other machines can reach this one, whatever --listen says.
    let output =
        activated(&home, "0.0.0.0").args(["serve", "--listen", "127.0.0.1:0", "--store", text(&store.path("store"))]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("can be reached from other machines"));
}

#[test]
fn the_configuration_section_configures_the_server() {
    let home = Home::new();
    home.write("htpasswd", "");
    let file = home.write("serve.yaml", "serve:\n  listen: 127.0.0.1:0\n  store: registry\n  read-only: true\n");
    let server = Running::start(&home, &["--config", text(&file)]);
    assert_eq!(server.request(Method::POST, "/v2/app/blobs/uploads/", None, Vec::new()).status().as_u16(), 405);
    assert!(home.path("registry/_uploads").is_dir());
    server.ends_well();
    for (settings, word) in [
        ("upstream: [up=localhost:1]\n  pass-credentials: true\n  htpasswd: htpasswd", "either --htpasswd or --pass-credentials"),
        ("upstream: [a=localhost:1, b=localhost:2]\n  pass-credentials: true", "exactly one --upstream"),
        ("store: registry\n  tls-cert: cert.pem", "a certificate needs its key"),
        ("listen: 0.0.0.0:0\n  store: registry\n  plain-http: true", "--htpasswd or --pass-credentials, or --anonymous pull"),
    ] {
        let file = home.write("bad.yaml", format!("serve:\n  {settings}\n"));
        let output = home.run(&["serve", "--config", text(&file)]);
        assert_eq!(output.status.code(), Some(2), "{settings}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{settings}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_client_s_login_reaches_the_upstream_s_token_server_and_ours_does_not() {
    let (home, registry) = (Home::new(), Registry::start(Variant { tokens: true, ..Variant::default() }));
    let ours = super::support::stored_login(&registry.host(), USER, PASSWORD);
    home.write_private(".docker/config.json", ours);
    registry.writing(|url| {
        let location = format!("{}/team/app", url.strip_prefix("http://").unwrap());
        home.write("data/file", "content\n");
        let pushed = home.run(&["push", &format!("{location}:v1"), text(&home.path("data"))]);
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    });
    let (host, path) = (registry.host(), "/v2/up/team/app/manifests/v1");
    let arguments = ["--listen", "127.0.0.1:0", "--upstream", &format!("up={host}"), "--pass-credentials"];
    // A token server on another port gets no login unless it is known to belong to the upstream.
    let server = Running::start(&home, &arguments);
    assert_eq!(server.status(path, Some((USER, PASSWORD))), 401);
    assert!(registry.tokens().requests().iter().all(|request| !request.authenticated), "a login went to another origin");
    server.ends_well();
    let realm = registry.tokens().realm();
    let realm = realm.strip_suffix("/token").unwrap();
    home.write("config/ocifs/config.yaml", format!("registries:\n  {host}:\n    trusted-realm: [{realm}]\n"));
    let server = Running::start(&home, &arguments);
    assert_eq!((server.status(path, None), server.status("/v2/", None)), (401, 401));
    assert_eq!(server.status(path, Some((USER, "wrong"))), 401);
    assert!(registry.tokens().requests().iter().all(|request| !request.authenticated), "our own login was used");
    assert_eq!((server.status("/v2/", Some((USER, PASSWORD))), server.status(path, Some((USER, PASSWORD)))), (200, 200));
    let scopes: Vec<String> =
        registry.tokens().requests().into_iter().filter(|request| request.authenticated).flat_map(|request| request.scopes).collect();
    assert!(scopes.contains(&"repository:team/app:pull".to_owned()), "{scopes:?}");
    // Cached by now, but still not served to others.
    assert_eq!((server.status(path, None), server.status(path, Some((USER, "wrong2")))), (401, 401));
    server.ends_well();
}

#[test]
fn a_full_disk_refuses_the_upload_and_leaves_the_rest_alone() {
    if lacks(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    std::fs::create_dir(home.path("store")).unwrap();
    let _disk = SmallDisk::over(home.path("store"), "8m");
    let server = Running::start(&home, &["--listen", "127.0.0.1:0", "--store", text(&home.path("store"))]);
    let begin = || {
        let begun = server.request(Method::POST, "/v2/app/blobs/uploads/", None, Vec::new());
        begun.headers()["location"].to_str().unwrap().to_owned()
    };
    let location = begin();
    let answers = (0..16).map(|number| server.request(Method::PATCH, &location, None, noise(number, 1 << 20)));
    let full = answers.into_iter().find(|answer| answer.status().as_u16() != 202).expect("the disk never filled");
    assert_eq!(full.status().as_u16(), 507);
    let body = runtime().block_on(full.text()).unwrap();
    assert!(body.starts_with("{\"errors\":") && !body.contains(text(&home.path(""))), "{body}");
    // Content that arrived before is still there, and reading works.
    let kept = server.request(Method::GET, &location, None, Vec::new());
    assert_eq!(kept.status().as_u16(), 204);
    assert_eq!(server.status("/readyz", None), 200);
    assert_eq!(server.request(Method::DELETE, &location, None, Vec::new()).status().as_u16(), 204);
    let put = format!("{}?digest=sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", begin());
    assert_eq!(server.request(Method::PUT, &put, None, b"foo".to_vec()).status().as_u16(), 201);
    server.ends_well();
}
