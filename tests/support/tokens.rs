//! A small token server for the registry's bearer authentication: checks a password, signs short-lived tokens (ES256) and records requests. It
//! grants pull access to anybody the test admits, and push access only where the test says so.

use super::registry::{PASSWORD, USER};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Json, Router, routing::get};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SigningKey};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

const SERVICE: &str = "ocifs tests";

/// A running token server.
pub struct TokenServer {
    address: SocketAddr,
    certificate: PathBuf,
    issuer: Arc<Issuer>,
    task: tokio::task::JoinHandle<()>,
}

struct Issuer {
    key: KeyPair,
    certificate: String,
    requests: Mutex<Vec<TokenRequest>>,
    anonymous: AtomicBool,
    pushes: AtomicBool,
    /// Lifetime of tokens in seconds, and the lifetime stated in the response.
    life: (AtomicI64, AtomicU64),
}

/// One request for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The requested scopes, in order.
    pub scopes: Vec<String>,
    /// Whether it had a correct password.
    pub authenticated: bool,
}

impl TokenServer {
    /// Starts; leaves the certificate for verifying its tokens in the directory.
    pub fn start(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).unwrap();
        let certificate = folder.join("tokens.pem");
        std::fs::write(&certificate, own.pem()).unwrap();
        let issuer = Arc::new(Issuer {
            key,
            certificate: STANDARD.encode(own.der()),
            requests: Mutex::default(),
            anonymous: AtomicBool::new(false),
            pushes: AtomicBool::new(false),
            life: (AtomicI64::new(300), AtomicU64::new(300)),
        });
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/token", get(answer)).with_state(issuer.clone());
        let task = super::runtime().spawn(async move {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await.unwrap();
        });
        Self { address, certificate, issuer, task }
    }

    /// The address the registry names in its challenge.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.issuer.requests.lock().clone()
    }

    /// Allows or forbids pulling without a password.
    pub fn set_anonymous(&self, allowed: bool) {
        self.issuer.anonymous.store(allowed, Ordering::Relaxed);
    }

    /// Lets those who may pull also push, or not.
    pub fn set_pushes(&self, allowed: bool) {
        self.issuer.pushes.store(allowed, Ordering::Relaxed);
    }

    /// Lifetime of new tokens in seconds, and the lifetime stated to the client. The registry accepts tokens for 60 s longer, so a negative
    /// lifetime is needed for a token that expires soon.
    pub fn set_life(&self, seconds: i64, told: u64) {
        self.issuer.life.0.store(seconds, Ordering::Relaxed);
        self.issuer.life.1.store(told, Ordering::Relaxed);
    }

    /// The section `auth.token` of the registry's configuration.
    pub(super) fn registry_configuration(&self) -> Value {
        json!({ "realm": self.realm(), "service": SERVICE, "issuer": SERVICE, "rootcertbundle": self.certificate })
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(issuer): State<Arc<Issuer>>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let given = headers.get(header::AUTHORIZATION);
    let authenticated = given.is_some_and(|given| given.as_bytes() == expected.as_bytes());
    let scopes: Vec<String> = query.into_iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope).collect();
    issuer.requests.lock().push(TokenRequest { scopes: scopes.clone(), authenticated });
    if given.is_some() && !authenticated {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let welcome = authenticated || issuer.anonymous.load(Ordering::Relaxed);
    let token = issuer.token(if welcome { &scopes } else { &[] }, issuer.life.0.load(Ordering::Relaxed));
    Ok(Json(json!({ "token": token, "expires_in": issuer.life.1.load(Ordering::Relaxed) })))
}

impl Issuer {
    fn token(&self, scopes: &[String], life: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let pushes = self.pushes.load(Ordering::Relaxed);
        let access: Vec<Value> = scopes.iter().flat_map(|scope| scope.split(' ')).filter_map(|scope| granted(scope, pushes)).collect();
        let claims = json!({
            "iss": SERVICE, "aud": SERVICE, "sub": "", "jti": "x", "nbf": now - 5, "iat": now,
            "exp": now.saturating_add_signed(life), "access": access,
        });
        let head = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = raw_signature(&self.key.sign(signed.as_bytes()).unwrap());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// `repository:team/app:pull,push` grants pull and perhaps push, `registry:catalog:*` the catalog.
fn granted(scope: &str, pushes: bool) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let granted: Vec<&str> = actions.split(',').filter(|action| matches!(*action, "pull" | "*") || pushes).collect();
    Some(json!({ "type": kind, "name": name, "actions": granted }))
}

/// The two numbers of an ECDSA signature as 32 bytes each, from their DER form (both in short form).
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut raw = Vec::new();
    for _ in 0..2 {
        let (number, behind) = rest[2..].split_at(rest[1] as usize);
        let digits = &number[number.iter().take_while(|byte| **byte == 0).count()..];
        raw.extend(std::iter::repeat_n(0, 32 - digits.len()));
        raw.extend(digits);
        rest = behind;
    }
    raw
}
