//! Damaged files, lost counters and what killed processes leave.

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
        let place = Place::new(64 * MIB);
        let layout = even(3, 40_000);
        fill(&place.open(), 1, &layout, &Protection::Plain);
        damage(&place.data_files()[0]);
        let cache = place.open();
        let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
        assert!(!check(&stream, 1, &layout, 1) && !stream.has(1));
        assert!(store(&stream, 1, &layout, 1) && check(&stream, 1, &layout, 1));
        assert!((0..3).all(|span| check(&stream, 1, &layout, span) || store(&stream, 1, &layout, span)));
        assert!((0..3).all(|span| check(&place.open().stream(&blob(1), &layout, &Protection::Plain).unwrap(), 1, &layout, span)));
    }
}

#[test]
fn verify_finds_what_is_broken_and_only_that() {
    let place = Place::new(64 * MIB);
    let cache = place.open();
    let layout = even(5, 100_000);
    fill(&cache, 1, &layout, &Protection::Plain);
    fill(&cache, 2, &layout, &Protection::Plain);
    assert_eq!(cache.verify().unwrap(), (10, 0));
    flip(&place.data_files()[0], 250_000);
    assert_eq!(cache.verify().unwrap(), (10, 1));
    assert_eq!(cache.verify().unwrap(), (9, 0));
}

#[test]
fn a_damaged_table_costs_its_stream_and_nothing_else() {
    let layout = even(5, 10_000);
    let length = {
        let place = Place::new(64 * MIB);
        fill(&place.open(), 1, &layout, &Protection::Plain);
        fs::metadata(&place.tables()[0]).unwrap().len()
    };
    for at in (0..length).step_by(8) {
        let place = Place::new(64 * MIB);
        fill(&place.open(), 1, &layout, &Protection::Plain);
        flip(&place.tables()[0], at);
        let cache = place.open();
        let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
        for span in 0..5 {
            assert!(check(&stream, 1, &layout, span) || store(&stream, 1, &layout, span));
            assert!(check(&stream, 1, &layout, span));
        }
    }
    for cut in [0, 7, 100, length - 8, length - 1] {
        let place = Place::new(64 * MIB);
        fill(&place.open(), 1, &layout, &Protection::Plain);
        fs::OpenOptions::new().write(true).open(&place.tables()[0]).unwrap().set_len(cut).unwrap();
        let stream = place.open().stream(&blob(1), &layout, &Protection::Plain).unwrap();
        assert!((0..5).all(|span| !check(&stream, 1, &layout, span) && store(&stream, 1, &layout, span)));
    }
}

#[test]
fn a_lost_or_garbled_ledger_is_counted_anew_before_anything_is_stored() {
    for damage in [None, Some(0), Some(8)] {
        let place = Place::new(2 * MIB);
        let layout = even(7, 256 * KIB);
        fill(&place.open(), 1, &layout, &Protection::Plain);
        let ledger = place.path().join("v1/ledger");
        match damage {
            None => fs::remove_file(&ledger).unwrap(),
            Some(0) => flip(&ledger, 0),
            Some(at) => {
                // As after a reboot: other boot, and a total that is too small.
                let file = fs::OpenOptions::new().write(true).open(&ledger).unwrap();
                file.write_all_at(&[0; 8], at).unwrap();
                file.write_all_at(&[1; 8], 24).unwrap();
            }
        }
        let cache = place.open();
        let stream = cache.stream(&blob(2), &layout, &Protection::Plain).unwrap();
        for span in 0..7 {
            assert!(store(&stream, 2, &layout, span));
            assert!(place.occupied() <= place.size);
        }
    }
}

#[test]
fn what_a_killed_writer_left_behind_is_swept_away() {
    let place = Place::new(2 * MIB);
    let cache = place.open();
    let layout = even(16, 128 * KIB);
    let stream = cache.stream(&blob(1), &layout, &Protection::Plain).unwrap();
    assert!(store(&stream, 1, &layout, 0));
    // Bytes without a table entry, as a writer leaves them that dies before it publishes, and an unfinished fill of
    // an owner that is gone.
    let file = fs::OpenOptions::new().write(true).open(&place.data_files()[0]).unwrap();
    file.write_all_at(&vec![9; MIB as usize], MIB).unwrap();
    let dead = place.path().join("v1/work/1000-00000000000000aa-0");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("x.main"), vec![9; 512 << 10]).unwrap();
    for span in 1..16 {
        assert!(store(&stream, 1, &layout, span));
    }
    assert!(place.occupied() <= place.size && !dead.exists());
    for span in 0..16 {
        check(&stream, 1, &layout, span);
    }
}
