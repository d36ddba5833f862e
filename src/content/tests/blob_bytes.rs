//! Blobs that another reader cached as they are stored: everything else decodes from them.

use super::super::blob_bytes::{BlobBytes, Places};
use super::*;

/// The key of a blob as stored.
fn raw_key(source: &BlobSource) -> Digest {
    names::stream(&source.descriptor.digest, Form::Raw, Sealing::None)
}

/// Reads a blob as stored, as a server that relays it does, and forgets the requests for that.
async fn relay(fixture: &ContentFixture, source: &BlobSource) {
    let stored = super::super::sealed::envelope::as_stored(source);
    let contents = Contents::new(Config { verify: VerifyPolicy::Relayed, ..fixture.config(1 << 30) });
    contents.open(&stored).await.unwrap().read(0..source.descriptor.size).await.unwrap();
    fixture.memory.forget_requests();
}

/// Stores single spans of a blob, as a server does whose client left.
fn store(fixture: &ContentFixture, source: &BlobSource, blob: &[u8], spans: &[u32]) {
    let layout = plan::raw_layout(source.descriptor.size).unwrap();
    let cached = fixture.cache(1 << 30).stream(&raw_key(source), &layout, &cache::Protection::Plain).unwrap();
    for span in spans {
        let range = layout.span(*span);
        assert!(cached.store(*span, &blob[range.start as usize..range.end as usize], cache::Trust::Unproved).unwrap());
    }
}

fn archive(seed: u64) -> (Vec<u8>, Vec<u8>) {
    let big = noise(9 * MIB as usize + 77, seed);
    (tar(&[("small", b"hello"), ("big", &big)]), big)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_decoded_from_the_blob_that_another_reader_stored() {
    let (archive, big) = archive(1);
    for packed in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let fixture = ContentFixture::new();
        let source = fixture.add(Form::Archive, &packed);
        relay(&fixture, &source).await;
        fixture.memory.remove_blob(REPOSITORY, &source.descriptor.digest);
        let contents = fixture.contents();
        let index = contents.index(&source).await.unwrap();
        let stream = contents.open(&source).await.unwrap();
        assert!(stream.read(extent(&index, "big")).await.unwrap() == big);
        // Evicted spans are decoded from it too, here and by other readers.
        for contents in [contents, fixture.contents()] {
            let key = names::stream(&source.descriptor.digest, Form::Archive, Sealing::None);
            fixture.cache(1 << 30).forget_stream(&key).unwrap();
            let stream = contents.open(&source).await.unwrap();
            assert!(stream.read(extent(&index, "big")).await.unwrap() == big);
            assert_eq!(stream.read(extent(&index, "small")).await.unwrap(), "hello");
        }
        assert_eq!(fixture.requests(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_not_stored_is_fetched() {
    let fixture = ContentFixture::new();
    let (archive, big) = archive(2);
    let source = fixture.add(Form::Archive, &archive);
    // Span 2 stands alone: requests for what surrounds it would not pay.
    store(&fixture, &source, &archive, &[0, 2, 4, 5, 6, 7]);
    let contents = fixture.contents();
    let index = contents.index(&source).await.unwrap();
    let asked: Vec<_> = fixture.memory.requests().into_iter().filter_map(|request| request.range).collect();
    assert_eq!(asked, [MIB..4 * MIB, 8 * MIB..source.descriptor.size]);
    let stream = contents.open(&source).await.unwrap();
    assert!(stream.read(extent(&index, "big")).await.unwrap() == big);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_evicted_in_the_middle_of_a_read_come_from_the_registry() {
    let fixture = ContentFixture::new();
    let data = noise(6 * MIB as usize, 3);
    let source = fixture.add(Form::Archive, &data);
    relay(&fixture, &source).await;
    let contents = fixture.contents();
    let range = MIB + 5..source.descriptor.size - 3;
    let blob = (&source.repository, &source.descriptor);
    let mut bytes = BlobBytes::find(contents.shared(), blob, range.clone(), Places::All).await.unwrap();
    assert!(bytes.is_complete());
    let mut read = bytes.next("").await.unwrap().unwrap().to_vec();
    fixture.cache(1 << 30).forget_stream(&raw_key(&source)).unwrap();
    contents.shared().cache.let_go();
    while let Some(piece) = bytes.next("").await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(read == data[range.start as usize..range.end as usize]);
    assert_eq!(fixture.requests(), 1);
    assert!(bytes.were_cached() && fixture.asked() < data.len() as u64 - MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_stored_bytes_are_dropped_and_fetched_again() {
    let fixture = ContentFixture::new();
    let (archive, big) = archive(4);
    let blob = gzip(&archive);
    let source = fixture.add(Form::Archive, &blob);
    let mut wrong = blob.clone();
    wrong[MIB as usize + 9] ^= 1;
    // A pass over all of it.
    store(&fixture, &source, &wrong, &[1, 2, 3, 4]);
    let contents = fixture.contents();
    let index = contents.index(&source).await.unwrap();
    assert_eq!(fixture.memory.requests().last().and_then(|request| request.range.clone()), Some(0..blob.len() as u64));
    // Single spans of it.
    store(&fixture, &source, &wrong, &[1, 2, 3, 4]);
    fixture.cache(1 << 30).forget_stream(&names::stream(&source.descriptor.digest, Form::Archive, Sealing::None)).unwrap();
    let stream = fixture.contents().open(&source).await.unwrap();
    assert!(stream.read(extent(&index, "big")).await.unwrap() == big);
    let layout = plan::raw_layout(source.descriptor.size).unwrap();
    assert!(fixture.cache(1 << 30).begun_stream(&raw_key(&source), &layout, &cache::Protection::Plain).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_index_and_what_it_describes_are_read_from_stored_blobs() {
    let (big, entry) = (noise(5 * MIB as usize, 5), attached_index::file("big", &[0; 5 << 20]));
    let (packed, blob) = attached_index::pack_entries(crate::layer::Packing::GzipTar, &[(entry, &big)]);
    for flipped in [false, true] {
        let fixture = ContentFixture::new();
        let encoded = crate::layer::tests::encode_attached(&packed.index).unwrap();
        let described = fixture.add(Form::Archive, &blob);
        let named = fixture.add(Form::Raw, &encoded);
        let source = BlobSource { guide: Some(Guide::Index(named.descriptor.clone())), ..described.clone() };
        relay(&fixture, &named).await;
        if flipped {
            store(&fixture, &described, &vec![7; blob.len()], &[1]);
        } else {
            relay(&fixture, &described).await;
            fixture.memory.remove_blob(REPOSITORY, &described.descriptor.digest);
        }
        fixture.memory.remove_blob(REPOSITORY, &named.descriptor.digest);
        let contents = fixture.contents();
        let stream = contents.open(&source).await.unwrap();
        let index = contents.index(&source).await.unwrap();
        assert!(stream.read(extent(&index, "big")).await.unwrap() == big);
        // Wrong bytes of the cache are no fault of the index.
        assert!(contents.trusts(&source));
        assert_eq!(fixture.requests() == 0, !flipped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_not_stored_leaves_nothing_of_that_kind_in_the_cache() {
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Archive, &gzip(&archive(6).0));
    fixture.contents().index(&source).await.unwrap();
    let layout = plan::raw_layout(source.descriptor.size).unwrap();
    assert!(fixture.cache(1 << 30).begun_stream(&raw_key(&source), &layout, &cache::Protection::Plain).unwrap().is_none());
}
