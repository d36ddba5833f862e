//! Computes the tag of a GCM message over streamed ciphertext in constant memory. Neither encrypts nor decrypts, and enforces no limit.

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use zeroize::Zeroizing;

/// Bytes of a block of AES, and of a tag.
const BLOCK: usize = 16;

/// A tag computation.
pub(super) struct MessageTag {
    hash: GHash,
    mask: Zeroizing<[u8; BLOCK]>,
    pending: [u8; BLOCK],
    pending_length: usize,
    length: u64,
}

impl MessageTag {
    /// Starts the tag of a message without associated data.
    pub(super) fn new(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        let cipher = Aes256::new(key.into());
        let mut hash_key = Zeroizing::new([0; BLOCK]);
        cipher.encrypt_block((&mut *hash_key).into());
        let mut mask = Zeroizing::new(counter_block(nonce, 1));
        cipher.encrypt_block((&mut *mask).into());
        Self { hash: GHash::new((&*hash_key).into()), mask, pending: [0; BLOCK], pending_length: 0, length: 0 }
    }

    /// Bytes of ciphertext added so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Pretends that this many bytes were added; the tag is then meaningless.
    #[cfg(test)]
    pub(super) fn skip_to(&mut self, length: u64) {
        self.length = length;
    }

    /// Adds ciphertext, in pieces of any length.
    pub(super) fn update(&mut self, ciphertext: &[u8]) {
        self.length = self.length.saturating_add(ciphertext.len() as u64);
        let mut rest = ciphertext;
        if self.pending_length > 0 {
            let take = rest.len().min(BLOCK - self.pending_length);
            let (head, tail) = rest.split_at(take);
            if let Some(space) = self.pending.get_mut(self.pending_length..self.pending_length + take) {
                space.copy_from_slice(head);
            }
            self.pending_length += take;
            rest = tail;
            if self.pending_length < BLOCK {
                return;
            }
            self.hash.update_padded(&self.pending);
            self.pending_length = 0;
        }
        let whole = rest.len() - rest.len() % BLOCK;
        let (blocks, tail) = rest.split_at(whole);
        self.hash.update_padded(blocks);
        for (space, byte) in self.pending.iter_mut().zip(tail) {
            *space = *byte;
        }
        self.pending_length = tail.len();
    }

    /// GHASH over all bytes and the lengths, before masking.
    fn hashed(&mut self) -> GHash {
        self.hash.update_padded(self.pending.get(..self.pending_length).unwrap_or_default());
        let mut lengths = [0; BLOCK];
        if let Some(bits) = lengths.last_chunk_mut::<8>() {
            *bits = self.length.saturating_mul(8).to_be_bytes();
        }
        self.hash.update_padded(&lengths);
        self.hash.clone()
    }

    /// The tag.
    pub(super) fn value(mut self) -> [u8; BLOCK] {
        let mut tag: [u8; BLOCK] = self.hashed().finalize().into();
        tag.iter_mut().zip(self.mask.iter()).for_each(|(byte, mask)| *byte ^= mask);
        tag
    }

    /// Whether the tag equals this one, in constant time.
    pub(super) fn is(mut self, tag: &[u8; BLOCK]) -> bool {
        let mut unmasked = *tag;
        unmasked.iter_mut().zip(self.mask.iter()).for_each(|(byte, mask)| *byte ^= mask);
        self.hashed().verify((&unmasked).into()).is_ok()
    }
}

/// `nonce 12 | counter 4`, the input of AES in counter mode. Counter 1 masks the tag; the message starts at 2.
pub(super) fn counter_block(nonce: &[u8; 12], counter: u32) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block.iter_mut().zip(nonce.iter().chain(&counter.to_be_bytes())).for_each(|(space, byte)| *space = *byte);
    block
}
