//! Encryption formats: the oci-sync envelope, and chunk sealing for what the cache keeps of sealed artifacts.
//!
//! Pure: no files, no network, no clock, no randomness. Both formats are specified byte by byte in `FORMAT.md`, and
//! golden tests pin them. Keys and passphrases are wiped when dropped and never printed. This module never releases
//! a byte whose tag it did not check, with one documented exception: [`EnvelopeReader`], whose caller has checked
//! the tag of the whole message before.

mod chunk;
mod envelope;
mod passphrase;
mod tag;

pub use chunk::{CHUNK, CHUNK_TAG, ChunkKey, sealed_length};
pub use envelope::{
    ENVELOPE_HEADER, ENVELOPE_TAG, EnvelopeCheck, EnvelopeHeader, EnvelopeKey, EnvelopeReader, EnvelopeWriter, ciphertext_length,
};
pub use passphrase::Passphrase;

/// Manifest annotation of an artifact that ocifs has sealed. Its value holds the wrapped key.
pub const SEAL_ANNOTATION: &str = "dev.ocifs.seal";
