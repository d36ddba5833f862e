//! Builds the `Authorization` header of a request: remembers the registry's challenge, finds the credential, gets the token.
//!
//! Guarantees: a credential goes to the registry's own origin, or to a token server that [`origin::realm`] trusts; any other token server
//! gets a request without credentials, and the error says so. The registry can have tokens requested only for its own service, the
//! repository of the request, and no more than the operation needs. After a refusal the credential is looked up again and a new token
//! requested, once.

use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::super::credentials::{Credential, CredentialScope, Credentials, Found, Secret};
use super::challenge::Challenge;
use super::clients::Clients;
use super::header::{basic, bearer};
use super::origin::{self, Origin, TrustedRealm};
use super::retry::{Failure, Timing};
use super::token::{Key, Tokens};
use crate::bounded::BoundedMap;
use crate::error::{Error, ErrorKind};
use crate::oci::{Registry, Repository};

/// Scopes that a registry demanded other than the expected ones.
const LEARNED: usize = 4096;

/// The scope of a request, for access control.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// The registry itself, accessed for this repository or prefix, which decides the credentials.
    Ping(Option<Repository>),
    /// Manifests and blobs of a repository.
    Content(Repository),
    /// The tags of a repository; some registries have a separate scope for them.
    Tags(Repository),
    /// The list of repositories.
    Catalog,
    /// Writing to a repository.
    Push(Repository),
    /// Mounting a blob of another repository.
    Mount { to: Repository, from: Repository },
    /// Deleting from a repository.
    Delete(Repository),
}

impl Scope {
    /// The repository that it is about.
    pub(super) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Content(repository) | Self::Tags(repository) | Self::Push(repository) | Self::Delete(repository) => Some(repository),
            Self::Mount { to, .. } => Some(to),
            Self::Ping(about) => about.as_ref(),
            Self::Catalog => None,
        }
    }

    /// The scope in token-server syntax.
    fn text(&self) -> Option<String> {
        match self {
            Self::Ping(_) => None,
            Self::Catalog => Some("registry:catalog:*".to_owned()),
            Self::Content(repository) | Self::Tags(repository) => Some(format!("repository:{repository}:pull")),
            Self::Push(repository) => Some(format!("repository:{repository}:pull,push")),
            Self::Mount { to, from } => Some(format!("repository:{to}:pull,push repository:{from}:pull")),
            Self::Delete(repository) => Some(format!("repository:{repository}:pull,push,delete")),
        }
    }

    /// The scope to request instead of the expected one: the part of the registry's demand that lists need under another name. `None` if the
    /// expected text is right.
    fn instead(&self, wanted: &str) -> Option<String> {
        let allowed = match self {
            // Azure's spelling.
            Self::Tags(repository) => format!("repository:{repository}:pull,metadata_read"),
            Self::Catalog => self.text()?,
            _ => return None,
        };
        Some(common(&allowed, wanted)).filter(|common| !common.is_empty() && Some(common) != self.text().as_ref())
    }
}

/// The part of `wanted` that a single scope `type:name:actions` permits; the action `*` permits all.
fn common(allowed: &str, wanted: &str) -> String {
    let Some((name, actions)) = allowed.rsplit_once(':') else { return String::new() };
    let is_allowed = |action: &&str| !action.is_empty() && actions.split(',').any(|allowed| allowed == "*" || allowed == *action);
    let wanted = wanted.split_ascii_whitespace().filter_map(|scope| scope.rsplit_once(':')).filter(|(wanted, _)| *wanted == name);
    let common: Vec<&str> = wanted.flat_map(|(_, actions)| actions.split(',')).filter(is_allowed).collect();
    if common.is_empty() { String::new() } else { format!("{name}:{}", common.join(",")) }
}

/// The authorization sent with a request, for comparison after a refusal.
#[derive(Clone)]
pub(super) struct Authorization {
    pub(super) header: HeaderValue,
    token: Option<Secret>,
    credential: [u8; 32],
}

/// The registry's last challenge.
#[derive(Clone)]
enum Asked {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Asked {
    fn of(challenge: &Challenge) -> Self {
        match challenge {
            Challenge::Basic => Self::Basic,
            Challenge::Bearer { realm, service, .. } => Self::Bearer { realm: realm.clone(), service: service.clone() },
        }
    }
}

/// Authorization for one registry.
pub(super) struct Authorizer {
    pub(super) registry: Registry,
    pub(super) own: Origin,
    pub(super) credentials: Arc<Credentials>,
    pub(super) trusted_realms: Vec<TrustedRealm>,
    pub(super) timing: Timing,
    tokens: Tokens,
    /// Never held across an await.
    asked: Mutex<Option<Asked>>,
    /// Never held across an await, nor together with `asked`.
    learned: BoundedMap<Scope, String, LEARNED>,
}

impl Authorizer {
    pub(super) fn new(
        registry: Registry,
        own: Origin,
        credentials: Arc<Credentials>,
        trusted_realms: Vec<TrustedRealm>,
        timing: Timing,
    ) -> Self {
        Self {
            registry,
            own,
            credentials,
            trusted_realms,
            timing,
            tokens: Tokens::default(),
            asked: Mutex::default(),
            learned: BoundedMap::default(),
        }
    }

    /// The authorization for a request, from what is known about the registry.
    pub(super) async fn known(&self, scope: &Scope, clients: &Clients) -> Result<Option<Authorization>, Failure> {
        let asked = self.asked.lock().clone();
        match asked {
            None => Ok(None),
            Some(asked) => self.answer(&asked, scope, None, clients).await,
        }
    }

    /// The authorization after a refusal with these challenges; `None` if there is nothing new to send.
    pub(super) async fn renewed(
        &self,
        scope: &Scope,
        challenges: &[Challenge],
        sent: Option<&Authorization>,
        clients: &Clients,
    ) -> Result<Option<Authorization>, Failure> {
        let mut ranked: Vec<&Challenge> = challenges.iter().collect();
        ranked.sort_by_key(|challenge| self.rank(challenge));
        if let Some(best) = ranked.first() {
            self.remember(Asked::of(best));
        }
        let mut refusal = None;
        for challenge in ranked {
            if let Challenge::Bearer { scope: wanted, .. } = challenge {
                self.learn(scope, wanted.as_deref());
            }
            let asked = Asked::of(challenge);
            match self.answer(&asked, scope, sent, clients).await {
                // The same header would be refused again.
                Ok(Some(answer)) if sent.is_none_or(|sent| sent.header != answer.header) => {
                    self.remember(asked);
                    return Ok(Some(answer));
                }
                Ok(_) => {}
                Err(Failure::Final(error)) if error.kind == ErrorKind::Denied => refusal = refusal.or(Some(error)),
                Err(failure) => return Err(failure),
            }
        }
        refusal.map_or(Ok(None), |error| Err(Failure::Final(error)))
    }

    /// The order in which to try challenges. Sending credentials to the registry itself is better than not at all.
    fn rank(&self, challenge: &Challenge) -> u8 {
        match challenge {
            Challenge::Basic => 1,
            Challenge::Bearer { realm, .. } => match origin::realm(&self.registry, &self.own, realm, &self.trusted_realms) {
                Ok(realm) if realm.trusted => 0,
                Ok(_) => 2,
                Err(_) => 3,
            },
        }
    }

    fn remember(&self, asked: Asked) {
        *self.asked.lock() = Some(asked);
    }

    /// For the message of a refusal: whether a credential is stored, and what went wrong in the lookup.
    pub(super) async fn explain(&self, scope: &Scope) -> String {
        let found = match self.find(scope, false).await {
            Ok(found) => found,
            Err(error) => return format!("; {error}"),
        };
        let mut text = match (&found.credential, &found.source) {
            (Credential::Anonymous, _) => {
                format!("; no credentials are stored for {0} (`ocifs login {0}`, or log in with docker, podman or oras)", self.registry)
            }
            (_, Some(source)) => format!("; the credentials came from {source}"),
            (_, None) => String::new(),
        };
        if let (Some(realm), false) = (self.foreign_realm(), matches!(found.credential, Credential::Anonymous)) {
            text.push_str(&format!(
                "; they were not sent, since the token server {} is not known to belong to {}; if it does, use --trusted-realm {}",
                realm.0, self.own, realm.1,
            ));
        }
        for note in found.notes {
            text.push_str("; ");
            text.push_str(&note);
        }
        text
    }

    /// Whether the registry hands out tokens and no credentials are stored for it: then access is decided per repository.
    pub(super) async fn lets_anybody_ask(&self, scope: &Scope) -> bool {
        let bearer = matches!(*self.asked.lock(), Some(Asked::Bearer { .. }));
        bearer && self.find(scope, false).await.is_ok_and(|found| found.credential == Credential::Anonymous && found.notes.is_empty())
    }

    /// Whether the registry, or a token server that belongs to it, got the credentials; false if it did not ask for any.
    ///
    /// # Errors
    /// Denied if they were withheld from a token server that is not known to belong to the registry.
    pub(super) async fn was_shown(&self, scope: &Scope) -> Result<bool, Error> {
        if self.foreign_realm().is_some() {
            let message = format!("registry {}: the credentials could not be checked{}", self.registry, self.explain(scope).await);
            return Err(Error::new(ErrorKind::Denied, message));
        }
        Ok(self.asked.lock().is_some())
    }

    /// The token server that was asked without credentials.
    fn foreign_realm(&self) -> Option<(String, Origin)> {
        let asked = self.asked.lock().clone()?;
        match asked {
            Asked::Basic => None,
            Asked::Bearer { realm, .. } => {
                let realm = origin::realm(&self.registry, &self.own, &realm, &self.trusted_realms).ok()?;
                Origin::of(&realm.url).filter(|_| !realm.trusted).map(|origin| (origin::shown(&realm.url), origin))
            }
        }
    }

    fn learn(&self, scope: &Scope, wanted: Option<&str>) {
        match wanted.and_then(|wanted| scope.instead(wanted)) {
            Some(instead) => self.learned.put(scope.clone(), instead),
            None => drop(self.learned.remove(scope)),
        }
    }

    async fn find(&self, scope: &Scope, fresh: bool) -> Result<Found, Error> {
        let place = CredentialScope { registry: &self.registry, repository: scope.repository(), tls: self.own.is_tls() };
        self.credentials.find(place, fresh).await
    }

    async fn answer(
        &self,
        asked: &Asked,
        scope: &Scope,
        refused: Option<&Authorization>,
        clients: &Clients,
    ) -> Result<Option<Authorization>, Failure> {
        // Ask the helper again only if its earlier answer was refused.
        let mut found = self.find(scope, false).await.map_err(Failure::Final)?;
        if refused.is_some_and(|refused| refused.credential == found.credential.id()) {
            found = self.find(scope, true).await.map_err(Failure::Final)?;
        }
        let credential = found.credential.id();
        let header = match (asked, found.credential) {
            (_, Credential::RegistryToken(token)) => bearer(&token),
            (Asked::Basic, Credential::Password { user, password }) => basic(&user, &password),
            (Asked::Basic, _) => return Ok(None),
            (Asked::Bearer { realm, service }, credential) => {
                let stale = refused.and_then(|refused| refused.token.as_ref());
                return self.by_token((realm.as_str(), service.as_deref()), scope, credential, stale, clients).await.map(Some);
            }
        };
        Ok(Some(Authorization { header: header.map_err(Failure::Final)?, token: None, credential }))
    }

    /// The authorization by a token of the token server that the registry named, by realm and service.
    async fn by_token(
        &self,
        (realm, service): (&str, Option<&str>),
        scope: &Scope,
        credential: Credential,
        stale: Option<&Secret>,
        clients: &Clients,
    ) -> Result<Authorization, Failure> {
        let id = credential.id();
        let judged = origin::realm(&self.registry, &self.own, realm, &self.trusted_realms);
        let judged = judged.map_err(|why| Failure::Final(Error::new(ErrorKind::Denied, format!("{}: {why}", self.own))))?;
        let credential = if judged.trusted { credential } else { Credential::Anonymous };
        if credential != Credential::Anonymous {
            self.keep_apart(&judged.url, service)?;
        }
        let key = Key {
            realm: judged.url.to_string(),
            service: service.map(str::to_owned),
            scope: self.learned.get(scope).or_else(|| scope.text()),
            credential: credential.id(),
        };
        let client = clients.of(&self.origin_of(&judged.url)?, judged.trusted).map_err(Failure::Final)?;
        let token = self.tokens.get(key, credential, stale, client, self.timing).await?;
        Ok(Authorization { header: bearer(&token.secret).map_err(Failure::Final)?, token: Some(token.secret), credential: id })
    }

    /// Refuses to ask a token server shared by several registries for another registry's token.
    fn keep_apart(&self, realm: &Url, service: Option<&str>) -> Result<(), Failure> {
        let (origin, service) = (self.origin_of(realm)?, service.unwrap_or_default());
        if origin == self.own || origin::may_serve(&self.registry, &origin, service, &self.trusted_realms) {
            return Ok(());
        }
        let service = super::answer::escaped(service);
        let message = format!(
            "{}: it asks for a token of the service `{service}` at {origin}, which seems to be another registry's; if it \
             is this one's, use --trusted-realm {origin}?service={service}",
            self.own,
        );
        Err(Failure::Final(Error::new(ErrorKind::Denied, message)))
    }

    fn origin_of(&self, url: &Url) -> Result<Origin, Failure> {
        Origin::of(url).ok_or_else(|| Failure::Final(Error::new(ErrorKind::Invalid, "a token server without a host")))
    }
}
