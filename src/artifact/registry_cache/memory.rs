//! The in-memory part of the registry cache, with the time of each answer. Plain data; never waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outage::Outage;
use crate::oci::{Descriptor, Digest, Repository, Tag};

/// Most negative answers and referrers lists kept.
const KEPT: usize = 10_000;

/// A value with the time of the answer; `None` if it came from disk or was expired.
#[derive(Clone)]
pub(super) struct Seen<T> {
    pub value: T,
    pub checked: Option<Instant>,
}

/// The cached state of a tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TagAnswer {
    /// Reported recently.
    Fresh(Digest),
    /// Reported earlier.
    Stale(Digest),
    /// The registry recently said that it does not exist.
    Absent,
    /// Unknown.
    Unknown,
}

/// One repository.
#[derive(Default)]
pub(super) struct Tags {
    /// Whether the stored tags were loaded.
    pub loaded: bool,
    pub tags: BTreeMap<Tag, Seen<Digest>>,
    /// Tags that turned out not to exist, so that storing removes them.
    pub gone: BTreeSet<Tag>,
    pub list: Option<Seen<Listing>>,
}

/// The whole cache.
#[derive(Default)]
pub(super) struct Memory {
    repositories: HashMap<Repository, Tags>,
    absent_tags: HashMap<(Repository, Tag), Instant>,
    absent_repositories: HashMap<Repository, Instant>,
    referrers: HashMap<(Repository, Digest), Seen<Arc<[Descriptor]>>>,
    /// How often this program itself moved each tag, and (without a tag) any tag of each repository: an answer to an earlier request is older than such a
    /// write.
    writes: HashMap<(Repository, Option<Tag>), u64>,
    catalog: Option<Seen<Listing>>,
    /// Repositories that exist but are not in the catalog.
    learned: BTreeSet<Repository>,
    pub learned_loaded: bool,
    /// The catalog and all other known repositories, merged at the first use after a change: every lookup needs it.
    merged: Option<Arc<[String]>>,
    pub(super) outage: Outage,
}

impl Memory {
    /// Repositories with any tag seen by this process.
    pub fn seen_repositories(&self) -> Vec<Repository> {
        self.repositories.keys().cloned().collect()
    }

    #[cfg(test)]
    pub fn repositories_in_memory(&self) -> usize {
        self.repositories.len()
    }

    pub fn repository(&mut self, repository: &Repository) -> &mut Tags {
        if !self.repositories.contains_key(repository) {
            self.repositories.insert(repository.clone(), Tags::default());
        }
        self.repositories.entry(repository.clone()).or_default()
    }

    pub fn tag(&self, repository: &Repository, tag: &Tag, lifetime: Duration) -> TagAnswer {
        if let Some(seen) = self.repositories.get(repository).and_then(|tags| tags.tags.get(tag)) {
            return if is_fresh(seen.checked, lifetime) { TagAnswer::Fresh(seen.value) } else { TagAnswer::Stale(seen.value) };
        }
        let absent = self.absent_tags.get(&(repository.clone(), tag.clone()));
        if is_fresh(absent.copied(), NEGATIVE) { TagAnswer::Absent } else { TagAnswer::Unknown }
    }

    /// When the registry last reported a tag's digest.
    pub fn tag_checked(&self, repository: &Repository, tag: &Tag) -> Option<Instant> {
        self.repositories.get(repository)?.tags.get(tag)?.checked
    }

    pub fn learn_tag(&mut self, repository: &Repository, tag: &Tag, digest: Digest) {
        self.absent_tags.remove(&(repository.clone(), tag.clone()));
        let tags = self.repository(repository);
        tags.gone.remove(tag);
        tags.tags.insert(tag.clone(), Seen { value: digest, checked: Some(Instant::now()) });
    }

    /// Records that a tag does not exist; returns whether one was known.
    pub fn forget_tag(&mut self, repository: &Repository, tag: &Tag) -> bool {
        bound(&mut self.absent_tags);
        self.absent_tags.insert((repository.clone(), tag.clone()), Instant::now());
        let tags = self.repository(repository);
        let known = tags.tags.remove(tag).is_some();
        if known {
            tags.gone.insert(tag.clone());
        }
        known
    }

    /// Number of writes by this program to a tag, or to any tag of a repository.
    pub fn writes(&self, repository: &Repository, tag: Option<&Tag>) -> u64 {
        self.writes.get(&(repository.clone(), tag.cloned())).copied().unwrap_or(0)
    }

    /// Records a write by this program to a tag; `None` means deleted. Returns whether the catalog has changed.
    pub fn write_tag(&mut self, repository: &Repository, tag: &Tag, digest: Option<Digest>) -> bool {
        for key in [Some(tag.clone()), None] {
            *self.writes.entry((repository.clone(), key)).or_default() += 1;
        }
        match digest {
            Some(digest) => self.learn_tag(repository, tag, digest),
            None => {
                self.forget_tag(repository, tag);
                // It may be stored without having been loaded.
                self.repository(repository).gone.insert(tag.clone());
            }
        }
        if tag.is_bookkeeping() {
            return false;
        }
        if let Some(seen) = &mut self.repository(repository).list {
            seen.value.names = with_name(&seen.value.names, tag.as_str(), digest.is_some());
        }
        if digest.is_some()
            && let Some(seen) = &mut self.catalog
            && !seen.value.has(repository.as_str())
        {
            seen.value.names = with_name(&seen.value.names, repository.as_str(), true);
            self.merged = None;
            return true;
        }
        false
    }

    /// The last list of repositories.
    pub fn catalog(&self) -> Option<&Seen<Listing>> {
        self.catalog.as_ref()
    }

    pub fn set_catalog(&mut self, list: Listing, checked: Option<Instant>) {
        self.catalog = Some(Seen { value: list, checked });
        self.merged = None;
    }

    /// Repositories that exist but were not in the catalog when they were found.
    pub fn learned(&self) -> &BTreeSet<Repository> {
        &self.learned
    }

    pub fn load_learned(&mut self, learned: impl Iterator<Item = Repository>) {
        self.learned.extend(learned);
        self.merged = None;
    }

    /// The names of all known repositories: of the catalog, learned ones, and those in `named`, which must always be the same. Shared until
    /// one of them changes.
    pub fn known_repositories(&mut self, named: &[Repository]) -> Arc<[String]> {
        let (catalog, learned) = (&self.catalog, &self.learned);
        let merge = || {
            let listed = catalog.iter().flat_map(|seen| seen.value.names.iter().map(String::as_str));
            let names: BTreeSet<&str> = listed.chain(named.iter().chain(learned).map(Repository::as_str)).collect();
            names.into_iter().map(str::to_owned).collect()
        };
        Arc::clone(self.merged.get_or_insert_with(merge))
    }

    /// Expires the referrers of a digest.
    pub fn outdate_referrers(&mut self, key: &(Repository, Digest)) {
        if let Some(seen) = self.referrers.get_mut(key) {
            seen.checked = None;
        }
    }

    pub fn is_absent(&self, repository: &Repository) -> bool {
        is_fresh(self.absent_repositories.get(repository).copied(), NEGATIVE)
    }

    /// Records that a repository does not exist; returns whether it was known.
    pub fn forget_repository(&mut self, repository: &Repository) -> bool {
        bound(&mut self.absent_repositories);
        self.absent_repositories.insert(repository.clone(), Instant::now());
        if let Some(tags) = self.repositories.get_mut(repository) {
            tags.list = None;
            if tags.tags.is_empty() && tags.gone.is_empty() {
                // Otherwise every name ever tried would stay for the life of the mount.
                self.repositories.remove(repository);
            }
        }
        let known = self.learned.remove(repository);
        if known {
            self.merged = None;
        }
        known
    }

    /// Records that a repository exists; returns whether that is to be stored.
    pub fn learn_repository(&mut self, repository: &Repository) -> bool {
        self.absent_repositories.remove(repository);
        let listed = self.catalog.as_ref().is_some_and(|seen| seen.value.has(repository.as_str()));
        if listed || self.learned.contains(repository) {
            return false;
        }
        self.merged = None;
        self.learned.insert(repository.clone())
    }

    /// Whether the referrers are fresh, and the last known list.
    pub fn referrers(&self, key: &(Repository, Digest), lifetime: Duration) -> (bool, Option<Arc<[Descriptor]>>) {
        match self.referrers.get(key) {
            Some(seen) => (is_fresh(seen.checked, lifetime), Some(Arc::clone(&seen.value))),
            None => (false, None),
        }
    }

    pub fn learn_referrers(&mut self, key: (Repository, Digest), found: Arc<[Descriptor]>) {
        bound(&mut self.referrers);
        self.referrers.insert(key, Seen { value: found, checked: Some(Instant::now()) });
    }

    pub fn refresh(&mut self, repository: Option<&Repository>) {
        self.outage.forget();
        self.catalog.iter_mut().for_each(|seen| seen.checked = None);
        let concerned = |name: &Repository| repository.is_none_or(|wanted| wanted == name);
        self.absent_tags.retain(|(name, _), _| !concerned(name));
        self.absent_repositories.retain(|name, _| !concerned(name));
        for (_, seen) in self.referrers.iter_mut().filter(|((name, _), _)| concerned(name)) {
            seen.checked = None;
        }
        for (_, tags) in self.repositories.iter_mut().filter(|(name, _)| concerned(name)) {
            tags.tags.values_mut().for_each(|seen| seen.checked = None);
            tags.list.iter_mut().for_each(|seen| seen.checked = None);
        }
    }
}

/// Sorted names with or without one of them.
fn with_name(names: &Arc<[String]>, name: &str, wanted: bool) -> Arc<[String]> {
    match (names.binary_search_by(|known| known.as_str().cmp(name)), wanted) {
        (Ok(_), true) | (Err(_), false) => Arc::clone(names),
        (Ok(at), false) => names.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, name)| name.clone()).collect(),
        (Err(at), true) => {
            let (before, behind) = names.split_at(at);
            before.iter().cloned().chain([name.to_owned()]).chain(behind.iter().cloned()).collect()
        }
    }
}

fn bound<K, V>(map: &mut HashMap<K, V>) {
    if map.len() >= KEPT {
        map.clear();
    }
}

/// A bounded map that drops entries unused while one generation filled up.
pub(in crate::artifact) struct Generations<K, V> {
    recent: HashMap<K, (V, usize)>,
    older: HashMap<K, (V, usize)>,
    weight: usize,
    limit: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Generations<K, V> {
    /// Keeps a weight of at most twice `limit`.
    pub fn new(limit: usize) -> Self {
        Self { recent: HashMap::new(), older: HashMap::new(), weight: 0, limit }
    }

    /// The value, which becomes recent.
    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.recent.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = self.older.remove(key)?;
        self.insert(key.clone(), value.clone(), weight);
        Some(value)
    }

    /// Inserts a value.
    pub fn insert(&mut self, key: K, value: V, weight: usize) {
        if self.weight.saturating_add(weight) > self.limit {
            self.older = std::mem::take(&mut self.recent);
            self.weight = 0;
        }
        self.weight = self.weight.saturating_add(weight);
        self.recent.insert(key, (value, weight));
    }
}

/// A list of names and whether it is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Sorted, valid names.
    pub names: Arc<[String]>,
    /// False if the registry refuses to list or could not be reached.
    pub complete: bool,
}

impl Listing {
    /// Whether a name is in the list.
    pub fn has(&self, name: &str) -> bool {
        self.names.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }

    /// The names below a prefix, without the prefix itself.
    pub fn below(&self, prefix: Option<&Repository>) -> impl Iterator<Item = &str> {
        let above = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let from = self.names.partition_point(|name| name.as_str() < above.as_str());
        self.names.get(from..).unwrap_or_default().iter().map(String::as_str).take_while(move |name| name.starts_with(&above))
    }
}

/// How long "does not exist" is cached, in memory only. The kernel adds a second.
pub(super) const NEGATIVE: Duration = Duration::from_secs(4);

/// Whether an answer of this age is still fresh.
pub(super) fn is_fresh(checked: Option<Instant>, lifetime: Duration) -> bool {
    checked.is_some_and(|checked| checked.elapsed() < lifetime)
}
