//! Input crafted to break the reader, and random input.

use super::*;

/// A small archive with everything that takes bytes besides content.
fn small_archive() -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.user.a", &b"value"[..]), ("mtime", b"1.5")]).unwrap();
    let mut header = ::tar::Header::new_gnu();
    header.set_size(700);
    header.set_mode(0o644);
    builder.append_data(&mut header, format!("{}end", "long/".repeat(30)), &[b'x'; 700][..]).unwrap();
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", "target").unwrap();
    builder.into_inner().unwrap()
}

fn forms() -> Vec<(&'static str, Vec<u8>)> {
    let tar = small_archive();
    vec![("tar", tar.clone()), ("gzip", gzip(&tar)), ("zstd", [zstd_frame(&tar[..600]), skippable(20), zstd_frame(&tar[600..])].concat())]
}

/// Any outcome is fine except a panic and an error of another kind.
fn survives(blob: &[u8]) -> Option<LayerIndex> {
    match scan(Form::Archive, blob) {
        Ok((index, _)) => Some(index),
        Err(error) => {
            assert!(matches!(error.kind, ErrorKind::Integrity | ErrorKind::Unsupported), "{error}");
            None
        }
    }
}

#[test]
fn an_archive_cut_at_any_byte_is_read_or_refused() {
    for (what, blob) in forms() {
        let whole = survives(&blob).unwrap().entry_count();
        let mut read = 0;
        for length in 0..blob.len() {
            if let Some(index) = survives(&blob[..length]) {
                assert!(index.entry_count() <= whole);
                read += 1;
            }
        }
        // A plain tar may end at a boundary; a compressed one only in its trailer.
        let bounds = if what == "tar" { 1..3000 } else { 1..3 };
        assert!(bounds.contains(&read), "{what}: {read}");
    }
}

#[test]
fn compressed_archives_with_any_byte_flipped_are_refused_or_read_the_same() {
    for (what, blob) in forms() {
        let whole = survives(&blob).unwrap();
        for at in 0..blob.len() {
            let mut flipped = blob.clone();
            flipped[at] ^= 0x55;
            let Some(index) = survives(&flipped) else { continue };
            if what != "tar" {
                // Header fields of gzip and the content of skippable frames do not matter.
                assert_eq!(index.entry_count(), whole.entry_count(), "{what} {at}");
                assert_eq!(
                    index.entries().map(|entry| entry.sha256).collect::<Vec<_>>(),
                    whole.entries().map(|entry| entry.sha256).collect::<Vec<_>>()
                );
            }
        }
    }
}

#[test]
fn only_zeros_may_follow_the_last_member() {
    let tar = small_archive();
    for blob in [gzip(&tar), zstd_frame(&tar)] {
        let (plain, _) = scan(Form::Archive, &blob).unwrap();
        let padded = [blob.clone(), vec![0; 100_000]].concat();
        let (index, sink) = scan(Form::Archive, &padded).unwrap();
        assert_eq!((index.entry_count(), index.blob_length()), (2, padded.len() as u64));
        assert_eq!(index.span(0), plain.span(0), "padding belongs to no span");
        check_spans(&index, &padded, &sink.stream, 4096);
        for garbage in [&b"x"[..], b"\0\0x", b"\x1f", b"\x1f\x8b", b"\x28\xb5\x2f"] {
            let error = scan(Form::Archive, &[&blob[..], garbage].concat()).map(|_| ()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Integrity, "{garbage:?}");
        }
    }
}

#[test]
fn wrong_checksums_and_lengths_are_refused() {
    let blob = gzip(&small_archive());
    for back in 1..=8 {
        let mut wrong = blob.clone();
        let at = wrong.len() - back;
        wrong[at] ^= 1;
        let error = scan(Form::Archive, &wrong).map(|_| ()).unwrap_err();
        assert!(error.message.contains("does not match"), "{error}");
    }
    let mut blob = zstd_frame(&small_archive());
    *blob.last_mut().unwrap() ^= 1;
    assert_eq!(scan(Form::Archive, &blob).map(|_| ()).unwrap_err().kind, ErrorKind::Integrity);
}

#[test]
fn every_field_of_a_gzip_header_is_read() {
    let tar = small_archive();
    let mut blob = gzip(&tar);
    let body = blob.split_off(10);
    let mut header = vec![0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 1, 2, 3, 4, 0, 255];
    header.extend_from_slice(b"\x05\0extra");
    header.extend_from_slice(b"name\0comment\0");
    let mut checksum = flate2::Crc::new();
    checksum.update(&header);
    let good = [&header[..], &(checksum.sum() as u16).to_le_bytes(), &body].concat();
    let (index, sink) = scan(Form::Archive, &good).unwrap();
    assert!(sink.stream == tar);
    check_spans(&index, &good, &tar, 3);
    let bad = [&header[..], &(checksum.sum() as u16 ^ 1).to_le_bytes(), &body].concat();
    assert!(scan(Form::Archive, &bad).map(|_| ()).unwrap_err().message.contains("header checksum"));
    let endless = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0][..], &vec![b'n'; 3 << 20]].concat();
    assert!(scan(Form::Archive, &endless).map(|_| ()).unwrap_err().message.contains("1 MiB"));
}

#[test]
fn a_window_above_128_mebibytes_is_refused() {
    // A frame header with a window descriptor of 2^28 bytes, then one empty last block.
    let blob = [&0xfd2f_b528_u32.to_le_bytes()[..], &[0x00, (28 - 10) << 3, 1, 0, 0]].concat();
    assert_eq!(scan(Form::Archive, &blob).map(|_| ()).unwrap_err().kind, ErrorKind::Unsupported);
    let blob = [&0xfd2f_b528_u32.to_le_bytes()[..], &[0x00, (27 - 10) << 3, 1, 0, 0]].concat();
    assert_eq!(survives(&blob).unwrap().entry_count(), 0);
}

/// Counts, and stores nothing.
#[derive(Default)]
struct Counted {
    bytes: u64,
    largest: usize,
}

impl SpanSink for Counted {
    fn member(&mut self, _: Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    fn span(&mut self, _: u32, stream: Range<u64>, data: &[u8]) -> Result<(), Error> {
        self.bytes = stream.end;
        self.largest = self.largest.max(data.len());
        Ok(())
    }
}

#[test]
fn a_gibibyte_of_zeros_streams_through_in_bounded_spans() {
    const MEBIBYTES: usize = 1024;
    let zeros = vec![0; 1 << 20];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut frames = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    for _ in 0..MEBIBYTES {
        encoder.write_all(&zeros).unwrap();
        frames.write_all(&zeros).unwrap();
    }
    for blob in [encoder.finish().unwrap(), frames.finish().unwrap()] {
        let (mut scan, mut sink) = (Scan::new(Form::Archive, &Resources::default()), Counted::default());
        scan.push(&blob, &mut sink).unwrap();
        let index = scan.finish(Digest::of(&blob), &mut sink).unwrap();
        assert_eq!((sink.bytes, index.stream_length(), index.entry_count()), (1 << 30, 1 << 30, 0));
        assert!(sink.largest <= 4 << 20);
        assert!(index.as_bytes().len() < 200_000, "{}", index.as_bytes().len());
    }
}

#[test]
fn empty_compressed_data_is_refused_or_skipped_in_bounded_spans() {
    let tar = small_archive();
    // Empty members and empty frames before and inside the archive.
    let (empty_member, empty_frame) = (gzip(b""), zstd_frame(b""));
    for (halves, empty) in
        [([gzip(&tar[..900]), gzip(&tar[900..])], &empty_member), ([zstd_frame(&tar[..900]), zstd_frame(&tar[900..])], &empty_frame)]
    {
        let blob = [empty.repeat(300_000), halves[0].clone(), empty.repeat(300_000), halves[1].clone(), empty.repeat(300_000)].concat();
        let (index, sink) = scan(Form::Archive, &blob).unwrap();
        assert!(sink.stream == tar);
        assert!((0..index.span_count()).all(|number| index.span(number).is_some_and(|span| span.blob.end - span.blob.start < 5 << 20)));
        check_spans(&index, &blob, &tar, 1 << 20);
    }
    // Inside one frame nothing can be skipped: endless empty raw blocks.
    let blob = [&0xfd2f_b528_u32.to_le_bytes()[..], &[0x00, 0x58], &[0; 3].repeat(23 << 20)].concat();
    assert!(scan(Form::Archive, &blob).map(|_| ()).unwrap_err().message.contains("without content"));
    // Inside one member there are restart points: empty stored blocks.
    let blob =
        [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0][..], &[0, 0, 0, 0xff, 0xff].repeat(2 << 20), &[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]]
            .concat();
    assert_eq!(survives(&blob).unwrap().span_count(), 0);
}

#[test]
fn large_skippable_frames_belong_to_no_span() {
    let tar = tar_of(&[("a", text(3_000_000, 9))]);
    let blob = [
        skippable(200_000),
        zstd_frame(&tar[..1000]),
        skippable(10),
        zstd_frame(&tar[1000..2_000_000]),
        skippable(300_000),
        skippable(0),
        zstd_frame(&tar[2_000_000..]),
        skippable(100_000),
    ]
    .concat();
    let (index, sink) = scan(Form::Archive, &blob).unwrap();
    assert!(sink.stream == tar);
    check_spans(&index, &blob, &tar, 10_000);
    let covered: u64 = (0..index.span_count()).filter_map(|number| index.span(number)).map(|span| span.blob.end - span.blob.start).sum();
    assert!(covered < blob.len() as u64 - 590_000);
}

#[test]
fn a_raw_blob_is_taken_as_it_is() {
    let blob = gzip(&text(5_000_000, 4));
    let (index, sink) = scan(Form::Raw, &blob).unwrap();
    assert!(sink.stream == blob);
    assert_eq!(
        (index.codec(), index.is_archive(), index.entry_count(), index.stream_length()),
        (Codec::Identity, false, 0, blob.len() as u64)
    );
    assert_eq!(index.span_count() as usize, blob.len().div_ceil(1 << 20));
    check_spans(&index, &blob, &blob, 1 << 20);
    // Hashed spans are all that it takes.
    for length in [blob.len(), 2 << 20, 1, 0] {
        let part = &blob[..length];
        let hashed: Vec<[u8; 32]> = part.chunks(1 << 20).map(|span| sha2::Sha256::digest(span).into()).collect();
        let built = raw_index(Digest::of(part), length as u64, &hashed, &Resources::default()).unwrap();
        assert_eq!(built.as_bytes(), scan(Form::Raw, part).unwrap().0.as_bytes());
    }
    let (empty, _) = scan(Form::Raw, b"").unwrap();
    assert_eq!((empty.span_count(), empty.stream_length()), (0, 0));
}

#[test]
fn a_sink_error_ends_the_scan() {
    struct Full;
    impl SpanSink for Full {
        fn member(&mut self, _: Range<u64>) -> Result<(), Error> {
            Err(Error::new(ErrorKind::NoSpace, "full"))
        }
        fn span(&mut self, _: u32, _: Range<u64>, _: &[u8]) -> Result<(), Error> {
            Ok(())
        }
    }
    let mut scan = Scan::new(Form::Archive, &Resources::default());
    assert_eq!(scan.push(&tar_of(&[("a", vec![0; 2 << 20])]), &mut Full).unwrap_err().kind, ErrorKind::NoSpace);
}
