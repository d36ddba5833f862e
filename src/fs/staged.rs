//! Which tags have edits in this mount, and which repositories were made here. Plain data.
//!
//! A tag is in the table from its first edit until everything of it is published or taken back; its view stays so long, whatever the
//! kernel forgets.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::View;
use crate::oci::{Repository, Tag};

/// Repository and tag.
pub type TagName = (Repository, Tag);

/// A tag with edits.
#[derive(Clone)]
pub(super) struct StagedView {
    /// Where they are shown.
    pub view: Arc<View>,
    /// The tag was deleted here.
    pub deleted: bool,
    /// Nothing is upstream.
    pub new: bool,
    /// Why it could not be published, where the tag moved.
    pub conflict: Option<String>,
}

#[derive(Default)]
struct Inner {
    tags: BTreeMap<TagName, StagedView>,
    /// Numbers of the views of those tags.
    views: HashSet<u32>,
    /// Repositories that were made here and are not upstream, as far as is known.
    made: BTreeSet<Repository>,
    /// Tags whose edits cannot be read, and why.
    broken: BTreeMap<TagName, String>,
}

/// The table.
#[derive(Default)]
pub(super) struct Staged {
    /// Held for map operations only, never across an await.
    inner: Mutex<Inner>,
}

impl Staged {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a tag into the table and answers what was there under that name.
    pub fn insert(&self, name: TagName, staged: StagedView) -> Option<StagedView> {
        let mut inner = self.inner();
        inner.views.insert(staged.view.number());
        let before = inner.tags.insert(name, staged);
        if let Some(before) = &before {
            let still = inner.tags.values().any(|other| other.view.number() == before.view.number());
            if !still {
                inner.views.remove(&before.view.number());
            }
        }
        before
    }

    /// Takes a tag out.
    pub fn remove(&self, name: &TagName) -> Option<StagedView> {
        let mut inner = self.inner();
        let before = inner.tags.remove(name)?;
        inner.views.remove(&before.view.number());
        Some(before)
    }

    /// Changes what is said of a tag.
    pub fn update(&self, name: &TagName, change: impl FnOnce(&mut StagedView)) {
        if let Some(staged) = self.inner().tags.get_mut(name) {
            change(staged);
        }
    }

    /// Whether a view is that of a tag in the table.
    pub fn holds(&self, view: u32) -> bool {
        self.inner().views.contains(&view)
    }

    /// What is said of a tag.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Option<StagedView> {
        self.inner().tags.get(&(repository.clone(), tag.clone())).cloned()
    }

    /// All tags, by name.
    pub fn all(&self) -> Vec<(TagName, StagedView)> {
        self.inner().tags.iter().map(|(name, staged)| (name.clone(), staged.clone())).collect()
    }

    /// The tags of a repository, and whether each is deleted.
    pub fn of_repository(&self, repository: &Repository) -> Vec<(Tag, bool)> {
        let inner = self.inner();
        let tags = inner.tags.iter().filter(|((of, _), _)| of == repository);
        tags.map(|((_, tag), staged)| (tag.clone(), staged.deleted)).collect()
    }

    /// Notes that the edits of a tag cannot be read.
    pub fn break_tag(&self, name: TagName, why: String) {
        self.inner().broken.insert(name, why);
    }

    /// Notes that there are no such edits any more.
    pub fn mend_tag(&self, name: &TagName) {
        self.inner().broken.remove(name);
    }

    /// Tags whose edits cannot be read, and why.
    pub fn broken(&self) -> Vec<(TagName, String)> {
        self.inner().broken.iter().map(|(name, why)| (name.clone(), why.clone())).collect()
    }

    /// Notes that a repository was made here.
    pub fn make_repository(&self, repository: Repository) {
        self.inner().made.insert(repository);
    }

    /// Forgets that a repository was made here: it is gone, or upstream now.
    pub fn drop_repository(&self, repository: &Repository) {
        self.inner().made.remove(repository);
    }

    /// Whether a repository was made here.
    pub fn is_made(&self, repository: &Repository) -> bool {
        self.inner().made.contains(repository)
    }

    /// Repositories that exist because of what is staged.
    pub fn repositories(&self) -> BTreeSet<String> {
        let inner = self.inner();
        let tagged = inner.tags.iter().filter(|(_, staged)| !staged.deleted).map(|((repository, _), _)| repository);
        tagged.chain(inner.made.iter()).map(ToString::to_string).collect()
    }

    /// Whether a repository is among them.
    pub fn has_repository(&self, repository: &Repository) -> bool {
        self.is_made(repository) || self.of_repository(repository).iter().any(|(_, deleted)| !deleted)
    }
}
