//! Creating, removing, moving and linking names, with the errors that POSIX requires.

use super::*;
use crate::layer::Metadata;

#[tokio::test]
async fn new_entries_of_an_empty_tag_are_found_and_listed_and_survive_a_restart() {
    let fixture = TagFixture::new();
    let tag = fixture.empty("v1").await;
    assert!(tag.is_empty().unwrap() && tag.is_edited());
    fixture.mkdir(&tag, "d");
    fixture.make(&tag, "d/f", Kind::File).unwrap();
    fixture.make(&tag, "d/pipe", Kind::Fifo).unwrap();
    fixture.make(&tag, "d/socket", Kind::Socket).unwrap();
    tag.create(&fixture.context, 0, b"link", &NewNode { target: b"d/f".to_vec(), ..new(Kind::Symlink) }).unwrap();
    let mut null = new(Kind::CharDevice);
    null.metadata.device = (1, 3);
    tag.create(&fixture.context, 0, b"null", &null).unwrap();
    let number = node(&tag, "d/f");
    let tag = fixture.again(tag).await;
    assert_eq!(list(&tag, ""), ["d", "link", "null"]);
    assert_eq!(list(&tag, "d"), ["f", "pipe", "socket"]);
    assert_eq!(node(&tag, "d/f"), number);
    assert_eq!(tag.target(node(&tag, "link")).unwrap(), b"d/f");
    assert_eq!(fixture.attributes(&tag, "link").size, 3);
    let device = fixture.attributes(&tag, "null");
    assert_eq!((device.kind, device.device, device.mode, device.uid, device.gid), (Kind::CharDevice, (1, 3), 0o640, 1, 2));
    assert_eq!((fixture.attributes(&tag, "").links, fixture.attributes(&tag, "d").links), (3, 2));
    assert_eq!(tag.parent(node(&tag, "d")).unwrap(), 0);
}

#[tokio::test]
async fn names_of_the_tree_and_of_the_upper_are_one_listing() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    remove(&tag, "file", false).unwrap();
    remove(&tag, "empty", true).unwrap();
    fixture.make(&tag, "file2", Kind::File).unwrap();
    fixture.mkdir(&tag, "empty");
    assert_eq!(list(&tag, ""), ["dir", "empty", "file2", "one", "pipe", "symlink", "two"]);
    assert_eq!(list(&tag, "empty"), [""; 0]);
    let tag = fixture.again(tag).await;
    assert_eq!(list(&tag, ""), ["dir", "empty", "file2", "one", "pipe", "symlink", "two"]);
    assert_eq!(at(&tag, "file"), None);
}

#[tokio::test]
async fn a_listing_under_way_names_every_entry_that_stays_exactly_once() {
    let fixture = TagFixture::new();
    let items: Vec<String> = (0..600).map(|number| format!("f{number:03}")).collect();
    let items: Vec<Item<'_>> = items.iter().map(|name| Item::File(name, Vec::new())).collect();
    let digest = fixture.push("many", &items);
    let tag = fixture.over("many", digest).await;
    let (mut names, mut after) = (Vec::new(), 0);
    // As `rm -rf` does: list some, remove them, continue after the last cookie.
    loop {
        let mut batch = Vec::new();
        tag.children(0, after, &mut |cookie, name, _| {
            after = cookie;
            batch.push(String::from_utf8(name.to_vec()).unwrap());
            batch.len() < 50
        })
        .unwrap();
        if batch.is_empty() {
            break;
        }
        batch.iter().for_each(|name| remove(&tag, name, false).unwrap());
        names.extend(batch);
    }
    assert_eq!(names.len(), 600);
    assert!(tag.is_empty().unwrap());
}

#[tokio::test]
async fn impossible_names_are_refused() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let long = "x".repeat(256);
    assert_eq!(kind(fixture.make(&tag, &long, Kind::File)), ErrorKind::TooLong);
    assert_eq!(kind(tag.lookup(0, long.as_bytes())), ErrorKind::TooLong);
    assert_eq!(kind(rename(&tag, "file", &long, Replace::Yes)), ErrorKind::TooLong);
    assert_eq!(kind(fixture.make(&tag, ".wh.file", Kind::File)), ErrorKind::Invalid);
    assert_eq!(kind(rename(&tag, "file", ".wh.file", Replace::Yes)), ErrorKind::Invalid);
    assert_eq!(kind(link(&tag, "file", ".wh.x")), ErrorKind::Invalid);
    assert!(fixture.make(&tag, &"x".repeat(255), Kind::File).is_ok());
}

#[tokio::test]
async fn a_taken_name_a_missing_one_and_a_file_as_directory_each_have_their_error() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    for path in ["file", "dir", "symlink"] {
        assert_eq!(kind(fixture.make(&tag, path, Kind::File)), ErrorKind::Exists);
        assert_eq!(kind(fixture.make(&tag, path, Kind::Directory)), ErrorKind::Exists);
        assert_eq!(kind(link(&tag, "one", path)), ErrorKind::Exists);
    }
    assert_eq!(kind(remove(&tag, "nothing", false)), ErrorKind::NotFound);
    assert_eq!(kind(remove(&tag, "nothing", true)), ErrorKind::NotFound);
    assert_eq!(kind(remove(&tag, "file", true)), ErrorKind::NotDirectory);
    assert_eq!(kind(remove(&tag, "dir", false)), ErrorKind::IsDirectory);
    assert_eq!(kind(remove(&tag, "dir", true)), ErrorKind::NotEmpty);
    assert_eq!(kind(tag.create(&fixture.context, node(&tag, "file"), b"x", &new(Kind::File))), ErrorKind::NotDirectory);
    assert_eq!(kind(link(&tag, "dir", "x")), ErrorKind::NotPermitted);
}

#[tokio::test]
async fn links_count_names_and_subdirectories() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    assert_eq!(fixture.attributes(&tag, "one").links, 2);
    remove(&tag, "one", false).unwrap();
    assert_eq!(fixture.attributes(&tag, "two").links, 1);
    link(&tag, "two", "dir/three").unwrap();
    assert_eq!(fixture.attributes(&tag, "two").links, 2);
    assert_eq!(node(&tag, "two"), node(&tag, "dir/three"));
    let before = fixture.attributes(&tag, "dir").links;
    fixture.mkdir(&tag, "dir/more");
    assert_eq!(fixture.attributes(&tag, "dir").links, before + 1);
    rename(&tag, "dir/more", "more", Replace::Yes).unwrap();
    assert_eq!(fixture.attributes(&tag, "dir").links, before);
    rename(&tag, "more", "empty", Replace::Yes).unwrap();
    assert_eq!(fixture.attributes(&tag, "").links, 4);
    remove(&tag, "empty", true).unwrap();
    assert_eq!(fixture.attributes(&tag, "").links, 3);
}

#[tokio::test]
async fn rename_replaces_compatible_targets_and_refuses_others() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    assert_eq!(kind(rename(&tag, "nothing", "x", Replace::Yes)), ErrorKind::NotFound);
    assert_eq!(kind(rename(&tag, "file", "dir", Replace::Yes)), ErrorKind::IsDirectory);
    assert_eq!(kind(rename(&tag, "dir", "file", Replace::Yes)), ErrorKind::NotDirectory);
    assert_eq!(kind(rename(&tag, "empty", "dir", Replace::Yes)), ErrorKind::NotEmpty);
    assert_eq!(kind(rename(&tag, "dir", "dir/deep/x", Replace::Yes)), ErrorKind::Invalid);
    assert_eq!(kind(rename(&tag, "dir", "dir/deep", Replace::Exchange)), ErrorKind::Invalid);
    assert_eq!(kind(rename(&tag, "dir/deep", "dir", Replace::Exchange)), ErrorKind::Invalid);
    assert_eq!(kind(rename(&tag, "file", "one", Replace::No)), ErrorKind::Exists);
    assert_eq!(kind(rename(&tag, "file", "nothing", Replace::Exchange)), ErrorKind::NotFound);
    rename(&tag, "one", "two", Replace::Yes).unwrap();
    assert_eq!(list(&tag, ""), ["dir", "empty", "file", "one", "pipe", "symlink", "two"], "two names of one file stay");
    assert!(!tag.upper().is_edited(), "nothing was changed so far");
    rename(&tag, "file", "one", Replace::Yes).unwrap();
    assert_eq!(fixture.read(&tag, "one").await, b"hello");
    assert_eq!((fixture.attributes(&tag, "two").links, at(&tag, "file")), (1, None));
    rename(&tag, "dir", "empty", Replace::Yes).unwrap();
    assert_eq!(fixture.read(&tag, "empty/deep/bottom").await, b"bottom");
    assert_eq!(tag.parent(node(&tag, "empty/deep")).unwrap(), node(&tag, "empty"));
}

#[tokio::test]
async fn exchange_swaps_files_and_directories_also_of_different_depth() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    rename(&tag, "dir/deep", "file", Replace::Exchange).unwrap();
    assert_eq!(fixture.read(&tag, "dir/deep").await, b"hello");
    assert_eq!(fixture.read(&tag, "file/bottom").await, b"bottom");
    assert_eq!((fixture.attributes(&tag, "dir").links, fixture.attributes(&tag, "").links), (2, 5));
    assert_eq!(tag.parent(node(&tag, "file")).unwrap(), 0);
    let tag = fixture.again(tag).await;
    rename(&tag, "file", "dir/deep", Replace::Exchange).unwrap();
    assert_eq!(fixture.read(&tag, "file").await, b"hello");
    assert_eq!(fixture.read(&tag, "dir/deep/bottom").await, b"bottom");
}

#[tokio::test]
async fn a_moved_directory_keeps_its_number_and_content() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let (directory, inner) = (node(&tag, "dir"), node(&tag, "dir/deep/bottom"));
    rename(&tag, "dir", "empty/moved", Replace::Yes).unwrap();
    fixture.make(&tag, "empty/moved/deep/new", Kind::File).unwrap();
    remove(&tag, "empty/moved/inner", false).unwrap();
    let tag = fixture.again(tag).await;
    assert_eq!((node(&tag, "empty/moved"), node(&tag, "empty/moved/deep/bottom")), (directory, inner));
    assert_eq!(list(&tag, "empty/moved"), ["deep"]);
    assert_eq!(list(&tag, "empty/moved/deep"), ["bottom", "new"]);
    assert_eq!(at(&tag, "dir"), None);
    fixture.mkdir(&tag, "dir");
    assert_eq!(list(&tag, "dir"), [""; 0], "what lay below does not show through");
}

#[tokio::test]
async fn a_setgid_directory_passes_on_its_group_and_bit() {
    let fixture = TagFixture::new();
    let tag = fixture.empty("v1").await;
    let shared = NewNode { metadata: Metadata { mode: Some(0o2775), owner: Some((5, 50)), ..Metadata::default() }, ..new(Kind::Directory) };
    let directory = tag.create(&fixture.context, 0, b"shared", &shared).unwrap();
    tag.create(&fixture.context, directory, b"file", &new(Kind::File)).unwrap();
    tag.create(&fixture.context, directory, b"sub", &new(Kind::Directory)).unwrap();
    let (file, sub) = (fixture.attributes(&tag, "shared/file"), fixture.attributes(&tag, "shared/sub"));
    assert_eq!((file.uid, file.gid, file.mode), (1, 50, 0o640));
    assert_eq!((sub.uid, sub.gid, sub.mode), (1, 50, 0o2640));
    // So does one that only `--dir-mode` makes a setgid directory.
    let plain = NewNode { metadata: Metadata { mode: Some(0o755), owner: Some((5, 50)), ..Metadata::default() }, ..new(Kind::Directory) };
    let directory = tag.create(&fixture.context, 0, b"plain", &plain).unwrap();
    let mut context = (*fixture.context).clone();
    context.defaults.dir_mode = Some(0o2755);
    tag.create(&context, directory, b"file", &new(Kind::File)).unwrap();
    assert_eq!(fixture.attributes(&tag, "plain/file").gid, 50);
}

#[tokio::test]
async fn names_that_change_move_the_times_of_their_directories() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let (old, of_tag) = ((1000, 0), fixture.attributes(&tag, "").time);
    assert_eq!((fixture.attributes(&tag, "dir").time, fixture.attributes(&tag, "file").ctime), (old, old));
    rename(&tag, "dir/inner", "empty/inner", Replace::Yes).unwrap();
    for path in ["dir", "empty"] {
        let attributes = fixture.attributes(&tag, path);
        assert!(attributes.time > old && attributes.ctime == attributes.time, "{path}");
    }
    let moved = fixture.attributes(&tag, "empty/inner");
    assert!(moved.time == old && moved.ctime > old, "content is as old, the node changed");
    assert_eq!(fixture.attributes(&tag, "").time, of_tag);
}

#[tokio::test]
async fn an_unlinked_file_lives_until_its_last_handle_is_closed() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    for path in ["new", "file"] {
        let data: &[u8] = if path == "new" { b"" } else { b"hello" };
        if path == "new" {
            fixture.make(&tag, path, Kind::File).unwrap();
        }
        let number = node(&tag, path);
        let (writer, reader) =
            (tag.open_writer(&fixture.context, number, false).await.unwrap(), tag.open_reader(&fixture.context, number).await.unwrap());
        remove(&tag, path, false).unwrap();
        assert_eq!(tag.attributes(&fixture.context, number).unwrap().links, 0);
        assert_eq!(reader.read(0, 100).await.unwrap(), data);
        writer.write(0, b"more than before").await.unwrap();
        assert_eq!(reader.read(0, 100).await.unwrap().as_ref(), b"more than before");
        assert_eq!(kind(tag.link(number, 0, b"again")), ErrorKind::NotFound);
        drop(writer);
        assert_eq!(reader.read(0, 100).await.unwrap().as_ref(), b"more than before");
        drop(reader);
        // The kernel may request a node that it still holds, and write back times that it cached.
        assert_eq!(tag.attributes(&fixture.context, number).unwrap().links, 0);
        let set = super::super::SetAttributes { mtime: Some((1, 0)), ..Default::default() };
        tag.set_attributes(&fixture.context, number, set).await.unwrap();
    }
    tag.upper().sync().unwrap();
    assert_eq!(fixture.uppers.usage().0, 0, "the bytes are freed");
}

#[tokio::test]
async fn a_removed_directory_accepts_nothing_new() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let gone = node(&tag, "empty");
    remove(&tag, "empty", true).unwrap();
    assert_eq!(kind(tag.create(&fixture.context, gone, b"x", &new(Kind::File))), ErrorKind::NotFound);
    assert_eq!(kind(rename_into(&tag, "file", gone)), ErrorKind::NotFound);
}

fn rename_into(tag: &Overlay, from: &str, directory: ViewNode) -> Result<(), Error> {
    tag.rename(split(tag, from), (directory, b"x"), Replace::Yes)
}

#[tokio::test]
async fn setting_attributes_copies_no_bytes_and_survives_a_restart() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    fixture.blobs_read();
    let set = super::super::SetAttributes { mode: Some(0o4711), uid: Some(5), mtime: Some((-5, 7)), ..Default::default() };
    for path in ["file", "dir", "symlink", "pipe"] {
        tag.set_attributes(&fixture.context, node(&tag, path), set).await.unwrap();
    }
    rename(&tag, "dir", "moved", Replace::Yes).unwrap();
    link(&tag, "file", "further").unwrap();
    let tag = fixture.again(tag).await;
    for path in ["file", "moved", "pipe"] {
        let found = fixture.attributes(&tag, path);
        assert_eq!((found.mode, found.uid, found.gid, found.time), (0o4711, 5, 8, (-5, 7)), "{path}");
    }
    assert_eq!((fixture.blobs_read(), fixture.uppers.usage().0), (0, 0));
    assert_eq!(fixture.read(&tag, "further").await, b"hello");
}

#[tokio::test]
async fn extended_attributes_are_kept_and_own_names_are_refused() {
    let fixture = TagFixture::new();
    let tag = fixture.sample().await;
    let file = node(&tag, "file");
    tag.set_xattr(file, b"user.a", b"1", false, false).unwrap();
    assert_eq!(kind(tag.set_xattr(file, b"user.a", b"2", true, false)), ErrorKind::Exists);
    assert_eq!(kind(tag.set_xattr(file, b"user.b", b"2", false, true)), ErrorKind::NoAttribute);
    tag.set_xattr(file, b"user.a", b"", false, true).unwrap();
    tag.set_xattr(file, b"security.x", b"\0", true, false).unwrap();
    for name in [&b"user.oci.digest"[..], b"user.ocifs.state"] {
        assert_eq!(kind(tag.set_xattr(file, name, b"x", false, false)), ErrorKind::NotPermitted);
        assert_eq!(kind(tag.remove_xattr(file, name)), ErrorKind::NotPermitted);
    }
    assert_eq!(kind(tag.set_xattr(file, b"system.posix_acl_access", b"x", false, false)), ErrorKind::Unsupported);
    assert_eq!(kind(tag.set_xattr(file, b"plain", b"x", false, false)), ErrorKind::Unsupported);
    assert_eq!(kind(tag.remove_xattr(file, b"user.b")), ErrorKind::NoAttribute);
    let tag = fixture.again(tag).await;
    assert_eq!(tag.xattr_names(file).unwrap(), [b"security.x".to_vec(), b"user.a".to_vec()]);
    assert_eq!(tag.xattr(file, b"user.a").unwrap(), Some(Vec::new()));
    tag.remove_xattr(file, b"user.a").unwrap();
    assert_eq!(tag.xattr(file, b"user.a").unwrap(), None);
}
