//! Reads that the kernel answers alone: of what it has cached on mounts for small files, and of large files in the cache.

use crate::caching::occupied;
use crate::crashes::kill;
use crate::support::artifacts::{Draft, LAYER, gzip, noise, tar};
use crate::support::mounting::{Home, Mount, text};
use crate::support::skip::{Need, lacks};
use rustix::process::{Signal, kill_process};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// As root, where the kernel can read files by itself. Without that right, reads go through the daemon.
const NATIVE: [Need; 2] = [Need::Fuse, Need::Passthrough];
const SMALL_CACHE: [&str; 5] = ["--read-only", "--cache-size", "8MiB", "--cache-min-free", "0"];

/// The output of a program that runs while the daemon is stopped: whatever it reads, the kernel reads alone. `None` if it waits for the daemon.
fn while_stopped(mount: &Mount<'_>, program: &mut Command) -> Option<String> {
    let daemon = mount.daemon();
    kill_process(daemon, Signal::STOP).unwrap();
    let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut ended = false;
    while !ended && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
        ended = child.try_wait().unwrap().is_some();
    }
    kill_process(daemon, Signal::CONT).unwrap();
    let output = child.wait_with_output().unwrap();
    ended.then(|| String::from_utf8(output.stdout).unwrap())
}

/// A layout with an image of one layer.
fn image(files: &[(&str, &[u8])]) -> Draft {
    let mut draft = Draft::new();
    let layer = draft.blob(&format!("{LAYER}+gzip"), &gzip(&tar(files)));
    draft.image("v1", &[layer]);
    draft
}

fn source(draft: &Draft) -> String {
    format!("oci:{}:v1", draft.path().display())
}

#[test]
fn the_profile_for_small_files_opens_and_reads_cached_files_without_the_daemon() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let files: Vec<(String, Vec<u8>)> = (0..50).map(|number| (format!("d/f{number:02}"), noise(number, 6000))).collect();
    let draft = image(&files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>());
    let home = Home::new();
    let mount = home.mount(&source(&draft), &["--read-only", "--profile", "small-files"]);
    let paths: Vec<String> = files.iter().map(|(name, _)| mount.path(name).display().to_string()).collect();
    let absent = mount.path("d/absent");
    let mut program = Command::new("sh");
    program.args(["-c", &format!("cat {} | sha256sum; cat {} 2>/dev/null || echo absent", paths.join(" "), absent.display())]);
    let first = String::from_utf8(program.output().unwrap().stdout).unwrap();
    let all: Vec<u8> = files.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(first, format!("{}  -\nabsent\n", crate::support::artifacts::digest(&all).trim_start_matches("sha256:")));
    assert_eq!(while_stopped(&mount, &mut program), Some(first));
    drop(program);
    mount.unmount();
}

#[test]
fn the_profile_for_small_files_is_refused_where_it_would_show_stale_or_unverified_pages() {
    let draft = image(&[("file", b"x")]);
    let home = Home::new();
    let point = home.path("point");
    std::fs::create_dir(&point).unwrap();
    let refused = |flags: &[&str], word: &str| {
        let output = home.run(&[&["mount", &source(&draft), point.to_str().unwrap(), "--profile=small-files"], flags].concat());
        assert!(output.status.code() == Some(2) && text(&output).contains(word), "{}", text(&output));
    };
    refused(&[], "--read-only");
    refused(&["--read-only", "--verify=auto"], "--verify strict");
}

/// Reads an open file in two ways, and prints whether both have these bytes. It is not the standard input of Python, which would ask the daemon
/// whether that is a terminal.
fn reads_of(file: &File, expected: &Path) -> Command {
    let script = "import mmap, os, sys\nexpected = open(sys.argv[1], 'rb').read()\n\
        print(os.pread(3, 1 << 30, 0) == expected, mmap.mmap(3, 0, prot=mmap.PROT_READ)[:] == expected)";
    let mut program = Command::new("sh");
    // Programs of other tests must not inherit the file.
    program.args(["-c", "exec python3 -c \"$0\" \"$1\" 3<&0 </dev/null", script]).arg(expected).stdin(file.try_clone().unwrap());
    program
}

#[test]
fn cached_large_files_are_read_and_mapped_by_the_kernel_alone() {
    if lacks(&NATIVE) {
        return;
    }
    let big = noise(1, 3 * MIB);
    let draft = image(&[("small", b"x"), ("big", &big)]);
    let home = Home::new();
    let expected = home.write("expected", &big);
    let mount = home.mount(&source(&draft), &["--read-only"]);
    let incomplete = File::open(mount.path("big")).unwrap();
    assert!(mount.cat("big").unwrap() == big);
    // All opens of an inode are of one kind.
    let follows = File::open(mount.path("big")).unwrap();
    drop(incomplete);
    drop(follows);
    let [first, second] = [(); 2].map(|()| File::open(mount.path("big")).unwrap());
    let alone = |file: &File| while_stopped(&mount, &mut reads_of(file, &expected));
    assert_eq!([alone(&first), alone(&second)], [(); 2].map(|()| Some("True True\n".to_owned())));
    drop(first);
    let third = File::open(mount.path("big")).unwrap();
    assert_eq!([alone(&second), alone(&third)], [(); 2].map(|()| Some("True True\n".to_owned())));
    drop((second, third));
    mount.unmount();
}

#[test]
fn a_file_read_by_the_kernel_survives_eviction_clearing_and_the_death_of_its_daemon() {
    if lacks(&NATIVE) {
        return;
    }
    let big = noise(2, 3 * MIB);
    let draft = image(&[("big", &big)]);
    let others: Vec<(String, Vec<u8>)> = (0..16).map(|number| (format!("f{number:02}"), noise(50 + number, MIB))).collect();
    let crowd = image(&others.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>());
    let home = Home::new();
    let expected = home.write("expected", &big);
    let mount = home.mount(&source(&draft), &SMALL_CACHE);
    assert!(mount.cat("big").unwrap() == big);
    let open = File::open(mount.path("big")).unwrap();
    let right = || String::from_utf8(reads_of(&open, &expected).output().unwrap().stdout).unwrap();
    assert_eq!(while_stopped(&mount, &mut reads_of(&open, &expected)), Some("True True\n".to_owned()), "the kernel reads it");
    let evict = || {
        let crowding = home.mount(&source(&crowd), &SMALL_CACHE);
        for (name, bytes) in &others {
            assert!(crowding.cat(name).unwrap() == *bytes, "wrong bytes in {name}");
        }
        crowding.unmount();
    };
    // By another daemon, which shares the cache; then with the first one dead.
    evict();
    assert_eq!(right(), "True True\n");
    kill(&mount);
    evict();
    assert_eq!(right(), "True True\n");
    assert!(occupied(&home) <= 10 * MIB as u64, "{} bytes on disk", occupied(&home));
    let cleared = home.run(&["cache", "clear", "--cache-dir", home.path("cache").to_str().unwrap()]);
    assert!(cleared.status.success(), "{}", text(&cleared));
    assert_eq!(right(), "True True\n");
    let mut last = [0; 10];
    open.read_exact_at(&mut last, big.len() as u64 - 10).unwrap();
    assert_eq!(last, big[big.len() - 10..]);
    drop(open);
    drop(mount);
}
