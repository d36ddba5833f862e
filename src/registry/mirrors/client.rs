//! The client of a source other than the registry itself: with its own credentials and certificates, and short time limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::health::{AWAY, Health};
use super::rules::{Endpoint, Rename, Security, SourceHost, Uses};
use crate::error::Error;
use crate::oci::{Registry, Repository};
use crate::registry::{ClientCertificate, Credentials, HttpConfig, HttpRegistry, Pull, Timing, Tls};

/// Time limit for connecting to a mirror, below the time after which cached answers are used.
const CONNECT: Duration = Duration::from_millis(1500);
/// Time limit for the head of a mirror's response, which may have to ask the registry first.
const HEADER: Duration = Duration::from_secs(15);
/// Longest time without progress.
const PROGRESS: Duration = Duration::from_secs(20);

/// How sources other than the registry are reached.
#[derive(Clone, Debug)]
pub struct Reaching {
    /// Where credentials are looked up, by the source's own host.
    pub credentials: Arc<Credentials>,
    /// Directories like `/etc/docker/certs.d`.
    pub certificates: Vec<PathBuf>,
    /// Time limits of the registry itself; mirrors have shorter ones.
    pub timing: Timing,
}

/// A source and its client.
pub(super) struct Client {
    /// URL, for messages.
    pub(super) name: String,
    pub(super) pull: Arc<dyn Pull>,
    pub(super) uses: Uses,
    pub(super) rename: Rename,
    pub(super) health: Health,
    /// Whether the next client reaches the same host by plain HTTP, so that a failure of this one is expected.
    pub(super) is_first_try: bool,
}

impl Client {
    /// The clients of a source, in the order they are asked: two if it may use TLS or plain HTTP.
    ///
    /// # Errors
    /// Invalid for unusable certificate files or headers.
    pub(super) fn of(place: &SourceHost, registry: &Registry, patient: bool, reaching: &Reaching) -> Result<Vec<Self>, Error> {
        let securities: &[Security] = match place.endpoint.security {
            // As everywhere, this machine is expected to use plain HTTP.
            Security::Any if place.endpoint.host.is_loopback() => &[Security::Plain, Security::Unverified],
            Security::Any => &[Security::Unverified, Security::Plain],
            Security::Verified => &[Security::Verified],
            Security::Unverified => &[Security::Unverified],
            Security::Plain => &[Security::Plain],
        };
        let client = |(number, security): (usize, &Security)| {
            let is_first_try = number + 1 < securities.len();
            let http = HttpRegistry::new(config(&place.endpoint, *security, registry, patient, reaching))?;
            let (name, pull) = (http.origin().to_owned(), Arc::new(http) as Arc<dyn Pull>);
            Ok(Self { name, pull, uses: place.uses, rename: place.rename.clone(), health: Health::default(), is_first_try })
        };
        securities.iter().enumerate().map(client).collect()
    }

    /// The registry itself, under another name.
    pub(super) fn own(pull: Arc<dyn Pull>, rename: Rename) -> Self {
        Self {
            name: pull.origin().to_owned(),
            pull,
            uses: Uses { tags: true, content: true },
            rename,
            health: Health::default(),
            is_first_try: false,
        }
    }

    /// Records that it answered.
    pub(super) fn answered(&self) {
        if self.health.answered() {
            tracing::info!("mirror {} answers again", self.name);
        }
    }

    /// Records that it failed and is skipped for a while.
    pub(super) fn failed(&self, error: &Error) {
        let (name, seconds) = (&self.name, AWAY.as_secs());
        match (self.health.failed(), self.is_first_try) {
            (false, _) => {}
            (true, true) => tracing::debug!("skipping mirror {name} for {seconds} s: {error}"),
            (true, false) => tracing::warn!("skipping mirror {name} for {seconds} s: {error}"),
        }
    }

    /// The repository's name there.
    pub(super) fn repository(&self, repository: &Repository) -> Option<Repository> {
        self.rename.apply(repository)
    }
}

fn config(endpoint: &Endpoint, security: Security, registry: &Registry, patient: bool, reaching: &Reaching) -> HttpConfig {
    let own = reaching.timing;
    let short = Timing {
        connect: CONNECT.min(own.connect),
        header: HEADER.min(own.header).min(own.progress / 2),
        progress: PROGRESS.min(own.progress / 2),
        retries: 0,
        ..own
    };
    let timing = if patient { own } else { short };
    let client = endpoint.client.clone().map(|(certificate, key)| ClientCertificate { certificate, key });
    HttpConfig {
        plain_http: Some(security == Security::Plain),
        tls: Tls {
            insecure: security == Security::Unverified,
            ca_file: None,
            authorities: endpoint.authorities.clone(),
            client,
            directories: reaching.certificates.clone(),
        },
        credentials: Arc::clone(&reaching.credentials),
        headers: endpoint.headers.clone(),
        timing: Timing { connect: endpoint.connect.unwrap_or(timing.connect), ..timing },
        root: endpoint.root.clone(),
        namespace: (endpoint.is_proxy && endpoint.host != *registry).then(|| registry.as_str().to_owned()),
        ..HttpConfig::new(endpoint.host.clone())
    }
}
