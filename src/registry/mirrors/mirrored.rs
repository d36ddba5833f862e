//! A registry read through its mirrors.
//!
//! Each request goes to the mirrors in order, then to the authority: the registry itself, or the host that a file names instead. Only the
//! authority decides "not found". Wrong bytes are requested again from the authority. Lists come from the authority, and from mirrors only
//! while it is unreachable, since a mirror may be incomplete.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::candidate::{self, Candidate, is_outage, nowhere};
use super::client::{Client, Reaching};
use super::rules::{Authority, Endpoint, Rename, Rule, Rules, Security, SourceHost, Uses};
use super::transfer::Transfer;
use crate::bounded::BoundedMap;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Registry, Repository, Version};
use crate::registry::{BlobStream, Page, Pull, Resolved, Trust};

/// Most blobs remembered for wrong bytes on a mirror.
const WRONG: usize = 1024;
/// Most written repositories remembered.
const WRITTEN: usize = 1024;

/// A registry read through its mirrors. Cheap to clone.
#[derive(Clone)]
pub struct Mirrored {
    inner: Arc<Inner>,
}

struct Inner {
    rules: Arc<Rules>,
    /// The registry itself.
    own: Arc<Client>,
    /// Each with the rule it comes from.
    routes: Vec<(Rule, Route)>,
    /// Blobs that are read from the authority only.
    wrong: BoundedMap<Digest, (), WRONG>,
    /// Repositories whose tags only the registry itself resolves, since a mirror may not know the new ones yet.
    written: BoundedMap<Repository, (), WRITTEN>,
}

/// Where to read a repository.
#[derive(Clone)]
struct Route {
    mirrors: Vec<Arc<Client>>,
    /// Asked last; only their "not found" is final.
    authority: Vec<Arc<Client>>,
}

/// The requested object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Requested<'a> {
    /// The target of a tag.
    Tag,
    /// A manifest or blob.
    Content(&'a Digest),
}

impl Requested<'_> {
    fn of(version: &Version) -> Requested<'_> {
        match version {
            Version::Tag(_) => Requested::Tag,
            Version::Digest(digest) => Requested::Content(digest),
        }
    }
}

impl Route {
    fn of(rule: &Rule, own: &Arc<dyn Pull>, registry: &Registry, reaching: &Reaching) -> Result<Self, Error> {
        let mut mirrors = Vec::new();
        for place in &rule.mirrors {
            mirrors.extend(Client::of(place, registry, false, reaching)?.into_iter().map(Arc::new));
        }
        let authority: Vec<Arc<Client>> = match &rule.authority {
            Authority::Own(rename) => {
                let mut clients = vec![Client::own(Arc::clone(own), rename.clone())];
                if rule.insecure && own.origin().starts_with("https:") {
                    let uses = Uses { tags: true, content: true };
                    let plain = SourceHost { endpoint: Endpoint::new(registry.clone(), Security::Plain), uses, rename: rename.clone() };
                    clients.extend(Client::of(&plain, registry, true, reaching)?);
                }
                clients.into_iter().map(Arc::new).collect()
            }
            Authority::Elsewhere(place) => Client::of(place, registry, true, reaching)?.into_iter().map(Arc::new).collect(),
        };
        let names = |clients: &[Arc<Client>]| clients.iter().map(|client| client.name.clone()).collect::<Vec<_>>().join(", ");
        let file = rule.file.display().to_string();
        tracing::info!("{}: {registry} is read from {}", file.escape_debug(), names(&[mirrors.as_slice(), &authority].concat()));
        Ok(Self { mirrors, authority })
    }
}

impl Mirrored {
    /// Reads `own` through the mirrors of the rules; `own` itself if they redirect nothing.
    ///
    /// # Errors
    /// Invalid for unusable certificate files or headers of a mirror.
    pub fn over(own: Arc<dyn Pull>, registry: &Registry, rules: Arc<Rules>, reaching: &Reaching) -> Result<Arc<dyn Pull>, Error> {
        if !rules.redirects() {
            return Ok(own);
        }
        let itself = Arc::new(Client::own(Arc::clone(&own), Rename::default()));
        let mut routes = Vec::new();
        for rule in rules.redirecting() {
            routes.push((rule.clone(), Route::of(rule, &own, registry, reaching)?));
        }
        // An insecure registry on this machine already uses plain HTTP.
        if routes.iter().all(|(rule, route)| route.mirrors.is_empty() && route.authority.len() == 1 && rule.is_own()) {
            return Ok(own);
        }
        let inner = Inner { rules, own: itself, routes, wrong: BoundedMap::default(), written: BoundedMap::default() };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    fn route(&self, repository: Option<&Repository>) -> Route {
        let rule = self.inner.rules.rule(repository);
        let found = rule.and_then(|rule| self.inner.routes.iter().find(|(known, _)| known == rule));
        let own = || Route { mirrors: Vec::new(), authority: vec![Arc::clone(&self.inner.own)] };
        found.map_or_else(own, |(_, route)| route.clone())
    }

    /// The sources to ask, in order; never empty.
    fn candidates(&self, repository: &Repository, wanted: Requested<'_>) -> Result<Vec<Candidate>, Error> {
        self.inner.rules.check(Some(repository))?;
        if wanted == Requested::Tag && self.inner.written.get(repository).is_some() {
            let (client, repository) = (Arc::clone(&self.inner.own), repository.clone());
            return Ok(vec![Candidate { client, repository, is_authority: true }]);
        }
        let route = self.route(Some(repository));
        let is_wrong = matches!(wanted, Requested::Content(digest) if self.inner.wrong.get(digest).is_some());
        let serves = |client: &&Arc<Client>| !is_wrong && if wanted == Requested::Tag { client.uses.tags } else { client.uses.content };
        let mirrors = route.mirrors.iter().filter(serves).filter(|client| client.health.may_be_asked()).map(|client| (client, false));
        let all = mirrors.chain(route.authority.iter().map(|client| (client, true)));
        let found: Vec<Candidate> = all
            .filter_map(|(client, is_authority)| {
                Some(Candidate { repository: client.repository(repository)?, client: Arc::clone(client), is_authority })
            })
            .collect();
        if found.iter().any(|candidate| candidate.is_authority) {
            return Ok(found);
        }
        Err(Error::new(ErrorKind::NotFound, format!("repository {repository} has no valid name on the host that replaces its registry")))
    }

    /// Asks the sources one after the other; the authority's error is reported.
    async fn ask<T>(
        &self,
        repository: &Repository,
        wanted: Requested<'_>,
        ask: impl Fn(Arc<dyn Pull>, Repository) -> BoxFuture<'static, Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut candidates = self.candidates(repository, wanted)?.into_iter();
        candidate::first(&mut candidates, None, ask).await.map(|(_, answer)| answer)
    }

    /// Whether a mirror serves the content of a repository but none serves its tags.
    fn has_only_content(&self, repository: &Repository) -> bool {
        let mirrors = self.route(Some(repository)).mirrors;
        let well = || mirrors.iter().filter(|client| client.health.is_well());
        well().any(|client| client.uses.content) && !well().any(|client| client.uses.tags)
    }

    /// Asks the authority, or the mirrors while it is unreachable. A cursor belongs to the source it came from.
    async fn list<T>(
        &self,
        repository: &Repository,
        at: Option<usize>,
        ask: impl Fn(Arc<dyn Pull>, Repository) -> BoxFuture<'static, Result<T, Error>>,
    ) -> Result<(usize, T), Error> {
        let mut candidates: Vec<(usize, Candidate)> = self.candidates(repository, Requested::Tag)?.into_iter().enumerate().collect();
        candidates.sort_by_key(|(_, candidate)| !candidate.is_authority);
        let mut failure: Option<Error> = None;
        for (number, candidate) in candidates.into_iter().filter(|(number, _)| at.is_none_or(|at| at == *number)) {
            match ask(Arc::clone(&candidate.client.pull), candidate.repository.clone()).await {
                Ok(answer) => {
                    candidate.answered();
                    return Ok((number, answer));
                }
                Err(error) if candidate.is_authority && !is_outage(&error) => return Err(error),
                Err(error) => {
                    candidate.failed(&error);
                    failure = failure.or(Some(error));
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Conflict, format!("the list of {repository} changed while it was read"))))
    }
}

#[async_trait]
impl Pull for Mirrored {
    fn origin(&self) -> &str {
        self.inner.own.pull.origin()
    }

    fn trust(&self) -> Trust {
        Trust::Digest
    }

    /// Succeeds if a mirror with tags and content answers, else with the authority's answer.
    async fn ping(&self, about: Option<&Repository>) -> Result<(), Error> {
        self.inner.rules.check(about)?;
        let route = self.route(about);
        let whole = |client: &&Arc<Client>| client.uses.tags && client.uses.content && client.health.may_be_asked();
        for client in route.mirrors.iter().filter(whole) {
            match client.pull.ping(about.and_then(|about| client.repository(about)).as_ref()).await {
                Ok(()) => {
                    client.answered();
                    return Ok(());
                }
                Err(error) => client.failed(&error),
            }
        }
        let mut failure = None;
        for client in &route.authority {
            match client.pull.ping(about.and_then(|about| client.repository(about)).as_ref()).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(nowhere))
    }

    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error> {
        let ask = |pull: Arc<dyn Pull>, repository: Repository| -> BoxFuture<'static, _> {
            let version = version.clone();
            Box::pin(async move { pull.resolve(&repository, &version).await })
        };
        self.ask(repository, Requested::of(version), ask).await
    }

    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error> {
        if matches!(version, Version::Tag(_)) && self.has_only_content(repository) {
            let digest = self.resolve(repository, version).await?.digest;
            return self.manifest(repository, &Version::Digest(digest)).await;
        }
        let ask = |pull: Arc<dyn Pull>, repository: Repository| -> BoxFuture<'static, _> {
            let version = version.clone();
            Box::pin(async move { pull.manifest(&repository, &version).await })
        };
        self.ask(repository, Requested::of(version), ask).await
    }

    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        let candidates = self.candidates(repository, Requested::Content(&descriptor.digest))?;
        Ok(Transfer::open(candidates, descriptor, range).await?.stream())
    }

    async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        let ask = |pull: Arc<dyn Pull>, repository: Repository| -> BoxFuture<'static, _> {
            let digest = *digest;
            Box::pin(async move { pull.blob_size(&repository, &digest).await })
        };
        self.ask(repository, Requested::Content(digest), ask).await
    }

    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error> {
        let cursor = after.and_then(|after| after.split_once(' '));
        let at = cursor.and_then(|(at, _)| at.parse().ok());
        let after = cursor.map(|(_, after)| after.to_owned());
        let ask = |pull: Arc<dyn Pull>, repository: Repository| -> BoxFuture<'static, _> {
            let after = after.clone();
            Box::pin(async move { pull.tags(&repository, after.as_deref()).await })
        };
        let (at, page) = self.list(repository, at, ask).await?;
        Ok(Page { next: page.next.map(|next| format!("{at} {next}")), ..page })
    }

    async fn repositories(&self, after: Option<&str>) -> Result<Page, Error> {
        self.inner.rules.check(None)?;
        // Repositories may have other names on other hosts.
        if self.route(None).authority.iter().any(|client| client.pull.origin() != self.origin()) {
            return Err(Error::new(ErrorKind::Unsupported, format!("repositories of {}: they are served by another host", self.origin())));
        }
        self.inner.own.pull.repositories(after).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let ask = |pull: Arc<dyn Pull>, repository: Repository| -> BoxFuture<'static, _> {
            let subject = *subject;
            Box::pin(async move { pull.referrers(&repository, &subject).await })
        };
        self.list(repository, None, ask).await.map(|(_, found)| found)
    }

    /// Never, while a mirror answers.
    fn away_since(&self) -> Option<Instant> {
        let mut mirrors = self.inner.routes.iter().flat_map(|(_, route)| &route.mirrors);
        let answers = mirrors.any(|client| client.uses.tags && client.uses.content && client.health.is_well());
        if answers { None } else { self.inner.own.pull.away_since() }
    }

    fn unanswered(&self) -> Option<Error> {
        self.inner.own.pull.unanswered()
    }

    fn throttled(&self) -> Option<Duration> {
        self.inner.own.pull.throttled()
    }

    fn ignores_ranges(&self) -> bool {
        let routed = self.inner.routes.iter().flat_map(|(_, route)| route.mirrors.iter().chain(&route.authority));
        routed.chain([&self.inner.own]).any(|client| client.pull.ignores_ranges())
    }

    fn report_wrong_bytes(&self, repository: &Repository, digest: &Digest) -> bool {
        let has_mirrors = !self.route(Some(repository)).mirrors.is_empty();
        if has_mirrors {
            tracing::warn!("a mirror has wrong bytes for {repository}@{digest}; reading it from {} instead", self.origin());
            self.inner.wrong.put(*digest, ());
        }
        has_mirrors
    }

    fn report_written(&self, repository: &Repository) {
        self.inner.written.put(repository.clone(), ());
    }
}
