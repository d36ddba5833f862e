//! The oci-sync envelope: `salt 32 | nonce 12 | ciphertext | tag 16`, one AES-256-GCM message under a key derived from a passphrase by scrypt.
//!
//! GCM proves nothing before its last byte, so verification and decryption are separate types. [`EnvelopeCheck`] runs GHASH over the streamed
//! ciphertext in constant memory and compares the tag. [`EnvelopeReader`] then decrypts any range and must be given only verified ciphertext.
//! [`EnvelopeWriter`] encrypts and computes the tag together. GCM cannot distinguish a wrong passphrase from forged bytes: callers have
//! verified the blob's digest before, so a tag mismatch means a wrong key.

use super::tag::{MessageTag, counter_block};
use super::{ChunkKey, Passphrase};
use crate::error::{Error, ErrorKind};
use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use std::fmt;
use zeroize::Zeroizing;

/// Length of the header before the ciphertext.
pub const ENVELOPE_HEADER: usize = 44;
/// Length of the tag after the ciphertext.
pub const ENVELOPE_TAG: usize = 16;

/// Longest GCM message: its block counter has 32 bits, and two values are reserved.
const LONGEST: u64 = (1 << 36) - 32;

/// Header of the oci-sync envelope: `salt 32 | nonce 12`, followed by `ciphertext | tag 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// Salt of scrypt.
    pub salt: [u8; 32],
    /// Nonce of AES-256-GCM.
    pub nonce: [u8; 12],
}

impl EnvelopeHeader {
    /// Parses the header at the start of a blob. Integrity if the blob is shorter.
    pub fn parse(blob: &[u8]) -> Result<Self, Error> {
        let parted = blob.split_first_chunk::<32>().and_then(|(salt, rest)| Some((*salt, *rest.first_chunk::<12>()?)));
        let (salt, nonce) = parted.ok_or_else(|| too_short(blob.len() as u64))?;
        Ok(Self { salt, nonce })
    }

    /// The header as bytes.
    pub fn bytes(&self) -> [u8; ENVELOPE_HEADER] {
        let mut bytes = [0; ENVELOPE_HEADER];
        bytes.iter_mut().zip(self.salt.iter().chain(&self.nonce)).for_each(|(space, byte)| *space = *byte);
        bytes
    }
}

/// Length of the ciphertext (and the plaintext) in an envelope of `blob` bytes. Integrity if it is too short for header and tag, Invalid if it is
/// longer than GCM allows.
pub fn ciphertext_length(blob: u64) -> Result<u64, Error> {
    let length = blob.checked_sub((ENVELOPE_HEADER + ENVELOPE_TAG) as u64).ok_or_else(|| too_short(blob))?;
    if length > LONGEST { Err(too_long()) } else { Ok(length) }
}

fn too_short(blob: u64) -> Error {
    let shortest = ENVELOPE_HEADER + ENVELOPE_TAG;
    Error::new(
        ErrorKind::Integrity,
        format!("an encrypted oci-sync layer has at least {shortest} bytes, this one {blob}: it is truncated; push it again"),
    )
}

fn too_long() -> Error {
    Error::new(ErrorKind::Invalid, "an encrypted oci-sync layer cannot exceed 64 GiB, the limit of AES-GCM")
}

/// The key of one envelope. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct EnvelopeKey(Zeroizing<[u8; 32]>);

impl EnvelopeKey {
    /// scrypt N=32768 r=8 p=1: takes about 60 ms and 32 MiB; call it on a blocking thread. Any passphrase yields a key; whether it is right shows
    /// in [`EnvelopeCheck::finish`].
    pub fn derive(passphrase: &Passphrase, salt: &[u8; 32]) -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; 32]);
        let refused = |what: &dyn fmt::Display| Error::new(ErrorKind::Invalid, format!("cannot derive a key from the passphrase: {what}"));
        let cost = scrypt::Params::new(15, 8, 1).map_err(|error| refused(&error))?;
        scrypt::scrypt(passphrase.bytes(), salt, &cost, key.as_mut_slice()).map_err(|error| refused(&error))?;
        Ok(Self(key))
    }

    /// The key under which the cache seals content of this envelope.
    pub fn cache_key(&self) -> ChunkKey {
        ChunkKey::derived(&self.0, b"ocifs cache v1")
    }
}

impl fmt::Debug for EnvelopeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EnvelopeKey(redacted)")
    }
}

/// Verifies the tag over the ciphertext in one streaming pass, without decrypting.
pub struct EnvelopeCheck(MessageTag);

impl EnvelopeCheck {
    /// Begins a check.
    pub fn new(key: &EnvelopeKey, header: &EnvelopeHeader) -> Self {
        Self(MessageTag::new(&key.0, &header.nonce))
    }

    /// Adds ciphertext (without header and tag), in pieces of any length.
    pub fn update(&mut self, ciphertext: &[u8]) {
        self.0.update(ciphertext);
    }

    /// Compares the tag in constant time. KeyWrong if it does not match, Invalid if the message is too long for GCM.
    pub fn finish(self, tag: &[u8; ENVELOPE_TAG]) -> Result<(), Error> {
        if self.0.length() > LONGEST {
            return Err(too_long());
        }
        if self.0.is(tag) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::KeyWrong, "the passphrase does not decrypt this oci-sync artifact; give the one it was pushed with"))
    }
}

impl fmt::Debug for EnvelopeCheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EnvelopeCheck").field("length", &self.0.length()).finish_non_exhaustive()
    }
}

/// Decrypts any range of an envelope's ciphertext (CTR); only for verified ciphertext.
pub struct EnvelopeReader {
    keystream: ctr::Ctr32BE<Aes256>,
}

impl EnvelopeReader {
    /// A reader for the key and nonce.
    pub fn new(key: &EnvelopeKey, header: &EnvelopeHeader) -> Self {
        Self { keystream: ctr::Ctr32BE::<Aes256>::new((&*key.0).into(), (&counter_block(&header.nonce, 2)).into()) }
    }

    /// Decrypts in place; `offset` counts from the first byte of ciphertext. Invalid, changing nothing, for a range beyond GCM's longest message.
    pub fn decrypt(&mut self, offset: u64, data: &mut [u8]) -> Result<(), Error> {
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > LONGEST) {
            return Err(too_long());
        }
        self.keystream.try_seek(offset).map_err(|_| too_long())?;
        self.keystream.try_apply_keystream(data).map_err(|_| too_long())
    }
}

impl fmt::Debug for EnvelopeReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EnvelopeReader(redacted)")
    }
}

/// Encrypts a message incrementally and yields its tag at the end.
///
/// The envelope is `EnvelopeHeader::bytes`, the ciphertext and the tag, concatenated. Salt and nonce must be random and fresh for each message:
/// two messages under one key and nonce reveal both.
pub struct EnvelopeWriter {
    reader: EnvelopeReader,
    tag: MessageTag,
}

impl EnvelopeWriter {
    /// Begins a message.
    pub fn new(key: &EnvelopeKey, header: &EnvelopeHeader) -> Self {
        Self { reader: EnvelopeReader::new(key, header), tag: MessageTag::new(&key.0, &header.nonce) }
    }

    /// Encrypts the next bytes of the message in place. Invalid, changing nothing, if the message would exceed GCM's limit.
    pub fn encrypt(&mut self, data: &mut [u8]) -> Result<(), Error> {
        // CTR encryption and decryption are the same operation.
        self.reader.decrypt(self.tag.length(), data)?;
        self.tag.update(data);
        Ok(())
    }

    /// The tag that follows the ciphertext.
    pub fn finish(self) -> [u8; ENVELOPE_TAG] {
        self.tag.value()
    }
}

impl fmt::Debug for EnvelopeWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EnvelopeWriter").field("length", &self.tag.length()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
