//! Tables written by real tools against a pass over the same layers, and tables that lie.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::error::ErrorKind;
use crate::layer::tests::scan;
use crate::layer::{Extent, Form, SpanDecoder};
use crate::sys::array::Scratch;

const LAYOUTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn blob(fixture: &str, digest: &str) -> Vec<u8> {
    std::fs::read(Path::new(LAYOUTS).join(fixture).join("layout/blobs").join(digest.replace(':', "/"))).unwrap()
}

/// The layers of all fixtures with tables: their annotations and bytes.
fn layers() -> Vec<(Table, Vec<u8>)> {
    let mut found = Vec::new();
    for (fixture, tag) in [("image-estargz", "estargz"), ("image-estargz", "zstd-chunked-stargz"), ("image-buildah", "zstd-chunked")] {
        let index: Value =
            serde_json::from_slice(&std::fs::read(Path::new(LAYOUTS).join(fixture).join("layout/index.json")).unwrap()).unwrap();
        let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
        let entry = index["manifests"].as_array().unwrap().iter().find(named).unwrap();
        let manifest: Value = serde_json::from_slice(&blob(fixture, entry["digest"].as_str().unwrap())).unwrap();
        for layer in manifest["layers"].as_array().unwrap() {
            let text = |key: &str| layer["annotations"][key].as_str();
            let checksum =
                text("io.containers.zstd-chunked.manifest-checksum").or(text("io.github.containers.zstd-chunked.manifest-checksum"));
            let position =
                text("io.containers.zstd-chunked.manifest-position").or(text("io.github.containers.zstd-chunked.manifest-position"));
            let table = match checksum.zip(position) {
                Some((checksum, position)) => {
                    let numbers: Vec<u64> = position.split(':').map(|number| number.parse().unwrap()).collect();
                    let place = numbers[0]..numbers[0] + numbers[1];
                    Table::ZstdChunked { digest: Digest::parse(checksum).unwrap(), place, length: numbers[2] }
                }
                None => Table::Estargz { digest: Digest::parse(text("containerd.io/snapshot/stargz/toc.digest").unwrap()).unwrap() },
            };
            found.push((table, blob(fixture, layer["digest"].as_str().unwrap())));
        }
    }
    found
}

fn read(table: &Table, blob: &[u8]) -> Result<LayerIndex, Error> {
    let length = blob.len() as u64;
    let range = |range: &Range<u64>| &blob[range.start as usize..range.end as usize];
    let first = table.first(length)?;
    let place = table.place(range(&first), length)?;
    table.index(range(&place), place.clone(), (Digest::of(blob), length), &Resources::default())
}

/// The content of a file, each chunk decoded on its own and compared with its digest; `None` if a chunk is wrong.
fn content(index: &LayerIndex, number: u32, blob: &[u8]) -> Option<Vec<u8>> {
    let mut content = vec![0; usize::try_from(index.entry(number).unwrap().size).unwrap()];
    for extent in index.extents(number) {
        for span in index.spans_of(extent.stream..extent.stream + extent.length) {
            let place = index.span(span).unwrap();
            let mut decoder = SpanDecoder::new(index, span, &Resources::default().windows).unwrap();
            let (mut chunk, wanted) = (Vec::new(), (place.stream.end - place.stream.start) as usize);
            decoder.decode(&blob[place.blob.start as usize..place.blob.end as usize], &mut chunk, wanted).ok()?;
            if chunk.len() != wanted || Sha256::digest(&chunk).as_slice() != place.digest.unwrap() {
                return None;
            }
            let at = (extent.file + place.stream.start - extent.stream) as usize;
            content[at..at + wanted].copy_from_slice(&chunk);
        }
    }
    Some(content)
}

#[test]
fn tables_of_real_tools_say_what_a_pass_finds() {
    let all = layers();
    let mut used = 0;
    for (table, blob) in all {
        let (by_pass, collected) = scan(Form::Archive, &blob).unwrap();
        let by_table = match read(&table, &blob) {
            Ok(index) => index,
            Err(error) => {
                // The only reason in these layers: names that JSON cannot hold.
                assert!(by_pass.entries().any(|entry| std::str::from_utf8(entry.path).is_err()), "{table:?}: {error}");
                continue;
            }
        };
        used += 1;
        assert!(by_table.is_of_content() && by_table.blob_digest() == by_pass.blob_digest());
        let without_table = |path: &[u8]| path != b"stargz.index.json";
        let expected: Vec<_> = by_pass.entries().filter(|entry| without_table(entry.path)).collect();
        assert_eq!(by_table.entry_count() as usize, expected.len(), "{table:?}");
        for (entry, wanted) in by_table.entries().zip(expected) {
            let name = wanted.path.escape_ascii();
            assert_eq!((entry.path, entry.kind, entry.link, entry.size), (wanted.path, wanted.kind, wanted.link, wanted.size), "{name}");
            assert_eq!((entry.metadata.mode, entry.metadata.owner), (wanted.metadata.mode, wanted.metadata.owner), "{name}");
            assert_eq!(entry.metadata.device, wanted.metadata.device, "{name}");
            assert_eq!(entry.sha256, wanted.sha256, "{name}");
            let (mut one, mut other) = (by_table.xattrs(entry.number), by_pass.xattrs(wanted.number));
            one.sort();
            other.sort();
            assert_eq!(one, other, "{name}");
            if entry.size > 0 && entry.kind == crate::layer::FileKind::File {
                let extents = by_pass.extents(wanted.number);
                let mut bytes = vec![0; wanted.size as usize];
                for extent in extents {
                    let piece = &collected.stream[extent.stream as usize..(extent.stream + extent.length) as usize];
                    bytes[extent.file as usize..][..piece.len()].copy_from_slice(piece);
                }
                assert!(content(&by_table, entry.number, &blob) == Some(bytes), "{name}");
            }
        }
    }
    assert!(used >= 5, "{used}");
}

/// The index of a table in plain JSON, for a blob of 1,000,000 bytes whose chunks end at 900,000.
fn of_json(table: &Value) -> Result<LayerIndex, Error> {
    of_text(table.to_string().as_bytes())
}

fn of_text(text: &[u8]) -> Result<LayerIndex, Error> {
    let mut bytes = Array::new(&Scratch::memory());
    bytes.extend_from_slice(text).unwrap();
    index_of(&bytes, 900_000, Codec::Gzip, (Digest::of(b"blob"), 1_000_000), &Resources::default())
}

const SUM: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn table(entries: Value) -> Value {
    json!({ "version": 1, "entries": entries })
}

/// Two files, one of two chunks.
fn sample() -> Value {
    table(json!([
        { "name": "./", "type": "dir", "mode": 0o755, "modtime": "2024-01-01T00:00:00Z" },
        { "name": "a", "type": "reg", "size": 10, "mode": 0o644, "offset": 100, "chunkSize": 6, "chunkDigest": SUM, "digest": SUM,
          "xattrs": { "user.x": "aGk=", "user.none": null } },
        { "name": "a", "type": "chunk", "offset": 200, "chunkOffset": 6, "chunkDigest": SUM },
        { "name": "b", "type": "reg", "size": 5, "offset": 300, "digest": SUM },
        { "name": "hole", "type": "reg", "size": 9, "offset": 400, "chunkSize": 4, "chunkDigest": SUM },
        { "name": "hole", "type": "chunk", "chunkOffset": 4, "chunkSize": 5, "chunkType": "zeros" },
        { "name": "link", "type": "hardlink", "linkName": "./a" },
    ]))
}

#[test]
fn chunks_are_spans_and_holes_are_none() {
    let index = of_json(&sample()).unwrap();
    let spans: Vec<_> = (0..index.span_count()).map(|number| index.span(number).unwrap()).map(|span| (span.stream, span.blob)).collect();
    let expected = [(0..6, 100..200), (6..10, 200..300), (10..15, 300..400), (15..19, 400..65_540)];
    // What follows the last chunk is not fetched with it.
    assert_eq!(spans[..3], expected[..3]);
    assert!(spans[3].0 == expected[3].0 && spans[3].1.end < 900_000 && spans[3].1.end > 400 + 4);
    assert_eq!(index.extents(1), [Extent { file: 0, stream: 0, length: 10 }]);
    assert_eq!(index.extents(3), [Extent { file: 0, stream: 15, length: 4 }]);
    assert_eq!((index.xattrs(1), index.entry(4).unwrap().link), (vec![(&b"user.x"[..], &b"hi"[..])], &b"a"[..]));
    assert_eq!(index.stream_length(), 19);
}

#[test]
fn files_in_another_order_than_their_chunks_are_still_right() {
    let entry = |name: &str, offset: u64| json!({ "name": name, "type": "reg", "size": 2 << 20, "offset": offset, "digest": SUM });
    let index = of_json(&table(json!([entry("last", 500), entry("first", 100), entry("middle", 300)]))).unwrap();
    let places: Vec<u64> = (0..3).map(|number| index.extents(number)[0].stream).collect();
    assert_eq!(places, [4 << 20, 0, 2 << 20]);
    let members: Vec<_> = index.members().collect();
    assert!(members.windows(2).all(|pair| pair[0].end <= pair[1].start), "{members:?}");
}

#[test]
fn tables_that_lie_or_say_too_little_are_refused() {
    let file = |changes: Value| {
        let mut entry = json!({ "name": "f", "type": "reg", "size": 10, "offset": 100, "digest": SUM });
        entry.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        entry
    };
    let one = |changes: Value| table(json!([file(changes)]));
    assert!(of_json(&one(json!({}))).is_ok());
    let chunk = |changes: Value| {
        let mut entry = json!({ "name": "f", "type": "chunk", "offset": 200, "chunkOffset": 5, "chunkDigest": SUM });
        entry.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        table(json!([file(json!({ "chunkSize": 5, "chunkDigest": SUM })), entry]))
    };
    assert!(of_json(&chunk(json!({}))).is_ok());
    let other = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let cases = [
        ("a file before the first byte", one(json!({ "offset": 0 }))),
        ("a file behind the end", one(json!({ "offset": 900_000 }))),
        ("an absurd offset", one(json!({ "offset": u64::MAX }))),
        ("a negative offset", one(json!({ "offset": -1 }))),
        ("an absurd size", one(json!({ "size": u64::MAX }))),
        ("a size that is none", one(json!({ "size": 1.5 }))),
        ("a chunk that is too long", one(json!({ "size": (4 << 20) + 1 }))),
        ("no digest", one(json!({ "digest": null }))),
        ("a digest of another kind", one(json!({ "digest": "md5:00" }))),
        ("two digests", one(json!({ "chunkDigest": other }))),
        ("a chunk inside a member", one(json!({ "innerOffset": 512 }))),
        ("a chunk of an unknown type", one(json!({ "chunkType": "brotli" }))),
        ("a chunk that is longer than its file", one(json!({ "chunkSize": 11 }))),
        ("a file that is not covered", one(json!({ "chunkSize": 5, "chunkDigest": SUM }))),
        ("a chunk of another file", chunk(json!({ "name": "g" }))),
        ("a gap between chunks", chunk(json!({ "chunkOffset": 6 }))),
        ("overlapping chunks", chunk(json!({ "chunkOffset": 4 }))),
        ("an empty chunk", chunk(json!({ "chunkOffset": 10 }))),
        ("two chunks at one place", chunk(json!({ "offset": 100 }))),
        ("a chunk without a file", table(json!([{ "name": "f", "type": "chunk", "offset": 1 }]))),
        ("two files at one place", table(json!([file(json!({})), file(json!({ "name": "g" }))]))),
        ("an unknown type", one(json!({ "type": "door" }))),
        ("no type", table(json!([{ "name": "f" }]))),
        ("a name that JSON cannot hold", one(json!({ "name": "a\u{fffd}" }))),
        ("a time that is none", one(json!({ "modtime": "yesterday" }))),
        ("an owner that is none", one(json!({ "uid": -1 }))),
        ("an attribute that is no base64", one(json!({ "xattrs": { "user.a": "?" } }))),
        ("an attribute without a name", one(json!({ "xattrs": { "": "aGk=" } }))),
        ("another version", json!({ "version": 2, "entries": [] })),
        ("no version", json!({ "entries": [] })),
        ("no entries", json!({ "version": 1 })),
        ("no object", json!([])),
    ];
    for (what, table) in cases {
        assert_eq!(of_json(&table).expect_err(what).kind, ErrorKind::Unsupported, "{what}");
    }
    for text in ["", "{", "{\"version\":1,\"entries\":[]} x", "{\"version\":1,\"entries\":[],\"entries\":[]}", "\u{feff}{}"] {
        assert_eq!(of_text(text.as_bytes()).unwrap_err().kind, ErrorKind::Unsupported, "{text}");
    }
}

#[test]
fn names_are_judged_as_in_a_tar() {
    let entry = |name: &str, kind: &str, link: &str| json!({ "name": name, "type": kind, "linkName": link });
    let index = of_json(&table(json!([
        entry("../../etc", "dir", ""),
        entry("/a//./b", "fifo", ""),
        entry("s", "symlink", "../../x"),
        entry("empty", "symlink", ""),
        entry("h", "hardlink", ".."),
        entry("", "fifo", ""),
        entry(&"n".repeat(300), "dir", ""),
    ])))
    .unwrap();
    let paths: Vec<_> = index.entries().map(|entry| String::from_utf8_lossy(entry.path).into_owned()).collect();
    assert_eq!(paths[..3], ["etc", "a/b", "s"]);
    assert!(paths.len() == 4 && paths[3].len() < 256 && index.warnings().len() == 4, "{paths:?} {:?}", index.warnings());
}

#[test]
fn a_table_of_another_digest_or_length_is_refused_before_it_is_parsed() {
    for (table, blob) in layers() {
        let wrong = match table.clone() {
            Table::Estargz { .. } => vec![Table::Estargz { digest: Digest::of(b"other") }],
            Table::ZstdChunked { digest, place, length } => vec![
                Table::ZstdChunked { digest: Digest::of(b"other"), place: place.clone(), length },
                Table::ZstdChunked { digest, place: place.clone(), length: length - 1 },
                Table::ZstdChunked { digest, place: place.clone(), length: length + 1 },
                Table::ZstdChunked { digest, place: place.start..u64::MAX, length },
                Table::ZstdChunked { digest, place: place.end..place.start, length },
            ],
        };
        for table in wrong {
            assert!(matches!(read(&table, &blob).unwrap_err().kind, ErrorKind::Integrity | ErrorKind::Unsupported));
        }
        let end = table.place(&blob, blob.len() as u64).unwrap().end as usize;
        for length in [0, 1, 51, blob.len() / 2, end - 1] {
            assert!(read(&table, &blob[..length]).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_changed_table_is_refused_or_every_file_lies_in_the_stream(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut text = sample().to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if let Ok(index) = of_text(&text) {
            for entry in index.entries() {
                for extent in index.extents(entry.number) {
                    prop_assert!(extent.stream + extent.length <= index.stream_length() && extent.file + extent.length <= entry.size);
                }
            }
        }
    }

    #[test]
    fn a_flipped_layer_gives_right_bytes_or_none(at in any::<prop::sample::Index>(), bit in 0_u8..8, which in any::<prop::sample::Index>()) {
        static LAYERS: std::sync::LazyLock<Vec<(Table, Vec<u8>)>> = std::sync::LazyLock::new(layers);
        let (table, good) = &LAYERS[which.index(LAYERS.len())];
        let mut bad = good.clone();
        bad[at.index(good.len())] ^= 1 << bit;
        let Ok(index) = read(table, &bad) else { return Ok(()) };
        for entry in index.entries().filter(|entry| entry.kind == crate::layer::FileKind::File && entry.size < 1 << 20) {
            if let Some(bytes) = content(&index, entry.number, &bad) {
                prop_assert!(Some(<[u8; 32]>::from(Sha256::digest(&bytes))) == entry.sha256);
            }
        }
    }
}
