//! Debian's docker-registry on a free loopback port, with its own storage, in the variants users meet. It is ready when `start` returns and gone
//! when the value is dropped.

use super::tokens::TokenServer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// User and password of the variants with a login.
pub const USER: &str = "tester";
/// See [`USER`].
pub const PASSWORD: &str = "s3cret";
/// [`USER`] and [`PASSWORD`] as `htpasswd -Bbn -C 5` writes them.
const HTPASSWD: &str = "tester:$2y$05$Z.9D92Gz2UBxguQPyJIr.edRqOMudOrwXRAzPPhrGQ6KOTut5CEVW\n";

/// The variant of registry to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variant {
    /// Requires [`USER`] and [`PASSWORD`] (Basic).
    pub htpasswd: bool,
    /// Uses TLS with a certificate of a private CA.
    pub tls: bool,
    /// Requires tokens of a token server, which accepts [`USER`] and [`PASSWORD`], or nothing for pulls.
    pub tokens: bool,
    /// Refuses every write, as during maintenance.
    pub read_only: bool,
}

/// A running registry.
pub struct Registry {
    folder: TempDir,
    variant: Variant,
    server: Option<Server>,
    address: SocketAddr,
    tokens: Option<TokenServer>,
}

impl Registry {
    /// Plain HTTP, no credentials, deletes on.
    pub fn plain() -> Self {
        Self::start(Variant::default())
    }

    /// A registry of any variant.
    pub fn start(variant: Variant) -> Self {
        let folder = TempDir::with_prefix("ocifs-registry-").unwrap();
        let tokens = variant.tokens.then(|| TokenServer::start(folder.path()));
        if variant.tls {
            write_certificates(folder.path());
        }
        std::fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(folder.path(), &configuration(folder.path(), variant, any_port, tokens.as_ref()));
        let address = server.address;
        Self { folder, variant, server: Some(server), address, tokens }
    }

    /// `127.0.0.1:port`, the host of references.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:port` or `https://…`.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.variant.tls { "https" } else { "http" }, self.address)
    }

    /// The CA certificate, for the TLS variant.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The token server, for the token variant.
    pub fn tokens(&self) -> &TokenServer {
        self.tokens.as_ref().expect("only the variant with tokens has a token server")
    }

    /// The path of a stored blob, for damaging or removing it behind the registry's back.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.folder.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// The number of uploads to a repository that were started but neither finished nor cancelled.
    pub fn uploads(&self, repository: &str) -> usize {
        let folder = self.folder.path().join("data/docker/registry/v2/repositories").join(repository).join("_uploads");
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    /// Runs `write` with the address of a registry on the same storage that accepts writes from anybody.
    pub fn writing<T>(&self, write: impl FnOnce(&str) -> T) -> T {
        let plain = Variant::default();
        let writer =
            Server::start(self.folder.path(), &configuration(self.folder.path(), plain, SocketAddr::from(([127, 0, 0, 1], 0)), None));
        write(&format!("http://{}", writer.address))
    }

    /// Stops answering, as a hung server does, without closing a connection (SIGSTOP).
    pub fn hang(&self) {
        self.server.as_ref().expect("running").signal(rustix::process::Signal::STOP);
    }

    /// Ends [`Registry::hang`].
    pub fn resume(&self) {
        self.server.as_ref().expect("running").signal(rustix::process::Signal::CONT);
    }

    /// Kills the server; its port refuses connections.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Restarts as this variant, on the same port and storage.
    pub fn become_variant(&mut self, variant: Variant) {
        self.stop();
        self.variant = variant;
        self.start_again();
    }

    /// Restarts on the same port and storage after [`Registry::stop`].
    pub fn start_again(&mut self) {
        let configuration = configuration(self.folder.path(), self.variant, self.address, self.tokens.as_ref());
        self.server = Some(Server::start(self.folder.path(), &configuration));
    }
}

/// One process of docker-registry.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts it and returns once the log says that it listens.
    fn start(folder: &Path, configuration: &str) -> Self {
        let file = tempfile::Builder::new().suffix(".yml").tempfile_in(folder).unwrap();
        std::fs::write(file.path(), configuration).unwrap();
        // Signal at the parent's death, so that no registry outlives a killed test run.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(file.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv and docker-registry run");
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let (mut seen, mut line) = (String::new(), String::new());
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "docker-registry ended before it listened:\n{seen}");
            seen.push_str(&line);
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find(['"', ',']).unwrap_or(rest.len());
                break rest[..end].parse().unwrap_or_else(|_| panic!("no address in {line}"));
            }
        };
        // A full pipe would stop the registry.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { process, address }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// JSON is YAML.
fn configuration(folder: &Path, variant: Variant, address: SocketAddr, tokens: Option<&TokenServer>) -> String {
    let mut http = serde_json::json!({ "addr": address.to_string() });
    if variant.tls {
        http["tls"] = serde_json::json!({ "certificate": folder.join("server.pem"), "key": folder.join("server.key") });
    }
    let mut auth = serde_json::json!({});
    if variant.htpasswd {
        auth["htpasswd"] = serde_json::json!({ "realm": "tests", "path": folder.join("htpasswd") });
    }
    if let Some(tokens) = tokens {
        auth["token"] = tokens.registry_configuration();
    }
    let mut whole = serde_json::json!({
        "version": "0.1",
        "log": { "level": "info", "accesslog": { "disabled": true } },
        "storage": {
            "filesystem": { "rootdirectory": folder.join("data") },
            "delete": { "enabled": true },
            "maintenance": { "readonly": { "enabled": variant.read_only } },
        },
        "http": http,
    });
    if auth.as_object().is_some_and(|auth| !auth.is_empty()) {
        whole["auth"] = auth;
    }
    whole.to_string()
}

/// `ca.pem`, `server.pem` and `server.key` for the loopback.
fn write_certificates(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("server.pem"), server.pem()).unwrap();
    std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}
