//! Layers written by real tools, compared with what those tools unpack.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::*;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

fn blob(fixture: &str, digest: &str) -> Vec<u8> {
    fs::read(fixtures().join(fixture).join("layout/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())).unwrap()
}

/// The only layer of a tag.
fn only_layer(fixture: &str, tag: &str) -> Vec<u8> {
    let index = json(&fs::read(fixtures().join(fixture).join("layout/index.json")).unwrap());
    let named = |manifest: &&serde_json::Value| {
        manifest["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")))
    };
    let manifest = index["manifests"].as_array().unwrap().iter().find(named).unwrap();
    let manifest = json(&blob(fixture, manifest["digest"].as_str().unwrap()));
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    blob(fixture, layers[0]["digest"].as_str().unwrap())
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' | '\x00'..='\x1f' | '\x7f' => text.push_str(&format!("\\x{:02x}", character as u32)),
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lines of an expected list, as printed by `treelist`, for a single layer.
fn lines(index: &LayerIndex) -> BTreeMap<String, Vec<String>> {
    let by_path: BTreeMap<&[u8], Entry<'_>> =
        index.entries().filter(|entry| !entry.path.is_empty()).map(|entry| (entry.path, entry)).collect();
    let mut first_names: BTreeMap<u32, &[u8]> = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for (path, entry) in &by_path {
        let node = if entry.kind == FileKind::HardLink { by_path[entry.link] } else { *entry };
        let first = *first_names.entry(node.number).or_insert(path);
        let Metadata { mode: Some(mode), owner: Some(owner), mtime: Some(mtime), device } = node.metadata else { panic!("{entry:?}") };
        let (kind, size, content) = match node.kind {
            FileKind::File => (if first == *path { "f" } else { "h" }, node.size.to_string(), hex(&node.sha256.unwrap())),
            FileKind::Directory => ("d", "-".into(), "-".into()),
            FileKind::Symlink => ("l", node.size.to_string(), escaped(node.link)),
            FileKind::CharDevice => ("c", "-".into(), format!("{}:{}", device.0, device.1)),
            FileKind::BlockDevice => ("b", "-".into(), format!("{}:{}", device.0, device.1)),
            FileKind::Fifo => ("p", "-".into(), "-".into()),
            FileKind::HardLink | FileKind::Socket => panic!("{entry:?}"),
        };
        let mtime = match mtime.1 {
            0 => mtime.0.to_string(),
            nanoseconds => format!("{}.{}", mtime.0, format!("{nanoseconds:09}").trim_end_matches('0')),
        };
        let mut columns =
            vec![kind.to_owned(), format!("{mode:04o}"), owner.0.to_string(), owner.1.to_string(), size, mtime, content, escaped(path)];
        if kind == "h" {
            columns.push(format!("link={}", escaped(first)));
        }
        let mut xattrs = index.xattrs(node.number);
        xattrs.sort();
        columns.extend(xattrs.iter().map(|(name, value)| format!("xattr:{}={}", escaped(name), hex(value))));
        lines.insert(escaped(path), columns);
    }
    lines
}

#[test]
fn entries_of_real_archives_are_what_their_tools_unpack() {
    let cases = [
        ("image-gnutar", &["v7", "ustar", "gnu", "posix", "flat", "names"][..]),
        ("image-umoci", &["l1"]),
        ("flux", &["v1"]),
        ("helm", &["1.2.3", "2.0.0_build.5"]),
        ("oci-sync-go", &["dir", "file", "dot"]),
        ("oci-sync-rust", &["dir", "file"]),
        ("oras-dirs", &["dir", "nested", "typed", "dot"]),
    ];
    for (fixture, tags) in cases {
        for tag in tags {
            let (index, _) = scan(Form::Archive, &only_layer(fixture, tag)).unwrap();
            let mut found = lines(&index);
            let expected = fs::read_to_string(fixtures().join(fixture).join("expected").join(format!("{tag}.tsv"))).unwrap();
            let mut compared = 0;
            for line in expected.lines() {
                let columns: Vec<&str> = line.split('\t').collect();
                let Some(ours) = found.remove(columns[7]) else {
                    assert!(columns[0] == "d", "{fixture} {tag}: no entry for {line}");
                    continue;
                };
                // Helm stores no modes; its list has those of umask 022.
                let loose = |at: usize| columns[at] == "-" || (at == 1 && fixture == "helm");
                let same = ours.len() == columns.len()
                    && ours.iter().zip(&columns).enumerate().all(|(at, (ours, theirs))| loose(at.min(7)) || ours == theirs);
                assert!(same, "{fixture} {tag}:\n{columns:?}\n{ours:?}");
                compared += 1;
            }
            assert!(compared > 0, "{fixture} {tag}");
            assert!(found.is_empty(), "{fixture} {tag}: {found:?} {:?}", index.warnings());
        }
    }
}

#[test]
fn every_archive_blob_is_read_completely_and_others_are_refused() {
    let (mut archives, mut others) = (0, 0);
    for fixture in fs::read_dir(fixtures()).unwrap() {
        let Ok(blobs) = fs::read_dir(fixture.unwrap().path().join("layout/blobs/sha256")) else { continue };
        for path in blobs.map(|entry| entry.unwrap().path()) {
            let blob = fs::read(&path).unwrap();
            let compressed = blob.starts_with(&[0x1f, 0x8b]) || blob.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
            let plain = blob.get(257..262) == Some(b"ustar") || (blob.len() % 512 == 0 && blob.ends_with(&[0; 1024]));
            match scan(Form::Archive, &blob) {
                Ok((index, sink)) => {
                    assert!(compressed || plain || blob.is_empty(), "{path:?}");
                    check_spans(&index, &blob, &sink.stream, 70_000);
                    archives += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Integrity);
                    assert!(!compressed && !plain, "{path:?}: {error}");
                    others += 1;
                }
            }
        }
    }
    assert!(archives > 50 && others > 50, "{archives} {others}");
}
