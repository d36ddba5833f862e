//! One upstream registry: its manifests, blobs and lists, from the cache if known, and the mapping of its failures to responses.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::access::unknown_user;
use super::client::Client;
use super::config::UpstreamConfig;
use super::metered::Metered;
use super::metrics::{Source, UpstreamMetrics};
use super::passing::Passing;
use super::problem::{Code, Problem};
use super::route::Route;
use super::sizes::Sizes;
use crate::artifact::{Artifacts, Listing, Options, ViewMode};
use crate::blocking::spawn_blocking;
use crate::cache::SpanCache;
use crate::content::{self, ContentStream, Contents, VerifyPolicy};
use crate::error::{Error, ErrorKind};
use crate::flight::Flight;
use crate::oci::{Descriptor, Digest, Manifest, Platform, Registry, Repository, Version, media_type};
use crate::registry::{Pull, Trust};

/// How long a client waits for the head of a response: containerd gives up after 30 s.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long to wait for the first bytes of a blob, so that a failure can still have its own status.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// Bytes read at once, equal to the span size of blobs.
pub(super) const PIECE: u64 = 1 << 20;

/// One upstream registry.
pub(super) struct Upstream {
    pub(super) prefix: String,
    pub(super) registry: Registry,
    pub(super) artifacts: Artifacts,
    pub(super) metrics: UpstreamMetrics,
    /// The clients' logins, if they are passed on.
    pub(super) passing: Option<Arc<Passing>>,
    pull: Arc<dyn Pull>,
    sizes: Arc<Sizes>,
    asking: Flight<(Repository, Digest), Result<u64, Error>>,
    started: Instant,
}

/// A manifest, with its age if the upstream could not confirm it.
pub(super) struct Found {
    pub(super) manifest: Arc<Manifest>,
    pub(super) source: Source,
    pub(super) stale: Option<Duration>,
}

impl Upstream {
    pub(super) fn new(config: UpstreamConfig, cache: &SpanCache, metrics: UpstreamMetrics) -> Self {
        let UpstreamConfig { prefix, registry, pull, budget, io_timeout, tag_ttl, pass_credentials } = config;
        let passing = pass_credentials.map(|passing| Passing::new(passing, &*pull, metrics.clone()));
        let pull: Arc<dyn Pull> = match &passing {
            Some(passing) => passing.relay.clone(),
            None => Arc::new(Metered::new(pull, metrics.clone())),
        };
        let mut reading = content::Config::new(Arc::clone(&pull), cache.clone());
        (reading.verify, reading.budget, reading.io_timeout) = (VerifyPolicy::Relayed, budget, io_timeout);
        let (platform, view) = (Platform::host(), ViewMode::Merged);
        let options = Options {
            tag_ttl,
            platform,
            view,
            offline: false,
            strict: false,
            trust_referrers: false,
            access_order: false,
            repositories: Vec::new(),
        };
        let artifacts = Artifacts::new(Arc::clone(&pull), Contents::new(reading), cache.clone(), options);
        let sizes = Arc::new(Sizes::new(cache.clone(), pull.origin()));
        Self { prefix, registry, artifacts, metrics, passing, pull, sizes, asking: Flight::default(), started: Instant::now() }
    }

    /// Maps a name here to the upstream's repository, without the prefix. Docker Hub keeps plain names below `library`.
    pub(super) fn repository(&self, name: &str) -> Result<Repository, Problem> {
        let whole =
            if self.registry == Registry::docker_hub() && !name.contains('/') { format!("library/{name}") } else { name.to_owned() };
        Repository::parse(&whole).map_err(|error| Problem::bad(Code::NameInvalid, error.to_string()))
    }

    /// Admits a client to the object a route names, if logins are passed on.
    ///
    /// # Errors
    /// Those of the upstream: 401 for an anonymous client, 403 for a user, 404.
    pub(super) async fn admit(&self, client: &Client, repository: &Repository, route: &Route) -> Result<(), Problem> {
        let Some(passing) = &self.passing else { return Ok(()) };
        let login = client.login.as_ref().ok_or_else(unknown_user)?;
        let absent = match route {
            Route::Blob(..) => Code::BlobUnknown,
            Route::Tags(_) => Code::NameUnknown,
            _ => Code::ManifestUnknown,
        };
        passing.admit(login, repository, route).await.map_err(|error| match error.kind {
            ErrorKind::Denied if client.user.is_none() => unknown_user(),
            _ => self.problem(error.kind, &error.message, absent),
        })
    }

    /// Checks, before the response, that an admitted client has not been refused since.
    ///
    /// # Errors
    /// 401 or 403: the upstream refused its login in the meantime.
    pub(super) fn confirm(&self, client: &Client, repository: &Repository, route: &Route) -> Result<(), Problem> {
        let (Some(_), Some(login)) = (&self.passing, &client.login) else { return Ok(()) };
        Passing::confirm(login, repository, route).map_err(|error| match client.user {
            None => unknown_user(),
            Some(_) => self.problem(error.kind, &error.message, Code::Denied),
        })
    }

    /// A manifest. By tag, the current one, or the last known one if the upstream is unreachable.
    pub(super) async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Found, Problem> {
        let (found, waited) = waiting(self.in_time(self.look_up(repository, version))).await;
        let (manifest, stale) = found?;
        let source = match stale {
            Some(_) => Source::Stale,
            None if waited => Source::Upstream,
            None => Source::Cache,
        };
        Ok(Found { manifest, source, stale })
    }

    /// A manifest, with its age if the upstream could not confirm it.
    async fn look_up(&self, repository: &Repository, version: &Version) -> Result<(Arc<Manifest>, Option<Duration>), Error> {
        let asked = Instant::now();
        let (digest, stale) = match version {
            Version::Digest(digest) => (*digest, None),
            Version::Tag(tag) => {
                let digest = self.artifacts.tag(repository, tag).await?;
                // Facts from before this process started are at least that old.
                let age = self.artifacts.tag_age(repository, tag).unwrap_or_else(|| self.started.elapsed());
                let confirmed = age <= asked.elapsed() || age < self.artifacts.options().tag_ttl;
                (digest, (!confirmed).then_some(age))
            }
        };
        Ok((self.artifacts.manifest(repository, &digest).await?, stale))
    }

    /// The size of a blob if the repository has it, and whether the upstream was asked.
    pub(super) async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<(u64, Source), Problem> {
        let (sizes, key) = (Arc::clone(&self.sizes), (repository.clone(), *digest));
        let known = spawn_blocking(move || sizes.get(&key.0, &key.1)).await.ok().flatten();
        if let Some(size) = known {
            return Ok((size, Source::Cache));
        }
        let key = (repository.clone(), *digest);
        let asking = self.asking.run(
            key.clone(),
            || self.sizes.known(&key).map(Ok),
            || {
                let (pull, sizes, key) = (Arc::clone(&self.pull), Arc::clone(&self.sizes), key.clone());
                async move {
                    let size = pull.blob_size(&key.0, &key.1).await?;
                    spawn_blocking(move || sizes.put(&key.0, &key.1, size)).await?;
                    Ok(size)
                }
            },
        );
        let answer = tokio::time::timeout(PATIENCE, asking).await.map_err(|_| late())?;
        let answer = answer.map_err(|error| Problem::of(ErrorKind::Other, error.to_string(), Code::BlobUnknown))?;
        let size = answer.map_err(|error| self.problem(error.kind, &error.message, Code::BlobUnknown))?;
        Ok((size, Source::Upstream))
    }

    /// A blob that the repository has with this size.
    pub(super) async fn blob(&self, repository: &Repository, digest: &Digest, size: u64) -> Result<ContentStream, Problem> {
        let descriptor = Descriptor::new(media_type::OCTET_STREAM, *digest, size);
        let content = self.artifacts.blob(repository, &descriptor, false).await;
        content.map_err(|error| self.problem(error.kind, &error.message, Code::BlobUnknown))
    }

    /// The first bytes of a range if they arrive soon, so that an early failure can have its own status.
    pub(super) async fn first(&self, content: &ContentStream, start: u64, end: u64) -> Result<Option<bytes::Bytes>, Problem> {
        let reading = content.read(start..piece_end(start, end));
        match tokio::time::timeout(FIRST_BYTES, reading).await {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(error)) => Err(self.problem(error.kind, &error.message, Code::BlobUnknown)),
            Err(_) => Ok(None),
        }
    }

    /// The tags of a repository.
    pub(super) async fn tags(&self, repository: &Repository) -> Result<Listing, Problem> {
        self.in_time(self.artifacts.tags(repository)).await.map_err(|problem| match problem.code {
            Code::ManifestUnknown => Problem { code: Code::NameUnknown, ..problem },
            _ => problem,
        })
    }

    /// The known repositories, or those a client may see if logins are passed on.
    pub(super) async fn repositories(&self, client: &Client) -> Result<Listing, Problem> {
        let Some(passing) = &self.passing else { return self.in_time(self.artifacts.repositories()).await };
        let login = client.login.as_ref().ok_or_else(unknown_user)?;
        let found = passing.repositories(login).await;
        let (names, complete) = found.map_err(|error| self.problem(error.kind, &error.message, Code::NameUnknown))?;
        Ok(Listing { names: names.iter().map(ToString::to_string).collect(), complete })
    }

    /// The referrers of a digest; empty if the repository does not exist.
    pub(super) async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Arc<[Descriptor]>, Problem> {
        match self.in_time(self.artifacts.referrers(repository, subject)).await {
            Err(problem) if problem.status == axum::http::StatusCode::NOT_FOUND => Ok(Arc::new([])),
            answer => answer,
        }
    }

    /// Whether its transport is trusted to deliver the right bytes.
    pub(super) fn is_trusted(&self) -> bool {
        self.pull.trust() == Trust::Transport
    }

    /// Whether the upstream is currently known not to answer.
    pub(super) fn is_away(&self) -> bool {
        self.artifacts.is_away()
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Problem> {
        let answer = tokio::time::timeout(PATIENCE, work).await.map_err(|_| late())?;
        answer.map_err(|error| self.problem(error.kind, &error.message, Code::ManifestUnknown))
    }

    /// Maps a read error to a response.
    pub(super) fn problem(&self, kind: ErrorKind, message: &str, absent: Code) -> Problem {
        match self.pull.throttled() {
            Some(wait) if kind == ErrorKind::Unreachable => Problem::too_many(message, wait),
            _ => Problem::of(kind, message, absent),
        }
    }
}

fn late() -> Problem {
    Problem::of(ErrorKind::TimedOut, format!("the upstream registry did not answer within {} s", PATIENCE.as_secs()), Code::Unavailable)
}

/// Awaits a future and reports whether it had to wait: cached results are ready at once.
async fn waiting<F: Future>(future: F) -> (F::Output, bool) {
    let (mut future, mut waited) = (std::pin::pin!(future), false);
    let output = poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        waited |= polled.is_pending();
        polled
    });
    (output.await, waited)
}

/// The end of the piece that starts at an offset, on a span boundary.
pub(super) fn piece_end(start: u64, end: u64) -> u64 {
    ((start / PIECE + 1) * PIECE).min(end)
}
