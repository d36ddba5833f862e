//! Files that the kernel reads by itself: granted only if complete and verified, and never punched.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sealing::key;
use super::*;

/// Two members with boundaries inside spans, and bytes that belong to none.
fn with_members() -> Layout {
    let first = 100_001..100_001 + 3 * MIB / 2;
    let second = first.end + 10..first.end + 10 + MIB;
    let length = second.end + 5_000;
    Layout::new((0..length).step_by(300_000).collect::<Vec<_>>(), length, [first, second])
}

fn first_member() -> Range<u64> {
    with_members().members()[0].clone()
}

/// Whether a file holds just these bytes.
fn is(file: &File, expected: &[u8]) -> bool {
    let mut found = vec![0; expected.len()];
    file.read_exact_at(&mut found, 0).unwrap();
    file.metadata().unwrap().len() == expected.len() as u64 && found == expected
}

/// Whether a file holds just this range of the blob's bytes.
fn holds(file: &File, seed: u64, range: Range<u64>) -> bool {
    is(file, &bytes(seed, range))
}

#[test]
fn a_file_is_leased_only_if_it_is_plain_complete_proved_and_just_that_range() {
    let fixture = CacheFixture::new(64 * MIB);
    let (cache, layout) = (fixture.open(), with_members());
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    let member = first_member();
    let last = layout.spans_of(&member).end - 1;
    assert!(stream.lease(&member).is_none());
    assert!((0..last).all(|span| store(&stream, 1, &layout, span)));
    assert!(stream.lease(&member).is_none(), "its last span is missing");
    let rest = bytes(1, span_range(&layout, last));
    assert!(stream.store(last, &rest, Trust::Unproved).unwrap());
    assert!(stream.lease(&member).is_none(), "its last span is unproved");
    assert!(stream.store(last, &rest, Trust::Proved).unwrap());
    assert!(holds(&stream.lease(&member).unwrap(), 1, member.clone()));
    for other in [member.start..member.end - 1, member.start + 1..member.end, 0..layout.length(), 0..100_001, 5..5] {
        assert!(stream.lease(&other).is_none(), "{other:?}");
    }
    let raw = even(3, 700_000);
    fill(&cache, 2, &raw, &Protection::Plain);
    let stream = cache.stream(&blob(2), &raw, &Protection::Plain).unwrap();
    assert!(holds(&stream.lease(&(0..2_100_000)).unwrap(), 2, 0..2_100_000));
    let small = even(1, 4 * KIB);
    fill(&cache, 3, &small, &Protection::Plain);
    assert!(cache.stream(&blob(3), &small, &Protection::Plain).unwrap().lease(&(0..4 * KIB)).is_none());
    fill(&cache, 4, &layout, &key(1));
    assert!(cache.stream(&blob(4), &layout, &key(1)).unwrap().lease(&member).is_none());
}

#[test]
fn a_file_damaged_on_disk_is_not_leased_even_after_it_was_once() {
    let fixture = CacheFixture::new(64 * MIB);
    let layout = with_members();
    fill(&fixture.open(), 1, &layout, &Protection::Plain);
    let lease = || fixture.open().stream(&blob(1), &layout, &Protection::Plain).unwrap().lease(&first_member());
    assert!(lease().is_some());
    let path = fixture.data_files().into_iter().find(|path| fs::metadata(path).unwrap().len() == 3 * MIB / 2).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    let byte = first_member().start + 1_000_000;
    file.write_all_at(&[!bytes(1, byte..byte + 1)[0]], 1_000_000).unwrap();
    assert!(lease().is_none());
    let stream = fixture.open().stream(&blob(1), &layout, &Protection::Plain).unwrap();
    let span = layout.spans_of(&(byte..byte + 1)).start;
    assert!(!stream.has(span), "the broken span is dropped");
    assert!(store(&stream, 1, &layout, span));
    assert!(holds(&lease().unwrap(), 1, first_member()));
}

#[test]
fn a_verified_file_is_leased_again_without_reading_it() {
    let fixture = CacheFixture::new(64 * MIB);
    let layout = with_members();
    fill(&fixture.open(), 1, &layout, &Protection::Plain);
    let lease = || fixture.open().stream(&blob(1), &layout, &Protection::Plain).unwrap().lease(&first_member());
    let first = lease().unwrap();
    let (times, path) = (first.metadata().unwrap(), fixture.data_files());
    // Simulates bytes that rot on the disk: they change, and the modification time does not.
    first.write_all_at(&[0; 4096], 4096).unwrap();
    first.set_modified(times.modified().unwrap()).unwrap();
    drop(first);
    assert_eq!(fixture.data_files(), path);
    let again = lease().unwrap();
    assert!(!holds(&again, 1, first_member()), "it was not read, or the damage would have been found");
}

#[test]
fn a_leased_file_is_not_punched_however_old_it_is_and_the_budget_holds() {
    let fixture = CacheFixture::new(8 * MIB);
    let (cache, other) = (fixture.open(), fixture.open());
    let (layout, churn) = (with_members(), even(40, 512 * KIB));
    fill(&cache, 1, &layout, &Protection::Plain);
    let leased = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap().lease(&first_member()).unwrap();
    drop(cache);
    let stream = other.stream(&blob(2), &churn, &Protection::Plain).unwrap();
    let (data, expected) = (vec![7; 512 << 10], bytes(1, first_member()));
    for round in 0..2 {
        for span in 0..40 {
            assert!(stream.store(span, &data, Trust::Proved).unwrap(), "no room in round {round}");
            assert!(is(&leased, &expected));
            assert!(fixture.occupied() <= fixture.size, "{}", fixture.occupied());
        }
    }
    let old = other.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    let second = layout.spans_of(&layout.members()[1]);
    assert!(!old.has(second.end - 1), "what is not leased is evicted");
    assert!(layout.spans_of(&first_member()).all(|span| check(&old, 1, &layout, span)));
    drop(leased);
    for span in (0..40).chain(0..40) {
        assert!(stream.store(span, &data, Trust::Proved).unwrap());
    }
    assert!(!old.has(layout.spans_of(&first_member()).start), "after the lease it is evicted");
}

#[test]
fn a_cache_full_of_leased_files_has_no_room_and_breaks_nothing() {
    let fixture = CacheFixture::new(4 * MIB);
    let cache = fixture.open();
    let layout = even(3, MIB);
    fill(&cache, 1, &layout, &Protection::Plain);
    let leased = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap().lease(&(0..3 * MIB)).unwrap();
    let stream = cache.stream(&blob(2), &layout, &Protection::Plain).unwrap();
    assert!((0..3).map(|span| store(&stream, 2, &layout, span)).any(|kept| !kept));
    assert!(holds(&leased, 1, 0..3 * MIB) && fixture.occupied() <= fixture.size);
}

#[test]
fn unlinking_a_leased_file_takes_nothing_from_its_reader() {
    let fixture = CacheFixture::new(64 * MIB);
    let (cache, layout) = (fixture.open(), with_members());
    fill(&cache, 1, &layout, &Protection::Plain);
    let leased = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap().lease(&first_member()).unwrap();
    fixture.open().clear(true).unwrap();
    fill(&cache, 1, &layout, &Protection::Plain);
    assert!(holds(&leased, 1, first_member()));
    let new = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap().lease(&first_member()).unwrap();
    assert!(holds(&new, 1, first_member()));
}

#[test]
fn leases_granted_while_others_evict_and_refill_always_have_the_right_bytes() {
    let fixture = CacheFixture::new(8 * MIB);
    let done = AtomicBool::new(false);
    let layout = with_members();
    let whole = bytes(1, 0..layout.length());
    let part = |range: Range<u64>| &whole[range.start as usize..range.end as usize];
    let lease = |cache: &SpanCache| {
        let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
        (0..layout.count()).for_each(|span| drop(stream.store(span, part(layout.span(span)), Trust::Proved)));
        stream.lease(&first_member()).map(|file| assert!(is(&file, part(first_member()))))
    };
    std::thread::scope(|scope| {
        for seed in [2, 3] {
            let (fixture, done) = (&fixture, &done);
            scope.spawn(move || {
                let (cache, churn) = (fixture.open(), even(8, 512 * KIB));
                let stream = cache.stream(&blob(seed), &churn, &Protection::Plain).unwrap();
                let data = vec![7; 512 << 10];
                while !done.load(Ordering::Relaxed) {
                    (0..8).for_each(|span| drop(stream.store(span, &data, Trust::Proved)));
                }
            });
        }
        let cache = fixture.open();
        let (mut granted, mut missed) = (0, 0);
        // On a busy machine the others may always be faster.
        for _ in 0..400 {
            *if lease(&cache).is_some() { &mut granted } else { &mut missed } += 1;
            if granted > 20 && missed > 20 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    // Now alone. A store may evict an older span of the same file, which the next round stores again.
    let cache = fixture.open();
    assert!((0..10).any(|_| lease(&cache).is_some()));
}
