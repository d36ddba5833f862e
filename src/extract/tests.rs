//! Trees from an in-memory registry on a real disk.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tar::{EntryType, Header};

use super::*;
use crate::artifact::{self, ViewMode};
use crate::cache::{self, SpanCache};
use crate::content::{self, Contents};
use crate::oci::{Digest, Tag, media_type};
use crate::registry::{Fault, Memory, PlainLayer, RequestKind, Trust};
use crate::sys::process;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An archive under construction.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_600_000_000);
        header.set_size(size);
        header
    }

    fn file(mut self, path: &str, mode: u32, bytes: &[u8]) -> Self {
        self.0.append_data(&mut Self::header(EntryType::Regular, mode, bytes.len() as u64), path, bytes).unwrap();
        self
    }

    /// A file with a path that no tool would write.
    fn odd_file(mut self, path: &str, bytes: &[u8]) -> Self {
        let mut header = Self::header(EntryType::Regular, 0o644, bytes.len() as u64);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    fn directory(mut self, path: &str, mode: u32) -> Self {
        self.0.append_data(&mut Self::header(EntryType::Directory, mode, 0), path, &[][..]).unwrap();
        self
    }

    fn link(mut self, kind: EntryType, path: &str, target: &str) -> Self {
        self.0.append_link(&mut Self::header(kind, 0o777, 0), path, target).unwrap();
        self
    }

    fn node(mut self, kind: EntryType, path: &str, mode: u32) -> Self {
        self.0.append_data(&mut Self::header(kind, mode, 0), path, &[][..]).unwrap();
        self
    }

    fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.0.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value)]).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A registry with one artifact, a cache and a directory to extract to.
struct World {
    memory: Arc<Memory>,
    folder: tempfile::TempDir,
    options: Options,
}

impl World {
    /// An artifact of one tar.
    fn of(archive: Archive) -> Self {
        Self::of_layers(&[(LAYER, &archive.bytes(), &[])])
    }

    fn of_layers(layers: &[PlainLayer<'_>]) -> Self {
        let memory = Arc::new(Memory::with_origin("https://reg.test", Trust::Transport));
        let config =
            if layers.iter().any(|layer| !layer.2.is_empty()) { "application/vnd.oci.empty.v1+json" } else { media_type::OCI_CONFIG };
        memory.add_artifact("app", "v1", (config, b"{}"), layers, &[]);
        let concurrency = NonZeroUsize::new(3).unwrap();
        let options = Options { concurrency, keep: false, same_owner: false, selection: Selection::default() };
        Self { memory, folder: tempfile::tempdir().unwrap(), options }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn cache(&self) -> SpanCache {
        SpanCache::open(cache::Config { directory: self.folder.path().join("cache"), size: 1 << 30, min_free: 0 }).unwrap()
    }

    /// The artifact as a pull reads it.
    async fn source(&self) -> Result<Source, Error> {
        self.source_through(self.cache().unfilled(Some(self.folder.path().to_owned()))).await
    }

    /// Reads all files as a mount does, which fills the cache.
    async fn fill_cache(&self) {
        let source = self.source_through(self.cache()).await.unwrap();
        let mut nodes = Vec::new();
        visit(&source.artifact.tree, &self.options.selection, &mut |_, node| nodes.push(node));
        for node in nodes {
            let reader = source.open(node).await.unwrap();
            let mut at = 0;
            while at < reader.size() {
                at += reader.read(at, 1 << 20).await.unwrap().len() as u64;
            }
        }
    }

    /// The bytes of the layers that were requested.
    fn requested(&self) -> u64 {
        let requests = self.memory.requests();
        let ranges = requests.iter().filter(|request| request.kind == RequestKind::Blob).filter_map(|request| request.range.clone());
        ranges.map(|range| range.end - range.start).sum()
    }

    async fn source_through(&self, cache: SpanCache) -> Result<Source, Error> {
        let config = content::Config {
            io_timeout: Duration::from_secs(20),
            spool: Some(self.folder.path().to_owned()),
            ..content::Config::new(self.memory.clone(), cache.clone())
        };
        let options = artifact::Options {
            tag_ttl: Duration::ZERO,
            platform: "linux/amd64".parse().unwrap(),
            view: ViewMode::Merged,
            offline: false,
            strict: false,
            trust_referrers: false,
            access_order: false,
            repositories: Vec::new(),
        };
        let artifacts = Artifacts::new(self.memory.clone(), Contents::new(config), cache, options);
        let repository = Repository::parse("app").unwrap();
        let digest = artifacts.tag(&repository, &Tag::parse("v1").unwrap()).await?;
        let artifact = artifacts.artifact(&repository, &digest, ViewMode::Merged, false).await?;
        Ok(Source { artifacts, repository, artifact, strict: false })
    }

    async fn extract(&self) -> Result<Summary, Error> {
        let target = Target::open(&self.path(""))?;
        extract(self.source().await?, &target, self.options.clone(), Arc::default()).await
    }
}

fn names(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn mode(path: PathBuf) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread")]
async fn files_links_modes_and_times_are_as_archived() {
    let archive = Archive::new()
        .directory("d", 0o750)
        .file("d/a", 0o640, b"alpha")
        .file("d/run", 0o755, b"#!")
        .file("empty", 0o644, b"")
        .link(EntryType::Symlink, "s", "d/a")
        .link(EntryType::Symlink, "away", "/etc/../../x")
        .link(EntryType::Link, "h", "d/a")
        .node(EntryType::Fifo, "pipe", 0o600);
    let world = World::of(archive);
    let summary = world.extract().await.unwrap();
    assert_eq!((summary.files, summary.others), (4, 3));
    assert_eq!(names(&world.path("")), ["away", "d", "empty", "h", "pipe", "s"]);
    let umask = process::umask().unwrap();
    assert_eq!(
        [mode(world.path("d")), mode(world.path("d/a")), mode(world.path("d/run"))],
        [0o750, 0o640, 0o755].map(|mode| mode & !umask)
    );
    for name in ["d", "d/a", "s", "pipe"] {
        assert_eq!(world.path(name).symlink_metadata().unwrap().mtime(), 1_600_000_000, "{name}");
    }
    assert_eq!((world.read("h"), world.read("empty")), ("alpha".to_owned(), String::new()));
    let inode = |name: &str| world.path(name).metadata().unwrap().ino();
    assert_eq!(inode("h"), inode("d/a"));
    assert_eq!(std::fs::read_link(world.path("away")).unwrap(), Path::new("/etc/../../x"));
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&world.path("pipe").symlink_metadata().unwrap().file_type()));
}

#[tokio::test(flavor = "multi_thread")]
async fn set_id_bits_owners_and_devices_are_restored_only_on_request() {
    let archive = || {
        Archive::new()
            .file("tool", 0o6755, b"x")
            .directory("tmp", 0o1777)
            .xattr("security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
            .file("ping", 0o755, b"y")
            .node(EntryType::Char, "null", 0o666)
    };
    let world = World::of(archive());
    let summary = world.extract().await.unwrap();
    let umask = process::umask().unwrap();
    assert_eq!([mode(world.path("tool")), mode(world.path("tmp"))], [0o755 & !umask, 0o777 & !umask]);
    assert_eq!((summary.devices.count, names(&world.path(""))), (1, vec!["ping".to_owned(), "tmp".to_owned(), "tool".to_owned()]));
    assert_eq!(summary.attributes, Case::default());
    if process::effective_uid() != 0 {
        return;
    }
    let mut world = World::of(archive());
    world.options.same_owner = true;
    assert_eq!(world.extract().await.unwrap().devices.count, 0);
    assert_eq!([mode(world.path("tool")), mode(world.path("tmp")), mode(world.path("null"))], [0o6755, 0o1777, 0o666]);
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_stay_holes_and_large_files_are_whole() {
    let layer: Vec<u8> = (0..9_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let world = World::of_layers(&[("application/octet-stream", &layer, &[("org.opencontainers.image.title", "sub/large")])]);
    world.extract().await.unwrap();
    assert!(std::fs::read(world.path("sub/large")).unwrap() == layer);

    let mut archive = Archive::new();
    archive.0.append_pax_extensions([("GNU.sparse.size", &b"67108864"[..]), ("GNU.sparse.map", b"33554432,4096")]).unwrap();
    let world = World::of(archive.file("sparse", 0o644, &[7; 4096]));
    world.extract().await.unwrap();
    let metadata = world.path("sparse").metadata().unwrap();
    assert_eq!(metadata.len(), 64 << 20);
    assert!(metadata.blocks() <= 64, "{} blocks", metadata.blocks());
    assert_eq!(std::fs::read(world.path("sparse")).unwrap()[32 << 20..][..4097], [&[7; 4096][..], &[0]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_bypasses_the_cache_unless_it_is_there() {
    let layer = vec![7; 6_000_000];
    let world = World::of_layers(&[("a/b", &layer, &[("org.opencontainers.image.title", "large")])]);
    world.extract().await.unwrap();
    assert!(std::fs::read(world.path("large")).unwrap() == layer);
    assert_eq!(world.cache().usage().unwrap().streams, 0);
    assert_eq!(world.memory.count(RequestKind::Blob), 1);

    world.fill_cache().await;
    std::fs::remove_file(world.path("large")).unwrap();
    let before = world.memory.count(RequestKind::Blob);
    world.extract().await.unwrap();
    assert!(std::fs::read(world.path("large")).unwrap() == layer);
    assert_eq!(world.memory.count(RequestKind::Blob), before, "what is cached is not fetched again");
}

/// A compressed archive of files in no order, with more bytes than wait in memory.
fn shuffled_archive() -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let files: Vec<(String, Vec<u8>)> = (0..160)
        .map(|number| number * 67 % 160)
        .map(|number| (format!("d{}/f{number:03}", number % 2), (0..400_000).map(|_| noise()).collect()))
        .collect();
    let archive = files.iter().fold(Archive::new(), |archive, (path, bytes)| archive.file(path, 0o644, bytes));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &archive.bytes()).unwrap();
    (gzip.finish().unwrap(), files)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_fetched_once_and_leaves_nothing_in_the_cache() {
    let (layer, files) = shuffled_archive();
    let world = World::of_layers(&[(LAYER, &layer, &[])]);
    world.extract().await.unwrap();
    assert!(files.iter().all(|(path, bytes)| std::fs::read(world.path(path)).unwrap() == *bytes));
    assert_eq!(world.requested(), layer.len() as u64, "the bytes read to index it are used again");
    assert_eq!(names(world.folder.path()), ["cache", "out"]);
    let usage = world.cache().usage().unwrap();
    assert_eq!((usage.spans, usage.streams), (0, 0));
    assert!(usage.indexes < 50_000, "{} bytes of documents are cached", usage.indexes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexed_archive_is_decoded_in_its_own_order() {
    let (layer, files) = shuffled_archive();
    let world = World::of_layers(&[(LAYER, &layer, &[])]);
    drop(world.source_through(world.cache()).await.unwrap());
    world.cache().forget_stream(&Digest::of(&layer)).unwrap();
    world.memory.forget_requests();
    world.extract().await.unwrap();
    assert!(files.iter().all(|(path, bytes)| std::fs::read(world.path(path)).unwrap() == *bytes));
    // A span may be fetched twice, by two threads that need it at once; in the order of names each would be fetched several times.
    let (requested, size) = (world.requested(), layer.len() as u64);
    assert!((size..size + size / 4).contains(&requested), "{requested} of {size}");
    assert_eq!(world.cache().usage().unwrap().streams, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_in_the_cache_is_extracted_without_the_registry() {
    let (layer, files) = shuffled_archive();
    let world = World::of_layers(&[(LAYER, &layer, &[])]);
    world.fill_cache().await;
    let before = world.cache().usage().unwrap();
    world.memory.forget_requests();
    world.extract().await.unwrap();
    assert!(files.iter().all(|(path, bytes)| std::fs::read(world.path(path)).unwrap() == *bytes));
    assert_eq!(world.memory.count(RequestKind::Blob), 0);
    assert_eq!(world.cache().usage().unwrap().spans, before.spans);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_through_existing_links() {
    let archive =
        Archive::new().directory("d", 0o755).file("d/sub/f", 0o644, b"new").file("f", 0o644, b"new").link(EntryType::Link, "h", "f");
    let world = World::of(archive);
    let outside = world.folder.path().join("outside");
    std::fs::create_dir_all(outside.join("sub")).unwrap();
    for name in ["f", "h", "sub/f"] {
        std::fs::write(outside.join(name), "old").unwrap();
    }
    std::fs::create_dir_all(world.path("d")).unwrap();
    for (target, name) in [("f", "f"), ("h", "h"), ("sub", "d/sub")] {
        symlink(outside.join(target), world.path(name)).unwrap();
    }
    world.extract().await.unwrap();
    for name in ["f", "h", "sub/f"] {
        assert_eq!(std::fs::read_to_string(outside.join(name)).unwrap(), "old", "{name}");
    }
    assert_eq!((names(&outside), names(&outside.join("sub"))), (vec!["f".into(), "h".into(), "sub".into()], vec!["f".to_owned()]));
    for name in ["f", "h", "d/sub/f"] {
        assert_eq!(world.read(name), "new", "{name}");
        assert!(!world.path(name).symlink_metadata().unwrap().is_symlink(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_through_links_of_the_artifact() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let archive = Archive::new()
        .link(EntryType::Symlink, "away", target)
        .file("away/f", 0o644, b"new")
        .link(EntryType::Symlink, "up", "../..")
        .file("up/f", 0o644, b"new")
        .odd_file("../../escape", b"new")
        .odd_file("/absolute", b"new");
    let world = World::of(archive);
    world.extract().await.unwrap();
    assert!(names(outside.path()).is_empty());
    assert_eq!(names(world.folder.path()), ["cache", "out"]);
    assert!(!world.folder.path().parent().unwrap().join("escape").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_replaces_the_files_of_the_first() {
    let first = World::of(Archive::new().directory("closed", 0o555).file("closed/f", 0o444, b"one").file("kind", 0o644, b"file").link(
        EntryType::Symlink,
        "link",
        "f",
    ));
    first.extract().await.unwrap();
    let mut second =
        World::of(Archive::new().directory("closed", 0o555).file("closed/f", 0o444, b"two").file("kind/inner", 0o644, b"x").file(
            "link/inner",
            0o644,
            b"y",
        ));
    second.folder = first.folder;
    second.extract().await.unwrap();
    assert_eq!([second.read("closed/f"), second.read("kind/inner"), second.read("link/inner")], ["two", "x", "y"]);
    assert_eq!(mode(second.path("closed")), 0o555);
    assert_eq!(names(&second.path("")), ["closed", "kind", "link"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_is_replaced_by_a_file_but_a_full_one_is_not() {
    let world = World::of(Archive::new().file("a", 0o644, b"file").file("b", 0o644, b"file"));
    std::fs::create_dir_all(world.path("a")).unwrap();
    world.extract().await.unwrap();
    assert_eq!(world.read("a"), "file");
    std::fs::remove_file(world.path("b")).unwrap();
    std::fs::create_dir_all(world.path("b/inner")).unwrap();
    let error = world.extract().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotEmpty);
    assert!(error.message.contains("out/b"), "{error}");
    assert_eq!(names(&world.path("")), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_files_are_kept_and_counted_on_request() {
    let archive = Archive::new()
        .directory("d", 0o700)
        .file("d/f", 0o644, b"new")
        .file("d/g", 0o644, b"new")
        .link(EntryType::Symlink, "s", "d")
        .link(EntryType::Link, "h", "d/f");
    let mut world = World::of(archive);
    world.options.keep = true;
    std::fs::create_dir_all(world.path("d")).unwrap();
    std::fs::set_permissions(world.path("d"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(world.path("d/f"), "mine").unwrap();
    std::fs::write(world.path("s"), "mine").unwrap();
    let summary = world.extract().await.unwrap();
    assert_eq!((summary.kept.count, summary.files), (2, 2));
    assert_eq!([world.read("d/f"), world.read("d/g"), world.read("s"), world.read("h")], ["mine", "new", "mine", "new"]);
    assert_eq!(mode(world.path("d")), 0o755);
    assert_eq!(world.extract().await.unwrap().kept.count, 4);

    std::fs::remove_file(world.path("d/f")).unwrap();
    std::fs::remove_dir_all(world.path("d")).unwrap();
    std::fs::write(world.path("d"), "mine").unwrap();
    assert_eq!(world.extract().await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(world.read("d"), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_files_are_neither_fetched_nor_written() {
    let title = |name: &'static str| [("org.opencontainers.image.title", name)];
    let (one, two) = (vec![1; 3_000_000], vec![2; 3_000_000]);
    let (first, second) = (title("one"), title("two"));
    let layers: [PlainLayer<'_>; 2] = [("a/b", &one, &first), ("a/b", &two, &second)];
    let world = World::of_layers(&layers);
    world.extract().await.unwrap();
    let before = world.path("one").metadata().unwrap();
    std::fs::write(world.path("two"), "changed").unwrap();
    std::fs::set_permissions(world.path("one"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_dir_all(world.folder.path().join("cache")).unwrap();
    world.memory.forget_requests();
    let summary = world.extract().await.unwrap();
    assert_eq!((summary.files, summary.unchanged), (1, 1));
    let after = world.path("one").metadata().unwrap();
    assert_eq!((before.ino(), before.mode(), before.mtime()), (after.ino(), after.mode(), after.mtime()));
    let asked: u64 = world.memory.requests().iter().filter_map(|request| request.range.clone()).map(|range| range.end - range.start).sum();
    assert_eq!(asked, 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_glob_selects_whole_subtrees_and_fetches_no_other_blob() {
    let (first, second, third) = ("docs/a/x.md", "docs/b.txt", "bin/tool");
    let titled = [first, second, third].map(|name| [("org.opencontainers.image.title", name)]);
    let layers: Vec<PlainLayer<'_>> = titled.iter().map(|title| ("a/b", title[0].1.as_bytes(), title.as_slice())).collect();
    for (globs, expected) in [
        (&["docs"][..], &[first, second][..]),
        (&["docs/a/"], &[first]),
        (&["*/*.txt", "./bin/*"], &[second, third]),
        (&["**/*.md"], &[first]),
        (&["*.md"], &[]),
        (&["nothing"], &[]),
    ] {
        let mut world = World::of_layers(&layers);
        world.options.selection = Selection::new(&globs.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let source = world.source().await.unwrap();
        let survey = survey(&source.artifact, &world.options.selection);
        assert_eq!(survey.files, expected.len() as u64, "{globs:?}");
        world.extract().await.unwrap();
        let there: Vec<&str> = [first, second, third].into_iter().filter(|name| world.path(name).exists()).collect();
        assert_eq!(there, expected, "{globs:?}");
        assert_eq!(world.memory.count(RequestKind::Blob), expected.len(), "{globs:?}");
        let folders = names(&world.path("")).len();
        assert!(expected.is_empty() == (folders == 0), "{globs:?}");
    }
    assert_eq!(Selection::new(&["/".to_owned()]).unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_wrong_digest_never_gets_its_name() {
    let title = [("org.opencontainers.image.title", "large")];
    let layer: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    let world = World::of_layers(&[("a/b", &layer, &title)]);
    std::fs::create_dir_all(world.path("")).unwrap();
    std::fs::write(world.path("large"), "old").unwrap();
    world.memory.plan(RequestKind::Blob, 0, 1, Fault::Flipped(10));
    let error = world.extract().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity, "{error}");
    assert_eq!((names(&world.path("")), world.read("large")), (vec!["large".to_owned()], "old".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_extraction_leaves_only_complete_files() {
    let (first, second) = ([("org.opencontainers.image.title", "one")], [("org.opencontainers.image.title", "two")]);
    let large = vec![7; 5_000_000];
    let world = World::of_layers(&[("a/b", b"small", &first), ("a/b", &large, &second)]);
    world.memory.plan(RequestKind::Blob, 0, 9, Fault::StallAfter(1_000_000));
    let extraction = tokio::time::timeout(Duration::from_millis(300), world.extract());
    assert!(extraction.await.is_err(), "it waits for bytes that never come");
    // By now it is dropped and the threads have ended.
    let left: Vec<String> = names(&world.path("")).into_iter().filter(|name| name != "one").collect();
    assert_eq!(left, [""; 0]);
    world.memory.mend();
    world.memory.release();
    world.extract().await.unwrap();
    assert!(world.read("one") == "small" && std::fs::read(world.path("two")).unwrap() == large);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_nest_as_deep_as_paths_are_long() {
    let path = "d/".repeat(400) + "f";
    let world = World::of(Archive::new().file(&path, 0o644, b"deep"));
    process::raise_open_file_limit();
    world.extract().await.unwrap();
    assert_eq!(world.read(&path), "deep");
}

#[test]
fn a_target_that_is_not_a_directory_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(Target::open(&file).map(drop).unwrap_err().kind, ErrorKind::NotDirectory);
    Target::open(&folder.path().join("a/b/c")).unwrap();
    assert!(folder.path().join("a/b/c").is_dir());
}
