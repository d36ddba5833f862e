//! Packed layers, read by independent programs: GNU tar, gzip, zstd if installed, Python's tarfile.

#[allow(dead_code)]
#[path = "support/skip.rs"]
mod skip;

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ocifs::layer::{FileKind, Metadata, PackEntry, Packed, Packer, Packing};
use parking_lot::Mutex;
use skip::{Need, lacks};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pack(packing: Packing, entries: &[(PackEntry, Vec<u8>)]) -> (Packed, Vec<u8>) {
    let output = Shared::default();
    let mut packer = Packer::new(packing, 2, Box::new(output.clone()));
    for (entry, content) in entries {
        packer.begin(entry).unwrap();
        packer.data(content).unwrap();
    }
    let packed = packer.finish().unwrap();
    let bytes = output.0.lock().clone();
    (packed, bytes)
}

fn entry(path: &[u8], kind: FileKind) -> PackEntry {
    PackEntry {
        path: path.to_vec(),
        kind,
        metadata: Metadata { mode: Some(0o644), owner: Some((0, 0)), mtime: Some((1_700_000_000, 0)), ..Metadata::default() },
        size: 0,
        link: Vec::new(),
        xattrs: Vec::new(),
    }
}

/// One entry of each kind, with every value that ustar cannot hold.
fn everything() -> Vec<(PackEntry, Vec<u8>)> {
    let text: Vec<u8> =
        (0..400_000_u32).flat_map(|number| format!("{:x} ", number.wrapping_mul(2_654_435_761) >> 12).into_bytes()).collect();
    let long = [&b"long/".repeat(40)[..], b"end"].concat();
    let split = [&b"split/".repeat(20)[..], b"end"].concat();
    let file = |path: &[u8], content: &[u8], change: &dyn Fn(&mut PackEntry)| {
        let mut entry = PackEntry { size: content.len() as u64, ..entry(path, FileKind::File) };
        change(&mut entry);
        (entry, content.to_vec())
    };
    let mut entries = vec![
        file(b"text", &text, &|entry| entry.metadata.mode = Some(0o4755)),
        file(b"empty", b"", &|_| {}),
        file(&long, b"long", &|_| {}),
        file(&split, b"split", &|_| {}),
        file("grüße/日本".as_bytes(), b"utf-8", &|_| {}),
        file(b"bytes-\xff\xfe", b"no utf-8", &|_| {}),
        file(b"new\nline", b"name of two lines", &|_| {}),
        file(b"large-owner", b"x", &|entry| entry.metadata.owner = Some((3_000_000, 4_000_000_000))),
        file(b"before-1970", b"x", &|entry| entry.metadata.mtime = Some((-2, 500_000_000))),
        file(b"nanoseconds", b"x", &|entry| entry.metadata.mtime = Some((1_700_000_000, 123_456_789))),
        file(b"far-future", b"x", &|entry| entry.metadata.mtime = Some((100_000_000_000, 0))),
        file(b"attributes", b"x", &|entry| {
            entry.xattrs = vec![(b"user.bytes".to_vec(), b"a=\n\0\xff".to_vec()), (b"user.plain".to_vec(), b"value".to_vec())];
        }),
    ];
    let other = |path: &[u8], kind, link: &[u8], device| {
        let plain = entry(path, kind);
        (PackEntry { link: link.to_vec(), metadata: Metadata { device, ..plain.metadata }, ..plain }, Vec::new())
    };
    let directory = |path: &[u8], mode| {
        let plain = entry(path, FileKind::Directory);
        (PackEntry { metadata: Metadata { mode: Some(mode), ..plain.metadata }, ..plain }, Vec::new())
    };
    entries.insert(0, directory(b"", 0o755));
    entries.extend([
        directory(b"directory", 0o1777),
        other(b"hard", FileKind::HardLink, b"text", (0, 0)),
        other(b"hard-long", FileKind::HardLink, &long, (0, 0)),
        other(b"link", FileKind::Symlink, b"../outside", (0, 0)),
        other(b"link-long", FileKind::Symlink, &[b'y'; 3000], (0, 0)),
        other(b"link-bytes", FileKind::Symlink, b"\xff", (0, 0)),
        other(b"null", FileKind::CharDevice, b"", (1, 3)),
        other(b"disk", FileKind::BlockDevice, b"", (259, 1_048_575)),
        other(b"fifo", FileKind::Fifo, b"", (0, 0)),
    ]);
    entries
}

/// Each entry as one line, as `PYTHON` prints it.
fn lines(entries: &[(PackEntry, Vec<u8>)]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    entries
        .iter()
        .map(|(entry, content)| {
            let name = if entry.path.is_empty() { &b"."[..] } else { &entry.path[..] };
            let kind = match entry.kind {
                FileKind::File => "0",
                FileKind::HardLink => "1",
                FileKind::Symlink => "2",
                FileKind::CharDevice => "3",
                FileKind::BlockDevice => "4",
                FileKind::Directory => "5",
                FileKind::Fifo => "6",
                FileKind::Socket => unreachable!("none is packed"),
            };
            let Metadata { mode: Some(mode), owner: Some((uid, gid)), mtime: Some(mtime), device: (major, minor) } = entry.metadata else {
                panic!("every entry here has all attributes")
            };
            let time = i128::from(mtime.0) * 1_000_000_000 + i128::from(mtime.1);
            let xattrs: Vec<String> = entry.xattrs.iter().map(|(name, value)| format!("{}={}", hex(name), hex(value))).collect();
            let content = ocifs::oci::Digest::of(content).hex();
            let link = hex(&entry.link);
            format!("{} {kind} {mode:o} {uid} {gid} {time} {major} {minor} {link} {} {content}\n", hex(name), xattrs.join(","))
        })
        .collect()
}

const PYTHON: &str = r#"
import sys, tarfile, hashlib, decimal
raw = lambda text: text.encode("utf-8", "surrogateescape")
with tarfile.open(sys.argv[1], "r:*", encoding="utf-8", errors="surrogateescape") as archive:
    for member in archive:
        time = decimal.Decimal(member.pax_headers.get("mtime", str(int(member.mtime))))
        xattrs = sorted((key[13:], value) for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr."))
        content = archive.extractfile(member).read() if member.isreg() else b""
        name = raw(member.name) or b"."
        device = (member.devmajor, member.devminor) if member.isdev() and not member.isfifo() else (0, 0)
        print(name.hex(), member.type.decode(), "%o" % member.mode, member.uid, member.gid, int(time * 10**9), *device, raw(member.linkname).hex(),
              ",".join(raw(key).hex() + "=" + raw(value).hex() for key, value in xattrs), hashlib.sha256(content).hexdigest())
"#;

fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn python_reads_every_entry_as_it_was_packed() {
    if lacks(&[Need::Tool("python3")]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let entries = everything();
    for packing in [Packing::GzipTar, Packing::Tar] {
        std::fs::write(folder.path().join("layer"), pack(packing, &entries).1).unwrap();
        let read = run("python3", &["-c", PYTHON, "layer"], folder.path());
        for (read, expected) in read.lines().zip(lines(&entries).lines()) {
            assert_eq!(read, expected);
        }
        assert_eq!(read.lines().count(), entries.len());
    }
}

#[test]
fn gzip_and_gnu_tar_read_a_layer_without_complaint() {
    if lacks(&[Need::Tool("tar"), Need::Tool("gzip")]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // GNU tar warns about names declared as bytes but reads them, and fails on devices if it may not create them.
    let plain = |(entry, _): &(PackEntry, Vec<u8>)| {
        let special = matches!(entry.kind, FileKind::CharDevice | FileKind::BlockDevice);
        !special && std::str::from_utf8(&entry.path).is_ok() && std::str::from_utf8(&entry.link).is_ok() && entry.xattrs.is_empty()
    };
    let entries: Vec<_> = everything().into_iter().filter(plain).collect();
    let (packed, blob) = pack(Packing::GzipTar, &entries);
    std::fs::write(folder.path().join("layer.tar.gz"), &blob).unwrap();
    run("gzip", &["-t", "layer.tar.gz"], folder.path());
    let listed = run("tar", &["-tzf", "layer.tar.gz"], folder.path());
    assert_eq!(listed.lines().count(), entries.len());
    std::fs::create_dir(folder.path().join("out")).unwrap();
    let output = Command::new("tar")
        .args(["-xzf", "../layer.tar.gz", "--no-same-owner", "--warning=no-timestamp"])
        .current_dir(folder.path().join("out"))
        .output()
        .unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr)), (Some(0), "".into()));
    for (entry, content) in &entries {
        let path = folder.path().join("out").join(std::str::from_utf8(&entry.path).unwrap());
        let found = std::fs::symlink_metadata(&path).unwrap();
        match entry.kind {
            FileKind::File => assert!(std::fs::read(&path).unwrap() == *content, "{path:?}"),
            FileKind::Symlink => {
                assert_eq!(std::fs::read_link(&path).unwrap().to_str().unwrap().as_bytes(), entry.link);
            }
            FileKind::Directory => assert!(found.is_dir()),
            _ => {}
        }
    }
    let cut = blob.len() - 8;
    let trailer = u32::from_le_bytes(blob[cut + 4..].try_into().unwrap());
    assert_eq!(u64::from(trailer), packed.stream.1);
}

#[test]
fn an_attached_index_is_a_zstd_file() {
    if lacks(&[Need::Tool("zstd")]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (packed, _) = pack(Packing::GzipTar, &everything());
    std::fs::write(
        folder.path().join("index.zst"),
        ocifs::layer::encode_attached(&packed.index, &ocifs::sys::array::Scratch::memory()).unwrap(),
    )
    .unwrap();
    run("zstd", &["-q", "-d", "index.zst"], folder.path());
    assert!(std::fs::read(folder.path().join("index")).unwrap() == packed.index.as_bytes());
}
