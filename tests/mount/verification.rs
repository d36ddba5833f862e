//! Bytes that do not match the digest: strict readers get none of them, trusting readers get an error as soon as it is known; and nothing of an
//! encrypted artifact is readable in the cache.

use crate::support::artifacts::{Draft, noise};
use crate::support::layouts::{Layout, fixtures};
use crate::support::mounting::Home;
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rustix::io::Errno;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
const MIB: usize = 1 << 20;

/// A registry with `data:v1`, one file of 8 MiB, and the digests of its manifest and its blob.
fn one_large(bytes: &[u8]) -> (Registry, String, String) {
    let registry = Registry::plain();
    let mut draft = Draft::new();
    draft.files("v1", &[("big.bin", bytes)]);
    draft.layout().push(&registry.url(), "data");
    let manifest = draft.layout().entries()[0]["digest"].as_str().unwrap().to_owned();
    let blob = draft.layout().manifest("v1")["layers"][0]["digest"].as_str().unwrap().to_owned();
    (registry, manifest, blob)
}

/// Flips a bit of a blob in the registry's storage.
fn flip(registry: &Registry, blob: &str, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(registry.blob_file(blob)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn is_broken(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BADMSG.raw_os_error())
}

fn attribute(path: &Path, name: &str) -> String {
    let mut value = vec![0; 256];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
    String::from_utf8(value[..length].to_vec()).unwrap()
}

#[test]
fn a_blob_with_a_wrong_digest_gives_no_byte_to_a_mount_by_digest() {
    if lacks(&NEEDS) {
        return;
    }
    let bytes = noise(20, 8 * MIB);
    let (registry, manifest, blob) = one_large(&bytes);
    flip(&registry, &blob, 8 * MIB as u64 - 1);
    let home = Home::new();
    for (source, flags) in
        [(format!("{}/data@{manifest}", registry.host()), &[][..]), (format!("{}/data:v1", registry.host()), &["--verify", "strict"])]
    {
        let mount = home.mount(&source, flags);
        for _ in 0..2 {
            let mut some = [0];
            let read = std::fs::File::open(mount.path("big.bin")).and_then(|mut file| file.read(&mut some));
            assert!(is_broken(&read.unwrap_err()), "{source}");
        }
        mount.unmount();
    }
    // In a mount of a prefix, a path by digest is just as strict.
    let mount = home.mount(&registry.host(), &[]);
    let path = format!("data/@{}/big.bin", manifest.replace(':', "-"));
    assert!(is_broken(&mount.cat(&path).unwrap_err()));
    flip(&registry, &blob, 8 * MIB as u64 - 1);
    assert!(mount.cat(&path).unwrap() == bytes, "a failure is not remembered");
    mount.unmount();
}

#[test]
fn a_large_blob_streams_and_is_partial_until_verified() {
    if lacks(&NEEDS) {
        return;
    }
    let bytes = noise(21, 64 * MIB);
    let (registry, ..) = one_large(&bytes);
    let home = Home::new();
    let mount = home.mount(&registry.host(), &[]);
    let path = mount.path("data/v1/big.bin");
    let file = std::fs::File::open(&path).unwrap();
    let mut first = [0; 4096];
    file.read_exact_at(&mut first, 40 * MIB as u64).unwrap();
    assert!(first == bytes[40 * MIB..40 * MIB + 4096], "wrong bytes");
    assert_eq!(attribute(&path, "user.oci.verified"), "partial");
    assert!(mount.cat("data/v1/big.bin").unwrap() == bytes, "wrong bytes");
    let deadline = Instant::now() + Duration::from_secs(60);
    while attribute(&path, "user.oci.verified") != "whole" {
        assert!(Instant::now() < deadline, "never whole");
        std::thread::yield_now();
    }
    drop(file);
    mount.unmount();
}

#[test]
fn a_streaming_blob_that_proves_wrong_stops_being_readable() {
    if lacks(&NEEDS) {
        return;
    }
    let bytes = noise(22, 8 * MIB);
    let (registry, _, blob) = one_large(&bytes);
    flip(&registry, &blob, 8 * MIB as u64 - 1);
    let home = Home::new();
    let mount = home.mount(&registry.host(), &[]);
    let path = mount.path("data/v1/big.bin");
    let mut first = vec![0; MIB];
    std::fs::File::open(&path).unwrap().read_exact(&mut first).unwrap();
    assert!(first == bytes[..MIB], "the bytes before are those of the registry");
    // Reading all of it fails, and so do all later reads.
    let copied = home.path("copy");
    let copy = std::process::Command::new("cp").arg(&path).arg(&copied).output().unwrap();
    assert!(!copy.status.success(), "a copy of wrong bytes succeeds");
    assert!(is_broken(&std::fs::File::open(&path).and_then(|mut file| file.read(&mut first)).unwrap_err()));
    mount.unmount();
    let again = home.mount(&format!("{}/data:v1", registry.host()), &["--verify", "strict"]);
    assert!(is_broken(&again.cat("big.bin").unwrap_err()), "nothing wrong was kept as right");
    again.unmount();
}

/// All bytes of all files below a directory, and their names.
fn everything_below(folder: &Path, whole: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        whole.extend(entry.path().as_os_str().as_encoded_bytes());
        if entry.file_type().unwrap().is_dir() {
            everything_below(&entry.path(), whole);
        } else {
            whole.extend(std::fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn nothing_of_an_encrypted_artifact_is_readable_on_disk() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::plain();
    Layout::fixture("oci-sync-rust").push(&registry.url(), "team/app");
    let home = Home::new();
    let file = home.write("passphrase", "correct horse battery staple\n");
    let flags = ["--passphrase-file", file.to_str().unwrap()];
    let mount = home.mount(&format!("{}/team", registry.host()), &flags);
    mount.compare(&fixtures().join("oci-sync-rust/expected/sealed.tsv"), "app/sealed").unwrap();
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    let mut folders = vec![mount.path("app/sealed")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            // Short names and contents occur anywhere by chance.
            secrets.push(entry.file_name().into_encoded_bytes());
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_type().unwrap().is_file() {
                let mut bytes = std::fs::read(entry.path()).unwrap();
                bytes.truncate(32);
                secrets.push(bytes);
            }
        }
    }
    secrets.retain(|secret| secret.len() >= 8 && secret.iter().any(|byte| *byte != 0));
    secrets.push(b"correct horse".to_vec());
    assert!(secrets.len() > 3, "{} secrets", secrets.len());
    mount.unmount();
    let mut stored = Vec::new();
    for folder in ["cache", "state"] {
        everything_below(&home.path(folder), &mut stored);
    }
    for secret in secrets {
        let readable = stored.windows(secret.len()).any(|window| window == secret);
        assert!(!readable, "on disk: {}", String::from_utf8_lossy(&secret));
    }
}
