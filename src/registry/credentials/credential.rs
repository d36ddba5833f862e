//! Secrets, credentials, and the scope a credential is needed for.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::oci::{Registry, Repository};

/// A secret text, never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The plain text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

/// Proof of identity for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// No credential is stored for the registry.
    Anonymous,
    /// User name and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, exchanged at the token server.
    IdentityToken(Secret),
    /// A bearer token, sent to the registry as is.
    RegistryToken(Secret),
}

impl Credential {
    /// A fingerprint to compare credentials without storing them.
    pub(in crate::registry) fn id(&self) -> [u8; 32] {
        let (kind, user, secret) = match self {
            Self::Anonymous => ("anonymous", "", ""),
            Self::Password { user, password } => ("password", user.as_str(), password.expose()),
            Self::IdentityToken(token) => ("identity", "", token.expose()),
            Self::RegistryToken(token) => ("registry", "", token.expose()),
        };
        let mut hasher = Sha256::new();
        for part in [kind, user, secret] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().into()
    }
}

/// The request a credential is needed for.
#[derive(Clone, Copy, Debug)]
pub struct CredentialScope<'a> {
    /// The registry.
    pub registry: &'a Registry,
    /// The repository, if the request concerns one.
    pub repository: Option<&'a Repository>,
    /// Whether the registry is reached over TLS.
    pub tls: bool,
}
