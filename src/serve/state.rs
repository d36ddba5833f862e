//! Everything that requests share.

use super::config::{Config, Hosts, Limits};
use super::upstream::Upstream;

/// Everything that requests share.
pub(super) struct State {
    pub(super) upstreams: Vec<Upstream>,
    pub(super) default_upstream: Option<String>,
    pub(super) hosts: Hosts,
    pub(super) limits: Limits,
}

impl State {
    pub(super) fn new(config: Config) -> Self {
        let Config { upstreams, default_upstream, cache, hosts, limits } = config;
        let upstreams = upstreams.into_iter().map(|upstream| Upstream::new(upstream, &cache)).collect();
        Self { upstreams, default_upstream, hosts, limits }
    }
}
