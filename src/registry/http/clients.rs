//! The HTTP clients: one for the registry with its certificates, others for hosts it refers us to.
//!
//! Settings of the registry alone (its client certificate, accepting any certificate, extra headers) never apply to another host, and
//! another host never gets the client certificate that this machine keeps for it, since the registry chose to send us there. The exception
//! is a token server that the user trusts. CAs (from `--ca-file`, and those kept for that host) apply everywhere. Proxies from the
//! environment are used except for loopback. No client follows redirects or keeps cookies by itself.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};

use super::certificates::{self, ClientCertificate, Loaded};
use super::origin::Origin;
use super::retry::Timing;
use crate::error::{Error, ErrorKind};

/// Idle connections kept per host.
const IDLE: usize = 16;
/// Clients among which long transfers over TLS are divided.
pub(super) const LANES: usize = 4;

/// TLS settings.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Accept any certificate from the registry itself.
    pub insecure: bool,
    /// CA certificates trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// The same for the registry itself only.
    pub authorities: Vec<PathBuf>,
    /// The client certificate for the registry itself.
    pub client: Option<ClientCertificate>,
    /// Directories like `/etc/docker/certs.d`.
    pub directories: Vec<PathBuf>,
}

/// Distinguishes clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    place: Destination,
    /// Presents a client certificate, if there is one.
    identified: bool,
    /// Which of several with the same settings.
    lane: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Destination {
    /// The registry itself.
    Own,
    /// Plain HTTP elsewhere.
    Plain { loopback: bool },
    /// TLS elsewhere.
    Elsewhere { loopback: bool },
    /// TLS to a host with its own files in a certificate directory.
    Named(String),
}

/// User settings for all connections.
#[derive(Debug, Default)]
pub(super) struct Custom {
    /// Headers for the registry itself.
    pub(super) headers: HeaderMap,
    /// Addresses by host.
    pub(super) addresses: Vec<(String, SocketAddr)>,
}

impl Custom {
    /// Checks the names and values of headers.
    pub(super) fn new(headers: &[(String, String)], addresses: Vec<(String, SocketAddr)>) -> Result<Self, Error> {
        let mut checked = HeaderMap::new();
        for (name, value) in headers {
            let invalid = || Error::new(ErrorKind::Invalid, format!("`{}` is not an HTTP header with a value", name.escape_debug()));
            let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
            // It may be a token.
            value.set_sensitive(true);
            checked.append(HeaderName::try_from(name.as_str()).map_err(|_| invalid())?, value);
        }
        Ok(Self { headers: checked, addresses })
    }
}

/// The clients of one registry.
pub(super) struct Clients {
    tls: Tls,
    custom: Custom,
    timing: Timing,
    own: Origin,
    /// Token servers that the user trusts.
    trusted: Vec<Origin>,
    /// Hosts with files in a certificate directory.
    named: HashSet<String>,
    /// At most one per kind; a host gets its own only if this machine has certificates for it. Never held across an await.
    built: Mutex<HashMap<Kind, Client>>,
}

impl Clients {
    /// Builds the client for the registry itself, so that bad certificate files are reported at once.
    pub(super) fn new(tls: Tls, custom: Custom, timing: Timing, own: Origin, trusted: Vec<Origin>) -> Result<Self, Error> {
        let named = certificates::hosts(&tls.directories)?;
        let clients = Self { tls, custom, timing, own, trusted, named, built: Mutex::default() };
        clients.of(&clients.own, true)?;
        Ok(clients)
    }

    /// The client for an origin. With `identified` it presents a client certificate, if the origin is the registry's own or a trusted token
    /// server's; never set that for a URL that another host supplied.
    pub(super) fn of(&self, origin: &Origin, identified: bool) -> Result<Client, Error> {
        self.in_lane(origin, identified, 0)
    }

    /// The same, one of [`LANES`]: long transfers share no connection, as they would with HTTP/2, and so no connection's limit.
    pub(super) fn in_lane(&self, origin: &Origin, identified: bool, lane: usize) -> Result<Client, Error> {
        // HTTP/1 has a connection for each request anyway; plain HTTP is never HTTP/2 here.
        let kind = self.kind(origin, identified, if origin.is_tls() { lane % LANES } else { 0 });
        let mut built = self.built.lock();
        if let Some(client) = built.get(&kind) {
            return Ok(client.clone());
        }
        let client = self.build(&kind, origin)?;
        built.insert(kind, client.clone());
        Ok(client)
    }

    fn kind(&self, origin: &Origin, identified: bool, lane: usize) -> Kind {
        let place = if *origin == self.own {
            Destination::Own
        } else if !origin.is_tls() {
            Destination::Plain { loopback: origin.is_loopback() }
        } else if self.named.contains(&origin.authority()) {
            Destination::Named(origin.authority())
        } else {
            Destination::Elsewhere { loopback: origin.is_loopback() }
        };
        Kind { place, identified: identified && (*origin == self.own || self.trusted.contains(origin)), lane }
    }

    fn build(&self, kind: &Kind, origin: &Origin) -> Result<Client, Error> {
        let mut builder = Client::builder()
            .user_agent(concat!("ocifs/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(self.timing.connect)
            .pool_max_idle_per_host(IDLE);
        if origin.is_loopback() {
            builder = builder.no_proxy();
        }
        for (host, address) in &self.custom.addresses {
            builder = builder.resolve(host, *address);
        }
        if kind.place == Destination::Own && kind.identified {
            builder = builder.default_headers(self.custom.headers.clone());
        }
        self.with_tls(builder, kind, origin)?.build().map_err(|error| {
            let message = format!("TLS to {origin} cannot be set up: {}", super::answer::chain(&error));
            Error::new(ErrorKind::Invalid, message)
        })
    }

    /// Adds the certificates that are used and trusted for an origin.
    fn with_tls(&self, mut builder: ClientBuilder, kind: &Kind, origin: &Origin) -> Result<ClientBuilder, Error> {
        if !origin.is_tls() {
            // No CAs are needed, so this works on a machine without any.
            return Ok(builder.tls_certs_only([]));
        }
        let mut loaded = match kind.place {
            Destination::Own | Destination::Named(_) => {
                certificates::from_directories(&self.tls.directories, &origin.authority(), kind.identified)?
            }
            _ => Loaded::default(),
        };
        if let Some(path) = &self.tls.ca_file {
            loaded.authorities.extend(certificates::authorities(path)?);
        }
        if kind.place == Destination::Own {
            for path in &self.tls.authorities {
                loaded.authorities.extend(certificates::authorities(path)?);
            }
            if let Some(files) = self.tls.client.as_ref().filter(|_| kind.identified) {
                loaded.identity = Some(certificates::identity(files)?);
            }
            builder = builder.tls_danger_accept_invalid_certs(self.tls.insecure);
        }
        if !loaded.authorities.is_empty() {
            builder = builder.tls_certs_merge(loaded.authorities);
        }
        Ok(match loaded.identity {
            Some(identity) => builder.identity(identity),
            None => builder,
        })
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use super::*;

    #[test]
    fn long_transfers_are_divided_among_connections_over_tls_only() {
        let origin = |url: &str| Origin::of(&Url::parse(url).unwrap()).unwrap();
        let own = origin("https://reg.example");
        let clients = Clients::new(Tls::default(), Custom::default(), Timing::default(), own.clone(), Vec::new()).unwrap();
        let built = || clients.built.lock().len();
        for (url, more) in [("https://reg.example", LANES - 1), ("http://127.0.0.1:5000", 1), ("https://blobs.example", LANES)] {
            let before = built();
            for lane in 0..3 * LANES {
                clients.in_lane(&origin(url), true, lane).unwrap();
            }
            assert_eq!(built() - before, more, "{url}");
        }
    }
}
