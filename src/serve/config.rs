//! The server's configuration, as plain values.

use std::sync::Arc;
use std::time::Duration;

use super::access::Access;
use super::access_log::AccessLog;
use super::passing::PassCredentials;
use super::passwords::Passwords;
use super::store::Store;
use super::tls::Certificate;
use crate::cache::SpanCache;
use crate::content::Budget;
use crate::oci::{Registry, Repository};
use crate::registry::Pull;

/// An upstream registry.
pub struct UpstreamConfig {
    /// The first component of its repositories' names on this server.
    pub prefix: String,
    /// The registry.
    pub registry: Registry,
    /// How to reach it.
    pub pull: Arc<dyn Pull>,
    /// Memory budget for reading; upstreams may share one.
    pub budget: Budget,
    /// Limit for a transfer without progress.
    pub io_timeout: Duration,
    /// How long tags and lists are trusted before revalidation.
    pub tag_ttl: Duration,
    /// Set if clients read with their own logins; `pull` then has none of ours.
    pub pass_credentials: Option<PassCredentials>,
}

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections; further ones wait.
    pub connections: usize,
    /// Time limit for the TLS handshake and for the head of a request.
    pub head: Duration,
    /// A connection ends when its client neither sends nor receives a byte for this long during a body.
    pub stall: Duration,
    /// How long requests may continue after the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, head: Duration::from_secs(30), stall: Duration::from_secs(60), drain: Duration::from_secs(30) }
    }
}

/// The host names under which the server answers, as a defence against DNS rebinding by pages of other sites.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// Accept any name, which is safe if credentials are required.
    pub any: bool,
    /// Names besides those of loopback.
    pub names: Vec<String>,
}

/// The complete configuration.
pub struct Config {
    /// Upstream registries.
    pub upstreams: Vec<UpstreamConfig>,
    /// The upstream for names without a known prefix.
    pub default_upstream: Option<String>,
    /// The cache.
    pub cache: SpanCache,
    /// The memory budget shared by all readers.
    pub budget: Budget,
    /// The store of hosted repositories.
    pub store: Option<Store>,
    /// The access policy.
    pub access: Access,
    /// Users, if they must authenticate.
    pub passwords: Option<Passwords>,
    /// The certificate, if TLS is used.
    pub certificate: Option<Certificate>,
    /// Accepted host names.
    pub hosts: Hosts,
    /// Limits of connections.
    pub limits: Limits,
    /// Destination of the access log.
    pub access_log: Option<AccessLog>,
}

/// Checks the prefixes of upstreams: each is one component of a repository name, and none is the start of another.
///
/// # Errors
/// A message for the user.
pub fn check_prefixes(prefixes: &[&str]) -> Result<(), String> {
    for (place, prefix) in prefixes.iter().enumerate() {
        if !Repository::is_component(prefix) {
            return Err(format!("the prefix `{}` is not one component of a repository name", prefix.escape_default()));
        }
        for other in prefixes.iter().skip(place + 1) {
            if prefix == other {
                return Err(format!("the prefix `{prefix}` is given twice"));
            }
            if prefix.starts_with(other) || other.starts_with(prefix) {
                return Err(format!("one of the prefixes `{prefix}` and `{other}` starts with the other, which invites mistakes"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_single_components_that_are_not_mistaken_for_each_other() {
        check_prefixes(&["docker", "ghcr", "quay-io"]).unwrap();
        for bad in [&[""][..], &["Docker"], &["a/b"], &["-a"], &["a", "a"], &["docker", "docker-hub"], &["x", "docker-hub", "docker"]] {
            check_prefixes(bad).unwrap_err();
        }
    }
}
