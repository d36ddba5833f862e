//! The files to write, in the order of their bytes in each blob, so that an archive is decoded once from start to end, however its names are sorted.
//! They take a few bytes each, and no directory stays open for them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::directory::{Directory, descend};
use crate::artifact::{Content, NodeId, Tree};
use crate::error::{Error, ErrorKind};

/// Most files a thread takes at once.
const SHARE: usize = 16;
/// How far the first bytes of these are apart at most, so that all threads read from the few spans that are in memory.
const NEAR: u64 = 1 << 20;

/// A file to write.
pub(super) struct Job {
    pub node: NodeId,
    pub directory: Arc<Directory>,
    pub name: Vec<u8>,
}

/// A directory that files are written to.
pub(super) struct Place {
    pub node: NodeId,
    /// Its path from the root.
    pub path: Arc<[u8]>,
    /// Created by this extraction, so all names in it are ours.
    pub made: bool,
}

/// A file.
#[derive(Clone, Copy)]
pub(super) struct File {
    /// The blob with its bytes, and the place of the first one.
    blob: u32,
    stream: u64,
    /// Its directory and its cookie there.
    place: u32,
    cookie: u64,
}

/// The files to write, and how many were taken.
#[derive(Default)]
pub(super) struct Files {
    places: Vec<Place>,
    files: Vec<File>,
    taken: AtomicUsize,
}

/// The directory in which a thread wrote its last file.
pub(super) type Current = Option<(u32, Arc<Directory>)>;

impl Files {
    /// Adds a directory; returns its number.
    pub fn directory(&mut self, place: Place) -> Result<u32, Error> {
        let number =
            u32::try_from(self.places.len()).map_err(|_| Error::new(ErrorKind::Unsupported, "the tree has too many directories"))?;
        self.places.push(place);
        Ok(number)
    }

    /// Adds a file.
    pub fn add(&mut self, place: u32, cookie: u64, content: Option<&Content>) {
        let first = content.and_then(|content| Some((content.blob, content.extents.first()?.stream)));
        let (blob, stream) = first.unwrap_or((u32::MAX, u64::MAX));
        self.files.push(File { blob, stream, place, cookie });
    }

    /// Sorts the files by the place of their first byte; those without bytes come last.
    pub fn sort(&mut self) {
        self.files.sort_unstable_by_key(|file| (file.blob, file.stream, file.cookie));
    }

    /// Takes a thread's share of what is left: several small files, or a large one.
    pub fn take(&self, threads: NonZeroUsize) -> Option<&[File]> {
        let share = |from: usize| {
            let left = self.files.get(from..)?;
            let first = left.first()?;
            let near = |file: &&File| file.blob == first.blob && file.stream - first.stream < NEAR;
            left.get(..left.iter().take((left.len() / threads).clamp(1, SHARE)).take_while(near).count())
        };
        let advance = |from| share(from).map(|share| from + share.len());
        let from = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance).ok()?;
        share(from)
    }

    /// The job of a file. Opens its directory, unless that is the current one.
    pub fn job(&self, tree: &Tree, root: &Directory, file: &File, current: &mut Current) -> Result<Job, Error> {
        let absent = || Error::new(ErrorKind::Other, "a file vanished from the tree");
        let (name, node) = name_of(&self.places, tree, *file).ok_or_else(absent)?;
        let directory = match current {
            Some((place, directory)) if *place == file.place => Arc::clone(directory),
            _ => {
                let place = self.places.get(file.place as usize).ok_or_else(absent)?;
                let directory = Arc::new(Directory { made: place.made, ..descend(root, &place.path)? });
                *current = Some((file.place, Arc::clone(&directory)));
                directory
            }
        };
        Ok(Job { node, directory, name: name.to_vec() })
    }
}

fn name_of<'a>(places: &[Place], tree: &'a Tree, file: File) -> Option<(&'a [u8], NodeId)> {
    let directory = places.get(file.place as usize)?;
    // A cookie is the position after its name.
    let child = tree.children(directory.node, file.cookie.saturating_sub(1)).next()?;
    (child.cookie == file.cookie).then_some((child.name, child.node))
}
