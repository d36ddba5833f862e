//! Encryption formats: the oci-sync envelope, chunk sealing for cached plaintext. Pure: no files, no network.

use crate::error::ErrorKind;

/// Why sealed bytes cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// KeyWrong, Integrity or Invalid.
    pub kind: ErrorKind,
    /// What is wrong.
    pub message: String,
}

/// A passphrase; wiped when dropped, never printed.
#[derive(Clone)]
pub struct Passphrase(zeroize::Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Wraps the bytes of a passphrase, exactly as they are.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(zeroize::Zeroizing::new(bytes))
    }
}

/// Header of the oci-sync envelope: `salt 32 | nonce 12`, in front of `ciphertext | tag 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// Salt of scrypt.
    pub salt: [u8; 32],
    /// Nonce of AES-256-GCM.
    pub nonce: [u8; 12],
}

/// Bytes in front of the ciphertext.
pub const ENVELOPE_HEADER: usize = 44;
/// Bytes of the tag behind the ciphertext.
pub const ENVELOPE_TAG: usize = 16;

/// The key of one envelope; wiped when dropped.
#[derive(Clone)]
pub struct EnvelopeKey(#[allow(dead_code)] zeroize::Zeroizing<[u8; 32]>);

impl EnvelopeKey {
    /// scrypt N=32768 r=8 p=1: takes about 60 ms and 32 MiB; call it on a blocking thread.
    pub fn derive(_passphrase: &Passphrase, _salt: &[u8; 32]) -> Result<Self, Error> {
        todo!()
    }

    /// The key under which the cache keeps what comes from this envelope.
    pub fn cache_key(&self) -> ChunkKey {
        todo!()
    }
}

/// Checks the tag over the ciphertext in one streaming pass, without decrypting.
pub struct EnvelopeCheck {
    _state: (),
}

impl EnvelopeCheck {
    /// Begins a check.
    pub fn new(_key: &EnvelopeKey, _header: &EnvelopeHeader) -> Self {
        todo!()
    }
    /// Adds ciphertext (without header and tag).
    pub fn update(&mut self, _ciphertext: &[u8]) {
        todo!()
    }
    /// Compares the tag in constant time. KeyWrong if it does not hold.
    pub fn finish(self, _tag: &[u8; 16]) -> Result<(), Error> {
        todo!()
    }
}

/// Decrypts any range of an envelope's ciphertext (CTR); only for ciphertext whose tag was checked.
pub struct EnvelopeReader {
    _state: (),
}

impl EnvelopeReader {
    /// A reader for the key and nonce.
    pub fn new(_key: &EnvelopeKey, _header: &EnvelopeHeader) -> Self {
        todo!()
    }
    /// Decrypts in place; `offset` counts from the first byte of ciphertext.
    pub fn decrypt(&mut self, _offset: u64, _data: &mut [u8]) {
        todo!()
    }
}

/// A key that seals chunks of at most 16 KiB, each with its own 16-byte tag.
#[derive(Clone)]
pub struct ChunkKey(#[allow(dead_code)] zeroize::Zeroizing<[u8; 32]>);

/// Plaintext bytes of a whole chunk.
pub const CHUNK: usize = 16 << 10;
/// What sealing adds to a chunk.
pub const CHUNK_TAG: usize = 16;

impl ChunkKey {
    /// A key for one object (e.g. the digest of a layer and a role), derived from this one.
    pub fn for_object(&self, _context: &[u8]) -> ChunkKey {
        todo!()
    }
    /// Seals data as chunks, `position` being the unique number of the first chunk under this key; appends
    /// ciphertext and tag of each chunk in turn.
    pub fn seal(&self, _position: u64, _data: &[u8], _out: &mut Vec<u8>) {
        todo!()
    }
    /// Opens what `seal` wrote. Integrity if a tag does not hold.
    pub fn open(&self, _position: u64, _sealed: &[u8], _out: &mut Vec<u8>) -> Result<(), Error> {
        todo!()
    }
}
