//! Single headers and whole archives of every dialect, built byte by byte.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind};
use crate::layer::{FileKind, Form, LayerIndex, Limits, MEMBER_MINIMUM, Metadata, Resources, Scan, SpanSink};
use crate::oci::Digest;

/// Collects the stream.
#[derive(Default)]
struct Stream(Vec<u8>);

impl SpanSink for Stream {
    fn member(&mut self, _: Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    fn span(&mut self, _: u32, _: Range<u64>, data: &[u8]) -> Result<(), Error> {
        self.0.extend_from_slice(data);
        Ok(())
    }
}

/// Scans an archive, also in pieces, which must make no difference.
fn scan(archive: &[u8]) -> Result<LayerIndex, Error> {
    let run = |piece: usize| {
        let (mut scan, mut sink) = (Scan::new(Form::Archive, &Resources::default()), Stream::default());
        for piece in archive.chunks(piece) {
            scan.push(piece, &mut sink)?;
        }
        scan.finish(Digest::of(archive), &mut sink)
    };
    let whole = run(usize::MAX);
    for piece in [1, 511, 700] {
        match (&whole, run(piece)) {
            (Ok(whole), Ok(pieces)) => assert_eq!(whole.as_bytes(), pieces.as_bytes()),
            (Err(whole), Err(pieces)) => assert_eq!(whole.message, pieces.message),
            (whole, pieces) => panic!("{whole:?} whole, {pieces:?} in pieces of {piece}"),
        }
    }
    whole
}

/// A header under construction.
#[derive(Clone)]
struct Head([u8; 512]);

impl Head {
    fn new(name: &[u8], type_flag: u8, size: u64) -> Self {
        let mut head = Self([0; 512]);
        head.put(0, name).put(100, b"0000644\0").put(108, b"0000001\0").put(116, b"0000002\0");
        head.put(124, format!("{size:011o}\0").as_bytes()).put(136, b"00000000012\0").put(156, &[type_flag]).put(257, b"ustar\x0000");
        head
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn gnu(&mut self) -> &mut Self {
        self.put(257, b"ustar  \0")
    }

    fn link(&mut self, target: &[u8]) -> &mut Self {
        self.put(157, target)
    }

    fn sealed(&self) -> [u8; 512] {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

/// A header and its content.
fn item(head: &Head, data: &[u8]) -> Vec<u8> {
    [&head.sealed()[..], &padded(data)].concat()
}

fn file(name: &[u8], data: &[u8]) -> Vec<u8> {
    item(&Head::new(name, b'0', data.len() as u64), data)
}

fn extended(type_flag: u8, records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length += 1;
        }
        text.extend_from_slice(format!("{length} {key}=").as_bytes());
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    item(&Head::new(b"PaxHeaders/x", type_flag, text.len() as u64), &text)
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    extended(b'x', records)
}

fn archive(items: &[Vec<u8>]) -> Vec<u8> {
    [items.concat(), vec![0; 1024]].concat()
}

/// Reads a file's content back through its extents.
fn content(index: &LayerIndex, number: u32, stream: &[u8]) -> Vec<u8> {
    let mut data = vec![0; index.entry(number).unwrap().size as usize];
    for extent in index.extents(number) {
        data[extent.file as usize..(extent.file + extent.length) as usize]
            .copy_from_slice(&stream[extent.stream as usize..(extent.stream + extent.length) as usize]);
    }
    data
}

/// Scans a valid archive, and checks each hash against the content.
fn read(archive: &[u8]) -> LayerIndex {
    let index = scan(archive).unwrap();
    for entry in index.entries() {
        if let Some(sha256) = entry.sha256 {
            assert_eq!(sha256, <[u8; 32]>::from(Sha256::digest(content(&index, entry.number, archive))), "{entry:?}");
        }
        if entry.kind == FileKind::File {
            assert!(entry.sha256.is_some(), "{entry:?}");
        }
    }
    index
}

fn paths(index: &LayerIndex) -> Vec<String> {
    index.entries().map(|entry| String::from_utf8_lossy(entry.path).into_owned()).collect()
}

#[test]
fn old_and_new_headers_yield_types_names_and_attributes() {
    let mut directory = Head::new(b"dir/", 0, 0);
    directory.put(257, &[0; 8]);
    let mut prefixed = Head::new(b"name", b'0', 1);
    prefixed.put(345, b"some/prefix");
    let mut star = Head::new(b"name", b'0', 0);
    star.put(345, &[b'p'; 131]).put(476, b"12345670123 12345670123 ").put(508, b"tar\0");
    let mut gnu = Head::new(b"gnu", b'0', 0);
    gnu.gnu().put(345, b"12345670123 12345670123 ");
    let mut device = Head::new(b"null", b'3', 0);
    device.put(329, b"0000001\0").put(337, b"0000003\0");
    let mut block = Head::new(b"sda", b'4', 0);
    block.put(329, b"0000010\0");
    let index = read(&archive(&[
        item(&directory, b""),
        item(&prefixed, b"x"),
        item(&star, b""),
        item(&gnu, b""),
        item(&device, b""),
        item(&block, b""),
        item(&Head::new(b"fifo", b'6', 0), b""),
        item(Head::new(b"sym", b'2', 0).link(b"../../etc/passwd"), b""),
        item(Head::new(b"hard", b'1', 0).link(b"/dir/../some/./prefix/name"), b""),
        item(&Head::new(b"./", b'5', 0), b""),
        item(&Head::new(b"contiguous", b'7', 2), b"ab"),
    ]));
    let star_path = format!("{}/name", "p".repeat(131));
    assert_eq!(paths(&index), ["dir", "some/prefix/name", &star_path, "gnu", "null", "sda", "fifo", "sym", "hard", "", "contiguous"]);
    use FileKind::*;
    assert_eq!(
        index.entries().map(|entry| entry.kind).collect::<Vec<_>>(),
        [Directory, File, File, File, CharDevice, BlockDevice, Fifo, Symlink, HardLink, Directory, File]
    );
    let entry = |number| index.entry(number).unwrap();
    let device = |number| entry(number).metadata.device;
    assert_eq!(entry(1).metadata, Metadata { mode: Some(0o644), owner: Some((1, 2)), mtime: Some((10, 0)), device: (0, 0) });
    assert_eq!((device(4), device(5)), ((1, 3), (8, 0)));
    assert_eq!((entry(7).link, entry(7).size), (&b"../../etc/passwd"[..], 16));
    assert_eq!(entry(8).link, b"some/prefix/name");
    assert!(index.warnings().is_empty(), "{:?}", index.warnings());
}

#[test]
fn long_names_come_from_gnu_headers_and_records_and_the_gnu_ones_win() {
    let long = vec![b'l'; 200];
    let deep = [&b"a/".repeat(3000)[..], b"end"].concat();
    let gnu_name =
        |type_flag, name: &[u8]| item(Head::new(b"././@LongLink", type_flag, name.len() as u64 + 1).gnu(), &[name, b"\0"].concat());
    let index = read(&archive(&[
        gnu_name(b'L', &long),
        gnu_name(b'K', &deep),
        item(Head::new(b"short", b'2', 0).link(b"cut"), b""),
        pax(&[("path", &deep), ("linkpath", b"\xff\xfe")]),
        item(Head::new(b"short", b'1', 0).link(b"cut"), b""),
        pax(&[("path", b"record"), ("linkpath", b"target")]),
        gnu_name(b'L', b"gnu"),
        item(Head::new(b"short", b'2', 0).link(b"cut"), b""),
        file(b"plain", b""),
    ]));
    // A link of 6,003 bytes cannot be read back, so that entry is skipped.
    assert_eq!(paths(&index), [String::from_utf8(deep).unwrap(), "gnu".into(), "plain".into()]);
    assert_eq!((index.entry(0).unwrap().link, index.entry(1).unwrap().link), (&b"\xff\xfe"[..], &b"target"[..]));
    assert_eq!(index.warnings().len(), 1);
}

#[test]
fn records_override_the_header_and_global_records_only_fill_gaps() {
    let index = read(&archive(&[
        extended(b'g', &[("uid", b"100"), ("mtime", b"5.25"), ("SCHILY.xattr.user.global", b"x"), ("comment", b"0123")]),
        file(b"a", b"1"),
        pax(&[
            ("uid", b"3000000000"),
            ("gid", b"7"),
            ("size", b"2"),
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.user.own", b"\0=\n"),
            ("LIBARCHIVE.xattr.user.enc", b"aGVq"),
        ]),
        [&Head::new(b"b", b'0', 0).sealed()[..], &padded(b"22")].concat(),
        extended(b'g', &[("uid", b"")]),
        file(b"c", b"3"),
    ]));
    let entries: Vec<_> = index.entries().collect();
    assert_eq!(
        entries.iter().map(|entry| (entry.metadata.owner.unwrap(), entry.metadata.mtime.unwrap(), entry.size)).collect::<Vec<_>>(),
        [((100, 2), (5, 250_000_000), 1), ((3_000_000_000, 7), (-2, 500_000_000), 2), ((1, 2), (5, 250_000_000), 1)]
    );
    assert_eq!(index.xattrs(0), []);
    assert_eq!(index.xattrs(1), [(&b"user.own"[..], &b"\0=\n"[..]), (b"user.enc", b"hej")]);
    assert_eq!(index.xattrs(2), []);
}

#[test]
fn sparse_files_of_every_format_have_holes() {
    let data = [vec![1; 512], vec![2; 300]].concat();
    let expected = [vec![0; 1024], vec![1; 512], vec![0; 464], vec![2; 300], vec![0; 700]].concat();
    let stored = data.len() as u64;
    let mut old = Head::new(b"old", b'S', stored);
    old.gnu().put(386, b"00000002000\x0000000001000\x0000000003720\x0000000000454\x00").put(483, b"00000005670\0");
    let mut long = Head::new(b"long", b'S', stored);
    long.gnu().put(386, b"00000002000\x0000000001000\x00").put(482, &[1]).put(483, b"00000005670\0");
    let mut extension = [0; 512];
    extension[..24].copy_from_slice(b"00000003720\x0000000000454\x00");
    let formats = [
        item(&old, &data),
        [&long.sealed()[..], &extension, &padded(&data)].concat(),
        [
            pax(&[
                ("GNU.sparse.size", b"3000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"1024"),
                ("GNU.sparse.numbytes", b"512"),
                ("GNU.sparse.offset", b"2000"),
                ("GNU.sparse.numbytes", b"300"),
            ]),
            file(b"zero", &data),
        ]
        .concat(),
        [
            pax(&[("GNU.sparse.name", b"one"), ("GNU.sparse.size", b"3000"), ("GNU.sparse.map", b"1024,512,2000,300,3000,0")]),
            file(b"GNUSparseFile.0/x", &data),
        ]
        .concat(),
        [
            pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", b"two"), ("GNU.sparse.realsize", b"3000")]),
            file(b"GNUSparseFile.0/y", &[padded(b"3\n1024\n512\n2000\n300\n3000\n0\n"), data.clone()].concat()),
        ]
        .concat(),
    ];
    let bytes = archive(&[&formats[..], &[file(b"after", b"x")]].concat());
    let index = read(&bytes);
    assert_eq!(paths(&index), ["old", "long", "zero", "one", "two", "after"]);
    for number in 0..5 {
        assert_eq!((index.entry(number).unwrap().size, index.extents(number).len()), (3000, 2));
        assert!(content(&index, number, &bytes) == expected, "{number}");
    }
}

#[test]
fn a_sparse_file_of_enormous_holes_costs_nothing_and_is_not_hashed() {
    let huge = i64::MAX.to_string();
    let one = archive(&[pax(&[("GNU.sparse.size", huge.as_bytes()), ("GNU.sparse.map", b"5,1")]), file(b"huge", b"x")]);
    let index = scan(&one).unwrap();
    let entry = index.entry(0).unwrap();
    assert_eq!((entry.size, entry.sha256, index.extents(0).len()), (i64::MAX as u64, None, 1));
    let many: Vec<_> =
        (0..40).flat_map(|_| [pax(&[("GNU.sparse.size", b"60000000"), ("GNU.sparse.map", b"0,1")]), file(b"many", b"x")]).collect();
    let index = scan(&archive(&many)).unwrap();
    let hashed = index.entries().filter(|entry| entry.sha256.is_some()).count();
    assert_eq!(hashed, 4, "a budget for the whole pass");
}

#[test]
fn hard_links_may_carry_the_content_or_only_its_size() {
    let bytes = archive(&[
        file(b"a", b"content"),
        item(Head::new(b"sized", b'1', 7).link(b"a"), b""),
        item(Head::new(b"carried", b'1', 7).link(b"a"), b"content"),
        item(Head::new(b"large", b'1', 600).link(b"a"), &[b'x'; 600]),
        item(Head::new(b"last", b'1', 7).link(b"a"), b""),
    ]);
    let index = read(&bytes);
    assert_eq!(paths(&index), ["a", "sized", "carried", "large", "last"]);
    assert_eq!(
        index.entries().map(|entry| (entry.size, entry.sha256.is_some())).collect::<Vec<_>>(),
        [(7, true), (0, false), (7, true), (600, true), (0, false)]
    );
    assert_eq!(content(&index, 2, &bytes), b"content");
    // Without an end marker the last link also ends the archive.
    assert_eq!(read(&bytes[..bytes.len() - 1024]).entry_count(), 5);
}

#[test]
fn a_bad_value_costs_only_that_value() {
    let mut odd = Head::new(b"odd", b'0', 1);
    odd.put(100, b"rw-r--r-").put(108, b"-1\0\0\0\0\0\0").put(116, &[0xff; 8]).put(136, b"never\0\0\0\0\0\0\0");
    let index = read(&archive(&[
        item(&odd, b"x"),
        pax(&[("uid", b"-5"), ("mtime", b"99999999999999999999"), ("LIBARCHIVE.xattr.user.x", b"!!!"), ("SCHILY.xattr.", b"x")]),
        file(b"pax", b"x"),
        item(Head::new(b"device", b'3', 0).put(329, &[0xff; 8]), b""),
        item(&Head::new(b"vendor", b'Z', 1), b"x"),
    ]));
    let entries: Vec<_> = index.entries().collect();
    assert_eq!(entries.len(), 4);
    assert_eq!(entries[0].metadata, Metadata { mode: Some(0o644), owner: Some((65_534, 65_534)), mtime: Some((0, 0)), device: (0, 0) });
    assert_eq!((entries[1].metadata.owner.unwrap().0, entries[1].metadata.mtime, index.xattrs(1).len()), (1, Some((10, 0)), 0));
    assert_eq!((entries[2].metadata.device, entries[3].kind), ((0, 0), FileKind::File));
    assert_eq!(index.warnings().len(), 10, "{:#?}", index.warnings());
}

#[test]
fn an_invalid_name_is_replaced_and_an_entry_without_a_name_is_dropped() {
    let long = vec![b'x'; 256];
    let index = read(&archive(&[
        [pax(&[("path", b"a\0b")]), file(b"nul", b"data")].concat(),
        [pax(&[("path", &long)]), file(b"long", &[7; 2000])].concat(),
        file(b"/", b"root is no file"),
        item(&Head::new(b"nowhere", b'2', 0), b""),
        item(Head::new(b"root", b'1', 0).link(b"/"), b""),
        [pax(&[("linkpath", b"a\0b")]), item(&Head::new(b"link", b'2', 0), b"")].concat(),
        file(b"../../../escape", b"x"),
        file(b"/absolute", b"x"),
    ]));
    let safe = |name: &[u8]| String::from_utf8(super::path::safe_name(name)).unwrap();
    assert_eq!(paths(&index), [safe(b"a\0b"), safe(&long), "escape".into(), "absolute".into()]);
    assert_eq!(index.warnings().len(), 6, "{:#?}", index.warnings());
    assert!(index.warnings().iter().all(|warning| warning.chars().all(|character| !character.is_control())));
}

#[test]
fn a_broken_frame_fails_the_layer_and_names_the_position() {
    let sparse = |records: &[(&str, &[u8])], data: &[u8]| archive(&[pax(records), file(b"s", data)]);
    let mut checksum = archive(&[file(b"a", b"x"), file(b"b", b"y")]);
    checksum[1024] ^= 1;
    let mut negative = Head::new(b"a", b'0', 0);
    negative.put(124, &[0xff; 12]);
    let mut garbage = Head::new(b"a", b'0', 0);
    garbage.put(124, b"12345x78901\0");
    let mut enormous = Head::new(b"a", b'0', 0);
    enormous.put(124, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let mut old = Head::new(b"old", b'S', 1);
    old.gnu().put(386, b"00000000000\x0000000000002\x00").put(483, b"00000000002\0");
    let cases = [
        ("checksum", checksum),
        ("negative size", archive(&[item(&negative, b"")])),
        ("size that is no number", archive(&[item(&garbage, b"")])),
        ("enormous size", item(&enormous, b"")),
        ("lone block of zeros", [file(b"a", b""), vec![0; 512], file(b"b", b""), vec![0; 1024]].concat()),
        ("record syntax", archive(&[item(&Head::new(b"x", b'x', 6), b"9 a=b\n"), file(b"a", b"")])),
        ("record size", archive(&[pax(&[("size", b"-1")]), file(b"a", b"")])),
        ("extended header too long", [&Head::new(b"x", b'x', 2 << 20).sealed()[..], &vec![b'0'; 2 << 20]].concat()),
        ("cut behind an extended header", pax(&[("path", b"a")])),
        ("cut content", file(b"a", &[1; 512])[..1023].to_vec()),
        ("cut header", file(b"a", b"")[..511].to_vec()),
        ("map beyond the file", sparse(&[("GNU.sparse.size", b"5"), ("GNU.sparse.map", b"0,6")], b"123456")),
        ("map that takes more than is stored", sparse(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,6")], b"12345")),
        ("map that goes back", sparse(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"4,1,0,1")], b"12")),
        ("map with an odd number", sparse(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"4,1,0")], b"1")),
        ("sparse file without a size", sparse(&[("GNU.sparse.map", b"0,1")], b"1")),
        ("old map that does not fit", archive(&[item(&old, b"x")])),
        (
            "leading map without lines",
            sparse(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")], &[b'1'; 600]),
        ),
        ("text", b"this is a text of more than 512 bytes ".repeat(20)),
        ("short text", b"hello".to_vec()),
    ];
    for (what, bytes) in cases {
        let error = scan(&bytes).map(|index| paths(&index)).expect_err(what);
        assert_eq!(error.kind, ErrorKind::Integrity, "{what}");
        assert!(error.message.contains(" byte "), "{what}: {}", error.message);
    }
}

#[test]
fn an_archive_may_end_at_an_entry_boundary_without_a_marker() {
    let items = [file(b"a", b"x"), file(b"b", &[0; 512])].concat();
    for (what, tail) in [
        ("marker", vec![0; 1024]),
        ("one block and a bit", vec![0; 700]),
        ("one block", vec![0; 512]),
        ("nothing", vec![]),
        ("long marker", vec![0; 20_480]),
    ] {
        let index = read(&[items.clone(), tail].concat());
        assert_eq!((paths(&index), index.warnings().len()), (vec!["a".into(), "b".into()], 0), "{what}");
    }
    assert_eq!(paths(&read(&[archive(&[file(b"a", b"")]), file(b"hidden", b"")].concat())), ["a"], "reading ends at the first end");
    assert_eq!(paths(&read(&file(b"a", b"x")[..513])), ["a"], "the last padding may be missing");
    assert_eq!(read(b"").entry_count(), 0);
    assert_eq!(read(&[0; 10_240]).entry_count(), 0);
}

#[test]
fn headers_that_are_not_entries_are_skipped_with_their_data() {
    let index = read(&archive(&[
        item(Head::new(b"volume", b'V', 0).gnu(), b""),
        item(&Head::new(b"acl", b'A', 600), &[b'x'; 600]),
        item(Head::new(b"dump/", b'D', 5).gnu(), b"Yabc\0"),
        file(b"a", b"x"),
    ]));
    assert_eq!(paths(&index), ["dump", "a"]);
    assert_eq!(index.entry(0).unwrap().kind, FileKind::Directory);
}

#[test]
fn a_layer_that_is_too_large_is_refused() {
    let bytes = archive(&[file(b"a", b""), file(b"b", b""), file(b"c", b"")]);
    let all = Limits::default();
    for (limits, bound) in [
        (Limits { entries: 2, ..all }, "more than 2 entries"),
        (Limits { text_bytes: 2, ..all }, "more than 2 bytes of names"),
        (Limits { index_bytes: 200, index_reason: "some flag", ..all }, "more than 200 bytes, the most that some flag allows"),
    ] {
        let (mut scan, mut sink) = (Scan::new(Form::Archive, &Resources { limits, ..Resources::default() }), Stream::default());
        let error = scan.push(&bytes, &mut sink).unwrap_err();
        assert!(error.kind == ErrorKind::Unsupported && error.message.contains(bound), "{error}");
        assert_eq!(scan.push(b"more", &mut sink).unwrap_err().message, error.message, "a failed scan stays failed");
    }
}

#[test]
fn members_are_large_files_in_one_piece() {
    let large = vec![5; MEMBER_MINIMUM as usize];
    let index = read(&archive(&[file(b"small", &large[1..]), file(b"large", &large), file(b"/", &large)]));
    assert_eq!(index.members().count(), 1);
    assert_eq!(index.members().next().map(|range| range.end - range.start), Some(MEMBER_MINIMUM));
}
