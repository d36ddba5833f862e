//! `ocifs serve`: a caching registry proxy and a registry on a directory, in the foreground; `gc` cleans its store.

mod running;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, FromArgMatches, Subcommand, ValueEnum};
use tokio::net::TcpListener;

use crate::cli::daemon::{log, service_manager};
use crate::cli::exit::Failure;
use crate::cli::runtime::block_on;
use crate::cli::settings::flags::{LogFlags, RegistryFlags, Storage, Transport};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::wiring;
use crate::cli::terminal::{escape, output, units};
use crate::content::{Budget, MEMORY_LIMIT};
use crate::error::Error;
use crate::oci::{Registry, Source};
use crate::registry::{Credential, Credentials, HttpRegistry, Pull};
use crate::serve::{
    Access, AccessFormat, AccessLog, Account, Certificate, Config, Hosts, Limits, PassCredentials, Passwords, Rules, Server, Store,
    UpstreamConfig, check_prefixes,
};
use crate::sys::process;

/// Default listen address.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5000);

const EXAMPLES: &str = "\
Examples:
  ocifs serve --upstream docker=docker.io --upstream ghcr=ghcr.io
  docker pull localhost:5000/docker/library/alpine
  ocifs mount localhost:5000/ghcr/org/app:v1 ~/app";

/// Serve other registries through the local cache, and a registry stored in a directory
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// Run an action on the store instead of serving.
    #[command(subcommand)]
    action: Option<Action>,

    /// Address and port to listen on; a socket of the service manager takes its place
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = LISTEN)]
    listen: SocketAddr,

    /// Serve the repositories of registry HOST under PREFIX; repeatable
    #[arg(long = "upstream", value_name = "PREFIX=HOST", value_parser = upstream, action = ArgAction::Append)]
    upstreams: Vec<(String, Registry)>,

    /// Store pushed content in this directory, one OCI layout per repository
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// Upstream for names without a known prefix, as the Docker daemon asks its mirrors
    #[arg(long, value_name = "PREFIX")]
    default_upstream: Option<String>,

    /// Also answer to this host name, with or without a port; repeatable
    #[arg(long = "host", value_name = "NAME", action = ArgAction::Append)]
    hosts: Vec<String>,

    /// Users and passwords, as written by `htpasswd -B`
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    htpasswd: Option<PathBuf>,

    /// Rights by user and prefix: a YAML file such as `alice: {team: [pull, push, delete]}`; the user `*` is everybody
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    access: Option<PathBuf>,

    /// Rights of clients without a password
    #[arg(long, value_name = "RIGHT", help_heading = "Access")]
    anonymous: Option<Anonymous>,

    /// Ask the upstream with the login of each client, and let it read what the upstream lets it read; for exactly one upstream
    #[arg(long, conflicts_with = "htpasswd", help_heading = "Access")]
    pass_credentials: bool,

    /// With --pass-credentials: how long the upstream's answers about a login count
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "5m", help_heading = "Access")]
    auth_ttl: Duration,

    /// Refuse pushes and deletions
    #[arg(long, help_heading = "Access")]
    read_only: bool,

    /// Certificate chain, PEM; reloaded when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Access")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Access")]
    tls_key: Option<PathBuf>,

    /// Serve other machines without TLS
    #[arg(long, conflicts_with = "tls_cert", help_heading = "Access")]
    plain_http: bool,

    /// How long tags and lists are trusted before revalidation [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "OCIFS_TAG_TTL", hide_env = true)]
    tag_ttl: Option<Duration>,

    /// Log every request on standard error: as text in the combined log format, or as JSON
    #[arg(long, value_name = "FORM", default_value = "off")]
    access_log: AccessLogForm,

    /// Directories and budgets.
    #[command(flatten)]
    storage: Storage,

    /// How upstreams are reached; per-upstream settings go into the configuration file.
    #[command(flatten)]
    transport: Transport,

    /// The log.
    #[command(flatten)]
    log: LogFlags,
}

/// Actions on the store.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Remove unreferenced content from the store; safe while it is being served
    Gc(Gc),
}

/// Flags of `gc`.
#[derive(Args, Clone, Debug)]
struct Gc {
    /// Keep younger content, since a manifest that refers to it may be on its way
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "24h")]
    older_than: Duration,

    /// Keep untagged manifests
    #[arg(long)]
    keep_untagged: bool,
}

/// `--anonymous`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Anonymous {
    /// Read everything that no access rule withholds
    Pull,
}

/// `--access-log`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum AccessLogForm {
    /// The combined log format, with the time taken and whether the cache had the answer
    Text,
    /// One JSON object a line
    Json,
    /// No access log
    Off,
}

/// An unusable file named by a flag.
fn unusable(path: &Path, flag: &str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::usage(format!("cannot use {}: {error}; check {flag}", escape::path(path)))
}

fn upstream(text: &str) -> Result<(String, Registry), String> {
    let (prefix, host) = text.split_once('=').ok_or("write it as PREFIX=HOST, like docker=docker.io")?;
    check_prefixes(&[prefix])?;
    Ok((prefix.to_owned(), Registry::parse(host).map_err(|error| error.to_string())?))
}

impl Serve {
    /// Runs the command.
    ///
    /// # Errors
    /// See the exit codes.
    pub fn run(mut self, mut invocation: Invocation) -> Result<(), Failure> {
        if let Some(Action::Gc(gc)) = &self.action {
            return self.collect(gc);
        }
        let mut inherited = std::mem::take(&mut invocation.inherited);
        let socket = service_manager::listener(&mut inherited)?;
        inherited.close();
        if let Some(socket) = &socket {
            self.listen = socket.local_addr().map_err(|error| Failure::other(format!("a socket without an address: {error}")))?;
        }
        self.check()?;
        self.storage = self.storage.with_directories(&invocation.environment)?;
        let target = self.log.log_file.clone().map_or(log::LogTarget::Terminal, log::LogTarget::File);
        let failed = |error| Failure::other(format!("cannot write the log: {error}; give --log-file"));
        log::start(&target, self.log.log_format, invocation.verbose).map_err(failed)?;
        process::raise_open_file_limit();
        let cache = wiring::open_cache(&self.storage)?;
        // One limit shared by all upstreams.
        let budget = Budget::new(self.storage.memory_limit.unwrap_or(MEMORY_LIMIT));
        let config = Config {
            upstreams: self.upstreams(&invocation, &budget)?,
            default_upstream: self.default_upstream.clone(),
            cache,
            budget,
            store: self.store()?,
            access: self.access()?,
            passwords: self.htpasswd.as_deref().map(|path| Passwords::open(path).map_err(unusable(path, "--htpasswd"))).transpose()?,
            certificate: self.certificate()?,
            hosts: Hosts { any: !self.listen.ip().is_loopback() && self.hosts.is_empty(), names: self.hosts.clone() },
            limits: Limits::default(),
            access_log: self.access_log()?,
        };
        block_on(self.serve(socket, config, &invocation))
    }

    fn upstreams(&self, invocation: &Invocation, budget: &Budget) -> Result<Vec<UpstreamConfig>, Failure> {
        self.upstreams.iter().map(|(prefix, registry)| self.upstream(prefix, registry, invocation, budget)).collect()
    }

    fn check(&self) -> Result<(), Failure> {
        let prefixes: Vec<&str> = self.upstreams.iter().map(|(prefix, _)| prefix.as_str()).collect();
        check_prefixes(&prefixes).map_err(|message| Failure::usage(format!("{message}; check --upstream")))?;
        if prefixes.is_empty() && self.store.is_none() {
            return Err(Failure::usage("nothing to serve; give --upstream PREFIX=HOST, --store DIR or both"));
        }
        if let Some(default) = self.default_upstream.as_deref().filter(|default| !prefixes.contains(default)) {
            return Err(Failure::usage(format!("--default-upstream {} is not the prefix of an --upstream", default.escape_default())));
        }
        // Flags override the configuration file without a conflict.
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(Failure::usage("a certificate needs its key; give both --tls-cert and --tls-key"));
        }
        if self.pass_credentials && self.htpasswd.is_some() {
            return Err(Failure::usage("users are known here or upstream; give either --htpasswd or --pass-credentials"));
        }
        if self.pass_credentials && prefixes.len() != 1 {
            return Err(Failure::usage(
                "--pass-credentials needs exactly one --upstream: a login must not reach a registry that it is not for",
            ));
        }
        if self.listen.ip().is_loopback() {
            return Ok(());
        }
        let reached = format!("{} can be reached from other machines", self.listen);
        if self.tls_cert.is_none() && !self.plain_http {
            return Err(Failure::usage(format!("{reached}; give --tls-cert and --tls-key, or --plain-http")));
        }
        if !self.asks() && self.anonymous.is_none() {
            let message = format!("{reached}; give --htpasswd or --pass-credentials, or --anonymous pull to let everybody read");
            return Err(Failure::usage(message));
        }
        Ok(())
    }

    fn collect(&self, gc: &Gc) -> Result<(), Failure> {
        let store = self.store()?.ok_or_else(|| Failure::usage("give the store before the action: ocifs serve --store DIR gc"))?;
        let failed = |error| Failure::other(format!("cannot collect: {error}"));
        let collected = block_on(async { store.collect(gc.older_than, gc.keep_untagged).await.map_err(failed) })?;
        let (manifests, blobs) = (collected.manifests, collected.blobs);
        output::line(&format!("removed {manifests} untagged manifests and {blobs} blobs"))
    }

    /// Whether users have passwords.
    fn asks(&self) -> bool {
        self.htpasswd.is_some() || self.pass_credentials
    }

    fn rules(&self) -> Result<Option<Rules>, Failure> {
        let Some(path) = self.access.as_deref() else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(unusable(path, "--access"))?;
        Rules::parse(&text).map(Some).map_err(|error| unusable(path, "--access")(std::io::Error::other(error)))
    }

    fn access(&self) -> Result<Access, Failure> {
        // Without passwords, clients on other machines cannot be told apart.
        let strangers_only = !self.asks() && !self.listen.ip().is_loopback();
        let anonymous_pull = self.anonymous.is_some();
        Ok(Access { rules: self.rules()?.into(), anonymous_pull, read_only: self.read_only || strangers_only, asks: self.asks() })
    }

    fn certificate(&self) -> Result<Option<Certificate>, Failure> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        Certificate::open(certificate, key).map(Some).map_err(unusable(certificate, "--tls-cert and --tls-key"))
    }

    fn store(&self) -> Result<Option<Store>, Failure> {
        let Some(directory) = &self.store else { return Ok(None) };
        let failed = |error| Failure::other(format!("cannot use the store {}: {error}; check --store", escape::path(directory)));
        Store::open(directory).map(Some).map_err(failed)
    }

    fn upstream(&self, prefix: &str, registry: &Registry, invocation: &Invocation, budget: &Budget) -> Result<UpstreamConfig, Failure> {
        let flags = RegistryFlags { transport: self.transport.clone(), ..invocation.registry_of_file(Some(registry))? };
        let (pull, pass_credentials): (Arc<dyn Pull>, _) = if self.pass_credentials {
            let passing = self.passing(registry, flags, invocation)?;
            ((passing.connect)(Credential::Anonymous)?, Some(passing))
        } else {
            let source = Source::Registry { registry: registry.clone(), prefix: None };
            (wiring::registry(&source, false, &flags, &invocation.environment)?, None)
        };
        Ok(UpstreamConfig {
            prefix: prefix.to_owned(),
            registry: registry.clone(),
            pull,
            budget: budget.clone(),
            io_timeout: self.transport.io_timeout.unwrap_or(wiring::IO_TIMEOUT),
            tag_ttl: self.tag_ttl.unwrap_or(wiring::TAG_TTL),
            pass_credentials,
        })
    }

    fn passing(&self, registry: &Registry, flags: RegistryFlags, invocation: &Invocation) -> Result<PassCredentials, Failure> {
        // Whatever we could show the upstream would open it to every client.
        if flags.connection.cert_file.is_some() || !flags.connection.headers.is_empty() {
            let host = registry.as_str();
            let message =
                format!("--pass-credentials shows {host} the logins of clients and nothing else; remove its certificate and headers");
            return Err(Failure::usage(message));
        }
        let (registry, environment) = (registry.clone(), invocation.environment.clone());
        let connect = move |credential| -> Result<Arc<dyn Account>, Error> {
            let credentials = Credentials::only(credential);
            Ok(Arc::new(HttpRegistry::new(wiring::http_with(registry.clone(), &flags, &environment, credentials))?))
        };
        Ok(PassCredentials { ttl: self.auth_ttl, connect: Box::new(connect) })
    }

    fn access_log(&self) -> Result<Option<AccessLog>, Failure> {
        let format = match self.access_log {
            AccessLogForm::Text => AccessFormat::Text,
            AccessLogForm::Json => AccessFormat::Json,
            AccessLogForm::Off => return Ok(None),
        };
        let failed = |error| Failure::other(format!("cannot start the access log: {error}"));
        AccessLog::new(format, std::io::stderr()).map(Some).map_err(failed)
    }

    async fn serve(&self, socket: Option<std::net::TcpListener>, config: Config, invocation: &Invocation) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::other(format!("cannot listen on {}: {error}; check --listen", self.listen));
        let listener = match socket {
            Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
            None => TcpListener::bind(self.listen).await,
        };
        let (rules, budget) = (config.access.rules.clone(), config.budget.clone());
        let server = Server::new(listener.map_err(failed)?, config);
        let upstreams = server.live_upstreams();
        let address = server.address().map_err(failed)?;
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        // A script may wait for this line; a closed standard output must not stop the server.
        let _ = writeln!(std::io::stdout(), "listening on {scheme}://{address}");
        for (prefix, registry) in &self.upstreams {
            tracing::info!("{scheme}://{address}/v2/{prefix}/… is {}", registry.as_str());
        }
        let read_again = || {
            match self.rules() {
                Ok(new) => rules.set(new),
                Err(failure) => tracing::warn!("the rules stay as they were: {}", failure.message),
            }
            // A login belongs to the upstream that it was checked by.
            if !self.pass_credentials {
                match self.upstreams_of_now(invocation, &budget) {
                    Ok((new, default)) => upstreams.set(new, default),
                    Err(failure) => tracing::warn!("the upstreams stay as they were: {}", failure.message),
                }
            }
        };
        running::until_stopped(server, read_again).await
    }

    /// The upstreams and the default one, as the configuration file has them now.
    fn upstreams_of_now(&self, invocation: &Invocation, budget: &Budget) -> Result<(Vec<UpstreamConfig>, Option<String>), Failure> {
        let invocation = invocation.read_again()?;
        let wrong = || Failure::usage("the command line is not that of `ocifs serve`");
        let now = Self::from_arg_matches(invocation.matches.subcommand_matches("serve").ok_or_else(wrong)?);
        let now = now.map_err(|error| Failure::usage(error.to_string()))?;
        if now.pass_credentials {
            return Err(Failure::usage("--pass-credentials needs a restart"));
        }
        // Everything else is as it was at the start.
        let now = Self { listen: self.listen, htpasswd: self.htpasswd.clone(), ..now };
        now.check()?;
        Ok((now.upstreams(&invocation, budget)?, now.default_upstream))
    }
}
