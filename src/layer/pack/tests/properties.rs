//! Properties: any entry reads back unchanged, workers and piece sizes make no difference, other readers agree.

use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::layer::owned_xattrs;

fn component() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = prop::collection::vec(any::<u8>().prop_map(|byte| if matches!(byte, 0 | b'/') { b'x' } else { byte }), 1..255);
    prop_oneof!["[a-zA-Z0-9._ -]{1,20}".prop_map(String::into_bytes), "\\PC{1,40}".prop_map(String::into_bytes), any_bytes]
        .prop_map(|name| name.into_iter().filter(|byte| !matches!(byte, 0 | b'/')).take(255).collect::<Vec<u8>>())
        .prop_map(|name| if matches!(&name[..], b"" | b"." | b"..") { b"dots".to_vec() } else { name })
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => prop::collection::vec(component(), 1..4), 1 => prop::collection::vec(component(), 4..30)]
        .prop_map(|parts| parts.join(&b'/'))
}

fn attributes() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let name = prop_oneof!["user\\.[a-z=%]{1,10}".prop_map(String::into_bytes), prop::collection::vec(1..255_u8, 1..30)];
    let value = prop::collection::vec(any::<u8>(), 1..200);
    prop::collection::btree_map(name, value, 0..4).prop_map(|map| map.into_iter().collect())
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..2000_usize, any::<u64>()).prop_map(|(length, seed)| text(length, seed)),
        1 => (0..2_200_000_usize, any::<u64>()).prop_map(|(length, seed)| text(length, seed)),
        1 => (0..1_500_000_usize, any::<u64>()).prop_map(|(length, seed)| noise(length, seed)),
        1 => (1_040_000..1_050_000_usize).prop_map(|length| vec![0; length]),
        // The layer ends near a span boundary.
        1 => (1_046_000..1_049_600_usize, any::<u64>()).prop_map(|(length, seed)| text(length, seed)),
    ]
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..2000_u32, 0..u32::MAX, Just(0x1f_ffff), Just(0x20_0000)]
}

fn time() -> impl Strategy<Value = (i64, u32)> {
    let seconds = prop_oneof![0..2_000_000_000_i64, -2_000_000_000..0_i64, any::<i64>(), Just(0o77_777_777_777), Just(0o100_000_000_000)];
    (seconds, prop_oneof![Just(0), 0..1_000_000_000_u32, Just(500_000_000)])
        .prop_map(|(seconds, nanoseconds)| (seconds.max(i64::MIN + 1), nanoseconds))
}

fn kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        4 => Just(FileKind::File),
        1 => Just(FileKind::Directory),
        1 => Just(FileKind::Symlink),
        1 => Just(FileKind::HardLink),
        1 => Just(FileKind::CharDevice),
        1 => Just(FileKind::BlockDevice),
        1 => Just(FileKind::Fifo),
    ]
}

fn any_entry() -> impl Strategy<Value = (PackEntry, Vec<u8>)> {
    let target = prop_oneof![path(), Just(b"/etc/passwd".to_vec()), Just(b"../../x".to_vec())];
    (
        path(),
        kind(),
        0..0o10000_u32,
        (number(), number()),
        time(),
        content(),
        (0..0x20_0000_u32, 0..0x20_0000_u32),
        (path(), target),
        attributes(),
    )
        .prop_map(|(path, kind, mode, owner, mtime, content, device, (name, target), xattrs)| {
            let device = if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) { device } else { (0, 0) };
            let content = if kind == FileKind::File { content } else { Vec::new() };
            let link = match kind {
                FileKind::Symlink => target.into_iter().take(4095).collect(),
                FileKind::HardLink => name,
                _ => Vec::new(),
            };
            let metadata = Metadata { mode: Some(mode), owner: Some(owner), mtime: Some(mtime), device };
            (PackEntry { path, kind, metadata, size: content.len() as u64, link, xattrs }, content)
        })
}

fn read_back(index: &LayerIndex, number: u32) -> PackEntry {
    let entry = index.entry(number).unwrap();
    let xattrs = owned_xattrs(index.xattrs(number));
    PackEntry {
        path: entry.path.to_vec(),
        kind: entry.kind,
        metadata: entry.metadata,
        size: if entry.kind == FileKind::File { entry.size } else { 0 },
        link: entry.link.to_vec(),
        xattrs,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_entries_read_back_as_they_were_given(entries in prop::collection::vec(any_entry(), 0..6), packing in prop::sample::select(vec![Packing::GzipTar, Packing::Tar]), workers in 1..4_usize, piece in 1000..300_000_usize) {
        let (packed, blob) = pack(packing, workers, &entries, piece);
        let stream = check(packing, &packed, &blob);
        prop_assert_eq!(packed.index.entry_count() as usize, entries.len());
        for (number, (entry, content)) in entries.iter().enumerate() {
            let mut found = read_back(&packed.index, number as u32);
            found.xattrs.sort();
            prop_assert_eq!(&found, entry);
            if entry.kind == FileKind::File {
                prop_assert_eq!(packed.index.entry(number as u32).unwrap().sha256, Some(Sha256::digest(content).into()));
            }
        }
        let (again, other) = pack(packing, 4 - workers, &entries, 70_001);
        prop_assert!(blob == other);
        prop_assert!(packed.index.as_bytes() == again.index.as_bytes());
        if packing == Packing::GzipTar {
            let mut plain = Vec::new();
            flate2::bufread::GzDecoder::new(&blob[..]).read_to_end(&mut plain).unwrap();
            prop_assert!(plain == stream, "one member, to its end");
        }
        let mut archive = ::tar::Archive::new(&stream[..]);
        let mut seen = 0;
        for (read, (entry, content)) in archive.entries().unwrap().zip(&entries) {
            let mut read = read.unwrap();
            let name = read.path_bytes().into_owned();
            let link = read.link_name_bytes().unwrap_or_default().into_owned();
            // That crate ends every record at its first newline.
            if !entry.path.contains(&b'\n') {
                prop_assert_eq!(name.strip_suffix(b"/").unwrap_or(&name), &entry.path[..]);
            }
            if !entry.link.contains(&b'\n') {
                prop_assert_eq!(&link, &entry.link);
            }
            let mut data = Vec::new();
            read.read_to_end(&mut data).unwrap();
            prop_assert!(data == *content);
            seen += 1;
        }
        prop_assert_eq!(seen, entries.len());
        let tail = stream.len() - 1024;
        prop_assert!(stream[tail..].iter().all(|byte| *byte == 0));
    }
}
