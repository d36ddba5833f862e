//! The tags of a mount with their states, and the repositories created here.
//!
//! One lock is held while an event is judged and its consequences are applied to the views; nothing waits and no other
//! part is notified under it. A tag has an entry from its first edit until all edits are published or discarded, and its view stays that long, whatever
//! the kernel forgets. A tag without an entry follows upstream if a view shows it; otherwise it was not seen yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
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
    /// The view that shows it.
    pub view: Arc<View>,
    /// The tag was deleted here.
    pub deleted: bool,
    /// It does not exist upstream.
    pub new: bool,
    /// Why it could not be published, if the tag moved.
    pub conflict: Option<String>,
}

struct Entry {
    view: Arc<View>,
    /// Edited or deleted.
    state: TagState,
    conflict: Option<String>,
}

impl Entry {
    fn is_deleted(&self) -> bool {
        matches!(self.state, TagState::Deleted { .. })
    }

    fn shown(&self) -> StagedView {
        StagedView {
            view: Arc::clone(&self.view),
            deleted: self.is_deleted(),
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
    /// Repositories created here and not known to exist upstream. `true`: a file was refused in it, so its tags are
    /// perhaps directories of a copy placed one level too high.
    made: BTreeMap<Repository, bool>,
    /// Tags whose edits are unreadable, and why.
    broken: BTreeMap<TagName, String>,
    /// Older edits of tags that have newer ones, as listed.
    older: Vec<(TagName, StagedTag)>,
}

/// The table.
#[derive(Default)]
pub(super) struct TagTable {
    /// Taken before the lock of the views. Never held across an await.
    inner: Mutex<Inner>,
}

/// The remaining edits of a view.
pub(super) fn remaining(view: &View) -> Remaining {
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
    fn of_repository(&self, repository: &Repository) -> impl Iterator<Item = (&Tag, &Entry)> {
        let tags = self.tags.range((Bound::Included((repository.clone(), Tag::first())), Bound::Unbounded));
        tags.take_while(move |((of, _), _)| of == repository).map(|((_, tag), entry)| (tag, entry))
    }

    fn repositories_below<'a>(&'a self, path: Option<&'a Repository>) -> impl Iterator<Item = &'a Repository> {
        let tagged = self.tags.iter().filter(|(_, entry)| !entry.is_deleted()).map(|((repository, _), _)| repository);
        let is_below = move |other: &&Repository| path.is_none_or(|path| *other != path && other.is_within(path.as_str()));
        tagged.chain(self.made.keys()).filter(is_below)
    }

    /// The state of a tag. The caller drops the view with no lock held.
    fn state(&self, views: &Views, name: &TagName) -> (TagState, Option<Arc<View>>) {
        if let Some(entry) = self.tags.get(name) {
            return (entry.state, None);
        }
        let view = views.current(&key(name));
        let following = |view: &Arc<View>| TagState::Following { view: view.number(), shows: view.digest() };
        (view.as_ref().map_or(TagState::Unseen, following), view)
    }

    /// Judges an event and applies its consequences. Returns the state, and views to drop with no lock held.
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

    /// Stores the state of a tag with edits. Returns views no longer needed.
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
    /// Judges an event of a tag and applies its consequences to its views. Returns the resulting state.
    ///
    /// # Errors
    /// Why it is refused; nothing is changed.
    pub fn happened(&self, views: &Views, name: &TagName, event: Event) -> Result<TagState, Refusal> {
        let (result, freed) = self.inner.lock().judge(views, name, event);
        drop(freed);
        result
    }

    /// The same for the tag of a view with edits, whatever its current name. The remaining edits are checked under the lock, under which
    /// the next change would begin. Does nothing for a view that is not in the table.
    pub fn happened_in(&self, views: &Views, view: &View, event: impl FnOnce(Remaining) -> Event) {
        let mut inner = self.inner.lock();
        let Some(name) = inner.names.get(&view.number()).cloned() else { return };
        let (result, freed) = inner.judge(views, &name, event(remaining(view)));
        drop(inner);
        drop(freed);
        if let Err(refusal) = result {
            tracing::debug!("{}:{}: {refusal:?}", name.0, name.1);
        }
    }

    /// A change begins in a view.
    ///
    /// # Errors
    /// Moved if a lookup of the view's tag would not find it.
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

    /// Gives an edited tag another name, under which lookups find its view from now on. The previous owner of that name is no longer found.
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

    /// Notes why a tag could not be published, or clears that.
    pub fn set_conflict(&self, name: &TagName, conflict: Option<String>) {
        if let Some(entry) = self.inner.lock().tags.get_mut(name) {
            entry.conflict = conflict;
        }
    }

    /// Whether a view belongs to a tag in the table.
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
        inner.of_repository(repository).map(|(tag, entry)| (tag.clone(), entry.is_deleted())).collect()
    }

    /// Notes that the edits of a tag are unreadable.
    pub fn break_tag(&self, name: TagName, why: String) {
        self.inner.lock().broken.insert(name, why);
    }

    /// Notes that such edits no longer exist.
    pub fn mend_tag(&self, name: &TagName) {
        self.inner.lock().broken.remove(name);
    }

    /// Tags whose edits are unreadable, and why.
    pub fn broken(&self) -> Vec<(TagName, String)> {
        self.inner.lock().broken.iter().map(|(name, why)| (name.clone(), why.clone())).collect()
    }

    /// Notes older edits of a tag that has newer ones: the next mount adopts them once those are published or discarded.
    pub fn add_older(&self, name: TagName, tag: StagedTag) {
        self.inner.lock().older.push((name, tag));
    }

    /// Older edits of tags that have newer ones.
    pub fn older(&self) -> Vec<(TagName, StagedTag)> {
        self.inner.lock().older.clone()
    }

    /// Notes that a repository was created here.
    pub fn make_repository(&self, repository: Repository) {
        self.inner.lock().made.insert(repository, false);
    }

    /// Forgets that a repository was created here: it was removed, or exists upstream now.
    pub fn drop_repository(&self, repository: &Repository) {
        self.inner.lock().made.remove(repository);
    }

    /// Whether a repository was created here.
    pub fn is_made(&self, repository: &Repository) -> bool {
        self.inner.lock().made.contains_key(repository)
    }

    /// Notes that a file was refused in a repository, or clears that. Returns whether this changed anything: never for one not created here.
    pub fn set_doubtful(&self, repository: &Repository, is_doubtful: bool) -> bool {
        self.inner.lock().made.get_mut(repository).is_some_and(|doubtful| std::mem::replace(doubtful, is_doubtful) != is_doubtful)
    }

    /// Whether a file was refused in a repository created here.
    pub fn is_doubtful(&self, repository: &Repository) -> bool {
        self.inner.lock().made.get(repository).is_some_and(|doubtful| *doubtful)
    }

    /// Repositories below a path that exist because of staged tags.
    pub fn repositories_below(&self, path: Option<&Repository>) -> BTreeSet<String> {
        self.inner.lock().repositories_below(path).map(ToString::to_string).collect()
    }

    /// Whether any repository below a path exists because of staged tags.
    pub fn has_repository_below(&self, path: &Repository) -> bool {
        self.inner.lock().repositories_below(Some(path)).next().is_some()
    }

    /// Whether a repository has tags that are staged and not deleted.
    pub fn has_tags(&self, repository: &Repository) -> bool {
        self.inner.lock().of_repository(repository).any(|(_, entry)| !entry.is_deleted())
    }

    /// Whether a repository exists because of staged tags.
    pub fn has_repository(&self, repository: &Repository) -> bool {
        self.is_made(repository) || self.has_tags(repository)
    }
}
