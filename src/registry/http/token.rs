//! Bearer tokens: requested from a token server, cached until shortly before they expire, one request at a time.
//!
//! <https://distribution.github.io/distribution/spec/auth/token/> and `/oauth/`. The caller has checked the realm; this file sends the
//! credential it is given and nothing else. Responses are at most 64 KiB; redirects of a token server are not followed.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Number;
use tokio::time::Instant;

use super::super::credentials::{Credential, Secret};
use super::answer;
use super::header::basic;
use super::origin::shown;
use super::retry::{Attempts, Cause, Failure, Timing, is_passing, told_wait};
use crate::bounded::BoundedMap;
use crate::error::{Error, ErrorKind};
use crate::flight::Flight;

/// Largest response of a token server, in bytes.
const LIMIT: u64 = 64 << 10;
/// The lifetime of a token if its server gives none.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Longest token lifetime accepted, in seconds.
const LONGEST_LIFE: f64 = 86_400.0;
/// Tokens cached.
const KEPT: usize = 1024;

/// The scope and owner of a token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) credential: [u8; 32],
}

/// A token.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) secret: Secret,
    /// When to request a new one.
    renew: Instant,
}

/// `null` counts as absent.
#[derive(Deserialize)]
struct TokenResponse {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<Number>,
}

impl TokenResponse {
    fn token(self) -> Option<(Secret, Duration)> {
        let life = self.expires_in.and_then(|seconds| seconds.as_f64()).filter(|seconds| *seconds >= 1.0);
        let life = life.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs_f64(seconds.min(LONGEST_LIFE)));
        let is_usable = |secret: &Secret| !secret.expose().is_empty() && secret.expose().bytes().all(|byte| byte.is_ascii_graphic());
        let given = [self.token, self.access_token].into_iter().flatten().find(|secret| !secret.expose().is_empty());
        Some((given.filter(is_usable)?, life))
    }
}

/// The tokens of one registry.
#[derive(Default)]
pub(super) struct Tokens {
    /// Never held across an await.
    kept: Arc<BoundedMap<Key, Token, KEPT>>,
    flight: Flight<Key, Result<Token, Failure>>,
}

impl Tokens {
    /// The token for a key, from the cache or requested. A refused token is never returned again.
    pub(super) async fn get(
        &self,
        key: Key,
        credential: Credential,
        refused: Option<&Secret>,
        client: Client,
        timing: Timing,
    ) -> Result<Token, Failure> {
        let is_good = |token: &Token| token.renew > Instant::now() && refused != Some(&token.secret);
        if let Some(token) = self.kept.get_if(&key, is_good) {
            return Ok(token);
        }
        let kept = Arc::clone(&self.kept);
        let asked = key.clone();
        let known = || self.kept.get_if(&key, is_good).map(Ok);
        let flight = self.flight.run(key.clone(), known, || async move {
            let token = ask(&client, &asked, &credential, timing).await?;
            kept.put(asked, token.clone());
            Ok(token)
        });
        let abandoned = |error| Failure::passing(Error::new(ErrorKind::Other, format!("token request: {error}")), Cause::Answered);
        flight.await.map_err(abandoned)?
    }
}

async fn ask(client: &Client, key: &Key, credential: &Credential, timing: Timing) -> Result<Token, Failure> {
    let url = Url::parse(&key.realm).map_err(|error| Failure::Final(Error::new(ErrorKind::Invalid, error.to_string())))?;
    let what = format!("token server {}", shown(&url));
    let mut attempts = Attempts::new(timing).only_once();
    let request = request(client, url, key, credential).map_err(Failure::Final)?;
    let response = attempts.within(timing.header, &what, client.execute(request)).await?;
    let response = response.map_err(|error| answer::unanswered(&what, &error))?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = answer::body(response, LIMIT, &what, &mut attempts).await?;
    match status {
        200..=299 => {}
        400 | 401 | 403 => {
            let error = answer::refused(&what, 401, &headers, &body, true);
            return Err(Failure::Final(error));
        }
        _ => {
            let error = answer::refused(&what, status, &headers, &body, false);
            return Err(match is_passing(status) {
                true => Failure::Passing { error, after: told_wait(&headers), cause: Cause::Answered },
                false => Failure::Final(error),
            });
        }
    }
    let unusable = || Failure::Final(Error::new(ErrorKind::Denied, format!("{what}: its response contains no usable token")));
    let answer: TokenResponse = serde_json::from_slice(&body).map_err(|_| unusable())?;
    let (secret, life) = answer.token().ok_or_else(unusable)?;
    // Renew a tenth early, so that no request is in flight with an expiring token.
    Ok(Token { secret, renew: Instant::now() + life.mul_f64(0.9) })
}

fn request(client: &Client, mut url: Url, key: &Key, credential: &Credential) -> Result<reqwest::Request, Error> {
    let service = key.service.as_deref().map(|service| ("service", service));
    let scope = key.scope.as_deref();
    let built = match credential {
        Credential::IdentityToken(token) => {
            let mut form = reqwest::Url::parse("http://form/").map_err(|error| Error::new(ErrorKind::Other, error.to_string()))?;
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("client_id", "ocifs")
                .append_pair("refresh_token", token.expose())
                .extend_pairs(service)
                .extend_pairs(scope.map(|scope| ("scope", scope)));
            let body = form.query().unwrap_or_default().to_owned();
            client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        }
        other => {
            // Here each scope is its own parameter; in the form above they are one, separated by spaces.
            let scopes = scope.into_iter().flat_map(|scope| scope.split(' ')).map(|scope| ("scope", scope));
            url.query_pairs_mut().extend_pairs(service.into_iter().chain(scopes));
            let mut request = client.get(url);
            if let Credential::Password { user, password } = other {
                request = request.header(AUTHORIZATION, basic(user, password)?);
            }
            request
        }
    };
    built
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .build()
        .map_err(|error| Error::new(ErrorKind::Invalid, format!("cannot build the token request: {}", answer::chain(&error))))
}
