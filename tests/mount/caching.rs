//! The cache through a mount: the budget holds, content larger than it is read correctly without many refetches, pins stay, clearing takes nothing
//! from open files, and damage on disk never reaches a reader.

use crate::crashes::{disk::Disk, kill};
use crate::support::artifacts::{Draft, LAYER, gzip, noise, tar, zstandard};
use crate::support::is_long;
use crate::support::mounting::{Home, Mount, text};
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
const MIB: usize = 1 << 20;
const SMALL: [&str; 4] = ["--cache-size", "8MiB", "--cache-min-free", "0"];

/// All files below a directory. Files that vanish meanwhile are omitted.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found
}

/// Bytes that content, indexes, trees and manifests in the cache occupy on disk; the tables of spans do not count.
pub fn occupied(home: &Home) -> u64 {
    let folders = ["cache/v2/streams", "cache/v2/work", "cache/v2/documents"].map(|name| files_below(&home.path(name)));
    let content = folders.iter().flatten().filter(|file| !file.ends_with("table"));
    content.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
}

/// Runs `work` and returns the peak disk usage of the cache's content.
fn most_occupied(home: &Home, work: impl FnOnce()) -> u64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(occupied(home));
            }
            most.max(occupied(home))
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        let most = watcher.join().unwrap();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        most
    })
}

/// Names and contents of sixteen files of 1.5 MiB: three times the small budget.
fn sixteen() -> Vec<(String, Vec<u8>)> {
    (0..16).map(|number| (format!("f{number:02}"), noise(100 + number, 3 * MIB / 2))).collect()
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    tar(&files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>())
}

#[test]
fn the_budget_holds_while_artifacts_larger_than_it_are_read() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let (one, two) = (noise(1, 10 * MIB), noise(2, 10 * MIB));
    let packed = sixteen();
    let mut draft = Draft::new();
    draft.files("raw", &[("one", &one), ("two", &two)]);
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&packed)));
    draft.image("packed", &[layer]);
    draft.layout().push(&registry.url(), "data");
    let home = Home::new();
    let mount = home.mount(&registry.host(), &SMALL);
    let most = most_occupied(&home, || {
        for _ in 0..2 {
            assert!(mount.cat("data/raw/one").unwrap() == one, "wrong bytes");
            for (name, bytes) in &packed {
                assert!(mount.cat(&format!("data/packed/{name}")).unwrap() == *bytes, "wrong bytes in {name}");
            }
            assert!(mount.cat("data/raw/two").unwrap() == two, "wrong bytes");
        }
    });
    // Looking at many files is not atomic (released space may be counted together with its reuse), and the file system's own blocks count towards
    // the reported size of sparse files.
    assert!(most <= 10 * MIB as u64, "{most} bytes on disk");
    assert!(most > 4 * MIB as u64, "the cache is used: {most} bytes on disk");
    mount.unmount();
}

/// Reads a layer three times the budget: in order, then at random. Returns the size of its blob, and the bytes sent until it was listed, for
/// sequential reading, and for the random reads.
fn larger_than_the_budget(compress: fn(&[u8]) -> Vec<u8>, suffix: &str) -> [u64; 4] {
    let registry = Registry::plain();
    let files = sixteen();
    let mut draft = Draft::new();
    let layer = draft.blob(&format!("{LAYER}+{suffix}"), &compress(&archive(&files)));
    draft.image("v1", std::slice::from_ref(&layer));
    draft.layout().push(&registry.url(), "data");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/data:v1", proxy.host()), &SMALL);
    let path = layer["digest"].as_str().unwrap();
    let sent = || {
        let sent = proxy.sent(path);
        proxy.forget();
        sent
    };
    assert_eq!(mount.ls("").unwrap().len(), 16);
    let listing = sent();
    for (name, bytes) in &files {
        assert!(mount.cat(name).unwrap() == *bytes, "wrong bytes in {name}");
    }
    let in_order = sent();
    for step in 0..8_usize {
        let (name, bytes) = &files[step * 7 % 16];
        let at = step * 150_001 % bytes.len();
        let mut read = vec![0; 5000.min(bytes.len() - at)];
        std::fs::File::open(mount.path(name)).unwrap().read_exact_at(&mut read, at as u64).unwrap();
        assert!(read == bytes[at..at + read.len()], "wrong bytes in {name} at {at}");
    }
    let at_random = sent();
    mount.unmount();
    [layer["size"].as_u64().unwrap(), listing, in_order, at_random]
}

#[test]
fn a_gzip_layer_larger_than_the_budget_is_fetched_once_for_its_index_and_once_for_reading() {
    if lacks(&NEEDS) {
        return;
    }
    let [size, listing, in_order, at_random] = larger_than_the_budget(gzip, "gzip");
    assert_eq!(listing, size);
    // On a busy machine, prefetched spans may be evicted before they are read.
    assert!(in_order < 2 * size, "{in_order} bytes were sent of {size}");
    assert!(at_random <= size, "a span restarts by itself: {at_random} bytes were sent of {size}");
}

#[test]
fn a_single_frame_larger_than_the_budget_is_decoded_in_one_pass_by_a_sequential_reader() {
    if lacks(&NEEDS) {
        return;
    }
    let [size, listing, in_order, _] = larger_than_the_budget(zstandard, "zstd");
    assert_eq!(listing, size);
    // A decoder per span would send about eight times the layer. On a busy machine the kernel's read-ahead may overtake the reader, which costs a
    // restart; where the order of reads is fixed, another test shows that everything is sent once.
    assert!(in_order <= 2 * size, "{in_order} bytes were sent of {size}");
}

fn run(home: &Home, args: &[&str]) -> String {
    let output = home.run(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_pinned_artifact_is_never_evicted() {
    if lacks(&NEEDS) {
        return;
    }
    let mut registry = Registry::plain();
    let (kept, other) = (noise(3, 2 * MIB), noise(4, 12 * MIB));
    let layered = vec![("inside".to_owned(), noise(5, MIB))];
    let mut draft = Draft::new();
    draft.files("kept", &[("file", &kept)]);
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&layered)));
    draft.image("packed", &[layer]);
    draft.files("other", &[("file", &other)]);
    draft.layout().push(&registry.url(), "data");
    let home = Home::new();
    let cache = home.path("cache");
    let in_cache = [&["--cache-dir", cache.to_str().unwrap()], SMALL.as_slice()].concat();
    for tag in ["kept", "packed"] {
        run(&home, &[&["cache", "pin", &format!("{}/data:{tag}", registry.host())], in_cache.as_slice()].concat());
    }
    let mount = home.mount(&registry.host(), &SMALL);
    for _ in 0..2 {
        assert!(mount.cat("data/other/file").unwrap() == other, "wrong bytes");
    }
    assert!(mount.ls("data/kept").unwrap() == ["file"] && mount.ls("data/packed").unwrap() == ["inside"]);
    run(&home, &[&["cache", "clear"], in_cache.as_slice()].concat());
    registry.stop();
    assert!(mount.cat("data/kept/file").unwrap() == kept, "wrong bytes");
    assert!(mount.cat("data/packed/inside").unwrap() == layered[0].1, "wrong bytes");
    mount.unmount();
}

#[test]
fn warmed_artifacts_and_paths_are_read_without_the_registry() {
    if lacks(&NEEDS) {
        return;
    }
    let mut registry = Registry::plain();
    let (one, two) = (noise(3, 2 * MIB), noise(4, 2 * MIB));
    let layered = vec![("lib/a".to_owned(), noise(5, MIB)), ("lib/b".to_owned(), noise(6, 3 * MIB)), ("top".to_owned(), noise(7, MIB))];
    let mut draft = Draft::new();
    draft.files("raw", &[("one", &one), ("two", &two)]);
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&layered)));
    draft.image("packed", &[layer]);
    draft.layout().push(&registry.url(), "data");
    let home = Home::new();
    let cache = home.path("cache");
    let in_cache = ["--cache-dir", cache.to_str().unwrap()];
    let warm = |args: &[&str]| run(&home, &[&["warm"], args].concat());
    let data = format!("{}/data", registry.host());
    let report = warm(&[&format!("{data}:raw/one"), "--format", "json", "--cache-dir", cache.to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((report["path"].as_str(), report["bytes"].as_u64()), (Some("one"), Some(one.len() as u64)), "{report}");
    let failed = |args: &[&str]| home.run(&[&["warm"], args, in_cache.as_slice()].concat()).status.code();
    assert_eq!(failed(&[&format!("{data}:raw/three")]), Some(10));
    assert_eq!(failed(&[&format!("{data}:raw"), "--path", "t*/x"]), Some(10));
    assert_eq!(failed(&[&format!("{data}:raw/one"), "--path", "two"]), Some(2));
    assert!(occupied(&home) < 3 * MIB as u64, "only one file was fetched");
    let mount = home.mount(&registry.host(), &[]);
    // The mount's own cache, without being told.
    assert!(warm(&[mount.path("data/packed/lib").to_str().unwrap()]).contains("4.0 MiB in the cache"));
    registry.stop();
    assert!(mount.cat("data/raw/one").unwrap() == one, "wrong bytes");
    assert!(mount.cat("data/packed/lib/a").unwrap() == layered[0].1 && mount.cat("data/packed/lib/b").unwrap() == layered[1].1);
    assert!(mount.cat("data/raw/two").is_err(), "nobody fetched it");
    registry.start_again();
    warm(&[mount.path("data/packed").to_str().unwrap(), mount.path("data/raw").to_str().unwrap()]);
    registry.stop();
    assert!(mount.cat("data/packed/top").unwrap() == layered[2].1 && mount.cat("data/raw/two").unwrap() == two, "wrong bytes");
    mount.unmount();
}

#[test]
fn clearing_the_cache_takes_nothing_from_open_files() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let raw = noise(6, 6 * MIB);
    let packed = vec![("big".to_owned(), noise(7, 5 * MIB)), ("small".to_owned(), noise(8, 1000))];
    let mut draft = Draft::new();
    draft.files("raw", &[("file", &raw)]);
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&packed)));
    draft.image("packed", &[layer]);
    draft.layout().push(&registry.url(), "data");
    let home = Home::new();
    let mount = home.mount(&registry.host(), &[]);
    let mut open: Vec<(std::fs::File, &[u8])> = [("data/raw/file", raw.as_slice()), ("data/packed/big", &packed[0].1)]
        .map(|(name, bytes)| (std::fs::File::open(mount.path(name)).unwrap(), bytes))
        .into();
    for (file, bytes) in &mut open {
        let mut first = vec![0; MIB];
        file.read_exact(&mut first).unwrap();
        assert!(first == bytes[..MIB], "wrong bytes");
    }
    let cache = home.path("cache");
    run(&home, &["cache", "clear", "--cache-dir", cache.to_str().unwrap()]);
    for (file, bytes) in &mut open {
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        assert!(rest == bytes[MIB..], "wrong bytes");
        file.seek(SeekFrom::Start(0)).unwrap();
        rest.clear();
        file.read_to_end(&mut rest).unwrap();
        assert!(rest == *bytes, "wrong bytes");
    }
    drop(open);
    assert!(mount.cat("data/packed/small").unwrap() == packed[1].1, "wrong bytes");
    mount.unmount();
}

/// Deleted cache files that a daemon still uses: open, and mapped.
fn deleted(mount: &Mount, cache: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let pid = mount.daemon().as_raw_nonzero();
    let of_cache = |path: &str| path.starts_with(cache.to_str().unwrap()) && path.ends_with(" (deleted)");
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
    let open = links.filter(|target| of_cache(&target.to_string_lossy())).collect();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mapped = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| format!("/{path}"));
    (open, mapped.filter(|path| of_cache(path)).collect())
}

#[test]
fn clearing_the_cache_frees_what_a_running_mount_has_open() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let raw = noise(12, 6 * MIB);
    let packed = vec![("big".to_owned(), noise(13, 5 * MIB)), ("small".to_owned(), noise(14, 1000))];
    let mut draft = Draft::new();
    draft.files("raw", &[("file", &raw)]);
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&packed)));
    draft.image("packed", &[layer]);
    draft.layout().push(&registry.url(), "data");
    let (home, other) = (Home::new(), Home::new());
    let mount = home.mount(&registry.host(), &[]);
    let elsewhere = other.mount(&registry.host(), &[]);
    let cache = home.path("cache");
    let clear =
        || run(&home, &["cache", "clear", "--cache-dir", cache.to_str().unwrap(), "--state-dir", home.path("state").to_str().unwrap()]);
    let mut held = std::fs::File::open(mount.path("data/raw/file")).unwrap();
    let mut first = vec![0; MIB];
    held.read_exact(&mut first).unwrap();
    for name in ["data/raw/file", "data/packed/big", "data/packed/small"] {
        mount.cat(name).unwrap();
    }
    clear();
    let (open, mapped) = deleted(&mount, &cache);
    assert_eq!(open, Vec::<PathBuf>::new(), "{mapped:?}");
    // Directories known to the kernel need their trees, and the open file its index and table; the layer's index is not needed.
    let needed = |path: &&String| ["/documents/tree/", "/table", ".raw.plain"].iter().any(|part| path.contains(part));
    assert!(mapped.iter().all(|path| needed(&path)), "{mapped:?}");
    assert!(mapped.iter().filter(|path| path.contains("/table")).count() <= 1, "{mapped:?}");
    let mut rest = Vec::new();
    held.read_to_end(&mut rest).unwrap();
    assert!(rest == raw[MIB..], "wrong bytes");
    drop(held);
    assert!(mount.cat("data/packed/big").unwrap() == packed[0].1, "wrong bytes");
    mount.unmount();
    elsewhere.unmount();
}

/// Names, modes, whether the time is the archived one (others show the start of the mount), and contents of all files below a tag.
fn snapshot(mount: &Mount, folder: &str) -> Vec<(PathBuf, u32, bool, Vec<u8>)> {
    let mut files = files_below(&mount.path(folder));
    files.sort();
    let look = |file: PathBuf| {
        let about = file.symlink_metadata().unwrap();
        let bytes = if about.is_file() { std::fs::read(&file).unwrap() } else { Vec::new() };
        (file.strip_prefix(mount.root()).unwrap().to_owned(), about.mode(), about.mtime() == 1_700_000_000, bytes)
    };
    files.into_iter().map(look).collect()
}

/// Damages every cache file at another place in each round: the first round hits the headers, the last truncates.
fn damage(cache: &Path, round: u64) {
    let mut damaged = 0;
    for path in files_below(cache) {
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        if length == 0 {
            continue;
        }
        damaged += 1;
        if round == 3 {
            file.set_len(length / 2).unwrap();
            continue;
        }
        let mut at = (length / 3 * round + 17) % length;
        while at < length {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            at += 50_000;
        }
    }
    assert!(damaged > 5, "{damaged} files");
}

/// Two files of every kind in the cache: kinds of documents, tables, main files, members, and the ledger.
fn two_of_each_kind(cache: &Path) -> Vec<PathBuf> {
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in files_below(cache) {
        let folder = path.parent().unwrap();
        let kind = match path.extension().filter(|_| !folder.ends_with("pins")) {
            Some(extension) if path.to_string_lossy().contains("/streams/") && extension != "main" => "member".to_owned(),
            Some(extension) if extension == "main" => "main".to_owned(),
            Some(extension) if extension == "lock" => continue,
            _ if path.ends_with("table") => "table".to_owned(),
            _ => folder.file_name().unwrap().to_string_lossy().into_owned(),
        };
        kinds.entry(kind).or_default().push(path);
    }
    for kind in ["table", "main", "member", "index", "tree", "manifest", "seen", "v2"] {
        assert!(kinds.contains_key(kind), "no {kind} in {:?}", kinds.keys());
    }
    kinds.into_values().flat_map(|files| files.into_iter().take(2)).collect()
}

/// Swaps the files in pairs; over as many rounds as there are files, every two of them are swapped once.
fn swap(files: &[PathBuf], round: usize) {
    let count = files.len();
    for one in 0..count {
        let other = (round + count - one) % count;
        if one < other {
            let aside = files[one].with_extension("aside");
            std::fs::rename(&files[one], &aside).unwrap();
            std::fs::rename(&files[other], &files[one]).unwrap();
            std::fs::rename(&aside, &files[other]).unwrap();
        }
    }
}

#[test]
fn damage_in_the_cache_between_mounts_never_reaches_a_reader() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let raw = noise(9, 3 * MIB);
    let packed: Vec<(String, Vec<u8>)> = (0..40).map(|number| (format!("d/f{number}"), noise(200 + number, 40_000))).collect();
    let large = [("large".to_owned(), noise(300, 3 * MIB / 2))];
    let mut draft = Draft::new();
    draft.files("raw", &[("file", &raw), ("short", b"a few bytes\n")]);
    draft.files("other", &[("file", &noise(10, 3 * MIB)), ("short", b"other bytes\n")]);
    let layers = [
        draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&packed[..30]))),
        draft.blob(&format!("{LAYER}+zstd"), &zstandard(&archive(&packed[20..]))),
        draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&large))),
    ];
    draft.image("packed", &layers);
    // The same names with other bytes: if trees or indexes are swapped, only the bytes differ.
    let others: Vec<(String, Vec<u8>)> = (0..40).map(|number| (format!("d/f{number}"), noise(400 + number, 40_000))).collect();
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&others)));
    draft.image("repacked", &[layer]);
    draft.layout().push(&registry.url(), "data");
    let (home, tags) = (Home::new(), ["raw", "other", "packed", "repacked"]);
    let read = |home: &Home| {
        let mount = home.mount(&registry.host(), &[]);
        let found = tags.map(|tag| snapshot(&mount, &format!("data/{tag}")));
        mount.unmount();
        found
    };
    let before = read(&home);
    assert_eq!(before.each_ref().map(Vec::len), [2, 2, 41, 40]);
    for round in 0..4 {
        damage(&home.path("cache/v2"), round);
        assert!(read(&home) == before, "damage {round}: something reads otherwise");
    }
    let count = two_of_each_kind(&home.path("cache/v2")).len();
    for round in 0..count {
        swap(&two_of_each_kind(&home.path("cache/v2")), round);
        assert!(read(&home) == before, "swap {round}: something reads otherwise");
    }
}

#[test]
fn after_a_power_cut_of_the_cache_s_disk_all_reads_are_correct() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("docker-registry"), Need::Tool("mkfs.ext4"), Need::Tool("losetup")]) {
        return;
    }
    let registry = Registry::plain();
    let packed = sixteen();
    let mut draft = Draft::new();
    draft.files("raw", &[("file", &noise(11, 5 * MIB))]);
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&packed)));
    draft.image("packed", &[layer]);
    draft.layout().push(&registry.url(), "data");
    let home = Home::new();
    let disk = Disk::new(&home, "cache", 64);
    let read = |mount: &Mount| ["data/raw", "data/packed"].map(|tag| snapshot(mount, tag));
    // A cache that holds only part of it, so that power cuts hit evictions too.
    let start = || home.mount(&registry.host(), &["--cache-size", "16MiB", "--cache-min-free", "0"]);
    let mount = start();
    let before = read(&mount);
    mount.unmount();
    for round in 0..if is_long() { 50 } else { 3 } {
        let mount = start();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| files_below(&mount.path("data/packed")).iter().for_each(|path| drop(std::fs::read(path))));
            std::thread::sleep(Duration::from_millis(round * 137 % 400));
            disk.cut();
            kill(&mount);
            reader.join().unwrap();
        });
        drop(mount);
        disk.power_up();
        let mount = start();
        assert!(read(&mount) == before, "round {round}: something reads otherwise");
        mount.unmount();
    }
}

#[test]
fn a_listing_needs_no_data_after_eviction_and_in_another_mount() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    let packed = sixteen();
    let mut draft = Draft::new();
    let layers = [
        draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&packed[..8]))),
        draft.blob(&format!("{LAYER}+gzip"), &gzip(&archive(&packed[8..]))),
    ];
    draft.image("v1", &layers);
    draft.files("other", &[("file", &noise(10, 20 * MIB))]);
    draft.layout().push(&registry.url(), "data");
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&proxy.host(), &SMALL);
    let find = |mount: &Mount| {
        let output = std::process::Command::new("timeout").arg("60").arg("find").arg(mount.path("data/v1")).arg("-ls").output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 17, "{}", text(&output));
    };
    find(&mount);
    mount.cat("data/other/file").unwrap();
    proxy.forget();
    find(&mount);
    assert_eq!(proxy.count("GET", "/blobs/"), 0, "{:?}", proxy.requests());
    mount.unmount();
    let again = home.mount(&format!("{}/data", proxy.host()), &SMALL);
    proxy.forget();
    let output = std::process::Command::new("timeout").arg("60").arg("find").arg(again.path("v1")).output().unwrap();
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 17, "{}", text(&output));
    assert_eq!(proxy.count("GET", "/blobs/"), 0, "{:?}", proxy.requests());
    again.unmount();
}
