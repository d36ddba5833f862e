//! Storing, filling and reading back.

use super::*;

fn with_members() -> Layout {
    // Members of 1.5 MiB and 1 MiB, with boundaries inside spans and away from block boundaries.
    let first = 700_001..700_001 + 3 * MIB / 2;
    let second = first.end + 10..first.end + 10 + MIB;
    let length = second.end + 12_345;
    Layout::new((0..length).step_by(300_000).collect::<Vec<_>>(), length, [first, second])
}

#[test]
fn any_part_of_a_stored_span_is_read_back_and_the_rest_is_a_miss() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let layout = with_members();
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    for span in 0..layout.count() {
        assert!(!stream.has(span) && !check(&stream, 1, &layout, span));
        if span % 2 == 0 {
            assert!(store(&stream, 1, &layout, span));
        }
    }
    for span in 0..layout.count() {
        assert_eq!(stream.has(span), span % 2 == 0);
        assert_eq!(check(&stream, 1, &layout, span), span % 2 == 0);
        let range = span_range(&layout, span);
        let part = range.start + 17..range.end - 4_000;
        let found = stream.read(span, part.clone()).unwrap();
        assert_eq!(found.as_deref(), (span % 2 == 0).then(|| bytes(1, part)).as_deref());
    }
}

#[test]
fn a_committed_fill_is_read_by_this_and_by_another_instance() {
    let fixture = CacheFixture::new(64 * MIB);
    let (cache, other) = (fixture.open(), fixture.open());
    let layout = with_members();
    assert!(fill(&cache, 3, &layout, &Protection::Plain).iter().all(|kept| *kept));
    for cache in [&cache, &other] {
        let stream = cache.stream(&blob(3), &layout, &Protection::Plain).unwrap();
        assert!((0..layout.count()).all(|span| check(&stream, 3, &layout, span)));
    }
}

#[test]
fn a_member_has_a_file_of_its_own_that_is_exactly_the_member() {
    let fixture = CacheFixture::new(64 * MIB);
    let layout = with_members();
    fill(&fixture.open(), 3, &layout, &Protection::Plain);
    for member in layout.members().iter() {
        let suffix = format!(".{:x}", member.start);
        let file = fixture.data_files().into_iter().find(|path| path.to_str().unwrap().ends_with(&suffix)).unwrap();
        assert!(fs::read(file).unwrap() == bytes(3, member.clone()));
    }
}

#[test]
fn a_fill_is_invisible_until_it_is_committed_and_gone_when_it_is_dropped() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let layout = with_members();
    let mut unfinished = cache.fill(&blob(4), &Protection::Plain).unwrap();
    fill_spans(&mut unfinished, 4, &layout);
    let stream = cache.stream(&blob(4), &layout, &Protection::Plain).unwrap();
    assert!(!stream.has(0) && fixture.occupied() >= layout.length());
    drop(unfinished);
    assert_eq!(fixture.occupied(), 0);
    assert!(!check(&stream, 4, &layout, 0));
}

#[test]
fn a_stream_that_was_open_before_the_commit_sees_the_fill() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let layout = even(4, 100_000);
    let early = cache.stream(&blob(5), &layout, &Protection::Plain).unwrap();
    fill(&cache, 5, &layout, &Protection::Plain);
    assert!((0..4).all(|span| check(&early, 5, &layout, span)));
}

#[test]
fn streams_that_are_cut_differently_are_different_objects() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let (coarse, fine) = (even(2, 100_000), even(4, 50_000));
    let one = cache.stream(&blob(6), &coarse, &Protection::Plain).unwrap();
    let two = cache.stream(&blob(6), &fine, &Protection::Plain).unwrap();
    assert!(store(&one, 6, &coarse, 0));
    assert!(!two.has(0) && !two.has(1));
    assert!(store(&two, 6, &fine, 1));
    assert!(check(&one, 6, &coarse, 0) && check(&two, 6, &fine, 1));
}

#[test]
fn spans_of_odd_sizes_down_to_nothing_are_kept() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let layout = Layout::new([0, 1, 1, 5_000, 5_001, 9_000], 9_000, []);
    let stream = cache.stream(&blob(7), &layout, &Protection::Plain).unwrap();
    for span in 0..6 {
        assert!(store(&stream, 7, &layout, span) && check(&stream, 7, &layout, span));
    }
    fill(&cache, 8, &Layout::new([], 0, []), &Protection::Plain);
}

#[test]
fn wrong_arguments_are_errors_and_never_bytes() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let layout = even(2, 1_000);
    let stream = cache.stream(&blob(8), &layout, &Protection::Plain).unwrap();
    assert!(stream.store(0, &[1; 999], Trust::Proved).is_err());
    assert!(stream.store(2, &[], Trust::Proved).is_err());
    assert!(store(&stream, 8, &layout, 0));
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tried")]
    for within in [0..1_001, 999..998, 1_500..1_600] {
        assert!(stream.read(0, within).is_err());
    }
    type Case = (&'static [u64], u64, &'static [Range<u64>]);
    let cases: [Case; 8] = [
        (&[1], 10, &[]),
        (&[], 10, &[]),
        (&[0, 20], 10, &[]),
        (&[0, 5, 4], 10, &[]),
        (&[0], 10, &[4..5, 6..11]),
        (&[0], 10, &[4..6, 5..7]),
        (&[0], u64::MAX, &[]),
        (&[0], LONGEST + 1, &[]),
    ];
    for (starts, length, members) in cases {
        let layout = Layout::new(starts, length, members);
        assert!(cache.stream(&blob(9), &layout, &Protection::Plain).is_err(), "{layout:?}");
    }
}

#[test]
fn an_unverified_span_is_a_miss_until_verified_and_dropped_if_wrong() {
    let fixture = CacheFixture::new(64 * MIB);
    let (layout, there) = (even(3, 10_000), fixture.open());
    let stream = there.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    for span in 0..3 {
        let trust = if span == 0 { Trust::Proved } else { Trust::Unproved };
        assert!(stream.store(span, &bytes(1, layout.span(span)), trust).unwrap());
    }
    // Another process sees the same.
    let other = fixture.open().stream(&blob(1), &layout, &Protection::Plain).unwrap();
    for stream in [&stream, &other] {
        assert_eq!((0..3).map(|span| check(stream, 1, &layout, span)).collect::<Vec<_>>(), [true, false, false]);
        assert!((0..3).all(|span| stream.has(span) && stream.read_unproved(span, layout.span(span)).unwrap().is_some()));
    }
    other.prove(0, |_| unreachable!("it is proved")).unwrap();
    other.prove(1, |data| data == bytes(1, layout.span(1))).unwrap();
    other.prove(2, |_| false).unwrap();
    assert_eq!((0..3).map(|span| check(&stream, 1, &layout, span)).collect::<Vec<_>>(), [true, true, false]);
    assert!(!stream.has(2));
    // A span stored in its place has its own state, and a proved span replaces an unproved one, never the reverse.
    assert!(stream.store(2, &[7; 10_000], Trust::Unproved).unwrap() && !check(&other, 1, &layout, 2));
    assert!(store(&stream, 1, &layout, 2) && check(&other, 1, &layout, 2));
    assert!(stream.store(2, &[7; 10_000], Trust::Unproved).unwrap() && check(&other, 1, &layout, 2));
}

const LONGEST: u64 = super::super::layout::LONGEST_SPAN;

#[test]
fn a_member_that_is_announced_after_its_bytes_is_an_error() {
    let fixture = CacheFixture::new(64 * MIB);
    let mut fill = fixture.open().fill(&blob(1), &Protection::Plain).unwrap();
    fill.span(&[0; 100]).unwrap();
    assert!(fill.member(99..99 + 2 * MIB).is_err());
    fill.member(100..100 + 2 * MIB).unwrap();
    assert!(fill.member(200..200 + 2 * MIB).is_err());
}

#[test]
fn more_members_than_files_may_be_open_are_all_readable() {
    let fixture = CacheFixture::new(1 << 30);
    let cache = fixture.open();
    // Sparse members: each has one stored span of 4 KiB; the rest is never stored.
    let count = 400;
    let starts: Vec<u64> = (0..count).flat_map(|member| [member * MIB, member * MIB + 4096]).collect();
    let members: Vec<_> = (0..count).map(|member| member * MIB..(member + 1) * MIB).collect();
    let layout = Layout::new(starts, count * MIB, members);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    for member in 0..count as u32 {
        assert!(store(&stream, 1, &layout, 2 * member));
    }
    for _ in 0..2 {
        assert!((0..count as u32).all(|member| check(&stream, 1, &layout, 2 * member)));
    }
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let open = open.filter(|target| target.starts_with(fixture.path())).count();
    assert!(open <= 256 + 8, "{open} files are open");
}
