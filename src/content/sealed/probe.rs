//! Tries every passphrase on a streamed oci-sync envelope.

use super::keys::KeyRing;
use crate::cache::Protection;
use crate::content::BlobSource;
use crate::error::{Error, ErrorKind};
use crate::seal::{ENVELOPE_HEADER, ENVELOPE_TAG, EnvelopeCheck, EnvelopeHeader, EnvelopeKey, ciphertext_length};

/// First byte of the document that records an envelope; changed with the format.
pub(in crate::content) const VERSION: u8 = 1;
/// The plaintext that proves a key in that document.
pub(in crate::content) const PROOF: &[u8] = b"ocifs envelope";
/// An envelope with a verified tag, and its key.
#[derive(Clone)]
pub(in crate::content) struct Opened {
    pub(in crate::content) header: EnvelopeHeader,
    pub(in crate::content) key: EnvelopeKey,
}

impl Opened {
    /// How the cache protects one object derived from this envelope.
    pub(in crate::content) fn protection(&self, source: &BlobSource, role: &str) -> Protection {
        let context = format!("ocifs {role} 1 {} {:?}", source.descriptor.digest, source.form);
        Protection::Sealed(self.key.cache_key().for_object(context.as_bytes()))
    }

    /// The stored record of an envelope: public bytes of the blob, and a proof of the key.
    pub(in crate::content) fn to_document(&self) -> Vec<u8> {
        let mut document = vec![VERSION];
        document.extend_from_slice(&self.header.salt);
        document.extend_from_slice(&self.header.nonce);
        self.key.cache_key().for_object(PROOF).seal(0, PROOF, &mut document);
        document
    }
}

/// Tries every passphrase on a streamed blob. Blocks.
pub(in crate::content) struct KeyProbe {
    keys: KeyRing,
    size: u64,
    seen: u64,
    header: Vec<u8>,
    tag: Vec<u8>,
    begun: Option<Result<Begun, Error>>,
}

struct Begun {
    header: EnvelopeHeader,
    checks: Vec<(EnvelopeKey, EnvelopeCheck)>,
}

impl KeyProbe {
    /// A probe for a blob of a claimed size.
    pub(in crate::content) fn new(keys: &KeyRing, source: &BlobSource) -> Result<Self, Error> {
        ciphertext_length(source.descriptor.size).map_err(|error| Error::new(error.kind, format!("{}: {error}", source.label())))?;
        let size = source.descriptor.size;
        Ok(Self { keys: keys.clone(), size, seen: 0, header: Vec::new(), tag: Vec::new(), begun: None })
    }

    /// The next bytes of the stored blob.
    pub(in crate::content) fn update(&mut self, mut piece: &[u8]) {
        let header_missing = ENVELOPE_HEADER - self.header.len().min(ENVELOPE_HEADER);
        if header_missing > 0 {
            let (header, rest) = piece.split_at(header_missing.min(piece.len()));
            self.header.extend_from_slice(header);
            self.seen += header.len() as u64;
            piece = rest;
            if self.header.len() == ENVELOPE_HEADER {
                self.begun = Some(begin(&self.keys, &self.header));
            }
        }
        let left = (self.size - ENVELOPE_TAG as u64).saturating_sub(self.seen);
        let (ciphertext, tag) = piece.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()));
        if let Some(Ok(begun)) = &mut self.begun {
            for (_, check) in &mut begun.checks {
                check.update(ciphertext);
            }
        }
        self.seen += piece.len() as u64;
        let tag_missing = ENVELOPE_TAG - self.tag.len().min(ENVELOPE_TAG);
        self.tag.extend_from_slice(tag.get(..tag_missing.min(tag.len())).unwrap_or_default());
    }

    /// The key whose tag matches, after the blob's digest was verified.
    pub(in crate::content) fn finish(self, source: &BlobSource) -> Result<Opened, Error> {
        let cut = || Error::new(ErrorKind::Integrity, format!("{} is too short for an oci-sync envelope", source.label()));
        let begun = self.begun.ok_or_else(cut)??;
        let tag: [u8; ENVELOPE_TAG] = self.tag.try_into().map_err(|_| cut())?;
        let header = begun.header;
        let fitting = begun.checks.into_iter().find_map(|(key, check)| check.finish(&tag).is_ok().then_some(key));
        fitting.map(|key| Opened { header, key }).ok_or_else(|| wrong_key(source))
    }
}

fn begin(keys: &KeyRing, header: &[u8]) -> Result<Begun, Error> {
    let header = EnvelopeHeader::parse(header)?;
    let keys = keys.keys(&header.salt)?;
    Ok(Begun { header, checks: keys.iter().map(|key| (key.clone(), EnvelopeCheck::new(key, &header))).collect() })
}

/// The error of an envelope that no passphrase opens.
pub(in crate::content) fn wrong_key(source: &BlobSource) -> Error {
    let message = format!("{} is encrypted and none of the given passphrases decrypts it (its digest is correct)", source.label());
    Error::new(ErrorKind::KeyWrong, message)
}
