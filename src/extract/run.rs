//! The passes over a tree: directories and nodes without bytes; then files, in the order of their bytes; then further names of hard-linked files;
//! then modes and times of directories, bottom up. Files are written by several threads, everything else in order by one.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::clash::Trial;
use super::directory::{Directory, Target, descend};
use super::files::{Files, Job, Place};
use super::notes::{Notes, Summary};
use super::of_disk;
use super::place::{Placed, place};
use super::walk::{Step, walk};
use super::{Options, Source, Tally, survey};
use crate::artifact::{Kind, Node, NodeId};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::sys::{entry, process};

/// The first name of a hard-linked node: its directory and its cookie there.
struct First {
    /// Path of the directory.
    directory: Arc<[u8]>,
    name: Box<[u8]>,
}

/// Results of the first pass.
#[derive(Default)]
struct Seen {
    /// The first names of nodes, if any node has several.
    firsts: HashMap<NodeId, First>,
    /// Existing directories to keep as they are.
    found: HashSet<NodeId>,
}

/// State shared by all threads.
pub(super) struct Work<'a> {
    pub source: &'a Source,
    options: &'a Options,
    pub tally: &'a Tally,
    pub notes: &'a Notes,
    /// The umask.
    pub umask: u32,
    runtime: Handle,
    stop: watch::Receiver<bool>,
    /// Something failed: start nothing more.
    failed: AtomicBool,
    /// The first failure.
    failure: Mutex<Option<Error>>,
    /// Nodes whose first name was kept for something else.
    without_first: Mutex<HashSet<NodeId>>,
}

/// On drop, tells the threads to stop and waits for them.
struct Threads {
    stop: watch::Sender<bool>,
    ended: Receiver<()>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        // Nothing is ever sent; this returns when the other side is gone.
        let _ = self.ended.recv();
    }
}

/// Extracts the selected names of an artifact. If the future is dropped, work in progress is abandoned first: no partial file then has a name,
/// and nothing else is left behind.
///
/// # Errors
/// The first error of the artifact's bytes or the disk. Complete files stay, and another run completes the rest.
pub async fn extract(source: Source, target: &Target, options: Options, tally: Arc<Tally>) -> Result<Summary, Error> {
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = sync_channel::<()>(0);
    let _threads = Threads { stop, ended };
    let (root, runtime) = (Arc::clone(&target.directory), Handle::current());
    blocking(move || {
        let _end = end;
        run(&source, &root, &options, &tally, runtime, stopped)
    })
    .await
}

fn run(
    source: &Source,
    root: &Arc<Directory>,
    options: &Options,
    tally: &Tally,
    runtime: Handle,
    stop: watch::Receiver<bool>,
) -> Result<Summary, Error> {
    let bytes = survey(&source.artifact, &options.selection).bytes;
    tally.total.fetch_add(bytes, Ordering::Relaxed);
    let umask = process::umask().map_err(|error| of_disk("read the umask", error))?;
    let notes = Notes::default();
    let (failed, failure) = (AtomicBool::new(false), Mutex::default());
    let work = Work { source, options, tally, notes: &notes, umask, runtime, stop, failed, failure, without_first: Mutex::default() };
    let Seen { firsts, found } = work.contents(root)?;
    if !firsts.is_empty() {
        work.links(root, firsts)?;
    }
    work.directories(root, &found)?;
    Ok(notes.summary())
}

impl Work<'_> {
    pub fn keep(&self) -> bool {
        self.options.keep
    }

    pub fn same_owner(&self) -> bool {
        self.options.same_owner
    }

    /// Whether the extraction was abandoned.
    pub fn is_stopped(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || *self.stop.borrow()
    }

    /// # Errors
    /// The extraction was abandoned.
    pub fn check_stopped(&self) -> Result<(), Error> {
        if self.is_stopped() { Err(interrupted()) } else { Ok(()) }
    }

    /// Waits for bytes, unless the extraction is abandoned.
    pub fn wait<T, E: Into<Error>>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, Error> {
        let mut stop = self.stop.clone();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => Err(interrupted()),
                result = future => result.map_err(Into::into),
            }
        })
    }

    pub fn node(&self, id: NodeId) -> Result<Node, Error> {
        self.source.artifact.tree.node(id).ok_or_else(|| Error::new(ErrorKind::Other, format!("the tree has no node {id}")))
    }

    /// Notes that an existing entry was kept in place of a node.
    pub fn note_kept(&self, id: NodeId, node: &Node, shown: &dyn Fn() -> String) {
        if node.links > 1 {
            self.without_first.lock().insert(id);
        }
        self.notes.note(|summary| summary.kept.add(shown));
    }

    fn fail(&self, error: Error) {
        let mut failure = self.failure.lock();
        failure.get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// The first two passes.
    fn contents(&self, root: &Arc<Directory>) -> Result<Seen, Error> {
        let (mut files, seen) =
            Contents { work: self, levels: Vec::new(), files: Files::default(), seen: Seen::default(), linked: false }.walk(root)?;
        files.sort();
        std::thread::scope(|scope| {
            for _ in 0..self.options.concurrency.get() {
                scope.spawn(|| self.write_files(root, &files));
            }
        });
        match self.failure.lock().take() {
            Some(failure) => Err(failure),
            None => Ok(seen),
        }
    }

    /// Writes files until none are left or something failed.
    fn write_files(&self, root: &Arc<Directory>, files: &Files) {
        let mut current = None;
        while let Some(taken) = files.take(self.options.concurrency) {
            for file in taken {
                if self.is_stopped() {
                    return;
                }
                let written = files.job(&self.source.artifact.tree, root, file, &mut current).and_then(|job| self.file(&job));
                if let Err(error) = written {
                    self.fail(error);
                }
            }
        }
    }

    /// The third pass: further names of hard-linked nodes.
    fn links(&self, root: &Arc<Directory>, mut firsts: HashMap<NodeId, First>) -> Result<(), Error> {
        let mut levels = vec![Arc::clone(root)];
        let mut last: Option<(Arc<[u8]>, Arc<Directory>)> = None;
        walk(&self.source.artifact.tree, &self.options.selection, &mut |step| {
            let Some(directory) = self.follow(&mut levels, step)? else { return Ok(()) };
            let Step::Entry { node, path, name, .. } = step else { return Ok(()) };
            let Some(first) = firsts.get(&node) else { return Ok(()) };
            let parent = path.strip_suffix(name).unwrap_or_default();
            let parent = parent.strip_suffix(b"/").unwrap_or(parent);
            if parent == &*first.directory && name == &*first.name {
                return Ok(());
            }
            if self.without_first.lock().remove(&node) {
                // The node was kept under its first name, so this name becomes the first.
                firsts.insert(node, First { directory: Arc::from(parent), name: name.into() });
                return self.node(node).and_then(|said| match said.kind {
                    Kind::File => self.file(&Job { node, directory, name: name.to_vec() }),
                    _ => self.without_bytes(&directory, name, node, &said),
                });
            }
            let from = match &last {
                Some((path, directory)) if *path == first.directory => Arc::clone(directory),
                _ => Arc::new(descend(root, &first.directory)?),
            };
            last = Some((Arc::clone(&first.directory), Arc::clone(&from)));
            self.link(&from, &first.name, &directory, name, node)
        })
    }

    fn link(&self, from: &Directory, first: &[u8], directory: &Directory, name: &[u8], node: NodeId) -> Result<(), Error> {
        let (first, name) = (OsStr::from_bytes(first), OsStr::from_bytes(name));
        let shown = directory.join(name);
        let failed = |error: io::Error| of_disk(format_args!("link {}", shown.display()), error);
        let is_one = entry::status(&from.file, first).map_err(failed)?.map(|status| status.identity)
            == entry::status(&directory.file, name).map_err(failed)?.map(|status| status.identity);
        let make = |name: &OsStr| entry::link((&from.file, first), &directory.file, name);
        let as_it_was = if self.keep() { Placed::Kept } else { Placed::New };
        let placed = if is_one { as_it_was } else { place(&directory.file, name, self.keep(), &make).map_err(failed)? };
        let node = self.node(node)?;
        self.notes.note(|summary| match placed {
            Placed::Kept => summary.kept.add(|| shown.display().to_string()),
            Placed::New if node.kind == Kind::File => {
                summary.files += 1;
                self.tally.done.fetch_add(node.size, Ordering::Relaxed);
            }
            Placed::New => summary.others += 1,
        });
        Ok(())
    }

    /// The last pass: attributes of directories.
    fn directories(&self, root: &Arc<Directory>, found: &HashSet<NodeId>) -> Result<(), Error> {
        let mut levels = vec![Arc::clone(root)];
        walk(&self.source.artifact.tree, &self.options.selection, &mut |step| {
            let directory = levels.last().cloned();
            self.follow(&mut levels, step)?;
            let (Step::Leave { node, path }, Some(directory)) = (step, directory) else { return Ok(()) };
            // The directory named by the user keeps its attributes.
            if (path.is_empty() && !directory.made) || found.contains(&node) {
                return Ok(());
            }
            let shown = || directory.path.display().to_string();
            let mut said = self.node(node)?;
            if path.is_empty() && !self.same_owner() {
                // The next pull must be able to enter it.
                said.metadata.mode = said.metadata.mode.map(|mode| mode | 0o700);
            }
            let described = self.describe_file(&directory.file, node, &said, &shown);
            described.map_err(|error| of_disk(format_args!("set the mode or time of {}", shown()), error))
        })
    }

    /// Follows a walk through existing directories. Returns the current one.
    fn follow(&self, levels: &mut Vec<Arc<Directory>>, step: Step<'_>) -> Result<Option<Arc<Directory>>, Error> {
        self.check_stopped()?;
        match step {
            Step::Enter { name, .. } => {
                let current = levels.last().ok_or_else(astray)?;
                levels.push(Arc::new(current.reenter(name)?));
            }
            Step::Leave { .. } => drop(levels.pop()),
            Step::Entry { .. } => {}
        }
        Ok(levels.last().cloned())
    }
}

/// The first pass in progress.
struct Contents<'a> {
    work: &'a Work<'a>,
    levels: Vec<Level>,
    files: Files,
    seen: Seen,
    /// Some node has several names.
    linked: bool,
}

/// A directory on the current path.
struct Level {
    directory: Arc<Directory>,
    /// Its path in the tree.
    path: Arc<[u8]>,
    /// Set if the file system treats different names as the same.
    trial: Option<Trial>,
    node: NodeId,
    /// Its number among the directories of files, if it has any so far.
    place: Option<u32>,
}

impl Contents<'_> {
    fn walk(mut self, root: &Arc<Directory>) -> Result<(Files, Seen), Error> {
        self.push(Arc::clone(root), 0, b"")?;
        walk(&self.work.source.artifact.tree, &self.work.options.selection, &mut |step| {
            self.work.check_stopped()?;
            match step {
                Step::Enter { node, path, name } => self.enter(node, path, name),
                Step::Entry { node, name, cookie, .. } => self.entry(node, name, cookie),
                Step::Leave { .. } => {
                    self.levels.pop();
                    Ok(())
                }
            }
        })?;
        if !self.linked {
            self.seen.firsts.clear();
        }
        Ok((self.files, self.seen))
    }

    fn push(&mut self, directory: Arc<Directory>, node: NodeId, path: &[u8]) -> Result<(), Error> {
        let trial = match self.levels.last() {
            // A new directory behaves like its parent.
            Some(above) if directory.made && above.trial.is_none() => None,
            _ => Trial::of_folding(&directory).map_err(|error| of_disk(format_args!("write to {}", directory.path.display()), error))?,
        };
        self.levels.push(Level { directory, path: Arc::from(path), trial, node, place: None });
        Ok(())
    }

    /// The current directory, for another name in it.
    fn current(&mut self, name: &[u8]) -> Result<&mut Level, Error> {
        let level = self.levels.last_mut().ok_or_else(astray)?;
        if let Some(trial) = &mut level.trial {
            let place = level.directory.path.display();
            let clash = trial.clash(name).map_err(|error| of_disk(format_args!("write to {place}"), error))?;
            if let Some(other) = clash {
                let (other, name) = (String::from_utf8_lossy(&other), String::from_utf8_lossy(name));
                let message = format!(
                    "{other} and {name} would be the same file in {place}, which ignores case or Unicode form; pull to another file system"
                );
                return Err(Error::new(ErrorKind::Exists, message));
            }
        }
        Ok(level)
    }

    fn enter(&mut self, node: NodeId, path: &[u8], name: &[u8]) -> Result<(), Error> {
        let (mode, keep) = (self.work.mode(&self.work.node(node)?) & 0o777, self.work.keep());
        let entered = self.current(name)?.directory.enter(name, mode, keep)?;
        if keep && !entered.made {
            self.seen.found.insert(node);
        }
        self.push(Arc::new(entered), node, path)
    }

    fn entry(&mut self, id: NodeId, name: &[u8], cookie: u64) -> Result<(), Error> {
        let node = self.work.node(id)?;
        let Level { directory, path, .. } = self.current(name)?;
        let (directory, path) = (Arc::clone(directory), Arc::clone(path));
        if node.links > 1 {
            if self.seen.firsts.contains_key(&id) {
                self.linked = true;
                return Ok(());
            }
            self.seen.firsts.insert(id, First { directory: Arc::clone(&path), name: name.into() });
        }
        if node.kind != Kind::File {
            return self.work.without_bytes(&directory, name, id, &node);
        }
        let level = self.levels.last_mut().ok_or_else(astray)?;
        let place = match level.place {
            Some(place) => place,
            None => self.files.directory(Place { node: level.node, path, made: directory.made })?,
        };
        level.place = Some(place);
        self.files.add(place, cookie, self.work.source.artifact.tree.content(id).as_ref());
        Ok(())
    }
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "interrupted; complete files are kept")
}

fn astray() -> Error {
    Error::new(ErrorKind::Other, "a walk left the tree")
}
