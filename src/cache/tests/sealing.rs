//! Sealed streams and documents: same behaviour, no plaintext on disk, unreadable with another key.

use super::*;
use crate::seal::{EnvelopeKey, Passphrase};

/// A key for `number`; deriving one is slow, so all are derived from one.
pub fn key(number: u8) -> Protection {
    static BASE: std::sync::LazyLock<ChunkKey> =
        std::sync::LazyLock::new(|| EnvelopeKey::derive(&Passphrase::new(b"passphrase".to_vec()), &[7; 32]).unwrap().cache_key());
    Protection::Sealed(BASE.for_object(&[number]))
}

fn layout() -> Layout {
    let member = 20_000..20_000 + 2 * MIB;
    let length = member.end + 999;
    Layout::new((0..length).step_by(300_000).collect::<Vec<_>>(), length, [member])
}

/// Whether any cache file contains 32 bytes of the stream.
fn leaks(fixture: &CacheFixture, seed: u64, length: u64) -> bool {
    let mut all = Vec::new();
    files(&fixture.path(), &mut all);
    let marks: Vec<_> = (0..length - 32).step_by(400_021).map(|at| bytes(seed, at..at + 32)).collect();
    all.iter().any(|path| {
        let content = fs::read(path).unwrap();
        content.windows(32).any(|window| marks.iter().any(|mark| window[0] == mark[0] && window == mark))
    })
}

#[test]
fn sealed_spans_are_read_back_in_any_part_after_stores_and_after_a_fill() {
    let fixture = CacheFixture::new(64 * MIB);
    let (cache, layout) = (fixture.open(), layout());
    fill(&cache, 1, &layout, &key(1));
    let filled = cache.stream(&blob(1), &layout, &key(1)).unwrap();
    let stored = cache.stream(&blob(2), &layout, &key(1)).unwrap();
    let other = fixture.open().stream(&blob(1), &layout, &key(1)).unwrap();
    for span in 0..layout.count() {
        assert!(store(&stored, 2, &layout, span));
        for (stream, seed) in [(&filled, 1), (&stored, 2), (&other, 1)] {
            assert!(check(stream, seed, &layout, span));
            let Range { start, end } = span_range(&layout, span);
            for part in [start..start + 1, start + 5..start + 5, end - 1..end, start + 16_383..(start + 16_385).min(end), end - 500..end] {
                let part = part.start.min(end)..part.end.min(end);
                assert_eq!(stream.read(span, part.clone()).unwrap().unwrap(), bytes(seed, part));
            }
        }
    }
    assert!(!leaks(&fixture, 1, layout.length()) && !leaks(&fixture, 2, layout.length()));
}

#[test]
fn the_plaintext_search_finds_plaintext_in_an_unsealed_stream() {
    let fixture = CacheFixture::new(64 * MIB);
    fill(&fixture.open(), 1, &layout(), &Protection::Plain);
    assert!(leaks(&fixture, 1, layout().length()));
}

#[test]
fn another_key_reads_nothing_and_damages_nothing() {
    let fixture = CacheFixture::new(64 * MIB);
    let (cache, layout) = (fixture.open(), layout());
    fill(&cache, 1, &layout, &key(1));
    let right = cache.stream(&blob(1), &layout, &key(1)).unwrap();
    let wrong = cache.stream(&blob(1), &layout, &key(2)).unwrap();
    assert!(check(&right, 1, &layout, 0));
    assert!(!check(&wrong, 1, &layout, 0) && !check(&wrong, 1, &layout, 1));
    assert!(check(&right, 1, &layout, 0) && check(&right, 1, &layout, 1));
    // A plain stream of the same blob is another object.
    assert!(!cache.stream(&blob(1), &layout, &Protection::Plain).unwrap().has(0));
}

#[test]
fn sealed_documents_open_only_with_their_key() {
    let fixture = CacheFixture::new(MIB);
    let cache = fixture.open();
    for length in [0, 1, 16_384, 16_385, 100_000] {
        let content = bytes(9, 0..length);
        cache.store_document("index", "k", &content, &key(1)).unwrap();
        assert!(cache.document("index", "k", &key(2)).unwrap().is_none() || length == 0);
        assert!(cache.document("index", "k", &Protection::Plain).unwrap().is_none());
        assert_eq!((*cache.document("index", "k", &key(1)).unwrap().unwrap()).as_ref(), content);
    }
    assert!(!leaks(&fixture, 9, 100_000));
    cache.forget_document("index", "k").unwrap();
    assert!(cache.document("index", "k", &key(1)).unwrap().is_none());
}
