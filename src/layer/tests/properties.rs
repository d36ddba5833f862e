//! Properties over random data: piece sizes make no difference, spans yield the stream, nothing panics.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Content that compresses in various ways: runs, text, noise.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        (0..3_000_000_usize).prop_map(|length| vec![0; length]),
        (0..1_500_000_usize, any::<u64>()).prop_map(|(length, seed)| text(length, seed)),
        (0..600_000_usize, any::<u64>()).prop_map(|(length, seed)| noise(length, seed)),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

/// A blob in one of the codecs, with one or more members or frames.
fn packed(stream: &[u8], how: u8, cut: usize, level: u32) -> Vec<u8> {
    let (first, second) = stream.split_at(cut.min(stream.len()));
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        for piece in data.chunks(700_000) {
            encoder.write_all(piece).unwrap();
            if how.is_multiple_of(2) {
                encoder.flush().unwrap();
            }
        }
        encoder.finish().unwrap()
    };
    match how {
        0 => stream.to_vec(),
        1 | 2 => gzip(stream),
        3 | 4 => [gzip(first), gzip(second), vec![0; cut % 700]].concat(),
        5 => zstd_frame(stream),
        6 => zstd::bulk::compress(stream, 1).unwrap(),
        _ => [skippable(cut as u32 % 100_000), zstd_frame(first), skippable(3), zstd_frame(second)].concat(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_spans_of_any_blob_reproduce_its_stream(data in content(), how in 0..8_u8, cut in 0..2_000_000_usize, level in 0..10_u32, piece in 1000..300_000_usize) {
        let stream = tar_of(&[("file", data)]);
        let blob = packed(&stream, how, cut, level);
        let (index, sink) = scan(Form::Archive, &blob).unwrap();
        prop_assert!(sink.stream == stream);
        check_spans(&index, &blob, &stream, piece);
        for number in 0..index.span_count() {
            let span = index.span(number).unwrap();
            prop_assert!(span.stream.end - span.stream.start <= 4 << 20);
            prop_assert_eq!(index.spans_of(span.stream.clone()), number..number + 1);
        }
        let whole = index.spans_of(0..stream.len() as u64);
        prop_assert_eq!(whole, 0..index.span_count());
        prop_assert_eq!(index.spans_of(5..5), 0..0);
    }

    #[test]
    fn any_chunking_gives_the_same_index(data in content(), how in 0..8_u8, cut in 0..2_000_000_usize, sizes in prop::collection::vec(1..100_000_usize, 1..10)) {
        let stream = tar_of(&[("a", data.clone()), ("b", data)]);
        let blob = packed(&stream, how, cut, 6);
        let (index, _) = scan(Form::Archive, &blob).unwrap();
        let (mut pieces, mut rest, mut turn) = (Vec::new(), &blob[..], 0);
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(sizes[turn % sizes.len()].min(rest.len()));
            pieces.push(piece);
            (rest, turn) = (later, turn + 1);
        }
        let (again, _) = scan_with(Form::Archive, pieces, Digest::of(&blob)).unwrap();
        prop_assert!(index.as_bytes() == again.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_cause_a_panic(start in prop::sample::select(vec![vec![], vec![0x1f, 0x8b, 8, 0], vec![0x28, 0xb5, 0x2f, 0xfd], vec![0x50, 0x2a, 0x4d, 0x18]]), rest in prop::collection::vec(any::<u8>(), 0..3000)) {
        let blob = [start, rest].concat();
        if let Err(error) = scan(Form::Archive, &blob) {
            // By chance it is a frame with too large a window.
            prop_assert!(matches!(error.kind, ErrorKind::Integrity | ErrorKind::Unsupported));
        }
        prop_assert!(LayerIndex::open(Arc::new(blob)).is_err());
    }

    #[test]
    fn an_archive_with_random_changes_is_read_or_refused(changes in prop::collection::vec((0..6000_usize, any::<u8>()), 1..12), fix in any::<bool>()) {
        let mut tar = tar_of(&[("a", vec![b'x'; 1500]), (&"n".repeat(90), vec![b'y'; 10])]);
        for (at, value) in changes {
            if let Some(byte) = tar.get_mut(at) {
                *byte = value;
            }
        }
        if fix {
            // With valid checksums, the changes reach the code after them.
            for block in [0, 2048] {
                tar[block + 148..block + 156].fill(b' ');
                let sum: u32 = tar[block..block + 512].iter().map(|byte| u32::from(*byte)).sum();
                tar[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Err(error) = scan(Form::Archive, &tar) {
            prop_assert_eq!(error.kind, ErrorKind::Integrity);
        }
    }
}
