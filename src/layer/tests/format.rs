//! The bytes of an index: their values, and the handling of invalid ones.

use std::sync::Arc;

use proptest::prelude::*;
use zerocopy::FromBytes;

use super::*;
use crate::layer::format::{self, EntryRecord, Header, SpanRecord, VERSION};

/// A gzipped archive with one entry of each sort, so that the index has records in all sections.
fn sample() -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.user.a", &b"value"[..]), ("mtime", b"-1.5")]).unwrap();
    let mut head = ::tar::Header::new_ustar();
    head.set_size(2_000_000);
    head.set_mode(0o4755);
    head.set_uid(1);
    head.set_gid(2);
    builder.append_data(&mut head, "dir/file", &text(2_000_000, 5)[..]).unwrap();
    builder.append_pax_extensions([("GNU.sparse.size", &b"100"[..]), ("GNU.sparse.map", b"10,1")]).unwrap();
    head.set_size(1);
    builder.append_data(&mut head, "sparse", &b"x"[..]).unwrap();
    head.set_size(0);
    head.set_entry_type(::tar::EntryType::Char);
    head.set_device_major(1).unwrap();
    head.set_device_minor(3).unwrap();
    builder.append_data(&mut head, "null", &b""[..]).unwrap();
    builder.append_pax_extensions([("uid", &b"x"[..])]).unwrap();
    head.set_entry_type(::tar::EntryType::Symlink);
    builder.append_link(&mut head, "link", "target").unwrap();
    gzip(&builder.into_inner().unwrap())
}

fn sample_index() -> LayerIndex {
    let blob = sample();
    scan_with(Form::Archive, [&blob], Digest::of(b"fixed")).unwrap().0
}

fn open(bytes: &[u8]) -> Result<LayerIndex, Error> {
    LayerIndex::open(Arc::new(bytes.to_vec()))
}

/// Calls every accessor.
fn read_all(index: &LayerIndex) {
    for entry in index.entries() {
        assert!(entry.metadata.mode.unwrap() <= 0o7777);
        let mut position = 0;
        for extent in index.extents(entry.number) {
            assert!(extent.file >= position && extent.stream + extent.length <= index.stream_length());
            position = extent.file + extent.length;
        }
        assert!(position <= entry.size);
        let _ = index.xattrs(entry.number);
    }
    for number in 0..index.span_count() {
        let span = index.span(number).unwrap();
        assert_eq!(index.spans_of(span.stream.clone()), number..number + 1);
        assert_ne!(index.span(index.restart_for(number)).unwrap().restart, Restart::No);
        if let Ok(mut decoder) = SpanDecoder::new(index, number, &Resources::default().windows) {
            let mut out = Vec::new();
            let _ = decoder.decode(&[0x55; 100], &mut out, 1000);
            assert!(out.len() <= 1000);
        }
    }
    let _ = (
        index.warnings(),
        index.members().count(),
        index.spans_of(0..u64::MAX),
        index.entry(u32::MAX),
        index.span(u32::MAX),
        index.restart_for(u32::MAX),
    );
}

#[test]
fn version_1_is_stable_byte_for_byte() {
    // An empty file in a plain archive: header, one entry, one span, one string. If this changes, VERSION must too.
    let mut head = ::tar::Header::new_ustar();
    head.set_size(0);
    head.set_mode(0o640);
    head.set_mtime(0x0102_0304);
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.append_data(&mut head, "a/b", &b""[..]).unwrap();
    let (index, _) = scan_with(Form::Archive, [builder.into_inner().unwrap()], Digest::of(b"fixed")).unwrap();
    let hex: String = index.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(VERSION, 1);
    assert_eq!(hex, include_str!("golden-1.hex").split_whitespace().collect::<String>());
}

#[test]
fn an_index_with_all_sections_reads_back() {
    let index = sample_index();
    assert_eq!((index.entry_count(), index.codec(), index.blob_digest()), (4, Codec::Gzip, Digest::of(b"fixed")));
    let file = index.entry(0).unwrap();
    assert_eq!((file.path, file.metadata.mode, file.metadata.mtime), (&b"dir/file"[..], Some(0o4755), Some((-2, 500_000_000))));
    assert_eq!(index.xattrs(0), [(&b"user.a"[..], &b"value"[..])]);
    assert_eq!(index.extents(1).iter().map(|extent| (extent.file, extent.length)).collect::<Vec<_>>(), [(10, 1)]);
    assert_eq!(index.entry(2).unwrap().metadata.device, (1, 3));
    assert_eq!(index.entry(3).unwrap().link, b"target");
    assert_eq!(index.warnings().len(), 1);
    assert!(index.span_count() > 1);
    read_all(&index);
    let again = open(index.as_bytes()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{index:?}"));
}

#[test]
fn a_truncated_or_flipped_index_is_refused_and_another_version_is_named() {
    let index = sample_index();
    let bytes = index.as_bytes();
    for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        assert_eq!(open(&bytes[..length]).unwrap_err().kind, ErrorKind::Integrity);
    }
    for at in (0..bytes.len()).step_by(3).chain(0..size_of::<Header>()).filter(|at| !(8..16).contains(at)) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x10;
        assert_eq!(open(&flipped).unwrap_err().kind, ErrorKind::Integrity, "{at}");
    }
    let mut newer = bytes.to_vec();
    newer[8] = 2;
    assert_eq!(open(&newer).unwrap_err().kind, ErrorKind::Unsupported);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_crafted_index_is_refused_or_reads_without_a_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![0_u8, 1, 2, 7, 8, 0x7f, 0x80, 0xff])), 1..5), near in any::<bool>()) {
        static SAMPLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| sample_index().as_bytes().to_vec());
        let mut bytes = SAMPLE.clone();
        // Mostly in the records, where a change has a meaning.
        let range = if near { size_of::<Header>() + 4 * size_of::<EntryRecord>() + 3 * size_of::<SpanRecord>() } else { bytes.len() };
        for (at, value) in changes {
            bytes[at.index(range)] = value;
        }
        let checksum = format::checksum(&bytes);
        Header::mut_from_prefix(&mut bytes).unwrap().0.checksum = checksum.into();
        if let Ok(index) = open(&bytes) {
            read_all(&index);
        }
    }
}
