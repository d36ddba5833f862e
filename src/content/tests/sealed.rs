//! Archives in the oci-sync envelope.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit};

use super::super::sealed::envelope;
use super::attached_index::{file, pack_entries};
use super::*;
use crate::layer::Packing;
use crate::seal::{EnvelopeHeader, EnvelopeKey, Passphrase};

const PASSPHRASE: &str = "correct horse battery staple";

fn seal(plain: &[u8]) -> Vec<u8> {
    let (salt, nonce) = ([7; 32], [9; 12]);
    let mut key = [0; 32];
    scrypt::scrypt(PASSPHRASE.as_bytes(), &salt, &scrypt::Params::new(15, 8, 1).unwrap(), &mut key).unwrap();
    let sealed = Aes256Gcm::new((&key).into()).encrypt(&nonce.into(), plain).unwrap();
    [&salt, nonce.as_slice(), &sealed].concat()
}

fn ring(passphrases: &[&str]) -> KeyRing {
    let source = |text: &&str| {
        let text = (*text).to_owned();
        Arc::new(move || Ok(Some(Passphrase::new(text.clone().into_bytes())))) as Arc<dyn PassphraseSource>
    };
    KeyRing::new(passphrases.iter().map(source).collect())
}

fn sealed(fixture: &ContentFixture, blob: &[u8]) -> BlobSource {
    BlobSource { sealing: Sealing::OciSync, ..fixture.add(Form::Archive, blob) }
}

fn contents(fixture: &ContentFixture, size: u64, passphrases: &[&str]) -> Contents {
    Contents::new(Config { keys: ring(passphrases), ..fixture.config(size) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_archive_opens_with_one_request_and_the_right_one_of_several_passphrases() {
    let fixture = ContentFixture::new();
    let big = noise(5 * MIB as usize, 1);
    let source = sealed(&fixture, &seal(&gzip(&tar(&[("secret-name", &big)]))));
    let first = contents(&fixture, 1 << 30, &["wrong", PASSPHRASE, "other"]);
    let index = first.index(&source).await.unwrap();
    let stream = first.open(&source).await.unwrap();
    assert!(stream.read(extent(&index, "secret-name")).await.unwrap() == big);
    assert_eq!((fixture.requests(), stream.verified()), (1, Verified::Whole));
    for (passphrase, present) in [(PASSPHRASE, big.len() as u64), ("wrong", 0)] {
        let other = contents(&fixture, 1 << 30, &[passphrase]);
        assert_eq!(other.presence(&source).of(&extent(&index, "secret-name")), present, "{passphrase}");
    }

    // Offline, with the passphrase: everything; with another: KeyWrong; with none: KeyMissing.
    fixture.memory.remove_blob(REPOSITORY, &source.descriptor.digest);
    let again = contents(&fixture, 1 << 30, &[PASSPHRASE]);
    assert!(again.open(&source).await.unwrap().read(extent(&index, "secret-name")).await.unwrap() == big);
    assert!(matches!(again.protection(&source).await.unwrap(), cache::Protection::Sealed(_)));
    let wrong = contents(&fixture, 1 << 30, &["wrong"]);
    assert_eq!(wrong.open(&source).await.err().unwrap().kind, ErrorKind::KeyWrong);
    let none = contents(&fixture, 1 << 30, &[]);
    assert_eq!(none.open(&source).await.err().unwrap().kind, ErrorKind::KeyMissing);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_plaintext_and_no_name_of_a_sealed_archive_reaches_the_disk() {
    let fixture = ContentFixture::new();
    let text = b"attack at dawn, attack at dawn, attack at dawn".repeat(50_000);
    let source = sealed(&fixture, &seal(&tar(&[("secret-name", &text)])));
    contents(&fixture, 1 << 30, &[PASSPHRASE]).index(&source).await.unwrap();
    keeps_secret(&fixture, &[b"attack at dawn", b"secret-name"]);
}

/// No cache file contains any of these.
fn keeps_secret(fixture: &ContentFixture, secrets: &[&[u8]]) {
    let mut folders = vec![fixture.directory.path().to_path_buf()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            files += 1;
            let data = std::fs::read(entry.path()).unwrap();
            for secret in secrets {
                assert!(!data.windows(secret.len()).any(|window| window == *secret), "{:?}", entry.path());
            }
        }
    }
    assert!(files > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_passphrase_is_distinguished_from_a_damaged_blob() {
    let fixture = ContentFixture::new();
    let blob = seal(&tar(&[("a", b"data")]));
    let source = sealed(&fixture, &blob);
    let error = contents(&fixture, 1 << 30, &["wrong"]).index(&source).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::KeyWrong, "{error}");
    // The ciphertext was right, so the right passphrase needs no further request.
    contents(&fixture, 1 << 30, &[PASSPHRASE]).index(&source).await.unwrap();
    assert_eq!(fixture.requests(), 1);

    let fixture = ContentFixture::new();
    let source = sealed(&fixture, &blob);
    let mut bad = blob.clone();
    bad[60] ^= 1;
    fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, bad);
    let error = contents(&fixture, 1 << 30, &["wrong"]).index(&source).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_passphrase_nothing_is_fetched() {
    let fixture = ContentFixture::new();
    let source = sealed(&fixture, &seal(&tar(&[("a", b"data")])));
    assert_eq!(fixture.contents().index(&source).await.err().unwrap().kind, ErrorKind::KeyMissing);
    assert_eq!(fixture.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_archive_above_the_budget_is_read_and_verified_by_span_digests() {
    let fixture = ContentFixture::new();
    let archive = tar(&[("big", &noise(7 * MIB as usize, 2))]);
    let source = sealed(&fixture, &seal(&archive));
    // Memory for hardly more than one span.
    let contents = Contents::new(Config { keys: ring(&[PASSPHRASE]), budget: Budget::new(MEMORY_LEAST), ..fixture.config(2 * MIB) });
    let stream = contents.open(&source).await.unwrap();
    assert!(read_all(&stream).await.unwrap() == archive);
    for start in [6 * MIB, 5, 3 * MIB + 9] {
        assert!(stream.read(start..start + 5000).await.unwrap() == archive[start as usize..start as usize + 5000]);
    }
    fixture.memory.plan(RequestKind::Blob, 0, u32::MAX, Fault::Flipped(0));
    let reads = join_all((0..7).map(|span| stream.read(span * MIB + 100..span * MIB + 101))).await;
    assert!(reads.iter().any(|read| read.as_ref().is_err_and(|error| error.kind == ErrorKind::Integrity)));
    for (span, byte) in reads.iter().enumerate().filter_map(|(span, read)| Some((span, read.as_ref().ok()?))) {
        assert_eq!(byte[0], archive[span * MIB as usize + 100]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_too_short_for_an_envelope_is_an_integrity_error() {
    let fixture = ContentFixture::new();
    let source = sealed(&fixture, b"short");
    let error = contents(&fixture, 1 << 30, &[PASSPHRASE]).index(&source).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_sealed_here_is_listed_without_a_request_and_its_names_stay_secret() {
    let fixture = ContentFixture::new();
    let (packed, plain) = pack_entries(Packing::GzipTar, &[(file("secret-name", b"data"), b"data")]);
    let blob = seal(&plain);
    let source = sealed(&fixture, &blob);
    let header = EnvelopeHeader::parse(&blob).unwrap();
    let key = EnvelopeKey::derive(&Passphrase::new(PASSPHRASE.into()), &header.salt).unwrap();
    let contents = contents(&fixture, 1 << 30, &["wrong", PASSPHRASE]);
    contents.adopt_sealed(&source, header, &key, &packed.index).unwrap();
    let index = contents.index(&source).await.unwrap();
    assert_eq!((index.entry(0).unwrap().path, fixture.requests()), (&b"secret-name"[..], 0));
    assert_eq!(contents.open(&source).await.unwrap().read(extent(&index, "secret-name")).await.unwrap(), "data");
    // The next archive is sealed with the passphrase that opens this one.
    let next = contents.seal_key(Some(&source), [3; 32]).await.unwrap().unwrap();
    let expected = EnvelopeKey::derive(&Passphrase::new(PASSPHRASE.into()), &[3; 32]).unwrap();
    let sealed_by = |key: &EnvelopeKey| {
        let mut out = Vec::new();
        key.cache_key().seal(0, b"x", &mut out);
        out
    };
    assert_eq!(sealed_by(&next), sealed_by(&expected));
    let other = BlobSource { descriptor: Descriptor::new("a/b", Digest::of(b"other"), 5), ..source };
    assert_eq!(contents.adopt_sealed(&other, header, &key, &packed.index).unwrap_err().kind, ErrorKind::Integrity);
    keeps_secret(&fixture, &[b"secret-name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_that_another_reader_stored_is_opened_in_place_and_stays() {
    let fixture = ContentFixture::new();
    let big = noise(3 * MIB as usize, 8);
    let source = sealed(&fixture, &seal(&gzip(&tar(&[("secret-name", &big)]))));
    let stored = envelope::as_stored(&source);
    let relay = || Contents::new(Config { verify: VerifyPolicy::Relayed, ..fixture.config(1 << 30) });
    relay().open(&stored).await.unwrap().read(0..stored.descriptor.size).await.unwrap();
    fixture.memory.remove_blob(REPOSITORY, &source.descriptor.digest);
    let contents = contents(&fixture, 1 << 30, &[PASSPHRASE]);
    let index = contents.index(&source).await.unwrap();
    let stream = contents.open(&source).await.unwrap();
    assert!(stream.read(extent(&index, "secret-name")).await.unwrap() == big);
    let again = relay().open(&stored).await.unwrap();
    assert_eq!(again.read(0..stored.descriptor.size).await.unwrap().len() as u64, stored.descriptor.size);
}
