//! Kills daemons and cuts off disks at random moments while writing, packing, uploading and putting the manifest.
//!
//! An independent checker then verifies that every fsynced byte is staged or published, that the tag is the old or the new
//! one, and that no tag in the registry names a missing blob.
//!
//! Short by default; `OCIFS_LONG=1` (scripts/check --long) runs 200 cuts each.

use crate::support::is_long;
use crate::support::mounting::{Home, Mount, is_mounted, text};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[path = "crashes/checker.rs"]
mod checker;
#[path = "crashes/disk.rs"]
pub mod disk;
#[path = "crashes/workload.rs"]
mod workload;

use disk::Disk;
use workload::Workload;

/// The number of rounds, and the first seed.
fn rounds(short: u64) -> std::ops::Range<u64> {
    0..if is_long() { 200 } else { short }
}

/// Kills the daemon and removes its mount.
pub fn kill(mount: &Mount<'_>) {
    let daemon = mount.daemon();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    while std::fs::read_to_string(format!("/proc/{}/stat", daemon.as_raw_nonzero())).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::sleep(Duration::from_millis(2));
    }
    if is_mounted(mount.root()) {
        assert!(Command::new("umount").arg("-l").arg(mount.root()).status().unwrap().success());
    }
}

#[test]
fn a_daemon_killed_at_any_moment_loses_nothing_that_was_fsynced_and_tears_no_tag() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("docker-registry")]) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let mut kept = BTreeMap::new();
    let mut staged = 0;
    for seed in rounds(8) {
        let mut random = StdRng::seed_from_u64(seed);
        let mount = home.mount(&registry.host(), &[]);
        // Each tag is hit several times in a row, so that cuts also hit previously published tags.
        let tag = format!("app/t{}", seed / 4);
        let mut workload = Workload::start(&home, &mount, seed, &tag);
        workload.wait_for_a_promise();
        std::thread::sleep(Duration::from_millis(random.random_range(1..700)));
        workload.stop_publishing();
        kill(&mount);
        workload.stop(&mut kept);
        drop(mount);
        checker::tags_are_whole(&registry);
        let mount = home.mount(&registry.host(), &[]);
        checker::nothing_is_lost(&mount, &kept, &tag, seed);
        staged += u64::from(is_staged(&mount, &tag));
        publish(&home, &mount);
        mount.unmount();
        checker::published_is_whole(&registry, &kept, &tag, seed);
    }
    checker::published_is_whole(&registry, &kept, "app", u64::MAX);
    proved(rounds(8).end, &kept, staged);
}

#[test]
fn edits_of_a_tag_made_here_survive_syncs_that_renumber_its_tree_and_then_a_killed_daemon() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("docker-registry")]) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let mount = home.mount(&registry.host(), &[]);
    let name = |number: u32| format!("app/v1/d{}/f{number:02}", number % 3);
    let mut expected: BTreeMap<String, String> = (0..30).map(|number| (name(number), format!("{number}\n"))).collect();
    expected.iter().for_each(|(path, content)| mount.write(path, content));
    mount.sync(&[]);
    let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(mount.path(path)).unwrap());
    let before: Vec<u64> = expected.keys().map(|path| inode(path)).collect();
    std::fs::rename(mount.path(name(6)), mount.path("app/v1/moved")).unwrap();
    let moved = expected.remove(&name(6)).unwrap();
    expected.insert("app/v1/moved".to_owned(), moved);
    // A new name renumbers the tree; an edit alone does not.
    for path in ["app/v1/a".to_owned(), name(4), "app/v1/d0/a".to_owned(), name(5)] {
        let content = format!("{path} edited\n");
        mount.write(&path, &content);
        expected.insert(path, content);
        mount.sync(&[]);
    }
    let after: Vec<u64> = (0..30).filter(|number| *number != 6).map(name).map(|path| inode(&path)).collect();
    assert!(after.iter().all(|inode| before.contains(inode)), "numbers last");
    let mut open = std::fs::OpenOptions::new().append(true).open(mount.path(name(7))).unwrap();
    open.write_all(b"late\n").unwrap();
    open.sync_all().unwrap();
    *expected.get_mut(&name(7)).unwrap() += "late\n";
    std::fs::hard_link(mount.path(name(8)), mount.path("app/v1/hard")).unwrap();
    expected.insert("app/v1/hard".to_owned(), expected[&name(8)].clone());
    std::fs::remove_file(mount.path(name(9))).unwrap();
    expected.remove(&name(9));
    kill(&mount);
    drop((open, mount));
    let holds = |mount: &Mount<'_>, when: &str| {
        for (path, content) in &expected {
            assert_eq!(mount.cat(path).unwrap(), content.as_bytes(), "{path} {when}");
        }
        assert!(!mount.path(name(9)).exists() && !mount.path(name(6)).exists(), "{when}");
    };
    let mount = home.mount(&registry.host(), &[]);
    assert!(text(&mount.run("status", &[])).contains("app:v1"));
    holds(&mount, "after the kill");
    mount.sync(&[]);
    holds(&mount, "published");
    mount.unmount();
    let elsewhere = Home::new();
    let mount = elsewhere.mount(&registry.host(), &["--read-only"]);
    holds(&mount, "elsewhere");
    mount.unmount();
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_fsynced_and_tears_no_tag() {
    let needs = [Need::Fuse, Need::Root, Need::Tool("docker-registry"), Need::Tool("mkfs.ext4"), Need::Tool("losetup")];
    if lacks(&needs) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let disk = Disk::new(&home, "state", 512);
    let mut kept = BTreeMap::new();
    let mut staged = 0;
    for seed in rounds(6) {
        let mut random = StdRng::seed_from_u64(1000 + seed);
        let mount = home.mount(&registry.host(), &[]);
        // Each tag is hit several times in a row, so that cuts also hit previously published tags.
        let tag = format!("app/t{}", seed / 4);
        let mut workload = Workload::start(&home, &mount, seed, &tag);
        workload.wait_for_a_promise();
        std::thread::sleep(Duration::from_millis(random.random_range(1..700)));
        workload.stop_publishing();
        disk.cut();
        kill(&mount);
        workload.stop(&mut kept);
        drop(mount);
        disk.power_up();
        checker::tags_are_whole(&registry);
        let mount = home.mount(&registry.host(), &[]);
        checker::nothing_is_lost(&mount, &kept, &tag, seed);
        staged += u64::from(is_staged(&mount, &tag));
        publish(&home, &mount);
        mount.unmount();
        checker::published_is_whole(&registry, &kept, &tag, seed);
    }
    checker::published_is_whole(&registry, &kept, "app", u64::MAX);
    proved(rounds(6).end, &kept, staged);
}

/// Whether edits of the tag were found after the cut.
fn is_staged(mount: &Mount<'_>, tag: &str) -> bool {
    let status = mount.run("status", &[]);
    assert!(status.status.success(), "{}", text(&status));
    text(&status).contains(&tag.replace("/t", ":t"))
}

/// Cuts that hit nothing would prove nothing: files were kept in each round, and most cuts left edits behind.
fn proved(rounds: u64, kept: &workload::Kept, staged: u64) {
    println!("{rounds} cuts, {} files kept, edits found after {staged}", kept.len());
    assert!(kept.len() as u64 >= rounds, "{} files kept in {rounds} rounds", kept.len());
    assert!(staged * 2 > rounds, "only {staged} of {rounds} cuts left edits behind");
}

/// Publishes everything staged, including a tag that was cut off before it had a file.
fn publish(home: &Home, mount: &Mount<'_>) {
    let output = home.run(&["sync", "--force", mount.root().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
}

/// Writes a file durably; after an error nothing was promised.
fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::File::open(path.parent().unwrap())?.sync_all()
}

/// What the command printed, for a message.
fn told(output: &std::process::Output) -> String {
    text(output)
}
