//! The budget, eviction, pins and clearing.

use super::*;

#[test]
fn the_least_recently_used_spans_go_first_and_the_budget_holds() {
    let fixture = CacheFixture::new(4 * MIB);
    let cache = fixture.open();
    let layout = even(40, 256 * KIB);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    for span in 0..40 {
        assert!(store(&stream, 1, &layout, span));
        // Span 0 is used constantly.
        assert!(check(&stream, 1, &layout, 0));
        assert!(fixture.occupied() <= fixture.size, "{}", fixture.occupied());
    }
    assert!(check(&stream, 1, &layout, 39));
    assert!(!stream.has(1) && !stream.has(2));
    let here = (0..40).filter(|span| stream.has(*span)).count();
    assert!((10..16).contains(&here), "{here} spans of 16 are here");
}

#[test]
fn two_instances_share_one_budget() {
    let fixture = CacheFixture::new(4 * MIB);
    let caches = [fixture.open(), fixture.open()];
    let layout = even(32, 128 * KIB);
    let streams: Vec<_> =
        caches.iter().zip(0..).map(|(cache, seed)| cache.stream(&blob(seed), &layout, &Protection::Plain).unwrap()).collect();
    for span in 0..32 {
        for (stream, seed) in streams.iter().zip(0..) {
            assert!(store(stream, seed, &layout, span));
            assert!(check(stream, seed, &layout, span));
            assert!(fixture.occupied() <= fixture.size);
        }
    }
    for (stream, seed) in streams.iter().zip(0..) {
        for span in 0..32 {
            check(stream, seed, &layout, span);
        }
    }
}

#[test]
fn room_that_another_instance_takes_first_is_sought_again() {
    let fixture = CacheFixture::new(4 * MIB);
    let (cache, rival) = (fixture.open(), fixture.open());
    let mut taken = rival.shared.lend(7 * MIB / 2);
    assert!(taken.is_some());
    let mut searches = 0;
    let reservation = cache.shared.reserve_by(MIB, || {
        searches += 1;
        if searches == 3 {
            taken = None;
        }
        Ok(true)
    });
    assert!(reservation.unwrap().is_some());
    assert_eq!(searches, 3);
}

#[test]
fn after_losing_all_room_to_another_instance_the_next_attempt_searches_at_once() {
    let fixture = CacheFixture::new(4 * MIB);
    let (cache, rival) = (fixture.open(), fixture.open());
    let taken = rival.shared.lend(7 * MIB / 2).unwrap();
    let mut searches = 0;
    let mut reserve = |found| {
        cache.shared.reserve_by(MIB, || {
            searches += 1;
            Ok(found)
        })
    };
    assert!(reserve(true).unwrap().is_none());
    taken.give_back();
    assert!(reserve(true).unwrap().is_some());
    let _taken = rival.shared.lend(5 * MIB / 2).unwrap();
    assert!(reserve(false).unwrap().is_none());
    assert!(reserve(false).unwrap().is_none());
    assert_eq!(searches, 6, "a search in vain is not repeated at once");
}

#[test]
fn pinned_streams_are_never_evicted_and_a_full_budget_of_them_leaves_no_room() {
    let fixture = CacheFixture::new(2 * MIB);
    let cache = fixture.open();
    let layout = even(7, 256 * KIB);
    cache.pin("team/app@v1", &[blob(1)]).unwrap();
    let pinned = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    assert!((0..7).all(|span| store(&pinned, 1, &layout, span)));
    let other = cache.stream(&blob(2), &layout, &Protection::Plain).unwrap();
    assert!((0..7).all(|span| !store(&other, 2, &layout, span)));
    assert!((0..7).all(|span| check(&pinned, 1, &layout, span)));
    assert_eq!(cache.usage().unwrap().pinned, cache.usage().unwrap().spans);
    assert_eq!(cache.pins().unwrap(), [("team/app@v1".to_owned(), vec![blob(1)])]);
    assert!(cache.unpin("team/app@v1").unwrap());
    assert!(!cache.unpin("team/app@v1").unwrap());
    assert!(store(&other, 2, &layout, 0) && check(&other, 2, &layout, 0));
    assert!(fixture.occupied() <= fixture.size);
}

#[test]
fn a_fill_larger_than_the_budget_keeps_its_first_spans() {
    let fixture = CacheFixture::new(2 * MIB);
    let cache = fixture.open();
    let layout = even(16, 256 * KIB);
    fill(&cache, 1, &even(4, 256 * KIB), &Protection::Plain);
    let mut unfinished = cache.fill(&blob(2), &Protection::Plain).unwrap();
    let kept = fill_spans(&mut unfinished, 2, &layout);
    assert!(fixture.occupied() <= fixture.size);
    unfinished.commit().unwrap();
    let first_left_out = kept.iter().position(|kept| !kept).unwrap();
    assert!(first_left_out >= 6 && kept[first_left_out..].iter().all(|kept| !kept), "{kept:?}");
    let stream = cache.stream(&blob(2), &layout, &Protection::Plain).unwrap();
    for span in 0..16 {
        assert_eq!(check(&stream, 2, &layout, span), kept[span as usize]);
    }
}

#[test]
fn min_free_of_the_file_system_is_kept() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = SpanCache::open(Config { directory: fixture.path(), size: fixture.size, min_free: u64::MAX / 2 }).unwrap();
    let layout = even(2, 4096);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    assert!(!store(&stream, 1, &layout, 0));
    assert_eq!(fixture.occupied(), 0);
}

#[test]
fn tiny_spans_that_share_blocks_are_counted_and_freed_as_blocks() {
    let fixture = CacheFixture::new(MIB);
    let cache = fixture.open();
    let layout = even(40_000, 100);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    for span in 0..20_000 {
        assert!(store(&stream, 1, &layout, span), "{span}");
        if span % 256 == 0 {
            assert!(fixture.occupied() <= fixture.size);
        }
    }
    assert!(fixture.occupied() <= fixture.size);
    let here = (0..20_000).filter(|span| check(&stream, 1, &layout, *span)).count();
    assert!(here > 5_000, "{here}");
}

#[test]
fn clear_unlinks_unpinned_files_and_open_streams_keep_working() {
    let fixture = CacheFixture::new(16 * MIB);
    let cache = fixture.open();
    let layout = even(4, 256 * KIB);
    cache.pin("kept", &[blob(1)]).unwrap();
    let streams: Vec<_> = (1..3)
        .map(|seed| {
            fill(&cache, seed, &layout, &Protection::Plain);
            cache.store_document("index", &blob(seed).to_string(), b"document", &Protection::Plain).unwrap();
            cache.store_document("manifest", "of anything", b"document", &Protection::Plain).unwrap();
            let stream = cache.stream(&blob(seed), &layout, &Protection::Plain).unwrap();
            assert!(check(&stream, seed, &layout, 0));
            stream
        })
        .collect();
    let document = cache.document("index", &blob(2).to_string(), &Protection::Plain).unwrap().unwrap();
    cache.clear(false).unwrap();
    assert_eq!((*document).as_ref(), b"document");
    assert_eq!(cache.usage().unwrap().streams, 1);
    assert!((0..4).all(|span| check(&streams[0], 1, &layout, span)));
    assert!(cache.document("index", &blob(1).to_string(), &Protection::Plain).unwrap().is_some());
    assert!(cache.document("index", &blob(2).to_string(), &Protection::Plain).unwrap().is_none());
    // Pinned content can still be found.
    assert!(cache.document("manifest", "of anything", &Protection::Plain).unwrap().is_some());
    // The cleared stream serves from its open files, or nothing, and stores into a new life.
    check(&streams[1], 2, &layout, 1);
    assert!(store(&streams[1], 2, &layout, 3) && check(&streams[1], 2, &layout, 3));
    assert_eq!(cache.usage().unwrap().streams, 2);
    cache.clear(true).unwrap();
    assert_eq!(cache.usage().unwrap(), Usage { size: fixture.size, ..Usage::default() });
    assert_eq!(fixture.occupied(), 0);
    assert!(store(&streams[0], 1, &layout, 2) && check(&streams[0], 1, &layout, 2));
}

#[test]
fn a_forgotten_stream_is_gone_in_every_form_and_others_stay() {
    let fixture = CacheFixture::new(16 * MIB);
    let cache = fixture.open();
    let (coarse, fine) = (even(2, 100_000), even(4, 50_000));
    for (seed, layout) in [(1, &coarse), (1, &fine), (2, &coarse)] {
        fill(&cache, seed, layout, &Protection::Plain);
    }
    cache.pin("pin", &[blob(1)]).unwrap();
    let stream = cache.stream(&blob(1), &fine, &Protection::Plain).unwrap();
    cache.forget_stream(&blob(1)).unwrap();
    cache.forget_stream(&blob(77)).unwrap();
    assert_eq!(cache.usage().unwrap().streams, 1);
    assert!(!fixture.open().stream(&blob(1), &coarse, &Protection::Plain).unwrap().has(0));
    assert!(store(&stream, 1, &fine, 0) && check(&stream, 1, &fine, 0));
}

/// Disk usage of spans and documents.
fn occupied_with_documents(fixture: &CacheFixture) -> u64 {
    let mut documents = Vec::new();
    files(&fixture.path().join("v2/documents"), &mut documents);
    fixture.occupied() + documents.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.blocks() * 512).sum::<u64>()
}

#[test]
fn documents_count_and_go_after_the_spans_the_oldest_first_and_pinned_ones_never() {
    let fixture = CacheFixture::new(MIB);
    let pinning = fixture.open();
    pinning.record_documents();
    pinning.store_document("tree", "pinned", b"tree", &Protection::Plain).unwrap();
    pinning.pin("kept", &[blob(9)]).unwrap();
    let cache = fixture.open();
    let of_pinned = format!("{}.archive", blob(9).path_name());
    cache.store_document("index", &of_pinned, b"index", &Protection::Plain).unwrap();
    let has = |kind: &str, key: &str| cache.document(kind, key, &Protection::Plain).unwrap().is_some();
    let grow_old = |kind: &str, key: &str, hours: u64| {
        let path = fixture.path().join(format!("v2/documents/{kind}/{key}.plain"));
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    cache.store_document("tree", "used", b"used", &Protection::Plain).unwrap();
    for (kind, key) in [("tree", "pinned"), ("index", &of_pinned), ("tree", "used")] {
        grow_old(kind, key, 1000);
    }
    assert!(has("tree", "used"));
    let layout = even(2, 100_000);
    fill(&cache, 1, &layout, &Protection::Plain);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    for number in 0..40 {
        let key = number.to_string();
        cache.store_document("tree", &key, &bytes(number, 0..50_000), &Protection::Plain).unwrap();
        grow_old("tree", &key, 100 - number);
        assert!(occupied_with_documents(&fixture) <= fixture.size, "{number}");
        assert!(
            (0..number).all(|earlier| has("tree", &earlier.to_string())) || !(stream.has(0) || stream.has(1)),
            "{number}: spans go first"
        );
        // Looking it up counted as a use.
        (0..=number)
            .filter(|earlier| has("tree", &earlier.to_string()))
            .for_each(|earlier| grow_old("tree", &earlier.to_string(), 100 - earlier));
    }
    let kept: Vec<u64> = (0..40).filter(|number| has("tree", &number.to_string())).collect();
    assert!(kept.len() > 10 && kept.len() < 25 && kept == (40 - kept.len() as u64..40).collect::<Vec<_>>(), "{kept:?}");
    assert!(has("tree", "pinned") && has("index", &of_pinned) && has("tree", "used"));
    // There is still room for a span.
    assert!(store(&stream, 1, &layout, 0) && occupied_with_documents(&fixture) <= fixture.size);
}

#[test]
fn a_document_that_does_not_fit_is_an_error_that_says_so() {
    let fixture = CacheFixture::new(MIB);
    let error = fixture.open().store_document("index", "large", &bytes(1, 0..300_000), &Protection::Plain).unwrap_err();
    assert!(error.kind == ErrorKind::NoSpace && error.message.contains("--cache-size"), "{error}");
}

#[test]
fn a_dead_stream_is_swept() {
    let fixture = CacheFixture::new(MIB);
    let layout = even(4, 100_000);
    fill(&fixture.open(), 1, &layout, &Protection::Plain);
    let directory = fixture.tables()[0].parent().unwrap().to_owned();
    super::super::table::Table::open(&directory).unwrap().unwrap().kill();
    let cache = fixture.open();
    for seed in 2..5 {
        fill(&cache, seed, &layout, &Protection::Plain);
    }
    assert!(!directory.exists());
}

/// Deleted cache files that this process still has open.
fn deleted_and_open(fixture: &CacheFixture) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|link| fs::read_link(link.unwrap().path()).ok());
    links.filter(|target| target.starts_with(fixture.path()) && target.to_string_lossy().ends_with(" (deleted)")).count()
}

#[test]
fn after_a_clear_readers_close_their_files_and_read_refetched_data() {
    let fixture = CacheFixture::new(16 * MIB);
    let (cache, clearing) = (fixture.open(), fixture.open());
    let layout = {
        let members: Vec<_> = std::iter::once(MIB..3 * MIB).collect();
        Layout::new(even(4, MIB).starts(), 4 * MIB, members)
    };
    fill(&cache, 1, &layout, &Protection::Plain);
    fill(&cache, 2, &layout, &Protection::Plain);
    clearing.pin("kept", &[blob(2)]).unwrap();
    let [stream, kept] = [1, 2].map(|seed| {
        let stream = cache.stream(&blob(seed), &layout, &Protection::Plain).unwrap();
        assert!((0..4).all(|span| check(&stream, seed, &layout, span)));
        stream
    });
    clearing.clear(false).unwrap();
    assert_eq!(deleted_and_open(&fixture), 2);
    cache.let_go();
    assert_eq!(deleted_and_open(&fixture), 0);
    assert!((0..4).all(|span| !check(&stream, 1, &layout, span) && check(&kept, 2, &layout, span)));
    assert!(store(&stream, 1, &layout, 1) && check(&stream, 1, &layout, 1));
}

#[test]
fn lent_room_counts_until_it_is_returned() {
    let fixture = CacheFixture::new(2 * MIB);
    let (cache, other) = (fixture.open(), fixture.open());
    let layout = even(7, 256 * KIB);
    fill(&cache, 1, &layout, &Protection::Plain);
    let room = other.room(MIB).unwrap();
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    let here = || (0..7).filter(|span| check(&stream, 1, &layout, *span)).count();
    assert!(fixture.occupied() <= MIB && here() > 0, "spans made way: {}", fixture.occupied());
    for span in 0..7 {
        store(&stream, 1, &layout, span);
    }
    assert!(fixture.occupied() <= MIB, "and it stays taken: {}", fixture.occupied());
    assert!(other.room(MIB + 256 * KIB).is_none(), "what is lent makes no way");
    room.give_back();
    assert!((0..7).all(|span| store(&stream, 1, &layout, span)));
    assert_eq!(here(), 7);
    drop(room);
    assert!(other.room(4 * MIB).is_none());
}

#[test]
fn mapped_documents_stay_and_count() {
    let fixture = CacheFixture::new(MIB);
    let (cache, reader) = (fixture.open(), fixture.open());
    cache.store_document("tree", "mapped", &bytes(1, 0..50_000), &Protection::Plain).unwrap();
    let path = fixture.path().join("v2/documents/tree/mapped.plain");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(360_000);
    let grow_old = || fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    let mapped = reader.document("tree", "mapped", &Protection::Plain).unwrap().unwrap();
    let crowd = || {
        grow_old();
        (0..40)
            .for_each(|number| cache.store_document("tree", &number.to_string(), &bytes(number, 0..50_000), &Protection::Plain).unwrap());
    };
    crowd();
    assert!(path.exists() && occupied_with_documents(&fixture) <= fixture.size);
    drop(mapped);
    crowd();
    assert!(!path.exists() && occupied_with_documents(&fixture) <= fixture.size);
}
