//! A registry over HTTP, following the OCI distribution specification.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>. Verified here: manifests against the requested digest (or the
//! one the registry names), blob sizes against their descriptors, ranges against `Content-Range`. Blob digests are verified by the reader
//! of the whole blob.
//!
//! Writes: after every failure the upload session is queried for its offset; after a lost answer the registry is asked whether the manifest
//! arrived; tags are deleted alone.
//!
//! Retries: failed connections, broken and stalled transfers, and statuses 408, 429 and 5xx are retried at most five times with growing,
//! jittered waits, or after the registry's own `Retry-After`, up to a minute in total. An operation without progress ends after
//! [`Timing::progress`]; until then, writes wait for a registry that refuses connections, since it may be restarting. After an operation
//! got no answer at all, others only probe briefly.
//!
//! Destinations: credentials and client certificates go only to the registry's own origin and to token servers that belong to it. Reads
//! follow redirects without them; writes never follow a redirect to another origin. Blobs are uploaded elsewhere, again without them, only
//! if the registry itself names the location. Page links never leave the host, and the `urls` of layers are ignored.
//!
//! # Files
//!
//! - A request: `exchange` sends it, `retry` repeats it, `outage` records that the registry does not answer, `authorize` signs it with
//!   `challenge`, `token` and `header`, `answer` and `refusal` map its outcome; `origin` decides where it may go, `clients` and `certificates`
//!   connect
//! - Reads: `manifest`, `blob`, `pages`
//! - Writes: `push` delegates to `mount`, `upload` (`session`, `chunked`, `payload`), `put`, `referrer`, `delete`
//! - `config`, `shared` and `learned` are the client's settings and state; `web` downloads files from other servers

mod answer;
mod authorize;
mod blob;
mod certificates;
mod challenge;
mod chunked;
mod clients;
mod config;
mod delete;
mod exchange;
mod header;
mod learned;
mod manifest;
mod mount;
mod origin;
mod outage;
mod pages;
mod payload;
mod push;
mod put;
mod referrer;
mod refusal;
mod retry;
mod session;
mod shared;
mod token;
mod upload;
mod web;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::Method;

pub use self::certificates::ClientCertificate;
pub use self::clients::Tls;
pub use self::config::{HttpConfig, UploadSizes};
pub use self::retry::Timing;
pub use self::web::WebFiles;

use self::authorize::{Authorizer, Scope};
use self::clients::{Clients, Custom};
use self::exchange::{Call, Exchange};
use self::learned::{IdleSessions, Linked, Shortcuts};
use self::origin::{Origin, TrustedRealm};
use self::shared::Http;
use super::mirrors::Root;
use super::{BlobStream, Page, Pull, Resolved, Trust};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Version};

/// A registry over HTTP. Cheap to clone; clones share connections, tokens and learned facts.
#[derive(Clone)]
pub struct HttpRegistry {
    http: Arc<Http>,
}

impl HttpRegistry {
    /// Prepares a client; sends nothing.
    ///
    /// # Errors
    /// `Invalid` for unusable certificate files, trusted realms or headers.
    pub fn new(config: HttpConfig) -> Result<Self, Error> {
        let HttpConfig { registry, plain_http, tls, credentials, trusted_realms, headers, addresses, timing, .. } = config;
        let is_tls = !plain_http.unwrap_or_else(|| registry.is_loopback());
        let invalid = || Error::new(ErrorKind::Invalid, format!("{registry} does not form a valid URL"));
        let base = origin::api(&registry, is_tls, &config.root).ok_or_else(invalid)?;
        let own = Origin::of(&base).ok_or_else(invalid)?;
        let verified = (is_tls && !tls.insecure) || registry.is_loopback();
        let trusted_realms: Vec<TrustedRealm> = trusted_realms.iter().map(|realm| trusted(realm)).collect::<Result<_, _>>()?;
        let trusted_origins = trusted_realms.iter().map(|realm| realm.origin.clone()).collect();
        let clients = Clients::new(tls, Custom::new(&headers, addresses)?, timing, own.clone(), trusted_origins)?;
        let authorizer = Authorizer::new(registry.clone(), own.clone(), credentials, trusted_realms, timing);
        let http = Http {
            origin: format!("{}://{registry}", if is_tls { "https" } else { "http" }),
            trust: if verified { Trust::Transport } else { Trust::Digest },
            base,
            exchange: Exchange::new(clients, authorizer, own, timing, config.rules, config.namespace),
            is_versioned: matches!(config.root, Root::Below(_)),
            shortcuts: Shortcuts::default(),
            sizes: config.upload,
            idle_sessions: IdleSessions::default(),
            chunkless: AtomicBool::new(false),
            long_transfers: AtomicUsize::new(0),
            rangeless: AtomicBool::new(false),
            linked: Linked::default(),
            registry,
        };
        Ok(Self { http: Arc::new(http) })
    }
}

impl HttpRegistry {
    /// Checks the credentials with the registry. False if it does not ask for any.
    ///
    /// # Errors
    /// Denied if the registry rejects them, or if they would have to go to a token server that is not known to belong to it.
    pub async fn check_login(&self) -> Result<bool, Error> {
        self.ping(None).await?;
        self.http.exchange.authorizer.was_shown(&Scope::Ping(None)).await
    }
}

fn trusted(realm: &str) -> Result<TrustedRealm, Error> {
    TrustedRealm::parse(realm).ok_or_else(|| {
        Error::new(ErrorKind::Invalid, format!("`{}` is not an origin like https://auth.example.org", realm.escape_default()))
    })
}

#[async_trait]
impl Pull for HttpRegistry {
    fn origin(&self) -> &str {
        &self.http.origin
    }

    fn trust(&self) -> Trust {
        if self.http.exchange.has_strayed() { Trust::Digest } else { self.http.trust }
    }

    fn away_since(&self) -> Option<Instant> {
        self.http.exchange.outage.away_since().map(tokio::time::Instant::into_std)
    }

    fn unanswered(&self) -> Option<Error> {
        self.http.exchange.outage.unanswered()
    }

    fn throttled(&self) -> Option<Duration> {
        self.http.exchange.outage.throttled()
    }

    fn ignores_ranges(&self) -> bool {
        self.http.rangeless.load(Ordering::Relaxed)
    }

    /// Succeeds if the registry answers and does not reject the stored credentials. Without credentials, a registry that hands out tokens is
    /// not queried further: read access is known only per repository.
    async fn ping(&self, about: Option<&Repository>) -> Result<(), Error> {
        let what = format!("registry {}", self.http.registry);
        let call = Call::new(what, Method::GET, self.http.url("v2/")?, Scope::Ping(about.cloned()));
        let exchange = &self.http.exchange;
        let answer = match exchange.fetch(&call, 64 << 10).await {
            Err(error) if error.kind == ErrorKind::Denied && exchange.authorizer.lets_anybody_ask(&call.scope).await => return Ok(()),
            other => other?,
        };
        match answer.status.as_u16() {
            200..=299 => Ok(()),
            401 | 403 if exchange.authorizer.lets_anybody_ask(&call.scope).await => Ok(()),
            404 => Err(Error::new(ErrorKind::Unsupported, format!("{}: not an OCI registry (no /v2/)", call.what))),
            _ => Err(self.http.exchange.refused(&call, answer.status, &answer.headers, &answer.body).await),
        }
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        manifest::resolve(&self.http, repository, version).await
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        manifest::read(&self.http, repository, version).await
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        blob::open(&self.http, repository, descriptor, range).await
    }

    async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        blob::size(&self.http, repository, digest).await
    }

    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
        pages::tags(&self.http, repository, after).await
    }

    async fn repositories(&self, after: Option<&str>) -> Result<Page, Error> {
        pages::repositories(&self.http, after).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        pages::referrers(&self.http, repository, subject).await
    }
}
