//! Files with a base: reading, truncating, filling, kills, chains, the quota.

use super::recovery::kill;
use super::*;
use crate::sys::space::{KEEP_SIZE, PUNCH_HOLE};

/// A file over ten bytes of a tree.
fn over_tree(upper: &Upper) -> (NodeKey, DataFile) {
    let tree = TreeNode { size: 10, ..tree_node(1) };
    let key = upper.change(|change| change.add_node(&Node { content: Content::Tree(tree.clone()), ..file(Content::None) })).unwrap();
    upper.change(|change| change.put_name(0, b"a", Named::Node(key))).unwrap();
    (key, lay(upper, key, Below::Tree(tree)))
}

/// Fills a file from the tree's stand-in.
pub(super) fn fill(data: &DataFile) -> bool {
    let (_, spoiled) = data.begin_filling().unwrap();
    let mut at = 0;
    while let Some(gap) = data.gap(at).unwrap() {
        at = gap.end;
        data.fill(gap.start, &read_at(data, gap.start, gap.end - gap.start)).unwrap();
    }
    data.end_filling(spoiled).unwrap()
}

#[test]
fn a_file_over_a_tree_stores_only_written_bytes() {
    let (directory, uppers, upper) = begin();
    let (_, data) = over_tree(&upper);
    assert_eq!((data.length().unwrap(), read(&data)), (10, vec![b't'; 10]));
    assert_eq!(uppers.usage().0, 0);
    data.write_at(2, b"ab").unwrap();
    data.write_at(4, b"c").unwrap();
    data.write_at(9, b"xyz").unwrap();
    assert_eq!(read(&data), b"ttabcttttxyz");
    data.allocate(PUNCH_HOLE | KEEP_SIZE, 5, 2).unwrap();
    assert_eq!(read(&data), b"ttabc\0\0ttxyz");
    let id = data.id();
    drop(data);
    let (_copy, others) = kill(directory.path(), upper);
    let upper = again(&others);
    assert_eq!(contents(&upper, id), b"ttabc\0\0ttxyz");
    assert_eq!(upper.partial(), [id]);
    drop(uppers);
}

#[test]
fn cut_bytes_never_come_back() {
    let (_directory, uppers, upper) = begin();
    let (_, data) = over_tree(&upper);
    data.write_at(7, b"own").unwrap();
    for (length, expected) in [(8, &b"tttttttox"[..8]), (4, b"tttt"), (6, b"tttt\0\0"), (12, b"tttt\0\0\0\0\0\0\0\0")] {
        data.set_length(length).unwrap();
        assert_eq!(read(&data), expected.iter().map(|byte| if *byte == b'x' { b'w' } else { *byte }).collect::<Vec<_>>());
    }
    data.write_at(5, b"z").unwrap();
    let id = data.id();
    drop((data, upper));
    let upper = again(&uppers);
    assert_eq!(contents(&upper, id), b"tttt\0z\0\0\0\0\0\0");
    upper.data(id).unwrap().set_length(0).unwrap();
    assert_eq!((upper.partial(), contents(&upper, id)), (vec![], vec![]));
}

#[test]
fn a_truncation_interrupted_by_a_kill_is_finished_at_the_next_opening() {
    let (directory, uppers, upper) = begin();
    let (_, data) = over_tree(&upper);
    data.write_at(7, b"own").unwrap();
    let id = data.id();
    drop((data, upper));
    let database = directory.path().join("uppers").join(tag_key("v1").directory_name()).join("upper.db");
    // The state after the first half of a truncation to three bytes.
    let half = format!("UPDATE bases SET kept = 3, cut = 3 WHERE data = {id}; DELETE FROM extents");
    rusqlite::Connection::open(&database).unwrap().execute_batch(&half).unwrap();
    let upper = again(&uppers);
    assert_eq!(contents(&upper, id), b"ttt");
    upper.data(id).unwrap().write_at(5, b"z").unwrap();
    drop(upper);
    assert_eq!(contents(&again(&uppers), id), b"ttt\0\0z");
}

#[test]
fn filling_in_changes_no_visible_byte_and_detaches_the_base() {
    let (_directory, uppers, upper) = begin();
    let (_, data) = over_tree(&upper);
    data.write_at(3, b"own").unwrap();
    data.set_mtime((77, 5)).unwrap();
    let before = data.attributes().unwrap();
    assert!(fill(&data) && data.is_whole().unwrap());
    assert_eq!((upper.partial(), read(&data)), (vec![], b"tttowntttt".to_vec()));
    let after = data.attributes().unwrap();
    assert_eq!((after.size, after.mtime, after.ctime), (before.size, before.mtime, before.ctime));
    let id = data.id();
    drop((data, upper));
    let upper = again(&uppers);
    assert_eq!((contents(&upper, id), upper.rows().data_attributes(id).unwrap().mtime), (b"tttowntttt".to_vec(), (77, 5)));
    assert!(fill(&upper.data(id).unwrap()), "there is nothing to do");
}

#[test]
fn writes_truncations_and_holes_made_during_a_fill_stay() {
    let (_directory, _uppers, upper) = begin();
    let (_, data) = over_tree(&upper);
    let (_, spoiled) = data.begin_filling().unwrap();
    let below = read(&data);
    data.write_at(1, b"new").unwrap();
    data.allocate(PUNCH_HOLE | KEEP_SIZE, 5, 1).unwrap();
    data.set_length(8).unwrap();
    data.fill(0, &below).unwrap();
    data.write_at(6, b"!").unwrap();
    assert!(data.end_filling(spoiled).unwrap());
    assert_eq!(read(&data), b"tnewt\0!t");
}

#[test]
fn zeros_are_filled_in_as_holes_even_over_leftovers() {
    let (_directory, uppers, upper) = begin();
    let tree = TreeNode { size: 1 << 20, ..tree_node(1) };
    let key = upper.change(|change| change.add_node(&Node { content: Content::Tree(tree.clone()), ..file(Content::None) })).unwrap();
    let data = lay(&upper, key, Below::Tree(tree));
    data.fill(0, &[7; 1 << 17]).unwrap();
    let (_, spoiled) = data.begin_filling().unwrap();
    data.fill(0, &[0; 1 << 20]).unwrap();
    assert!(data.end_filling(spoiled).unwrap());
    assert_eq!(contents(&upper, data.id()), [0; 1 << 20]);
    assert!(uppers.usage().0 < 1 << 16);
}

#[test]
fn a_failed_write_cannot_show_through_a_filled_file() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = Uppers::open(directory.path(), Some(64 << 10)).unwrap();
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    let (_, data) = over_tree(&upper);
    let (_, spoiled) = data.begin_filling().unwrap();
    // The rows of its own bytes cannot be stored: the write fails after the bytes are in the file.
    let database = directory.path().join("uppers").join(tag_key("v1").directory_name()).join("upper.db");
    upper.change(|change| change.put_name(0, b"x", Named::Whiteout)).unwrap();
    upper.shared.transact("cannot", |connection| connection.execute_batch("ALTER TABLE extents RENAME TO hidden")).unwrap();
    assert!(data.write_at(2, b"junk").is_err());
    upper.shared.transact("cannot", |connection| connection.execute_batch("ALTER TABLE hidden RENAME TO extents")).unwrap();
    assert_eq!(read(&data), vec![b't'; 10]);
    data.fill(0, b"tt").unwrap();
    assert!(!data.end_filling(spoiled).unwrap(), "it is begun again");
    assert!(fill(&data));
    assert_eq!(read(&data), vec![b't'; 10]);
    assert!(database.exists());
}

#[test]
fn stacked_files_are_read_through_and_removed_with_the_last() {
    let (directory, uppers, upper) = begin();
    let (key, mut data) = over_tree(&upper);
    for round in 0..4_u8 {
        data.write_at(u64::from(round), &[b'0' + round]).unwrap();
        data = lay(&upper, key, Below::Data(data));
        data.set_length(9 - u64::from(round)).unwrap();
    }
    assert_eq!(read(&data), b"0123tt");
    let id = data.id();
    assert_eq!(data_files(directory.path()).len(), 5);
    drop((data, upper));
    let upper = again(&uppers);
    assert_eq!(contents(&upper, id), b"0123tt");
    assert_eq!(data_files(directory.path()).len(), 5, "nothing that is needed was given up");
    let data = upper.data(id).unwrap();
    assert!(fill(&data));
    upper.sync().unwrap();
    assert_eq!(data_files(directory.path()).len(), 1, "the base is gone");
    assert_eq!((read(&data), upper.partial()), (b"0123tt".to_vec(), vec![]));
    drop((data, upper));
    assert_eq!(contents(&again(&uppers), id), b"0123tt");
}

#[test]
fn a_whole_chain_is_removed_with_its_node() {
    let (directory, uppers, upper) = begin();
    let (key, data) = over_tree(&upper);
    let data = lay(&upper, key, Below::Data(data));
    let data = lay(&upper, key, Below::Data(data));
    drop(data);
    upper.change(|change| change.drop_node(key)).unwrap();
    upper.sync().unwrap();
    assert!(data_files(directory.path()).is_empty());
    assert_eq!((upper.partial(), uppers.usage().0), (vec![], 0));
}

#[test]
fn an_unreferenced_new_file_is_removed_with_its_user() {
    let (directory, uppers, upper) = begin();
    let data = upper.new_data().unwrap();
    data.write_at(0, &[1; 100_000]).unwrap();
    assert!(uppers.usage().0 > 0);
    drop(data);
    assert_eq!((data_files(directory.path()).len(), uppers.usage().0), (0, 0));
    let data = upper.new_data().unwrap();
    let refused = upper.change(|change| {
        change.add_node(&file(Content::Data(data.id())))?;
        Err::<(), _>(Error::new(ErrorKind::Other, "changed its mind"))
    });
    assert!(refused.is_err());
    drop(data);
    assert!(data_files(directory.path()).is_empty());
}

#[test]
fn a_frozen_stacked_file_is_read_through_while_the_upper_changes() {
    let (_directory, _uppers, upper) = begin();
    let (key, data) = over_tree(&upper);
    data.write_at(0, b"F").unwrap();
    let id = data.id();
    drop(data);
    let frozen = upper.freeze().unwrap();
    let data = lay(&upper, key, Below::Data(upper.data(id).unwrap()));
    data.write_at(1, b"L").unwrap();
    drop(data);
    upper.change(|change| change.drop_node(key)).unwrap();
    upper.sync().unwrap();
    let of_generation = frozen.rows().open_data(id).unwrap();
    assert_eq!(read(&of_generation), b"Fttttttttt");
    assert!(fill(&of_generation), "that does not change what it shows");
    assert_eq!(read(&of_generation), b"Fttttttttt");
}

#[test]
fn recorded_locations_of_staged_bytes_are_validated() {
    for damage in [
        "UPDATE bases SET base = data, manifest = NULL",
        "UPDATE bases SET manifest = NULL",
        "UPDATE bases SET kept = -1",
        "INSERT INTO extents VALUES (1, 0, 5), (1, 3, 4)",
        "INSERT INTO extents VALUES (1, 3, 3)",
    ] {
        let (directory, uppers, upper) = begin();
        let (_, data) = over_tree(&upper);
        assert_eq!(data.id(), 1);
        drop((data, upper));
        let database = directory.path().join("uppers").join(tag_key("v1").directory_name()).join("upper.db");
        rusqlite::Connection::open(&database).unwrap().execute_batch(damage).unwrap();
        let read = uppers.find(&tag_key("v1")).and_then(|upper| upper.unwrap().data(1)?.is_whole());
        assert_eq!(read.unwrap_err().kind, ErrorKind::Integrity, "{damage}");
    }
}
