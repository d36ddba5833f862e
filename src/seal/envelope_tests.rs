//! The envelope: real artifacts of both writers, fixed vectors, and AES-GCM's one-shot implementation as the reference.

use super::*;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit};
use proptest::prelude::*;
use std::path::Path;

const PASSPHRASE: &str = "correct horse battery staple";

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes().to_vec())
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Reads a whole blob: header, key, check, then decrypt.
fn open(blob: &[u8], passphrase: &Passphrase) -> Result<Vec<u8>, Error> {
    let length = ciphertext_length(blob.len() as u64)? as usize;
    let header = EnvelopeHeader::parse(blob)?;
    let key = EnvelopeKey::derive(passphrase, &header.salt)?;
    let mut text = blob[ENVELOPE_HEADER..ENVELOPE_HEADER + length].to_vec();
    let mut check = EnvelopeCheck::new(&key, &header);
    check.update(&text);
    check.finish(blob.last_chunk().unwrap())?;
    EnvelopeReader::new(&key, &header).decrypt(0, &mut text)?;
    Ok(text)
}

/// The first layer of a tag of a fixture.
fn layer(fixture: &str, tag: &str) -> Vec<u8> {
    let layout = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture).join("layout");
    let blob = |digest: &serde_json::Value| std::fs::read(layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let entry = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == tag)
        .unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&blob(&entry["digest"])).unwrap();
    blob(&manifest["layers"][0]["digest"])
}

#[test]
fn artifacts_of_both_writers_open_to_their_archives() {
    for (fixture, tag, top) in
        [("oci-sync-go", "sealed", "notes/"), ("oci-sync-go", "sealed-file", "single.bin"), ("oci-sync-rust", "sealed", "notes")]
    {
        let plain = open(&layer(fixture, tag), &passphrase(PASSPHRASE)).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(plain.as_slice()));
        let names: Vec<String> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names.first().map(|name| name.trim_end_matches('/')), Some(top.trim_end_matches('/')), "{fixture} {tag}");
    }
}

#[test]
fn the_wrong_passphrase_and_a_final_newline_are_key_wrong() {
    let blob = layer("oci-sync-go", "sealed");
    for wrong in ["", "correct horse battery stapl", "correct horse battery staple\n"] {
        assert_eq!(open(&blob, &passphrase(wrong)).unwrap_err().kind, ErrorKind::KeyWrong, "{wrong:?}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let blob = layer("oci-sync-rust", "sealed");
    for at in [0, 31, 32, 43, 44, 45, blob.len() / 2, blob.len() - 17, blob.len() - 16, blob.len() - 1] {
        let mut flipped = blob.clone();
        flipped[at] ^= 0x10;
        assert_eq!(open(&flipped, &passphrase(PASSPHRASE)).unwrap_err().kind, ErrorKind::KeyWrong, "byte {at}");
    }
}

#[test]
fn a_blob_shorter_than_header_and_tag_is_integrity() {
    for length in 0..60 {
        assert_eq!(ciphertext_length(length).unwrap_err().kind, ErrorKind::Integrity, "{length}");
    }
    for length in 0..44 {
        assert_eq!(EnvelopeHeader::parse(&vec![0; length]).unwrap_err().kind, ErrorKind::Integrity, "{length}");
    }
    assert_eq!(ciphertext_length(60).unwrap(), 0);
}

#[test]
fn the_message_length_is_limited_by_gcm() {
    assert_eq!(ciphertext_length(LONGEST + 60).unwrap(), LONGEST);
    assert_eq!(ciphertext_length(LONGEST + 61).unwrap_err().kind, ErrorKind::Invalid);
    let header = EnvelopeHeader { salt: [1; 32], nonce: [2; 12] };
    let key = EnvelopeKey(Zeroizing::new([3; 32]));
    let mut reader = EnvelopeReader::new(&key, &header);
    assert!(reader.decrypt(LONGEST - 5, &mut [0; 5]).is_ok());
    let mut untouched = [0; 6];
    assert_eq!(reader.decrypt(LONGEST - 5, &mut untouched).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(reader.decrypt(u64::MAX, &mut untouched).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(untouched, [0; 6]);
}

#[test]
fn fixed_vectors_open() {
    let head = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f000102030405060708090a0b";
    let vectors: [(&str, &[u8], &str, &str); 3] = [
        (
            "ocifs-vector-1",
            b"hello ocifs\n",
            "ea2922ffd47a7143a875ec794c81c01d178611a403c18c2b57abb2755b080f83",
            "230ea78c008b9bb80356ba00009c917aaea16bba2bbe39acf716607f",
        ),
        ("", b"", "ff763c216b4edbd7c55b746034c638a6cb0b1e52a6c4ad5f574879b74a25ecb5", "276ec7b31eb2cd386c02d9d18936728a"),
        (
            "口令-пароль",
            &[b'x'; 33],
            "38e6c1db9e729e21baa292f371777431c39b95a6778ef53f0e77537887a4c9d6",
            "8d51c3293fcfbbbc76325aec7d0f275fa0e819a19d841397828673c5f55fd096bcf2cf4f8b7b7e81df51ace225bb02f585",
        ),
    ];
    for (words, plain, key, sealed) in vectors {
        let blob = bytes(&format!("{head}{sealed}"));
        let header = EnvelopeHeader::parse(&blob).unwrap();
        assert_eq!(EnvelopeKey::derive(&passphrase(words), &header.salt).unwrap().0.as_slice(), bytes(key), "{words}");
        assert_eq!(open(&blob, &passphrase(words)).unwrap(), plain, "{words}");
        assert_eq!(seal(&EnvelopeKey::derive(&passphrase(words), &header.salt).unwrap(), &header, &[plain]), blob, "{words}");
    }
}

/// Writes a whole message.
fn seal(key: &EnvelopeKey, header: &EnvelopeHeader, pieces: &[&[u8]]) -> Vec<u8> {
    let mut blob = header.bytes().to_vec();
    let mut writer = EnvelopeWriter::new(key, header);
    for piece in pieces {
        let start = blob.len();
        blob.extend_from_slice(piece);
        writer.encrypt(&mut blob[start..]).unwrap();
    }
    blob.extend_from_slice(&writer.finish());
    blob
}

#[test]
fn a_header_survives_a_round_trip() {
    let header = EnvelopeHeader { salt: std::array::from_fn(|at| at as u8), nonce: std::array::from_fn(|at| 100 + at as u8) };
    assert_eq!(EnvelopeHeader::parse(&header.bytes()).unwrap(), header);
}

#[test]
fn a_message_beyond_the_limit_of_gcm_is_refused_and_left_as_it_was() {
    let header = EnvelopeHeader { salt: [1; 32], nonce: [2; 12] };
    let mut writer = EnvelopeWriter::new(&EnvelopeKey(Zeroizing::new([3; 32])), &header);
    writer.tag.skip_to(LONGEST - 20);
    assert!(writer.encrypt(&mut [0; 4]).is_ok());
    let mut rest = [7; 17];
    assert_eq!(writer.encrypt(&mut rest).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(rest, [7; 17]);
    assert!(writer.encrypt(&mut rest[..16]).is_ok());
    assert_eq!(writer.encrypt(&mut rest[..1]).unwrap_err().kind, ErrorKind::Invalid);
    assert!(writer.encrypt(&mut []).is_ok());
}

#[test]
fn debug_shows_no_key() {
    let header = EnvelopeHeader { salt: [1; 32], nonce: [2; 12] };
    let key = EnvelopeKey(Zeroizing::new([171; 32]));
    let (check, reader) = (EnvelopeCheck::new(&key, &header), EnvelopeReader::new(&key, &header));
    let shown = format!("{key:?} {check:?} {reader:?} {:?} {:?}", EnvelopeWriter::new(&key, &header), key.cache_key());
    assert!(!shown.contains("171") && !shown.contains("ab"), "{shown}");
}

proptest! {
    #[test]
    fn any_splitting_and_seeking_agrees_with_one_shot_decryption(
        key: [u8; 32],
        nonce: [u8; 12],
        plain in proptest::collection::vec(any::<u8>(), 0..700),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ranges in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
    ) {
        let sealed = Aes256Gcm::new((&key).into()).encrypt(&nonce.into(), plain.as_slice()).unwrap();
        let (text, tag) = sealed.split_last_chunk::<16>().unwrap();
        let header = EnvelopeHeader { salt: [0; 32], nonce };
        let key = EnvelopeKey(Zeroizing::new(key));

        let mut check = EnvelopeCheck::new(&key, &header);
        let mut borders: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        borders.extend([0, text.len()]);
        borders.sort_unstable();
        for pair in borders.windows(2) {
            check.update(&text[pair[0]..pair[1]]);
        }
        prop_assert!(check.finish(tag).is_ok());

        let mut reader = EnvelopeReader::new(&key, &header);
        for (one, other) in ranges {
            let (one, other) = (one.index(text.len() + 1), other.index(text.len() + 1));
            let range = one.min(other)..one.max(other);
            let mut piece = text[range.clone()].to_vec();
            reader.decrypt(range.start as u64, &mut piece).unwrap();
            prop_assert_eq!(piece.as_slice(), &plain[range]);
        }
    }

    #[test]
    fn sealing_in_any_pieces_equals_one_shot_sealing(
        key: [u8; 32],
        salt: [u8; 32],
        nonce: [u8; 12],
        plain in proptest::collection::vec(any::<u8>(), 0..700),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let header = EnvelopeHeader { salt, nonce };
        let mut borders: Vec<usize> = cuts.iter().map(|cut| cut.index(plain.len() + 1)).collect();
        borders.extend([0, plain.len()]);
        borders.sort_unstable();
        let pieces: Vec<&[u8]> = borders.windows(2).map(|pair| &plain[pair[0]..pair[1]]).collect();
        let blob = seal(&EnvelopeKey(Zeroizing::new(key)), &header, &pieces);
        let judge = Aes256Gcm::new((&key).into()).encrypt(&nonce.into(), plain.as_slice()).unwrap();
        prop_assert_eq!(&blob, &[&salt[..], &nonce, &judge].concat());
        let text = &blob[ENVELOPE_HEADER..blob.len() - ENVELOPE_TAG];
        prop_assert_eq!(ciphertext_length(blob.len() as u64).unwrap(), text.len() as u64);
        let key = EnvelopeKey(Zeroizing::new(key));
        let mut check = EnvelopeCheck::new(&key, &header);
        check.update(text);
        prop_assert!(check.finish(blob.last_chunk().unwrap()).is_ok());
    }

    #[test]
    fn a_tag_verifies_only_its_own_message(plain in proptest::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, bit in 0..8u8) {
        let sealed = Aes256Gcm::new((&[7; 32]).into()).encrypt(&[9; 12].into(), plain.as_slice()).unwrap();
        let mut forged = sealed.clone();
        let at = at.index(forged.len());
        forged[at] ^= 1 << bit;
        let key = EnvelopeKey(Zeroizing::new([7; 32]));
        let (text, tag) = forged.split_last_chunk::<16>().unwrap();
        let mut check = EnvelopeCheck::new(&key, &EnvelopeHeader { salt: [0; 32], nonce: [9; 12] });
        check.update(text);
        prop_assert_eq!(check.finish(tag).unwrap_err().kind, ErrorKind::KeyWrong);
    }
}
