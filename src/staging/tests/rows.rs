//! Rows against a model, transactions, cookies, long listings.

use crate::layer::Metadata;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::rows::ReadRows;
use super::*;

#[test]
fn every_attribute_of_a_node_survives_a_round_trip() {
    let (_directory, uppers, upper) = begin();
    let kinds = [
        NodeKind::File,
        NodeKind::Directory,
        NodeKind::Symlink,
        NodeKind::CharDevice,
        NodeKind::BlockDevice,
        NodeKind::Fifo,
        NodeKind::Socket,
    ];
    let mut nodes = Vec::new();
    for kind in kinds {
        let mut node = file(Content::None);
        node.kind = kind;
        nodes.push(node.clone());
        node.metadata = Metadata { mtime: Some((-5, 999_999_999)), device: (u32::MAX, 7), ..Metadata::default() };
        node.ctime = (i64::MIN, 1);
        node.target = vec![0, 255, b'/'];
        node.opaque = true;
        node.parent = STAGED | 77;
        node.links = u32::MAX;
        node.content = Content::Tree(TreeNode { sha256: None, ..tree_node(u32::MAX) });
        nodes.push(node);
    }
    let keys: Vec<_> = nodes.iter().map(|node| upper.change(|change| change.add_node(node)).unwrap()).collect();
    upper.change(|change| change.put_node(0, &nodes[1])).unwrap();
    drop(upper);
    let upper = again(&uppers);
    for (key, node) in keys.iter().zip(&nodes) {
        assert_eq!(upper.rows().node(*key).unwrap().as_ref(), Some(node));
    }
    let mut listed = upper.rows().nodes(None, 3).unwrap();
    while let Some((last, _)) = listed.last() {
        let page = upper.rows().nodes(Some(*last), 3).unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed.len(), nodes.len() + 1);
    assert_eq!(listed.first(), Some(&(0, nodes[1].clone())));
    assert!(listed.is_sorted_by_key(|(key, _)| *key));
}

#[test]
fn a_change_that_fails_or_panics_leaves_nothing() {
    let (_directory, _uppers, upper) = begin();
    let failed = upper.change(|change| {
        change.add_node(&file(Content::None))?;
        change.put_name(0, b"a", Named::Whiteout)?;
        change.bind(Binding::default())?;
        Err::<(), _>(Error::new(ErrorKind::Invalid, "no"))
    });
    assert_eq!(failed.unwrap_err().kind, ErrorKind::Invalid);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        upper.change::<()>(|change| {
            change.put_name(0, b"a", Named::Whiteout)?;
            panic!("in the middle");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(upper.rows().name(0, b"a").unwrap(), None);
    assert!(upper.rows().nodes(None, 10).unwrap().is_empty());
    assert_eq!(upper.binding(), bound());
    assert!(!upper.is_edited());
    upper.change(|change| change.put_name(0, b"a", Named::Whiteout)).unwrap();
    assert!(upper.is_edited());
}

#[test]
fn a_no_op_change_is_not_an_edit() {
    let (_directory, uppers, upper) = begin();
    upper.change(|change| change.rows().node(5)).unwrap();
    upper.change(|change| change.bind(bound())).unwrap();
    assert!(!upper.is_edited());
    drop(upper);
    assert!(!again(&uppers).is_edited());
}

#[test]
fn a_change_that_reverts_everything_leaves_no_edit() {
    let (_directory, uppers, mut upper) = begin();
    let other = Binding { expected: Some(digest(2)), ..bound() };
    for binding in [bound(), other, bound()] {
        upper.change(|change| change.put_name(0, b"a", Named::Whiteout)).unwrap();
        for _ in 0..2 {
            upper
                .change(|change| {
                    change.set_unedited();
                    change.bind(binding)?;
                    change.drop_name(0, b"a")
                })
                .unwrap();
            assert!(!upper.is_edited());
            drop(upper);
            upper = again(&uppers);
            assert_eq!((upper.is_edited(), upper.binding()), (false, binding));
        }
    }
}

#[test]
fn new_tags_retags_and_deletions_count_as_edits_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let uppers = open(directory.path());
    let retag = Binding { under: Some(digest(1)), ..Binding::default() };
    for (tag, binding) in [("new", Binding::default()), ("retag", retag), ("gone", Binding { deleted: true, ..bound() })] {
        let upper = uppers.create(&tag_key(tag), binding, None).unwrap();
        assert!(upper.is_edited(), "{tag}");
        assert_eq!(upper.binding(), binding);
    }
}

#[test]
fn node_and_name_numbers_are_never_reused() {
    let (_directory, uppers, mut upper) = begin();
    let (mut keys, mut cookies) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        for _ in 0..3 {
            let key = upper
                .change(|change| {
                    let key = change.add_node(&file(Content::None))?;
                    change.put_name(0, b"same", Named::Node(key))?;
                    Ok(key)
                })
                .unwrap();
            keys.push(key);
            cookies.push(upper.rows().names(0, 0, 10).unwrap()[0].cookie);
            upper
                .change(|change| {
                    change.drop_name(0, b"same")?;
                    change.drop_node(key)
                })
                .unwrap();
        }
        drop(upper);
        upper = again(&uppers);
    }
    assert!(keys.iter().all(|key| *key > STAGED));
    assert!(keys.is_sorted_by(|one, two| one < two), "{keys:?}");
    assert!(cookies[0] > 0 && cookies.is_sorted_by(|one, two| one < two), "{cookies:?}");
}

#[test]
fn an_unallocated_number_is_refused() {
    let (_directory, _uppers, upper) = begin();
    let refused = upper.change(|change| change.put_node(STAGED + 5000, &file(Content::None)));
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Invalid);
}

#[test]
fn a_hundred_thousand_names_are_listed_by_pages_while_they_are_removed() {
    const NAMES: usize = 100_000;
    let (_directory, uppers, upper) = begin();
    upper
        .change(|change| {
            (0..NAMES).try_for_each(|number| {
                let named = if number % 10 == 0 { Named::Whiteout } else { Named::Node(number as u64) };
                change.put_name(7, format!("name-{number}").as_bytes(), named)
            })
        })
        .unwrap();
    upper.change(|change| change.put_name(8, b"other", Named::Whiteout)).unwrap();
    drop(upper);
    let upper = again(&uppers);
    let (mut after, mut seen) = (0, 0);
    loop {
        let page = upper.rows().names(7, after, 1000).unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 1000 && page.is_sorted_by(|one, two| one.cookie < two.cookie) && page[0].cookie > after);
        after = last.cookie;
        for row in &page {
            assert_eq!(row.name, format!("name-{seen}").into_bytes());
            assert_eq!(row.named, if seen % 10 == 0 { Named::Whiteout } else { Named::Node(seen as u64) });
            seen += 1;
        }
        upper.change(|change| page.iter().try_for_each(|row| change.drop_name(7, &row.name))).unwrap();
    }
    assert_eq!(seen, NAMES);
    assert!(upper.rows().names(7, 0, 1).unwrap().is_empty());
    assert!(upper.rows().names(8, u64::MAX, 1).unwrap().is_empty());
    assert_eq!(upper.rows().names(8, 0, usize::MAX).unwrap().len(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    AddNode(u8),
    PutNode(u8, u8),
    DropNode(u8),
    PutName(u8, u8, Option<u8>),
    DropName(u8, u8),
    PutXattrs(u8, Vec<(u8, u8)>),
    PutXattr(u8, u8, Option<u8>),
    Bind(u8),
    Fail,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let small = 0..6_u8;
    prop_oneof![
        4 => any::<u8>().prop_map(Step::AddNode),
        4 => (small.clone(), any::<u8>()).prop_map(|(key, value)| Step::PutNode(key, value)),
        2 => small.clone().prop_map(Step::DropNode),
        6 => (0..3_u8, small.clone(), proptest::option::of(any::<u8>())).prop_map(|(directory, name, node)| Step::PutName(directory, name, node)),
        3 => (0..3_u8, small.clone()).prop_map(|(directory, name)| Step::DropName(directory, name)),
        1 => (small.clone(), proptest::collection::vec((small.clone(), any::<u8>()), 0..4)).prop_map(|(key, values)| Step::PutXattrs(key, values)),
        3 => (small.clone(), small.clone(), proptest::option::of(any::<u8>())).prop_map(|(key, name, value)| Step::PutXattr(key, name, value)),
        1 => any::<u8>().prop_map(Step::Bind),
        1 => Just(Step::Fail),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Clone, Debug, Default)]
struct Model {
    nodes: BTreeMap<NodeKey, Node>,
    /// By directory and name: cookie (as assigned by the upper) and target.
    names: BTreeMap<(u64, Vec<u8>), Named>,
    xattrs: BTreeMap<(NodeKey, Vec<u8>), Vec<u8>>,
    binding: Binding,
    added: Vec<NodeKey>,
}

impl Model {
    /// A node of the tree below, or one created here.
    fn key(&self, number: u8) -> NodeKey {
        self.added.get(usize::from(number)).copied().unwrap_or(u64::from(number))
    }

    fn apply(&mut self, change: &mut Change<'_>, step: &Step) -> Result<(), Error> {
        let node = |value: u8| Node {
            ctime: (value.into(), 0),
            ..file(if value > 128 { Content::Tree(tree_node(value.into())) } else { Content::None })
        };
        match step {
            Step::AddNode(value) => {
                let key = change.add_node(&node(*value))?;
                self.added.push(key);
                self.nodes.insert(key, node(*value));
            }
            Step::PutNode(key, value) => {
                change.put_node(self.key(*key), &node(*value))?;
                self.nodes.insert(self.key(*key), node(*value));
            }
            Step::DropNode(key) => {
                let key = self.key(*key);
                change.drop_node(key)?;
                self.nodes.remove(&key);
                self.xattrs.retain(|(of, _), _| *of != key);
            }
            Step::PutName(directory, name, node) => {
                let named = node.map_or(Named::Whiteout, |node| Named::Node(node.into()));
                change.put_name((*directory).into(), &[*name], named)?;
                self.names.insert(((*directory).into(), vec![*name]), named);
            }
            Step::DropName(directory, name) => {
                change.drop_name((*directory).into(), &[*name])?;
                self.names.remove(&((*directory).into(), vec![*name]));
            }
            Step::PutXattrs(key, values) => {
                let key = self.key(*key);
                let values: BTreeMap<Vec<u8>, Vec<u8>> = values.iter().map(|(name, value)| (vec![*name], vec![*value])).collect();
                change.put_xattrs(key, &values.clone().into_iter().collect::<Vec<_>>())?;
                self.xattrs.retain(|(of, _), _| *of != key);
                self.xattrs.extend(values.into_iter().map(|(name, value)| ((key, name), value)));
            }
            Step::PutXattr(key, name, value) => {
                let key = self.key(*key);
                change.put_xattr(key, &[*name], value.as_ref().map(std::slice::from_ref))?;
                match value {
                    Some(value) => self.xattrs.insert((key, vec![*name]), vec![*value]),
                    None => self.xattrs.remove(&(key, vec![*name])),
                };
            }
            Step::Bind(byte) => {
                self.binding = Binding { under: Some(digest(1)), expected: Some(digest(*byte)), deleted: byte % 2 == 0 };
                change.bind(self.binding)?;
            }
            Step::Fail => return Err(Error::new(ErrorKind::Invalid, "as asked")),
            Step::Reopen => {}
        }
        Ok(())
    }

    fn compare(&self, rows: &dyn Rows) {
        let nodes: BTreeMap<_, _> = rows.nodes(None, usize::MAX).unwrap().into_iter().collect();
        assert_eq!(nodes, self.nodes);
        for (key, node) in &self.nodes {
            assert_eq!(rows.node(*key).unwrap().as_ref(), Some(node));
        }
        for directory in 0..3 {
            let listed = rows.names(directory, 0, usize::MAX).unwrap();
            assert!(listed.is_sorted_by(|one, two| one.cookie < two.cookie));
            let listed: BTreeMap<_, _> = listed.into_iter().map(|row| ((directory, row.name), row.named)).collect();
            let expected: BTreeMap<_, _> =
                self.names.iter().filter(|((of, _), _)| *of == directory).map(|(place, named)| (place.clone(), *named)).collect();
            assert_eq!(listed, expected);
            for name in 0..6 {
                assert_eq!(rows.name(directory, &[name]).unwrap(), self.names.get(&(directory, vec![name])).copied());
            }
        }
        for key in (0..6).chain(self.added.iter().copied()) {
            let expected: Vec<_> =
                self.xattrs.iter().filter(|((of, _), _)| *of == key).map(|((_, name), value)| (name.clone(), value.clone())).collect();
            assert_eq!(rows.xattrs(key).unwrap(), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_upper_behaves_like_a_map(changes in proptest::collection::vec(proptest::collection::vec(step(), 1..6), 1..12)) {
        let (_directory, uppers, mut upper) = begin();
        let mut model = Model { binding: bound(), ..Model::default() };
        for steps in changes {
            let mut next = model.clone();
            let result = upper.change(|change| {
                steps.iter().try_for_each(|step| next.apply(change, step))?;
                next.compare(change.rows());
                Ok(())
            });
            if result.is_ok() {
                model = next;
            } else {
                prop_assert!(steps.iter().any(|step| matches!(step, Step::Fail)));
            }
            if steps.iter().any(|step| matches!(step, Step::Reopen)) {
                drop(upper);
                upper = again(&uppers);
            }
            model.compare(upper.rows());
            prop_assert_eq!(upper.binding(), model.binding);
        }
    }
}

#[test]
fn no_statement_is_parsed_anew_at_every_execution() {
    let (_directory, _uppers, upper) = begin();
    upper.change(|change| change.put_xattrs(1, &[(b"user.a".to_vec(), vec![1])])).unwrap();
    let parsed = ReadRows::read(&*upper.shared, "cannot read", |connection| {
        let mut parsed = 0;
        for text in [
            "SELECT name, value FROM xattrs WHERE node = ? ORDER BY name",
            "SELECT name FROM names WHERE directory = ? AND name > x'00' ORDER BY name LIMIT 3",
            "SELECT key FROM nodes WHERE data = ? LIMIT 1",
        ] {
            let mut statement = connection.prepare(text)?;
            for number in 0..10 {
                statement.query([number])?.next()?;
            }
            parsed += statement.get_status(rusqlite::StatementStatus::RePrepare);
        }
        Ok(parsed)
    });
    assert_eq!(parsed.unwrap(), 0);
}
