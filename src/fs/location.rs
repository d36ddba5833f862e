//! The namespace above tags: its directories, windows and links, numbered while the kernel knows them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

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
pub enum Location {
    /// A registry, prefix or repository.
    Directory(Option<Repository>),
    /// Its `.oci`.
    Window(Option<Repository>),
    /// A file there.
    File(Option<Repository>, WindowFile),
    /// `.oci/repos`
    Repositories(Option<Repository>),
    /// `.oci/repos/NAME` if no tag hides the repository: a link to it.
    RepositoryLink(Repository),
    /// `.oci/tags`
    Tags(Repository),
    /// `.oci/tags/NAME` of a tag that does not exist upstream yet.
    NewTag(Repository, Tag),
    /// `fs` in it: a link to the tag.
    NewTagLink(Tag),
    /// `reference` in it.
    NewTagReference(Repository, Tag),
    /// A pasted reference: directory, name and what it links to.
    Pasted(Option<Repository>, String, String),
}

impl Location {
    /// Whether it is a file whose bytes are generated when it is read.
    pub fn is_made_file(&self) -> bool {
        matches!(self, Self::File(..) | Self::NewTagReference(..))
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        match self {
            Self::Directory(_) | Self::Window(_) | Self::Repositories(_) | Self::Tags(_) | Self::NewTag(..) => true,
            Self::File(..) | Self::RepositoryLink(_) | Self::NewTagLink(_) | Self::NewTagReference(..) | Self::Pasted(..) => false,
        }
    }
}

struct Numbered {
    location: Arc<Location>,
    lookups: u64,
    /// When it was last seen to exist.
    confirmed: Option<Instant>,
    /// The names from the last listing of a directory.
    names: Option<Arc<Names>>,
}

struct Inner {
    next: u64,
    numbers: HashMap<Arc<Location>, u64>,
    numbered: HashMap<u64, Numbered>,
}

/// The locations that the kernel knows. Numbers are never reused.
pub struct Locations {
    /// Held for map operations only, never across an await.
    inner: Mutex<Inner>,
}

impl Locations {
    /// The table with the root of the mount, which stays.
    pub fn new(root: Location) -> Self {
        let root = Arc::new(root);
        let numbered = Numbered { location: Arc::clone(&root), lookups: 1, confirmed: None, names: None };
        let inner = Inner { next: ROOT + 1, numbers: HashMap::from([(root, ROOT)]), numbered: HashMap::from([(ROOT, numbered)]) };
        Self { inner: Mutex::new(inner) }
    }

    /// The number of a location, with one more lookup counted.
    pub fn name(&self, location: Location) -> u64 {
        let mut inner = self.inner.lock();
        if let Some(number) = inner.numbers.get(&location).copied()
            && let Some(numbered) = inner.numbered.get_mut(&number)
        {
            numbered.lookups += 1;
            return number;
        }
        let number = inner.next;
        inner.next += 1;
        let location = Arc::new(location);
        inner.numbers.insert(Arc::clone(&location), number);
        inner.numbered.insert(number, Numbered { location, lookups: 1, confirmed: None, names: None });
        number
    }

    /// The location of a number.
    pub fn get(&self, number: u64) -> Option<Arc<Location>> {
        self.inner.lock().numbered.get(&number).map(|numbered| Arc::clone(&numbered.location))
    }

    /// The number of a location that the kernel knows.
    pub fn number(&self, location: &Location) -> Option<u64> {
        self.inner.lock().numbers.get(location).copied()
    }

    /// Gives the number of a location to another one, which the kernel must not know.
    pub fn rename(&self, from: &Location, to: Location) {
        let mut inner = self.inner.lock();
        let Some(number) = inner.numbers.remove(from) else { return };
        let to = Arc::new(to);
        inner.numbers.insert(Arc::clone(&to), number);
        if let Some(numbered) = inner.numbered.get_mut(&number) {
            *numbered = Numbered { location: to, lookups: numbered.lookups, confirmed: None, names: None };
        }
    }

    /// Takes lookups back; a location without lookups is dropped.
    pub fn forget(&self, number: u64, lookups: u64) {
        if number == ROOT {
            return;
        }
        let mut inner = self.inner.lock();
        let Some(numbered) = inner.numbered.get_mut(&number) else { return };
        numbered.lookups = numbered.lookups.saturating_sub(lookups);
        if numbered.lookups == 0
            && let Some(numbered) = inner.numbered.remove(&number)
        {
            inner.numbers.remove(&numbered.location);
        }
    }

    /// Notes that a location was just seen to exist.
    pub fn confirm(&self, number: u64) {
        if let Some(numbered) = self.inner.lock().numbered.get_mut(&number) {
            numbered.confirmed = Some(Instant::now());
        }
    }

    /// Whether a location was seen to exist within this time.
    pub fn is_confirmed(&self, location: &Location, within: Duration) -> bool {
        let inner = self.inner.lock();
        let numbered = inner.numbers.get(location).and_then(|number| inner.numbered.get(number));
        numbered.and_then(|numbered| numbered.confirmed).is_some_and(|confirmed| confirmed.elapsed() < within)
    }

    /// Keeps the names of a directory, if the kernel knows it.
    pub fn keep_names(&self, location: &Location, names: &Arc<Names>) {
        let mut inner = self.inner.lock();
        let number = inner.numbers.get(location).copied();
        if let Some(numbered) = number.and_then(|number| inner.numbered.get_mut(&number)) {
            numbered.names = Some(Arc::clone(names));
        }
    }

    /// The names from the last listing of a directory, if not older than this.
    pub fn names(&self, location: &Location, within: Duration) -> Option<Arc<Names>> {
        let inner = self.inner.lock();
        let numbered = inner.numbers.get(location).and_then(|number| inner.numbered.get(number))?;
        numbered.names.as_ref().filter(|names| names.taken.elapsed() < within).cloned()
    }

    /// The names from the last listing of a directory, however old.
    pub fn last_names(&self, location: &Location) -> Option<Arc<Names>> {
        self.names(location, Duration::MAX)
    }

    /// Forgets which locations were seen to exist, so that the next lookup makes a request.
    pub fn unconfirm(&self) {
        for numbered in self.inner.lock().numbered.values_mut() {
            numbered.confirmed = None;
            numbered.names = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> Location {
        Location::Directory(Some(Repository::parse(name).unwrap()))
    }

    #[test]
    fn a_location_keeps_its_inode_until_the_kernel_forgets_it() {
        let locations = Locations::new(Location::Directory(None));
        let first = locations.name(directory("app"));
        assert_eq!(locations.name(directory("app")), first);
        locations.forget(first, 1);
        assert_eq!(locations.number(&directory("app")), Some(first));
        locations.forget(first, 1);
        assert_eq!(locations.inner.lock().numbered.len(), 1);
        assert_ne!(locations.name(directory("app")), first);
    }

    #[test]
    fn the_root_is_never_forgotten() {
        let locations = Locations::new(Location::Directory(None));
        locations.forget(ROOT, u64::MAX);
        assert_eq!(locations.get(ROOT).as_deref(), Some(&Location::Directory(None)));
    }

    #[test]
    fn known_names_are_forgotten_on_request() {
        let locations = Locations::new(Location::Directory(None));
        let number = locations.name(directory("app"));
        assert!(!locations.is_confirmed(&directory("app"), Duration::MAX));
        locations.confirm(number);
        assert!(locations.is_confirmed(&directory("app"), Duration::MAX));
        locations.unconfirm();
        assert!(!locations.is_confirmed(&directory("app"), Duration::MAX));
    }
}
