//! Staged bytes: reading, writing, holes, times, the quota, a full disk.

use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;
use crate::sys::space::{KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE};

const MIB: usize = 1 << 20;

fn limited(quota: u64) -> (tempfile::TempDir, Uppers, Upper) {
    let directory = tempfile::tempdir().unwrap();
    let uppers = Uppers::open(directory.path(), Some(quota)).unwrap();
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    (directory, uppers, upper)
}

#[test]
fn bytes_are_read_as_written_and_never_past_the_end() {
    let (directory, _uppers, upper) = begin();
    let data = upper.new_data().unwrap();
    assert_eq!(read_at(&data, 0, 100).len(), 0);
    data.write_at(10, b"abc").unwrap();
    data.write_at(0, b"").unwrap();
    assert_eq!(read_at(&data, 8, u64::MAX), b"\0\0abc");
    assert_eq!(read_at(&data, 11, 1), b"b");
    assert_eq!(read_at(&data, 13, 1).len(), 0);
    assert_eq!(read_at(&data, u64::MAX, 1).len(), 0);
    data.set_length(11).unwrap();
    assert_eq!(data.length().unwrap(), 11);
    assert_eq!(data.write_at(u64::MAX, b"x").unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(data.set_length(u64::MAX).unwrap_err().kind, ErrorKind::Invalid);
    let path = data_files(directory.path()).pop().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn times_are_kept_to_the_nanosecond_even_if_the_disk_cannot_hold_them() {
    let (_directory, uppers, upper) = begin();
    let (_, id) = add(&upper, b"a", b"bytes");
    let (_, rewritten) = add(&upper, b"b", b"bytes");
    let far = (-11_644_473_600, 7);
    for time in [(-5, 999_999_999), (0, 0), (1_700_000_000, 123_456_789), (-2_000_000_000, 1), (253_402_300_799, 1), far] {
        for id in [id, rewritten] {
            upper.data(id).unwrap().set_mtime(time).unwrap();
            assert_eq!(upper.data(id).unwrap().attributes().unwrap().mtime, time);
            assert_eq!(upper.rows().data_attributes(id).unwrap().mtime, time);
        }
    }
    upper.data(rewritten).unwrap().write_at(0, b"B").unwrap();
    assert_eq!(upper.data(id).unwrap().set_mtime((0, 1_000_000_000)).unwrap_err().kind, ErrorKind::Invalid);
    drop(upper);
    let upper = again(&uppers);
    assert_eq!(upper.rows().data_attributes(id).unwrap().mtime, far);
    assert!(upper.rows().data_attributes(rewritten).unwrap().mtime > (1_700_000_000, 0), "a write moves the time");
}

#[test]
fn holes_are_found_and_made() {
    let (directory, uppers, upper) = begin();
    let data = upper.new_data().unwrap();
    data.write_at(0, &vec![1; MIB]).unwrap();
    data.set_length(4 << 20).unwrap();
    data.write_at(3 << 20, &vec![2; MIB]).unwrap();
    let seek = |from, to_data| match data.segment(from, 4 << 20).unwrap().held {
        Held::Here(file) => file.seek(from, to_data).unwrap(),
        Held::Tree(_) => panic!("there is no tree"),
    };
    assert_eq!((seek(0, true), seek(0, false), seek(2 << 20, true), seek(4 << 20, false)), (Some(0), Some(1 << 20), Some(3 << 20), None));
    data.allocate(PUNCH_HOLE | KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(seek(0, true), Some(3 << 20));
    assert!((1 << 20..2 << 20).contains(&uppers.usage().0));
    assert_eq!(data_files(directory.path()).len(), 1);
}

#[test]
fn fallocate_follows_its_mode_and_refuses_modes_that_shift_bytes() {
    let (_directory, uppers, upper) = begin();
    let data = upper.new_data().unwrap();
    data.allocate(0, 0, 1 << 20).unwrap();
    assert_eq!(data.length().unwrap(), 1 << 20);
    assert!(uppers.usage().0 >= 1 << 20);
    data.allocate(KEEP_SIZE, 1 << 20, 1 << 20).unwrap();
    assert_eq!(data.length().unwrap(), 1 << 20);
    assert!(uppers.usage().0 >= 2 << 20);
    data.write_at(0, b"abcd").unwrap();
    data.allocate(ZERO_RANGE, 1, 2).unwrap();
    assert_eq!(read_at(&data, 0, 4), b"a\0\0d");
    for mode in [0x08, 0x20, 0x40, PUNCH_HOLE, 0x4000, -1] {
        assert_eq!(data.allocate(mode, 0, 4096).unwrap_err().kind, ErrorKind::Unsupported, "{mode:#x}");
    }
    assert_eq!(read_at(&data, 0, 4), b"a\0\0d");
}

#[test]
fn all_openers_of_the_same_bytes_share_one_account() {
    let (_directory, uppers, upper) = begin();
    let (_, id) = add(&upper, b"a", &vec![1; MIB]);
    let (one, two) = (upper.data(id).unwrap(), upper.data(id).unwrap());
    one.write_at(1 << 20, &vec![2; MIB]).unwrap();
    two.write_at(1 << 20, &vec![3; MIB]).unwrap();
    assert!((2 << 20..(2 << 20) + (64 << 10)).contains(&uppers.usage().0), "{:?}", uppers.usage());
    one.set_length(0).unwrap();
    assert_eq!(uppers.usage().0, 0);
}

#[test]
fn the_quota_refuses_excess_writes_and_keeps_old_bytes() {
    let (_directory, uppers, upper) = limited(4 << 20);
    let (_, id) = add(&upper, b"kept", &vec![7; 3 * MIB]);
    let data = upper.new_data().unwrap();
    data.write_at(0, b"begin").unwrap();
    let refused = data.write_at(5, &vec![8; 2 * MIB]).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NoSpace);
    assert!(refused.message.contains("ocifs sync") && refused.message.contains("--staging-size"), "{refused}");
    assert_eq!(read_at(&data, 0, 100), b"begin");
    assert_eq!(data.allocate(0, 0, 2 << 20).unwrap_err().kind, ErrorKind::NoSpace);
    assert_eq!(contents(&upper, id), vec![7; 3 * MIB]);
    // Overwriting existing bytes is allowed, and holes cost nothing.
    upper.data(id).unwrap().write_at(0, &vec![9; 3 * MIB]).unwrap();
    data.set_length(1 << 30).unwrap();
    data.write_at(4096, &vec![1; MIB / 2]).unwrap();
    let (used, quota) = uppers.usage();
    assert!(used <= 4 << 20 && quota == Some(4 << 20), "{used}");
}

#[test]
fn all_uppers_share_one_quota_that_counts_existing_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    add(&upper, b"a", &vec![1; 3 * MIB]);
    drop(upper);
    assert_eq!(uppers.usage().0, 0);
    let uppers = Uppers::open(directory.path(), Some(4 << 20)).unwrap();
    let first = again(&uppers);
    assert!(uppers.usage().0 >= 3 << 20);
    let second = uppers.create(&tag_key("v2"), bound(), None).unwrap();
    let data = second.new_data().unwrap();
    assert_eq!(data.write_at(0, &vec![1; 2 * MIB]).unwrap_err().kind, ErrorKind::NoSpace);
    drop(first);
    data.write_at(0, &vec![1; 2 * MIB]).unwrap();
    drop((data, second));
    assert_eq!(uppers.usage().0, 0);
}

#[test]
fn endless_writing_and_removing_never_fills_the_quota() {
    let (directory, uppers, upper) = limited(4 << 20);
    for round in 0..10 {
        let (key, id) = add(&upper, b"a", &vec![round; 3 * MIB]);
        assert_eq!(contents(&upper, id).len(), 3 * MIB);
        let remove = |change: &mut Change<'_>| {
            change.drop_name(0, b"a")?;
            change.drop_node(key)
        };
        upper.change(remove).unwrap();
    }
    upper.sync().unwrap();
    assert_eq!(uppers.usage().0, 0);
    assert!(data_files(directory.path()).is_empty());
}

#[test]
fn open_bytes_count_until_closed() {
    let (directory, uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", &vec![1; MIB]);
    let data = upper.data(id).unwrap();
    upper.change(|change| change.drop_node(key)).unwrap();
    upper.sync().unwrap();
    assert!(data_files(directory.path()).is_empty());
    assert_eq!(upper.data(id).err().map(|error| error.kind), None, "those who have it open may share it");
    data.write_at(1 << 20, &vec![1; MIB]).unwrap();
    assert!(uppers.usage().0 >= 2 << 20);
    drop(data);
    assert_eq!(uppers.usage().0, 0);
    assert_eq!(upper.data(id).err().unwrap().kind, ErrorKind::Gone);
    assert_eq!(upper.rows().open_data(id).err().unwrap().kind, ErrorKind::Gone);
}

#[test]
fn replaced_bytes_are_unlinked_only_when_the_change_is_durable() {
    let (directory, _uppers, upper) = begin();
    let (key, old) = add(&upper, b"a", b"old");
    let new = upper.new_data().unwrap();
    upper.change(|change| change.put_node(key, &file(Content::Data(new.id())))).unwrap();
    assert_eq!(data_files(directory.path()).len(), 2, "a power cut may still bring the old node back");
    let refused = upper.change(|change| change.put_node(key, &file(Content::Data(old)))).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Gone);
    upper.sync().unwrap();
    assert_eq!(data_files(directory.path()).len(), 1);
}

#[test]
fn bytes_taken_over_by_another_node_in_one_change_stay() {
    let (directory, _uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"bytes");
    let moved = upper
        .change(|change| {
            change.drop_node(key)?;
            change.add_node(&file(Content::Data(id)))
        })
        .unwrap();
    upper.sync().unwrap();
    assert_eq!(contents(&upper, id), b"bytes");
    upper.change(|change| change.drop_node(moved)).unwrap();
    upper.sync().unwrap();
    assert!(data_files(directory.path()).is_empty());
}

#[test]
fn a_sync_makes_bytes_and_names_durable_and_can_be_repeated() {
    let (_directory, uppers, upper) = begin();
    let (_, id) = add(&upper, b"a", b"bytes");
    upper.data(id).unwrap().sync().unwrap();
    upper.sync().unwrap();
    upper.sync().unwrap();
    drop(upper);
    let upper = again(&uppers);
    upper.data(id).unwrap().sync().unwrap();
    upper.sync().unwrap();
}

/// A file system of 1 MiB, unmounted when dropped. `None`, with a message, if mounting is not permitted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(directory.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        assert!(std::env::var_os("CI").is_none(), "tests of full disks need the right to mount");
        eprintln!("skipped: mounting a tmpfs is not allowed here");
        None
    }

    fn remount(&self, options: &str) {
        // Between fork and exec, a child of another test holds copies of our open files, and the disk is busy.
        for _ in 0..200 {
            let output = std::process::Command::new("mount").args(["-o", options]).arg(self.0.path()).output().unwrap();
            if output.status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{} cannot be mounted with {options}", self.0.path().display());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_changes_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount("size=1m,mode=700") else { return };
    let uppers = open(disk.0.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    let (key, id) = add(&upper, b"kept", b"kept bytes");
    let data = upper.new_data().unwrap();
    data.write_at(0, &[1; 5000]).unwrap();
    let refused = data.write_at(5000, &vec![2; 2 * MIB]).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NoSpace);
    assert!(refused.message.contains("state directory is full"), "{refused}");
    assert_eq!(data.length().unwrap(), 5000);
    let mut at = 5000;
    while data.write_at(at, &[3; 1000]).is_ok() {
        at += 1000;
    }
    // Staged bytes leave room for the database, or nothing could be deleted to make space.
    upper.change(|change| change.put_name(0, b"still", Named::Whiteout)).unwrap();
    // Eventually its log has no room either.
    let mut names = 0;
    let refused = loop {
        match upper.change(|change| change.put_name(0, format!("{names}{}", "x".repeat(3000)).as_bytes(), Named::Whiteout)) {
            Ok(()) => names += 1,
            Err(error) => break error,
        }
        assert!(names < 1000);
    };
    assert_eq!(refused.kind, ErrorKind::NoSpace, "{refused}");
    assert_eq!(upper.rows().node(key).unwrap().map(|node| node.content), Some(Content::Data(id)));
    assert_eq!(contents(&upper, id), b"kept bytes");
    // With space again, writes succeed, and all acknowledged bytes are there.
    data.set_length(0).unwrap();
    upper.change(|change| change.put_name(0, b"later", Named::Whiteout)).unwrap();
    drop((upper, data));
    let upper = again(&uppers);
    assert_eq!(upper.rows().names(0, 0, usize::MAX).unwrap().len(), names + 3);
    assert_eq!(contents(&upper, id), b"kept bytes");
}

#[test]
fn a_read_only_disk_is_named_in_the_error() {
    let Some(disk) = SmallDisk::mount("size=4m,mode=700") else { return };
    let uppers = open(disk.0.path());
    drop(uppers.create(&tag_key("v1"), bound(), None).unwrap());
    disk.remount("remount,ro");
    for error in [
        Uppers::open(disk.0.path(), None).err().unwrap(),
        uppers.find(&tag_key("v1")).err().unwrap(),
        uppers.create(&tag_key("v2"), bound(), None).err().unwrap(),
    ] {
        assert_eq!(error.kind, ErrorKind::ReadOnly, "{error}");
        assert!(error.message.contains("read-only"), "{error}");
    }
    assert_eq!(uppers.list().unwrap().len(), 1, "looking needs no writing");
}

#[test]
fn a_vanished_disk_is_an_error_not_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let uppers = open(&state);
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    let (key, id) = add(&upper, b"a", b"bytes");
    std::fs::remove_dir_all(&state).unwrap();
    for error in [
        upper.new_data().err().unwrap(),
        upper.rows().open_data(id).err().unwrap(),
        upper.freeze().err().unwrap(),
        uppers.list().err().unwrap(),
        uppers.create(&tag_key("v2"), bound(), None).err().unwrap(),
        upper.remove().err().unwrap(),
    ] {
        assert_eq!(error.kind, ErrorKind::Other, "{error}");
        assert!(error.message.contains(state.to_str().unwrap()), "{error}");
    }
    // Open files may keep working or fail, but never silently.
    let _ = upper.change(|change| change.drop_node(key));
    let _ = upper.sync();
    drop(upper);
}

#[test]
fn staged_files_can_be_removed_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount("size=8m,mode=700") else { return };
    let uppers = open(disk.0.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    let (key, _) = add(&upper, b"large", &vec![1; 2 * MIB]);
    let filler = std::fs::File::create(disk.0.path().join("filler")).unwrap();
    let mut at = 0;
    for step in [MIB, 4096, 1] {
        while filler.write_at(&vec![7; step], at).is_ok_and(|written| written > 0) {
            at = filler.metadata().unwrap().len();
        }
    }
    assert_eq!(uppers.room().unwrap(), (8 * MIB as u64, 0));
    // Names of the tree below: each removal needs space and frees none.
    for name in 0..1000 {
        upper.change(|change| change.put_name(0, format!("name-{name}").as_bytes(), Named::Whiteout)).unwrap();
    }
    upper.change(|change| change.drop_name(0, b"large").and_then(|()| change.drop_node(key))).unwrap();
    let again = upper.new_data().unwrap();
    again.write_at(0, &vec![2; MIB]).unwrap();
    assert!(uppers.room().unwrap().1 < MIB as u64);
    drop((upper, again));
    assert_eq!(super::again(&uppers).rows().names(0, 0, usize::MAX).unwrap().len(), 1000);
}
