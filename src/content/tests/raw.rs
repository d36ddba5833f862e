//! Raw blobs: small ones, and large ones served while being verified.

use std::time::Duration;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_small_raw_blob_is_verified_before_its_first_byte() {
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Raw, b"some text");
    let contents = fixture.contents();
    let stream = contents.open(&source).await.unwrap();
    assert_eq!((stream.length(), stream.verified(), fixture.requests()), (9, Verified::Unread, 0));
    assert_eq!(stream.read(5..9).await.unwrap(), "text");
    assert_eq!((stream.verified(), fixture.requests()), (Verified::Whole, 1));
    fixture.memory.add_blob_as(REPOSITORY, Digest::of(b"other"), b"evil!".to_vec());
    let other = BlobSource { descriptor: Descriptor::new("a/b", Digest::of(b"other"), 5), ..source };
    assert_eq!(contents.open(&other).await.unwrap().read(0..1).await.unwrap_err().kind, ErrorKind::Integrity);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_raw_blob_is_read_without_a_request() {
    let fixture = ContentFixture::new();
    let source = fixture.add(Form::Raw, b"");
    assert!(fixture.contents().open(&source).await.unwrap().read(0..10).await.unwrap().is_empty());
    assert_eq!(fixture.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_a_large_raw_blob_costs_only_its_span() {
    let fixture = ContentFixture::new();
    let data = noise(20 * MIB as usize + 5, 1);
    let source = fixture.add(Form::Raw, &data);
    let stream = fixture.contents().open(&source).await.unwrap();
    assert_eq!(stream.read(20 * MIB..20 * MIB + 5).await.unwrap(), data[20 * MIB as usize..]);
    assert_eq!((stream.verified(), fixture.asked()), (Verified::Partial, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_raw_blob_is_verified_once_fully_read() {
    let fixture = ContentFixture::new();
    let data = noise(9 * MIB as usize + 77, 2);
    let source = fixture.add(Form::Raw, &data);
    let contents = fixture.contents();
    let stream = contents.open(&source).await.unwrap();
    assert!(read_all(&stream).await.unwrap() == data);
    until(|| stream.verified() == Verified::Whole).await;
    assert_eq!(fixture.asked(), data.len() as u64);
    // A stricter reader, and another mount, need no further bytes.
    let strict = BlobSource { strict: true, ..source };
    for contents in [contents, Contents::new(fixture.config(1 << 30))] {
        // The result is stored a moment after it is known.
        let opened = async {
            loop {
                match contents.open(&strict).await.unwrap() {
                    stream if stream.verified() == Verified::Whole => return stream,
                    _ => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        let stream = tokio::time::timeout(Duration::from_secs(20), opened).await.expect("it is never known to be whole");
        assert!(stream.read(0..data.len() as u64).await.unwrap() == data);
    }
    assert_eq!(fixture.asked(), data.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_raw_blob_read_backwards_is_verified_too() {
    let fixture = ContentFixture::new();
    let data = noise(6 * MIB as usize, 3);
    let source = fixture.add(Form::Raw, &data);
    let stream = fixture.contents().open(&source).await.unwrap();
    for span in (0..6).rev() {
        stream.read(span * MIB..span * MIB + 1).await.unwrap();
    }
    until(|| stream.verified() == Verified::Whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mismatch_found_at_the_end_fails_later_reads_until_the_registry_is_repaired() {
    let fixture = ContentFixture::new();
    let data = noise(4 * MIB as usize, 4);
    let source = fixture.add(Form::Raw, &data);
    let mut bad = data.clone();
    bad[3 * MIB as usize] ^= 1;
    fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, bad);

    let contents = fixture.contents();
    let stream = contents.open(&source).await.unwrap();
    // The read that completes the blob fails, and so do later ones.
    assert_eq!(read_all(&stream).await.unwrap_err().kind, ErrorKind::Integrity);
    let layout = plan::raw_layout(source.descriptor.size).unwrap();
    let key = names::stream(&source.descriptor.digest, Form::Raw, Sealing::None);
    let cached = || fixture.cache(1 << 30).stream(&key, &layout, &cache::Protection::Plain).unwrap();
    until(|| (0..4).all(|span| !cached().has(span))).await;
    let error = stream.read(0..1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity);
    assert!(error.message.contains(&source.descriptor.digest.to_string()), "{error}");
    let later = contents.open(&source).await.unwrap();
    assert_eq!(later.read(0..1).await.unwrap_err().kind, ErrorKind::Integrity);
    assert!(!is_stored(&fixture, &source));

    fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, data.clone());
    let mended = contents.open(&source).await.unwrap();
    assert!(read_all(&mended).await.unwrap() == data);
    assert_eq!(mended.verified(), Verified::Whole);
    // A stream opened on the wrong bytes never serves others.
    assert_eq!(stream.read(0..1).await.unwrap_err().kind, ErrorKind::Integrity);
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_all_of_a_wrong_blob_fails_in_any_order_with_any_cache() {
    let data = noise(5 * MIB as usize + 9, 14);
    for (order, cache) in [
        (vec![0, 1, 2, 3, 4, 5], 1 << 30),
        (vec![5, 0, 1, 2, 3, 4], 1 << 30),
        (vec![5, 4, 3, 2, 1, 0], 1 << 30),
        (vec![0, 1, 2, 3, 4, 5], 0),
        (vec![3, 5, 1, 4, 0, 2], 0),
    ] {
        for bad in [true, false] {
            let fixture = ContentFixture::new();
            let source = fixture.add(Form::Raw, &data);
            if bad {
                let mut bytes = data.clone();
                bytes[2 * MIB as usize] ^= 1;
                fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, bytes);
            }
            let contents = Contents::new(fixture.config(cache));
            let stream = contents.open(&source).await.unwrap();
            let mut outcomes = Vec::new();
            for span in &order {
                outcomes.push(stream.read(span * MIB..(span + 1) * MIB).await.map(|bytes| bytes.len()));
            }
            let last = outcomes.pop().unwrap();
            assert_eq!(last.map_err(|error| error.kind).is_err(), bad, "{order:?} with {cache}");
            // Prefetch may have completed the blob before.
            assert!(bad || outcomes.iter().all(Result::is_ok), "{order:?} with {cache}: {outcomes:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_remembered_briefly_where_it_occurred() {
    for kind in [ErrorKind::TimedOut, ErrorKind::Unreachable] {
        let fixture = ContentFixture::new();
        let data = noise(3 * MIB as usize, 17);
        let source = fixture.add(Form::Raw, &data);
        let contents = fixture.contents();
        let stream = contents.open(&source).await.unwrap();
        fixture.memory.plan(RequestKind::Blob, 0, 1, Fault::Error(kind));
        // The kernel retries a page that it did not get at once.
        assert_eq!(stream.read(0..MIB).await.unwrap_err().kind, kind);
        assert_eq!(stream.read(0..4096).await.unwrap_err().kind, kind);
        assert_eq!(fixture.requests(), 1);
        // Other readers, and other offsets, send their own requests.
        assert_eq!(contents.open(&source).await.unwrap().read(0..4096).await.unwrap(), data[..4096]);
        assert_eq!(stream.read(2 * MIB..2 * MIB + 9).await.unwrap(), data[2 * MIB as usize..2 * MIB as usize + 9]);
        until(|| stream.read(0..4096).now_or_never().is_some_and(|read| read.is_ok())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_the_end_do_not_wait_for_the_rest() {
    let fixture = ContentFixture::new();
    let data = noise(20 * MIB as usize, 15);
    let source = fixture.add(Form::Raw, &data);
    let contents = fixture.contents();
    let (one, other) = (contents.open(&source).await.unwrap(), contents.open(&source).await.unwrap());
    for span in [0, 1, 2, 19] {
        one.read(span * MIB..span * MIB + 1).await.unwrap();
    }
    // Content read by others does not count as read by this one.
    other.read(19 * MIB..20 * MIB).await.unwrap();
    assert_eq!(one.verified(), Verified::Partial);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_redirected_to_an_untrusted_transport_is_verified_before_its_first_byte() {
    for bad in [false, true] {
        let fixture = ContentFixture::new();
        let data = noise(3 * MIB as usize, 16);
        let source = fixture.add(Form::Raw, &data);
        if bad {
            let mut bytes = data.clone();
            bytes[data.len() - 1] ^= 1;
            fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, bytes);
        }
        let contents = fixture.contents();
        let stream = contents.open(&source).await.unwrap();
        fixture.memory.plan(RequestKind::Blob, 0, 1, Fault::Strayed);
        let read = stream.read(0..1).await;
        assert!(fixture.requests() > 1);
        match bad {
            true => assert_eq!(read.unwrap_err().kind, ErrorKind::Integrity),
            false => assert_eq!((read.unwrap(), stream.verified()), (data[..1].to_vec().into(), Verified::Whole)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_refetched_before_verification_must_be_identical() {
    let fixture = ContentFixture::new();
    let data = noise(6 * MIB as usize, 12);
    let source = fixture.add(Form::Raw, &data);
    // Cache and memory keep almost nothing, so the first spans are soon gone.
    let config = Config { budget: Budget::new(MEMORY_LEAST), ..fixture.config(0) };
    let contents = Contents::new(config);
    let stream = contents.open(&source).await.unwrap();
    for span in 0..5 {
        stream.read(span * MIB..span * MIB + 1).await.unwrap();
    }
    fixture.memory.plan(RequestKind::Blob, 0, u32::MAX, Fault::Flipped(0));
    assert_eq!(stream.read(0..1).await.unwrap_err().kind, ErrorKind::Integrity);
    fixture.memory.mend();
    let stream = contents.open(&source).await.unwrap();
    assert_eq!(stream.read(0..1).await.unwrap(), data[..1]);
    stream.read(5 * MIB..6 * MIB).await.unwrap();
    until(|| stream.verified() == Verified::Whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_reader_gets_no_byte_of_a_bad_blob_whatever_makes_it_strict() {
    let data = noise(3 * MIB as usize, 5);
    for (trust, verify, strict) in [
        (Trust::Digest, VerifyPolicy::Auto, false),
        (Trust::Transport, VerifyPolicy::Strict, false),
        (Trust::Transport, VerifyPolicy::Auto, true),
    ] {
        let fixture = ContentFixture::with(trust);
        let source = BlobSource { strict, ..fixture.add(Form::Raw, &data) };
        let mut bad = data.clone();
        bad[data.len() - 1] ^= 1;
        fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, bad);
        let contents = Contents::new(Config { verify, ..fixture.config(1 << 30) });
        let stream = contents.open(&source).await.unwrap();
        let mut asked = 0;
        for retry in 0..3 {
            assert_eq!(stream.read(retry..retry + 1).await.unwrap_err().kind, ErrorKind::Integrity);
            assert!(retry == 0 || fixture.asked() == asked, "what failed the check was fetched again");
            asked = fixture.asked();
        }
        fixture.memory.add_blob_as(REPOSITORY, source.descriptor.digest, data.clone());
        let stream = contents.open(&source).await.unwrap();
        assert!(stream.read(0..data.len() as u64).await.unwrap() == data);
        assert_eq!(stream.verified(), Verified::Whole);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unverified_cached_spans_are_verified_before_strict_readers_get_them() {
    let fixture = ContentFixture::new();
    let data = noise(5 * MIB as usize, 18);
    let source = fixture.add(Form::Raw, &data);
    let unchecked = fixture.contents().open(&source).await.unwrap();
    let strict = BlobSource { strict: true, ..source.clone() };
    let strict = Contents::new(fixture.config(1 << 30)).open(&strict).await.unwrap();
    strict.read(0..1).await.unwrap();
    fixture.cache(1 << 30).forget_stream(&names::stream(&source.descriptor.digest, Form::Raw, Sealing::None)).unwrap();
    // A reader that knows no digest stores a wrong span and a right one.
    fixture.memory.plan(RequestKind::Blob, 0, 1, Fault::Flipped(0));
    let part = |span: u64| span * MIB..span * MIB + 9;
    let expected = |span: u64| data[part(span).start as usize..part(span).end as usize].to_vec();
    assert_ne!(unchecked.read(part(2)).await.unwrap(), expected(2));
    assert_eq!(unchecked.read(part(4)).await.unwrap(), expected(4));
    fixture.memory.forget_requests();
    assert_eq!((strict.read(part(2)).await.unwrap(), fixture.requests()), (expected(2).into(), 1));
    assert_eq!((strict.read(part(4)).await.unwrap(), fixture.requests()), (expected(4).into(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_blob_above_the_budget_is_fetched_again_by_span_digests() {
    let fixture = ContentFixture::with(Trust::Digest);
    let data = noise(6 * MIB as usize, 6);
    let source = fixture.add(Form::Raw, &data);
    // Memory for hardly more than one span.
    let config = Config { budget: Budget::new(MEMORY_LEAST), ..fixture.config(2 * MIB) };
    let stream = Contents::new(config).open(&source).await.unwrap();
    assert!(read_all(&stream).await.unwrap() == data);
    fixture.memory.plan(RequestKind::Blob, 0, u32::MAX, Fault::Flipped(0));
    let kinds = join_all((0..6).map(|span| stream.read(span * MIB..span * MIB + 1))).await;
    assert!(kinds.iter().any(|read| read.as_ref().is_err_and(|error| error.kind == ErrorKind::Integrity)));
    for (span, read) in kinds.iter().enumerate() {
        assert!(read.as_ref().is_err() || read.as_ref().is_ok_and(|byte| byte[0] == data[span * MIB as usize]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_reader_of_a_large_blob_makes_few_requests() {
    let fixture = ContentFixture::new();
    let data = noise(48 * MIB as usize, 7);
    let source = fixture.add(Form::Raw, &data);
    let stream = fixture.contents().open(&source).await.unwrap();
    assert!(read_all(&stream).await.unwrap() == data);
    assert_eq!(fixture.asked(), data.len() as u64);
    assert!(fixture.requests() < 24, "{}", fixture.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_request_is_fetched_in_parallel_ranges() {
    let fixture = ContentFixture::new();
    let data = noise(40 * MIB as usize, 8);
    let source = fixture.add(Form::Raw, &data);
    let stream = fixture.contents().open(&source).await.unwrap();
    assert!(stream.read(0..40 * MIB).await.unwrap() == data);
    assert_eq!((fixture.requests(), fixture.asked()), (5, 40 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demand_read_does_not_wait_for_stalled_prefetch() {
    let fixture = ContentFixture::new();
    let data = noise(64 * MIB as usize, 9);
    let source = fixture.add(Form::Raw, &data);
    let stream = fixture.contents().open(&source).await.unwrap();
    stream.read(0..4096).await.unwrap();
    fixture.memory.plan(RequestKind::Blob, 0, 8, Fault::Stall);
    for start in (4096..MIB).step_by(128 << 10) {
        stream.read(start..start + 4096).await.unwrap();
    }
    until(|| fixture.requests() > 1).await;
    fixture.memory.mend();
    assert_eq!(stream.read(60 * MIB..60 * MIB + 9).await.unwrap(), data[60 * MIB as usize..60 * MIB as usize + 9]);
    fixture.memory.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn small_reads_of_an_uncached_span_fetch_it_once() {
    let fixture = ContentFixture::new();
    let data = noise(4 * MIB as usize, 10);
    let source = fixture.add(Form::Raw, &data);
    let stream = Contents::new(fixture.config(0)).open(&source).await.unwrap();
    assert!(read_all(&stream).await.unwrap() == data);
    assert!(fixture.asked() <= data.len() as u64, "{}", fixture.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexed_raw_blob_has_the_span_boundaries_of_an_unindexed_one() {
    let fixture = ContentFixture::new();
    let source = BlobSource { strict: true, ..fixture.add(Form::Raw, &noise(5 * MIB as usize + 9, 11)) };
    let index = fixture.contents().index(&source).await.unwrap();
    assert_eq!(reader::layout_of(&index), plan::raw_layout(source.descriptor.size).unwrap());
}

#[tokio::test]
async fn bytes_in_memory_can_be_a_stream() {
    let stream = ContentStream::of_bytes("some bytes".into());
    assert_eq!((stream.length(), stream.verified()), (10, Verified::Whole));
    assert_eq!(stream.read(5..7).await.unwrap(), "by");
    assert_eq!(stream.read(5..u64::MAX).await.unwrap(), "bytes");
    assert!(stream.read(20..30).await.unwrap().is_empty());
}
