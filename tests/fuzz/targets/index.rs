//! Index bytes of any content, stored or attached, are refused or safe to read.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ocifs::layer::{LayerIndex, Resources, decode_attached};
use ocifs::oci::Digest;
use ocifs_fuzz::read_all;
use xxhash_rust::xxh3::xxh3_64;

/// Where the checksum lies and where the bytes under it start (src/layer/FORMAT.md).
const CHECKSUM: std::ops::Range<usize> = 16..24;
/// The frame in front of an attached index.
const ATTACHED: [u8; 16] = *b"\x5e\x2a\x4d\x18\x08\x00\x00\x00ocifsTI\x01";

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if let Some(length) = bytes.get_mut(24..32) {
        length.copy_from_slice(&(data.len() as u64).to_le_bytes());
    }
    let checksum = xxh3_64(bytes.get(CHECKSUM.end..).unwrap_or_default());
    if let Some(field) = bytes.get_mut(CHECKSUM) {
        field.copy_from_slice(&checksum.to_le_bytes());
    }
    let stored = LayerIndex::open(Arc::new(bytes.clone()));
    let blob = match &stored {
        Ok(index) => {
            read_all(index);
            index.blob_digest()
        }
        Err(_) => Digest::of(b""),
    };
    let frame = zstd::bulk::compress(&bytes, 1).expect("bytes in memory");
    if let Ok(attached) = decode_attached(&[&ATTACHED[..], &frame].concat(), &blob, &Resources::default()) {
        assert!(stored.is_ok(), "attached indexes pass all checks of stored ones");
        read_all(&attached);
    }
    // As they came, without help.
    assert!(decode_attached(data, &blob, &Resources::default()).is_err() || data.starts_with(&ATTACHED));
});
