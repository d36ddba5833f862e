//! Random sequences of operations on a staged tag and on a native directory as the reference: results and trees must be equal,
//! through syncs, restarts, killed daemons and tags moved by others.
//!
//! Short by default; `OCIFS_LONG=1` (scripts/check --long) runs 200 sequences. A sequence is determined by its seed; failed ones are
//! kept in [`KEPT`].

use crate::support::is_long;
use crate::support::mounting::{Home, Mount, text};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;

#[path = "model/operation.rs"]
mod operation;
#[path = "model/tree.rs"]
mod tree;

use operation::Operation;

/// Seeds of sequences that failed once.
const KEPT: [u64; 0] = [];
/// Number of operations in a sequence.
const LENGTH: usize = 60;

#[test]
fn random_operations_through_a_mount_agree_with_a_native_directory() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    let fresh = if is_long() { 0..200 } else { 0..6 };
    let sequences = fresh.end;
    for seed in KEPT.into_iter().chain(fresh) {
        sequence(&registry, seed);
    }
    println!("{sequences} sequences of {LENGTH} operations agree");
}

/// One sequence in its own repository.
fn sequence(registry: &Registry, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let home = Home::new();
    let reference = tempfile::TempDir::with_prefix("ocifs-reference-").unwrap();
    let tag = format!("model{seed}/v1");
    let mut mount = home.mount(&registry.host(), &[]);
    std::fs::create_dir_all(mount.path(&tag)).unwrap();
    let mut told = Vec::new();
    for step in 0..LENGTH {
        let context = |told: &[String]| format!("sequence {seed}, step {step}:\n{}", told.join("\n"));
        match random.random_range(0..30) {
            0 | 1 => {
                told.push("sync".to_owned());
                sync(&home, &mount, &[], 0, &context(&told));
            }
            2 => {
                told.push("restart".to_owned());
                mount = restart(&home, registry, mount, random.random_range(0..2) == 0);
            }
            3 => {
                told.push("moved by somebody else".to_owned());
                moved(&home, registry, &mount, &tag, reference.path(), &context(&told));
            }
            _ => {
                let operation = Operation::random(&mut random);
                told.push(format!("{operation:?}"));
                let (ours, theirs) = (operation.run(&mount.path(&tag)), operation.run(reference.path()));
                assert_eq!(ours, theirs, "{}", context(&told));
            }
        }
        assert_eq!(tree::read(&mount.path(&tag)), tree::read(reference.path()), "{}", context(&told));
    }
    sync(&home, &mount, &["--force"], 0, &told.join("\n"));
    mount.unmount();
    let stranger = Home::new();
    let mount = stranger.mount(&registry.host(), &["--read-only"]);
    let published = tree::read(reference.path());
    // A tag that never contained a file was never published.
    if !published.is_empty() {
        assert_eq!(tree::read(&mount.path(&tag)), published, "sequence {seed} as published:\n{}", told.join("\n"));
    }
    mount.unmount();
}

fn sync(home: &Home, mount: &Mount<'_>, flags: &[&str], code: i32, context: &str) {
    let root = mount.root().to_str().unwrap();
    let mut arguments = vec!["sync", root];
    arguments.extend(flags);
    let output = home.run(&arguments);
    let ended = output.status.code();
    // Skipped tags (emptied, most files gone) are published with `--force`.
    if ended == Some(16) && flags.is_empty() {
        return sync(home, mount, &["--force"], code, context);
    }
    assert_eq!(ended, Some(code), "{}\n{context}", text(&output));
}

/// Ends the daemon, gracefully without a push or by force, and mounts again.
fn restart<'home>(home: &'home Home, registry: &Registry, mount: Mount<'home>, kill: bool) -> Mount<'home> {
    if kill {
        crate::crashes::kill(&mount);
    } else {
        let output = home.run(&["umount", "--no-sync", mount.root().to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output));
    }
    drop(mount);
    home.mount(&registry.host(), &[])
}

/// This mount and another writer both edit the tag; the other one is first, so a sync here is refused and then forced.
fn moved(home: &Home, registry: &Registry, mount: &Mount<'_>, tag: &str, reference: &Path, context: &str) {
    sync(home, mount, &[], 0, context);
    for root in [&mount.path(tag), reference] {
        std::fs::write(root.join("mine"), "edited here").unwrap();
    }
    let other = Home::new();
    let theirs = other.mount(&registry.host(), &[]);
    std::fs::create_dir_all(theirs.path(tag)).unwrap();
    std::fs::write(theirs.path(tag).join("theirs"), "edited elsewhere").unwrap();
    sync(&other, &theirs, &[], 0, context);
    theirs.unmount();
    sync(home, mount, &[], 13, context);
    assert_eq!(tree::read(&mount.path(tag)), tree::read(reference), "a refused sync changes nothing: {context}");
    sync(home, mount, &["--force"], 0, context);
}
