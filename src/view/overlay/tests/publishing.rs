//! Freezing, walking, settling, and the differences before and after.

use super::super::{PathState, SetAttributes, tree_entries};
use super::*;
use crate::staging::Content;
use crate::view::snapshot::{Snapshot, hashed};
use crate::view::{EntryContent, TreeEntry};

fn entries(frozen: &Arc<Frozen>) -> Vec<TreeEntry> {
    frozen.entries().map(Result::unwrap).collect()
}

fn paths(entries: &[TreeEntry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect()
}

#[tokio::test]
async fn a_frozen_state_is_walked_parents_first_and_by_the_bytes_of_names() {
    let fixture = TagFixture::new();
    let digest = fixture
        .push("v1", &[Item::Dir("a"), Item::File("a/x", b"1".to_vec()), Item::File("a-b", b"2".to_vec()), Item::File("b", b"3".to_vec())]);
    let tag = fixture.over("v1", digest).await;
    fixture.mkdir(&tag, "a/n");
    fixture.make(&tag, "a/n/z", Kind::Fifo).unwrap();
    fixture.write(&tag, "a.c", b"4").await;
    fixture.write(&tag, "b", b"five").await;
    remove(&tag, "a/x", false).unwrap();
    let frozen = tag.freeze().unwrap();
    remove(&tag, "a-b", false).unwrap();
    let entries = entries(&frozen);
    assert_eq!(paths(&entries), ["", "a", "a/n", "a/n/z", "a-b", "a.c", "b"]);
    assert_eq!((entries[6].size, entries[6].links), (4, 1));
    assert!(matches!(entries[6].content, EntryContent::Data(_)) && matches!(entries[4].content, EntryContent::Tree(..)));
    let sha256 = frozen.sha256(&entries[6]).await.unwrap();
    assert_eq!(Digest::from_sha256(sha256), Digest::of(b"five"));
    assert_eq!(frozen.binding().expected, Some(digest));
}

#[tokio::test]
async fn an_unedited_tag_is_walked_exactly_as_its_tree() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let artifact = fixture.artifact(&tag.binding().under.unwrap()).await;
    let of_tree: Vec<String> = tree_entries(&artifact).map(|entry| format!("{:?}", entry.unwrap())).collect();
    let frozen = tag.freeze().unwrap();
    let of_frozen: Vec<String> = entries(&frozen).iter().map(|entry| format!("{entry:?}")).collect();
    assert_eq!(of_frozen, of_tree);
    assert_eq!(of_tree.len(), 11);
}

#[tokio::test]
async fn unset_attributes_stay_unset_through_unrelated_edits() {
    let fixture = TagFixture::new();
    let layers = [("text/plain", &b"raw"[..], [("org.opencontainers.image.title", "raw")].as_slice())];
    let digest = fixture.registry.add_artifact("app", "v1", (media_type::OCI_EMPTY, b"{}"), &layers, &[]);
    let tag = fixture.over("v1", digest).await;
    fixture.write(&tag, "raw", b"edited").await;
    let frozen = tag.freeze().unwrap();
    let entry = &entries(&frozen)[1];
    assert_eq!((entry.metadata.mode, entry.metadata.owner), (None, None));
    assert!(entry.metadata.mtime.is_some());
    drop(frozen);
    let set = SetAttributes { gid: Some(9), ..Default::default() };
    tag.set_attributes(&fixture.context, node(&tag, "raw"), set).await.unwrap();
    assert_eq!(entries(&tag.freeze().unwrap())[1].metadata.owner, Some((1000, 9)));
}

#[tokio::test]
async fn after_a_commit_clean_files_refer_to_the_new_tree_and_keep_their_inodes() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.mkdir(&tag, "new");
    fixture.write(&tag, "new/file", b"staged").await;
    fixture.write(&tag, "file", b"changed").await;
    link(&tag, "new/file", "hard").unwrap();
    rename(&tag, "dir", "moved", Replace::Yes).unwrap();
    let numbers = ["new", "new/file", "file", "moved/inner"].map(|path| node(&tag, path));
    assert_eq!(fixture.changes(&tag).await.len(), 12);
    assert!(fixture.publish(&tag).await, "nothing is left to publish");
    assert!(!tag.is_edited());
    assert_eq!(fixture.changes(&tag).await, [""; 0]);
    assert_eq!(fixture.uppers.usage().0, 0, "the bytes are freed");
    assert_eq!(["new", "new/file", "file", "moved/inner"].map(|path| node(&tag, path)), numbers);
    assert_eq!((fixture.read(&tag, "hard").await, fixture.read(&tag, "file").await), (b"staged".to_vec(), b"changed".to_vec()));
    assert_eq!(fixture.attributes(&tag, "hard").links, 2);
    // Edit, sync, edit, sync.
    fixture.write(&tag, "hard", b"once more").await;
    assert_eq!(fixture.changes(&tag).await, ["C hard", "C new/file"]);
    assert!(fixture.publish(&tag).await);
    let tag = fixture.again_edited(tag).await;
    assert_eq!(fixture.read(&tag, "new/file").await, b"once more");
    assert_eq!(node(&tag, "new/file"), numbers[1]);
}

#[tokio::test]
async fn repeated_writes_and_syncs_hold_no_unreferenced_artifact() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    for number in 0..20 {
        fixture.write(&tag, ["file", "dir/inner"][number % 2], number.to_string().as_bytes()).await;
        assert!(fixture.publish(&tag).await);
        // The one below, the one expected now, and the one expected before, which the frozen state referred to.
        let held = tag.trees.len();
        assert!(held <= 4, "{held} artifacts after {number} publishes");
    }
    assert_eq!((fixture.read(&tag, "file").await, fixture.read(&tag, "dir/inner").await), (b"18".to_vec(), b"19".to_vec()));
    assert_eq!(fixture.changes(&tag).await, [""; 0]);
    let tag = fixture.again_edited(tag).await;
    assert_eq!(fixture.read(&tag, "dir/inner").await, b"19");
}

#[tokio::test]
async fn new_files_refer_to_the_last_published_tree_whatever_was_swapped() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.mkdir(&tag, "new");
    for name in ["a", "b", "c", "same", "also"] {
        fixture.write(&tag, &format!("new/{name}"), name.as_bytes()).await;
    }
    assert!(fixture.publish(&tag).await);
    // The names stay: only numbers tell that two files changed places.
    rename(&tag, "new/a", "new/b", Replace::Exchange).unwrap();
    fixture.write(&tag, "new/c", b"d").await;
    assert!(fixture.publish(&tag).await);
    for path in ["new/a", "new/b", "new/c", "new/same", "new/also"] {
        assert_eq!(manifest_of(&tag, path), tag.binding().expected, "{path}");
    }
    // Other names, so other numbers.
    remove(&tag, "new/also", false).unwrap();
    fixture.write(&tag, "new/A", b"A").await;
    assert!(fixture.publish(&tag).await);
    assert_eq!(manifest_of(&tag, "new/same"), tag.binding().expected);
    let tag = fixture.again_edited(tag).await;
    for (path, bytes) in [("a", "b"), ("b", "a"), ("c", "d"), ("same", "same"), ("A", "A")] {
        assert_eq!(fixture.read(&tag, &format!("new/{path}")).await, bytes.as_bytes(), "{path}");
    }
}

/// The manifest whose tree a file refers to.
fn manifest_of(tag: &Overlay, path: &str) -> Option<Digest> {
    match tag.upper().rows().node(node(tag, path)).unwrap().unwrap().content {
        Content::Tree(tree) => Some(tree.manifest),
        Content::Data(_) | Content::None => None,
    }
}

/// A new tag of files named like their content, published.
async fn published(fixture: &TagFixture, names: &[&str]) -> Arc<Overlay> {
    let tag = fixture.empty("v1").await;
    for name in names {
        fixture.write(&tag, name, name.as_bytes()).await;
    }
    assert!(fixture.publish(&tag).await);
    tag
}

#[tokio::test]
async fn whatever_happens_during_a_publish_that_renumbers_its_tree_is_kept() {
    let fixture = TagFixture::new();
    let tag = published(&fixture, &["b", "c", "d", "e", "f", "g", "same"]).await;
    // Numbers shift: every reference changes.
    fixture.write(&tag, "a", b"a").await;
    let open = tag.open_reader(&fixture.context, node(&tag, "f")).await.unwrap();
    let numbers = ["a", "b", "c", "e", "f", "same"].map(|path| node(&tag, path));
    let frozen = tag.freeze().unwrap();
    let writer = tag.open_writer(&fixture.context, node(&tag, "b"), false).await.unwrap();
    writer.write(1, b"+").await.unwrap();
    rename(&tag, "c", "moved", Replace::Yes).unwrap();
    remove(&tag, "d", false).unwrap();
    link(&tag, "e", "hard").unwrap();
    remove(&tag, "f", false).unwrap();
    tag.set_xattr(node(&tag, "g"), b"user.x", b"1", false, false).unwrap();
    let artifact = fixture.artifact(&fixture.push_frozen("v1", &frozen).await).await;
    assert!(!tag.commit_publish(frozen, &artifact).unwrap());
    writer.write(2, b"+").await.unwrap();
    drop(writer);
    assert_eq!(open.read(0, 9).await.unwrap(), "f", "open and without a name");
    drop(open);
    let changes = ["C b", "R c", "R d", "R f", "C g", "A hard", "A moved"];
    let contents = [("a", "a"), ("b", "b++"), ("moved", "c"), ("e", "e"), ("hard", "e"), ("g", "g"), ("same", "same")];
    for path in ["a", "moved", "e", "g", "same"] {
        assert_eq!(manifest_of(&tag, path), tag.binding().expected, "{path}");
    }
    assert_eq!(["a", "b", "moved", "hard"].map(|path| node(&tag, path)), [numbers[0], numbers[1], numbers[2], numbers[3]]);
    let tag = fixture.again(tag).await;
    assert_eq!(fixture.changes(&tag).await, changes);
    for (path, bytes) in contents {
        assert_eq!(fixture.read(&tag, path).await, bytes.as_bytes(), "{path}");
    }
    assert!(fixture.publish(&tag).await);
    assert_eq!(fixture.changes(&tag).await, [""; 0]);
    assert_eq!(manifest_of(&tag, "moved"), tag.binding().expected);
}

#[tokio::test]
async fn a_publish_that_ended_in_the_middle_of_its_references_is_finished_by_the_next() {
    let fixture = TagFixture::new();
    let tag = published(&fixture, &["b", "c", "d"]).await;
    let old = tag.binding().expected.unwrap();
    fixture.write(&tag, "a", b"a").await;
    let frozen = tag.freeze().unwrap();
    let artifact = fixture.artifact(&fixture.push_frozen("v1", &frozen).await).await;
    drop(frozen);
    // Killed after the first of them.
    let before = fixture.artifact(&old).await;
    let there = before.tree.same_files(&artifact.tree);
    let first = before.tree.find(b"b").unwrap();
    let only = |node: u32| there[node as usize].filter(|_| node == first);
    assert!(tag.upper().refer_alike((old, artifact.manifest.digest), &only, None).unwrap().left);
    assert_eq!((manifest_of(&tag, "b"), manifest_of(&tag, "c")), (Some(artifact.manifest.digest), Some(old)));
    let tag = fixture.again(tag).await;
    assert_eq!(fixture.changes(&tag).await, ["A a"]);
    for path in ["a", "b", "c", "d"] {
        assert_eq!(fixture.read(&tag, path).await, path.as_bytes());
    }
    assert!(fixture.publish(&tag).await);
    for path in ["a", "b", "c", "d"] {
        assert_eq!(manifest_of(&tag, path), tag.binding().expected, "{path}");
    }
}

#[tokio::test]
async fn edits_of_a_published_tag_refer_to_the_newest_tree_and_untouched_files_to_the_one_below() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let under = tag.binding().under;
    fixture.write(&tag, "file", b"changed").await;
    let touched = SetAttributes { mode: Some(0o600), ..Default::default() };
    tag.set_attributes(&fixture.context, node(&tag, "dir/inner"), touched).await.unwrap();
    assert!(fixture.publish(&tag).await);
    fixture.write(&tag, "aaa", b"first by name").await;
    assert!(fixture.publish(&tag).await);
    assert_eq!(manifest_of(&tag, "dir/inner"), under);
    assert_eq!((manifest_of(&tag, "file"), manifest_of(&tag, "aaa")), (tag.binding().expected, tag.binding().expected));
    let tag = fixture.again_edited(tag).await;
    for (path, bytes) in [("file", &b"changed"[..]), ("dir/inner", b"inner"), ("aaa", b"first by name"), ("two", b"linked")] {
        assert_eq!(fixture.read(&tag, path).await, bytes, "{path}");
    }
}

/// Bytes of the log of the only upper.
fn log_length(fixture: &TagFixture) -> u64 {
    let uppers = std::fs::read_dir(fixture.state().join("uppers")).unwrap();
    uppers.filter_map(|upper| upper.unwrap().path().join("upper.db-wal").metadata().ok()).map(|log| log.len()).sum()
}

#[tokio::test]
async fn small_staged_files_are_hashed_in_few_transactions() {
    let fixture = TagFixture::new();
    let tag = fixture.empty("v1").await;
    for number in 0..300 {
        fixture.write(&tag, &format!("{number}"), number.to_string().as_bytes()).await;
    }
    let frozen: Arc<dyn Snapshot> = tag.freeze().unwrap();
    tag.upper().sync().unwrap();
    let before = log_length(&fixture);
    let (mut hashed, mut all) = (hashed(&frozen, |_| true), Vec::new());
    while let Some(entry) = hashed.next().await.unwrap() {
        all.push(entry);
    }
    // A transaction of its own would add a page or more for each file.
    assert!(log_length(&fixture) - before < 60 * 4096, "{} bytes", log_length(&fixture) - before);
    for entry in &all[1..] {
        assert_eq!(entry.sha256.map(Digest::from_sha256), Some(Digest::of(&entry.path)));
    }
}

impl TagFixture {
    /// As [`TagFixture::again`], for a tag with nothing left to publish, which would be removed with its last user.
    async fn again_edited(&self, overlay: Arc<Overlay>) -> Arc<Overlay> {
        let set = SetAttributes { mode: Some(0o700), ..Default::default() };
        overlay.set_attributes(&self.context, 0, set).await.unwrap();
        self.again(overlay).await
    }
}

#[tokio::test]
async fn writes_after_the_freeze_are_not_in_it_and_stay_unpublished() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "closed", b"1").await;
    fixture.write(&tag, "open", b"1").await;
    let open = tag.open_writer(&fixture.context, node(&tag, "open"), false).await.unwrap();
    open.write(0, b"2").await.unwrap();
    let frozen = tag.freeze().unwrap();
    fixture.write(&tag, "closed", b"later").await;
    open.write(0, b"later").await.unwrap();
    drop(open);
    let digest = fixture.push_frozen("sample", &frozen).await;
    let artifact = fixture.artifact(&digest).await;
    let of = |path: &str| artifact.tree.node(artifact.tree.find(path.as_bytes()).unwrap()).unwrap().size;
    assert_eq!((of("closed"), of("open")), (1, 1));
    assert!(!tag.commit_publish(frozen, &artifact).unwrap());
    assert!(tag.is_edited());
    assert_eq!(fixture.changes(&tag).await, ["C closed", "C open"]);
    assert_eq!((fixture.read(&tag, "closed").await, fixture.read(&tag, "open").await), (b"later".to_vec(), b"later".to_vec()));
    assert!(fixture.publish(&tag).await);
    assert_eq!(fixture.changes(&tag).await, [""; 0]);
}

#[tokio::test]
async fn a_writer_that_stays_open_through_a_publish_makes_the_tag_edited_again() {
    let fixture = TagFixture::new();
    let tag = fixture.empty("v1").await;
    fixture.write(&tag, "log", b"1").await;
    let writer = tag.open_writer(&fixture.context, node(&tag, "log"), false).await.unwrap();
    writer.write(1, b"2").await.unwrap();
    fixture.publish(&tag).await;
    writer.write(2, b"3").await.unwrap();
    drop(writer);
    assert!(tag.upper().is_edited());
    let tag = fixture.again(tag).await;
    assert!(tag.is_edited());
    assert_eq!((fixture.read(&tag, "log").await, fixture.changes(&tag).await), (b"123".to_vec(), vec!["C log".to_owned()]));
}

#[tokio::test]
async fn times_that_are_written_back_after_a_publish_do_not_make_the_tag_edited() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "file", b"1").await;
    let mtime = Some(fixture.attributes(&tag, "file").time);
    fixture.publish(&tag).await;
    let file = node(&tag, "file");
    tag.set_attributes(&fixture.context, file, SetAttributes { mtime, atime: Some((5, 0)), ..Default::default() }).await.unwrap();
    assert!(!tag.is_edited());
    tag.set_attributes(&fixture.context, file, SetAttributes { mtime: Some((5, 0)), ..Default::default() }).await.unwrap();
    assert!(tag.is_edited());
}

#[tokio::test]
async fn a_reader_that_stays_open_through_a_publish_sees_later_writes() {
    let fixture = TagFixture::new();
    let tag = fixture.empty("v1").await;
    fixture.write(&tag, "file", b"1").await;
    let reader = tag.open_reader(&fixture.context, node(&tag, "file")).await.unwrap();
    fixture.publish(&tag).await;
    assert_eq!(reader.read(0, 10).await.unwrap(), "1");
    fixture.write(&tag, "file", b"2").await;
    assert_eq!(reader.read(0, 10).await.unwrap(), "2");
}

#[tokio::test]
async fn a_generation_that_is_dropped_changes_nothing() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "file", b"staged").await;
    drop(tag.freeze().unwrap());
    assert!(tag.is_edited());
    fixture.write(&tag, "file", b"again").await;
    let tag = fixture.again(tag).await;
    assert_eq!((fixture.read(&tag, "file").await, fixture.changes(&tag).await), (b"again".to_vec(), vec!["C file".to_owned()]));
}

#[tokio::test]
async fn differences_are_found_by_content_and_attributes_but_not_directory_times() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let chmod = SetAttributes { mode: Some(0o600), ..Default::default() };
    tag.set_attributes(&fixture.context, node(&tag, "dir/inner"), chmod).await.unwrap();
    let mtime = Some(fixture.attributes(&tag, "file").time);
    fixture.write(&tag, "file", b"HELLO").await;
    tag.set_attributes(&fixture.context, node(&tag, "file"), SetAttributes { mtime, ..Default::default() }).await.unwrap();
    fixture.write(&tag, "one", b"linked").await;
    tag.set_attributes(&fixture.context, node(&tag, "one"), SetAttributes { mtime, ..Default::default() }).await.unwrap();
    rename(&tag, "dir/deep", "deep", Replace::Yes).unwrap();
    remove(&tag, "empty", true).unwrap();
    fixture.make(&tag, "empty", Kind::File).unwrap();
    tag.set_xattr(node(&tag, "pipe"), b"trusted.x", b"1", false, false).unwrap();
    let expected = ["A deep", "A deep/bottom", "R dir/deep", "R dir/deep/bottom", "C dir/inner", "C empty", "C file", "C pipe"];
    assert_eq!(fixture.changes(&tag).await, expected);
    let differences = tag.differences().await.unwrap();
    assert_eq!((differences[1].before, differences[1].after, differences[3].before, differences[3].after), (None, Some(6), Some(6), None));
    assert_eq!(tag.state(node(&tag, "file")).unwrap(), PathState::Changed);
    assert_eq!(tag.state(node(&tag, "dir/inner")).unwrap(), PathState::Changed);
    assert_eq!(tag.state(node(&tag, "empty")).unwrap(), PathState::Added);
    assert_eq!((tag.state(node(&tag, "symlink")).unwrap(), tag.state(node(&tag, "dir")).unwrap()), (PathState::Clean, PathState::Clean));
}

#[tokio::test]
async fn a_deleted_tag_differs_by_all_its_upstream_files() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let binding = Binding { deleted: true, ..tag.binding() };
    tag.upper().change(|change| change.bind(binding)).unwrap();
    assert_eq!(fixture.changes(&tag).await.len(), 10);
    assert!(tag.is_edited());
}

#[tokio::test]
async fn a_tag_that_was_bound_to_another_digest_is_compared_with_that() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let other = fixture.push("other", &[Item::File("else", Vec::new())]);
    let binding = Binding { expected: Some(other), ..tag.binding() };
    tag.move_to(&tag_key("moved"), binding).unwrap();
    assert_eq!(tag.tag_key(), tag_key("moved"));
    assert!(fixture.changes(&tag).await.contains(&"R else".to_owned()));
    discarded(&tag, b"").unwrap();
    assert_eq!(list(&tag, ""), ["else"]);
}

#[tokio::test]
async fn the_upper_of_a_clean_tag_is_removed_with_its_last_user() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let tag_key = tag.tag_key();
    fixture.write(&tag, "file", b"staged").await;
    fixture.publish(&tag).await;
    drop(tag);
    assert!(fixture.uppers.find(&tag_key).unwrap().is_none());
    let tag = fixture.empty("v2").await;
    let tag_key = tag.tag_key();
    drop(tag);
    assert!(fixture.uppers.find(&tag_key).unwrap().is_some(), "a new tag is still to be made");
}

#[tokio::test]
async fn a_write_spanning_a_freeze_is_kept() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "file", b"staged").await;
    let writer = tag.open_writer(&fixture.context, node(&tag, "file"), false).await.unwrap();
    for end in 0..20 {
        let frozen = tag.freeze().unwrap();
        let late = format!("late {end}");
        let mut write = std::pin::pin!(writer.write(0, late.as_bytes()));
        // Whatever the progress of the first write when the generation ends.
        let first = futures_util::poll!(write.as_mut());
        for _ in 0..end {
            tokio::task::yield_now().await;
        }
        drop(frozen);
        let other = tag.open_writer(&fixture.context, node(&tag, "file"), false).await.unwrap();
        other.write(7, b"other").await.unwrap();
        if first.is_pending() {
            write.await.unwrap();
        }
        other.sync().unwrap();
        assert_eq!(writer.read(7, 5).await.unwrap(), "other", "{end}");
        assert!(writer.read(0, 100).await.unwrap().starts_with(late.as_bytes()));
    }
    drop(writer);
    let tag = fixture.again(tag).await;
    assert_eq!(&fixture.read(&tag, "file").await[7..], b"other");
}

#[tokio::test]
async fn a_freeze_copies_no_bytes_and_shows_open_files_as_they_were() {
    let fixture = TagFixture::new();
    let tag = fixture.empty("v1").await;
    fixture.make(&tag, "log", Kind::File).unwrap();
    let writer = tag.open_writer(&fixture.context, node(&tag, "log"), false).await.unwrap();
    writer.write(0, &vec![1; 1 << 20]).await.unwrap();
    let before = fixture.uppers.usage().0;
    let frozen = tag.freeze().unwrap();
    assert_eq!(fixture.uppers.usage().0, before);
    writer.write(0, b"later").await.unwrap();
    writer.set_length(2 << 20).await.unwrap();
    assert!(fixture.uppers.usage().0 <= before + 8192, "a write stores what is written");
    let entry = entries(&frozen).pop().unwrap();
    let reader = frozen.open(&entry).await.unwrap();
    assert!(reader.size() == 1 << 20 && reader.read(0, 2 << 20).await.unwrap() == vec![1; 1 << 20]);
    drop((frozen, reader));
    tag.fill().await.unwrap();
    tag.upper().sync().unwrap();
    assert_eq!(writer.read(0, 6).await.unwrap(), "later\u{1}");
    assert!(fixture.uppers.usage().0 <= before + 8192, "the base is gone");
}

#[tokio::test]
async fn failing_publishes_during_a_write_leave_the_file_intact() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let writer = tag.open_writer(&fixture.context, node(&tag, "file"), false).await.unwrap();
    let mut expected = b"hello".to_vec();
    for round in 0..40_u8 {
        let at = usize::from(round) % 7;
        writer.write(at as u64, &[b'0' + round]).await.unwrap();
        expected.resize(expected.len().max(at + 1), 0);
        expected[at] = b'0' + round;
        drop(tag.freeze().unwrap());
        // Writes while a generation is frozen go into a new file.
        let frozen = tag.freeze().unwrap();
        writer.write(at as u64, &[b'A' + round]).await.unwrap();
        expected[at] = b'A' + round;
        drop(frozen);
        assert_eq!(writer.read(0, 100).await.unwrap(), expected);
    }
    drop(writer);
    let tag = fixture.again(tag).await;
    assert_eq!(fixture.read(&tag, "file").await, expected);
}
