//! Random operations on an edited tag and on the reference, compared after each one; with restarts, publishes and discards
//! in between. `OCIFS_LONG=1` runs ten thousand sequences.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::super::{FileHandle, SetAttributes};
use super::reference::{Model, ModelResult, Node, Seen, Time};
use super::*;
use crate::sys::space::{KEEP_SIZE, PUNCH_HOLE};

const OPEN: usize = 3;

#[derive(Clone, Debug)]
enum Operation {
    Make(Kind, String),
    Write(String, usize, Vec<u8>),
    Truncate(String, usize),
    Remove(String, bool),
    Rename(String, String, Replace),
    Link(String, String),
    Chmod(String, u32),
    Chown(String, u32),
    Utime(String, i64),
    SetXattr(String, u8, u8),
    RemoveXattr(String, u8),
    Copy(String, String),
    Open(usize, String, bool),
    WriteOpen(usize, usize, Vec<u8>),
    Close(usize),
    Punch(String, usize, usize),
    Fill,
    Freeze,
    Commit,
    Restart,
    Discard,
}

fn path() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    prop::collection::vec(name(), 1..=3).prop_map(|names| names.join("/"))
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(1..9u8, 1..6), Just(vec![7; 5_000])]
}

fn offset() -> impl Strategy<Value = usize> {
    prop_oneof![0..8usize, Just(7_000)]
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let kind = prop::sample::select(vec![Kind::File, Kind::File, Kind::Directory, Kind::Directory, Kind::Symlink, Kind::Fifo]);
    let replace = prop::sample::select(vec![Replace::Yes, Replace::Yes, Replace::No, Replace::Exchange]);
    prop_oneof![
        6 => (kind, path()).prop_map(|(kind, path)| Make(kind, path)),
        6 => (path(), offset(), data()).prop_map(|(path, offset, data)| Write(path, offset, data)),
        2 => (path(), offset()).prop_map(|(path, size)| Truncate(path, size)),
        6 => (path(), any::<bool>()).prop_map(|(path, is_directory)| Remove(path, is_directory)),
        8 => (path(), path(), replace).prop_map(|(from, to, replace)| Rename(from, to, replace)),
        3 => (path(), path()).prop_map(|(from, to)| Link(from, to)),
        2 => (path(), 0..0o7777u32).prop_map(|(path, mode)| Chmod(path, mode)),
        1 => (path(), 0..9u32).prop_map(|(path, owner)| Chown(path, owner)),
        1 => (path(), prop_oneof![1 => Just(1000), 3 => 1..2000i64]).prop_map(|(path, time)| Utime(path, time)),
        1 => (path(), 0..3u8, 1..9u8).prop_map(|(path, name, value)| SetXattr(path, name, value)),
        1 => (path(), 0..3u8).prop_map(|(path, name)| RemoveXattr(path, name)),
        2 => (path(), path()).prop_map(|(from, to)| Copy(from, to)),
        3 => (0..OPEN, path(), any::<bool>()).prop_map(|(slot, path, writes)| Open(slot, path, writes)),
        3 => (0..OPEN, offset(), data()).prop_map(|(slot, offset, data)| WriteOpen(slot, offset, data)),
        2 => (0..OPEN).prop_map(Close),
        2 => (path(), offset(), 1..3_000usize).prop_map(|(path, offset, length)| Punch(path, offset, length)),
        2 => Just(Fill),
        3 => Just(Freeze),
        2 => Just(Commit),
        1 => Just(Restart),
        1 => Just(Discard),
    ]
}

/// An open file, and its counterpart in the reference.
struct Open {
    writer: Arc<FileHandle>,
    node: usize,
    writes: bool,
}

/// Both sides.
struct Pair<'fixture> {
    fixture: &'fixture TagFixture,
    tag: Option<Arc<Overlay>>,
    model: Model,
    /// The digest that the tag is expected to hold upstream; `None` while it is new.
    upstream: Option<Model>,
    open: [Option<Open>; OPEN],
    frozen: Option<(Arc<Frozen>, Model)>,
}

/// The initial tree of sequences, on both sides.
fn base() -> (Vec<Item<'static>>, Model) {
    let items = vec![
        Item::Dir("a"),
        Item::File("a/a", b"lower".to_vec()),
        Item::Dir("a/b"),
        Item::File("a/b/c", vec![5; 9_000]),
        Item::Symlink("a/c", "b"),
        Item::File("b", b"twice".to_vec()),
        Item::Link("c", "b"),
    ];
    let mut model = Model::new();
    let made = |kind, mode| Node::new(kind, mode, (7, 8), Time::Set(1000));
    model.make("a", made(Kind::Directory, 0o755)).unwrap();
    model.make("a/a", Node { bytes: b"lower".to_vec(), ..made(Kind::File, 0o644) }).unwrap();
    model.make("a/b", made(Kind::Directory, 0o755)).unwrap();
    model.make("a/b/c", Node { bytes: vec![5; 9_000], ..made(Kind::File, 0o644) }).unwrap();
    model.make("a/c", Node { target: b"b".to_vec(), ..made(Kind::Symlink, 0o777) }).unwrap();
    model.make("b", Node { bytes: b"twice".to_vec(), ..made(Kind::File, 0o644) }).unwrap();
    model.link("b", "c").unwrap();
    for node in &mut model.nodes[1..] {
        node.mtime = Time::Set(1000);
    }
    (items, model)
}

fn answer<T>(result: Result<T, Error>) -> ModelResult<T> {
    result.map_err(|error| error.kind)
}

impl Pair<'_> {
    fn tag(&self) -> &Arc<Overlay> {
        self.tag.as_ref().unwrap()
    }

    /// Walks a path as the kernel does.
    fn find(&self, path: &str) -> ModelResult<ViewNode> {
        path.split('/').try_fold(0, |at, name| {
            if self.tag().attributes(&self.fixture.context, at).unwrap().kind != Kind::Directory {
                return Err(ErrorKind::NotDirectory);
            }
            answer(self.tag().lookup(at, name.as_bytes()))?.ok_or(ErrorKind::NotFound)
        })
    }

    fn split<'a>(&self, path: &'a str) -> ModelResult<(ViewNode, &'a [u8])> {
        let Some((directory, name)) = path.rsplit_once('/') else { return Ok((0, path.as_bytes())) };
        let directory = self.find(directory)?;
        let found = self.tag().attributes(&self.fixture.context, directory).unwrap().kind;
        if found == Kind::Directory { Ok((directory, name.as_bytes())) } else { Err(ErrorKind::NotDirectory) }
    }

    async fn run(&mut self, operation: &Operation) {
        use Operation::*;
        let same = match operation {
            Make(kind, path) => self.make(*kind, path),
            Write(path, offset, data) => self.write(path, *offset, data).await,
            Truncate(path, size) => self.truncate(path, *size).await,
            Punch(path, offset, length) => self.punch(path, *offset, *length).await,
            Remove(path, is_directory) => {
                let here = self.split(path).and_then(|(directory, name)| answer(self.tag().remove(directory, name, *is_directory)));
                (here, self.model.remove(path, *is_directory))
            }
            Rename(from, to, replace) => {
                let here = self.split(from).and_then(|from| {
                    let to = self.split(to)?;
                    answer(self.tag().rename(from, to, *replace))
                });
                (here, self.model.rename(from, to, *replace))
            }
            Link(from, to) => {
                let here = self.find(from).and_then(|node| {
                    let (directory, name) = self.split(to)?;
                    answer(self.tag().link(node, directory, name))
                });
                (here, self.model.link(from, to))
            }
            Chmod(path, mode) => {
                let set = SetAttributes { mode: Some(*mode), ..Default::default() };
                self.set(path, set, |node| node.mode = if node.kind == Kind::Symlink { 0o777 } else { *mode }).await
            }
            Chown(path, owner) => {
                let set = SetAttributes { uid: Some(*owner), ..Default::default() };
                self.set(path, set, |node| node.owner.0 = *owner).await
            }
            Utime(path, time) => {
                let set = SetAttributes { mtime: Some((*time, 0)), ..Default::default() };
                self.set(path, set, |node| node.mtime = Time::Set(*time)).await
            }
            SetXattr(path, name, value) => self.set_xattr(path, *name, *value),
            RemoveXattr(path, name) => self.remove_xattr(path, *name),
            Copy(from, to) => self.copy(from, to).await,
            Open(slot, path, writes) => self.open_file(*slot, path, *writes).await,
            other => return self.run_on_all(other).await,
        };
        assert_eq!(same.0, same.1, "{operation:?}");
    }

    /// Operations without a path.
    async fn run_on_all(&mut self, operation: &Operation) {
        match operation {
            Operation::WriteOpen(slot, offset, data) => {
                if let Some(open) = self.open[*slot].as_ref().filter(|open| open.writes) {
                    open.writer.write(*offset as u64, data).await.unwrap();
                    self.model.write(open.node, *offset, data);
                }
            }
            Operation::Close(slot) => self.open[*slot] = None,
            Operation::Fill => {
                self.tag().fill().await.unwrap();
                self.tag().upper().sync().unwrap();
                assert!(self.frozen.is_some() || self.tag().upper().partial().is_empty());
            }
            Operation::Freeze if self.frozen.is_none() => {
                let frozen = self.tag().freeze().unwrap();
                self.frozen = Some((frozen, self.model.clone()));
            }
            Operation::Commit => self.commit().await,
            Operation::Restart => {
                self.frozen = None;
                self.open = Default::default();
                let tag = self.tag.take().unwrap();
                let (tag_key, binding, is_edited) = (tag.tag_key(), tag.binding(), tag.is_edited());
                drop(tag);
                self.tag = Some(match self.fixture.uppers.find(&tag_key).unwrap() {
                    Some(upper) => Overlay::open(&self.fixture.context, upper).await.unwrap(),
                    None => {
                        assert!(!is_edited, "edits are gone");
                        self.fixture.over(&tag_key.tag, binding.expected.unwrap()).await
                    }
                });
            }
            Operation::Discard if self.frozen.is_none() => {
                self.open = Default::default();
                discarded(self.tag(), b"").unwrap();
                self.model = self.upstream.clone().unwrap_or_else(Model::new);
                self.model.nodes[0].mtime = self.model.now();
                assert_eq!(self.tag().is_edited(), self.upstream.is_none());
            }
            _ => {}
        }
    }

    fn make(&mut self, kind: Kind, path: &str) -> (ModelResult<()>, ModelResult<()>) {
        let target = if kind == Kind::Symlink { b"a/b".to_vec() } else { Vec::new() };
        let made = NewNode { target: target.clone(), ..new(kind) };
        let here = self.split(path).and_then(|(directory, name)| answer(self.tag().create(&self.fixture.context, directory, name, &made)));
        let mode = if kind == Kind::Symlink { 0o777 } else { 0o640 };
        let node = Node { target, ..Node::new(kind, mode, (1, 2), self.model.now()) };
        let node = self.inherited(path, node);
        (here.map(|_| ()), self.model.make(path, node).map(|_| ()))
    }

    /// Applies the directory's group bit to a new node.
    fn inherited(&self, path: &str, mut node: Node) -> Node {
        if let Ok((directory, _)) = self.model.split(path)
            && self.model.nodes[directory].mode & 0o2000 != 0
        {
            node.owner.1 = self.model.nodes[directory].owner.1;
            node.mode |= if node.kind == Kind::Directory { 0o2000 } else { 0 };
        }
        node
    }

    /// A file for reading or writing on both sides; errors must agree.
    async fn handle(&self, path: &str, writes: bool) -> (ModelResult<Arc<FileHandle>>, ModelResult<usize>) {
        let here = match self.find(path) {
            Ok(node) if writes => answer(self.tag().open_writer(&self.fixture.context, node, false).await),
            Ok(node) => answer(self.tag().open_reader(&self.fixture.context, node).await),
            Err(error) => Err(error),
        };
        let there = self.model.find(path).and_then(|node| match self.model.nodes[node].kind {
            Kind::File => Ok(node),
            Kind::Directory => Err(ErrorKind::IsDirectory),
            _ => Err(ErrorKind::NotPermitted),
        });
        (here, there)
    }

    async fn write(&mut self, path: &str, offset: usize, data: &[u8]) -> (ModelResult<()>, ModelResult<()>) {
        match self.handle(path, true).await {
            (Ok(writer), Ok(node)) => {
                writer.write(offset as u64, data).await.unwrap();
                self.model.write(node, offset, data);
                (Ok(()), Ok(()))
            }
            (here, there) => (here.map(|_| ()), there.map(|_| ())),
        }
    }

    async fn punch(&mut self, path: &str, offset: usize, length: usize) -> (ModelResult<()>, ModelResult<()>) {
        match self.handle(path, true).await {
            (Ok(writer), Ok(node)) => {
                writer.allocate(PUNCH_HOLE | KEEP_SIZE, offset as u64, length as u64).await.unwrap();
                let end = self.model.nodes[node].bytes.len().min(offset + length);
                if offset < end {
                    self.model.write(node, offset, &vec![0; end - offset]);
                }
                self.model.nodes[node].mtime = self.model.now();
                (Ok(()), Ok(()))
            }
            (here, there) => (here.map(|_| ()), there.map(|_| ())),
        }
    }

    async fn truncate(&mut self, path: &str, size: usize) -> (ModelResult<()>, ModelResult<()>) {
        let set = SetAttributes { size: Some(size as u64), ..Default::default() };
        let here = match self.find(path) {
            Ok(node) => answer(self.tag().set_attributes(&self.fixture.context, node, set).await),
            Err(error) => Err(error),
        };
        let there = self.model.find(path).and_then(|node| match self.model.nodes[node].kind {
            Kind::File => {
                self.model.truncate(node, size);
                Ok(())
            }
            Kind::Directory => Err(ErrorKind::IsDirectory),
            _ => Err(ErrorKind::Invalid),
        });
        (here, there)
    }

    async fn set(&mut self, path: &str, set: SetAttributes, work: impl FnOnce(&mut Node)) -> (ModelResult<()>, ModelResult<()>) {
        let here = match self.find(path) {
            Ok(node) => answer(self.tag().set_attributes(&self.fixture.context, node, set).await),
            Err(error) => Err(error),
        };
        (here, self.model.find(path).map(|node| work(&mut self.model.nodes[node])))
    }

    fn set_xattr(&mut self, path: &str, name: u8, value: u8) -> (ModelResult<()>, ModelResult<()>) {
        let (name, value) = (format!("user.{name}").into_bytes(), vec![b'0' + value]);
        let here = self.find(path).and_then(|node| answer(self.tag().set_xattr(node, &name, &value, false, false)));
        let there = self.model.find(path).map(|node| {
            self.model.nodes[node].xattrs.insert(name, value);
        });
        (here, there)
    }

    fn remove_xattr(&mut self, path: &str, name: u8) -> (ModelResult<()>, ModelResult<()>) {
        let name = format!("user.{name}").into_bytes();
        let here = self.find(path).and_then(|node| answer(self.tag().remove_xattr(node, &name)));
        let there =
            self.model.find(path).and_then(|node| self.model.nodes[node].xattrs.remove(&name).map(|_| ()).ok_or(ErrorKind::NoAttribute));
        (here, there)
    }

    async fn copy(&mut self, from: &str, to: &str) -> (ModelResult<()>, ModelResult<()>) {
        let source = match self.handle(from, false).await {
            (Ok(writer), Ok(node)) => (writer, node),
            (here, there) => return (here.map(|_| ()), there.map(|_| ())),
        };
        match self.handle(to, true).await {
            (Ok(writer), Ok(node)) => {
                let bytes = self.model.nodes[source.1].bytes.clone();
                assert_eq!(writer.copy_from(&source.0, 0, 0, 1 << 30).await.unwrap(), bytes.len() as u64);
                if !bytes.is_empty() {
                    self.model.write(node, 0, &bytes);
                }
                (Ok(()), Ok(()))
            }
            (here, there) => (here.map(|_| ()), there.map(|_| ())),
        }
    }

    async fn open_file(&mut self, slot: usize, path: &str, writes: bool) -> (ModelResult<()>, ModelResult<()>) {
        match self.handle(path, writes).await {
            (Ok(writer), Ok(node)) => {
                self.open[slot] = Some(Open { writer, node, writes });
                (Ok(()), Ok(()))
            }
            (here, there) => (here.map(|_| ()), there.map(|_| ())),
        }
    }

    /// Publishes the frozen state, or the current one.
    async fn commit(&mut self) {
        let (frozen, model) = match self.frozen.take() {
            Some(frozen) => frozen,
            None => (self.tag().freeze().unwrap(), self.model.clone()),
        };
        assert_eq!(frozen_names(&frozen).await, names_of(&model));
        let digest = self.fixture.push_frozen(&self.tag().tag_key().tag, &frozen).await;
        let artifact = self.fixture.artifact(&digest).await;
        let is_clean = self.tag().commit_publish(frozen, &artifact).unwrap();
        self.upstream = Some(model);
        if is_clean {
            assert_eq!(self.tag().differences().await.unwrap(), []);
        }
    }

    /// Everything visible equals the reference.
    async fn compare(&self) {
        let mut seen = self.seen().await;
        let expected = self.model.seen();
        for (path, entry) in &mut seen {
            // A time that nobody set is not known beforehand.
            if expected.get(path).is_some_and(|expected| expected.mtime.is_none()) {
                entry.mtime = None;
            }
        }
        assert_eq!(seen, expected);
        for open in self.open.iter().flatten() {
            let node = &self.model.nodes[open.node];
            assert!(open.writer.read(0, 4 << 20).await.unwrap() == node.bytes, "an open file shows other bytes");
        }
        let differences = self.tag().differences().await.unwrap();
        let told: std::collections::BTreeSet<String> =
            differences.into_iter().map(|difference| String::from_utf8(difference.path).unwrap()).filter(|path| !path.is_empty()).collect();
        let (must, may) = self.model.differences(self.upstream.as_ref().unwrap_or(&Model::new()));
        assert!(must.is_empty() || self.tag().upper().is_edited(), "edits that nobody would publish");
        assert!(must.is_subset(&told) && told.is_subset(&(&must | &may)), "told {told:?}, must {must:?}, may {may:?}");
    }

    async fn seen(&self) -> BTreeMap<String, Seen> {
        let tag = self.tag();
        let (mut open, mut nodes) = (vec![(0, String::new())], BTreeMap::new());
        while let Some((directory, prefix)) = open.pop() {
            let mut found = Vec::new();
            tag.children(directory, 0, &mut |_, name, node| {
                found.push((String::from_utf8(name.to_vec()).unwrap(), node));
                true
            })
            .unwrap();
            for (name, node) in found {
                assert_eq!(tag.lookup(directory, name.as_bytes()).unwrap(), Some(node));
                let path = format!("{prefix}{name}");
                if tag.attributes(&self.fixture.context, node).unwrap().kind == Kind::Directory {
                    assert_eq!(tag.parent(node).unwrap(), directory, "{path}");
                    open.push((node, format!("{path}/")));
                }
                assert_eq!(nodes.insert(path, node), None, "a name is listed twice");
            }
        }
        let mut first: BTreeMap<ViewNode, String> = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for (path, node) in nodes {
            let same_as = first.entry(node).or_insert_with(|| path.clone()).clone();
            seen.insert(path, self.seen_of(node, same_as).await);
        }
        seen
    }

    async fn seen_of(&self, node: ViewNode, same_as: String) -> Seen {
        let (tag, context) = (self.tag(), &self.fixture.context);
        let Attributes { kind, mode, uid, gid, links, time, size, .. } = tag.attributes(context, node).unwrap();
        let bytes = match kind {
            Kind::File => tag.open_reader(context, node).await.unwrap().read(0, 4 << 20).await.unwrap().to_vec(),
            _ => Vec::new(),
        };
        let target = if kind == Kind::Symlink { tag.target(node).unwrap() } else { Vec::new() };
        assert!(kind == Kind::Directory || size == (bytes.len() + target.len()) as u64);
        let names = tag.xattr_names(node).unwrap();
        let xattrs = names.into_iter().map(|name| (name.clone(), tag.xattr(node, &name).unwrap().unwrap())).collect();
        Seen { kind, mode, owner: (uid, gid), links: links as usize, bytes, target, xattrs, same_as, mtime: Some(time.0) }
    }
}

/// Paths, links and bytes of a frozen state.
async fn frozen_names(frozen: &Arc<Frozen>) -> Vec<(String, u32, Vec<u8>)> {
    let entries: Vec<_> = frozen.entries().map(Result::unwrap).collect();
    let mut names = Vec::new();
    for entry in entries.into_iter().skip(1) {
        let bytes = match entry.kind {
            Kind::File => frozen.open(&entry).await.unwrap().read(0, 4 << 20).await.unwrap().to_vec(),
            _ => Vec::new(),
        };
        names.push((String::from_utf8(entry.path).unwrap(), entry.links, bytes));
    }
    names
}

fn names_of(model: &Model) -> Vec<(String, u32, Vec<u8>)> {
    // The reference sorts whole paths; no name here has a character smaller than the slash.
    model.seen().into_iter().map(|(path, seen)| (path, u32::try_from(seen.links).unwrap(), seen.bytes)).collect()
}

/// Runs a sequence on a tag of its own, which began empty or with the base tree.
async fn run(fixture: &TagFixture, base_digest: Option<Digest>, operations: &[Operation]) {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let name = format!("t{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let (tag, model) = match base_digest {
        Some(digest) => (fixture.over(&name, digest).await, base().1),
        None => (fixture.empty(&name).await, Model::new()),
    };
    let upstream = base_digest.map(|_| model.clone());
    let mut pair = Pair { fixture, tag: Some(tag), model, upstream, open: Default::default(), frozen: None };
    pair.compare().await;
    for operation in operations {
        pair.run(operation).await;
        pair.compare().await;
    }
    pair.frozen = None;
    pair.open = Default::default();
    pair.tag().remove_all().unwrap();
}

/// One world for all sequences: what they publish shares a cache.
fn shared() -> &'static (TagFixture, Digest, tokio::runtime::Runtime) {
    static WORLD: OnceLock<(TagFixture, Digest, tokio::runtime::Runtime)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let fixture = TagFixture::new();
        let digest = fixture.push("base", &base().0);
        drop(_inside);
        (fixture, digest, runtime)
    })
}

fn check(with_base: bool, operations: &[Operation]) {
    let (fixture, digest, runtime) = shared();
    runtime.block_on(run(fixture, with_base.then_some(*digest), operations));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("OCIFS_LONG").is_some() { 10_000 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_sequence_of_operations_matches_the_reference_model(
        with_base in prop::bool::weighted(0.8),
        operations in prop::collection::vec(operation(), 1..40),
    ) {
        check(with_base, &operations);
    }
}
