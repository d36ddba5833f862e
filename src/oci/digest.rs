//! Content digests in the image specification's form: `algorithm:lower-case-hex`.
//!
//! A [`Digest`] always has a registered algorithm and the right number of bytes, so it is safe as a file name and cheap to copy and
//! compare. <https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests>

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// The registered digest algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, used by every tool.
    Sha256,
    /// SHA-512, also registered.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the raw digest in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A well-formed digest: a registered algorithm with exactly its number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// The raw digest; bytes beyond the algorithm's length are zero.
    bytes: [u8; 64],
}

/// Text that is not a digest of a registered algorithm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a digest (sha256:<64 lower-case hex digits>)", .0.escape_default())]
pub struct InvalidDigest(pub String);

impl Digest {
    /// Parses `sha256:<hex>` or `sha512:<hex>`; rejects upper case, other algorithms and other lengths.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let refuse = || InvalidDigest(text.chars().take(160).collect());
        let (name, hex) = text.split_once(':').ok_or_else(refuse)?;
        Self::from_parts(name, hex).ok_or_else(refuse)
    }

    /// Parses the colon-free spelling used in paths: `sha256-<hex>`.
    pub fn parse_path_name(text: &str) -> Result<Self, InvalidDigest> {
        let refuse = || InvalidDigest(text.chars().take(160).collect());
        let (name, hex) = text.split_once('-').ok_or_else(refuse)?;
        Self::from_parts(name, hex).ok_or_else(refuse)
    }

    fn from_parts(name: &str, hex: &str) -> Option<Self> {
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return None,
        };
        if hex.len() != algorithm.length() * 2 {
            return None;
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self { algorithm, bytes })
    }

    /// Wraps a SHA-256 computed elsewhere.
    pub fn from_sha256(value: [u8; 32]) -> Self {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&value);
        Self { algorithm: Algorithm::Sha256, bytes }
    }

    /// The SHA-256 digest of `data`.
    pub fn of(data: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(data);
        hasher.finish()
    }

    /// The algorithm of this digest.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw digest, in the length of its algorithm.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.length()]
    }

    /// All digits, without the algorithm.
    pub fn hex(&self) -> String {
        self.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first twelve digits, for names and messages.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// The colon-free spelling, `sha256-<hex>`, for paths.
    pub fn path_name(&self) -> String {
        format!("{}-{}", self.algorithm.name(), self.hex())
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        Self::parse(text)
    }
}

/// Computes a digest incrementally.
#[derive(Clone)]
pub enum Hasher {
    /// A SHA-256 in progress.
    Sha256(sha2::Sha256),
    /// A SHA-512 in progress.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A new hasher for the algorithm.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(data),
            Self::Sha512(state) => state.update(data),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 64];
        let algorithm = match self {
            Self::Sha256(state) => {
                bytes[..32].copy_from_slice(&state.finalize());
                Algorithm::Sha256
            }
            Self::Sha512(state) => {
                bytes.copy_from_slice(&state.finalize());
                Algorithm::Sha512
            }
        };
        Digest { algorithm, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_printing_and_parsing_in_both_spellings() {
        let digest = Digest::of(b"hello");
        assert_eq!(digest.to_string(), "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        assert_eq!(Digest::parse_path_name(&digest.path_name()), Ok(digest));
        assert_eq!(digest.short(), "2cf24dba5fb0");
    }

    #[test]
    fn sha512_is_read_and_written() {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"");
        let digest = hasher.finish();
        assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        assert_eq!(digest.as_bytes().len(), 64);
    }

    #[test]
    fn escapes_upper_case_and_unknown_algorithms_are_refused() {
        let hex = "a".repeat(64);
        for text in [
            "sha256:../../x".to_owned(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("md5:{}", &hex[..32]),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}a"),
            format!("sha256-{hex}"),
            hex.clone(),
            String::new(),
        ] {
            assert!(Digest::parse(&text).is_err(), "{text}");
        }
    }
}
