//! The views of a mount: numbered when first named, opened when first used, counted while the kernel knows them. Numbers are never reused.
//!
//! A listing names every tag of a repository, and hardly any of them is ever entered. Until more than its name is requested,
//! a tag costs only a number and a key here.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Key, Origin, View};
use crate::error::{Error, ErrorKind};
use crate::staging::Upper;

/// Numbers handed out are below this one: 23 bits. 0 stands for the namespace above tags.
pub const VIEW_LIMIT: u32 = 1 << 23;
/// The first number handed out. Node 0 of view 1 would be inode 1, the root of the mount.
pub const FIRST_VIEW: u32 = 2;

/// A view, opened or not.
enum Slot {
    /// Known by name only.
    Named(Arc<Key>),
    Open(Arc<View>),
}

struct TableEntry {
    slot: Slot,
    /// Lookups that the kernel has not forgotten.
    lookups: u64,
}

impl TableEntry {
    fn key(&self) -> Key {
        match &self.slot {
            Slot::Named(key) => key.as_ref().clone(),
            Slot::Open(view) => view.key(),
        }
    }

    fn opened(&self) -> Option<Arc<View>> {
        match &self.slot {
            Slot::Named(_) => None,
            Slot::Open(view) => Some(Arc::clone(view)),
        }
    }

    fn open(&mut self, number: u32) -> Option<Arc<View>> {
        if let Slot::Named(key) = &self.slot {
            self.slot = Slot::Open(Arc::new(View::new(number, key.as_ref().clone(), origin_of(key)?)));
        }
        self.opened()
    }
}

/// The origin of a view that follows from its key: that of a tag, of which listings name thousands.
fn origin_of(key: &Key) -> Option<Origin> {
    match key {
        Key::Tag(repository, tag) => Some(Origin::Tag(repository.clone(), tag.clone())),
        Key::Metadata(repository, tag) => Some(Origin::TagMetadata(repository.clone(), tag.clone())),
        Key::Digest(..) | Key::Odd(..) | Key::Member(..) => None,
    }
}

struct Inner {
    next: u32,
    entries: HashMap<u32, TableEntry>,
    /// The view that a new lookup of a key gets.
    current: HashMap<Arc<Key>, u32>,
}

impl Inner {
    fn number(&mut self, key: Key, slot: impl FnOnce(u32, &Arc<Key>) -> Slot) -> Result<u32, Error> {
        let number = self.next;
        if number >= VIEW_LIMIT {
            return Err(Error::new(
                ErrorKind::NoSpace,
                format!("this mount has numbered {} directories of tags and has no more numbers; mount again", VIEW_LIMIT - FIRST_VIEW),
            ));
        }
        self.next += 1;
        let key = Arc::new(key);
        self.entries.insert(number, TableEntry { slot: slot(number, &key), lookups: 1 });
        self.current.insert(key, number);
        Ok(number)
    }

    fn current(&mut self, key: &Key) -> Option<(u32, &mut TableEntry)> {
        let number = *self.current.get(key)?;
        self.entries.get_mut(&number).map(|entry| (number, entry))
    }

    fn number_of(&self, key: &Key) -> Option<u32> {
        self.current.get(key).copied()
    }
}

/// All views that the kernel knows.
pub struct Views {
    /// Held for map operations only, never across an await.
    inner: Mutex<Inner>,
}

impl Default for Views {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { next: FIRST_VIEW, entries: HashMap::new(), current: HashMap::new() }) }
    }
}

impl Views {
    /// Numbers the view of a key, unless it has a number, and counts one more lookup. Returns the number, and the view if it was opened:
    /// that of a tag is not opened for its name alone.
    ///
    /// # Errors
    /// NoSpace when all numbers of a mount's lifetime are used up.
    pub fn number(&self, key: Key, origin: impl FnOnce() -> Origin) -> Result<(u32, Option<Arc<View>>), Error> {
        let mut inner = self.inner.lock();
        if let Some((number, entry)) = inner.current(&key) {
            entry.lookups += 1;
            return Ok((number, entry.opened()));
        }
        let is_light = matches!(key, Key::Tag(..) | Key::Metadata(..));
        let number = inner.number(key, |number, key| {
            if is_light { Slot::Named(Arc::clone(key)) } else { Slot::Open(Arc::new(View::new(number, key.as_ref().clone(), origin()))) }
        })?;
        Ok((number, inner.entries.get(&number).and_then(TableEntry::opened)))
    }

    /// The view of a key, numbered now if necessary; counts one more lookup.
    ///
    /// # Errors
    /// As [`Views::number`].
    pub fn name(&self, key: Key, origin: impl FnOnce() -> Origin) -> Result<Arc<View>, Error> {
        let (number, opened) = self.number(key, origin)?;
        opened.or_else(|| self.get(number)).ok_or_else(|| Error::new(ErrorKind::Gone, "the directory is no longer known"))
    }

    /// The view of a number; opens it if it was only named.
    pub fn get(&self, number: u32) -> Option<Arc<View>> {
        self.inner.lock().entries.get_mut(&number)?.open(number)
    }

    /// Whether only the name of a view was used so far.
    pub fn is_only_named(&self, number: u32) -> bool {
        self.inner.lock().entries.get(&number).is_some_and(|entry| matches!(entry.slot, Slot::Named(_)))
    }

    /// All open views.
    pub fn all(&self) -> Vec<Arc<View>> {
        self.inner.lock().entries.values().filter_map(TableEntry::opened).collect()
    }

    /// The view that a new lookup of the key would get; opens it if it was only named.
    pub fn current(&self, key: &Key) -> Option<Arc<View>> {
        let mut inner = self.inner.lock();
        let (number, entry) = inner.current(key)?;
        entry.open(number)
    }

    /// The same, if it is open.
    pub fn opened(&self, key: &Key) -> Option<Arc<View>> {
        self.inner.lock().current(key).and_then(|(_, entry)| entry.opened())
    }

    /// Whether the kernel knows a view by this key.
    pub fn contains(&self, key: &Key) -> bool {
        self.inner.lock().current.contains_key(key)
    }

    /// A new view of a key, found by lookups from now on, with one lookup counted. It shows `given` once it is entered.
    ///
    /// # Errors
    /// As [`Views::number`].
    pub fn replace(&self, key: Key, origin: Origin, given: Option<Arc<Upper>>) -> Result<Arc<View>, Error> {
        let mut made = None;
        self.inner.lock().number(key, |number, key| {
            let view = Arc::new(View::new(number, key.as_ref().clone(), origin));
            if let Some(upper) = given {
                view.give(upper);
            }
            Slot::Open(Arc::clone(made.insert(view)))
        })?;
        made.ok_or_else(|| Error::new(ErrorKind::Other, "no view was made"))
    }

    /// Makes the next lookup of the view's key get a new view, if it would get this one now.
    pub fn retire(&self, number: u32) {
        let mut inner = self.inner.lock();
        let key = inner.entries.get(&number).map(TableEntry::key);
        if let Some(key) = key
            && inner.number_of(&key) == Some(number)
        {
            inner.current.remove(&key);
        }
    }

    /// Makes a view found by another key from now on. The view that had that key is no longer found.
    pub fn rename(&self, view: &View, key: Key) {
        let mut inner = self.inner.lock();
        let before = view.key();
        if inner.number_of(&before) == Some(view.number) {
            inner.current.remove(&before);
        }
        view.set_key(key.clone());
        inner.current.insert(Arc::new(key), view.number);
    }

    /// Counts one more lookup of a node of the view; `false` if the kernel has forgotten the view meanwhile.
    pub fn retain(&self, number: u32) -> bool {
        let mut inner = self.inner.lock();
        let entry = inner.entries.get_mut(&number);
        entry.is_some_and(|entry| {
            entry.lookups += 1;
            true
        })
    }

    /// Takes lookups back. Returns a view without lookups, to be dropped with no lock held: fully published
    /// edits are tidied away with it. Its number is never reused.
    pub fn forget(&self, number: u32, lookups: u64) -> Option<Arc<View>> {
        let mut inner = self.inner.lock();
        let entry = inner.entries.get_mut(&number)?;
        entry.lookups = entry.lookups.saturating_sub(lookups);
        if entry.lookups > 0 {
            return None;
        }
        let dropped = inner.entries.remove(&number)?;
        let key = dropped.key();
        if inner.number_of(&key) == Some(number) {
            inner.current.remove(&key);
        }
        dropped.opened()
    }

    /// Number of views that the kernel knows.
    pub fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    /// Whether the kernel knows no view.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Repository, Tag};

    fn name(views: &Views, tag: &str) -> Arc<View> {
        let (repository, tag) = (Repository::parse("app").unwrap(), Tag::parse(tag).unwrap());
        views.name(Key::Tag(repository.clone(), tag.clone()), || Origin::Tag(repository, tag)).unwrap()
    }

    #[test]
    fn a_forgotten_view_is_dropped_and_its_number_never_reused() {
        let views = Views::default();
        let first = name(&views, "v1");
        assert_eq!(name(&views, "v1").number(), first.number());
        views.forget(first.number(), 1);
        assert!(views.get(first.number()).is_some());
        views.forget(first.number(), 1);
        assert!(views.get(first.number()).is_none() && views.is_empty());
        assert_ne!(name(&views, "v1").number(), first.number());
    }

    #[test]
    fn a_retired_view_lives_on_beside_its_successor() {
        let views = Views::default();
        let old = name(&views, "v1");
        views.retire(old.number());
        let new = name(&views, "v1");
        assert_ne!(old.number(), new.number());
        assert!(views.get(old.number()).is_some());
        views.forget(old.number(), 1);
        assert_eq!(views.current(&new.key()).unwrap().number(), new.number());
    }

    #[test]
    fn a_view_with_another_key_is_found_by_that_key_alone() {
        let views = Views::default();
        let (moved, hidden) = (name(&views, "v1"), name(&views, "v2"));
        views.rename(&moved, hidden.key());
        assert_eq!(name(&views, "v2").number(), moved.number());
        assert_eq!(views.current(&hidden.key()).unwrap().number(), moved.number());
        assert_ne!(name(&views, "v1").number(), moved.number());
        assert!(views.get(hidden.number()).is_some(), "a shell inside stays");
    }

    #[test]
    fn a_listed_tag_becomes_a_view_only_when_used() {
        let views = Views::default();
        let (repository, tag) = (Repository::parse("app").unwrap(), Tag::parse("v1").unwrap());
        let key = Key::Tag(repository.clone(), tag.clone());
        let list = || views.number(key.clone(), || Origin::Tag(repository.clone(), tag.clone())).unwrap();
        let (number, view) = list();
        assert!(number >= FIRST_VIEW && view.is_none() && views.is_only_named(number));
        assert!(views.contains(&key) && views.opened(&key).is_none() && views.all().is_empty());
        assert_eq!(list().0, number, "a name keeps its number");
        let used = views.get(number).unwrap();
        assert_eq!((used.number(), used.key()), (number, key.clone()));
        assert!(Arc::ptr_eq(&used, &list().1.unwrap()) && !views.is_only_named(number));
        assert!(Arc::ptr_eq(&used, &views.opened(&key).unwrap()));
        assert!(views.forget(number, 2).is_none(), "three lookups were counted");
        assert!(views.forget(number, 1).is_some() && !views.contains(&key) && views.is_empty());
    }

    #[test]
    fn running_out_of_numbers_is_an_error_and_reuses_none() {
        let views = Views::default();
        views.inner.lock().next = VIEW_LIMIT - 1;
        assert_eq!(name(&views, "last").number(), VIEW_LIMIT - 1);
        let key = Key::Tag(Repository::parse("app").unwrap(), Tag::parse("more").unwrap());
        let error = views.name(key, || panic!("no number, no view")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace);
    }
}
