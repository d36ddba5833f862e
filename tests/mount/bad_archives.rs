//! Archives crafted to break readers, and the test archives of Go and Python: none escapes its tree or hides a neighbour, and names match those of
//! other readers where they agree.

use crate::support::artifacts::{Draft, LAYER, gzip};
use crate::support::mounting::{Home, Mount, text};
use crate::support::skip::{Need, lacks};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const EBADMSG: i32 = 74;
const EOPNOTSUPP: i32 = 95;
/// Directories of the test files of Debian's `golang-1.19-src` and `libpython3.11-testsuite`.
const GO: &str = "/usr/share/go-1.19/src/archive/tar/testdata";
const PYTHON: &str = "/usr/lib/python3.11/test";

/// One header and its data. Passes through unchanged what tar's own writer would refuse.
fn member(name: &[u8], kind: tar::EntryType, link: &[u8], data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    header.set_entry_type(kind);
    if matches!(kind, tar::EntryType::Block | tar::EntryType::Char) {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    member(name.as_bytes(), tar::EntryType::Regular, b"", name.as_bytes())
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

/// Mounts a layout with an image per archive, and a good one beside them.
fn images(archives: &[(String, Vec<u8>)]) -> Draft {
    let mut draft = Draft::new();
    let good = draft.blob(LAYER, &archive(&[file("good")]));
    draft.image("neighbour", &[good]);
    for (number, (name, bytes)) in archives.iter().enumerate() {
        let stored = if number % 2 == 0 { bytes.clone() } else { gzip(bytes) };
        let layer = draft.blob(LAYER, &stored);
        draft.image(name, &[layer]);
    }
    draft
}

fn mount<'home>(home: &'home Home, draft: &Draft, flags: &[&str]) -> Mount<'home> {
    home.mount(&format!("oci:{}", draft.path().display()), flags)
}

#[track_caller]
fn the_neighbour_is_readable(mount: &Mount<'_>) {
    assert_eq!(mount.cat("neighbour/good").unwrap(), b"good");
}

/// All paths below, sorted, with non-UTF-8 bytes escaped.
fn walk(root: &Path) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            found.push(path.as_os_str().as_bytes().escape_ascii().to_string());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn climbing_and_absolute_names_stay_inside() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let climbing = ["/etc/absolute", "../up", "../../../../tmp/far", "a/../../b", "./c", "d/./e", "f//g", "..", "/", "h/.."];
    let draft = images(&[("climb".to_owned(), archive(&climbing.map(file)))]);
    let home = Home::new();
    let mount = mount(&home, &draft, &[]);
    let names = walk(&mount.path("climb")).unwrap();
    for (name, content) in [("etc/absolute", "/etc/absolute"), ("up", "../up"), ("tmp/far", "../../../../tmp/far"), ("b", "a/../../b")] {
        assert_eq!(mount.cat(&format!("climb/{name}")).unwrap(), content.as_bytes(), "{names:?}");
    }
    for (name, content) in [("c", "./c"), ("d/e", "d/./e"), ("f/g", "f//g")] {
        assert_eq!(mount.cat(&format!("climb/{name}")).unwrap(), content.as_bytes(), "{names:?}");
    }
    assert_eq!(mount.ls("").unwrap(), ["climb", "neighbour"]);
    the_neighbour_is_readable(&mount);
    mount.unmount();
}

#[test]
fn escaping_links_are_shown_but_never_followed() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    use tar::EntryType::{Link, Symlink};
    let members = [
        member(b"passwd", Symlink, b"/etc/passwd", b""),
        member(b"out", Symlink, b"../../../../../../etc", b""),
        file("out/planted"),
        member(b"stolen", Link, b"/etc/passwd", b""),
        member(b"climbed", Link, b"../../etc/shadow", b""),
        member(b"self", Symlink, b"self", b""),
        member(b"hard-self", Link, b"hard-self", b""),
        file("real"),
        member(b"twin", Link, b"./real", b""),
    ];
    let draft = images(&[("links".to_owned(), archive(&members))]);
    let home = Home::new();
    let mount = mount(&home, &draft, &[]);
    assert_eq!(std::fs::read_link(mount.path("links/passwd")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(mount.cat("links/out/planted").unwrap(), b"out/planted");
    assert!(!Path::new("/etc/planted").exists());
    assert!(mount.path("links/out").symlink_metadata().unwrap().is_dir(), "an entry below a link replaces it by a directory");
    let names = walk(&mount.path("links")).unwrap();
    assert_eq!(names, ["out", "out/planted", "passwd", "real", "self", "twin"]);
    assert_eq!(mount.path("links/twin").metadata().unwrap().nlink(), 2);
    assert_eq!(std::fs::read(mount.path("links/self")).unwrap_err().raw_os_error(), Some(40), "ELOOP");
    assert!(mount.log().lines().filter(|line| line.contains("WARN")).count() >= 3, "dropped entries are logged:\n{}", mount.log());
    mount.unmount();
}

#[test]
fn devices_are_shown_and_inert() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    use tar::EntryType::{Block, Char, Fifo};
    let members = [member(b"null", Char, b"", b""), member(b"disk", Block, b"", b""), member(b"pipe", Fifo, b"", b"")];
    let draft = images(&[("devices".to_owned(), archive(&members))]);
    let home = Home::new();
    let mount = mount(&home, &draft, &[]);
    let kind = |name: &str| mount.path(format!("devices/{name}")).symlink_metadata().unwrap().file_type();
    assert!(kind("null").is_char_device() && kind("disk").is_block_device() && kind("pipe").is_fifo());
    for name in ["null", "disk"] {
        let error = std::fs::File::open(mount.path(format!("devices/{name}"))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(13), "{name}: mounted nodev: {error}");
    }
    mount.unmount();
}

/// A header whose size field holds these bytes.
fn with_size(field: &[u8; 12]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("sized").unwrap();
    header.set_mode(0o644);
    header.as_mut_bytes()[124..136].copy_from_slice(field);
    header.set_cksum();
    archive(&[header.as_bytes().to_vec()])
}

#[test]
fn impossible_sizes_are_ebadmsg_at_once() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let extended = |record: &str| {
        let head = member(b"pax", tar::EntryType::XHeader, b"", record.as_bytes());
        archive(&[head, file("sized")])
    };
    let archives: Vec<(String, Vec<u8>)> = [
        ("negative", with_size(&[0xff; 12])),
        ("largest-octal", with_size(b"77777777777\0")),
        ("largest-binary", with_size(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("beyond-64-bits", with_size(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("letters", with_size(b"not-a-size\0\0")),
        ("pax-negative", extended("11 size=-1\n")),
        ("pax-huge", extended("29 size=99999999999999999999\n")),
        ("pax-record-of-lies", extended("999 path=x\n")),
        ("pax-without-length", extended("path=x\n")),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into();
    let draft = images(&archives);
    let home = Home::new();
    let mount = mount(&home, &draft, &[]);
    let ((), peak) = mount.peak_of(|| {
        for (name, _) in &archives {
            let error = mount.ls(name).expect_err(name);
            assert_eq!(error.raw_os_error(), Some(EBADMSG), "{name}: {error}");
            the_neighbour_is_readable(&mount);
        }
    });
    assert_eq!(mount.ls("").unwrap().len(), archives.len() + 1);
    assert!(peak < 128 << 20, "{peak} bytes");
    mount.unmount();
}

#[test]
fn a_file_of_sixty_gigabytes_of_holes_has_its_size_and_costs_nothing() {
    if lacks(&[Need::Fuse, Need::File(GO)]) {
        return;
    }
    let archives = ["gnu-sparse-big", "pax-sparse-big"].map(|name| (name.to_owned(), std::fs::read(format!("{GO}/{name}.tar")).unwrap()));
    let draft = images(&archives);
    let home = Home::new();
    let mount = mount(&home, &draft, &["--cache-size", "16MiB"]);
    for (name, entry) in [("gnu-sparse-big", "gnu-sparse"), ("pax-sparse-big", "pax-sparse")] {
        let path = mount.path(format!("{name}/{entry}"));
        assert_eq!(path.metadata().unwrap().len(), 60_000_000_000);
        use std::os::unix::fs::FileExt;
        let mut end = [1; 16];
        std::fs::File::open(&path).unwrap().read_exact_at(&mut end, 59_999_999_984).unwrap();
        assert_eq!(&end, b"4567890123456789");
    }
    mount.unmount();
}

/// Archives on which readers disagree: the names shown, or none if the archive is refused, and why.
const EXPECTED: [(&str, Option<&[&str]>); 6] = [
    // The content announced by the sizes is missing after half of the headers: GNU tar gives up, Go and Python read on.
    ("hdr-only", Some(&["badlink", "dir", "fifo", "file", "hardlink", "null", "sda", "symlink"])),
    // An empty record in a global header resets the name (POSIX, Go); GNU tar and Python take it as a name.
    ("pax-global-records", Some(&["file2", "file3", "file4", "global1"])),
    // No file name can contain NUL, so another is shown. GNU tar truncates it, Python keeps it, Go refuses the archive.
    (
        "pax-nul-path",
        Some(&[
            "01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789~badcccd644de",
        ]),
    ),
    // Likewise for an attribute, which is dropped. GNU tar names the file and fails, Go refuses the archive.
    ("pax-nul-xattrs", Some(&["bad-null.txt"])),
    // It ends after an extended header, not at an entry boundary. Go and GNU tar read nothing, Python refuses.
    ("pax-path-hdr", None),
    // GNU tar continues after a record it calls malformed; we do not, like Go and unlike Python.
    ("pax-bad-hdr-file", None),
];

/// The names GNU tar lists, normalised; empty if it fails.
fn listed_by_tar(path: &Path) -> Option<Vec<String>> {
    let output = std::process::Command::new("tar").args(["--quoting-style=literal", "-tf"]).arg(path).output().unwrap();
    if !output.status.success() {
        return None;
    }
    let mut names = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut whole = PathBuf::new();
        for part in Path::new(std::ffi::OsStr::from_bytes(line)).components() {
            if let std::path::Component::Normal(part) = part {
                whole.push(part);
                names.push(whole.as_os_str().as_bytes().escape_ascii().to_string());
            }
        }
    }
    names.sort();
    names.dedup();
    Some(names)
}

#[test]
fn test_archives_of_go_and_python_are_read_as_others_do_or_refused() {
    if lacks(&[Need::Fuse, Need::Tool("tar"), Need::File(GO), Need::File(PYTHON)]) {
        return;
    }
    let mut paths: Vec<PathBuf> = [GO, PYTHON]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 42, "{paths:?}");
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let archives: Vec<(String, Vec<u8>)> = paths.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect();
    let draft = images(&archives);
    let home = Home::new();
    let mount = mount(&home, &draft, &[]);
    let mut wrong = Vec::new();
    let ((), peak) = mount.peak_of(|| {
        for path in &paths {
            let tag = name(path);
            let shown = match walk(&mount.path(&tag)) {
                Ok(names) => Some(names),
                Err(error) if error.raw_os_error() == Some(EBADMSG) => None,
                Err(error) => panic!("{tag}: {error}"),
            };
            let expected = match EXPECTED.iter().find(|(known, _)| *known == tag) {
                Some((_, names)) => names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
                None => listed_by_tar(path),
            };
            if shown != expected {
                wrong.push(format!("{tag}: shown {shown:?} expected {expected:?}"));
            }
            if let Some(names) = shown {
                for name in names {
                    read_some(&mount.path(&tag).join(name));
                }
            }
            the_neighbour_is_readable(&mount);
        }
    });
    assert_eq!(mount.ls("").unwrap().len(), paths.len() + 1);
    assert!(!mount.log().contains("panick"), "{}", mount.log());
    assert!(peak < 128 << 20, "{peak} bytes");
    mount.unmount();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Reads the beginning of a regular file; may fail, but not hang.
fn read_some(path: &Path) {
    use std::io::Read;
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        let mut file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        file.by_ref().take(1 << 20).read_to_end(&mut Vec::new()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn the_same_archives_as_single_archives_are_read_or_kept_as_stored() {
    if lacks(&[Need::Fuse, Need::File(GO)]) {
        return;
    }
    let mut draft = Draft::new();
    let config = draft.blob("application/vnd.example.config.v1+json", b"{}");
    let mut tags = 0;
    for entry in std::fs::read_dir(GO).unwrap() {
        let path = entry.unwrap().path();
        let layer = draft.blob("application/vnd.example.content.v1.tar", &std::fs::read(&path).unwrap());
        let manifest = serde_json::json!({ "schemaVersion": 2, "mediaType": crate::support::artifacts::MANIFEST, "config": config, "layers": [layer] });
        draft.tag(path.file_name().unwrap().to_str().unwrap(), &manifest);
        tags += 1;
    }
    let home = Home::new();
    let mount = mount(&home, &draft, &[]);
    let names = mount.ls("").unwrap();
    assert_eq!(names.len(), tags);
    for name in names {
        let path = mount.path(&name);
        match walk(&path) {
            Ok(_) => {}
            Err(error) => {
                let expected = if name.ends_with(".bz2") { EOPNOTSUPP } else { EBADMSG };
                assert_eq!(error.raw_os_error(), Some(expected), "{name}: {error}");
                // Nothing is lost: the stored bytes remain available.
                let blobs = walk(&mount.path(format!(".oci/tags/{name}/blobs"))).unwrap();
                let stored = blobs.iter().map(|blob| mount.cat(&format!(".oci/tags/{name}/blobs/{blob}")).unwrap());
                let original = std::fs::read(Path::new(GO).join(&name)).unwrap();
                assert!(stored.into_iter().any(|bytes| bytes == original), "{name}: {blobs:?}");
            }
        }
    }
    mount.unmount();
    let output = home.run(&["inspect", &format!("oci:{}:gnu.tar", draft.path().display())]);
    assert!(output.status.success(), "{}", text(&output));
}
