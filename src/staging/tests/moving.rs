//! Moving, removing, listing and holding uppers.

use std::process::{Command, Stdio};

use super::error::system;
use super::*;

#[test]
fn a_moved_upper_continues_under_its_new_tag_with_its_lock() {
    let (directory, uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"one");
    let data = upper.data(id).unwrap();
    upper.move_to(&tag_key("v2")).unwrap();
    assert_eq!(upper.tag_key(), tag_key("v2"));
    assert!(uppers.find(&tag_key("v1")).unwrap().is_none());
    assert_eq!(uppers.find(&tag_key("v2")).err().unwrap().kind, ErrorKind::Busy);
    // The old tag can be staged again at once, beside the moved one.
    let other = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    let (_, second) = add(&other, b"other", b"two");
    data.write_at(3, b"!").unwrap();
    let (late, _) = add(&upper, b"late", b"three");
    upper.sync().unwrap();
    let frozen = upper.freeze().unwrap();
    assert_eq!(frozen.rows().nodes(None, 10).unwrap().len(), 2);
    drop((frozen, data, upper));
    add(&other, b"more", b"four");
    drop(other);
    let upper = uppers.find(&tag_key("v2")).unwrap().unwrap();
    assert_eq!(contents(&upper, id), b"one!");
    assert!(upper.rows().node(key).unwrap().is_some() && upper.rows().node(late).unwrap().is_some());
    assert_eq!(contents(&again(&uppers), second), b"two");
    assert_eq!(again(&uppers).rows().names(0, 0, 10).unwrap().len(), 2);
    let tags: Vec<_> = uppers.list().unwrap().into_iter().map(|listed| listed.unwrap().tag_key.tag).collect();
    assert!(tags.len() == 2 && tags.contains(&"v1".to_owned()) && tags.contains(&"v2".to_owned()));
    assert_eq!(data_files(directory.path()).len(), 4);
}

#[test]
fn an_upper_does_not_move_onto_another() {
    let (_directory, uppers, upper) = begin();
    let other = uppers.create(&tag_key("v2"), bound(), None).unwrap();
    assert_eq!(upper.move_to(&tag_key("v2")).unwrap_err().kind, ErrorKind::Busy);
    drop(other);
    assert_eq!(upper.move_to(&tag_key("v2")).unwrap_err().kind, ErrorKind::Exists);
    upper.move_to(&tag_key("v1")).unwrap();
    assert_eq!(upper.tag_key(), tag_key("v1"));
    drop(upper);
    again(&uppers);
}

#[test]
fn the_next_opening_finishes_a_killed_move() {
    let (_directory, uppers, upper) = begin();
    let (key, _) = add(&upper, b"a", b"one");
    let directory = upper.packs().parent().unwrap().to_path_buf();
    drop(upper);
    super::super::about::About::new(&tag_key("v2"), &bound()).write(&directory).unwrap();
    assert!(uppers.find(&tag_key("v1")).unwrap().is_none());
    assert!(uppers.find(&tag_key("v2")).unwrap().unwrap().rows().node(key).unwrap().is_some());
}

#[test]
fn a_removed_upper_is_gone_at_once_for_all_its_users() {
    let (directory, uppers, upper) = begin();
    let (_, id) = add(&upper, b"a", b"one");
    let data = upper.data(id).unwrap();
    upper.remove().unwrap();
    let anew = uppers.create(&tag_key("v1"), Binding::default(), None).unwrap();
    assert!(!upper.is_edited());
    for error in [
        upper.remove().err(),
        upper.rows().node(1).err(),
        upper.rows().open_data(id).err(),
        upper.change(|_| Ok(())).err(),
        upper.new_data().err(),
        upper.sync().err(),
        upper.journal().err(),
        upper.set_journal(None).err(),
        upper.freeze().err(),
        upper.move_to(&tag_key("v2")).err(),
    ] {
        assert_eq!(error.unwrap().kind, ErrorKind::Gone);
    }
    // An open file can still be read and written, and its bytes count until it is closed.
    data.write_at(3, b"!").unwrap();
    assert_eq!(read_at(&data, 0, 10), b"one!");
    data.sync().unwrap();
    assert!(uppers.usage().0 > 0);
    drop((data, upper));
    assert_eq!(uppers.usage().0, 0);
    assert!(anew.rows().nodes(None, 1).unwrap().is_empty());
    add(&anew, b"b", b"two");
    drop(anew);
    assert_eq!(again(&uppers).rows().names(0, 0, 10).unwrap().len(), 1);
    assert_eq!(data_files(directory.path()).len(), 1);
}

#[test]
fn a_sync_overtaken_by_a_removal_reports_gone() {
    let (directory, _uppers, upper) = begin();
    let (_, id) = add(&upper, b"a", b"one");
    let data = upper.data(id).unwrap();
    // Renamed, but open files do not know yet.
    let away = directory.path().join("away");
    let take = |from: &Path| std::fs::rename(from, &away).map(|()| away.clone()).map_err(|error| system("cannot rename", from, &error));
    upper.shared.store.take_away(take).unwrap();
    assert_eq!(data.sync().unwrap_err().kind, ErrorKind::Gone);
    assert_eq!(upper.shared.store.sync_names().unwrap_err().kind, ErrorKind::Gone);
}

#[test]
fn leftovers_of_killed_makers_and_removers_are_swept() {
    let (directory, uppers, upper) = begin();
    drop(upper);
    let root = directory.path().join("uppers");
    for name in [".making-00112233445566778899aabbccddeeff", ".removing-0-00112233445566778899aabbccddeeff"] {
        std::fs::create_dir_all(root.join(name).join("data/00")).unwrap();
        std::fs::write(root.join(name).join("data/00/1"), b"left").unwrap();
    }
    assert_eq!(uppers.list().unwrap().len(), 1);
    let uppers = open(directory.path());
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 2, "the upper and the lock");
    again(&uppers);
}

#[test]
fn an_unreadable_upper_is_listed_and_can_be_discarded() {
    let (directory, uppers, upper) = begin();
    drop(upper);
    drop(uppers.create(&tag_key("v2"), bound(), None).unwrap());
    let broken = directory.path().join("uppers").join(tag_key("v1").directory_name());
    for text in [&b"{"[..], b"", b"[]", b"{\"version\":1}", &[b' '; 70 << 10], b"\xff"] {
        std::fs::write(broken.join("about.json"), text).unwrap();
        let (good, bad): (Vec<_>, Vec<_>) = uppers.list().unwrap().into_iter().partition(Result::is_ok);
        assert_eq!((good.len(), bad.len()), (1, 1));
        let error = bad.into_iter().next().unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Integrity);
        assert!(error.message.contains(broken.to_str().unwrap()), "{error}");
    }
    std::fs::write(broken.join("about.json"), b"{\"version\":2}").unwrap();
    assert_eq!(uppers.find(&tag_key("v1")).err().unwrap().kind, ErrorKind::Unsupported);
    assert!(open(directory.path()).give_up(&tag_key("v1")).unwrap());
    assert!(!uppers.give_up(&tag_key("v1")).unwrap());
    assert_eq!(uppers.list().unwrap().len(), 1);
}

#[test]
fn a_held_upper_is_not_discarded() {
    let (_directory, uppers, upper) = begin();
    assert_eq!(uppers.give_up(&tag_key("v1")).unwrap_err().kind, ErrorKind::Busy);
    drop(upper);
    assert!(uppers.give_up(&tag_key("v1")).unwrap());
}

#[test]
fn tags_of_different_places_have_different_uppers() {
    let names = |origin: &str, repository: &str, tag: &str| {
        let tag_key =
            TagKey { origin: origin.to_owned(), authority: "x".to_owned(), repository: repository.to_owned(), tag: tag.to_owned() };
        tag_key.directory_name()
    };
    let all = [names("a", "b", "c"), names("ab", "", "c"), names("a", "bc", ""), names("a", "b", "d"), names("", "ab", "c")];
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn messages_escape_names_from_a_registry() {
    let evil = TagKey { repository: "a\u{1b}[31m".to_owned(), ..tag_key("v1") };
    assert_eq!(evil.shown(), "reg.io/a\\u{1b}[31m:v1");
    let layout = TagKey { authority: "oci:/srv/layout".to_owned(), ..tag_key("v1") };
    assert_eq!(layout.shown(), "oci:/srv/layout:v1");
}

#[test]
fn the_lock_of_a_killed_process_is_free_and_a_live_one_is_named() {
    let (directory, uppers, upper) = begin();
    drop(upper);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "staging::tests::crash::a_child_works_only_where_it_is_told_to", "--nocapture"])
        .env(super::crash::HOLD, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with("held")));
    let busy = uppers.find(&tag_key("v1")).err().unwrap();
    assert_eq!(busy.kind, ErrorKind::Busy);
    assert!(busy.message.contains(&format!("process {}", child.id())), "{busy}");
    assert_eq!(uppers.list().unwrap()[0].as_ref().unwrap().holder, Some(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(uppers.list().unwrap()[0].as_ref().unwrap().holder, None);
    again(&uppers);
}

#[test]
fn an_upper_with_edits_is_neither_retired_nor_removed_as_clean() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    upper.change(|change| change.put_name(0, b"name", Named::Whiteout)).unwrap();
    assert!(!upper.retire(&tag_key("v1@1")).unwrap() && !upper.remove_if_clean().unwrap());
    assert!(!upper.remove_if(|rows| Ok(rows.name(0, b"name")?.is_none())).unwrap());
    drop(upper);
    assert!(uppers.find(&tag_key("v1")).unwrap().unwrap().has_edits());
}

#[test]
fn later_edits_of_a_retired_or_removed_upper_fail_with_gone() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let edit = |upper: &Upper| upper.change(|change| change.put_name(0, b"name", Named::Whiteout)).unwrap_err().kind;
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    assert!(upper.retire(&tag_key("v1@1")).unwrap());
    assert_eq!(edit(&upper), ErrorKind::Gone);
    assert!(upper.rows().name(0, b"name").unwrap().is_none(), "it can still be read");
    let next = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    assert!(next.remove_if_clean().unwrap());
    assert_eq!(edit(&next), ErrorKind::Gone);
    assert!(upper.remove_if_clean().unwrap());
    assert!(uppers.list().unwrap().is_empty());
}

#[test]
fn a_new_or_deleted_tag_is_never_removed_as_clean() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let new = uppers.create(&tag_key("v1"), Binding::default(), None).unwrap();
    let deleted = uppers.create(&tag_key("v2"), Binding { deleted: true, ..bound() }, None).unwrap();
    assert!(!new.remove_if_clean().unwrap() && !deleted.remove_if_clean().unwrap());
}

#[test]
fn an_upper_is_removed_after_its_publish_only_if_unchanged_since_the_freeze() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    upper.change(|change| change.put_name(0, b"name", Named::Whiteout)).unwrap();
    let frozen = upper.freeze().unwrap();
    assert!(!upper.remove_if_clean().unwrap(), "it is being published");
    upper.change(|change| change.put_name(0, b"later", Named::Whiteout)).unwrap();
    assert!(!upper.remove_if_unchanged(frozen).unwrap());
    let frozen = upper.freeze().unwrap();
    assert!(upper.remove_if_unchanged(frozen).unwrap());
    assert!(uppers.list().unwrap().is_empty());
}

#[test]
fn bytes_are_staged_and_read_while_the_upper_moves_back_and_forth() {
    let (_directory, _uppers, upper) = begin();
    let (_, id) = add(&upper, b"a", b"one");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    upper.new_data().unwrap();
                    upper.rows().open_data(id).unwrap();
                    assert_eq!(contents(&upper, id), b"one");
                }
            });
        }
        for round in 0..300 {
            upper.move_to(&tag_key(if round % 2 == 0 { "v2" } else { "v1" })).unwrap();
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_released_tag_is_reacquired_by_the_next_change_unless_taken() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    let edit = |upper: &Upper| upper.change(|change| change.put_name(0, b"name", Named::Whiteout)).map_err(|error| error.kind);
    assert!(upper.release(&tag_key("v1@1-1")).unwrap() && upper.is_released());
    assert!(!upper.release(&tag_key("v1@1-1")).unwrap(), "once");
    assert!(upper.rows().name(0, b"name").unwrap().is_none(), "it can be read");
    upper.tidy(|change| change.drop_node(7)).unwrap();
    assert!(upper.is_released() && !upper.has_edits(), "tidying is no edit");

    let other = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    assert_eq!(edit(&upper), Err(ErrorKind::Busy));
    drop(other);
    assert_eq!(edit(&upper), Err(ErrorKind::Exists));
    uppers.find(&tag_key("v1")).unwrap().unwrap().remove().unwrap();
    edit(&upper).unwrap();
    assert_eq!((upper.tag_key(), upper.is_released(), upper.has_edits()), (tag_key("v1"), false, true));
    assert!(!upper.release(&tag_key("v1@1-1")).unwrap(), "there are edits");
    assert_eq!(uppers.find(&tag_key("v1")).err().unwrap().kind, ErrorKind::Busy);
    drop(upper);
    assert!(uppers.find(&tag_key("v1")).unwrap().unwrap().has_edits());
}

#[test]
fn a_retired_upper_cannot_be_reacquired() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let upper = uppers.create(&tag_key("v1"), bound(), None).unwrap();
    assert!(upper.release(&tag_key("v1@1-1")).unwrap());
    assert!(upper.retire(&tag_key("v1@1-1")).unwrap());
    assert_eq!(upper.reclaim().unwrap_err().kind, ErrorKind::Gone);
}

#[test]
fn an_upper_that_its_holder_removes_meanwhile_is_never_listed_as_free() {
    let directory = tempfile::tempdir().unwrap();
    let (uppers, seen) = (open(directory.path()), open(directory.path()));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..60 {
                uppers.create(&tag_key("v1"), bound(), None).unwrap().remove().unwrap();
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            for listed in seen.list().unwrap() {
                assert!(listed.unwrap().holder.is_some());
            }
        }
    });
}
