//! Third-party suites on a staged tag: pjdfstest (POSIX semantics of every call), fsx (random reads, writes and mappings of one
//! file), fio (verified writes that are published and read back).
//!
//! Short by default; `OCIFS_LONG=1` (scripts/check --long) runs them in full.

use crate::support::is_long;
use crate::support::mounting::{Home, Mount, text};
use crate::support::registry::Registry;
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Configuration of pjdfstest: users that exist in Debian, and every feature a FUSE file system can have.
const POSIX: &str = include_str!("suites/pjdfstest.toml");

/// A socket address has room for 108 bytes, so the suite runs below a short path.
const RUN_POSIX: &str = r#"chmod 777 $M; short=$(mktemp -d /tmp/pjd.XXXX); mount --bind $M $short
trap 'umount $short; rmdir $short' EXIT
pjdfstest -c pjdfstest.toml -p $short 2>&1"#;

/// The required number of passes; the reference file system of the FUSE library reaches the same.
const POSIX_PASSED: u32 = 381;

/// A mount of a new registry with an empty staged tag.
fn staged_tag<'home>(home: &'home Home, registry: &Registry) -> Mount<'home> {
    let mount = home.mount(&registry.host(), &["--allow-other"]);
    std::fs::create_dir(mount.path("suite")).unwrap();
    std::fs::create_dir(mount.path("suite/v1")).unwrap();
    mount
}

#[test]
fn posix_semantics_hold_in_a_staged_tag() {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("docker-registry"), Need::Tool("pjdfstest")]) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    let mount = staged_tag(&home, &registry);
    std::fs::write(shell.path("pjdfstest.toml"), POSIX).unwrap();
    let suite = mount.path("suite/v1/suite");
    std::fs::create_dir(&suite).unwrap();
    let output = shell.attempt(RUN_POSIX, &[("M", suite.as_path())]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = report.lines().find(|line| line.starts_with("Summary: ")).unwrap_or_else(|| panic!("no summary:\n{}", text(&output)));
    println!("pjdfstest: {summary}");
    let number = |what: &str| -> u32 {
        let part = summary.trim_start_matches("Summary: ").split(", ").find(|part| part.ends_with(what));
        part.and_then(|part| part.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no number of {what} in {summary}"))
    };
    let missed: Vec<&str> = report.lines().filter(|line| line.ends_with("FAILED")).collect();
    assert_eq!(number(" failed"), 0, "{summary}\n{}\n{report}", missed.join("\n"));
    assert!(number(" passed") >= POSIX_PASSED, "{summary}");
}

#[test]
fn random_reads_writes_and_mappings_of_a_staged_file_agree() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry"), Need::Tool("fsx")]) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    let mount = staged_tag(&home, &registry);
    std::fs::write(shell.path("fsx.toml"), include_str!("suites/fsx.toml")).unwrap();
    let (seeds, operations) = if is_long() { (10, 50_000) } else { (2, 3_000) };
    for seed in 1..=seeds {
        let file = mount.path(format!("suite/v1/fsx-{seed}"));
        let script = format!("fsx -f fsx.toml -S {seed} -N {operations} -P . $M 2>&1 | tail -n 40");
        let output = shell.attempt(&script, &[("M", file.as_path())]);
        assert!(output.status.success(), "seed {seed}:\n{}", text(&output));
    }
    println!("fsx: {seeds} seeds of {operations} operations agree");
}

#[test]
fn random_operations_agree_while_the_file_is_published_again_and_again() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry"), Need::Tool("fsx")]) {
        return;
    }
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    let mount = staged_tag(&home, &registry);
    std::fs::write(shell.path("fsx.toml"), include_str!("suites/fsx.toml")).unwrap();
    let (seeds, operations) = if is_long() { (10, 50_000) } else { (1, 3_000) };
    let root = mount.root().to_str().unwrap().to_owned();
    let mut published = 0;
    for seed in 1..=seeds {
        let file = mount.path(format!("suite/v1/fsx-{seed}"));
        let (script, is_done) = (format!("fsx -f fsx.toml -S {seed} -N {operations} -P . $M 2>&1 | tail -n 40"), AtomicBool::new(false));
        published += std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let mut count = 0;
                // An empty tag is not published without `--force`.
                while !file.exists() && !is_done.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // At least one sync that begins while the file is written, and one with all of it.
                while count == 0 || !is_done.load(Ordering::Acquire) {
                    let output = home.run(&["sync", &root]);
                    assert!(output.status.success(), "seed {seed}, publish {count}:\n{}", text(&output));
                    count += 1;
                }
                count
            });
            let output = shell.attempt_within(if is_long() { 3600 } else { 300 }, &script, &[("M", file.as_path())]);
            is_done.store(true, Ordering::Release);
            assert!(output.status.success(), "seed {seed}:\n{}", text(&output));
            publisher.join().unwrap()
        });
    }
    assert!(home.run(&["sync", &root]).status.success());
    let other = Home::new();
    let fresh = other.mount(&registry.host(), &[]);
    for seed in 1..=seeds {
        let name = format!("suite/v1/fsx-{seed}");
        assert!(std::fs::read(mount.path(&name)).unwrap() == std::fs::read(fresh.path(&name)).unwrap(), "seed {seed}");
    }
    println!("fsx: {seeds} seeds of {operations} operations agree, published {published} times meanwhile");
    fresh.unmount();
}

/// Writes files with checksums in every block, or (`--verify_only`) reads them back.
const FIO: &str = r#"fio --name=verify --directory="$M" --size="$SIZE" --numjobs=2 --rw=randwrite --bsrange=4k-128k --verify=xxhash \
    --verify_fatal=1 --do_verify=1 --end_fsync=1 --randseed=7 --group_reporting --output-format=terse $OPTIONS >fio.log 2>&1 || { cat fio.log; exit 1; }"#;

#[test]
fn blocks_written_with_checksums_are_published_and_read_back_by_a_mount_with_an_empty_cache() {
    if lacks(&[Need::Fuse, Need::Tool("docker-registry"), Need::Tool("fio")]) {
        return;
    }
    let (registry, shell) = (Registry::plain(), Shell::new());
    let size = if is_long() { "512m" } else { "16m" };
    let fio = |directory: &Path, options: &str| {
        shell.run(FIO, &[("M", directory.as_os_str()), ("SIZE", size.as_ref()), ("OPTIONS", options.as_ref())]);
    };
    {
        let home = Home::new();
        let mount = staged_tag(&home, &registry);
        fio(&mount.path("suite/v1"), "");
        let output = home.run(&["sync", mount.root().to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output));
        mount.unmount();
    }
    let home = Home::new();
    let mount = home.mount(&registry.host(), &[]);
    fio(&mount.path("suite/v1"), "--verify_only=1");
    mount.unmount();
}
