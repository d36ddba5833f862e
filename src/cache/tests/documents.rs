//! Documents, their names, and permissions of the directory.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_document_is_read_back_replaced_and_forgotten_while_old_readers_keep_theirs() {
    let fixture = CacheFixture::new(MIB);
    let (cache, other) = (fixture.open(), fixture.open());
    let read = |cache: &SpanCache| cache.document("tree", "k", &Protection::Plain).unwrap();
    assert!(read(&cache).is_none());
    cache.store_document("tree", "k", b"first", &Protection::Plain).unwrap();
    let old = read(&other).unwrap();
    cache.store_document("tree", "k", b"second document", &Protection::Plain).unwrap();
    assert_eq!((*read(&other).unwrap()).as_ref(), b"second document");
    cache.forget_document("tree", "k").unwrap();
    cache.forget_document("never", "k").unwrap();
    assert!(read(&other).is_none());
    assert_eq!((*old).as_ref(), b"first");
    cache.store_document("tree", "empty", b"", &Protection::Plain).unwrap();
    assert_eq!((*cache.document("tree", "empty", &Protection::Plain).unwrap().unwrap()).as_ref(), b"");
}

#[test]
fn clear_leaves_files_that_are_about_to_be_renamed() {
    let fixture = CacheFixture::new(MIB);
    let cache = fixture.open();
    cache.store_document("tree", "k", b"document", &Protection::Plain).unwrap();
    let half_written = fixture.path().join("v2/documents/tree/.new-abc");
    std::fs::write(&half_written, b"half").unwrap();
    cache.clear(true).unwrap();
    assert!(half_written.exists());
    assert!(cache.document("tree", "k", &Protection::Plain).unwrap().is_none());
}

#[test]
fn every_key_has_a_file_of_its_own_inside_its_kind() {
    let fixture = CacheFixture::new(MIB);
    let cache = fixture.open();
    let long = "x".repeat(5_000);
    let keys = [
        "",
        ".",
        "..",
        "../../x",
        "a/b",
        "a%2fb",
        "A",
        "a",
        "a\n",
        "\u{e9}",
        "sha256:00",
        "sha256-00",
        "~",
        &long,
        &long[1..],
        "a.plain",
        "%",
    ];
    for key in keys {
        cache.store_document("manifest", key, key.as_bytes(), &Protection::Plain).unwrap();
    }
    for key in keys {
        assert_eq!((*cache.document("manifest", key, &Protection::Plain).unwrap().unwrap()).as_ref(), key.as_bytes());
    }
    assert_eq!(fs::read_dir(fixture.path().join("v2/documents/manifest")).unwrap().count(), keys.len());
    for kind in ["", "..", "a/b", "A", "a b"] {
        assert!(cache.store_document(kind, "k", b"", &Protection::Plain).is_err());
    }
}

#[test]
fn a_document_with_any_flipped_byte_or_another_length_is_a_miss() {
    let fixture = CacheFixture::new(MIB);
    let cache = fixture.open();
    cache.store_document("index", "k", &bytes(1, 0..300), &Protection::Plain).unwrap();
    let path = fixture.path().join("v2/documents/index/k.plain");
    let good = fs::read(&path).unwrap();
    let found = |content: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, content).unwrap();
        cache.document("index", "k", &Protection::Plain).unwrap().is_some()
    };
    assert!(found(&good));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(!found(&bad), "flipped at {at}");
    }
    for length in [0, 1, 63, 64, good.len() - 1] {
        assert!(!found(&good[..length]), "cut to {length}");
    }
    assert!(!found(&[good.clone(), vec![0]].concat()));
    cache.store_document("index", "k", b"anew", &Protection::Plain).unwrap();
    assert!(cache.document("index", "k", &Protection::Plain).unwrap().is_some());
}

#[test]
fn the_cache_is_private_to_its_user() {
    let fixture = CacheFixture::new(MIB);
    let cache = fixture.open();
    cache.store_document("index", "k", b"x", &Protection::Plain).unwrap();
    cache.pin("p", &[blob(1)]).unwrap();
    fill(&cache, 1, &even(2, 1000), &Protection::Plain);
    let mut all = Vec::new();
    files(&fixture.path(), &mut all);
    assert!(all.len() > 6);
    for path in all {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o077, 0);
    }
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let fixture = CacheFixture::new(MIB);
    fs::create_dir(fixture.path()).unwrap();
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = SpanCache::open(Config { directory: fixture.path(), size: MIB, min_free: 0 });
    assert_eq!(refused.err().map(|error| error.kind), Some(ErrorKind::Denied));
    assert_eq!(fs::read_dir(fixture.path()).unwrap().count(), 0);
}
