//! Looking at what is present.

use std::time::{Duration, SystemTime};

use super::*;

#[test]
fn looking_at_what_is_present_is_no_use_of_it_and_creates_nothing() {
    let fixture = CacheFixture::new(64 * MIB);
    let (cache, blob) = (fixture.open(), Digest::of(b"blob"));
    let layout = Layout::new((0..4).map(|span| span * 64 * KIB).collect::<Vec<_>>(), 4 * 64 * KIB, []);
    assert!(cache.present(&blob, &layout, false).unwrap().is_none());
    assert!(fixture.tables().is_empty());
    let stream = cache.stream(&blob, &layout, &Protection::Plain).unwrap();
    assert!(stream.store(2, &[7; 64 << 10], Trust::Proved).unwrap());
    // Something else is used meanwhile.
    let other = cache.stream(&Digest::of(b"other"), &layout, &Protection::Plain).unwrap();
    (0..4).for_each(|span| assert!(other.store(span, &[8; 64 << 10], Trust::Proved).unwrap()));
    let tables = || fixture.tables().iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = tables();
    for cache in [cache, fixture.open()] {
        let present = cache.present(&blob, &layout, false).unwrap().unwrap();
        assert_eq!([0, 1, 2, 3, 4].map(|span| present.has(span)), [false, false, true, false, false]);
        assert!(cache.present(&blob, &layout, true).unwrap().is_none());
    }
    assert!(tables() == before);
}

#[test]
fn a_document_that_is_only_looked_at_stays_as_old_as_it_is() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    cache.store_document("index", "a", b"text", &Protection::Plain).unwrap();
    let mut found = Vec::new();
    files(&fixture.path().join("v2/documents/index"), &mut found);
    let old = SystemTime::now() - Duration::from_secs(86_400);
    fs::File::options().write(true).open(&found[0]).unwrap().set_modified(old).unwrap();
    let age = || fs::metadata(&found[0]).unwrap().modified().unwrap();
    let before = age();
    assert_eq!((*cache.peek_document("index", "a", &Protection::Plain).unwrap().unwrap()).as_ref(), b"text");
    assert_eq!(age(), before);
    cache.document("index", "a", &Protection::Plain).unwrap();
    assert!(age() > before);
    assert!(cache.peek_document("index", "b", &Protection::Plain).unwrap().is_none());
}
