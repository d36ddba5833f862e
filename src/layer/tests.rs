//! Whole passes over blobs: every codec, every way of splitting the input, hostile input.

use std::io::Write as _;
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;
use crate::sys::array::Scratch;

/// The content of an index layer.
pub(crate) fn encode_attached(index: &LayerIndex) -> Result<Vec<u8>, Error> {
    super::encode_attached(index, &Scratch::memory()).map(|bytes| bytes.to_vec())
}

/// Opens it again.
pub(crate) fn decode_attached(bytes: &[u8], blob: &Digest) -> Result<LayerIndex, Error> {
    super::decode_attached(bytes, blob, &Resources::default())
}

/// Collects the output of a scan and checks its order.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) stream: Vec<u8>,
    members: Vec<Range<u64>>,
    spans: u32,
}

impl SpanSink for Collected {
    fn member(&mut self, stream: Range<u64>) -> Result<(), Error> {
        assert!(stream.start >= self.stream.len() as u64, "a member is announced before its first byte");
        self.members.push(stream);
        Ok(())
    }

    fn span(&mut self, number: u32, stream: Range<u64>, data: &[u8]) -> Result<(), Error> {
        assert_eq!((number, stream.start, stream.end - stream.start), (self.spans, self.stream.len() as u64, data.len() as u64));
        self.stream.extend_from_slice(data);
        self.spans += 1;
        Ok(())
    }
}

fn scan_with(form: Form, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>, digest: Digest) -> Result<(LayerIndex, Collected), Error> {
    let (mut scan, mut sink) = (Scan::new(form, &Resources::default()), Collected::default());
    for piece in pieces {
        scan.push(piece.as_ref(), &mut sink)?;
    }
    let index = scan.finish(digest, &mut sink)?;
    assert_eq!(index.members().collect::<Vec<_>>(), sink.members);
    assert_eq!((index.stream_length(), index.span_count()), (sink.stream.len() as u64, sink.spans));
    Ok((index, sink))
}

pub(super) fn scan(form: Form, blob: &[u8]) -> Result<(LayerIndex, Collected), Error> {
    scan_with(form, [blob], Digest::of(blob))
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd_frame(data: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn skippable(length: u32) -> Vec<u8> {
    [&0x184d_2a50_u32.to_le_bytes()[..], &length.to_le_bytes(), &vec![0xff; length as usize]].concat()
}

pub(super) fn text(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(length + 16);
    while out.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(format!("{:x} ", state >> (40 + state % 20)).as_bytes());
    }
    out.truncate(length);
    out
}

pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn tar_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, path, data.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Decodes from every restart through every span, feeding only the bytes of the spans' ranges, and compares.
pub(super) fn check_spans(index: &LayerIndex, blob: &[u8], stream: &[u8], piece: usize) {
    assert_eq!(index.blob_length(), blob.len() as u64);
    for number in 0..index.span_count() {
        let span = index.span(number).unwrap();
        let (from, to) = (span.blob.start as usize, span.blob.end as usize);
        assert_eq!(span.digest, Some(Sha256::digest(&blob[from..to]).into()), "digest of span {number}");
        let restart = index.restart_for(number);
        let first = index.span(restart).unwrap();
        assert!(restart <= number && first.restart != Restart::No);
        let mut decoder = SpanDecoder::new(index, restart, &Resources::default().windows).unwrap();
        let mut out = Vec::new();
        let wanted = (span.stream.end - first.stream.start) as usize;
        while out.len() < wanted {
            let at = decoder.blob_position() as usize;
            let before = out.len();
            let consumed = decoder.decode(&blob[at..to.min(at + piece)], &mut out, (wanted - before).min(piece * 3)).unwrap();
            assert!(
                consumed > 0 || out.len() > before,
                "span {number} of {} is stuck at byte {at} of {to}, {} of {wanted}",
                index.span_count(),
                out.len()
            );
        }
        assert!(out == stream[first.stream.start as usize..span.stream.end as usize], "span {number} from {restart}");
        assert_eq!(decoder.stream_position(), span.stream.end);
    }
}

fn file_bytes(index: &LayerIndex, number: u32, stream: &[u8]) -> Vec<u8> {
    let mut data = vec![0; index.entry(number).unwrap().size as usize];
    for extent in index.extents(number) {
        data[extent.file as usize..(extent.file + extent.length) as usize]
            .copy_from_slice(&stream[extent.stream as usize..(extent.stream + extent.length) as usize]);
    }
    data
}

#[test]
fn every_codec_gives_the_same_entries_and_decodable_spans() {
    let files = [
        ("small", b"hello".to_vec()),
        ("dir/text", text(3_000_000, 1)),
        ("noise", noise(2_500_000, 2)),
        ("zeros", vec![0; 12_000_000]),
        ("empty", Vec::new()),
    ];
    let tar = tar_of(&files);
    for (codec, blob) in [(Codec::Identity, tar.clone()), (Codec::Gzip, gzip(&tar)), (Codec::Zstd, zstd_frame(&tar))] {
        let (index, sink) = scan(Form::Archive, &blob).unwrap();
        assert!(sink.stream == tar);
        assert_eq!((index.codec(), index.is_archive(), index.blob_digest(), index.entry_count()), (codec, true, Digest::of(&blob), 5));
        assert_eq!(sink.members.len(), 3);
        let metadata = Metadata { mode: Some(0o640), owner: Some((7, 8)), mtime: Some((1_700_000_000, 0)), device: (0, 0) };
        for (number, (path, data)) in files.iter().enumerate() {
            let entry = index.entry(number as u32).unwrap();
            assert_eq!(
                (entry.path, entry.kind, entry.metadata, entry.size),
                (path.as_bytes(), FileKind::File, metadata, data.len() as u64)
            );
            assert_eq!(entry.sha256, Some(Sha256::digest(data).into()));
            assert!(file_bytes(&index, number as u32, &sink.stream) == *data);
        }
        for number in 0..index.span_count() {
            let span = index.span(number).unwrap();
            assert!(span.stream.end - span.stream.start <= 4 << 20);
            assert!(codec != Codec::Identity || (span.restart == Restart::Clean && span.blob == span.stream));
        }
        check_spans(&index, &blob, &tar, 1 << 20);
        check_spans(&index, &blob, &tar, 50_000);
        assert!(index.warnings().is_empty(), "{:?}", index.warnings());
    }
}

#[test]
fn gzip_spans_restart_inside_deflate_about_every_mebibyte() {
    let tar = tar_of(&[("text", text(8_000_000, 3))]);
    let blob = gzip(&tar);
    let (index, _) = scan(Form::Archive, &blob).unwrap();
    assert!((6..=9).contains(&index.span_count()), "{}", index.span_count());
    for number in 1..index.span_count() {
        assert!(matches!(index.span(number).unwrap().restart, Restart::Window { .. }));
        assert_eq!(index.window(number).unwrap().len(), 32 * 1024);
    }
}

#[test]
fn only_spans_that_refer_to_earlier_data_keep_a_window() {
    let files = [("text", text(4_000_000, 4)), ("noise", noise(4_000_000, 5)), ("more", text(3_000_000, 6))];
    let tar = tar_of(&files);
    let flushed: Vec<u8> = {
        let mut encoder = flate2::Compress::new(flate2::Compression::default(), false);
        let mut deflated = Vec::with_capacity(2 * tar.len());
        let pieces = tar.chunks(1 << 20);
        let last = pieces.len() - 1;
        for (number, piece) in pieces.enumerate() {
            let flush = if number == last { flate2::FlushCompress::Finish } else { flate2::FlushCompress::Full };
            encoder.compress_vec(piece, &mut deflated, flush).unwrap();
        }
        let mut crc = flate2::Crc::new();
        crc.update(&tar);
        [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], deflated.as_slice(), &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()].concat()
    };
    let windows = |blob: &[u8]| {
        let (index, sink) = scan(Form::Archive, blob).unwrap();
        assert!(sink.stream == tar);
        check_spans(&index, blob, &tar, 1 << 20);
        (0..index.span_count()).map(|number| !index.window(number).unwrap().is_empty()).collect::<Vec<_>>()
    };
    assert!(windows(&flushed).iter().all(|window| !window));
    // Text refers to earlier text, noise to nothing.
    let usual = windows(&gzip(&tar));
    assert!(usual[1] && usual[2] && !usual[5] && !usual[6], "{usual:?}");
}

#[test]
fn too_large_windows_are_thinned_out_and_every_span_still_decodes() {
    let tar = tar_of(&[("text", text(20_000_000, 7))]);
    let blob = gzip(&tar);
    let index_within = |window_bytes: u64| {
        let resources = Resources { limits: Limits { window_bytes, ..Limits::default() }, ..Resources::default() };
        let (mut scan, mut sink) = (Scan::new(Form::Archive, &resources), Collected::default());
        scan.push(&blob, &mut sink).unwrap();
        scan.finish(Digest::of(&blob), &mut sink).unwrap()
    };
    let restarts = |index: &LayerIndex| {
        (0..index.span_count()).filter(|number| index.span(*number).unwrap().restart != Restart::No).collect::<Vec<_>>()
    };
    let all = index_within(u64::MAX);
    let window = all.as_bytes().len() as u64 / u64::from(all.span_count());
    assert_eq!(restarts(&all).len(), all.span_count() as usize);
    let fewer = index_within(6 * window);
    assert_eq!(fewer.span_count(), all.span_count());
    let kept = restarts(&fewer);
    assert!((3..=7).contains(&kept.len()) && kept.windows(2).all(|pair| pair[1] - pair[0] <= 8), "{kept:?}");
    check_spans(&fewer, &blob, &tar, 1 << 20);
    for windows in 0..=6 {
        let fewest = index_within(windows * window / 2);
        assert!(restarts(&fewest).len() <= windows as usize + 2, "{windows}: {:?}", restarts(&fewest));
        check_spans(&fewest, &blob, &tar, 1 << 20);
    }
}

#[test]
fn a_deflate_block_above_four_mebibytes_gives_spans_without_restart() {
    let blob = gzip(&vec![0; 40 << 20]);
    let (mut scan, mut sink) = (Scan::new(Form::Archive, &Resources::default()), Collected::default());
    scan.push(&blob, &mut sink).unwrap();
    let index = scan.finish(Digest::of(&blob), &mut sink).unwrap();
    assert!((0..index.span_count()).any(|number| index.span(number).unwrap().restart == Restart::No));
    check_spans(&index, &blob, &sink.stream, 1 << 20);
}

mod fixtures;
mod format;
mod hostile;
mod properties;
