//! Swapped cache files: whatever file is in whose place, a reader gets the right bytes or a miss.

use super::sealing::key;
use super::*;
use crate::durable;

/// Streams by seed, protection and layout: two plain ones with spans in the main file, in a member, and in both, and two sealed ones.
fn streams() -> [(u64, Protection, Layout); 4] {
    let members: Arc<[Range<u64>]> = std::iter::once(10_000..10_000 + MIB).collect();
    let plain = Layout::new((0..5).map(|span| span * 250_000).collect::<Vec<_>>(), 1_100_000, members);
    [(1, Protection::Plain, plain.clone()), (2, Protection::Plain, plain), (3, key(1), even(5, 10_000)), (4, key(1), even(5, 10_000))]
}

/// The bytes of a stream, cached since generating them is slow.
fn stream_bytes(seed: u64) -> &'static [u8] {
    static ALL: [std::sync::OnceLock<Vec<u8>>; 5] = [const { std::sync::OnceLock::new() }; 5];
    ALL[seed as usize].get_or_init(|| bytes(seed, 0..2 * MIB))
}

/// Number of spans and documents in a full cache.
const WHOLE: usize = 4 * 5 + 2 * 4;

/// Kinds, keys and protections of documents; some have kind and key exchanged.
fn documents() -> Vec<(&'static str, String, Protection)> {
    let mut all = Vec::new();
    for kind in ["index", "tree"] {
        for name in ["index", "tree", &"long".repeat(100)] {
            all.push((kind, name.to_owned(), Protection::Plain));
        }
        all.push((kind, "sealed".to_owned(), key(1)));
    }
    all
}

fn content(kind: &str, name: &str) -> Vec<u8> {
    format!("{kind} of {name}").into_bytes()
}

fn fill_all(cache: &SpanCache) {
    for (seed, protection, layout) in streams() {
        assert!(fill(cache, seed, &layout, &protection).iter().all(|kept| *kept));
    }
    for (kind, name, protection) in documents() {
        cache.store_document(kind, &name, &content(kind, &name), &protection).unwrap();
    }
    cache.pin("one", &[blob(1)]).unwrap();
    cache.pin("two", &[blob(2)]).unwrap();
}

/// Reads everything; any result must be right. Returns how many spans and documents were present.
fn read_all(cache: &SpanCache) -> usize {
    let mut found = 0;
    for (seed, protection, layout) in streams() {
        let stream = cache.stream(&blob(seed), &layout, &protection).unwrap();
        for span in 0..5 {
            let range = span_range(&layout, span);
            let Some(there) = stream.read(span, range.clone()).unwrap() else { continue };
            assert!(there == stream_bytes(seed)[range.start as usize..range.end as usize], "span {span} of {seed} has other bytes");
            found += 1;
        }
    }
    for (kind, name, protection) in documents() {
        if let Some(document) = cache.document(kind, &name, &protection).unwrap() {
            assert!((*document).as_ref() == content(kind, &name), "{kind} of {name} has other bytes");
            found += 1;
        }
    }
    found
}

fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(&aside, other).unwrap();
}

/// All files of a new, full cache for which a swap matters.
fn full() -> (CacheFixture, Vec<PathBuf>) {
    let fixture = CacheFixture::new(64 * MIB);
    fill_all(&fixture.open());
    let mut all = Vec::new();
    files(&fixture.path(), &mut all);
    all.retain(|path| path.extension().is_none_or(|extension| extension != "lock"));
    all.sort();
    (fixture, all)
}

/// Another cache with the same files.
fn copy(from: &CacheFixture, all: &[PathBuf]) -> (CacheFixture, Vec<PathBuf>) {
    let fixture = CacheFixture::new(from.size);
    let copies = all.iter().map(|path| {
        let copy = fixture.path().join(path.strip_prefix(from.path()).unwrap());
        durable::make_directory(copy.parent().unwrap()).unwrap();
        fs::copy(path, &copy).unwrap();
        copy
    });
    let copies = copies.collect();
    (fixture, copies)
}

#[test]
fn swapped_cache_files_are_misses_and_never_wrong_bytes() {
    let (original, files) = full();
    assert!(files.len() > 20, "{files:?}");
    assert_eq!(read_all(&copy(&original, &files).0.open()), WHOLE);
    for one in 0..files.len() {
        for other in one + 1..files.len() {
            let (fixture, all) = copy(&original, &files);
            swap(&all[one], &all[other]);
            let found = read_all(&fixture.open());
            let neither_is_content =
                [one, other].iter().all(|at| all[*at].ends_with("ledger") || all[*at].parent().unwrap().ends_with("pins"));
            assert_eq!(found < WHOLE, !neither_is_content, "{} and {}: {found}", all[one].display(), all[other].display());
        }
    }
}

#[test]
fn swapped_streams_are_misses() {
    let (fixture, _) = full();
    let tables = fixture.tables();
    let directories: Vec<&Path> = tables.iter().map(|table| table.parent().unwrap()).collect();
    for pair in directories.chunks_exact(2) {
        swap(pair[0], pair[1]);
    }
    assert_eq!(read_all(&fixture.open()), documents().len());
    fill_all(&fixture.open());
    assert_eq!(read_all(&fixture.open()), WHOLE);
}

#[test]
fn verify_finds_swapped_files() {
    let (fixture, all) = full();
    assert_eq!(fixture.open().verify().unwrap(), (WHOLE as u64, 0));
    let of_kind = |part: &str| all.iter().filter(|path| path.to_string_lossy().contains(part)).cloned().collect::<Vec<_>>();
    let documents = of_kind("/documents/");
    swap(&documents[0], documents.last().unwrap());
    assert_eq!(fixture.open().verify().unwrap(), (WHOLE as u64, 2));
    assert_eq!(fixture.open().verify().unwrap(), (WHOLE as u64 - 2, 0));
    let tables = of_kind("/table");
    swap(&tables[0], &tables[1]);
    // Each stands for its five spans.
    assert_eq!(fixture.open().verify().unwrap(), (WHOLE as u64 - 2 - 10 + 2, 2));
    assert_eq!(fixture.open().verify().unwrap(), (WHOLE as u64 - 2 - 10, 0));
}

#[test]
fn a_data_file_replaced_under_an_open_stream_is_verified_again() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let layout = even(2, 10_000);
    let open = |seed: u64| {
        fill(&cache, seed, &layout, &Protection::Plain);
        cache.stream(&blob(seed), &layout, &Protection::Plain).unwrap()
    };
    let stream = open(0);
    let path = fixture.data_files().remove(0);
    assert!(check(&stream, 0, &layout, 0) && check(&stream, 0, &layout, 1));
    // More files than are kept open.
    let others: Vec<_> = (1..600).map(open).collect();
    let read = |number: usize| assert!(check(&others[number], number as u64 + 1, &layout, 0));
    (0..others.len()).for_each(read);
    (0..others.len()).for_each(read);
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes(99, 0..20_000)).unwrap();
    assert!(!check(&stream, 0, &layout, 0));
    assert!(store(&stream, 0, &layout, 0) && check(&stream, 0, &layout, 0) && !check(&stream, 0, &layout, 1));
}

#[test]
fn files_of_older_versions_are_swept() {
    let fixture = CacheFixture::new(64 * MIB);
    let old = fixture.path().join("v1/streams/aa");
    durable::make_directory(&old).unwrap();
    fs::write(old.join("data"), vec![1; 100_000]).unwrap();
    let cache = fixture.open();
    assert!(!fixture.path().join("v1").exists());
    fill(&cache, 1, &even(2, 1000), &Protection::Plain);
    assert_eq!(fs::read_dir(fixture.path().join("v2/work")).unwrap().count(), 0);
    assert!(fixture.occupied() < 100_000);
}
