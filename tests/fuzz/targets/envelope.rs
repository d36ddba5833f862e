//! The header and the tag of an encrypted layer: arbitrary bytes are refused, a sealed message opens, and a changed one does not.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ocifs::seal::{
    ENVELOPE_HEADER, ENVELOPE_TAG, EnvelopeCheck, EnvelopeHeader, EnvelopeKey, EnvelopeReader, EnvelopeWriter, Passphrase, ciphertext_length,
};

/// Derived once: scrypt is slow on purpose.
static KEY: LazyLock<EnvelopeKey> =
    LazyLock::new(|| EnvelopeKey::derive(&Passphrase::new(b"passphrase".to_vec()), &[7; 32]).expect("parameters in range"));

/// The plaintext of an envelope under the key.
fn opened(blob: &[u8]) -> Option<Vec<u8>> {
    let header = EnvelopeHeader::parse(blob).ok()?;
    let length = ciphertext_length(blob.len() as u64).ok()? as usize;
    let (ciphertext, tag) = blob[ENVELOPE_HEADER..].split_at(length);
    let mut check = EnvelopeCheck::new(&KEY, &header);
    ciphertext.chunks(97).for_each(|piece| check.update(piece));
    check.finish(tag.try_into().ok()?).ok()?;
    let mut plain = ciphertext.to_vec();
    EnvelopeReader::new(&KEY, &header).decrypt(0, &mut plain).ok()?;
    Some(plain)
}

fuzz_target!(|data: &[u8]| {
    assert!(opened(data).is_none(), "bytes that were never sealed open");
    let Some((at, message)) = data.split_first() else { return };
    let header = EnvelopeHeader { salt: [7; 32], nonce: [*at; 12] };
    let (mut writer, mut sealed) = (EnvelopeWriter::new(&KEY, &header), message.to_vec());
    for piece in sealed.chunks_mut(usize::from(*at) + 1) {
        writer.encrypt(piece).expect("a short message");
    }
    let mut blob = [&header.bytes()[..], &sealed, &writer.finish()].concat();
    assert_eq!(blob.len(), ENVELOPE_HEADER + message.len() + ENVELOPE_TAG);
    assert_eq!(opened(&blob).as_deref(), Some(message));
    // Salt bytes only choose the key, which is given here.
    let changed = 32 + usize::from(*at) % (blob.len() - 32);
    blob[changed] ^= 1;
    assert!(opened(&blob).is_none(), "a changed envelope opens");
});
