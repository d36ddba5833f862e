//! Damaged files, lost counters and leftovers of killed processes.

use std::os::unix::fs::FileExt;

use super::*;

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_flipped_zeroed_or_cut_span_is_a_miss_and_can_be_stored_again() {
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |path| flip(path, 50_000),
        |path| fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(&[0; 4096], 49_152).unwrap(),
        |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(30_000).unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for damage in damages {
        let fixture = CacheFixture::new(64 * MIB);
        let layout = even(3, 40_000);
        fill(&fixture.open(), 1, &layout, &Protection::Plain);
        damage(&fixture.data_files()[0]);
        let cache = fixture.open();
        let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
        assert!(!check(&stream, 1, &layout, 1) && !stream.has(1));
        assert!(store(&stream, 1, &layout, 1) && check(&stream, 1, &layout, 1));
        assert!((0..3).all(|span| check(&stream, 1, &layout, span) || store(&stream, 1, &layout, span)));
        assert!((0..3).all(|span| check(&fixture.open().stream(&blob(1), &layout, &Protection::Plain).unwrap(), 1, &layout, span)));
    }
}

#[test]
fn verify_finds_all_damage_and_nothing_else() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let layout = even(5, 100_000);
    fill(&cache, 1, &layout, &Protection::Plain);
    fill(&cache, 2, &layout, &Protection::Plain);
    assert_eq!(cache.verify().unwrap(), (10, 0));
    flip(&fixture.data_files()[0], 250_000);
    assert_eq!(cache.verify().unwrap(), (10, 1));
    assert_eq!(cache.verify().unwrap(), (9, 0));
}

#[test]
fn a_table_that_is_temporarily_unreadable_costs_nothing() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let layout = even(5, 100_000);
    fill(&cache, 1, &layout, &Protection::Plain);
    cache.pin("kept", &[blob(1)]).unwrap();
    let table = fixture.tables().remove(0);
    let aside = table.with_extension("aside");
    // Opening it fails, as with too many open files.
    fs::rename(&table, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &table).unwrap();
    cache.clear(false).unwrap();
    fs::rename(&aside, &table).unwrap();
    let stream = fixture.open().stream(&blob(1), &layout, &Protection::Plain).unwrap();
    assert!((0..5).all(|span| check(&stream, 1, &layout, span)));
}

#[test]
fn a_damaged_table_costs_its_stream_and_nothing_else() {
    let layout = even(5, 10_000);
    let length = {
        let fixture = CacheFixture::new(64 * MIB);
        fill(&fixture.open(), 1, &layout, &Protection::Plain);
        fs::metadata(&fixture.tables()[0]).unwrap().len()
    };
    for at in (0..length).step_by(8) {
        let fixture = CacheFixture::new(64 * MIB);
        fill(&fixture.open(), 1, &layout, &Protection::Plain);
        flip(&fixture.tables()[0], at);
        let cache = fixture.open();
        let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
        for span in 0..5 {
            assert!(check(&stream, 1, &layout, span) || store(&stream, 1, &layout, span));
            assert!(check(&stream, 1, &layout, span));
        }
    }
    for cut in [0, 7, 100, length - 8, length - 1] {
        let fixture = CacheFixture::new(64 * MIB);
        fill(&fixture.open(), 1, &layout, &Protection::Plain);
        fs::OpenOptions::new().write(true).open(&fixture.tables()[0]).unwrap().set_len(cut).unwrap();
        let stream = fixture.open().stream(&blob(1), &layout, &Protection::Plain).unwrap();
        assert!((0..5).all(|span| !check(&stream, 1, &layout, span) && store(&stream, 1, &layout, span)));
    }
}

#[test]
fn a_lost_or_garbled_ledger_is_recounted_before_anything_is_stored() {
    for damage in [None, Some(0), Some(8)] {
        let fixture = CacheFixture::new(2 * MIB);
        let layout = even(7, 256 * KIB);
        fill(&fixture.open(), 1, &layout, &Protection::Plain);
        let ledger = fixture.path().join("v2/ledger");
        match damage {
            None => fs::remove_file(&ledger).unwrap(),
            Some(0) => flip(&ledger, 0),
            Some(at) => {
                // As after a reboot: another boot id, and a total that is too small.
                let file = fs::OpenOptions::new().write(true).open(&ledger).unwrap();
                file.write_all_at(&[0; 8], at).unwrap();
                file.write_all_at(&[1; 8], 24).unwrap();
            }
        }
        let cache = fixture.open();
        let stream = cache.stream(&blob(2), &layout, &Protection::Plain).unwrap();
        for span in 0..7 {
            assert!(store(&stream, 2, &layout, span));
            assert!(fixture.occupied() <= fixture.size);
        }
    }
}

#[test]
fn leftovers_of_a_killed_writer_are_swept() {
    let fixture = CacheFixture::new(2 * MIB);
    let cache = fixture.open();
    let layout = even(16, 128 * KIB);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    assert!(store(&stream, 1, &layout, 0));
    // Bytes without a table entry, as left by a writer that dies before publishing, and an unfinished fill of a dead owner.
    let file = fs::OpenOptions::new().write(true).open(&fixture.data_files()[0]).unwrap();
    file.write_all_at(&vec![9; MIB as usize], MIB).unwrap();
    let dead = fixture.path().join("v2/work/1000-00000000000000aa-0");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("x.main"), vec![9; 512 << 10]).unwrap();
    for span in 1..16 {
        assert!(store(&stream, 1, &layout, span));
    }
    assert!(fixture.occupied() <= fixture.size && !dead.exists());
    for span in 0..16 {
        check(&stream, 1, &layout, span);
    }
}

/// A tmpfs, unmounted when dropped. `None`, with a message, if mounting is not permitted.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(path: &'a Path, options: &str) -> Option<Self> {
        let status = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a tmpfs");
        eprintln!("SKIPPED: a tmpfs cannot be mounted here, so the full disk was not tried");
        None
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_disk_filled_by_others_is_no_error_and_freed_room_is_used_again() {
    let fixture = CacheFixture::new(64 * MIB);
    let Some(_tmpfs) = Tmpfs::mount(fixture.directory.path(), "size=2m,mode=700") else { return };
    let cache = fixture.open();
    let layout = even(16, 256 * KIB);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    let other = fixture.directory.path().join("other");
    fs::write(&other, vec![1; 1 << 20]).unwrap();
    assert!((0..16).any(|span| store(&stream, 1, &layout, span)));
    let mut unfinished = cache.fill(&blob(2), &Protection::Plain).unwrap();
    fill_spans(&mut unfinished, 2, &layout);
    unfinished.commit().unwrap();
    let filled = cache.stream(&blob(2), &layout, &Protection::Plain).unwrap();
    for span in 0..16 {
        check(&stream, 1, &layout, span);
        check(&filled, 2, &layout, span);
    }
    fs::remove_file(&other).unwrap();
    cache.clear(true).unwrap();
    assert!(store(&stream, 1, &layout, 3) && check(&stream, 1, &layout, 3));
}

#[test]
fn a_refused_write_is_dropped_without_an_error() {
    let fixture = CacheFixture::new(64 * MIB);
    let Some(_tmpfs) = Tmpfs::mount(fixture.directory.path(), "size=8m,nr_inodes=64,mode=700") else { return };
    let cache = fixture.open();
    let layout = even(4, 64 * KIB);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    let mut unfinished = cache.fill(&blob(2), &Protection::Plain).unwrap();
    // There are blocks, so the reservation succeeds, but no inodes: creating the data file fails with ENOSPC.
    let mut others = Vec::new();
    while let Ok(()) = fs::write(fixture.directory.path().join(others.len().to_string()), b"") {
        others.push(fixture.directory.path().join(others.len().to_string()));
    }
    assert!(!store(&stream, 1, &layout, 0) && !check(&stream, 1, &layout, 0));
    assert!(!unfinished.span(&bytes(2, span_range(&layout, 0))).unwrap());
    assert_eq!(cache.stream(&blob(3), &layout, &Protection::Plain).err().map(|error| error.kind), Some(ErrorKind::NoSpace));
    others.iter().for_each(|path| fs::remove_file(path).unwrap());
    assert!(store(&stream, 1, &layout, 0) && check(&stream, 1, &layout, 0));
    assert!(unfinished.span(&bytes(2, span_range(&layout, 1))).unwrap());
}

#[test]
fn a_link_in_place_of_a_data_file_is_never_followed() {
    let fixture = CacheFixture::new(64 * MIB);
    let cache = fixture.open();
    let layout = even(2, 64 * KIB);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    assert!(store(&stream, 1, &layout, 0));
    let path = fixture.data_files().remove(0);
    let target = fixture.directory.path().join("target");
    fs::write(&target, bytes(1, 0..2 * 64 * KIB)).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let fresh = fixture.open().stream(&blob(1), &layout, &Protection::Plain).unwrap();
    assert!(fresh.store(1, &[7; 64 << 10], Trust::Proved).is_err());
    assert!(!fresh.has(1) && !check(&fresh, 1, &layout, 0));
    assert!(fs::read(&target).unwrap() == bytes(1, 0..2 * 64 * KIB));
}

#[test]
fn a_claimed_size_never_creates_a_huge_table() {
    let fixture = CacheFixture::new(MIB);
    let layout = even(1 << 20, MIB);
    let refused = fixture.open().stream(&blob(1), &layout, &Protection::Plain);
    assert_eq!(refused.err().map(|error| error.kind), Some(ErrorKind::NoSpace));
    assert!(fixture.tables().is_empty());
}

#[test]
fn a_stream_that_cannot_be_removed_stays_usable() {
    let fixture = CacheFixture::new(MIB);
    let (cache, other) = (fixture.open(), fixture.open());
    let layout = even(4, 100_000);
    fill(&cache, 1, &layout, &Protection::Plain);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    // No directory can be created there, as on a full disk.
    let work = fixture.path().join("v2/work");
    fs::remove_dir_all(&work).unwrap();
    fs::write(&work, "").unwrap();
    assert!(cache.clear(true).is_err() && cache.forget_stream(&blob(1)).is_err());
    assert!((0..4).all(|span| check(&stream, 1, &layout, span)));
    assert!((0..4).all(|span| check(&other.stream(&blob(1), &layout, &Protection::Plain).unwrap(), 1, &layout, span)));
    fs::remove_file(&work).unwrap();
    fs::create_dir(&work).unwrap();
    cache.clear(true).unwrap();
    assert!(fixture.tables().is_empty());
}
