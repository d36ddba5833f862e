//! Lists of tags and repositories: all pages, bounded, validated and sorted.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::memory::{Seen, is_fresh};
use super::outage::is_outage;
use super::writer::Dirty;
use super::{Lookup, RegistryCache};
use crate::artifact::Listing;
use crate::error::{Error, ErrorKind};
use crate::oci::{Repository, Tag};
use crate::registry::all_names;

impl RegistryCache {
    /// The tags of a repository.
    pub async fn tags(self: &Arc<Self>, repository: &Repository) -> Lookup<Listing> {
        self.load_tags(repository);
        let away = self.is_away();
        let last = {
            let mut memory = self.memory.lock();
            if memory.is_absent(repository) {
                drop(memory);
                return Err(self.absent(&format!("repository {repository}")));
            }
            let state = memory.repository(repository);
            let last = state.list.clone();
            if let Some(seen) = last.as_ref().filter(|seen| is_fresh(seen.checked, self.options.tag_ttl)) {
                return Ok(seen.value.clone());
            }
            let mut known = state.tags.keys().filter(|tag| !tag.is_bookkeeping()).map(Tag::as_str).peekable();
            let is_known = last.is_some() || known.peek().is_some();
            let list = last.map_or_else(|| unknown(None), |seen| seen.value);
            is_known.then(|| partial(&list, known))
        };
        if away && let Some(last) = last {
            return Ok(last);
        }
        if self.options.offline {
            return last.ok_or_else(|| self.unasked(&format!("the list of tags of {repository}"), self.is_repository(repository)));
        }
        let older = last.clone();
        let known = || {
            let mut memory = self.memory.lock();
            let list = memory.repository(repository).list.clone();
            list.filter(|seen| is_fresh(seen.checked, self.options.tag_ttl)).map(|seen| Ok(seen.value))
        };
        let asked = self.list_flight.run(Some(repository.clone()), known, || {
            let (me, repository) = (Arc::clone(self), repository.clone());
            async move { me.ask_tags(&repository, last).await }
        });
        self.answered(asked, older).await
    }

    async fn ask_tags(self: &Arc<Self>, repository: &Repository, last: Option<Listing>) -> Lookup<Listing> {
        let writes = self.memory.lock().writes(repository, None);
        let good = |name: &str| Tag::parse(name).is_ok();
        let hidden = |name: &str| Tag::parse(name).is_ok_and(|tag| tag.is_bookkeeping());
        let answer = self.pages(Some(repository), good, hidden).await;
        if self.memory.lock().writes(repository, None) != writes {
            return self.list_of_before(repository, answer);
        }
        match answer {
            Ok(list) => {
                self.reached();
                self.memory.lock().repository(repository).list =
                    Some(Seen { value: list.clone(), checked: Some(std::time::Instant::now()) });
                self.mark(Dirty::List(repository.clone()));
                self.learned(repository);
                Ok(list)
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.reached();
                if self.memory.lock().forget_repository(repository) {
                    self.mark(Dirty::Catalog);
                }
                Err(error)
            }
            Err(error) if is_outage(error.kind) => self.last_known(last, error),
            Err(error) if error.kind == ErrorKind::Unsupported => last.ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// All repositories, by their full names. The names are shared, not copied: every lookup asks for them.
    pub async fn repositories(self: &Arc<Self>) -> Lookup<Listing> {
        self.load_catalog();
        let away = self.is_away();
        let (fresh, last, is_known) = {
            let memory = self.memory.lock();
            let last = memory.catalog();
            let is_known = last.is_some() || !self.options.repositories.is_empty() || !memory.learned().is_empty();
            (last.is_some_and(|seen| is_fresh(seen.checked, self.options.tag_ttl)), last.map(|seen| seen.value.clone()), is_known)
        };
        let list = match last {
            Some(list) if fresh => list,
            last if self.options.offline => unknown(last),
            last if away && is_known => unknown(last),
            last => {
                let older = is_known.then(|| unknown(last.clone()));
                let known = || {
                    let memory = self.memory.lock();
                    memory.catalog().filter(|seen| is_fresh(seen.checked, self.options.tag_ttl)).map(|seen| Ok(seen.value.clone()))
                };
                let asked = self.list_flight.run(None, known, || {
                    let me = Arc::clone(self);
                    async move { me.ask_repositories(last, is_known).await }
                });
                self.answered(asked, older).await?
            }
        };
        if list.complete {
            return Ok(list);
        }
        Ok(Listing { names: self.memory.lock().known_repositories(&self.options.repositories), complete: false })
    }

    async fn ask_repositories(self: &Arc<Self>, last: Option<Listing>, is_known: bool) -> Lookup<Listing> {
        let answer = self.pages(None, |name| Repository::parse(name).is_ok(), |_| false).await;
        let list = match answer {
            Ok(list) => list,
            Err(error) if is_outage(error.kind) => {
                self.unreached(&error, is_known);
                return if is_known { Ok(unknown(last)) } else { Err(error) };
            }
            // Docker Hub and GHCR refuse the catalog with these errors to every caller.
            Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Denied | ErrorKind::NotFound) => {
                tracing::info!("the registry does not list its repositories; name them with --repo or type their path: {error}");
                unknown(last)
            }
            Err(error) => return Err(error),
        };
        self.reached();
        self.memory.lock().set_catalog(list.clone(), Some(std::time::Instant::now()));
        self.mark(Dirty::Catalog);
        Ok(list)
    }

    /// Records that a repository exists.
    pub fn learned(self: &Arc<Self>, repository: &Repository) {
        self.load_catalog();
        if self.memory.lock().learn_repository(repository) {
            self.mark(Dirty::Catalog);
        }
    }

    /// Whether a repository is known. Makes no request.
    fn is_repository(&self, repository: &Repository) -> bool {
        self.load_catalog();
        let memory = self.memory.lock();
        let in_catalog = memory.catalog().is_some_and(|seen| seen.value.has(repository.as_str()));
        in_catalog || memory.learned().contains(repository) || self.options.repositories.contains(repository)
    }

    /// A complete list: names that break the grammar are hidden and counted.
    async fn pages(
        &self,
        repository: Option<&Repository>,
        good: impl Fn(&str) -> bool,
        hidden: impl Fn(&str) -> bool,
    ) -> Result<Listing, Error> {
        let found = all_names(&*self.pull, repository, || self.reached()).await?;
        let (mut names, mut bad) = (BTreeSet::new(), 0_u64);
        for name in found.names {
            if !good(&name) {
                bad += 1;
            } else if !hidden(&name) {
                names.insert(name);
            }
        }
        if bad > 0 {
            let list = repository.map_or_else(|| "repositories".to_owned(), |name| format!("tags of {name}"));
            tracing::warn!("hiding {bad} invalid names in the list of {list}");
        }
        Ok(Listing { names: names.into_iter().collect(), complete: found.complete })
    }
}

/// An older list, extended by other known names; incomplete.
fn partial<'a>(list: &'a Listing, known: impl Iterator<Item = &'a str>) -> Listing {
    let mut further = known.filter(|name| !list.has(name)).peekable();
    if further.peek().is_none() {
        return Listing { names: Arc::clone(&list.names), complete: false };
    }
    let names: BTreeSet<&str> = list.names.iter().map(String::as_str).chain(further).collect();
    Listing { names: names.into_iter().map(str::to_owned).collect(), complete: false }
}

fn unknown(last: Option<Listing>) -> Listing {
    Listing { names: last.map_or_else(|| Arc::new([]) as Arc<[String]>, |list| list.names), complete: false }
}
