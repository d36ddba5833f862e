//! Missing, truncated, extended, flipped and garbage blobs, and decompression bombs: each has its errno, no wrong byte is served or cached, and
//! memory and disk stay within limits.

use crate::support::artifacts::{Draft, LAYER, gzip, tar, zstandard};
use crate::support::mounting::{Home, Mount, text};
use crate::support::proxy::{Fault, Proxy};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];
const EBADMSG: i32 = 74;
const ESTALE: i32 = 116;
const CONTENT: &[u8] = b"every byte of this counts\n";

#[track_caller]
fn fails(result: std::io::Result<impl std::fmt::Debug>, errno: i32, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.raw_os_error(), Some(errno), "{what}: {error}");
}

/// Tag, digest and bytes of blobs.
type Blobs = Vec<(&'static str, String, Vec<u8>)>;

/// One artifact for each way of storing a blob, a neighbour, and the digests of the blobs.
fn artifacts() -> (Registry, Blobs) {
    let registry = Registry::plain();
    let mut draft = Draft::new();
    let archive = |name: &str| tar(&[("file", CONTENT), ("name", name.as_bytes())]);
    draft.files("raw", &[("file", CONTENT)]);
    let blobs = [
        ("tar", LAYER.to_owned(), archive("tar")),
        ("gzip", format!("{LAYER}+gzip"), gzip(&archive("gzip"))),
        ("zstd", format!("{LAYER}+zstd"), zstandard(&archive("zstd"))),
    ];
    let mut all = Vec::new();
    for (name, media_type, bytes) in blobs {
        let layer = draft.blob(&media_type, &bytes);
        draft.image(name, std::slice::from_ref(&layer));
        all.push((name, digest(&layer), bytes));
    }
    all.push(("raw", digest(&draft.layout().manifest("raw")["layers"][0]), CONTENT.to_vec()));
    draft.files("neighbour", &[("other", b"other\n")]);
    draft.layout().push(&registry.url(), "app");
    (registry, all)
}

fn digest(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

#[track_caller]
fn the_neighbour_is_readable(mount: &Mount<'_>) {
    assert_eq!(mount.cat("neighbour/other").unwrap(), b"other\n");
}

/// The log has a line with the digest and the reason.
#[track_caller]
fn the_log_says(mount: &Mount<'_>, digest: &str, reason: &str) {
    let log = mount.log();
    assert!(log.lines().any(|line| line.contains(digest) && line.contains(reason)), "no line with {digest} and `{reason}`:\n{log}");
}

/// Mounts, corrupts every blob with its fault, expects the errno, repairs the registry, and reads.
fn spoiled_blobs_fail_and_mended_ones_are_read(fault: impl Fn(&[u8]) -> Fault, errno: i32, reason: &str, flags: &[&str]) {
    let (registry, blobs) = artifacts();
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/app", proxy.host()), flags);
    for (_, digest, bytes) in &blobs {
        proxy.spoil(digest, usize::MAX, fault(bytes));
    }
    for (name, digest, _) in &blobs {
        for _ in 0..2 {
            fails(mount.cat(&format!("{name}/file")), errno, name);
        }
        the_neighbour_is_readable(&mount);
        the_log_says(&mount, digest, reason);
    }
    assert_eq!(mount.ls("").unwrap().len(), blobs.len() + 1);
    proxy.mend();
    for (name, ..) in &blobs {
        assert_eq!(mount.cat(&format!("{name}/file")).unwrap(), CONTENT, "{name} after mending");
    }
    mount.unmount();
    // The next daemon finds none of the bad bytes.
    let mount = home.mount(&format!("{}/app", proxy.host()), flags);
    for (name, ..) in &blobs {
        assert_eq!(mount.cat(&format!("{name}/file")).unwrap(), CONTENT, "{name} in the next mount");
    }
    mount.unmount();
}

#[test]
fn a_flipped_bit_is_ebadmsg_and_never_cached() {
    if lacks(&NEEDS) {
        return;
    }
    for flags in [&[][..], &["--verify", "strict"]] {
        spoiled_blobs_fail_and_mended_ones_are_read(|bytes| Fault::Flip(bytes.len() as u64 / 2), EBADMSG, "", flags);
    }
}

#[test]
fn a_flip_in_the_last_byte_is_found_too() {
    if lacks(&NEEDS) {
        return;
    }
    spoiled_blobs_fail_and_mended_ones_are_read(|bytes| Fault::Flip(bytes.len() as u64 - 1), EBADMSG, "", &[]);
}

#[test]
fn a_missing_blob_is_estale() {
    if lacks(&NEEDS) {
        return;
    }
    spoiled_blobs_fail_and_mended_ones_are_read(|_| Fault::Status(404), ESTALE, "not found", &[]);
}

#[test]
fn a_blob_that_is_too_long_or_too_short_is_ebadmsg() {
    if lacks(&NEEDS) {
        return;
    }
    let other = |bytes: Vec<u8>| Fault::Answer("application/octet-stream".to_owned(), bytes.into());
    spoiled_blobs_fail_and_mended_ones_are_read(|bytes| other([bytes, b"x"].concat()), EBADMSG, "bytes instead of", &[]);
    spoiled_blobs_fail_and_mended_ones_are_read(|bytes| other(bytes[..bytes.len() - 1].to_vec()), EBADMSG, "bytes instead of", &[]);
    spoiled_blobs_fail_and_mended_ones_are_read(|_| other(Vec::new()), EBADMSG, "bytes instead of", &[]);
}

#[test]
fn a_login_page_in_place_of_a_blob_is_ebadmsg() {
    if lacks(&NEEDS) {
        return;
    }
    let page = |bytes: &[u8]| {
        let mut page = b"<html>\x1b[2J".to_vec();
        page.resize(bytes.len(), b' ');
        Fault::Answer("text/html".to_owned(), page.into())
    };
    spoiled_blobs_fail_and_mended_ones_are_read(page, EBADMSG, "", &[]);
}

#[test]
fn a_blob_flipped_in_storage_is_readable_once_repaired() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, blobs) = artifacts();
    let home = Home::new();
    let mount = home.mount(&format!("{}/app", registry.host()), &[]);
    for (name, digest, bytes) in &blobs {
        let file = registry.blob_file(digest);
        let mut bad = bytes.clone();
        bad[bytes.len() / 3] ^= 0x10;
        std::fs::write(&file, &bad).unwrap();
        fails(mount.cat(&format!("{name}/file")), EBADMSG, name);
        the_neighbour_is_readable(&mount);
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(mount.cat(&format!("{name}/file")).unwrap(), CONTENT, "{name}");
    }
    mount.unmount();
}

#[test]
fn blobs_of_a_layout_are_checked_before_their_first_byte() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let mut draft = Draft::new();
    draft.files("good", &[("file", CONTENT)]);
    for (name, content) in [("flipped", &b"one"[..]), ("short", b"two"), ("long", b"three"), ("missing", b"four"), ("link", b"five")] {
        draft.files(name, &[("file", content)]);
        let manifest = draft.layout().manifest(name);
        let blob = draft.path().join("blobs").join(digest(&manifest["layers"][0]).replace(':', "/"));
        match name {
            "flipped" => std::fs::write(blob, b"onf").unwrap(),
            "short" => std::fs::write(blob, b"tw").unwrap(),
            "long" => std::fs::write(blob, b"three!").unwrap(),
            "missing" => std::fs::remove_file(blob).unwrap(),
            _ => {
                std::fs::write(draft.path().join("secret"), content).unwrap();
                std::fs::remove_file(&blob).unwrap();
                std::os::unix::fs::symlink(draft.path().join("secret"), blob).unwrap();
            }
        }
    }
    let home = Home::new();
    let mount = home.mount(&format!("oci:{}", draft.path().display()), &[]);
    for (name, errno) in [("flipped", EBADMSG), ("short", EBADMSG), ("long", EBADMSG), ("missing", ESTALE)] {
        fails(mount.cat(&format!("{name}/file")), errno, name);
        assert_eq!(mount.cat("good/file").unwrap(), CONTENT);
    }
    mount.cat("link/file").expect_err("a link in a layout leads nowhere");
    mount.unmount();
}

#[test]
fn garbage_with_the_right_digest_is_ebadmsg_and_hides_no_neighbour() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let archive = tar(&[("file", CONTENT)]);
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(&archive).unwrap();
    let (zipped, framed) = (gzip(&archive), encoder.finish().unwrap());
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x40;
        bytes
    };
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("text", b"this is no archive at all, only a few words that go on".repeat(40)),
        ("noise", (0..4096u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("gzip-head-only", zipped[..10].to_vec()),
        ("gzip-cut", zipped[..zipped.len() - 9].to_vec()),
        ("gzip-without-length", zipped[..zipped.len() - 4].to_vec()),
        ("gzip-wrong-checksum", flipped(&zipped, zipped.len() - 8)),
        ("gzip-wrong-length", flipped(&zipped, zipped.len() - 2)),
        ("gzip-flipped", flipped(&zipped, zipped.len() / 2)),
        ("gzip-then-text", [&zipped[..], b"and more"].concat()),
        ("gzip-of-garbage", gzip(b"no archive")),
        ("zstd-head-only", framed[..5].to_vec()),
        ("zstd-cut", framed[..framed.len() - 3].to_vec()),
        ("zstd-flipped", flipped(&framed, framed.len() / 2)),
        ("zstd-then-text", [&framed[..], b"and more"].concat()),
        ("zstd-of-garbage", zstandard(b"no archive")),
        ("gzip-in-gzip", gzip(&zipped)),
        ("tar-cut", archive[..520].to_vec()),
    ];
    let mut draft = Draft::new();
    let good = draft.blob(LAYER, &archive);
    draft.image("good", std::slice::from_ref(&good));
    for (name, bytes) in &garbage {
        let layer = draft.blob(&format!("{LAYER}+gzip"), bytes);
        draft.image(name, &[good.clone(), layer]);
    }
    let home = Home::new();
    let mount = home.mount(&format!("oci:{}", draft.path().display()), &[]);
    for (name, bytes) in &garbage {
        fails(mount.ls(name), EBADMSG, name);
        fails(mount.cat(&format!("{name}/file")), EBADMSG, name);
        let hex = hex(bytes);
        the_log_says(&mount, &hex, "");
        assert_eq!(mount.cat("good/file").unwrap(), CONTENT, "beside {name}");
        // The good layer of the bad image, and the bad one as stored.
        assert_eq!(mount.cat(&format!(".oci/tags/{name}/layers/00-{}/file", &digest(&good)[7..19])).unwrap(), CONTENT, "{name}");
        assert_eq!(&mount.cat(&format!(".oci/tags/{name}/blobs/sha256-{hex}")).unwrap(), bytes, "{name}");
    }
    assert_eq!(mount.ls("").unwrap().len(), garbage.len() + 1);
    mount.unmount();
}

#[test]
fn a_size_that_no_disk_has_costs_nothing() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, _) = artifacts();
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    let mount = home.mount(&format!("{}/app", proxy.host()), &["--cache-size", "16MiB"]);
    let claim = |tag: &str, size: u64| {
        let mut manifest = raw_manifest(&registry, tag);
        manifest["layers"][0]["size"] = size.into();
        let body = manifest.to_string().into_bytes();
        for path in [format!("manifests/{tag}"), format!("manifests/sha256:{}", hex(&body))] {
            proxy.spoil(&path, usize::MAX, Fault::Answer(crate::support::artifacts::MANIFEST.to_owned(), body.clone().into()));
        }
    };
    // A size that could never be held here is refused by a limit; others are compared with what the registry sends.
    const EOPNOTSUPP: i32 = 95;
    let cases =
        [("raw", i64::MAX as u64, EOPNOTSUPP), ("tar", 1 << 40, EBADMSG), ("gzip", i64::MAX as u64, EBADMSG), ("zstd", 1 << 50, EBADMSG)];
    let ((), peak) = mount.peak_of(|| {
        for (tag, size, errno) in cases {
            claim(tag, size);
            fails(mount.cat(&format!("{tag}/file")), errno, tag);
            the_neighbour_is_readable(&mount);
        }
    });
    assert!(peak < 64 << 20, "{peak} bytes");
    assert!(on_disk(&home.path("cache")) < 32 << 20);
    mount.unmount();
}

fn hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The manifest of a tag as the registry has it.
fn raw_manifest(registry: &Registry, tag: &str) -> Value {
    crate::support::runtime().block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/v2/app/manifests/{tag}", registry.url());
        let answer = client.get(url).header("accept", crate::support::artifacts::MANIFEST).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    })
}

/// A tar with one file of this many zeros, written to a compressor.
fn zeros(length: u64, sink: &mut impl Write) {
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(length);
    header.set_mode(0o644);
    header.set_cksum();
    sink.write_all(header.as_bytes()).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(length.next_multiple_of(512) + 1024), sink).unwrap();
}

#[test]
fn a_gibibyte_compressed_to_kibibytes_is_read_within_the_budgets() {
    if lacks(&NEEDS) {
        return;
    }
    const LENGTH: u64 = 1 << 30;
    const BUDGET: u64 = 16 << 20;
    let mut gzipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    zeros(LENGTH, &mut gzipped);
    let mut framed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zeros(LENGTH, &mut framed);
    let mut draft = Draft::new();
    for (name, bytes) in [("gzip", gzipped.finish().unwrap()), ("zstd", framed.finish().unwrap())] {
        assert!(bytes.len() < 8 << 20);
        let layer = draft.blob(LAYER, &bytes);
        draft.image(name, &[layer]);
    }
    let registry = Registry::plain();
    draft.layout().push(&registry.url(), "bombs");
    for source in [format!("oci:{}", draft.path().display()), format!("{}/bombs", registry.host())] {
        let home = Home::new();
        let mount = home.mount(&source, &["--cache-size", "16MiB"]);
        let before = mount.anonymous_memory();
        for name in ["gzip", "zstd"] {
            let ((), peak) = mount.peak_of(|| read_zeros(&mount, name, LENGTH));
            assert!(peak < before + (128 << 20), "{name} of {source}: {} MiB of memory", peak >> 20);
            let kept = on_disk(&home.path("cache"));
            assert!(kept <= BUDGET + (8 << 20), "{name} of {source}: {} MiB on disk", kept >> 20);
        }
        mount.unmount();
    }
}

/// Reads a file of zeros to its end.
fn read_zeros(mount: &Mount<'_>, name: &str, length: u64) {
    let mut file = std::fs::File::open(mount.path(name).join("zeros")).unwrap();
    assert_eq!(file.metadata().unwrap().size(), length);
    let (mut total, mut piece) = (0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        assert!(piece[..read].iter().all(|byte| *byte == 0));
        total += read as u64;
    }
    assert_eq!(total, length);
}

/// Disk space occupied by the files below.
fn on_disk(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| if entry.file_type().unwrap().is_dir() { on_disk(&entry.path()) } else { entry.metadata().unwrap().blocks() * 512 })
        .sum()
}

#[test]
fn a_damaged_artifact_cannot_be_mounted_by_itself() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let mut draft = Draft::new();
    let layer = draft.blob(LAYER, b"no archive at all");
    draft.image("bad", &[layer]);
    let home = Home::new();
    let output = home.try_mount(&format!("oci:{}:bad", draft.path().display()), &[]).err().unwrap();
    let line = crate::support::refusal::refused(&output, 1);
    assert!(line.contains("damaged") && line.contains("log"), "{}", text(&output));
}
