//! Seals chunks with AES-256-GCM, at most 16 KiB each, for cached content of sealed artifacts.
//!
//! # Why no nonce is used for two messages
//!
//! The nonce of a chunk is its number under the key plus the length of its plaintext, so nothing is stored and nothing is random. This is
//! sound because sealing here is deterministic: [`ChunkKey::for_object`] takes a context that identifies the bytes themselves (the layer
//! digest, the role of the derived object, its format version), so each position under an object's key has one possible plaintext, and
//! sealing it twice gives the same ciphertext. A piece cut elsewhere (a short last chunk that is later sealed whole) differs in length and
//! hence in nonce. Callers must keep this guarantee: whatever changes the bytes belongs in the context.
//!
//! A chunk cannot be moved: its number is authenticated through the nonce, its object through the key. Only the caller can tell whether chunks
//! are missing at the end, from the plaintext length ([`sealed_length`]).

use crate::error::{Error, ErrorKind};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

/// Plaintext bytes of a full chunk.
pub const CHUNK: usize = 16 << 10;
/// Bytes that sealing adds to a chunk.
pub const CHUNK_TAG: usize = 16;

/// Sealed length of `plain` bytes that start at a chunk boundary.
pub fn sealed_length(plain: u64) -> u64 {
    plain.saturating_add(plain.div_ceil(CHUNK as u64).saturating_mul(CHUNK_TAG as u64))
}

/// A key that seals chunks of at most 16 KiB, each with its own 16-byte tag. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct ChunkKey(Zeroizing<[u8; 32]>);

impl ChunkKey {
    /// Derives a key for a purpose from full-strength secret key material (never from a passphrase).
    pub(super) fn derived(secret: &[u8; 32], purpose: &[u8]) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, secret).expand(purpose, key.as_mut_slice()).expect("HKDF-SHA256 gives up to 8160 bytes");
        Self(key)
    }

    /// Derives the key of one object. The context must include everything that determines the object's bytes (layer digest, role, format
    /// version): equal context, equal bytes.
    pub fn for_object(&self, context: &[u8]) -> ChunkKey {
        Self::derived(&self.0, &[b"ocifs object v1\0", context].concat())
    }

    /// Seals data as chunks; `position` is the unique number of the first chunk under this key. Appends the ciphertext and tag of each chunk.
    /// Only the last chunk may be short.
    pub fn seal(&self, position: u64, data: &[u8], out: &mut Vec<u8>) {
        let cipher = self.cipher();
        out.reserve(data.len() + data.len().div_ceil(CHUNK) * CHUNK_TAG);
        for (number, plain) in numbered(position, data.chunks(CHUNK)) {
            let start = out.len();
            out.extend_from_slice(plain);
            let sealed = out.split_at_mut(start).1;
            let tag = cipher
                .encrypt_inout_detached(&nonce(number, plain.len()).into(), &[], sealed.into())
                .expect("a chunk is far below the 64 GiB of AES-GCM");
            out.extend_from_slice(&tag);
        }
    }

    /// Opens what `seal` wrote and appends the plaintext. Integrity if a tag does not verify; nothing of this call is then left in `out`.
    pub fn open(&self, position: u64, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let cipher = self.cipher();
        let before = out.len();
        out.reserve(sealed.len());
        for (number, chunk) in numbered(position, sealed.chunks(CHUNK + CHUNK_TAG)) {
            if let Err(error) = open_chunk(&cipher, number, chunk, out) {
                // The failed chunk is still ciphertext and the earlier ones were good; return neither.
                out.truncate(before);
                return Err(error);
            }
        }
        Ok(())
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ChunkKey(redacted)")
    }
}

/// The chunks, each with its number under the key. (A range `position..` would overflow after the very last number.)
fn numbered<'data>(position: u64, chunks: impl Iterator<Item = &'data [u8]>) -> impl Iterator<Item = (u64, &'data [u8])> {
    chunks.enumerate().map(move |(index, chunk)| (position.wrapping_add(index as u64), chunk))
}

fn open_chunk(cipher: &Aes256Gcm, number: u64, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let (text, tag) = chunk.split_last_chunk::<CHUNK_TAG>().ok_or_else(|| broken(number))?;
    // `seal` writes no empty chunk, so a lone tag is invalid.
    if text.is_empty() {
        return Err(broken(number));
    }
    let start = out.len();
    out.extend_from_slice(text);
    let plain = out.split_at_mut(start).1;
    cipher.decrypt_inout_detached(&nonce(number, text.len()).into(), &[], plain.into(), tag.into()).map_err(|_| broken(number))
}

fn broken(number: u64) -> Error {
    Error::new(ErrorKind::Integrity, format!("sealed chunk {number} is damaged or was sealed under another key"))
}

/// `number 8 | plaintext bytes 4`, both big endian.
fn nonce(number: u64, length: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    let length = (length as u32).to_be_bytes();
    nonce.iter_mut().zip(number.to_be_bytes().iter().chain(&length)).for_each(|(space, byte)| *space = *byte);
    nonce
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
