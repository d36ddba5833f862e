//! Opening after a kill or a power cut.

use super::*;

/// Ends an upper as SIGKILL does: nothing is closed. Its lock would last as long as this process, so a copy is opened.
pub(super) fn kill(directory: &Path, upper: Upper) -> (tempfile::TempDir, Uppers) {
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp").arg("-a").arg(directory.join("uppers")).arg(copy.path()).status().unwrap();
    assert!(status.success());
    drop(upper);
    let uppers = open(copy.path());
    (copy, uppers)
}

#[test]
fn acknowledged_changes_survive_without_close_or_sync() {
    let (directory, _uppers, upper) = begin();
    let added: Vec<_> = (0..300_u32).map(|number| add(&upper, format!("{number}").as_bytes(), &number.to_be_bytes())).collect();
    let (_copy, uppers) = kill(directory.path(), upper);
    let upper = again(&uppers);
    assert!(upper.is_edited());
    for (number, (key, id)) in (0_u32..).zip(added) {
        assert_eq!(upper.rows().node(key).unwrap(), Some(file(Content::Data(id))));
        assert_eq!(contents(&upper, id), number.to_be_bytes());
    }
}

#[test]
fn unreferenced_bytes_are_unlinked_after_a_kill() {
    let (directory, _uppers, upper) = begin();
    let (_, kept) = add(&upper, b"a", b"kept");
    let unused = upper.new_data().unwrap();
    unused.write_at(0, b"never used").unwrap();
    let (key, _) = add(&upper, b"b", b"given up");
    upper.change(|change| change.drop_node(key)).unwrap();
    let foreign = data_files(directory.path())[0].parent().unwrap().join("README");
    std::fs::write(&foreign, b"not ours").unwrap();
    assert_eq!(data_files(directory.path()).len(), 4);
    let (copy, uppers) = kill(directory.path(), upper);
    drop(unused);
    let upper = again(&uppers);
    assert_eq!(contents(&upper, kept), b"kept");
    let left: Vec<_> = data_files(copy.path()).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(left, [kept.to_string(), "README".to_owned()]);
    assert!(upper.new_data().unwrap().id() > kept + 2, "numbers are not given again");
}

#[test]
fn unlinked_open_nodes_end_with_their_process() {
    let (directory, _uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"open");
    let (kept, _) = add(&upper, b"b", b"kept");
    let unlink = |change: &mut Change<'_>| {
        change.drop_name(0, b"a")?;
        change.put_xattr(key, b"user.x", Some(b"1"))?;
        change.put_node(key, &Node { links: 0, ..file(Content::Data(id)) })?;
        change.put_name(key, b"whiteout", Named::Whiteout)
    };
    upper.change(unlink).unwrap();
    let (copy, uppers) = kill(directory.path(), upper);
    let upper = again(&uppers);
    assert_eq!(upper.rows().nodes(None, 10).unwrap().len(), 1);
    assert!(upper.rows().node(kept).unwrap().is_some());
    assert!(upper.rows().xattrs(key).unwrap().is_empty() && upper.rows().names(key, 0, 10).unwrap().is_empty());
    assert_eq!(data_files(copy.path()).len(), 1);
}

#[test]
fn a_file_that_lost_its_bytes_in_a_power_cut_is_empty_and_suspect() {
    let (directory, _uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"lost");
    let (_, kept) = add(&upper, b"b", b"kept");
    let (copy, uppers) = kill(directory.path(), upper);
    std::fs::remove_file(&data_files(copy.path())[0]).unwrap();
    let upper = again(&uppers);
    assert_eq!(upper.rows().node(key).unwrap().unwrap().content, Content::Data(id));
    assert_eq!((contents(&upper, id).len(), contents(&upper, kept)), (0, b"kept".to_vec()));
    assert_eq!(upper.suspects().into_iter().collect::<Vec<_>>(), [id]);
    upper.data(id).unwrap().write_at(0, b"again").unwrap();
    assert_eq!(contents(&upper, id), b"again");
}

#[test]
fn the_frozen_generation_of_a_killed_process_is_dropped() {
    let (directory, _uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"one");
    let frozen = upper.freeze().unwrap();
    let generation = frozen.generation();
    let copy = tempfile::tempdir().unwrap();
    assert!(std::process::Command::new("cp").arg("-a").arg(directory.path().join("uppers")).arg(copy.path()).status().unwrap().success());
    let uppers = open(copy.path());
    let upper = again(&uppers);
    assert_eq!(data_files(copy.path()).len(), 1);
    assert_eq!(upper.rows().node(key).unwrap().unwrap().content, Content::Data(id));
    assert!(upper.is_edited());
    let next = upper.freeze().unwrap();
    assert!(next.generation() > generation);
    let place = copy.path().join("uppers").join(tag_key("v1").directory_name());
    let snapshots =
        std::fs::read_dir(place).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("frozen-"));
    assert!(snapshots.count() <= 2);
}

#[test]
fn a_truncated_log_keeps_the_changes_before_the_cut() {
    let (directory, _uppers, upper) = begin();
    for number in 0..200_u32 {
        upper.change(|change| change.put_name(0, format!("{number:03}").as_bytes(), Named::Whiteout)).unwrap();
    }
    let (copy, _uppers) = kill(directory.path(), upper);
    let log = copy.path().join("uppers").join(tag_key("v1").directory_name()).join("upper.db-wal");
    let mut length = std::fs::metadata(&log).unwrap().len();
    let mut before = usize::MAX;
    while length > 0 {
        std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(length).unwrap();
        let cut = tempfile::tempdir().unwrap();
        assert!(std::process::Command::new("cp").arg("-a").arg(copy.path().join("uppers")).arg(cut.path()).status().unwrap().success());
        let names = again(&open(cut.path())).rows().names(0, 0, usize::MAX).unwrap();
        let expected: Vec<_> = (0..names.len()).map(|number| format!("{number:03}").into_bytes()).collect();
        assert_eq!(names.into_iter().map(|row| row.name).collect::<Vec<_>>(), expected);
        assert!(expected.len() <= before);
        before = expected.len();
        length = length.saturating_sub(123_457);
    }
}
