//! Layers with tables of contents: what is fetched of them, and that a wrong table or chunk does no harm.

use serde_json::{Value, json};

use super::*;
use crate::layer::Table;

/// An eStargz layer, as stargz-snapshotter lays it out, whose table was changed before it was packed; and the digest of the table.
pub(crate) fn estargz(files: &[(&str, &[u8])], chunk: usize, change: impl FnOnce(&mut Vec<Value>)) -> (Vec<u8>, Table) {
    let (mut blob, mut entries) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let archive = tar(&[(name, data)]);
        blob.extend(gzip(&archive[..512]));
        let count = data.len().div_ceil(chunk);
        for (number, piece) in data.chunks(chunk).enumerate() {
            let mut entry = match number {
                0 => json!({ "name": name, "type": "reg", "size": data.len(), "mode": 0o644, "digest": Digest::of(data).to_string() }),
                _ => json!({ "name": name, "type": "chunk", "chunkOffset": number * chunk }),
            };
            entry["offset"] = json!(blob.len());
            entry["chunkDigest"] = json!(Digest::of(piece).to_string());
            let is_last = number + 1 == count;
            if !is_last {
                entry["chunkSize"] = json!(chunk);
            }
            entries.push(entry);
            let padding = if is_last { data.len().wrapping_neg() % 512 } else { 0 };
            blob.extend(gzip(&[piece, &[0; 512][..padding]].concat()));
        }
    }
    change(&mut entries);
    let text = json!({ "version": 1, "entries": entries }).to_string();
    let offset = blob.len();
    blob.extend(gzip(&tar(&[("stargz.index.json", text.as_bytes())])));
    let field = format!("SG\x16\0{offset:016x}STARGZ");
    blob.extend([b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0".as_slice(), field.as_bytes(), b"\x01\0\0\xff\xff", &[0; 8]].concat());
    (blob, Table::Estargz { digest: Digest::of(text.as_bytes()) })
}

fn add(fixture: &ContentFixture, (blob, table): &(Vec<u8>, Table)) -> BlobSource {
    BlobSource { guide: Some(Guide::Table(table.clone())), ..fixture.add(Form::Archive, blob) }
}

/// The bytes of a file through an index, or the error.
async fn file(contents: &Contents, source: &BlobSource, index: &LayerIndex, path: &str) -> Result<Vec<u8>, Error> {
    let stream = contents.open(source).await?;
    Ok(stream.read(extent(index, path)).await?.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_a_table_is_listed_by_its_end_and_read_by_verified_chunks() {
    let (big, small) = (noise(9 * MIB as usize + 77, 41), noise(3000, 42));
    let fixture = ContentFixture::new();
    let source = add(&fixture, &estargz(&[("first", &small), ("big", &big), ("last", b"end")], MIB as usize, |_| ()));
    let contents = fixture.contents();
    assert!(contents.follows(&source));
    let index = contents.index(&source).await.unwrap();
    assert!(index.is_of_content() && index.entry_count() == 3);
    assert_eq!((fixture.requests(), fixture.asked()), (1, 256 << 10));
    let stream = contents.open(&source).await.unwrap();
    let start = extent(&index, "big").start;
    let at = 5 * MIB + 123;
    assert!(stream.read(start + at..start + at + 4096).await.unwrap() == big[at as usize..][..4096]);
    assert_eq!((fixture.requests(), stream.verified()), (2, Verified::Whole));
    assert!(fixture.asked() < 2 * MIB, "{}", fixture.asked());
    assert!(file(&contents, &source, &index, "big").await.unwrap() == big);
    assert!(file(&contents, &source, &index, "first").await.unwrap() == small);
    assert_eq!(file(&contents, &source, &index, "last").await.unwrap(), b"end");

    // Another mount finds table and chunks.
    fixture.memory.forget_requests();
    let contents = Contents::new(fixture.config(1 << 30));
    assert!(file(&contents, &source, &index, "big").await.unwrap() == big);
    assert_eq!(fixture.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_of_a_table_come_with_their_neighbours() {
    let files: Vec<(String, Vec<u8>)> = (0..200).map(|number| (format!("f{number:03}"), noise(2000, number))).collect();
    let named: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let fixture = ContentFixture::new();
    let source = add(&fixture, &estargz(&named, MIB as usize, |_| ()));
    let contents = fixture.contents();
    let index = contents.index(&source).await.unwrap();
    assert!(file(&contents, &source, &index, "f000").await.unwrap() == files[0].1);
    let stream = contents.open(&source).await.unwrap();
    until(|| stream.holds(&(0..index.stream_length()))).await;
    for (name, data) in &files {
        assert!(file(&contents, &source, &index, name).await.unwrap() == *data, "{name}");
    }
    assert!(fixture.requests() <= 3, "{}", fixture.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_table_cannot_be_used_is_read_whole() {
    let data = noise(2 * MIB as usize, 43);
    let files = [("a", &data[..]), ("b", b"b")];
    let good = estargz(&files, MIB as usize, |_| ());
    let mut flipped = good.clone();
    let at = flipped.0.len() - 200;
    flipped.0[at] ^= 1;
    let gone = (good.0[..good.0.len() - 51].to_vec(), good.1.clone());
    let cases = [
        ("of another digest", (good.0.clone(), Table::Estargz { digest: Digest::of(b"other") })),
        ("without a footer", gone),
        ("of another format", (good.0.clone(), Table::ZstdChunked { digest: Digest::of(b""), place: 0..10, length: 10 })),
        ("outside", (good.0.clone(), Table::ZstdChunked { digest: Digest::of(b""), place: 0..u64::MAX, length: 10 })),
        ("with an offset outside", estargz(&files, MIB as usize, |entries| entries[0]["offset"] = json!(u64::MAX))),
        ("with chunks at one place", estargz(&files, MIB as usize, |entries| entries[1]["offset"] = entries[0]["offset"].clone())),
        ("without digests", estargz(&files, MIB as usize, |entries| entries[0]["chunkDigest"] = json!(null))),
        ("without a chunk", estargz(&files, MIB as usize, |entries| drop(entries.remove(1)))),
        ("with absurd sizes", estargz(&files, MIB as usize, |entries| entries[0]["size"] = json!(u64::MAX))),
    ];
    for (what, layer) in cases {
        let fixture = ContentFixture::new();
        let source = add(&fixture, &layer);
        let contents = fixture.contents();
        let index = contents.index(&source).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!index.is_of_content(), "{what}");
        // What reads it whole forgets the table.
        assert!(!contents.follows(&source), "{what}");
        let plain = BlobSource { guide: None, ..source };
        assert!(file(&contents, &plain, &index, "a").await.unwrap() == data, "{what}");
    }
    // Wrong bytes of a layer are wrong whole, too.
    let fixture = ContentFixture::new();
    let source = add(&fixture, &good);
    fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, flipped.0);
    assert_eq!(fixture.contents().index(&source).await.err().unwrap().kind, ErrorKind::Integrity);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_does_not_match_its_table_is_never_served() {
    let (one, two) = (noise(MIB as usize, 44), noise(MIB as usize, 45));
    let files = [("one", &one[..]), ("two", &two[..])];
    let swapped = |entries: &mut Vec<Value>| {
        let (first, second) = (entries[0]["offset"].clone(), entries[1]["offset"].clone());
        (entries[0]["offset"], entries[1]["offset"]) = (second, first);
    };
    let renumbered = |entries: &mut Vec<Value>| entries[0]["offset"] = json!(entries[0]["offset"].as_u64().unwrap() + 1);
    let another = Digest::of(b"another").to_string();
    let redigested = |entries: &mut Vec<Value>| (entries[0]["digest"], entries[0]["chunkDigest"]) = (json!(another), json!(another));
    type Lie<'a> = &'a dyn Fn(&mut Vec<Value>);
    let lies: [(&str, Lie<'_>); 4] =
        [("swapped", &swapped), ("in the middle", &renumbered), ("another digest", &redigested), ("flipped", &|_| ())];
    for (what, lie) in lies {
        let fixture = ContentFixture::new();
        let source = add(&fixture, &estargz(&files, 4 * MIB as usize, lie));
        let contents = fixture.contents();
        let index = contents.index(&source).await.unwrap();
        if what == "flipped" {
            fixture.memory.plan(RequestKind::Blob, 0, 1, Fault::Flipped(500));
        }
        for _ in 0..2 {
            let error = file(&contents, &source, &index, "one").await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Integrity, "{what}: {error}");
        }
        // Opened again, here and by the next mount, the layer itself says what it holds.
        let plain = BlobSource { guide: None, ..source.clone() };
        for contents in [contents, Contents::new(fixture.config(1 << 30))] {
            assert!(!contents.trusts(&source) || !contents.follows(&source), "{what}");
            let index = contents.index(&plain).await.unwrap();
            assert!(file(&contents, &plain, &index, "one").await.unwrap() == one, "{what}");
            assert!(file(&contents, &plain, &index, "two").await.unwrap() == two, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_not_followed_by_strict_readers_nor_where_the_layer_was_read_whole() {
    let layer = estargz(&[("a", b"data")], MIB as usize, |_| ());
    let fixture = ContentFixture::new();
    let source = add(&fixture, &layer);
    let strict = Contents::new(Config { verify: VerifyPolicy::Strict, ..fixture.config(1 << 30) });
    assert!(!strict.follows(&source));
    let contents = fixture.contents();
    // What is trusted by digest alone is, since the digest covers the table and the table every chunk.
    assert!(contents.follows(&BlobSource { strict: true, ..source.clone() }));
    let shown = contents.index(&source).await.unwrap();
    let plain = BlobSource { guide: None, ..source.clone() };
    let own = contents.index(&plain).await.unwrap();
    assert!(!contents.follows(&source) && !own.is_of_content());
    // What was opened by the table before goes on by it: the offsets differ.
    assert_ne!(extent(&shown, "a"), extent(&own, "a"));
    assert_eq!(file(&contents, &source, &shown, "a").await.unwrap(), b"data");
    assert_eq!(file(&contents, &plain, &own, "a").await.unwrap(), b"data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_out_of_reach_is_an_error_and_is_asked_for_again() {
    let fixture = ContentFixture::new();
    let source = add(&fixture, &estargz(&[("a", b"data")], MIB as usize, |_| ()));
    let contents = fixture.contents();
    fixture.memory.plan(RequestKind::Blob, 0, 1, Fault::Error(ErrorKind::Unreachable));
    assert_eq!(contents.index(&source).await.err().unwrap().kind, ErrorKind::Unreachable);
    assert!(contents.index(&source).await.unwrap().is_of_content());
}
