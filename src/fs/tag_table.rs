//! The tags of a mount with the state that each is in, and the repositories that were made here.
//!
//! One lock is held while an event is judged and what follows from it is done to the views; nothing waits and no other
//! part is notified under it. A tag has an entry from its first edit until everything of it is published or taken back, and its view stays so long, whatever
//! the kernel forgets. A tag without an entry follows upstream if a view shows it, else it was not seen yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::StagedTag;
use super::tag_state::{Action, Claim, Event, Refusal, Remaining, TagState, ViewNumber};
use crate::oci::{Repository, Tag};
use crate::view::{Key, View, Views};

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

struct Entry {
    view: Arc<View>,
    /// Edited or deleted.
    state: TagState,
    conflict: Option<String>,
}

impl Entry {
    fn shown(&self) -> StagedView {
        StagedView {
            view: Arc::clone(&self.view),
            deleted: matches!(self.state, TagState::Deleted { .. }),
            new: self.view.binding().is_some_and(|binding| binding.expected.is_none()),
            conflict: self.conflict.clone(),
        }
    }
}

#[derive(Default)]
struct Inner {
    tags: BTreeMap<TagName, Entry>,
    /// The tag of each view in `tags`.
    names: HashMap<ViewNumber, TagName>,
    /// Repositories that were made here and are not upstream, as far as is known. `true`: a file was refused in it, so that its tags are
    /// perhaps directories of a copy that went one level too high.
    made: BTreeMap<Repository, bool>,
    /// Tags whose edits cannot be read, and why.
    broken: BTreeMap<TagName, String>,
    /// Older edits of tags that have newer ones, as they are listed.
    beside: Vec<(TagName, StagedTag)>,
}

/// The table.
#[derive(Default)]
pub(super) struct TagTable {
    /// Taken before the lock of the views. Never held across an await.
    inner: Mutex<Inner>,
}

/// The remaining edits of a view.
pub(super) fn left(view: &View) -> Remaining {
    match view.overlay() {
        Some(overlay) if overlay.is_removed() => Remaining::Removed,
        Some(overlay) if overlay.is_edited() => Remaining::Edits,
        None if view.given().is_some() => Remaining::Edits,
        _ => Remaining::Nothing(view.digest()),
    }
}

fn key(name: &TagName) -> Key {
    Key::Tag(name.0.clone(), name.1.clone())
}

impl Inner {
    /// The state that a tag is in. The view is dropped by the caller, where no lock is held.
    fn state(&self, views: &Views, name: &TagName) -> (TagState, Option<Arc<View>>) {
        if let Some(entry) = self.tags.get(name) {
            return (entry.state, None);
        }
        let view = views.current(&key(name));
        let following = |view: &Arc<View>| TagState::Following { view: view.number(), shows: view.digest() };
        (view.as_ref().map_or(TagState::Unseen, following), view)
    }

    /// Judges an event and does what follows. Returns the state, and views to be dropped where no lock is held.
    fn judge(&mut self, views: &Views, name: &TagName, event: Event) -> (Result<TagState, Refusal>, Vec<Option<Arc<View>>>) {
        let (state, seen) = self.state(views, name);
        let mut freed = vec![seen];
        let (next, actions) = match state.next(event) {
            Ok(next) => next,
            Err(refusal) => return (Err(refusal), freed),
        };
        for action in actions {
            match action {
                Action::Keep(view) if !views.retain(view) => return (Err(Refusal::Moved), freed),
                Action::Keep(_) => {}
                Action::LetGo(view) => freed.push(views.forget(view, 1)),
                Action::Retire(view) => views.retire(view),
                Action::Close(view) => {
                    let view = views.get(view);
                    view.iter().for_each(|view| view.close());
                    freed.push(view);
                }
            }
        }
        freed.extend(self.store(views, name, next));
        (Ok(next), freed)
    }

    /// Keeps the state of a tag with edits. Returns views that are not needed any more.
    fn store(&mut self, views: &Views, name: &TagName, state: TagState) -> Vec<Option<Arc<View>>> {
        let view = state.view().filter(|_| state.is_staged());
        if let (Some(entry), Some(view)) = (self.tags.get_mut(name), view)
            && entry.view.number() == view
        {
            entry.state = state;
            return Vec::new();
        }
        let before = self.tags.remove(name).map(|entry| entry.view);
        if let Some(before) = &before {
            self.names.remove(&before.number());
        }
        if let Some(view) = view.and_then(|view| views.get(view)) {
            self.names.insert(view.number(), name.clone());
            self.tags.insert(name.clone(), Entry { view, state, conflict: None });
        }
        vec![before]
    }
}

impl TagTable {
    /// Judges what happened to a tag and does what follows to its views. Returns the state that it is in then.
    ///
    /// # Errors
    /// Why it cannot be; nothing is changed.
    pub fn happened(&self, views: &Views, name: &TagName, event: Event) -> Result<TagState, Refusal> {
        let (result, freed) = self.inner.lock().judge(views, name, event);
        drop(freed);
        result
    }

    /// The same for the tag of a view with edits, whatever its name is by now. What is left of them is asked under the lock, under which
    /// the next change would begin. Nothing happens to a view that is not in the table.
    pub fn happened_in(&self, views: &Views, view: &View, event: impl FnOnce(Remaining) -> Event) {
        let mut inner = self.inner.lock();
        let Some(name) = inner.names.get(&view.number()).cloned() else { return };
        let (result, freed) = inner.judge(views, &name, event(left(view)));
        drop(inner);
        drop(freed);
        if let Err(refusal) = result {
            tracing::debug!("{}:{}: {refusal:?}", name.0, name.1);
        }
    }

    /// A change begins in a view.
    ///
    /// # Errors
    /// Moved where a lookup of the view's tag would not find it.
    pub fn begin(&self, views: &Views, view: &View) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        let name = match (inner.names.get(&view.number()), view.key()) {
            (Some(name), _) => name.clone(),
            (None, Key::Tag(repository, tag)) => (repository, tag),
            (None, _) => return Err(Refusal::Moved),
        };
        let (result, freed) = inner.judge(views, &name, Event::Began(view.number()));
        drop(inner);
        drop(freed);
        result.map(drop)
    }

    /// Gives one caller exclusive use of a tag; returns the tag's record.
    ///
    /// # Errors
    /// Claimed if another caller has it, Unedited.
    pub fn claim(&self, views: &Views, name: &TagName, claim: Claim) -> Result<StagedView, Refusal> {
        let mut inner = self.inner.lock();
        let (result, freed) = inner.judge(views, name, Event::Claimed(claim));
        let shown = result.and_then(|_| inner.tags.get(name).map(Entry::shown).ok_or(Refusal::Unedited));
        drop(inner);
        drop(freed);
        shown
    }

    /// Gives an edited tag another name, under which a lookup finds its view from now on. What had that name is found no more.
    pub fn rename(&self, views: &Views, from: &TagName, to: &TagName) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.tags.remove(from) else { return };
        let (_, freed) = inner.judge(views, to, Event::Taken);
        views.rename(&entry.view, key(to));
        inner.names.insert(entry.view.number(), to.clone());
        inner.tags.insert(to.clone(), entry);
        drop(inner);
        drop(freed);
    }

    /// Notes why a tag could not be published, or that nothing speaks against it.
    pub fn set_conflict(&self, name: &TagName, conflict: Option<String>) {
        if let Some(entry) = self.inner.lock().tags.get_mut(name) {
            entry.conflict = conflict;
        }
    }

    /// Whether a view is that of a tag in the table.
    pub fn holds(&self, view: ViewNumber) -> bool {
        self.inner.lock().names.contains_key(&view)
    }

    /// The record of a tag.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Option<StagedView> {
        self.inner.lock().tags.get(&(repository.clone(), tag.clone())).map(Entry::shown)
    }

    /// All tags, by name.
    pub fn all(&self) -> Vec<(TagName, StagedView)> {
        self.inner.lock().tags.iter().map(|(name, entry)| (name.clone(), entry.shown())).collect()
    }

    /// The tags of a repository, and whether each is deleted.
    pub fn of_repository(&self, repository: &Repository) -> Vec<(Tag, bool)> {
        let inner = self.inner.lock();
        let tags = inner.tags.iter().filter(|((of, _), _)| of == repository);
        tags.map(|((_, tag), entry)| (tag.clone(), matches!(entry.state, TagState::Deleted { .. }))).collect()
    }

    /// Notes that the edits of a tag cannot be read.
    pub fn break_tag(&self, name: TagName, why: String) {
        self.inner.lock().broken.insert(name, why);
    }

    /// Notes that there are no such edits any more.
    pub fn mend_tag(&self, name: &TagName) {
        self.inner.lock().broken.remove(name);
    }

    /// Tags whose edits cannot be read, and why.
    pub fn broken(&self) -> Vec<(TagName, String)> {
        self.inner.lock().broken.iter().map(|(name, why)| (name.clone(), why.clone())).collect()
    }

    /// Notes older edits of a tag that has newer ones: the next mount takes them over once those are published or taken back.
    pub fn lie_beside(&self, name: TagName, tag: StagedTag) {
        self.inner.lock().beside.push((name, tag));
    }

    /// Older edits of tags that have newer ones.
    pub fn beside(&self) -> Vec<(TagName, StagedTag)> {
        self.inner.lock().beside.clone()
    }

    /// Notes that a repository was made here.
    pub fn make_repository(&self, repository: Repository) {
        self.inner.lock().made.insert(repository, false);
    }

    /// Forgets that a repository was made here: it is gone, or upstream now.
    pub fn drop_repository(&self, repository: &Repository) {
        self.inner.lock().made.remove(repository);
    }

    /// Whether a repository was made here.
    pub fn is_made(&self, repository: &Repository) -> bool {
        self.inner.lock().made.contains_key(repository)
    }

    /// Notes that a file was refused in a repository, or takes that back. Returns whether that is news: never for one that was not made here.
    pub fn set_doubtful(&self, repository: &Repository, is_doubtful: bool) -> bool {
        self.inner.lock().made.get_mut(repository).is_some_and(|doubtful| std::mem::replace(doubtful, is_doubtful) != is_doubtful)
    }

    /// Whether a file was refused in a repository that was made here.
    pub fn is_doubtful(&self, repository: &Repository) -> bool {
        self.inner.lock().made.get(repository).is_some_and(|doubtful| *doubtful)
    }

    /// Repositories that exist because of what is staged.
    pub fn repositories(&self) -> BTreeSet<String> {
        let inner = self.inner.lock();
        let tagged = inner.tags.iter().filter(|(_, entry)| !matches!(entry.state, TagState::Deleted { .. }));
        tagged.map(|((repository, _), _)| repository).chain(inner.made.keys()).map(ToString::to_string).collect()
    }

    /// Whether a repository is among them.
    pub fn has_repository(&self, repository: &Repository) -> bool {
        self.is_made(repository) || self.of_repository(repository).iter().any(|(_, deleted)| !deleted)
    }
}
