//! How the server is set up, as plain values.

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

/// A registry that is read through the server.
pub struct UpstreamConfig {
    /// The first component of its repositories here.
    pub prefix: String,
    /// The registry.
    pub registry: Registry,
    /// The way to it.
    pub pull: Arc<dyn Pull>,
    /// Memory for reading; upstreams may share it.
    pub budget: Budget,
    /// A transfer without progress fails after so long.
    pub io_timeout: Duration,
    /// How long tags and lists are trusted before the registry is asked again.
    pub tag_ttl: Duration,
    /// Clients read with logins of their own; then `pull` has none of ours.
    pub pass_credentials: Option<PassCredentials>,
}

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more wait.
    pub connections: usize,
    /// Time for the handshake of TLS and for the head of a request.
    pub head: Duration,
    /// A connection ends when its client neither sends nor takes a byte for so long while a body is under way.
    pub stall: Duration,
    /// How long requests may go on once the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, head: Duration::from_secs(30), stall: Duration::from_secs(60), drain: Duration::from_secs(30) }
    }
}

/// The names under which the server answers, against pages of other sites that reach it through a name of their own.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// Any name, which is no risk where credentials are asked for.
    pub any: bool,
    /// Names besides those of the loopback.
    pub names: Vec<String>,
}

/// The whole set-up.
pub struct Config {
    /// Registries that are read through.
    pub upstreams: Vec<UpstreamConfig>,
    /// The upstream of names without a prefix.
    pub default_upstream: Option<String>,
    /// The cache.
    pub cache: SpanCache,
    /// The memory that everything that reads shares.
    pub budget: Budget,
    /// Repositories of its own.
    pub store: Option<Store>,
    /// Who may do what.
    pub access: Access,
    /// Users, where they are asked who they are.
    pub passwords: Option<Passwords>,
    /// The certificate, where TLS is spoken.
    pub certificate: Option<Certificate>,
    /// Accepted host names.
    pub hosts: Hosts,
    /// Limits of connections.
    pub limits: Limits,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
}

/// Checks the prefixes of upstreams: each one component of a repository name, none the beginning of another.
///
/// # Errors
/// The message for the user.
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
                return Err(format!("one of the prefixes `{prefix}` and `{other}` begins with the other, which is easily mistaken"));
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
