//! Bytes: copy-up, truncation, holes, handles that see one content, sharing, durability.

use super::super::SetAttributes;
use super::*;
use crate::registry::Fault;

async fn writer(fixture: &TagFixture, tag: &Arc<Overlay>, path: &str) -> Arc<super::super::FileHandle> {
    tag.open_writer(&fixture.context, node(tag, path), false).await.unwrap()
}

#[tokio::test]
async fn the_first_write_stores_only_its_own_bytes_and_keeps_the_inode() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let number = node(&tag, "file");
    let before = tag.open_reader(&fixture.context, number).await.unwrap();
    fixture.blobs_read();
    let writer = writer(&fixture, &tag, "file").await;
    assert!(!writer.is_staged() && !tag.upper().is_edited() && tag.has_writers() && tag.is_edited());
    writer.write(1, b"EY").await.unwrap();
    assert_eq!(fixture.blobs_read(), 0);
    assert!(writer.is_staged() && tag.upper().is_edited());
    assert_eq!(before.read(0, 100).await.unwrap(), "hEYlo", "a reader from before sees what is written");
    assert_eq!((node(&tag, "file"), fixture.attributes(&tag, "file").size), (number, 5));
    assert_eq!((fixture.attributes(&tag, "file").mode, fixture.attributes(&tag, "file").uid), (0o644, 7));
    drop((before, writer));
    assert!(!tag.has_writers());
    let tag = fixture.again(tag).await;
    assert_eq!((fixture.read(&tag, "file").await, node(&tag, "file")), (b"hEYlo".to_vec(), number));
}

#[tokio::test]
async fn all_names_of_a_hard_linked_file_see_one_content() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "one", b"both").await;
    assert_eq!(fixture.read(&tag, "two").await, b"both");
    link(&tag, "two", "three").unwrap();
    remove(&tag, "one", false).unwrap();
    fixture.write(&tag, "three", b"again").await;
    assert_eq!(fixture.read(&tag, "two").await, b"again");
}

#[tokio::test]
async fn truncating_to_nothing_fetches_nothing() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.blobs_read();
    let file = node(&tag, "file");
    tag.open_writer(&fixture.context, file, true).await.unwrap().write(0, b"new").await.unwrap();
    let set = SetAttributes { size: Some(0), ..Default::default() };
    tag.set_attributes(&fixture.context, node(&tag, "dir/inner"), set).await.unwrap();
    writer(&fixture, &tag, "one").await.set_length(0).await.unwrap();
    assert_eq!(fixture.blobs_read(), 0);
    assert_eq!(
        (fixture.read(&tag, "file").await, fixture.attributes(&tag, "dir/inner").size, fixture.attributes(&tag, "two").size),
        (b"new".to_vec(), 0, 0)
    );
}

#[tokio::test]
async fn truncating_and_extending_keep_the_rest_and_append_zeros() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    for (size, expected) in [(3, &b"hel"[..]), (6, b"hel\0\0\0"), (6, b"hel\0\0\0"), (1, b"h")] {
        let set = SetAttributes { size: Some(size), ..Default::default() };
        tag.set_attributes(&fixture.context, node(&tag, "file"), set).await.unwrap();
        assert_eq!(fixture.read(&tag, "file").await, expected);
    }
    let set = SetAttributes { size: Some(1), ..Default::default() };
    assert_eq!(kind(tag.set_attributes(&fixture.context, node(&tag, "dir"), set).await), ErrorKind::IsDirectory);
    assert_eq!(kind(tag.set_attributes(&fixture.context, node(&tag, "pipe"), set).await), ErrorKind::Invalid);
    assert_eq!(kind(tag.open_writer(&fixture.context, node(&tag, "dir"), false).await.map(|_| ())), ErrorKind::IsDirectory);
}

#[tokio::test]
async fn zeros_of_the_tree_become_holes_and_are_found_as_such() {
    let fixture = TagFixture::new();
    let mut data = vec![0; 3 << 20];
    data[..4].copy_from_slice(b"head");
    data[2 << 20] = 7;
    let digest = fixture.push("v1", &[Item::File("sparse", data.clone())]);
    let tag = fixture.over("v1", digest).await;
    let writer = writer(&fixture, &tag, "sparse").await;
    writer.write(1, b"EAD").await.unwrap();
    data[1..4].copy_from_slice(b"EAD");
    for is_filled in [false, true] {
        if is_filled {
            assert_eq!(tag.fill().await.unwrap(), 1);
        }
        assert!(fixture.read(&tag, "sparse").await == data);
        let seen = (writer.seek(0, false).await.unwrap(), writer.seek(64 << 10, true).await.unwrap());
        // For the tree it is known where an archive has bytes, not which of them are zeros.
        let expected = if is_filled { (Some(4 << 10), Some(2 << 20)) } else { (Some(3 << 20), Some(64 << 10)) };
        assert_eq!(seen, expected, "{is_filled}");
        assert_eq!(writer.seek(3 << 20, true).await.unwrap(), None);
        assert!(fixture.uppers.usage().0 < 1 << 20);
        assert_eq!(fixture.attributes(&tag, "sparse").blocks < (1 << 20) / 512, is_filled);
    }
}

#[tokio::test]
async fn holes_of_the_tree_are_found_without_copying() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let reader = tag.open_reader(&fixture.context, node(&tag, "file")).await.unwrap();
    assert_eq!((reader.seek(2, true).await.unwrap(), reader.seek(2, false).await.unwrap()), (Some(2), Some(5)));
    assert_eq!((reader.seek(5, true).await.unwrap(), reader.seek(5, false).await.unwrap()), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_share_one_file_while_it_is_filled_in() {
    let fixture = TagFixture::new();
    let digest = fixture.push("v1", &[Item::File("big", vec![b'.'; 1 << 20])]);
    let tag = fixture.over("v1", digest).await;
    let mut writers = Vec::new();
    for number in 0..16_u64 {
        let writer = writer(&fixture, &tag, "big").await;
        writers.push(tokio::spawn(async move {
            for step in 0..50 {
                writer.write(step * 20_000 + number * 1000, b"x").await.unwrap();
                tokio::task::yield_now().await;
            }
        }));
    }
    let filling = Arc::clone(&tag);
    let filler = tokio::spawn(async move { filling.fill().await.unwrap() });
    for task in writers {
        task.await.unwrap();
    }
    filler.await.unwrap();
    tag.fill().await.unwrap();
    let data = fixture.read(&tag, "big").await;
    assert_eq!((data.len(), data.iter().filter(|byte| **byte == b'x').count()), (1 << 20, 800));
    tag.upper().sync().unwrap();
    assert_eq!(fixture.uppers.usage().0, 1 << 20, "there is one copy");
    assert!(tag.upper().partial().is_empty());
}

#[tokio::test]
async fn a_write_needs_no_old_bytes_and_a_failed_read_reports_why() {
    let fixture = TagFixture::new();
    let layers = [("text/plain", &b"hello"[..], [("org.opencontainers.image.title", "file")].as_slice())];
    let digest = fixture.registry.add_artifact("app", "v1", (media_type::OCI_EMPTY, b"{}"), &layers, &[]);
    let tag = fixture.over("v1", digest).await;
    let writer = writer(&fixture, &tag, "file").await;
    fixture.registry.plan(RequestKind::Blob, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    writer.write(0, b"J").await.unwrap();
    assert_eq!(writer.read(0, 1).await.unwrap(), "J");
    assert_eq!(kind(writer.read(0, 5).await), ErrorKind::Unreachable);
    assert_eq!(kind(tag.fill().await), ErrorKind::Unreachable);
    writer.flush().unwrap();
    fixture.registry.mend();
    // After an outage, requests fail for a moment without being sent.
    while writer.read(0, 5).await.is_err_and(|error| error.kind == ErrorKind::Unreachable) {
        tokio::task::yield_now().await;
    }
    assert_eq!(writer.read(0, 5).await.unwrap(), "Jello");
    assert_eq!(tag.fill().await.unwrap(), 1);
    fixture.registry.plan(RequestKind::Blob, 0, u32::MAX, Fault::Error(ErrorKind::Unreachable));
    assert_eq!(writer.read(0, 5).await.unwrap(), "Jello", "it outlives upstream");
}

#[tokio::test]
async fn a_file_too_large_to_fill_in_stays_over_the_tree_and_is_published() {
    let mut fixture = TagFixture::new();
    let data = vec![b'.'; 1 << 20];
    let digest = fixture.push("v1", &[Item::File("big", data)]);
    let state = tempfile::tempdir().unwrap();
    fixture.uppers = Arc::new(Uppers::open(state.path(), Some(256 << 10)).unwrap());
    let tag = fixture.over("v1", digest).await;
    for round in 0..20_u8 {
        let writer = writer(&fixture, &tag, "big").await;
        writer.write(u64::from(round) * 1000, &[round]).await.unwrap();
        assert_eq!(kind(tag.fill().await), ErrorKind::NoSpace);
        // Some with a writer that stays open, some without, some written again before they are committed.
        let frozen = tag.freeze().unwrap();
        if round % 3 == 0 {
            writer.write(u64::from(round) * 1000 + 1, &[round]).await.unwrap();
        }
        if round % 2 == 0 {
            drop(writer);
        }
        let published = fixture.push_frozen("v1", &frozen).await;
        tag.commit_publish(frozen, &fixture.artifact(&published).await).unwrap();
        assert!(fixture.uppers.usage().0 < 64 << 10, "{round}");
    }
    let data = fixture.read(&tag, "big").await;
    for round in 0..20_u8 {
        let at = usize::from(round) * 1000;
        assert_eq!(data[at..at + 2], [round, if round % 3 == 0 { round } else { b'.' }]);
    }
}

#[tokio::test]
async fn a_whole_unchanged_file_is_copied_without_its_bytes() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.make(&tag, "copy", Kind::File).unwrap();
    fixture.blobs_read();
    let (source, target) = (tag.open_reader(&fixture.context, node(&tag, "file")).await.unwrap(), writer(&fixture, &tag, "copy").await);
    fixture.blobs_read();
    assert_eq!(target.copy_from(&source, 0, 0, 1 << 30).await.unwrap(), 5);
    assert!(!target.is_staged());
    drop((source, target));
    let tag = fixture.again(tag).await;
    assert_eq!((fixture.read(&tag, "copy").await, fixture.attributes(&tag, "copy").mode), (b"hello".to_vec(), 0o640));
    fixture.write(&tag, "copy", b"other").await;
    assert_eq!(fixture.read(&tag, "file").await, b"hello");
    fixture.write(&tag, "file", b"edited").await;
    assert_eq!(fixture.read(&tag, "copy").await, b"other");
}

#[tokio::test]
async fn ranges_are_copied_between_published_and_staged_files() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "new", b"0123456789").await;
    let (source, target) = (tag.open_reader(&fixture.context, node(&tag, "new")).await.unwrap(), writer(&fixture, &tag, "file").await);
    assert_eq!(target.copy_from(&source, 2, 4, 3).await.unwrap(), 3);
    assert_eq!(fixture.read(&tag, "file").await, b"hell234");
    assert_eq!(target.copy_from(&source, 8, 0, 100).await.unwrap(), 2);
    assert_eq!(fixture.read(&tag, "file").await, b"89ll234");
    assert_eq!(target.copy_from(&source, 100, 0, 100).await.unwrap(), 0);
}

#[tokio::test]
async fn a_write_updates_the_times_and_an_explicit_time_stays() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.write(&tag, "file", b"x").await;
    let written = fixture.attributes(&tag, "file");
    assert!(written.time > (1000, 0) && written.ctime >= written.time);
    let set = SetAttributes { mtime: Some((42, 500)), atime: Some((43, 0)), ..Default::default() };
    tag.set_attributes(&fixture.context, node(&tag, "file"), set).await.unwrap();
    let found = fixture.attributes(&tag, "file");
    assert_eq!((found.time, found.atime), ((42, 500), (43, 0)));
    assert!(found.ctime >= written.ctime);
    let tag = fixture.again(tag).await;
    assert_eq!(fixture.attributes(&tag, "file").time, (42, 500));
}

#[tokio::test]
async fn a_file_that_is_synced_and_allocated_reads_the_same() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let writer = writer(&fixture, &tag, "file").await;
    writer.allocate(0, 0, 10).await.unwrap();
    writer.sync().unwrap();
    assert_eq!(fixture.read(&tag, "file").await, b"hello\0\0\0\0\0");
    assert_eq!(kind(writer.allocate(0x40, 0, 10).await), ErrorKind::Unsupported);
}
