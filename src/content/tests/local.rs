//! Raw blobs that are files on this machine: read in place, verified each time.

use super::*;

fn local() -> ContentFixture {
    ContentFixture { memory: Arc::new(Memory::with_origin("oci:/layout", Trust::Digest)), directory: TempDir::new().unwrap() }
}

fn spans_cached(fixture: &ContentFixture) -> u64 {
    fixture.cache(1 << 30).usage().unwrap().spans
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_local_raw_blob_is_read_in_place_after_one_pass() {
    let fixture = local();
    let data = noise(5 * MIB as usize + 9, 21);
    let source = fixture.add(Form::Raw, &data);
    let at = 3 * MIB as usize + 77;
    assert_eq!((fixture.contents().presence(&source).of(&(1..9)), fixture.requests()), (8, 0));
    let stream = fixture.contents().open(&source).await.unwrap();
    assert_eq!(stream.read(at as u64..at as u64 + 4096).await.unwrap(), data[at..at + 4096]);
    assert_eq!((stream.verified(), fixture.asked()), (Verified::Whole, data.len() as u64 + MIB));
    // The next mount trusts the sums that the pass left.
    let stream = fixture.contents().open(&source).await.unwrap();
    assert_eq!(stream.read(5..9).await.unwrap(), data[5..9]);
    assert_eq!(fixture.asked(), data.len() as u64 + 2 * MIB);
    assert!(read_all(&stream).await.unwrap() == data);
    assert_eq!(fixture.asked(), 2 * data.len() as u64 + 2 * MIB - MIB);
    assert_eq!(spans_cached(&fixture), 0);
    assert!(stream.lease(&(0..data.len() as u64)).is_none(), "the kernel must not read it by itself: nobody verifies it then");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_file_changed_after_its_pass_is_an_error_where_it_differs() {
    let fixture = local();
    let data = noise(4 * MIB as usize, 22);
    let source = fixture.add(Form::Raw, &data);
    fixture.contents().index(&source).await.unwrap();
    let mut changed = data.clone();
    changed[2 * MIB as usize + 5] ^= 1;
    fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, changed);
    for contents in [fixture.contents(), fixture.contents()] {
        let stream = contents.open(&source).await.unwrap();
        assert_eq!(stream.read(MIB..MIB + 9).await.unwrap(), data[MIB as usize..MIB as usize + 9]);
        assert_eq!(stream.read(2 * MIB + 900..2 * MIB + 909).await.unwrap_err().kind, ErrorKind::Integrity);
    }
    fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, data.clone());
    assert!(read_all(&fixture.contents().open(&source).await.unwrap()).await.unwrap() == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_local_raw_blob_leaves_nothing_in_the_cache() {
    let fixture = local();
    let source = fixture.add(Form::Raw, b"some text");
    let contents = fixture.contents();
    for requests in 1..3 {
        let contents = if requests == 1 { contents.clone() } else { fixture.contents() };
        let stream = contents.open(&source).await.unwrap();
        assert_eq!((stream.read(0..4).await.unwrap(), stream.read(5..9).await.unwrap()), ("some".into(), "text".into()));
        assert_eq!((stream.verified(), fixture.requests()), (Verified::Whole, requests));
    }
    let usage = fixture.cache(1 << 30).usage().unwrap();
    assert_eq!((usage.spans, usage.streams, usage.indexes), (0, 0, 0));
}
