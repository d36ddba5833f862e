//! A bounded map shared between threads, which evicts the least recently used entry. For results that can be obtained again, never for state that
//! must not be lost.

use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

/// A map of at most `LIMIT` entries (at least one). Locked for one operation at a time.
pub struct BoundedMap<K: Eq + Hash, V, const LIMIT: usize>(Mutex<LruCache<K, V>>);

impl<K: Eq + Hash, V, const LIMIT: usize> Default for BoundedMap<K, V, LIMIT> {
    fn default() -> Self {
        // A cache created with a capacity would allocate it at once.
        let mut entries = LruCache::unbounded();
        entries.resize(NonZeroUsize::new(LIMIT).unwrap_or(NonZeroUsize::MIN));
        Self(Mutex::new(entries))
    }
}

impl<K: Eq + Hash, V: Clone, const LIMIT: usize> BoundedMap<K, V, LIMIT> {
    /// The value, which becomes the most recently used.
    pub fn get(&self, key: &K) -> Option<V> {
        self.0.lock().get(key).cloned()
    }

    /// The value if it is still valid; an invalid one is removed.
    pub fn get_if(&self, key: &K, is_good: impl FnOnce(&V) -> bool) -> Option<V> {
        let mut entries = self.0.lock();
        match entries.get(key) {
            Some(value) if is_good(value) => Some(value.clone()),
            Some(_) => {
                entries.pop(key);
                None
            }
            None => None,
        }
    }

    /// Inserts a value, replacing the key's previous one.
    pub fn put(&self, key: K, value: V) {
        self.0.lock().put(key, value);
    }

    /// Removes all values.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// Removes and returns a value.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.0.lock().pop(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_entry_is_evicted() {
        let map = BoundedMap::<_, _, 2>::default();
        map.put("a", 1);
        map.put("b", 2);
        assert_eq!(map.get(&"a"), Some(1));
        map.put("c", 3);
        assert_eq!((map.get(&"a"), map.get(&"b"), map.get(&"c")), (Some(1), None, Some(3)));
        assert_eq!((map.get_if(&"c", |value| *value == 3), map.get_if(&"c", |_| false), map.get(&"c")), (Some(3), None, None));
        map.put("c", 4);
        assert_eq!((map.get(&"a"), map.remove(&"c"), map.get(&"c")), (Some(1), Some(4), None));
    }
}
