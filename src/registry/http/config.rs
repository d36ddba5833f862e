//! How a registry is reached.

use std::net::SocketAddr;
use std::sync::Arc;

use super::clients::Tls;
use super::retry::Timing;
use crate::oci::Registry;
use crate::registry::credentials::Credentials;
use crate::registry::mirrors::{Root, Rules};

/// Sizes of upload requests, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct UploadSizes {
    /// Largest blob sent in one request.
    pub whole: u64,
    /// Chunk size for larger blobs, unless the registry demands more.
    pub chunk: u64,
    /// If a registry rejects chunks as too large, they shrink down to this.
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
    /// Plain HTTP or TLS; `None` means plain HTTP for loopback and TLS for everything else.
    pub plain_http: Option<bool>,
    /// Certificates.
    pub tls: Tls,
    /// Where credentials are looked up.
    pub credentials: Arc<Credentials>,
    /// Origins of token servers that get this registry's credentials and client certificate although they are not its own:
    /// `https://auth.example.org`, or with `?service=NAME` for tokens of that service only.
    pub trusted_realms: Vec<String>,
    /// Extra headers for every request to the registry itself, by name.
    pub headers: Vec<(String, String)>,
    /// Addresses of hosts that bypass DNS. Port 0 means the scheme's port.
    pub addresses: Vec<(String, SocketAddr)>,
    /// Time limits and retries.
    pub timing: Timing,
    /// Sizes of upload requests.
    pub upload: UploadSizes,
    /// The root of its API.
    pub root: Root,
    /// The registry that this one mirrors, sent with every request (`?ns=`).
    pub namespace: Option<String>,
    /// Rules that block registries or repositories.
    pub rules: Arc<Rules>,
}

impl HttpConfig {
    /// The registry without credentials and with default settings.
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
            root: Root::default(),
            namespace: None,
            rules: Arc::default(),
        }
    }
}
