//! The registry cache on disk: small documents, written in the background.
//!
//! Two daemons may share the documents: tags are merged with the stored ones, lists are replaced. A document that cannot be read or written costs
//! only offline use.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::RegistryCache;
use super::memory::Seen;
use super::writer::Dirty;
use crate::artifact::Listing;
use crate::cache::Protection;
use crate::oci::{Descriptor, Digest, Repository, Tag};

#[derive(Default, Serialize, Deserialize)]
struct StoredTags {
    tags: BTreeMap<String, String>,
}

#[derive(Default, Serialize, Deserialize)]
struct StoredList {
    names: Vec<String>,
    complete: bool,
    #[serde(default)]
    learned: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
}

impl RegistryCache {
    /// Queues something to be stored.
    pub(super) fn mark(self: &Arc<Self>, dirty: Dirty) {
        if self.writer.push(dirty) {
            let me = Arc::clone(self);
            let work = move || {
                while let Some(dirty) = me.writer.pop() {
                    me.store(&dirty);
                }
            };
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(work)),
                Err(_) => work(),
            }
        }
    }

    fn store(&self, dirty: &Dirty) {
        match dirty {
            Dirty::Manifest(repository, manifest) => {
                self.put("manifest", &["manifest", repository.as_str(), &manifest.digest.to_string()], &manifest.raw);
            }
            Dirty::Tags(repository) => self.store_tags(repository),
            Dirty::List(repository) => {
                let list = self.memory.lock().repository(repository).list.as_ref().map(|seen| seen.value.clone());
                let list = list.unwrap_or(Listing { names: Arc::new([]), complete: false });
                self.put_json(&["list", repository.as_str()], &StoredList::of(&list, Vec::new()));
            }
            Dirty::Catalog => {
                let (list, learned) = {
                    let memory = self.memory.lock();
                    let learned = memory.learned().iter().map(|name| name.as_str().to_owned()).collect();
                    (memory.catalog().map(|seen| seen.value.clone()), learned)
                };
                let list = list.unwrap_or(Listing { names: Arc::new([]), complete: false });
                self.put_json(&["catalog"], &StoredList::of(&list, learned));
            }
            Dirty::Referrers(repository, subject, found) => {
                let stored: Vec<StoredDescriptor> = found.iter().map(StoredDescriptor::of).collect();
                self.put_json(&["referrers", repository.as_str(), &subject.to_string()], &stored);
            }
        }
    }

    fn store_tags(&self, repository: &Repository) {
        let key = ["tags", repository.as_str()];
        let mut stored: StoredTags = self.get_json(&key).unwrap_or_default();
        {
            let mut memory = self.memory.lock();
            let known = memory.repository(repository);
            for tag in &known.gone {
                stored.tags.remove(tag.as_str());
            }
            stored.tags.extend(known.tags.iter().map(|(tag, seen)| (tag.as_str().to_owned(), seen.value.to_string())));
        }
        self.put_json(&key, &stored);
    }

    /// Loads the stored tags and list of a repository, once.
    pub(super) fn load_tags(&self, repository: &Repository) {
        if std::mem::replace(&mut self.memory.lock().repository(repository).loaded, true) {
            return;
        }
        let tags: StoredTags = self.get_json(&["tags", repository.as_str()]).unwrap_or_default();
        let list: Option<StoredList> = self.get_json(&["list", repository.as_str()]);
        let mut memory = self.memory.lock();
        let known = memory.repository(repository);
        for (tag, digest) in tags.tags {
            if let (Ok(tag), Ok(digest)) = (Tag::parse(&tag), Digest::parse(&digest)) {
                known.tags.entry(tag).or_insert(Seen { value: digest, checked: None });
            }
        }
        if let Some(list) = list
            && known.list.is_none()
        {
            known.list = Some(Seen { value: list.listing(), checked: None });
        }
    }

    /// Loads the stored list of repositories and the learned ones, once.
    pub(super) fn load_catalog(&self) {
        if std::mem::replace(&mut self.memory.lock().learned_loaded, true) {
            return;
        }
        let Some(stored) = self.get_json::<StoredList>(&["catalog"]) else { return };
        let mut memory = self.memory.lock();
        memory.load_learned(stored.learned.iter().filter_map(|name| Repository::parse(name).ok()));
        if memory.catalog().is_none() && !stored.names.is_empty() {
            memory.set_catalog(stored.listing(), None);
        }
    }

    pub(super) fn stored_referrers(&self, repository: &Repository, subject: &Digest) -> Option<Arc<[Descriptor]>> {
        let stored: Vec<StoredDescriptor> = self.get_json(&["referrers", repository.as_str(), &subject.to_string()])?;
        stored.into_iter().map(StoredDescriptor::descriptor).collect()
    }

    fn get_json<T: for<'de> Deserialize<'de>>(&self, parts: &[&str]) -> Option<T> {
        let bytes = self.document("seen", parts)?;
        serde_json::from_slice((*bytes).as_ref()).ok()
    }

    fn put_json(&self, parts: &[&str], value: &impl Serialize) {
        match serde_json::to_vec(value) {
            Ok(bytes) => self.put("seen", parts, &bytes),
            Err(error) => tracing::warn!("cannot store tags and lists for offline use: {error}"),
        }
    }

    pub(super) fn document(&self, kind: &str, parts: &[&str]) -> Option<Arc<dyn AsRef<[u8]> + Send + Sync>> {
        match self.cache.document(kind, &self.key(parts), &Protection::Plain) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("cannot read stored tags and lists: {error}");
                None
            }
        }
    }

    fn put(&self, kind: &str, parts: &[&str], bytes: &[u8]) {
        if let Err(error) = self.cache.store_document(kind, &self.key(parts), bytes, &Protection::Plain) {
            tracing::warn!("cannot store tags and lists for offline use: {error}");
        }
    }

    /// A key from origin and object. No part can contain a line break, so different parts never give the same key.
    pub(super) fn key(&self, parts: &[&str]) -> String {
        Digest::of(format!("{}\n{}", self.pull.origin(), parts.join("\n")).as_bytes()).hex()
    }
}

impl StoredList {
    fn of(list: &Listing, learned: Vec<String>) -> Self {
        Self { names: list.names.to_vec(), complete: list.complete, learned }
    }

    fn listing(&self) -> Listing {
        Listing { names: self.names.clone().into(), complete: self.complete }
    }
}

impl StoredDescriptor {
    fn of(descriptor: &Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.to_string(),
            size: descriptor.size,
            artifact_type: descriptor.artifact_type.clone(),
            annotations: descriptor.annotations.clone(),
        }
    }

    fn descriptor(self) -> Option<Descriptor> {
        let mut descriptor = Descriptor::new(self.media_type, Digest::parse(&self.digest).ok()?, self.size);
        descriptor.artifact_type = self.artifact_type;
        descriptor.annotations = self.annotations;
        Some(descriptor)
    }
}
