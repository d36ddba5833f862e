//! Passes clients' logins on to the upstream, which decides who they are and what each may read.
//!
//! A login is kept under a keyed hash for [`PassCredentials::ttl`] after the upstream accepted it, together with what it may read.
//! The password exists only in the login's own client of the upstream, which wipes it when dropped.

mod admission;
mod login;
mod relay;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, header};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::access::unknown_user;
use super::basic::{Basic, KeyedHash, basic};
use super::metered::Metered;
use super::metrics::UpstreamMetrics;
use super::problem::{Code, Problem};
use crate::bounded::BoundedMap;
use crate::error::{Error, ErrorKind};
use crate::flight::Flight;
use crate::registry::{Credential, HttpRegistry, Pull};

pub(super) use login::Login;
pub(super) use relay::Relay;

/// Most logins remembered; the oldest are dropped and checked again when used.
const LOGINS: usize = 10_000;
/// Logins checked concurrently.
const CHECKING: usize = 16;
/// How long a client waits for the check.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long a wrong password is refused without asking, so that a client repeating it does not lock the account upstream.
const REFUSED: Duration = Duration::from_secs(10);

type Key = [u8; 32];

/// An upstream reached with one client's credentials.
#[async_trait]
pub trait Account: Pull {
    /// Whether the upstream accepted the login; false if it requires none.
    ///
    /// # Errors
    /// Denied if the upstream refuses it.
    async fn is_accepted(&self) -> Result<bool, Error>;
}

#[async_trait]
impl Account for HttpRegistry {
    async fn is_accepted(&self) -> Result<bool, Error> {
        self.check_login().await
    }
}

/// Reaches the upstream with these credentials and none of our own. Sends nothing.
pub type Connect = Box<dyn Fn(Credential) -> Result<Arc<dyn Account>, Error> + Send + Sync>;

/// Configures how clients' logins are passed on.
pub struct PassCredentials {
    /// How long the upstream's answers about a login are trusted.
    pub ttl: Duration,
    /// Opens the upstream for given credentials.
    pub connect: Connect,
}

/// The logins of one upstream.
pub(super) struct Passing {
    config: PassCredentials,
    metrics: UpstreamMetrics,
    hash: KeyedHash,
    /// Held only for a lookup.
    logins: Mutex<HashMap<Key, Arc<Login>>>,
    /// Wrong passwords, and until when they are refused.
    refused: BoundedMap<Key, Instant, LOGINS>,
    checking: Flight<Key, Result<Arc<Login>, Problem>>,
    places: Semaphore,
    pub(super) relay: Arc<Relay>,
    /// For the tasks that forget expired logins.
    me: Weak<Self>,
}

impl Passing {
    /// Starts without logins. `base` is the upstream without credentials.
    pub(super) fn new(config: PassCredentials, base: &dyn Pull, metrics: UpstreamMetrics) -> Arc<Self> {
        let relay = Arc::new(Relay::new(base));
        Arc::new_cyclic(|me| Self {
            config,
            metrics,
            hash: KeyedHash::default(),
            logins: Mutex::default(),
            refused: BoundedMap::default(),
            checking: Flight::default(),
            places: Semaphore::new(CHECKING),
            relay,
            me: Weak::clone(me),
        })
    }

    /// The login of a request, once the upstream has accepted it; `None` if the request has none.
    ///
    /// # Errors
    /// 401 for a login that the upstream refuses or does not require; other errors if the upstream cannot be reached.
    pub(super) async fn login(&self, headers: &HeaderMap) -> Result<Option<Arc<Login>>, Problem> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let Basic { user, password } = value.to_str().ok().and_then(basic).ok_or_else(unknown_user)?;
        // Clients without a login send these in answer to a challenge.
        if user.is_empty() && password.expose().is_empty() {
            return Ok(None);
        }
        if user.is_empty() {
            return Err(unknown_user());
        }
        let key = self.hash.of(&user, &password);
        if let Some(known) = self.known(&key)? {
            return Ok(Some(known));
        }
        let known = || self.known(&key).transpose();
        let checked = self.checking.run(key, known, || {
            let me = Weak::clone(&self.me);
            async move {
                let Some(me) = me.upgrade() else { return Err(unknown_user()) };
                let credential = Credential::Password { user: user.clone(), password };
                me.check(key, user, credential).await
            }
        });
        checked.await.map_err(|error| Problem::of(ErrorKind::Other, error.to_string(), Code::Unknown))?.map(Some)
    }

    /// The login of anonymous clients: it reads what the upstream shows everybody.
    pub(super) fn stranger(&self) -> Result<Arc<Login>, Problem> {
        let key = Key::default();
        match self.known(&key)? {
            Some(known) => Ok(known),
            None => Ok(self.keep(key, self.connect(None, Credential::Anonymous)?.1, Instant::now())),
        }
    }

    fn known(&self, key: &Key) -> Result<Option<Arc<Login>>, Problem> {
        if self.refused.get_if(key, |until| *until > Instant::now()).is_some() {
            return Err(unknown_user());
        }
        Ok(self.logins.lock().get(key).filter(|login| login.until > Instant::now()).cloned())
    }

    fn connect(&self, user: Option<String>, credential: Credential) -> Result<(Arc<dyn Account>, Login), Problem> {
        let account = (self.config.connect)(credential).map_err(|error| Problem::of(error.kind, error.message, Code::Unknown))?;
        let pull = Arc::new(Metered::new(account.clone(), self.metrics.clone()));
        Ok((account, Login::new(user, pull)))
    }

    async fn check(&self, key: Key, user: String, credential: Credential) -> Result<Arc<Login>, Problem> {
        let asked = Instant::now();
        let (account, login) = self.connect(Some(user), credential)?;
        let checking = async {
            let _place = self.places.acquire().await;
            account.is_accepted().await
        };
        let checked = tokio::time::timeout(PATIENCE, checking).await;
        let late = || Error::new(ErrorKind::TimedOut, format!("{} did not answer in time", account.origin().escape_default()));
        match checked.map_err(|_| late()).flatten() {
            Ok(true) => Ok(self.keep(key, login, asked)),
            Ok(false) => {
                tracing::warn!("{} requires no login, so it cannot verify one; refusing it", account.origin().escape_default());
                Err(unknown_user())
            }
            Err(error) if error.kind == ErrorKind::Denied => {
                self.refused.put(key, Instant::now() + REFUSED);
                Err(unknown_user())
            }
            Err(error) => Err(Problem::of(error.kind, error.message, Code::Unavailable)),
        }
    }

    /// Keeps a login until it expires, counting from when the upstream was asked.
    fn keep(&self, key: Key, mut login: Login, asked: Instant) -> Arc<Login> {
        login.until = asked + self.config.ttl;
        let login = Arc::new(login);
        let mut logins = self.logins.lock();
        if logins.len() >= LOGINS
            && let Some(oldest) = logins.iter().min_by_key(|(_, login)| login.until).map(|(key, _)| *key)
        {
            logins.remove(&oldest);
        }
        logins.insert(key, Arc::clone(&login));
        let (me, until) = (Weak::clone(&self.me), login.until);
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(me) = me.upgrade() {
                me.logins.lock().retain(|_, login| login.until > until);
                me.relay.forget_gone();
            }
        });
        login
    }
}
