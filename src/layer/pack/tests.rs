//! What is packed reads back as it was: by a scan, by span decoders, by other programs.

use std::io;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::layer::tests::{check_spans, noise, scan, text};
use crate::layer::{Form, Restart};

/// An output whose bytes can be looked at afterwards.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
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
        mode: if kind == FileKind::Directory { 0o755 } else { 0o644 },
        owner: (0, 0),
        mtime: (1_700_000_000, 0),
        size: 0,
        device: (0, 0),
        link: Vec::new(),
        xattrs: Vec::new(),
    }
}

pub(super) fn file(path: &[u8], data: &[u8]) -> (PackEntry, Vec<u8>) {
    (PackEntry { size: data.len() as u64, ..entry(path, FileKind::File) }, data.to_vec())
}

/// Packs and returns the blob too.
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

/// Compares with what a scan of the blob finds, and decodes each span alone.
fn check(packing: Packing, packed: &Packed, blob: &[u8]) -> Vec<u8> {
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
        (only.0.mode, only.0.owner, only.0.mtime) = (0o4711, (7, 8), (-2, 500_000_000));
        let (packed, blob) = pack(Packing::Raw, 2, &[only], 70_000);
        assert!(blob == data);
        check(Packing::Raw, &packed, &blob);
        let found = packed.index.entry(0).unwrap();
        assert_eq!((found.path, found.mode, found.uid, found.gid), (&b"sub/big.bin"[..], 0o4711, 7, 8));
        assert_eq!((found.mtime, found.mtime_nanoseconds, found.size), (-2, 500_000_000, length as u64));
        assert_eq!(found.sha256, Some(Sha256::digest(&data).into()));
        assert_eq!(packed.index.entry_count(), 1);
    }
}

#[test]
fn an_index_travels_and_arrives_as_it_was() {
    for packing in [Packing::GzipTar, Packing::Tar, Packing::Raw] {
        let (packed, _) = pack(packing, 2, &[file(b"a", &text(2_500_000, 1))], 100_000);
        let bytes = travelling(&packed.index).unwrap();
        let index = arrived(&bytes, &packed.blob.0).unwrap();
        assert!(index.as_bytes() == packed.index.as_bytes());
        assert!(arrived(&bytes, &Digest::of(b"another")).is_err());
    }
}
