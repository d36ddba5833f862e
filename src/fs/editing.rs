//! Where edits begin and end: through which view of a tag they are made, and how long the tag is held.
//!
//! The order matters: a tag that moved upstream is never edited through the directory of its old digest, and edits
//! left by another mount are shown before anything is added to them. The tag's state (`tag_state`) decides what is allowed;
//! the slow work is done here.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::location::Location;
use super::namespace::Namespace;
use super::refusals::read_only;
use super::staged_tags::StagedTags;
use super::tag_state::{Claim, Event, Refusal};
use super::tag_table::{StagedView, TagName};
use super::{Inode, ROOT, Root};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Repository, Tag, Version};
use crate::staging::{TagKey, Upper, Uppers};
use crate::view::{Begun, Forgotten, Key, Origin, Overlay, View};

/// A change in flight in an edited tag, which does not follow upstream until this is dropped.
pub(super) struct Editing<'tags> {
    overlay: Arc<Overlay>,
    _work: Work<'tags>,
}

impl Deref for Editing<'_> {
    type Target = Arc<Overlay>;

    fn deref(&self) -> &Arc<Overlay> {
        &self.overlay
    }
}

struct Work<'tags> {
    tags: &'tags StagedTags,
    view: Arc<View>,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let Self { tags, view } = self;
        tags.namespace.staged.happened_in(&tags.namespace.views, view, |remaining| Event::Ended(view.number(), remaining));
        tags.free_soon(view);
    }
}

/// Exclusive use of a tag until dropped.
pub(super) struct Claimed<'tags> {
    tags: &'tags StagedTags,
    /// The record of the tag when it was claimed.
    pub staged: StagedView,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        let (tags, view) = (self.tags, &self.staged.view);
        tags.namespace.staged.happened_in(&tags.namespace.views, view, |remaining| Event::Released(view.number(), remaining));
        tags.free_soon(view);
        tags.namespace.namespace_changed();
    }
}

/// The part of a tag's edits to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// All edits: they are discarded.
    Everything,
    /// Only if the tag is empty.
    IfEmpty,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Moved => Self::new(ErrorKind::Gone, "the tag has moved since this directory was opened; open it again to change it"),
            Refusal::Claimed(Claim::Publish) => Self::new(ErrorKind::Busy, "the tag is being published; try again when that is done"),
            Refusal::Claimed(Claim::Whole) => Self::new(ErrorKind::Busy, "the tag is being renamed, removed or discarded"),
            Refusal::Unedited => Self::new(ErrorKind::NotFound, "the tag has no edits"),
        }
    }
}

impl Namespace {
    /// The key for the edits of a view that has given up its tag's name. No tag has such a name.
    fn aside(&self, view: &View) -> Option<TagKey> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut tag_key = view.tag_key(&self.context)?;
        // Several mounts may share the state directory.
        tag_key.tag = format!("{}@{}-{}", tag_key.tag, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Some(tag_key)
    }

    /// Forgets the cached content of namespace directories.
    pub(super) fn namespace_changed(&self) {
        self.locations.unconfirm();
        *self.source_tags() = None;
    }

    /// Judges the digest that the registry reported for a tag, requested because of what a view shows. If the tag has moved and was not edited
    /// meanwhile, the view is retired.
    pub(super) async fn answered(&self, name: &TagName, view: &Arc<View>, digest: Option<Digest>) {
        let number = view.number();
        if view.digest() == digest || self.staged.holds(number) {
            return;
        }
        let event = match (view.overlay(), self.aside(view)) {
            (Some(overlay), Some(aside)) => {
                // The directory goes away with the last process inside.
                let overlay = Arc::clone(overlay);
                match blocking(move || overlay.retire(&aside)).await {
                    Ok(true) => Event::Retired(number),
                    // Edited meanwhile.
                    Ok(false) => return,
                    Err(error) => {
                        tracing::warn!("the old directory of a moved tag still has its name: {error}");
                        Event::Answered { view: number, digest }
                    }
                }
            }
            _ => Event::Answered { view: number, digest },
        };
        // An answer is never refused.
        let _ = self.staged.happened(&self.views, name, event);
    }
}

impl StagedTags {
    /// Where edits are staged.
    ///
    /// # Errors
    /// `ReadOnly` on a read-only mount.
    pub(super) fn uppers(&self) -> Result<&Arc<Uppers>, Error> {
        self.namespace.context.staging.as_ref().ok_or_else(|| Error::new(ErrorKind::ReadOnly, "this mount is read-only"))
    }

    /// Whether something may be changed, as far as known without beginning to.
    pub(super) async fn check_writable(&self, number: u64) -> Result<(), Error> {
        self.uppers()?;
        let inode = self.namespace.inode(number);
        if inode.view() == 0 {
            return if matches!(self.namespace.location(inode)?.as_ref(), Location::Directory(_)) { Ok(()) } else { Err(read_only()) };
        }
        if matches!(self.namespace.view(inode)?.key(), Key::Tag(..)) { Ok(()) } else { Err(read_only()) }
    }

    /// The name under which edits of a tag are staged.
    pub(super) fn tag_key(&self, repository: &Repository, tag: &Tag) -> TagKey {
        TagKey {
            origin: self.namespace.context.artifacts.origin().to_owned(),
            authority: self.namespace.context.authority.to_string(),
            repository: repository.to_string(),
            tag: tag.to_string(),
        }
    }

    /// The edits of a view, begun now if there are none.
    ///
    /// # Errors
    /// `ReadOnly` if nothing is writable, Busy if another process edits the tag, Gone in the directory of a tag that has moved.
    pub(super) async fn edit(&self, view: &Arc<View>) -> Result<Editing<'_>, Error> {
        self.uppers()?;
        if view.overlay().is_none_or(|overlay| overlay.is_released()) {
            self.look_before_edit(view).await?;
        }
        let work = self.begin(view)?;
        match view.edit(&self.namespace.context).await? {
            Begun::Edits(overlay) => Ok(Editing { overlay, _work: work }),
            // Another mount left edits of this tag; the next lookup of the tag finds them.
            Begun::Found(upper) => {
                let Key::Tag(repository, tag) = view.key() else { return Err(read_only()) };
                self.stage(&(repository, tag), upper)?;
                Err(Error::new(ErrorKind::Gone, "the tag has edits of an earlier mount; open its directory again"))
            }
        }
    }

    /// Checks whether a tag has moved before its first edit.
    async fn look_before_edit(&self, view: &Arc<View>) -> Result<(), Error> {
        let Key::Tag(repository, tag) = view.key() else { return Err(read_only()) };
        let is_root = self.namespace.root_view().is_some_and(|root| root.number() == view.number());
        // A network failure must not prevent edits of what is known; a missed move is found when publishing.
        if !is_root && let Err(error) = self.namespace.tag_exists(&repository, &tag).await {
            tracing::debug!("{repository}:{tag} is edited without checking the registry: {error}");
        }
        Ok(())
    }

    fn begin(&self, view: &Arc<View>) -> Result<Work<'_>, Error> {
        if view.is_closed() {
            return Err(Refusal::Moved.into());
        }
        self.namespace.staged.begin(&self.namespace.views, view)?;
        Ok(Work { tags: self, view: Arc::clone(view) })
    }

    /// Claims a tag with edits for a command.
    ///
    /// # Errors
    /// Busy if another command has claimed it, `NotFound` if it has no edits.
    pub(super) fn claim(&self, name: &TagName, claim: Claim) -> Result<Claimed<'_>, Error> {
        let staged = self.namespace.staged.claim(&self.namespace.views, name, claim)?;
        Ok(Claimed { tags: self, staged })
    }

    /// Releases the lock of a tag without edits, so that another mount may edit it. Processes inside continue, and the next change
    /// takes the lock back.
    pub(super) async fn free(&self, view: &View) {
        let Some(work) = self.freeing(view) else { return };
        let worked = move || {
            work();
            Ok(())
        };
        if let Err(error) = blocking(worked).await {
            tracing::warn!("{error}");
        }
    }

    /// The same without waiting for the disk.
    pub(super) fn free_soon(&self, view: &View) {
        let Some(work) = self.freeing(view) else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => work(),
        }
    }

    fn freeing(&self, view: &View) -> Option<impl FnOnce() + Send + 'static> {
        let overlay = Arc::clone(view.overlay()?);
        if self.namespace.staged.holds(view.number()) || overlay.is_edited() || overlay.is_released() {
            return None;
        }
        let aside = self.namespace.aside(view)?;
        Some(move || match overlay.release_tag(&aside) {
            // Edited or removed meanwhile.
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::Gone => {}
            Err(error) => tracing::warn!("a tag without edits stays locked: {error}"),
        })
    }

    /// Shows an upper as its tag, through a new view, and has the kernel look the tag up again.
    pub(super) fn stage(&self, name: &TagName, upper: Arc<Upper>) -> Result<Arc<View>, Error> {
        let view = self.show_upper(name, upper)?;
        self.forget_tag_name(&name.0, &name.1);
        Ok(view)
    }

    /// The same for a tag of which the kernel learns by the reply. A notice might arrive after it, and would unhash the new directory: a
    /// process inside would have no working directory.
    pub(super) fn show_upper(&self, name: &TagName, upper: Arc<Upper>) -> Result<Arc<View>, Error> {
        let (repository, tag) = name;
        let key = Key::Tag(repository.clone(), tag.clone());
        let deleted = upper.binding().deleted;
        let root = self.namespace.root_view().filter(|root| root.key() == key && root.shown().is_none() && !root.is_closed());
        let view = match root {
            Some(root) => {
                root.give(upper);
                self.namespace.staged.happened(&self.namespace.views, name, Event::Staged { view: root.number(), deleted })?;
                root
            }
            None => {
                let view = self.namespace.views.replace(key, Origin::Tag(repository.clone(), tag.clone()), Some(upper))?;
                self.replace_root(&view);
                self.namespace.staged.happened(&self.namespace.views, name, Event::Staged { view: view.number(), deleted })?;
                // The lookup counted by naming is the kernel's, which does not know the view; the table's own remains.
                self.namespace.views.forget(view.number(), 1);
                view
            }
        };
        self.namespace.namespace_changed();
        Ok(view)
    }

    /// Removes a tag's staged edits and the directory that shows them: processes inside get an error, a new lookup gets a new view.
    /// Returns whether it did.
    ///
    /// # Errors
    /// As [`Self::claim`]; errors of the disk.
    pub(super) async fn drop_staged(&self, name: &TagName, removal: Removal) -> Result<bool, Error> {
        let claimed = self.claim(name, Claim::Whole)?;
        self.drop_claimed(name, &claimed, removal).await
    }

    /// The same for an already claimed tag.
    pub(super) async fn drop_claimed(&self, name: &TagName, claimed: &Claimed<'_>, removal: Removal) -> Result<bool, Error> {
        let view = Arc::clone(&claimed.staged.view);
        let (given, overlay) = (view.given(), view.overlay().map(Arc::clone));
        let removed = blocking(move || match (overlay, given, removal) {
            (Some(overlay), _, Removal::IfEmpty) => overlay.remove_if_empty(),
            (Some(overlay), ..) => overlay.remove_all().map(|()| true),
            // It was never entered, so the kernel does not know that it is empty.
            (None, Some(_), Removal::IfEmpty) => Ok(false),
            (None, Some(upper), Removal::Everything) => Ok(upper.remove().map(|()| true)?),
            (None, None, _) => Ok(true),
        });
        if !removed.await? {
            return Ok(false);
        }
        view.take_given();
        self.close_view(name, &view).map(|()| true)
    }

    /// Gives new lookups of a tag a new view, and processes inside the old one an error: the staged edits are gone.
    pub(super) fn close_view(&self, name: &TagName, view: &Arc<View>) -> Result<(), Error> {
        let was_root = self.namespace.root_view().is_some_and(|root| root.number() == view.number());
        self.namespace.staged.happened_in(&self.namespace.views, view, |_| Event::Dropped(view.number()));
        self.namespace.namespace_changed();
        if was_root {
            self.show_again(name)?;
        }
        self.forget_tag_name(&name.0, &name.1);
        Ok(())
    }

    /// Replaces the root of a mount of a single tag by a new view of the tag.
    pub(super) fn show_again(&self, name: &TagName) -> Result<(), Error> {
        let origin = Origin::Tag(name.0.clone(), name.1.clone());
        let new = self.namespace.views.name(Key::Tag(name.0.clone(), name.1.clone()), || origin)?;
        self.replace_root(&new);
        self.namespace.views.forget(new.number(), 1);
        Ok(())
    }

    /// Makes a view the root of a mount of a single artifact, if it shows that artifact's tag.
    fn replace_root(&self, view: &Arc<View>) {
        let Root::Content(repository, Version::Tag(tag)) = &self.namespace.config.root else { return };
        if view.key() != Key::Tag(repository.clone(), tag.clone()) {
            return;
        }
        // The root is never looked up, so this is its only count.
        self.namespace.views.retain(view.number());
        let before = self.namespace.root_view.write().replace(Arc::clone(view));
        let Some(before) = before else { return };
        self.forget_children(&before);
        self.namespace.views.forget(before.number(), 1);
    }

    /// Makes the kernel forget the root of a mount and the names in it.
    fn forget_children(&self, view: &View) {
        let Some(kernel) = self.namespace.kernel.get() else { return };
        if let Some(overlay) = view.overlay() {
            // A name that is missed here expires by its own TTL.
            let _ = overlay.children(0, 0, &mut |_, name, _| {
                kernel.forget_name(ROOT, name);
                true
            });
        }
        kernel.forget_inode(ROOT);
    }

    /// Makes the kernel look up the name of a tag again.
    pub(super) fn forget_tag_name(&self, repository: &Repository, tag: &Tag) {
        let Some(kernel) = self.namespace.kernel.get() else { return };
        if let Some(node) = self.namespace.locations.number(&Location::Directory(Some(repository.clone()))) {
            kernel.forget_name(self.namespace.number(Inode::of_namespace(node)), tag.as_str().as_bytes());
        }
    }

    /// Tells the kernel what it must forget of a view. Pages of an open file stay: they belong to the open file.
    pub(super) fn forget_in_view(&self, view: &View, forgotten: Vec<Forgotten>) {
        let Some(kernel) = self.namespace.kernel.get() else { return };
        for forgotten in forgotten {
            match forgotten {
                Forgotten::Name(directory, name) => {
                    let directory = self.namespace.number(Inode::of_view(view.number(), directory));
                    kernel.forget_name(directory, &name);
                    kernel.forget_inode(directory);
                }
                Forgotten::Node(node) => {
                    let number = self.namespace.number(Inode::of_view(view.number(), node));
                    if self.handles.of_inode(number).is_none() {
                        kernel.forget_inode(number);
                    }
                }
            }
        }
    }
}
