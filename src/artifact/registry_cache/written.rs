//! Writes of this program to the registry: known at once, and never overridden by the answer to an earlier request.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::memory::TagAnswer;
use super::writer::Dirty;
use super::{Lookup, RegistryCache};
use crate::artifact::Listing;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Manifest, Repository, Tag};

/// Most manifests of a repository examined.
const KNOWN: usize = 1000;

impl RegistryCache {
    /// Records that a tag was moved to a manifest.
    pub fn published(self: &Arc<Self>, repository: &Repository, tag: &Tag, manifest: Arc<Manifest>) {
        self.load_tags(repository);
        let digest = manifest.digest;
        self.learned_manifest(repository, manifest);
        self.write(repository, tag, Some(digest));
        self.learned(repository);
    }

    /// Records that a tag was deleted.
    pub fn deleted(self: &Arc<Self>, repository: &Repository, tag: &Tag) {
        self.load_tags(repository);
        self.write(repository, tag, None);
    }

    fn write(self: &Arc<Self>, repository: &Repository, tag: &Tag, digest: Option<Digest>) {
        let (is_new, listed) = {
            let mut memory = self.memory.lock();
            (memory.write_tag(repository, tag, digest), memory.repository(repository).list.is_some())
        };
        self.pull.report_written(repository);
        self.mark(Dirty::Tags(repository.clone()));
        if listed {
            self.mark(Dirty::List(repository.clone()));
        }
        if is_new {
            self.mark(Dirty::Catalog);
        }
    }

    /// Records a manifest that was sent.
    pub fn learned_manifest(self: &Arc<Self>, repository: &Repository, manifest: Arc<Manifest>) {
        if let Some(subject) = manifest.subject() {
            self.memory.lock().outdate_referrers(&(repository.clone(), subject.digest));
        }
        self.remember(repository, manifest);
    }

    /// The cached manifests that tags of a repository are known to point to. Reads the disk.
    pub fn local_manifests(&self, repository: &Repository) -> Vec<Arc<Manifest>> {
        self.load_tags(repository);
        let digests: BTreeSet<Digest> = self.memory.lock().repository(repository).tags.values().map(|seen| seen.value).collect();
        digests.iter().filter_map(|digest| self.local_manifest(repository, digest)).take(KNOWN).collect()
    }

    /// Names of the repositories seen by this process.
    pub fn seen_repositories(&self) -> Vec<Repository> {
        let mut seen = self.memory.lock().seen_repositories();
        seen.sort();
        seen
    }

    /// The answer for a tag that was written during its request.
    pub(super) fn written(&self, repository: &Repository, tag: &Tag) -> Lookup<Digest> {
        match self.memory.lock().tag(repository, tag, self.options.tag_ttl) {
            TagAnswer::Fresh(digest) | TagAnswer::Stale(digest) => Ok(digest),
            TagAnswer::Absent | TagAnswer::Unknown => Err(Error::new(ErrorKind::NotFound, format!("{repository}:{tag} was just deleted"))),
        }
    }

    /// The list of a repository that was written to while its tags were requested: the recorded writes win, and the answer is not cached.
    pub(super) fn list_of_before(&self, repository: &Repository, answer: Lookup<Listing>) -> Lookup<Listing> {
        let mut memory = self.memory.lock();
        let known = memory.repository(repository).tags.keys().filter(|tag| !tag.is_bookkeeping());
        let mut names: BTreeSet<String> = known.map(|tag| tag.as_str().to_owned()).collect();
        let listed = answer.iter().flat_map(|list| list.names.iter());
        let deleted =
            |name: &str| Tag::parse(name).is_ok_and(|tag| memory.tag(repository, &tag, self.options.tag_ttl) == TagAnswer::Absent);
        names.extend(listed.filter(|name| !deleted(name)).cloned());
        match answer {
            Err(error) if names.is_empty() => Err(error),
            _ => Ok(Listing { names: names.into_iter().collect(), complete: false }),
        }
    }
}
