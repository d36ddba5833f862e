//! Sets of many paths.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

/// A path in few bytes, for large sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::publish) struct PathKey([u8; 16]);

impl PathKey {
    pub fn of(path: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(path).into();
        let mut key = [0; 16];
        key.iter_mut().zip(digest).for_each(|(place, byte)| *place = byte);
        Self(key)
    }
}

/// A set of paths.
#[derive(Clone, Debug, Default)]
pub(in crate::publish) struct PathSet {
    keys: HashSet<PathKey>,
    /// A bit for each length of a path, those of 63 and more together: most paths are not even hashed if the set has few.
    lengths: u64,
}

fn length(path: &[u8]) -> u64 {
    1 << path.len().min(63)
}

impl PathSet {
    pub fn insert(&mut self, path: &[u8]) -> bool {
        self.lengths |= length(path);
        self.keys.insert(PathKey::of(path))
    }

    pub fn extend<'path>(&mut self, paths: impl IntoIterator<Item = &'path Vec<u8>>) {
        for path in paths {
            self.insert(path);
        }
    }

    pub fn remove(&mut self, path: &[u8]) {
        self.keys.remove(&PathKey::of(path));
    }

    pub fn contains(&self, path: &[u8]) -> bool {
        self.lengths & length(path) != 0 && self.keys.contains(&PathKey::of(path))
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
