//! Packed layers read back unchanged, by a scan, by span decoders and by another crate; errors for what cannot be packed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::error::ErrorKind;
use crate::layer::tests::{check_spans, decode_attached, encode_attached, noise, scan, text};
use crate::layer::{Form, Restart};

/// An output whose bytes can be examined afterwards.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().clone()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn entry(path: &[u8], kind: FileKind) -> PackEntry {
    PackEntry {
        path: path.to_vec(),
        kind,
        metadata: Metadata {
            mode: Some(if kind == FileKind::Directory { 0o755 } else { 0o644 }),
            owner: Some((0, 0)),
            mtime: Some((1_700_000_000, 0)),
            device: (0, 0),
        },
        size: 0,
        link: Vec::new(),
        xattrs: Vec::new(),
    }
}

pub(super) fn file(path: &[u8], data: &[u8]) -> (PackEntry, Vec<u8>) {
    (PackEntry { size: data.len() as u64, ..entry(path, FileKind::File) }, data.to_vec())
}

/// Packs and also returns the blob.
pub(super) fn pack(packing: Packing, workers: usize, entries: &[(PackEntry, Vec<u8>)], piece: usize) -> (Packed, Vec<u8>) {
    let output = Shared::default();
    let mut packer = Packer::new(packing, workers, Box::new(output.clone()));
    for (entry, data) in entries {
        packer.begin(entry).unwrap();
        for piece in data.chunks(piece) {
            packer.data(piece).unwrap();
        }
    }
    let packed = packer.finish().unwrap();
    (packed, output.bytes())
}

/// Compares with a scan of the blob, and decodes each span alone.
pub(super) fn check(packing: Packing, packed: &Packed, blob: &[u8]) -> Vec<u8> {
    let form = if packing == Packing::Raw { Form::Raw } else { Form::Archive };
    let (scanned, sink) = scan(form, blob).unwrap();
    let index = &packed.index;
    assert_eq!(packed.blob, (Digest::of(blob), blob.len() as u64));
    assert_eq!(packed.stream, (Digest::of(&sink.stream), sink.stream.len() as u64));
    assert_eq!((index.blob_digest(), index.codec(), index.is_archive()), (scanned.blob_digest(), scanned.codec(), scanned.is_archive()));
    assert_eq!((index.stream_length(), index.blob_length()), (scanned.stream_length(), scanned.blob_length()));
    assert!(index.warnings().is_empty() && scanned.warnings().is_empty(), "{:?}", scanned.warnings());
    if packing != Packing::Raw {
        let list = |index: &LayerIndex| -> Vec<String> {
            index.entries().map(|entry| format!("{entry:?} {:?} {:?}", index.extents(entry.number), index.xattrs(entry.number))).collect()
        };
        assert_eq!(list(index), list(&scanned));
    }
    assert_eq!(index.members().collect::<Vec<_>>(), scanned.members().collect::<Vec<_>>());
    let borders = |index: &LayerIndex| (0..index.span_count()).map(|number| index.span(number).unwrap().stream).collect::<Vec<_>>();
    assert_eq!(borders(index), borders(&scanned));
    for number in 0..index.span_count() {
        assert_ne!(index.span(number).unwrap().restart, Restart::No);
        assert!(index.window(number).unwrap().is_empty());
    }
    check_spans(index, blob, &sink.stream, 1 << 20);
    sink.stream
}

#[test]
fn every_packing_reads_back() {
    let entries = [
        (entry(b"dir", FileKind::Directory), vec![]),
        file(b"dir/text", &text(3_000_000, 1)),
        file(b"zeros", &vec![0; 3_000_000]),
        file(b"empty", b""),
        file(b"noise", &noise(2_500_000, 2)),
    ];
    for packing in [Packing::GzipTar, Packing::Tar] {
        for workers in [1, 3] {
            let (packed, blob) = pack(packing, workers, &entries, 100_000);
            let stream = check(packing, &packed, &blob);
            assert!(stream.ends_with(&[0; 1024]) && stream[stream.len() - 1536..stream.len() - 1024] != [0; 512]);
        }
    }
}

#[test]
fn a_raw_layer_is_the_file_and_its_index_knows_the_attributes() {
    for length in [0, 1, 1 << 20, (2 << 20) + 5] {
        let data = noise(length, 3);
        let mut only = file(b"sub/big.bin", &data);
        only.0.metadata = Metadata { mode: Some(0o4711), owner: Some((7, 8)), mtime: Some((-2, 500_000_000)), device: (0, 0) };
        let (packed, blob) = pack(Packing::Raw, 2, &[only], 70_000);
        assert!(blob == data);
        check(Packing::Raw, &packed, &blob);
        let found = packed.index.entry(0).unwrap();
        let expected = Metadata { mode: Some(0o4711), owner: Some((7, 8)), mtime: Some((-2, 500_000_000)), device: (0, 0) };
        assert_eq!((found.path, found.metadata, found.size), (&b"sub/big.bin"[..], expected, length as u64));
        assert_eq!(found.sha256, Some(Sha256::digest(&data).into()));
        assert_eq!(packed.index.entry_count(), 1);
    }
}

#[test]
fn an_attached_index_survives_a_round_trip() {
    for packing in [Packing::GzipTar, Packing::Tar, Packing::Raw] {
        let (packed, _) = pack(packing, 2, &[file(b"a", &text(2_500_000, 1))], 100_000);
        let index = decode_attached(&encode_attached(&packed.index).unwrap(), &packed.blob.0).unwrap();
        assert!(index.as_bytes() == packed.index.as_bytes());
    }
}

#[test]
fn incompressible_data_is_stored_at_almost_no_cost() {
    let data = noise(5 << 20, 9);
    let (packed, blob) = pack(Packing::GzipTar, 2, &[file(b"noise", &data)], 1 << 20);
    let stream = check(Packing::GzipTar, &packed, &blob);
    assert!(blob.len() < stream.len() + 6 * 17 * 5 + 18, "{} for {}", blob.len(), stream.len());
    // One span in five compresses.
    let data = [&data[..], &vec![7; 1 << 20], &data].concat();
    let (packed, blob) = pack(Packing::GzipTar, 2, &[file(b"mixed", &data)], 1 << 20);
    check(Packing::GzipTar, &packed, &blob);
    assert!(blob.len() < (10 << 20) + 10_000, "{}", blob.len());
}

/// The golden layer of `FORMAT.md`.
fn golden() -> (Packed, Vec<u8>) {
    let metadata = Metadata { mode: Some(0o777), mtime: Some((-2, 500_000_000)), ..Metadata::default() };
    let entries = [
        (entry(b"d", FileKind::Directory), vec![]),
        file(b"d/hello", b"hello\n"),
        (PackEntry { link: b"hello".to_vec(), metadata, ..entry(b"d/link", FileKind::Symlink) }, vec![]),
    ];
    pack(Packing::GzipTar, 1, &entries, 100)
}

#[test]
fn version_1_is_stable_byte_for_byte() {
    // A change here changes the format or the compressor: the same tree would no longer give the same digest.
    let (packed, blob) = golden();
    let (raw, _) = pack(Packing::Raw, 1, &[file(b"d/hello", b"hello\n")], 100);
    for (what, bytes, expected) in [
        ("layer", blob, include_str!("golden/layer.hex")),
        ("index", packed.index.as_bytes().to_vec(), include_str!("golden/index.hex")),
        ("index of a raw layer", raw.index.as_bytes().to_vec(), include_str!("golden/raw-index.hex")),
        ("attached index", encode_attached(&packed.index).unwrap(), include_str!("golden/attached_index.hex")),
    ] {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.split_whitespace().collect::<String>(), "{what}");
    }
    // Large enough to exercise all of the compressor; includes stored spans.
    let (packed, _) = pack(Packing::GzipTar, 2, &[file(b"text", &text(3_000_000, 1)), file(b"noise", &noise(2_000_000, 2))], 100_000);
    assert_eq!(packed.blob.0.to_string(), include_str!("golden/large.txt").trim());
}

#[test]
fn entries_that_no_tar_can_hold_are_refused_by_name() {
    let xattr = |name: &[u8], value: &[u8]| vec![(name.to_vec(), value.to_vec())];
    let plain = || entry(b"some/name", FileKind::File);
    let metadata = plain().metadata;
    let cases = [
        entry(b"some/name", FileKind::Socket),
        PackEntry { path: b"/some/name".to_vec(), ..plain() },
        PackEntry { path: b"some/name/..".to_vec(), ..plain() },
        PackEntry { path: [&b"some/name"[..], &[b'x'; 256]].concat(), ..plain() },
        PackEntry { path: b"some/name\0".to_vec(), ..plain() },
        PackEntry { metadata: Metadata { owner: Some((0, u32::MAX)), ..metadata }, ..plain() },
        PackEntry { metadata: Metadata { mtime: Some((0, 1_000_000_000)), ..metadata }, ..plain() },
        PackEntry { metadata: Metadata { mtime: Some((i64::MIN, 0)), ..metadata }, ..plain() },
        PackEntry { size: u64::MAX, ..plain() },
        PackEntry { kind: FileKind::Symlink, ..plain() },
        PackEntry { kind: FileKind::Symlink, link: vec![b'x'; 4096], ..plain() },
        PackEntry { kind: FileKind::Symlink, link: b"a\0".to_vec(), ..plain() },
        PackEntry { kind: FileKind::HardLink, link: b"../a".to_vec(), ..plain() },
        PackEntry { kind: FileKind::HardLink, ..plain() },
        PackEntry { kind: FileKind::CharDevice, metadata: Metadata { device: (0, 1 << 21), ..metadata }, ..plain() },
        PackEntry { xattrs: xattr(b"user.a", b""), ..plain() },
        PackEntry { xattrs: xattr(b"", b"x"), ..plain() },
        PackEntry { xattrs: xattr(b"user.a", &[0; 65_537]), ..plain() },
        PackEntry { xattrs: [xattr(b"user.b", b"x"), xattr(b"user.a", b"x")].concat(), ..plain() },
        PackEntry { xattrs: (0..1025).map(|at| (format!("user.{at:04}").into_bytes(), b"x".to_vec())).collect(), ..plain() },
        PackEntry { xattrs: (0..17).map(|at| (format!("user.{at:04}").into_bytes(), vec![1; 65_536])).collect(), ..plain() },
    ];
    for case in cases {
        let mut packer = Packer::new(Packing::Tar, 1, Box::new(Shared::default()));
        let error = packer.begin(&case).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{case:?}");
        assert!(error.message.contains("some/name"), "{error}");
        assert_eq!(case.check().unwrap_err().message, error.message);
    }
    let error = entry(b"", FileKind::File).check().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(plain().check().is_ok());
    let shown = entry(b"evil\x1b[2J\xff", FileKind::Socket).check().unwrap_err().message;
    assert!(shown.starts_with(r"`evil\x1b[2J\xff` cannot"), "{shown}");
}

#[test]
fn too_many_and_too_few_bytes_of_a_file_are_refused() {
    for packing in [Packing::GzipTar, Packing::Tar, Packing::Raw] {
        let begun = || {
            let mut packer = Packer::new(packing, 1, Box::new(Shared::default()));
            packer.begin(&PackEntry { size: 5, ..entry(b"name", FileKind::File) }).unwrap();
            packer.data(b"1234").unwrap();
            packer
        };
        let kinds = [
            begun().data(b"56").unwrap_err().kind,
            begun().begin(&entry(b"next", FileKind::File)).unwrap_err().kind,
            begun().finish().unwrap_err().kind,
        ];
        assert_eq!(kinds, [ErrorKind::Invalid; 3]);
        let mut empty = Packer::new(packing, 1, Box::new(Shared::default()));
        assert!(empty.data(b"x").is_err(), "bytes of no entry");
        assert_eq!(empty.finish().is_ok(), packing != Packing::Raw);
    }
    let mut raw = Packer::new(Packing::Raw, 1, Box::new(Shared::default()));
    assert_eq!(raw.begin(&entry(b"d", FileKind::Directory)).unwrap_err().kind, ErrorKind::Invalid);
    raw.begin(&entry(b"f", FileKind::File)).unwrap();
    assert_eq!(raw.begin(&entry(b"g", FileKind::File)).unwrap_err().kind, ErrorKind::Invalid);
}

/// An output that fails after this many bytes.
struct Failing(usize, io::ErrorKind, #[expect(dead_code, reason = "counts who still has it")] Shared);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(self.1)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.0 == 0 { Err(self.1.into()) } else { Ok(()) }
    }
}

#[test]
fn an_output_that_fails_when_it_is_flushed_is_an_error() {
    for length in [0, 3 << 20] {
        let data = noise(length, 1);
        let room = 512 + length + 1024;
        let mut packer = Packer::new(Packing::Tar, 2, Box::new(Failing(room, io::ErrorKind::Other, Shared::default())));
        packer.begin(&file(b"name", &data).0).unwrap();
        packer.data(&data).unwrap();
        assert_eq!(packer.finish().map(drop).unwrap_err().kind, ErrorKind::Other);
    }
}

#[test]
fn a_failing_output_is_reported_and_leaves_no_thread_behind() {
    for (room, length) in [(100, 3000), (2_000_000, 40_000_000), (2_000_000, 2_500_000)] {
        for packing in [Packing::GzipTar, Packing::Tar] {
            let witness = Shared::default();
            let output = Failing(room, io::ErrorKind::StorageFull, witness.clone());
            let mut packer = Packer::new(packing, 2, Box::new(output));
            let data = noise(length, 1);
            let fed = packer.begin(&file(b"big", &data).0).and_then(|()| data.chunks(65_536).try_for_each(|piece| packer.data(piece)));
            let error = match fed {
                Ok(()) => packer.finish().map(drop).unwrap_err(),
                Err(error) => {
                    drop(packer);
                    error
                }
            };
            assert_eq!(error.kind, ErrorKind::NoSpace, "{error} {room} {length}");
            assert_eq!(Arc::strong_count(&witness.0), 1, "the writer has ended");
        }
    }
}

#[test]
fn a_dropped_packer_leaves_no_thread_behind() {
    for fed in [0, 1000, 20 << 20] {
        let output = Shared::default();
        let mut packer = Packer::new(Packing::GzipTar, 3, Box::new(output.clone()));
        packer.begin(&PackEntry { size: 1 << 40, ..entry(b"big", FileKind::File) }).unwrap();
        packer.data(&vec![1; fed]).unwrap();
        drop(packer);
        assert_eq!(Arc::strong_count(&output.0), 1);
    }
}

/// An output that knows how much was handed in, and checks that only a bounded amount is in flight.
struct Bounded {
    fed: Arc<AtomicU64>,
    written: u64,
    most: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let waiting = self.fed.load(Ordering::SeqCst) - self.written;
        self.written += bytes.len() as u64;
        if waiting > self.most { Err(io::Error::other(format!("{waiting} bytes wait"))) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_more_than_a_few_spans_wait_for_the_output() {
    let (fed, workers) = (Arc::new(AtomicU64::new(0)), 2);
    let most = (2 * workers as u64 + 3) << 20;
    let mut packer = Packer::new(Packing::Tar, workers, Box::new(Bounded { fed: fed.clone(), written: 0, most }));
    packer.begin(&PackEntry { size: 200 << 20, ..entry(b"big", FileKind::File) }).unwrap();
    let piece = vec![0; 256 << 10];
    for _ in 0..800 {
        packer.data(&piece).unwrap();
        fed.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    fed.fetch_add(4096, Ordering::SeqCst);
    assert_eq!(packer.finish().unwrap().stream.1, (200 << 20) + 1536);
}

mod properties;
