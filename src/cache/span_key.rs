//! The keys of sealed spans: no key and position is ever used for two contents.

use super::table::Identity;
use crate::oci::Digest;
use crate::seal::ChunkKey;

/// The key for one life of a stream.
pub fn object_key(key: &ChunkKey, blob: &Digest, identity: Identity) -> ChunkKey {
    let mut context = b"ocifs cache stream 1\0".to_vec();
    context.extend(blob.to_string().as_bytes());
    context.push(0);
    context.extend(identity.salt);
    key.for_object(&context)
}

/// The number of a span's first chunk under its key. No span is long enough to reach the numbers of the next.
pub fn chunk_position(span: u32) -> u64 {
    u64::from(span) << 20
}
