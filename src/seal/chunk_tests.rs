//! Chunk sealing: sealed chunks open; modified, moved or cut ones do not; the bytes are golden.

use super::*;
use proptest::prelude::*;

fn key() -> ChunkKey {
    ChunkKey(Zeroizing::new([0x42; 32])).for_object(b"sha256:00 stream 1")
}

fn sealed(position: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    key().seal(position, data, &mut out);
    out
}

fn opened(position: u64, data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    key().open(position, data, &mut out)?;
    Ok(out)
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The vector in FORMAT.md, computed by another implementation (Python's `cryptography`).
#[test]
fn golden_chunks_keep_their_bytes() {
    let envelope_secret: Vec<u8> = (0..32).collect();
    let cache_key = ChunkKey::derived(envelope_secret.as_slice().try_into().unwrap(), b"ocifs cache v1");
    assert_eq!(hex(cache_key.0.as_slice()), "a1fa8d10c02538904d1e8d85d5de1aa2d1f1b9e8a9685d8479ab91ad7aec425c");
    let object = cache_key.for_object(b"sha256:00 stream 1");
    assert_eq!(hex(object.0.as_slice()), "4430e763856f09ebd7fda53fa783664090d8ddd2ca1ff06ccd6d1930cba46d58");
    let mut out = Vec::new();
    object.seal(5, b"hello ocifs\n", &mut out);
    assert_eq!(hex(&out), "80b84d7200cddf8107abb1a013215128a99706eddd6f72b0c4aa7ad7");
    let mut out = Vec::new();
    object.seal(0, &[b'x'; CHUNK + 1], &mut out);
    assert_eq!(out.len() as u64, sealed_length(CHUNK as u64 + 1));
    assert_eq!(hex(&out[CHUNK..CHUNK + CHUNK_TAG]), "f21dbdd9bbacd9a7ca8bb09f66f7a5ed");
    assert_eq!(hex(&out[CHUNK + CHUNK_TAG..]), "8ce54c5ab4c4826a0603621ec58fd36bc1");
}

#[test]
fn the_same_content_at_the_same_place_seals_to_the_same_bytes() {
    let data = vec![7; 3 * CHUNK];
    let whole = sealed(10, &data);
    assert_eq!(whole, sealed(10, &data));
    assert_eq!(whole[CHUNK + CHUNK_TAG..], sealed(11, &data[CHUNK..]), "a chunk does not depend on what was sealed with it");
}

#[test]
fn a_short_chunk_shares_no_keystream_with_the_whole_one() {
    let (short, whole) = (sealed(0, &[0; 100]), sealed(0, &[0; CHUNK]));
    assert_ne!(short[..100], whole[..100]);
}

#[test]
fn objects_and_keys_do_not_open_each_other() {
    let data = sealed(0, b"secret");
    for other in [
        key().for_object(b""),
        ChunkKey(Zeroizing::new([0x42; 32])).for_object(b"sha256:01 stream 1"),
        ChunkKey(Zeroizing::new([0x43; 32])),
    ] {
        let mut out = b"before".to_vec();
        assert_eq!(other.open(0, &data, &mut out).unwrap_err().kind, ErrorKind::Integrity);
        assert_eq!(out, b"before", "a failed open leaves nothing behind");
    }
}

#[test]
fn a_moved_chunk_does_not_open() {
    let mut data = sealed(0, &[1; 2 * CHUNK]);
    assert_eq!(opened(1, &data).unwrap_err().kind, ErrorKind::Integrity);
    data.rotate_left(CHUNK + CHUNK_TAG);
    assert_eq!(opened(0, &data).unwrap_err().kind, ErrorKind::Integrity);
}

#[test]
fn a_failure_in_a_later_chunk_releases_none_of_the_earlier_ones() {
    let mut data = sealed(0, &[1; 2 * CHUNK]);
    *data.last_mut().unwrap() ^= 1;
    let mut out = Vec::new();
    assert!(key().open(0, &data, &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn empty_input_seals_to_nothing_and_a_lone_tag_is_refused() {
    assert_eq!(sealed(0, b""), b"");
    assert_eq!(opened(0, b"").unwrap(), b"");
    for length in 1..=CHUNK_TAG {
        assert_eq!(opened(0, &vec![0; length]).unwrap_err().kind, ErrorKind::Integrity, "{length}");
    }
}

#[test]
fn the_last_possible_position_can_be_sealed() {
    assert_eq!(opened(u64::MAX, &sealed(u64::MAX, b"end")).unwrap(), b"end");
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", key()), "ChunkKey(redacted)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn sealed_chunks_open_and_flipped_ones_do_not(length in 0..(2 * CHUNK + 50), position: u32, at: prop::sample::Index, bit in 0..8u8) {
        let data: Vec<u8> = (0..length).map(|at| (at * 31 + at / 256) as u8).collect();
        let mut text = sealed(u64::from(position), &data);
        prop_assert_eq!(text.len() as u64, sealed_length(length as u64));
        prop_assert_eq!(opened(u64::from(position), &text).unwrap(), data);
        if !text.is_empty() {
            let at = at.index(text.len());
            text[at] ^= 1 << bit;
            prop_assert_eq!(opened(u64::from(position), &text).unwrap_err().kind, ErrorKind::Integrity);
        }
    }
}
