//! Random work on a few tags while the registry's answers are held back: nothing that was acknowledged is lost or moves to another tag.
//!
//! Operations overlap: each runs as a task, and an answer of the registry (about a tag, or to a publish) may be let through many
//! operations later. The reference model learns only from the file system's answers. `OCIFS_LONG=1` walks 10,000 sequences.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::super::{Inode, Lookup, Selection};
use super::test_mount::{CALLER, Setup, TestMount, add_files, new_name};
use crate::artifact::Kind;
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;
use crate::publish::{Options, Outcome};
use crate::registry::{Fault, Memory, RequestKind};
use crate::view::{Key, Replace};

const TAGS: [&str; 4] = ["v1", "v2", "v3", "v4"];
/// Kinds of requests whose answers are held back.
const HELD: [RequestKind; 5] =
    [RequestKind::Resolve, RequestKind::Resolve, RequestKind::Manifest, RequestKind::PushTag, RequestKind::PushBlob];

/// The fate of an acknowledged file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It is staged in the tag of its directory.
    Staged(usize),
    Published,
    /// Discarded, or written during a discard.
    Free,
}

/// State that follows from the answers so far.
#[derive(Default)]
struct ModelState {
    /// Directories of entered tags: inode and the tag they show.
    directories: Vec<(u64, String)>,
    files: BTreeMap<String, Fate>,
    /// Writes in progress, and whether a discard is running.
    writing: HashMap<String, bool>,
    taking_back: u32,
    /// Kernel lookups, by view.
    lookups: HashMap<u32, u64>,
    /// The versions that another writer gave each tag since its last publish here, oldest first.
    versions: HashMap<String, Vec<Digest>>,
    /// The newest version that a lookup has shown.
    confirmed: HashMap<String, usize>,
    next: u32,
    trace: Trace,
}

/// A trace, printed if a sequence fails.
#[derive(Default)]
struct Trace(Vec<String>);

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|line| println!("{line}"));
        }
    }
}

impl ModelState {
    fn taint(&mut self) {
        self.writing.values_mut().for_each(|tainted| *tainted = true);
    }

    fn staged_in<'known>(&'known self, tag: &'known str) -> impl Iterator<Item = String> + 'known {
        let is_in = move |fate: &Fate| matches!(fate, Fate::Staged(at) if self.directories[*at].1 == tag);
        self.files.iter().filter(move |(_, fate)| is_in(fate)).map(|(name, _)| name.clone())
    }

    fn found(&mut self, inode: u64) {
        *self.lookups.entry(Inode::decode(inode).view()).or_default() += 1;
    }

    /// A publish puts the tag at an unknown moment.
    fn forget_versions(&mut self, tag: &str) {
        self.versions.remove(tag);
        self.confirmed.remove(tag);
    }
}

/// A mount with its model. Cloned into each operation.
#[derive(Clone)]
struct Model {
    mount: TestMount,
    state: Arc<Mutex<ModelState>>,
    repository: u64,
}

fn expected(error: &Error) -> bool {
    use ErrorKind::{Busy, Conflict, Exists, Gone, Invalid, NotEmpty, NotFound, NotPermitted, Skipped};
    matches!(error.kind, Busy | Conflict | Exists | Gone | Invalid | NotEmpty | NotFound | NotPermitted | Skipped)
}

impl Model {
    async fn new() -> Self {
        let mount = TestMount::in_memory(Memory::new(), Setup { tag_ttl: Duration::ZERO, allow_delete: true, ..Setup::writable() });
        let model = Self { mount, state: Arc::default(), repository: 0 };
        model.moves("v1");
        model.moves("v2");
        let repository = model.mount.entry("team/app").await.inode;
        Self { repository, ..model }
    }

    /// The result of an operation, unless it failed in a permitted way.
    fn allowed<T>(&self, what: &str, result: Result<T, Error>) -> Option<T> {
        let told = result.as_ref().err().map_or_else(|| "ok".to_owned(), ToString::to_string);
        self.state.lock().trace.0.push(format!("{what}: {told}"));
        match result {
            Ok(value) => Some(value),
            Err(error) if expected(&error) => None,
            Err(error) => panic!("{what}: {error:?}"),
        }
    }

    /// Another writer moves a tag.
    fn moves(&self, tag: &str) {
        let mut state = self.state.lock();
        state.next += 1;
        state.trace.0.push(format!("{tag} moves"));
        let digest = add_files(&self.mount.registry, "team/app", tag, &[("a.txt", &format!("version {}", state.next))]);
        state.versions.entry(tag.to_owned()).or_default().push(digest);
    }

    fn is_staged(&self, tag: &str) -> bool {
        self.mount.fs.namespace.staged.all().iter().any(|((_, name), _)| name.as_str() == tag)
    }

    /// A lookup of a tag found a directory.
    fn found(&self, tag: &str, inode: u64) {
        let mut state = self.state.lock();
        state.found(inode);
        if !state.directories.iter().any(|(other, _)| *other == inode) {
            state.directories.push((inode, tag.to_owned()));
        }
    }

    /// Looks a tag up, enters it, and checks that it is not older than anything shown before.
    async fn look(self, tag: &'static str) {
        let before = self.state.lock().confirmed.get(tag).copied();
        let was_staged = self.is_staged(tag);
        let Some(Lookup::Found(entry)) = self.allowed(&format!("look {tag}"), self.mount.fs.lookup(self.repository, tag.as_bytes()).await)
        else {
            return;
        };
        self.found(tag, entry.inode);
        let Some(open) = self.allowed("opendir", self.mount.fs.opendir(entry.inode).await) else { return };
        self.mount.fs.releasedir(open.handle);
        let shown = self.allowed("getxattr", self.mount.fs.getxattr(entry.inode, b"user.oci.digest").await).flatten();
        let mut state = self.state.lock();
        let shown = shown.and_then(|text| Digest::parse(std::str::from_utf8(&text).unwrap().trim()).ok());
        let version = shown.and_then(|shown| state.versions.get(tag)?.iter().rposition(|digest| *digest == shown));
        if was_staged || self.is_staged(tag) {
            return;
        }
        if let (Some(before), Some(version)) = (before, version) {
            assert!(version >= before, "{tag} shows version {version} after {before}");
        }
        if let Some(version) = version {
            let confirmed = state.confirmed.entry(tag.to_owned()).or_default();
            *confirmed = version.max(*confirmed);
        }
    }

    /// Writes a file durably in an entered directory.
    async fn write(self, at: usize) {
        let (name, directory) = {
            let mut state = self.state.lock();
            state.next += 1;
            let name = format!("f{}", state.next);
            let tainted = state.taking_back > 0;
            state.writing.insert(name.clone(), tainted);
            (name, state.directories[at].0)
        };
        let new = new_name(directory, name.as_bytes(), Kind::File, 0o644);
        let made = self.mount.fs.create(CALLER, new, true).await;
        let mut acknowledged = false;
        if let Some((entry, open)) = self.allowed(&format!("create {name} in {directory:x}"), made) {
            self.state.lock().found(entry.inode);
            let written = self.mount.fs.write(open.handle, 0, name.as_bytes(), false).await;
            if self.allowed("write", written).is_some() {
                acknowledged = self.allowed(&format!("fsync {name}"), self.mount.fs.fsync(open.handle).await).is_some();
            }
            self.mount.fs.release(open.handle);
        }
        let mut state = self.state.lock();
        let tainted = state.writing.remove(&name).unwrap();
        if acknowledged {
            state.files.insert(name, if tainted { Fate::Free } else { Fate::Staged(at) });
        }
    }

    async fn mkdir(self, tag: &'static str) {
        let new = new_name(self.repository, tag.as_bytes(), Kind::Directory, 0o755);
        if let Some(entry) = self.allowed(&format!("mkdir {tag}"), self.mount.fs.make(CALLER, new).await) {
            self.found(tag, entry.inode);
        }
    }

    async fn rmdir(self, tag: &'static str) {
        if self.allowed(&format!("rmdir {tag}"), self.mount.fs.rmdir(self.repository, tag.as_bytes()).await).is_some() {
            let lost: Vec<String> = self.state.lock().staged_in(tag).collect();
            assert!(lost.is_empty(), "rmdir {tag} took {lost:?}");
        }
    }

    async fn rename(self, from: &'static str, to: &'static str) {
        let (from_name, to_name) = ((self.repository, from.as_bytes()), (self.repository, to.as_bytes()));
        let Some(Lookup::Found(entry)) = self.allowed("lookup", self.mount.fs.lookup(self.repository, from.as_bytes()).await) else {
            return;
        };
        self.found(from, entry.inode);
        if self.allowed(&format!("rename {from} {to}"), self.mount.fs.rename(from_name, to_name, Replace::No).await).is_some() {
            self.moved(from, to);
        }
    }

    /// Whether the directory of one tag is now found under another name.
    fn is_shown_as(&self, tag: &str, target: &str) -> bool {
        let views = self
            .state
            .lock()
            .directories
            .iter()
            .filter(|(_, at)| at == tag)
            .map(|(inode, _)| Inode::decode(*inode).view())
            .collect::<Vec<_>>();
        let is_it = |key: &Key| matches!(key, Key::Tag(_, tag) if tag.as_str() == target);
        views.into_iter().filter_map(|view| self.mount.fs.namespace.views.get(view)).any(|view| is_it(&view.key()))
    }

    /// The directory of one tag now has another tag's name; what had that name shows nothing any more.
    fn moved(&self, from: &str, to: &str) {
        if from == to {
            return;
        }
        let mut state = self.state.lock();
        for (_, tag) in &mut state.directories {
            match tag {
                tag if tag == to => *tag = format!("{to} before"),
                tag if tag == from => to.clone_into(tag),
                _ => {}
            }
        }
    }

    async fn discard(self, tag: &'static str) {
        let staged = {
            let mut state = self.state.lock();
            state.taking_back += 1;
            state.taint();
            state.staged_in(tag).collect::<BTreeSet<_>>()
        };
        let result = self.mount.fs.discard(&Selection::Path(format!("team/app/{tag}"))).await;
        let taken = self.allowed(&format!("discard {tag}"), result).is_some_and(|references| !references.is_empty());
        self.took_back(taken, tag, &staged);
    }

    fn took_back(&self, taken: bool, tag: &str, staged: &BTreeSet<String>) {
        let mut state = self.state.lock();
        state.taking_back -= 1;
        state.taint();
        let now: Vec<String> = if taken { state.staged_in(tag).collect() } else { Vec::new() };
        let gone = now.into_iter().chain(if taken { staged.clone() } else { BTreeSet::new() });
        for name in gone.collect::<Vec<_>>() {
            state.files.insert(name, Fate::Free);
        }
    }

    async fn sync(self, tag: &'static str, options: Options) {
        let target = options.as_tag.clone().unwrap_or_else(|| tag.to_owned());
        let staged = {
            let mut state = self.state.lock();
            state.forget_versions(&target);
            if options.theirs {
                state.taking_back += 1;
                state.taint();
            }
            state.staged_in(tag).collect::<BTreeSet<_>>()
        };
        let selection = Selection::Path(format!("team/app/{tag}"));
        let listener: crate::publish::Listener = Arc::new(|_| {});
        let reports = self.allowed("sync", self.mount.fs.sync(&selection, &options, &listener).await).unwrap_or_default();
        let outcome = reports.into_iter().next().map(|report| report.outcome);
        self.state.lock().trace.0.push(format!("sync {tag} {:?} force {}: {outcome:?}", options.as_tag, options.force));
        self.state.lock().forget_versions(&target);
        if options.theirs {
            self.took_back(outcome == Some(Outcome::Dropped), tag, &staged);
        }
        let Some(Outcome::Published { digest, .. }) = outcome else { return };
        let digest = Digest::parse(&digest).unwrap();
        if target != tag && self.is_shown_as(tag, &target) {
            self.moved(tag, &target);
        }
        let other = TestMount::with_shared(Arc::clone(&self.mount.registry));
        let published = other.list(&format!("team/app/@{}", digest.path_name())).await;
        let mut state = self.state.lock();
        for name in published {
            if let Some(fate) = state.files.get_mut(&name)
                && matches!(fate, Fate::Staged(_))
            {
                *fate = Fate::Published;
            }
        }
    }

    /// The kernel forgets an unused directory.
    fn forget(&self, at: usize) {
        let mut state = self.state.lock();
        let (inode, _) = state.directories[at];
        let view = Inode::decode(inode).view();
        self.mount.fs.forget(inode, state.lookups.remove(&view).unwrap_or(0));
        let gone = state.directories.iter_mut().filter(|(inode, _)| Inode::decode(*inode).view() == view);
        gone.for_each(|(inode, _)| *inode = 0);
    }

    /// Checks what this mount shows once all answers have arrived.
    async fn check_live(&self) {
        for ((repository, tag), staged) in self.mount.fs.namespace.staged.all() {
            let key = Key::Tag(repository, tag.clone());
            let current = self.mount.fs.namespace.views.current(&key).map(|view| view.number());
            assert_eq!(current, Some(staged.view.number()), "the directory of {tag} with edits is the one that a lookup finds");
        }
        for tag in TAGS {
            let found = self.mount.fs.lookup(self.repository, tag.as_bytes()).await.unwrap();
            if let (Lookup::Found(entry), false) = (found, self.is_staged(tag)) {
                self.mount.fs.releasedir(self.mount.fs.opendir(entry.inode).await.unwrap().handle);
                let shown = self.mount.fs.getxattr(entry.inode, b"user.oci.digest").await.unwrap();
                let upstream = self.mount.registry.tagged("team/app").get(tag).map(ToString::to_string);
                assert_eq!(shown.map(|text| String::from_utf8(text).unwrap()), upstream, "{tag} follows upstream");
            }
        }
    }

    /// Checks what the next mount adopts: each acknowledged unpublished file, in the tag it was written to.
    async fn check_adopted(self) {
        let files = std::mem::take(&mut *self.state.lock());
        let Self { mount, .. } = self;
        let mount = mount.again_alone(Setup { tag_ttl: Duration::ZERO, ..Setup::writable() }).await;
        let adopted: Vec<String> = mount.fs.adopt().await.into_iter().map(|tag| tag.reference).collect();
        for (name, fate) in &files.files {
            let Fate::Staged(at) = fate else { continue };
            let tag = &files.directories[*at].1;
            assert!(adopted.contains(&format!("reg.io/team/app:{tag}")), "{name} of {tag} is not adopted: {adopted:?}");
            let text = mount.read(&format!("team/app/{tag}/{name}")).await;
            assert_eq!(text.as_deref().ok(), Some(name.as_bytes()), "{name} of {tag}: {text:?}");
        }
    }
}

/// Lets tasks run to completion, or briefly.
async fn run(tasks: &mut JoinSet<()>, all: bool) {
    loop {
        let wait = if all { Duration::from_secs(60) } else { Duration::from_micros(300) };
        match tokio::time::timeout(wait, tasks.join_next()).await {
            Ok(Some(ended)) => ended.unwrap(),
            Ok(None) => return,
            Err(_) if all => panic!("operations that never end"),
            Err(_) => return,
        }
    }
}

fn begin(model: &Model, random: &mut StdRng, tasks: &mut JoinSet<()>) {
    let model = model.clone();
    let (tag, other) = (TAGS[random.random_range(0..TAGS.len())], TAGS[random.random_range(0..TAGS.len())]);
    let directories: Vec<usize> =
        model.state.lock().directories.iter().enumerate().filter(|(_, (inode, _))| *inode != 0).map(|(at, _)| at).collect();
    let at = (!directories.is_empty()).then(|| directories[random.random_range(0..directories.len())]);
    match random.random_range(0..30) {
        0..=5 => drop(tasks.spawn(model.look(tag))),
        6..=14 => {
            if let Some(at) = at {
                tasks.spawn(model.write(at));
            }
        }
        15 | 16 => drop(tasks.spawn(model.mkdir(tag))),
        17 => drop(tasks.spawn(model.rename(tag, other))),
        18 => drop(tasks.spawn(model.rmdir(tag))),
        19 => drop(tasks.spawn(model.discard(tag))),
        20..=23 => drop(tasks.spawn(model.sync(tag, Options { force: random.random_range(0..2) > 0, ..Options::default() }))),
        24 => drop(tasks.spawn(model.sync(tag, Options { theirs: true, ..Options::default() }))),
        25 => drop(tasks.spawn(model.sync(tag, Options { rebase: true, ..Options::default() }))),
        26 => drop(tasks.spawn(model.sync(tag, Options { as_tag: Some(other.to_owned()), ..Options::default() }))),
        27 if tasks.is_empty() => {
            if let Some(at) = at {
                model.forget(at);
            }
        }
        _ => model.moves(tag),
    }
}

async fn sequence(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let model = Model::new().await;
    let mut tasks = JoinSet::new();
    for _ in 0..random.random_range(5..40) {
        match random.random_range(0..8) {
            0 | 1 => {
                let fault = if random.random_range(0..3) > 0 { Fault::StallAnswer } else { Fault::Stall };
                model.mount.registry.plan(HELD[random.random_range(0..HELD.len())], 0, 1, fault);
            }
            2 => {
                model.mount.registry.release();
                run(&mut tasks, random.random_range(0..2) > 0).await;
                model.mount.registry.stall_again();
            }
            _ => begin(&model, &mut random, &mut tasks),
        }
        run(&mut tasks, false).await;
    }
    model.mount.registry.mend();
    model.mount.registry.release();
    run(&mut tasks, true).await;
    model.check_live().await;
    if random.random_range(0..2) > 0 {
        model.mount.fs.close().await;
    }
    model.check_adopted().await;
}

#[tokio::test]
async fn no_order_of_registry_answers_loses_an_acknowledged_edit() {
    let sequences = if std::env::var_os("OCIFS_LONG").is_some() { 10_000 } else { 200 };
    let first: u64 = std::env::var("OCIFS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in first..first + sequences {
        // The seed is printed if the sequence fails.
        println!("sequence {seed}");
        sequence(seed).await;
    }
}
