//! Test helper: a tree in the line format of `tests/fixtures/treelist`, and comparison with an expected list.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::tree::{Kind, Tree};

/// One line: type, mode, uid, gid, size, mtime, content, path, then `link=` and `xattr:` columns.
pub(super) type Row = Vec<String>;

pub(super) fn escape(raw: &[u8]) -> String {
    let mut out = String::new();
    for chunk in raw.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if u32::from(letter) < 0x20 || letter == '\x7f' || letter == '\\' {
                write!(out, "\\x{:02x}", u32::from(letter)).unwrap();
            } else {
                out.push(letter);
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").unwrap();
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All rows of a tree, sorted by path bytes. `-` if the archive has no value.
pub(super) fn rows(tree: &Tree) -> Vec<Row> {
    let mut nodes = Vec::new();
    let mut open = vec![(0, Vec::new())];
    while let Some((directory, path)) = open.pop() {
        for child in tree.children(directory, 0) {
            let path = crate::path::join(&path, child.name);
            if tree.node(child.node).unwrap().kind == Kind::Directory {
                open.push((child.node, path.clone()));
            }
            nodes.push((path, child.node));
        }
    }
    nodes.sort();
    let mut first_names: HashMap<u32, Vec<u8>> = HashMap::new();
    nodes.iter().map(|(path, number)| row(tree, path, *number, &mut first_names)).collect()
}

fn row(tree: &Tree, path: &[u8], number: u32, first_names: &mut HashMap<u32, Vec<u8>>) -> Row {
    let node = tree.node(number).unwrap();
    let (mut kind, mut size, mut content, mut extra) = ("d", "-".to_owned(), "-".to_owned(), Vec::new());
    match node.kind {
        Kind::Directory => {}
        Kind::File => {
            kind = "f";
            size = node.size.to_string();
            content = tree.content(number).unwrap().sha256.map_or_else(|| "-".to_owned(), |sha256| hex(&sha256));
            let first = first_names.entry(number).or_insert_with(|| path.to_vec());
            if first != path {
                kind = "h";
                extra.push(format!("link={}", escape(first)));
            }
        }
        Kind::Symlink => {
            kind = "l";
            size = node.size.to_string();
            content = escape(tree.target(number).unwrap());
        }
        Kind::CharDevice | Kind::BlockDevice => {
            kind = if node.kind == Kind::CharDevice { "c" } else { "b" };
            content = format!("{}:{}", node.metadata.device.0, node.metadata.device.1);
        }
        Kind::Fifo => kind = "p",
        Kind::Socket => kind = "s",
    }
    let mode = if node.kind == Kind::Symlink { "-".to_owned() } else { format!("{:04o}", node.metadata.mode_or_default(node.kind)) };
    let owner = |pick: fn((u32, u32)) -> u32| node.metadata.owner.map_or_else(|| "-".to_owned(), |owner| pick(owner).to_string());
    let mtime = node.metadata.mtime.map_or_else(|| "-".to_owned(), |mtime| mtime.0.to_string());
    let mut row = vec![kind.to_owned(), mode, owner(|owner| owner.0), owner(|owner| owner.1), size, mtime, content, escape(path)];
    row.extend(extra);
    if node.kind != Kind::Symlink {
        let mut xattrs = tree.xattrs(number);
        xattrs.retain(|(name, _)| !name.starts_with(b"user.oci.") && (name.starts_with(b"user.") || *name == b"security.capability"));
        xattrs.sort();
        row.extend(xattrs.iter().map(|(name, value)| format!("xattr:{}={}", escape(name), hex(value))));
    }
    row
}

/// Differences between an expected list and a tree; empty if they match. `-` matches anything on either side.
pub(super) fn differences(expected: &str, tree: &Tree) -> Vec<String> {
    let found = rows(tree);
    let expected: Vec<Row> = expected
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect();
    let by_path: HashMap<&str, &Row> = found.iter().map(|row| (row[7].as_str(), row)).collect();
    let mut out: Vec<String> =
        found.iter().filter(|row| !expected.iter().any(|want| want[7] == row[7])).map(|row| format!("extra {row:?}")).collect();
    for want in &expected {
        let Some(have) = by_path.get(want[7].as_str()) else {
            out.push(format!("missing {want:?}"));
            continue;
        };
        let same = want.iter().zip(have.iter()).take(8).all(|(left, right)| left == right || left == "-" || right == "-");
        if !same || want[8..] != have[8..] {
            out.push(format!("expected {want:?}\n   found {have:?}"));
        }
    }
    out
}
