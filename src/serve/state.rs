//! State shared by all requests.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::access::Access;
use super::access_log::AccessLog;
use super::client::Client;
use super::config::{Config, Hosts, Limits, UpstreamConfig};
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

/// The upstreams at one time.
#[derive(Default)]
pub(super) struct Upstreams {
    pub(super) all: Vec<Arc<Upstream>>,
    /// The prefix of the one for names without a known prefix.
    default: Option<String>,
}

impl Upstreams {
    fn new(configs: Vec<UpstreamConfig>, default: Option<String>, cache: &SpanCache, metrics: &Metrics) -> Self {
        let upstream = |config: UpstreamConfig| {
            let metrics = metrics.of_upstream(&config.prefix);
            Arc::new(Upstream::new(config, cache, metrics))
        };
        Self { all: configs.into_iter().map(upstream).collect(), default }
    }

    /// The first one that fits.
    pub(super) fn find(&self, fits: impl Fn(&Upstream) -> bool) -> Option<Arc<Upstream>> {
        self.all.iter().find(|upstream| fits(upstream)).cloned()
    }

    /// The one for names without a known prefix.
    pub(super) fn default(&self) -> Option<Arc<Upstream>> {
        self.find(|upstream| Some(upstream.prefix.as_str()) == self.default.as_deref())
    }
}

/// State shared by all requests.
pub(super) struct State {
    /// Replaced as a whole. Locked only for a glance.
    upstreams: RwLock<Arc<Upstreams>>,
    cache: SpanCache,
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
        let metrics = Metrics::new(&cache);
        let upstreams = Upstreams::new(upstreams, default_upstream, &cache, &metrics);
        let asks = passwords.is_some() || upstreams.all.iter().any(|upstream| upstream.passing.is_some());
        let (store, access) = (store.map(Arc::new), Access { asks, ..access });
        let stored = store.clone().map(|store| artifacts(store, cache.clone(), budget));
        Self {
            upstreams: RwLock::new(Arc::new(upstreams)),
            cache,
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

    /// The upstreams of now.
    pub(super) fn upstreams(&self) -> Arc<Upstreams> {
        Arc::clone(&self.upstreams.read())
    }

    /// Replaces the upstreams; returns those of before, which requests may still use.
    pub(super) fn set_upstreams(&self, configs: Vec<UpstreamConfig>, default: Option<String>) -> Arc<Upstreams> {
        let new = Upstreams::new(configs, default, &self.cache, &self.metrics);
        std::mem::replace(&mut *self.upstreams.write(), Arc::new(new))
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
        if let Some(passing) = self.upstreams().all.iter().find_map(|upstream| upstream.passing.clone()) {
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
        trust_referrers: false,
        access_order: false,
        repositories: Vec::new(),
    };
    Artifacts::new(pull, Contents::new(reading), cache, options)
}
