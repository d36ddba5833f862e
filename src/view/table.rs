//! The views of a mount: numbered when first named, counted while the kernel knows them, never numbered again.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, Key, Origin, View};
use crate::error::ErrorKind;
use crate::staging::Upper;

/// Numbers below this one are given out: 23 bits, 0 stands for the namespace above tags.
pub const VIEW_LIMIT: u32 = 1 << 23;

struct Inner {
    next: u32,
    views: HashMap<u32, Arc<View>>,
    /// The view that a new lookup of a key gets.
    current: HashMap<Key, u32>,
}

impl Inner {
    fn number(&mut self, key: Key, origin: impl FnOnce() -> Origin, given: Option<Arc<Upper>>) -> Result<Arc<View>, Error> {
        let number = self.next;
        if number >= VIEW_LIMIT {
            return Err(Error::new(
                ErrorKind::NoSpace,
                "this mount has shown 8,388,607 directories of tags and can number no more; mount again",
            ));
        }
        self.next += 1;
        let view = Arc::new(View::new(number, key.clone(), origin()));
        if let Some(upper) = given {
            view.give(upper);
        }
        view.lookups.store(1, Ordering::Relaxed);
        self.views.insert(number, Arc::clone(&view));
        self.current.insert(key, number);
        Ok(view)
    }
}

/// All views that the kernel knows.
pub struct Views {
    /// Held for map operations only, never across an await.
    inner: Mutex<Inner>,
}

impl Default for Views {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { next: 1, views: HashMap::new(), current: HashMap::new() }) }
    }
}

impl Views {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view of a key, numbered now if there is none, with one lookup more.
    ///
    /// # Errors
    /// NoSpace when all numbers of a mount's life are used up.
    pub fn name(&self, key: Key, origin: impl FnOnce() -> Origin) -> Result<Arc<View>, Error> {
        let mut inner = self.inner();
        if let Some(view) = inner.current.get(&key).and_then(|number| inner.views.get(number)) {
            view.lookups.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(view));
        }
        inner.number(key, origin, None)
    }

    /// The view of a number.
    pub fn get(&self, number: u32) -> Option<Arc<View>> {
        self.inner().views.get(&number).cloned()
    }

    /// All views that the kernel knows.
    pub fn all(&self) -> Vec<Arc<View>> {
        self.inner().views.values().map(Arc::clone).collect()
    }

    /// The view that a new lookup of the key would get.
    pub fn current(&self, key: &Key) -> Option<Arc<View>> {
        let inner = self.inner();
        inner.current.get(key).and_then(|number| inner.views.get(number)).cloned()
    }

    /// A new view of a key, which a lookup finds from now on, with one lookup. It shows what is given once it is entered.
    ///
    /// # Errors
    /// As [`Views::name`].
    pub fn replace(&self, key: Key, origin: Origin, given: Option<Arc<Upper>>) -> Result<Arc<View>, Error> {
        self.inner().number(key, || origin, given)
    }

    /// Makes the next lookup of the view's key get a new view, if this one is still what it would get.
    pub fn retire(&self, number: u32) {
        let mut inner = self.inner();
        let key = inner.views.get(&number).map(|view| view.key());
        if let Some(key) = key
            && inner.current.get(&key) == Some(&number)
        {
            inner.current.remove(&key);
        }
    }

    /// Finds a view by another key from now on. What had that key before is found no more.
    pub fn rename(&self, view: &View, key: Key) {
        let mut inner = self.inner();
        let before = view.key();
        if inner.current.get(&before) == Some(&view.number) {
            inner.current.remove(&before);
        }
        view.set_key(key.clone());
        inner.current.insert(key, view.number);
    }

    /// Counts one lookup more of a node of the view; `false` if the kernel has forgotten the view meanwhile.
    pub fn retain(&self, number: u32) -> bool {
        let inner = self.inner();
        let view = inner.views.get(&number);
        view.is_some_and(|view| {
            view.lookups.fetch_add(1, Ordering::Relaxed);
            true
        })
    }

    /// Takes lookups back. A view that nobody knows any more is handed out, to be dropped where no lock is held: edits that are all
    /// published are tidied away with it. Its number is never used again.
    pub fn forget(&self, number: u32, lookups: u64) -> Option<Arc<View>> {
        let mut inner = self.inner();
        let view = inner.views.get(&number)?;
        let before = view.lookups.load(Ordering::Relaxed);
        view.lookups.store(before.saturating_sub(lookups), Ordering::Relaxed);
        if before > lookups {
            return None;
        }
        let dropped = inner.views.remove(&number)?;
        let key = dropped.key();
        if inner.current.get(&key) == Some(&number) {
            inner.current.remove(&key);
        }
        Some(dropped)
    }

    /// How many views the kernel knows.
    pub fn len(&self) -> usize {
        self.inner().views.len()
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
    fn a_view_that_the_kernel_forgot_is_dropped_and_its_number_never_used_again() {
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
        assert!(views.get(hidden.number()).is_some(), "whoever is inside stays");
    }

    #[test]
    fn numbers_that_run_out_are_an_error_and_no_view_is_reused() {
        let views = Views::default();
        views.inner().next = VIEW_LIMIT - 1;
        assert_eq!(name(&views, "last").number(), VIEW_LIMIT - 1);
        let key = Key::Tag(Repository::parse("app").unwrap(), Tag::parse("more").unwrap());
        let error = views.name(key, || panic!("no number, no view")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace);
    }
}
