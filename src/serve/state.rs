//! State shared by all requests.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::sync::watch;

use super::access::Access;
use super::access_log::AccessLog;
use super::client::Client;
use super::config::{Config, Hosts, Limits};
use super::incoming::Patience;
use super::metrics::Metrics;
use super::passing::Login;
use super::passwords::Passwords;
use super::problem::Problem;
use super::store::{Store, StorePull};
use super::tls::Certificate;
use super::upstream::Upstream;
use crate::artifact::{Artifacts, Options, ViewMode};
use crate::cache::SpanCache;
use crate::content::{self, Budget, Contents};
use crate::oci::Platform;
use crate::registry::Pull;

/// State shared by all requests.
pub(super) struct State {
    pub(super) upstreams: Vec<Upstream>,
    pub(super) default_upstream: Option<String>,
    pub(super) store: Option<Arc<Store>>,
    /// The artifacts in the store.
    pub(super) stored: Option<Artifacts>,
    pub(super) access: Access,
    pub(super) passwords: Option<Passwords>,
    pub(super) certificate: Option<Certificate>,
    pub(super) hosts: Hosts,
    pub(super) limits: Limits,
    pub(super) access_log: Option<AccessLog>,
    /// Set once requests must end.
    pub(super) closing: watch::Sender<bool>,
    pub(super) metrics: Metrics,
}

impl State {
    pub(super) fn new(config: Config) -> Self {
        let Config { upstreams, default_upstream, cache, budget, store, access, passwords, certificate, hosts, limits, access_log } =
            config;
        let prefixes: Vec<&str> = upstreams.iter().map(|upstream| upstream.prefix.as_str()).collect();
        let metrics = Metrics::new(&cache, &prefixes);
        let upstreams = upstreams.into_iter().zip(metrics.upstreams());
        let upstreams = upstreams.map(|(upstream, metrics)| Upstream::new(upstream, &cache, metrics.clone())).collect::<Vec<_>>();
        let asks = passwords.is_some() || upstreams.iter().any(|upstream: &Upstream| upstream.passing.is_some());
        let (store, access) = (store.map(Arc::new), Access { asks, ..access });
        let stored = store.clone().map(|store| artifacts(store, cache, budget));
        Self {
            upstreams,
            default_upstream,
            store,
            stored,
            access,
            passwords,
            certificate,
            hosts,
            limits,
            access_log,
            closing: watch::Sender::new(false),
            metrics,
        }
    }

    /// How long to wait for a request's body.
    pub(super) fn patience(&self) -> Patience {
        Patience { stall: self.limits.stall, closing: self.closing.subscribe() }
    }

    /// The client of a request; anonymous if it has no credentials or none are required.
    ///
    /// # Errors
    /// 401 if the password is wrong; other errors if logins are passed on and the upstream cannot be reached.
    pub(super) async fn client(&self, headers: &HeaderMap) -> Result<Client, Problem> {
        if let Some(passing) = self.upstreams.iter().find_map(|upstream| upstream.passing.as_ref()) {
            let login = match passing.login(headers).await? {
                None if self.access.anonymous_pull => Some(passing.stranger()?),
                login => login,
            };
            let user = login.as_deref().and_then(Login::user).map(str::to_owned);
            return Ok(Client { user, login });
        }
        match &self.passwords {
            Some(passwords) => Ok(Client { user: passwords.user(headers).await?, login: None }),
            None => Ok(Client::default()),
        }
    }
}

/// The artifacts in the store, read through the cache.
fn artifacts(store: Arc<Store>, cache: SpanCache, budget: Budget) -> Artifacts {
    let pull: Arc<dyn Pull> = Arc::new(StorePull::new(store));
    let reading = content::Config { budget, ..content::Config::new(Arc::clone(&pull), cache.clone()) };
    let options = Options {
        // Tags are resolved by the store itself.
        tag_ttl: Duration::ZERO,
        platform: Platform::host(),
        view: ViewMode::Merged,
        offline: false,
        strict: true,
        repositories: Vec::new(),
    };
    Artifacts::new(pull, Contents::new(reading), cache, options)
}
