//! The independent checker: reads files through a mount, and the registry through its own storage and HTTP.

use super::told;
use super::workload::Kept;
use crate::support::mounting::{Home, Mount};
use crate::support::registry::Registry;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use parking_lot::Mutex;

/// Device, inode, length and change time of files that were read and matched: they are not read again.
static WHOLE: LazyLock<Mutex<HashSet<[i64; 5]>>> = LazyLock::new(Mutex::default);

/// Checks that every fsynced file below `tag` has its bytes.
#[track_caller]
pub fn nothing_is_lost(mount: &Mount<'_>, kept: &Kept, tag: &str, seed: u64) {
    for (path, digest) in kept.iter().filter(|(path, _)| path.starts_with(tag)) {
        let found = match std::fs::read(mount.path(path)) {
            Ok(found) => found,
            Err(error) => panic!("round {seed}: {} is lost: {error}; {}", path.display(), told(&mount.run("status", &[]))),
        };
        let other = format!("round {seed}: {} has {} bytes that are not those made durable", path.display(), found.len());
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&found)), *digest, "{other}");
    }
}

/// After everything was published, an independent reader finds it upstream.
#[track_caller]
pub fn published_is_whole(registry: &Registry, kept: &Kept, tag: &str, seed: u64) {
    tags_are_whole(registry);
    let home = Home::new();
    let mount = home.mount(&registry.host(), &["--read-only"]);
    nothing_is_lost(&mount, kept, tag, seed);
    mount.unmount();
}

/// Checks that every tag in the registry names a manifest whose blobs are complete.
pub fn tags_are_whole(registry: &Registry) {
    let Some(repositories) = get(registry, "_catalog").and_then(|answer| answer["repositories"].as_array().cloned()) else { return };
    for repository in repositories.iter().filter_map(Value::as_str) {
        let tags = get(registry, &format!("{repository}/tags/list")).map(|answer| answer["tags"].clone()).unwrap_or_default();
        for tag in tags.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let manifest =
                get(registry, &format!("{repository}/manifests/{tag}")).unwrap_or_else(|| panic!("no manifest {repository}:{tag}"));
            let blobs = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
            for blob in blobs {
                let file = registry.blob_file(blob["digest"].as_str().unwrap());
                let found = std::fs::metadata(&file).unwrap_or_else(|_| panic!("{repository}:{tag} names a blob that is missing"));
                assert_eq!(Some(found.len()), blob["size"].as_u64(), "{repository}:{tag}");
                let identity = [found.dev() as i64, found.ino() as i64, found.len() as i64, found.ctime(), found.ctime_nsec()];
                if !WHOLE.lock().contains(&identity) {
                    assert_eq!(sha256(&file), blob["digest"].as_str().unwrap()[7..], "{repository}:{tag}");
                    WHOLE.lock().insert(identity);
                }
            }
        }
    }
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8_lossy(&output.stdout).trim_start_matches('\\')[..64].to_owned()
}

/// The JSON at an API path; `None` for 404.
fn get(registry: &Registry, path: &str) -> Option<Value> {
    let url = format!("{}/v2/{path}", registry.url());
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let output = Command::new("curl").args(["-s", "--fail", "-H", accept, &url]).output().unwrap();
    // 22: the server answered 4xx.
    assert!(output.status.success() || output.status.code() == Some(22), "{url}: {}", told(&output));
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}
