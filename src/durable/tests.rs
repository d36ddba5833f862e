//! Tests of replacement, locks and sparse files.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::time::Duration;

use super::*;

#[test]
fn a_replaced_file_is_complete_and_private_and_leaves_no_temporary_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    replace(&path, &[b"one"]).unwrap();
    let old = fs::File::open(&path).unwrap();
    replace(&path, &[b"second ", b"version"]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second version");
    let mut kept = [0; 3];
    old.read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(&kept, b"one");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_replacement_that_fails_leaves_the_old_file_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("taken");
    fs::create_dir(&path).unwrap();
    assert!(replace(&path, &[b"bytes"]).is_err());
    assert!(path.is_dir());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn removing_reports_whether_the_file_existed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    assert!(!remove(&path).unwrap());
    replace(&path, &[b""]).unwrap();
    assert!(remove(&path).unwrap());
    assert!(!path.exists());
}

#[test]
fn exclusive_ranges_exclude_each_other_but_not_their_neighbours_and_end_when_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("locks");
    open_private(&path, true).unwrap();
    let take = |range| RangeLock::try_range(&path, range, Sharing::Exclusive).unwrap();
    let first = take(5..6).unwrap();
    assert!(take(5..6).is_none());
    assert!(take(0..u64::MAX).is_none());
    let _neighbour = take(6..7).unwrap();
    drop(first);
    assert!(take(5..6).is_some());
}

#[test]
fn shared_locks_share_and_keep_exclusive_ones_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("locks");
    open_private(&path, true).unwrap();
    let take = |sharing| RangeLock::try_range(&path, 0..1, sharing).unwrap();
    let one = take(Sharing::Shared).unwrap();
    let two = take(Sharing::Shared).unwrap();
    assert!(take(Sharing::Exclusive).is_none());
    drop((one, two));
    assert!(take(Sharing::Exclusive).is_some());
}

#[test]
fn waiting_for_a_lock_ends_when_it_is_released_or_time_runs_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    let held = RangeLock::file(&path, Duration::ZERO).unwrap().unwrap();
    assert!(RangeLock::file(&path, Duration::from_millis(5)).unwrap().is_none());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| RangeLock::file(&path, Duration::from_secs(60)).unwrap());
        drop(held);
        assert!(waiter.join().unwrap().is_some());
    });
}

#[test]
fn a_punched_range_reads_as_zeros_and_frees_its_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let file = open_private(&directory.path().join("sparse"), true).unwrap();
    file.write_all_at(&vec![7; 1 << 20], 0).unwrap();
    let before = occupied(&file.metadata().unwrap());
    punch(&file, 4096..(1 << 20) - 4096).unwrap();
    let after = occupied(&file.metadata().unwrap());
    assert!(before >= 1 << 20 && after <= 64 << 10, "{before} {after}");
    let mut bytes = vec![1; 1 << 20];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..4096].iter().chain(&bytes[(1 << 20) - 4096..]).all(|byte| *byte == 7));
    assert!(bytes[4096..(1 << 20) - 4096].iter().all(|byte| *byte == 0));
}

#[test]
fn allocated_room_occupies_blocks_and_reads_as_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let file = open_private(&directory.path().join("room"), true).unwrap();
    make_room(&file, 0..100_000).unwrap();
    let metadata = file.metadata().unwrap();
    assert!(occupied(&metadata) >= 100_000 && metadata.len() == 100_000);
}

#[test]
fn a_symbolic_link_is_never_followed() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    fs::write(&target, b"other").unwrap();
    let link = directory.path().join("link");
    symlink(&target, &link).unwrap();
    assert!(open_private(&link, true).is_err());
    assert!(RangeLock::file(&link, Duration::ZERO).is_err());
}
