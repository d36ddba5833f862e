//! Everything that requests share.

use std::sync::Arc;

use super::access::Access;
use super::config::{Config, Hosts, Limits};
use super::passwords::Passwords;
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
}

impl State {
    pub(super) fn new(config: Config) -> Self {
        let Config { upstreams, default_upstream, cache, store, access, passwords, certificate, hosts, limits } = config;
        let access = Access { asks: passwords.is_some(), ..access };
        let upstreams = upstreams.into_iter().map(|upstream| Upstream::new(upstream, &cache)).collect();
        Self { upstreams, default_upstream, store: store.map(Arc::new), access, passwords, certificate, hosts, limits }
    }
}
