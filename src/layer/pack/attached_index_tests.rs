//! Untrusted indexes: what is refused, and that nothing panics or grows.

use proptest::prelude::*;
use zerocopy::FromBytes;

use super::*;
use crate::error::ErrorKind;
use crate::layer::format::{self, EntryRecord, Header, SpanRecord, XattrRecord};
use crate::layer::pack::tests::{entry as entry_of, file, pack};
use crate::layer::tests::{decode_attached, encode_attached, scan, text};
use crate::layer::{Form, PackEntry, Packing};

/// An index with two spans, entries with links and attributes.
fn sample() -> LayerIndex {
    let xattrs = vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), b"2".to_vec())];
    let entries = [
        (PackEntry { xattrs, ..entry_of(b"d", FileKind::Directory) }, vec![]),
        file(b"d/file", &text(1_500_000, 4)),
        (PackEntry { link: b"d/file".to_vec(), ..entry_of(b"d/symlink", FileKind::Symlink) }, vec![]),
        (PackEntry { link: b"d/file".to_vec(), ..entry_of(b"d/link", FileKind::HardLink) }, vec![]),
    ];
    pack(Packing::GzipTar, 1, &entries, 100_000).0.index
}

type Records<'a> = (&'a mut Header, &'a mut [EntryRecord], &'a mut [SpanRecord], &'a mut [XattrRecord]);

/// The same index with some records changed and a matching checksum.
fn with_records(index: &LayerIndex, change: impl FnOnce(Records<'_>)) -> Vec<u8> {
    changed(index, |bytes| {
        let (header, rest) = Header::mut_from_prefix(bytes).unwrap();
        let (entries, rest) = <[EntryRecord]>::mut_from_prefix_with_elems(rest, header.entries.get() as usize).unwrap();
        let (spans, rest) = <[SpanRecord]>::mut_from_prefix_with_elems(rest, header.spans.get() as usize).unwrap();
        assert_eq!(header.extents, 0);
        let (xattrs, _) = <[XattrRecord]>::mut_from_prefix_with_elems(rest, header.xattrs.get() as usize).unwrap();
        change((header, entries, spans, xattrs));
    })
}

/// The same index with some bytes changed and a matching checksum.
fn changed(index: &LayerIndex, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = index.as_bytes().to_vec();
    change(&mut bytes);
    let checksum = format::checksum(&bytes);
    Header::mut_from_prefix(&mut bytes).unwrap().0.checksum = checksum.into();
    compress(&bytes, &Scratch::memory()).unwrap().to_vec()
}

#[test]
fn any_zstd_tool_opens_it() {
    let index = sample();
    let bytes = encode_attached(&index).unwrap();
    assert!(zstd::decode_all(&bytes[..]).unwrap() == index.as_bytes());
    assert!(bytes == encode_attached(&index).unwrap());
}

#[test]
fn truncated_flipped_and_extended_indexes_are_refused() {
    let index = sample();
    let bytes = encode_attached(&index).unwrap();
    for length in 0..bytes.len() {
        assert_eq!(decode_attached(&bytes[..length], &index.blob_digest()).unwrap_err().kind, ErrorKind::Integrity, "{length}");
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        match decode_attached(&flipped, &index.blob_digest()) {
            // The window that the frame requests may differ.
            Ok(same) => assert!(same.as_bytes() == index.as_bytes(), "{at}"),
            Err(error) => assert_eq!(error.kind, if at == 15 { ErrorKind::Unsupported } else { ErrorKind::Integrity }, "{at}"),
        }
    }
    for tail in [&b"x"[..], &bytes[16..], &bytes] {
        assert_eq!(decode_attached(&[&bytes, tail].concat(), &index.blob_digest()).unwrap_err().kind, ErrorKind::Integrity);
    }
}

#[test]
fn newer_versions_and_indexes_of_other_blobs_are_named() {
    let index = sample();
    let newer = with_records(&index, |(header, ..)| header.version = 2.into());
    assert_eq!(decode_attached(&newer, &index.blob_digest()).unwrap_err().kind, ErrorKind::Unsupported);
    let error = decode_attached(&encode_attached(&index).unwrap(), &Digest::of(b"other")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity);
    assert!(error.message.contains(&index.blob_digest().to_string()), "{error}");
}

#[test]
fn decompression_stops_at_the_size_limit() {
    let bomb = compress(&vec![0; 10 << 20], &Scratch::memory()).unwrap();
    assert!(bomb.len() < 2000);
    assert!(decompress(&bomb[16..], WINDOW_LOG, 1 << 20, &Scratch::memory()).unwrap_err().contains("larger"));
    assert!(decompress(&bomb[16..], WINDOW_LOG, 10 << 20, &Scratch::memory()).is_ok());
    // A window that readers do not support, whatever the content.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&vec![0; 20 << 20]).unwrap();
    assert!(decompress(&encoder.finish().unwrap(), WINDOW_LOG, 30 << 20, &Scratch::memory()).is_err());
}

#[test]
fn records_that_share_or_lack_something_are_refused() {
    let index = sample();
    type Change = fn(Records<'_>);
    let cases: [(&str, Change); 9] = [
        ("two entries share a name", |(_, entries, ..)| entries[2].path = entries[1].path),
        ("an entry borrows attributes", |(_, entries, ..)| entries[1].xattr_count = 1.into()),
        ("attributes belong to no entry", |(_, entries, ..)| entries[0].xattr_count = 1.into()),
        ("a name is used twice", |(_, entries, ..)| entries[1].path -= 1),
        ("a span has no digest", |(_, _, spans, _)| spans[0].has_digest = 0),
        ("digests are of the content", |(header, ..)| header.flags |= 2),
        ("an attribute has no value", |(.., xattrs)| xattrs[0].value_length = 0.into()),
        ("a raw layer has many entries", |(header, ..)| header.flags = 0.into()),
        ("a span takes too much of the blob", |(header, _, spans, _)| {
            header.blob_length += 9 << 20;
            spans[1].blob_end += 9 << 20;
        }),
    ];
    for (what, change) in cases {
        let bytes = with_records(&index, change);
        assert_eq!(decode_attached(&bytes, &index.blob_digest()).map(drop).expect_err(what).kind, ErrorKind::Integrity, "{what}");
    }
    assert!(decode_attached(&changed(&index, |_| ()), &index.blob_digest()).is_ok());
}

#[test]
fn windows_are_attached_and_warnings_are_stripped() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut archive = tar::Builder::new(Vec::new());
    let mut head = tar::Header::new_ustar();
    head.set_size(2_000_000);
    archive.append_data(&mut head, "a", &text(2_000_000, 1)[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    encoder.write_all(&archive).unwrap();
    let windows = scan(Form::Archive, &encoder.finish().unwrap()).unwrap().0;
    let travelled = decode_attached(&encode_attached(&windows).unwrap(), &windows.blob_digest()).unwrap();
    assert!(travelled.as_bytes() == windows.as_bytes() && !travelled.window(1).unwrap().is_empty());
    // No two spans share a window, so all windows together are shorter than the index.
    let shared = with_records(&windows, |(_, _, spans, _)| spans[1].window += 1);
    assert_eq!(decode_attached(&shared, &windows.blob_digest()).unwrap_err().kind, ErrorKind::Integrity);

    let mut odd = tar::Header::new_ustar();
    odd.set_entry_type(tar::EntryType::new(b'V'));
    odd.set_path("volume").unwrap();
    odd.set_size(0);
    odd.set_cksum();
    let labelled = [&archive[..archive.len() - 1024], odd.as_bytes(), &[0; 1024]].concat();
    let warned = scan(Form::Archive, &labelled).unwrap().0;
    assert_eq!(warned.warnings().len(), 1);
    let decode_attached = decode_attached(&encode_attached(&warned).unwrap(), &warned.blob_digest()).unwrap();
    assert!(decode_attached.warnings().is_empty());
    assert_eq!(format!("{:?}", decode_attached.entry(0)), format!("{:?}", warned.entry(0)));
    assert_eq!((decode_attached.span_count(), decode_attached.span(1)), (warned.span_count(), warned.span(1)));
    let other = warned.of_blob(Digest::of(b"sealed")).unwrap();
    assert_eq!((other.blob_digest(), other.warnings()), (Digest::of(b"sealed"), warned.warnings()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn an_accepted_index_costs_no_more_than_its_length(changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![0_u8, 1, 2, 7, 8, 0x7f, 0x80, 0xff])), 1..4)) {
        static SAMPLE: std::sync::LazyLock<LayerIndex> = std::sync::LazyLock::new(sample);
        let range = size_of::<Header>() + 4 * size_of::<EntryRecord>() + 2 * size_of::<SpanRecord>() + 2 * size_of::<XattrRecord>();
        let bytes = changed(&SAMPLE, |bytes| changes.into_iter().for_each(|(at, value)| bytes[40 + at.index(range - 40)] = value));
        if let Ok(index) = decode_attached(&bytes, &SAMPLE.blob_digest()) {
            let held: usize = index
                .entries()
                .map(|entry| {
                    let xattrs: usize = index.xattrs(entry.number).iter().map(|(name, value)| name.len() + value.len()).sum();
                    entry.path.len() + entry.link.len() + xattrs + index.extents(entry.number).len()
                })
                .sum();
            prop_assert!(held <= index.as_bytes().len());
        }
    }
}
