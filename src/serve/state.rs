//! Everything that requests share.

use std::sync::Arc;

use axum::http::HeaderMap;

use super::access::Access;
use super::access_log::AccessLog;
use super::config::{Config, Hosts, Limits};
use super::metrics::Metrics;
use super::passwords::Passwords;
use super::problem::Problem;
use super::store::Store;
use super::tls::Certificate;
use super::upstream::Upstream;

/// Everything that requests share.
pub(super) struct State {
    pub(super) upstreams: Vec<Upstream>,
    pub(super) default_upstream: Option<String>,
    pub(super) store: Option<Arc<Store>>,
    pub(super) access: Access,
    pub(super) passwords: Option<Passwords>,
    pub(super) certificate: Option<Certificate>,
    pub(super) hosts: Hosts,
    pub(super) limits: Limits,
    pub(super) access_log: Option<AccessLog>,
    pub(super) metrics: Metrics,
}

impl State {
    pub(super) fn new(config: Config) -> Self {
        let Config { upstreams, default_upstream, cache, store, access, passwords, certificate, hosts, limits, access_log } = config;
        let access = Access { asks: passwords.is_some(), ..access };
        let prefixes: Vec<&str> = upstreams.iter().map(|upstream| upstream.prefix.as_str()).collect();
        let metrics = Metrics::new(&cache, &prefixes);
        let upstreams = upstreams.into_iter().zip(metrics.upstreams());
        let upstreams = upstreams.map(|(upstream, metrics)| Upstream::new(upstream, &cache, metrics.clone())).collect();
        let store = store.map(Arc::new);
        Self { upstreams, default_upstream, store, access, passwords, certificate, hosts, limits, access_log, metrics }
    }

    /// The user that a request names; none where it names none, or where nobody is asked.
    ///
    /// # Errors
    /// 401 if the password is wrong.
    pub(super) async fn user(&self, headers: &HeaderMap) -> Result<Option<String>, Problem> {
        match &self.passwords {
            Some(passwords) => passwords.user(headers).await,
            None => Ok(None),
        }
    }
}
