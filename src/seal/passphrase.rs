//! A passphrase: owns its bytes, wipes them when dropped, never prints them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use zeroize::Zeroizing;

/// A passphrase. Wiped when dropped, never printed. Serialised as Base64, only for the control socket.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Wraps the exact bytes of a passphrase; a caller that reads them from a file or terminal has already dropped the final newline.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for key derivation only.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Passphrase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.bytes())))
    }
}

impl<'de> Deserialize<'de> for Passphrase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Borrowed, so that no copy of the text remains.
        let text = <&str>::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self::new).map_err(|_| serde::de::Error::custom("a passphrase is not Base64"))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Passphrase(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::Passphrase;

    #[test]
    fn any_bytes_survive_a_round_trip() {
        let secret = Passphrase::new(b"\xff\0 \n\"".to_vec());
        let text = serde_json::to_string(&secret).unwrap();
        assert_eq!(serde_json::from_str::<Passphrase>(&text).unwrap(), secret);
        assert!(serde_json::from_str::<Passphrase>("\"%\"").unwrap_err().to_string().contains("Base64"));
    }

    #[test]
    fn debug_shows_neither_the_bytes_nor_their_length() {
        assert_eq!(format!("{:?}", Passphrase::new(b"tell nobody".to_vec())), "Passphrase(redacted)");
    }
}
