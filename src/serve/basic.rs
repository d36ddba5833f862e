//! Parses the user and password a client sends, and hashes such pairs so that they can be recognised without being kept.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::registry::Secret;

/// A user and a password.
pub(super) struct Basic {
    pub(super) user: String,
    pub(super) password: Secret,
}

/// The user and password of a Basic authorization header; either may be empty.
pub(super) fn basic(value: &str) -> Option<Basic> {
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Basic { user: user.to_owned(), password: Secret::new(password) })
}

/// Hashes pairs into keys that are useless outside this process.
pub(super) struct KeyedHash([u8; 32]);

impl Default for KeyedHash {
    fn default() -> Self {
        Self(rand::random())
    }
}

impl KeyedHash {
    /// The key of a pair.
    pub(super) fn of(&self, user: &str, password: &Secret) -> [u8; 32] {
        let mut pair = Sha256::new();
        for part in [&self.0[..], &(user.len() as u64).to_le_bytes(), user.as_bytes(), password.expose().as_bytes()] {
            pair.update(part);
        }
        // Twice, as HMAC does, so that no key can be made from another one.
        let inner: [u8; 32] = pair.finalize().into();
        let mut outer = Sha256::new();
        outer.update(self.0);
        outer.update(inner);
        outer.finalize().into()
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyedHash(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unparsable_authorization_headers_are_anonymous() {
        for bad in ["", "Basic", "Basic !", "Bearer eDp5", "Basic eA=="] {
            assert!(basic(bad).is_none(), "{bad}");
        }
        for (header, user, password) in [("bAsIc eDp5Ono=", "x", "y:z"), ("Basic Og==", "", ""), ("Basic Onk=", "", "y")] {
            let found = basic(header).unwrap();
            assert_eq!((found.user.as_str(), found.password.expose()), (user, password));
        }
    }

    #[test]
    fn different_pairs_have_different_keys() {
        let (hash, other) = (KeyedHash::default(), KeyedHash::default());
        let key = |hash: &KeyedHash, user: &str, password: &str| hash.of(user, &Secret::new(password));
        assert_eq!(key(&hash, "ab", "c"), key(&hash, "ab", "c"));
        for different in [key(&hash, "a", "bc"), key(&hash, "ab", ""), key(&other, "ab", "c")] {
            assert_ne!(key(&hash, "ab", "c"), different);
        }
    }
}
