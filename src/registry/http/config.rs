//! How a registry is reached.

use std::net::SocketAddr;
use std::sync::Arc;

use super::clients::Tls;
use super::retry::Timing;
use crate::oci::Registry;
use crate::registry::credentials::Credentials;

/// Sizes of the requests that blobs are sent in.
#[derive(Clone, Copy, Debug)]
pub struct UploadSizes {
    /// Largest blob that is sent in one request.
    pub whole: u64,
    /// Bytes of a chunk of a larger one, unless the registry wants more.
    pub chunk: u64,
    /// Chunks that a registry calls too large are made smaller down to this.
    pub smallest: u64,
}

impl Default for UploadSizes {
    fn default() -> Self {
        Self { whole: 8 << 20, chunk: 32 << 20, smallest: 1 << 20 }
    }
}

/// How a registry is reached.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The registry.
    pub registry: Registry,
    /// Plain HTTP or TLS; `None` is plain HTTP for loopback and TLS for everything else.
    pub plain_http: Option<bool>,
    /// Certificates.
    pub tls: Tls,
    /// Where credentials are found.
    pub credentials: Arc<Credentials>,
    /// Origins of token servers that get this registry's credentials, and the client certificate kept for them, although
    /// they are not its own: `https://auth.example.org`, or with `?service=NAME` for tokens of that service only.
    pub trusted_realms: Vec<String>,
    /// Headers that every request to the registry itself has besides, by name.
    pub headers: Vec<(String, String)>,
    /// Addresses of hosts that are not asked for by name. Port 0 is that of the scheme.
    pub addresses: Vec<(String, SocketAddr)>,
    /// Time limits and retries.
    pub timing: Timing,
    /// Sizes of the requests that blobs are sent in.
    pub upload: UploadSizes,
}

impl HttpConfig {
    /// The registry without credentials, with everything else as it is by default.
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            plain_http: None,
            tls: Tls::default(),
            credentials: Arc::new(Credentials::none()),
            trusted_realms: Vec::new(),
            headers: Vec::new(),
            addresses: Vec::new(),
            timing: Timing::default(),
            upload: UploadSizes::default(),
        }
    }
}
