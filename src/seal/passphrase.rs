//! A passphrase: owns its bytes, wipes them when dropped, never prints them.

use std::fmt;
use zeroize::Zeroizing;

/// A passphrase; wiped when dropped, never printed.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Wraps the bytes of a passphrase, exactly as they are: whoever reads them from a file or a terminal has
    /// already dropped the final newline.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for key derivation only.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
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
    fn debug_shows_neither_the_bytes_nor_their_number() {
        assert_eq!(format!("{:?}", Passphrase::new(b"tell nobody".to_vec())), "Passphrase(redacted)");
    }
}
