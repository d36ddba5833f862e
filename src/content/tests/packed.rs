//! Archives, compressed and not.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_every_kind_of_archive_is_read_with_one_request_and_again_with_none() {
    let big = noise(5 * MIB as usize, 1);
    let archive = tar(&[("small", b"hello"), ("big", &big), ("last", b"end")]);
    for packed in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let fixture = ContentFixture::new();
        let source = fixture.add(Form::Archive, &packed);
        let contents = fixture.contents();
        let index = contents.index(&source).await.unwrap();
        let stream = contents.open(&source).await.unwrap();
        assert_eq!(stream.read(extent(&index, "small")).await.unwrap(), "hello");
        assert_eq!(stream.read(extent(&index, "big")).await.unwrap(), big);
        assert_eq!(stream.read(extent(&index, "last")).await.unwrap(), "end");
        assert_eq!((fixture.requests(), stream.verified()), (1, Verified::Whole));

        // Another mount finds everything, and its reads need not even wait.
        let again = Contents::new(fixture.config(1 << 30));
        let stream = again.open(&source).now_or_never().unwrap().unwrap();
        assert_eq!(stream.read(extent(&index, "big")).now_or_never().unwrap().unwrap(), big);
        assert_eq!(fixture.requests(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_readers_in_two_daemons_fetch_a_blob_once() {
    let fixture = ContentFixture::new();
    let big = noise(3 * MIB as usize, 2);
    let source = fixture.add(Form::Archive, &gzip(&tar(&[("big", &big)])));
    let daemons = [fixture.contents(), Contents::new(fixture.config(1 << 30))];
    let reads = (0..32).map(|number| {
        let (contents, source, big) = (daemons[number % 2].clone(), source.clone(), big.clone());
        async move {
            let index = contents.index(&source).await.unwrap();
            let stream = contents.open(&source).await.unwrap();
            assert_eq!(stream.read(extent(&index, "big")).await.unwrap(), big);
        }
    });
    join_all(reads.map(tokio::spawn)).await.into_iter().for_each(Result::unwrap);
    assert_eq!(fixture.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_spans_are_fetched_again_alone_and_only_once() {
    let big = noise(8 * MIB as usize, 3);
    let archive = tar(&[("big", &big)]);
    for packed in [archive.clone(), gzip(&archive)] {
        let fixture = ContentFixture::new();
        let source = fixture.add(Form::Archive, &packed);
        let index = fixture.contents().index(&source).await.unwrap();
        fixture.cache(1 << 30).clear(true).unwrap();
        let contents = {
            // `clear` takes the index as well; eviction takes only the data.
            let cache = fixture.cache(1 << 30);
            cache.store_document(names::INDEX, &names::index(&source), index.as_bytes(), &cache::Protection::Plain).unwrap();
            Contents::new(Config { cache, ..fixture.config(1 << 30) })
        };
        fixture.memory.forget_requests();
        let stream = contents.open(&source).await.unwrap();
        let file = extent(&index, "big");
        let middle = file.start + 5 * MIB..file.start + 5 * MIB + 4096;
        let reads = (0..32).map(|_| {
            let (stream, middle) = (stream.clone(), middle.clone());
            async move { stream.read(middle).await.unwrap() }
        });
        for read in join_all(reads.map(tokio::spawn)).await {
            assert_eq!(read.unwrap(), big[5 * MIB as usize..5 * MIB as usize + 4096]);
        }
        assert_eq!(fixture.requests(), 1);
        assert!(fixture.asked() < 3 * MIB, "{}", fixture.asked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_span_is_never_served_and_only_open_files_remember_it() {
    let fixture = ContentFixture::new();
    let big = noise(4 * MIB as usize, 4);
    let source = fixture.add(Form::Archive, &tar(&[("big", &big)]));
    // No room at all: every span must be refetched.
    let contents = Contents::new(fixture.config(0));
    let index = contents.index(&source).await.unwrap();
    let stream = contents.open(&source).await.unwrap();
    fixture.memory.plan(RequestKind::Blob, 0, 1, Fault::Flipped(77));
    let range = 2 * MIB..2 * MIB + 100;
    let error = stream.read(range.clone()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity);
    assert!(error.message.contains(&source.descriptor.digest.short()) && error.message.contains("span 2"), "{error}");
    let asked = fixture.asked();
    assert_eq!(stream.read(range.start..range.start + 1).await.unwrap_err().message, error.message);
    assert_eq!(fixture.asked(), asked, "what failed the check was fetched again");
    let offset = (range.start - extent(&index, "big").start) as usize;
    assert_eq!(stream.read(range.end..range.end + 100).await.unwrap(), big[offset + 100..offset + 200]);
    assert_eq!(contents.open(&source).await.unwrap().read(range).await.unwrap(), big[offset..offset + 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_short_and_long_blobs_are_refused_and_not_kept() {
    let good = gzip(&tar(&[("a", &noise(2 * MIB as usize, 5))]));
    let flipped = |mut data: Vec<u8>| {
        let middle = data.len() / 2;
        data[middle] ^= 1;
        data
    };
    let longer = [good.as_slice(), b"x"].concat();
    for bad in [flipped(good.clone()), good[..good.len() - 1].to_vec(), longer] {
        let fixture = ContentFixture::new();
        let source = fixture.add(Form::Archive, &good);
        fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, bad);
        let contents = fixture.contents();
        let error = contents.index(&source).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
        assert!(contents.open(&source).await.is_err() && !is_stored(&fixture, &source));
        // The failure is not remembered either.
        fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, good.clone());
        contents.index(&source).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_mismatch_names_both_digests() {
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Archive, &tar(&[("a", b"good")]));
    let bad = tar(&[("a", b"evil")]);
    fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, bad.clone());
    let error = fixture.contents().index(&source).await.err().unwrap();
    assert!(error.message.contains(&source.descriptor.digest.to_string()), "{error}");
    assert!(error.message.contains(&Digest::of(&bad).to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_archive_with_the_right_digest_is_reported_as_published_broken() {
    let fixture = ContentFixture::new();
    let mut packed = gzip(&tar(&[("a", &noise(300_000, 6))]));
    packed.truncate(packed.len() / 2);
    let source = fixture.add(Form::Archive, &packed);
    let error = fixture.contents().index(&source).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Integrity);
    assert!(error.message.contains("as published"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_larger_than_the_cache_is_read_in_one_pass_and_correctly_at_random() {
    let files: Vec<Vec<u8>> = (0..12).map(|number| noise(MIB as usize - 5000, number)).collect();
    let names: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
    let archive = tar(&names.iter().zip(&files).map(|(name, data)| (name.as_str(), data.as_slice())).collect::<Vec<_>>());
    for packed in [zstd(&archive), gzip(&archive), archive.clone()] {
        let fixture = ContentFixture::new();
        let source = fixture.add(Form::Archive, &packed);
        let contents = Contents::new(fixture.config(3 * MIB));
        contents.index(&source).await.unwrap();
        let stream = contents.open(&source).await.unwrap();
        fixture.memory.forget_requests();
        assert!(read_all(&stream).await.unwrap() == archive);
        let once = packed.len() as u64;
        assert!(fixture.asked() < once + once / 4, "{} of {once}", fixture.asked());
        for from in [9 * MIB, MIB, 11 * MIB, 4 * MIB + 77] {
            let range = from..(from + 100_000).min(archive.len() as u64);
            assert!(stream.read(range.clone()).await.unwrap() == archive[range.start as usize..range.end as usize]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_archive_and_a_range_beyond_the_end_are_empty() {
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Archive, &tar(&[]));
    let stream = fixture.contents().open(&source).await.unwrap();
    let length = stream.length();
    assert!(stream.read(length..length + 5).await.unwrap().is_empty());
    assert_eq!(stream.read(0..length + 5).await.unwrap().len() as u64, length);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_stalls_ends_with_the_deadline() {
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Archive, &tar(&[("a", &noise(MIB as usize, 7))]));
    fixture.memory.plan(RequestKind::Blob, 0, 1, Fault::StallAfter(1000));
    let config = Config { io_timeout: Duration::from_millis(50), ..fixture.config(1 << 30) };
    assert_eq!(Contents::new(config).index(&source).await.err().unwrap().kind, ErrorKind::TimedOut);
    assert!(!is_stored(&fixture, &source));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_useless_cached_index_is_rebuilt() {
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Archive, &tar(&[("a", b"data")]));
    let cache = fixture.cache(1 << 30);
    cache.store_document(names::INDEX, &names::index(&source), b"not an index", &cache::Protection::Plain).unwrap();
    let index = fixture.contents().index(&source).await.unwrap();
    assert_eq!((index.entry_count(), fixture.requests()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_claims_another_size_than_the_checked_blob_is_refused() {
    let fixture = ContentFixture::new();
    let mut source = fixture.add(Form::Archive, &tar(&[("a", b"data")]));
    let contents = fixture.contents();
    contents.index(&source).await.unwrap();
    source.descriptor.size += 1;
    let error = contents.index(&source).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_decoded_on_the_way_are_kept_for_slower_readers_even_if_the_cache_is_not_filled() {
    let fixture = ContentFixture::new();
    let archive = tar(&[("big", &noise(15 * MIB as usize, 32))]);
    let source = fixture.add(Form::Archive, &zstd(&archive));
    fixture.contents().index(&source).await.unwrap();
    fixture.cache(1 << 30).forget_stream(&source.descriptor.digest).unwrap();
    let cache = fixture.cache(1 << 30).unfilled(None);
    let stream = Contents::new(Config { cache, ..fixture.config(1 << 30) }).open(&source).await.unwrap();
    fixture.memory.forget_requests();
    // One frame: decoding starts at its beginning only.
    for from in [14, 9, 5, 1].map(|mebibytes| mebibytes * MIB) {
        assert!(stream.read(from..from + 1000).await.unwrap() == archive[from as usize..][..1000]);
    }
    assert_eq!(fixture.requests(), 1);
}

/// One frame without a content size, as `zstd --long` writes it to a pipe.
fn zstd_with_window(data: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_decoder_is_dropped_for_a_needed_window() {
    let fixture = ContentFixture::new();
    let big = noise(20 * MIB as usize, 31);
    let source = fixture.add(Form::Archive, &zstd_with_window(&tar(&[("big", &big)]), 24));
    // Memory for one 16 MiB window, and a cache that stores almost nothing: read backwards, each read needs a decoder.
    let budget = Budget::new(MEMORY_LEAST);
    assert!((16 * MIB..32 * MIB).contains(&budget.share(budget::Use::Large)));
    let contents = Contents::new(Config { budget, ..fixture.config(2 * MIB) });
    let place_of_big = extent(&contents.index(&source).await.unwrap(), "big").start;
    let stream = contents.open(&source).await.unwrap();
    let backwards = async {
        for start in [18, 14, 10, 6, 3].map(|mebibytes| mebibytes * MIB) {
            let read = stream.read(place_of_big + start..place_of_big + start + 1000).await.unwrap();
            assert!(read == big[start as usize..start as usize + 1000]);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), backwards).await.expect("a decoder waits for one that is parked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_does_not_fit_is_an_error_naming_window_and_limit() {
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Archive, &zstd_with_window(&tar(&[("big", &noise(MIB as usize, 3))]), 25));
    let contents = Contents::new(Config { budget: Budget::new(MEMORY_LEAST), ..fixture.config(1 << 30) });
    let error = contents.index(&source).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    for part in [&*source.descriptor.digest.short().to_string(), "window of 34078720 bytes", "--memory-limit"] {
        assert!(error.message.contains(part), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn long_local_work_counts_as_progress() {
    let contents = ContentFixture::new().contents();
    contents.working(tokio::time::sleep(Duration::from_secs(5))).await;
    assert!(contents.progress() >= 4, "{}", contents.progress());
}
