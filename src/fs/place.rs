//! The namespace above tags: its directories, windows and links, numbered while the kernel knows them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::inode::ROOT;
use super::names::Names;
use crate::oci::{Repository, Tag};

/// A file directly in an `.oci` directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowFile {
    /// `repo.json`
    Repository,
    /// `mount.json`
    Mount,
    /// `status.json`
    Status,
}

/// One object of the namespace. `None` for a path is the registry itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A registry, prefix or repository.
    Directory(Option<Repository>),
    /// Its `.oci`.
    Window(Option<Repository>),
    /// A file there.
    File(Option<Repository>, WindowFile),
    /// `.oci/repos`
    Repositories(Option<Repository>),
    /// `.oci/repos/NAME` where no tag hides the repository: a link to it.
    RepositoryLink(Repository),
    /// `.oci/tags`
    Tags(Repository),
    /// `.oci/tags/NAME` of a tag that is not upstream yet.
    NewTag(Repository, Tag),
    /// `fs` in it: a link to the tag.
    NewTagLink(Tag),
    /// `reference` in it.
    NewTagReference(Repository, Tag),
    /// A pasted reference: directory, name and what it links to.
    Pasted(Option<Repository>, String, String),
}

impl Place {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        match self {
            Self::Directory(_) | Self::Window(_) | Self::Repositories(_) | Self::Tags(_) | Self::NewTag(..) => true,
            Self::File(..) | Self::RepositoryLink(_) | Self::NewTagLink(_) | Self::NewTagReference(..) | Self::Pasted(..) => false,
        }
    }
}

struct Known {
    place: Arc<Place>,
    lookups: u64,
    /// When it was last seen to exist.
    settled: Option<Instant>,
    /// What a directory held when it was last listed.
    names: Option<Arc<Names>>,
}

struct Inner {
    next: u64,
    numbers: HashMap<Arc<Place>, u64>,
    known: HashMap<u64, Known>,
}

/// The places that the kernel knows. A number is never used again.
pub struct Places {
    /// Held for map operations only, never across an await.
    inner: Mutex<Inner>,
}

impl Places {
    /// The table with the root of the mount, which stays for ever.
    pub fn new(root: Place) -> Self {
        let root = Arc::new(root);
        let known = Known { place: Arc::clone(&root), lookups: 1, settled: None, names: None };
        let inner = Inner { next: ROOT + 1, numbers: HashMap::from([(root, ROOT)]), known: HashMap::from([(ROOT, known)]) };
        Self { inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a place, with one lookup more.
    pub fn name(&self, place: Place) -> u64 {
        let mut inner = self.inner();
        if let Some(number) = inner.numbers.get(&place).copied()
            && let Some(known) = inner.known.get_mut(&number)
        {
            known.lookups += 1;
            return number;
        }
        let number = inner.next;
        inner.next += 1;
        let place = Arc::new(place);
        inner.numbers.insert(Arc::clone(&place), number);
        inner.known.insert(number, Known { place, lookups: 1, settled: None, names: None });
        number
    }

    /// The place of a number.
    pub fn get(&self, number: u64) -> Option<Arc<Place>> {
        self.inner().known.get(&number).map(|known| Arc::clone(&known.place))
    }

    /// The number of a place that the kernel knows.
    pub fn number(&self, place: &Place) -> Option<u64> {
        self.inner().numbers.get(place).copied()
    }

    /// Makes the number of a place that of another one, which the kernel must not know.
    pub fn rename(&self, from: &Place, to: Place) {
        let mut inner = self.inner();
        let Some(number) = inner.numbers.remove(from) else { return };
        let to = Arc::new(to);
        inner.numbers.insert(Arc::clone(&to), number);
        if let Some(known) = inner.known.get_mut(&number) {
            *known = Known { place: to, lookups: known.lookups, settled: None, names: None };
        }
    }

    /// Takes lookups back; a place that nobody knows any more is dropped.
    pub fn forget(&self, number: u64, lookups: u64) {
        if number == ROOT {
            return;
        }
        let mut inner = self.inner();
        let Some(known) = inner.known.get_mut(&number) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups == 0
            && let Some(known) = inner.known.remove(&number)
        {
            inner.numbers.remove(&known.place);
        }
    }

    /// Notes that a place was just seen to exist.
    pub fn settle(&self, number: u64) {
        if let Some(known) = self.inner().known.get_mut(&number) {
            known.settled = Some(Instant::now());
        }
    }

    /// Whether a place was seen to exist not longer ago than this.
    pub fn is_settled(&self, place: &Place, within: Duration) -> bool {
        let inner = self.inner();
        let known = inner.numbers.get(place).and_then(|number| inner.known.get(number));
        known.and_then(|known| known.settled).is_some_and(|settled| settled.elapsed() < within)
    }

    /// Keeps what a directory holds, if the kernel knows it.
    pub fn keep_names(&self, place: &Place, names: &Arc<Names>) {
        let mut inner = self.inner();
        let number = inner.numbers.get(place).copied();
        if let Some(known) = number.and_then(|number| inner.known.get_mut(&number)) {
            known.names = Some(Arc::clone(names));
        }
    }

    /// What a directory held when it was listed, if that is not longer ago than this.
    pub fn names(&self, place: &Place, within: Duration) -> Option<Arc<Names>> {
        let inner = self.inner();
        let known = inner.numbers.get(place).and_then(|number| inner.known.get(number))?;
        known.names.as_ref().filter(|names| names.taken.elapsed() < within).cloned()
    }

    /// What a directory held when it was last listed, however long ago.
    pub fn last_names(&self, place: &Place) -> Option<Arc<Names>> {
        self.names(place, Duration::MAX)
    }

    /// Forgets what was seen to exist, so that the next lookup asks.
    pub fn unsettle(&self) {
        for known in self.inner().known.values_mut() {
            known.settled = None;
            known.names = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> Place {
        Place::Directory(Some(Repository::parse(name).unwrap()))
    }

    #[test]
    fn a_place_keeps_its_number_until_the_kernel_forgets_it() {
        let places = Places::new(Place::Directory(None));
        let first = places.name(directory("app"));
        assert_eq!(places.name(directory("app")), first);
        places.forget(first, 1);
        assert_eq!(places.number(&directory("app")), Some(first));
        places.forget(first, 1);
        assert_eq!(places.inner().known.len(), 1);
        assert_ne!(places.name(directory("app")), first);
    }

    #[test]
    fn the_root_is_never_forgotten() {
        let places = Places::new(Place::Directory(None));
        places.forget(ROOT, u64::MAX);
        assert_eq!(places.get(ROOT).as_deref(), Some(&Place::Directory(None)));
    }

    #[test]
    fn what_was_seen_to_exist_is_forgotten_on_demand() {
        let places = Places::new(Place::Directory(None));
        let number = places.name(directory("app"));
        assert!(!places.is_settled(&directory("app"), Duration::MAX));
        places.settle(number);
        assert!(places.is_settled(&directory("app"), Duration::MAX));
        places.unsettle();
        assert!(!places.is_settled(&directory("app"), Duration::MAX));
    }
}
