//! Frozen generations, digests, commits, the journal.

use super::*;

fn nothing_open(_: DataId) -> bool {
    false
}

fn snapshots(directory: &Path) -> usize {
    let upper = directory.join("uppers").join(tag_key("v1").directory_name());
    let names = std::fs::read_dir(upper).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("frozen-")).count()
}

#[test]
fn a_generation_shows_the_old_state_while_the_upper_changes() {
    let (directory, _uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"one");
    upper.change(|change| change.put_xattr(key, b"user.x", Some(b"1"))).unwrap();
    let frozen = upper.freeze().unwrap();
    upper
        .change(|change| {
            change.drop_name(0, b"a")?;
            change.put_name(0, b"b", Named::Whiteout)?;
            change.drop_node(key)?;
            change.bind(Binding::default())
        })
        .unwrap();
    upper.sync().unwrap();
    let rows = frozen.rows();
    assert_eq!(rows.name(0, b"a").unwrap(), Some(Named::Node(key)));
    assert_eq!(rows.name(0, b"b").unwrap(), None);
    assert_eq!(rows.xattrs(key).unwrap().len(), 1);
    assert_eq!(rows.nodes(None, 10).unwrap(), [(key, file(Content::Data(id)))]);
    assert_eq!(frozen.binding(), bound());
    let data = rows.open_data(id).unwrap();
    assert_eq!(read(&data), b"one");
    assert!(data.is_fixed());
    drop(data);
    drop(frozen);
    assert_eq!(snapshots(directory.path()), 0);
    upper.sync().unwrap();
    assert!(data_files(directory.path()).is_empty());
}

#[test]
fn frozen_bytes_never_change_and_a_file_over_them_takes_writes() {
    let (_directory, _uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"one");
    let data = upper.data(id).unwrap();
    let frozen = upper.freeze().unwrap();
    assert!(data.is_fixed());
    for refused in [data.write_at(0, b"x"), data.set_length(0), data.allocate(0, 0, 1), data.set_mtime((1, 1))] {
        assert_eq!(refused.unwrap_err().kind, ErrorKind::Busy);
    }
    let over = lay(&upper, key, Below::Data(data.clone()));
    assert!(!over.is_fixed());
    over.write_at(0, b"T").unwrap();
    assert_eq!((contents(&upper, id), contents(&upper, over.id())), (b"one".to_vec(), b"Tne".to_vec()));
    let clean = commit(&upper, frozen, digest(2), &mut [(key, tree_node(1))].into_iter(), &nothing_open).unwrap();
    assert!(!clean && upper.is_edited());
    assert_eq!(upper.rows().node(key).unwrap().unwrap().content, Content::Data(over.id()));
    assert_eq!(upper.binding().expected, Some(digest(2)));
    assert_eq!(contents(&upper, over.id()), b"Ttt", "published bytes lie in the tree");
    assert!(data.is_fixed(), "a handle that is still open cannot make invisible writes");
}

#[test]
fn an_open_unlinked_file_keeps_its_bytes_and_is_not_an_edit() {
    let (directory, _uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"one");
    let frozen = upper.freeze().unwrap();
    assert!(commit(&upper, frozen, digest(2), &mut [(key, tree_node(1))].into_iter(), &|open| open == id).unwrap());
    assert!(!upper.is_edited());
    assert_eq!(upper.rows().node(key).unwrap().unwrap().content, Content::Data(id));
    assert_eq!(data_files(directory.path()).len(), 1);
}

#[test]
fn a_commit_keeps_attributes_takes_the_bytes_times_and_follows_new_trees() {
    let (_directory, uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"one");
    upper.data(id).unwrap().set_mtime((1234, 5)).unwrap();
    let link = Node { content: Content::Tree(tree_node(5)), ..file(Content::None) };
    let other = upper.change(|change| change.add_node(&link)).unwrap();
    let moved = upper.change(|change| change.add_node(&link)).unwrap();
    let frozen = upper.freeze().unwrap();
    upper.change(|change| change.put_node(moved, &Node { content: Content::Tree(tree_node(6)), ..link.clone() })).unwrap();
    let newer = TreeNode { manifest: digest(9), ..tree_node(1) };
    let references = [(key, newer.clone()), (other, newer.clone()), (moved, newer.clone()), (77, newer.clone())];
    assert!(!commit(&upper, frozen, digest(9), &mut references.into_iter(), &nothing_open).unwrap());
    drop(upper);
    let upper = again(&uppers);
    let node = upper.rows().node(key).unwrap().unwrap();
    assert_eq!((node.metadata.mode, node.metadata.mtime, &node.content), (Some(0o644), Some((1234, 5)), &Content::Tree(newer.clone())));
    assert!(node.ctime > (5, 6));
    assert_eq!(upper.rows().node(other).unwrap(), Some(Node { content: Content::Tree(newer), ..link }));
    assert_eq!(upper.rows().node(moved).unwrap().unwrap().content, Content::Tree(tree_node(6)));
    assert_eq!(upper.rows().node(77).unwrap(), None);
}

#[test]
fn changes_between_two_batches_of_a_commit_stay_staged() {
    let (directory, _uppers, upper) = begin();
    let keys: Vec<_> = (0..700_u32).map(|number| add(&upper, format!("{number}").as_bytes(), b"x")).collect();
    let frozen = upper.freeze().unwrap();
    let mut references = keys.iter().map(|(key, _)| (*key, tree_node(1)));
    assert!(upper.refer_some(&frozen, &mut references, &nothing_open).unwrap(), "there are more");
    let (settled, late, gone) = (keys[0].0, keys[600], keys[650].0);
    assert_eq!(upper.rows().node(settled).unwrap().unwrap().content, Content::Tree(tree_node(1)));
    // Bytes of the generation stay readable, whatever refers to them.
    assert_eq!(data_files(directory.path()).len(), 700);
    let over = lay(&upper, late.0, Below::Data(upper.data(late.1).unwrap()));
    over.write_at(0, b"late").unwrap();
    upper.change(|change| change.drop_node(gone)).unwrap();
    while upper.refer_some(&frozen, &mut references, &nothing_open).unwrap() {}
    assert!(!upper.commit_publish(frozen, digest(2)).unwrap(), "there is something to publish");
    upper.collect().unwrap();
    assert_eq!(upper.rows().node(late.0).unwrap().unwrap().content, Content::Data(over.id()));
    assert_eq!((contents(&upper, over.id()), upper.rows().node(gone).unwrap()), (b"late".to_vec(), None));
    assert_eq!(data_files(directory.path()).len(), 1);
}

#[test]
fn references_to_an_older_tree_move_in_batches_and_those_without_a_twin_stay() {
    let (_directory, uppers, upper) = begin();
    let tree = |manifest: u8, node: u32| TreeNode { manifest: digest(manifest), ..tree_node(node) };
    let add_all = |change: &mut Change<'_>| {
        let nodes = (0..9000).map(|number| change.add_node(&file(Content::Tree(tree(3, number)))));
        nodes.collect::<Result<Vec<_>, _>>()
    };
    let keys = upper.change(add_all).unwrap();
    let other = upper.change(|change| change.add_node(&file(Content::Tree(tree(4, 1))))).unwrap();
    let (_, staged) = add(&upper, b"a", b"staged");
    let edited = upper.is_edited();
    let twin = |node: u32| (node != 8).then_some(node + 1);
    let (mut after, mut calls, mut left) = (None, 0, false);
    loop {
        let alike = upper.refer_alike((digest(3), digest(5)), &twin, after).unwrap();
        (after, calls, left) = (alike.last, calls + 1, left || alike.left);
        if after.is_none() {
            break;
        }
        // A node that is dropped between two calls stays dropped.
        let last = *keys.last().unwrap();
        upper.change(|change| change.drop_node(last)).unwrap();
    }
    assert!(left && calls == 3, "{calls}");
    assert_eq!(upper.is_edited(), edited);
    drop(upper);
    let upper = again(&uppers);
    let content = |key| upper.rows().node(key).unwrap().map(|node| node.content);
    assert_eq!(content(keys[0]), Some(Content::Tree(TreeNode { node: 1, manifest: digest(5), ..tree(3, 0) })));
    assert_eq!(content(keys[8]), Some(Content::Tree(tree(3, 8))));
    assert_eq!(content(keys[8998]), Some(Content::Tree(TreeNode { node: 8999, manifest: digest(5), ..tree(3, 8998) })));
    assert_eq!((content(keys[8999]), content(other)), (None, Some(Content::Tree(tree(4, 1)))));
    assert_eq!(contents(&upper, staged), b"staged");
}

#[test]
fn many_files_are_committed_in_batches_and_all_freed() {
    let (directory, uppers, upper) = begin();
    let keys: Vec<_> = (0..700_u32).map(|number| add(&upper, format!("{number}").as_bytes(), b"x").0).collect();
    let frozen = upper.freeze().unwrap();
    let mut references = keys.iter().map(|key| (*key, tree_node(1)));
    assert!(commit(&upper, frozen, digest(2), &mut references, &nothing_open).unwrap());
    assert!(data_files(directory.path()).is_empty());
    assert_eq!(uppers.usage().0, 0);
    assert!(keys.iter().all(|key| matches!(upper.rows().node(*key).unwrap().unwrap().content, Content::Tree(_))));
}

#[test]
fn a_digest_is_known_again_until_its_bytes_change() {
    let (_directory, uppers, upper) = begin();
    let (key, id) = add(&upper, b"a", b"one");
    let frozen = upper.freeze().unwrap();
    assert_eq!(frozen.sha256(id).unwrap(), None);
    frozen.keep_sha256(&[(id, [7; 32])]).unwrap();
    assert_eq!(frozen.sha256(id).unwrap(), Some([7; 32]));
    drop(frozen);
    drop(upper);
    let upper = again(&uppers);
    assert_eq!(upper.freeze().unwrap().sha256(id).unwrap(), Some([7; 32]));
    // A writer's first write puts the node; that alone drops the digest, whatever the clock says.
    upper.change(|change| change.put_node(key, &file(Content::Data(id)))).unwrap();
    let frozen = upper.freeze().unwrap();
    assert_eq!(frozen.sha256(id).unwrap(), None);
    frozen.keep_sha256(&[(id, [7; 32])]).unwrap();
    drop(frozen);
    upper.data(id).unwrap().write_at(3, b"more").unwrap();
    assert_eq!(upper.freeze().unwrap().sha256(id).unwrap(), None);
}

#[test]
fn generation_numbers_only_grow_and_one_lives_at_a_time() {
    let (_directory, uppers, mut upper) = begin();
    let mut last = 0;
    for _ in 0..6 {
        let frozen = upper.freeze().unwrap();
        assert!(frozen.generation() > last);
        last = frozen.generation();
        assert_eq!(upper.freeze().err().unwrap().kind, ErrorKind::Busy);
        assert_eq!(upper.remove().unwrap_err().kind, ErrorKind::Busy);
        drop(frozen);
        drop(upper);
        upper = again(&uppers);
    }
}

#[test]
fn the_journal_is_kept_until_cleared_or_committed() {
    let (_directory, uppers, upper) = begin();
    assert_eq!(upper.journal().unwrap(), None);
    let journal = Journal { generation: 3, expected: None, digest: digest(4).to_string() };
    upper.set_journal(Some(&journal)).unwrap();
    assert!(!upper.is_edited());
    drop(upper);
    let upper = again(&uppers);
    assert_eq!(upper.journal().unwrap(), Some(journal.clone()));
    upper.set_journal(None).unwrap();
    assert_eq!(upper.journal().unwrap(), None);
    upper.set_journal(Some(&journal)).unwrap();
    std::fs::write(upper.packs().join("layer"), b"packed").unwrap();
    let frozen = upper.freeze().unwrap();
    commit(&upper, frozen, digest(4), &mut std::iter::empty(), &nothing_open).unwrap();
    assert_eq!(upper.journal().unwrap(), None);
    assert_eq!(std::fs::read_dir(upper.packs()).unwrap().count(), 0);
}

#[test]
fn an_open_check_may_look_at_the_upper() {
    let (_directory, _uppers, upper) = begin();
    let (key, _) = add(&upper, b"a", b"one");
    let ask = |_: DataId| upper.rows().node(key).unwrap().is_none();
    let frozen = upper.freeze().unwrap();
    let mut references = std::iter::once(()).map(|()| {
        upper.change(|change| change.put_xattr(key, b"user.late", Some(b"1"))).unwrap();
        (key, tree_node(1))
    });
    assert!(!commit(&upper, frozen, digest(2), &mut references, &ask).unwrap());
    assert!(upper.is_edited());
}
