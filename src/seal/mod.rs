//! Encryption formats: the oci-sync envelope, and chunk sealing for cached content of sealed artifacts.
//!
//! Pure: no files, network, clock or randomness. Both formats are specified byte by byte in `FORMAT.md` and pinned by golden tests. Keys and
//! passphrases are wiped when dropped and never printed. No byte is released before its tag is verified, with one documented exception:
//! [`EnvelopeReader`], whose caller has verified the whole message's tag.

mod chunk;
mod envelope;
mod passphrase;
mod tag;

pub use chunk::{CHUNK, CHUNK_TAG, ChunkKey, sealed_length};
pub use envelope::{
    ENVELOPE_HEADER, ENVELOPE_TAG, EnvelopeCheck, EnvelopeHeader, EnvelopeKey, EnvelopeReader, EnvelopeWriter, ciphertext_length,
};
pub use passphrase::Passphrase;

/// Manifest annotation of artifacts sealed by ocifs. Its value holds the wrapped key.
pub const SEAL_ANNOTATION: &str = "dev.ocifs.seal";
