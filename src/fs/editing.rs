//! Where edits begin and end: which view of a tag they are made through, and how long the tag is held.
//!
//! The order is what keeps a mount honest: a tag that moved upstream is never edited through the directory of its old digest, and edits
//! that another mount left are shown before anything is added to them.

use std::sync::Arc;

use super::files::blocking;
use super::place::Place;
use super::staged::{StagedView, TagName};
use super::{Error, FileSystem, Inode, Key, Origin, ROOT, Root, View, read_only};
use crate::error::ErrorKind;
use crate::oci::{Repository, Tag, Version};
use crate::staging::{Binding, Subject, Upper, Uppers};
use crate::view::{Forgotten, Overlay};

impl FileSystem {
    /// Where edits are staged.
    ///
    /// # Errors
    /// `ReadOnly` on a mount that cannot be written to.
    pub(super) fn uppers(&self) -> Result<&Arc<Uppers>, Error> {
        self.context.staging.as_ref().ok_or_else(|| Error::new(ErrorKind::ReadOnly, "this mount is read-only"))
    }

    /// Whether something may be changed, as far as that is known without beginning to.
    pub(super) async fn check_writable(&self, number: u64) -> Result<(), Error> {
        self.uppers()?;
        let inode = self.inode(number);
        if inode.view() == 0 {
            return if matches!(self.place(inode)?.as_ref(), Place::Directory(_)) { Ok(()) } else { Err(read_only()) };
        }
        if matches!(self.view(inode)?.key(), Key::Tag(..)) { Ok(()) } else { Err(read_only()) }
    }

    /// The name under which edits of a tag are staged.
    pub(super) fn subject(&self, repository: &Repository, tag: &Tag) -> Subject {
        Subject {
            origin: self.context.artifacts.origin().to_owned(),
            authority: self.context.authority.to_string(),
            repository: repository.to_string(),
            tag: tag.to_string(),
        }
    }

    /// The edits of a view, begun now if there are none.
    ///
    /// # Errors
    /// `ReadOnly` where nothing can be written, Busy where another process edits the tag, Gone in the directory of a tag that has moved.
    pub(super) async fn edit(&self, view: &Arc<View>) -> Result<Arc<Overlay>, Error> {
        if let Some(overlay) = view.overlay()
            && self.staged.holds(view.number())
        {
            return Ok(Arc::clone(overlay));
        }
        self.uppers()?;
        let Key::Tag(repository, tag) = view.key() else { return Err(read_only()) };
        let is_root = self.root_view().is_some_and(|root| root.number() == view.number());
        if view.overlay().is_none() && !is_root {
            // Trouble with the network is no reason not to edit what is known; a move that was not seen is found when publishing.
            if let Err(error) = self.tag_exists(&repository, &tag).await {
                tracing::debug!("{repository}:{tag} is edited without a look at the registry: {error}");
            }
        }
        self.check_current(view, is_root)?;
        let begun = view.edit(&self.context).await;
        if let Some(upper) = view.take_given() {
            // Another mount left edits of this tag; whoever looks the tag up again finds them.
            self.stage(&(repository, tag), upper)?;
            return Err(Error::new(ErrorKind::Gone, "the tag has edits of an earlier mount; open its directory again"));
        }
        let overlay = begun?;
        self.hold(view)?;
        Ok(overlay)
    }

    fn check_current(&self, view: &View, is_root: bool) -> Result<(), Error> {
        if view.is_closed() || !(is_root || self.views.is_current(view)) {
            return Err(Error::new(ErrorKind::Gone, "the tag has moved since this directory was opened; open it again to change it"));
        }
        Ok(())
    }

    /// Keeps a view with edits in the table of tags that are to be published.
    pub(super) fn hold(&self, view: &Arc<View>) -> Result<(), Error> {
        if self.staged.holds(view.number()) {
            return Ok(());
        }
        let Key::Tag(repository, tag) = view.key() else { return Err(read_only()) };
        let is_root = self.root_view().is_some_and(|root| root.number() == view.number());
        self.check_current(view, is_root)?;
        let Some(overlay) = view.overlay() else { return Err(super::stale()) };
        let binding = overlay.binding();
        self.keep((repository, tag), view, binding);
        Ok(())
    }

    fn keep(&self, name: TagName, view: &Arc<View>, binding: Binding) {
        // One lookup more than the kernel's own keeps the view.
        if !self.views.retain(view.number()) {
            return;
        }
        let staged = StagedView { view: Arc::clone(view), deleted: binding.deleted, new: binding.expected.is_none(), conflict: None };
        if let Some(before) = self.staged.insert(name, staged) {
            self.views.forget(before.view.number(), 1);
        }
    }

    /// Shows an upper as the tag that it belongs to, through a view of its own.
    pub(super) fn stage(&self, name: &TagName, upper: Arc<Upper>) -> Result<Arc<View>, Error> {
        let (repository, tag) = name;
        let key = Key::Tag(repository.clone(), tag.clone());
        let binding = upper.binding();
        let root = self.root_view().filter(|root| root.key() == key && root.shown().is_none() && !root.is_closed());
        let view = match root {
            Some(root) => {
                self.keep(name.clone(), &root, binding);
                root
            }
            None => {
                if let Some(before) = self.views.current(&key) {
                    self.views.retire(&before);
                }
                let origin = Origin::Tag(repository.clone(), tag.clone());
                let view = self.views.name(key, || origin)?;
                self.replace_root(&view);
                self.keep(name.clone(), &view, binding);
                // The lookup that naming counted is the kernel's, which does not know the view; the one of the table stays.
                self.views.forget(view.number(), 1);
                view
            }
        };
        view.give(upper);
        self.namespace_changed();
        self.forget_tag_name(repository, tag);
        Ok(view)
    }

    /// Lets a tag go that has no edits left. Its view stays as long as the kernel knows it.
    pub(super) fn unstage(&self, name: &TagName) {
        if let Some(before) = self.staged.remove(name) {
            self.views.forget(before.view.number(), 1);
        }
        self.namespace_changed();
    }

    /// Removes what is staged of a tag, and the directory that shows it: whoever is inside gets an error, a new lookup something new.
    /// Answers whether it did.
    pub(super) async fn drop_staged(&self, name: &TagName, removal: Removal) -> Result<bool, Error> {
        let Some(staged) = self.staged.tag(&name.0, &name.1) else { return Ok(true) };
        let view = staged.view;
        let (given, overlay) = (view.given(), view.overlay().map(Arc::clone));
        let removed = blocking(move || match (overlay, given, removal) {
            (Some(overlay), _, Removal::IfEmpty) => overlay.remove_if_empty(),
            (Some(overlay), ..) => overlay.remove_all().map(|()| true),
            // Nobody looked into it yet, so nobody knows that it is empty.
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

    /// Makes new lookups of a tag get a new view, and whoever is inside the old one an error.
    pub(super) fn close_view(&self, name: &TagName, view: &Arc<View>) -> Result<(), Error> {
        let was_root = self.root_view().is_some_and(|root| root.number() == view.number());
        view.close();
        self.views.retire(view);
        self.unstage(name);
        if was_root {
            self.show_anew(name)?;
        }
        self.forget_tag_name(&name.0, &name.1);
        Ok(())
    }

    /// Makes the root of a mount that is one tag a new view of it.
    pub(super) fn show_anew(&self, name: &TagName) -> Result<(), Error> {
        let origin = Origin::Tag(name.0.clone(), name.1.clone());
        let new = self.views.name(Key::Tag(name.0.clone(), name.1.clone()), || origin)?;
        self.replace_root(&new);
        self.views.forget(new.number(), 1);
        Ok(())
    }

    /// Makes a view the root of a mount that is one artifact, where it shows that artifact's tag.
    fn replace_root(&self, view: &Arc<View>) {
        let Root::Content(repository, Version::Tag(tag)) = &self.config.root else { return };
        if view.key() != Key::Tag(repository.clone(), tag.clone()) {
            return;
        }
        // The root is never looked up, so nobody else counts it.
        self.views.retain(view.number());
        let before = self.root_view.write().unwrap_or_else(std::sync::PoisonError::into_inner).replace(Arc::clone(view));
        let Some(before) = before else { return };
        self.forget_children(&before);
        self.views.forget(before.number(), 1);
    }

    /// Makes the kernel forget the root of a mount and the names in it.
    fn forget_children(&self, view: &View) {
        let Some(kernel) = self.kernel.get() else { return };
        if let Some(overlay) = view.overlay() {
            // A name that is not told is asked for again within its own time.
            let _ = overlay.children(0, 0, &mut |_, name, _| {
                kernel.forget_name(ROOT, name);
                true
            });
        }
        kernel.forget_inode(ROOT);
    }

    /// Makes the kernel ask again for the name of a tag.
    pub(super) fn forget_tag_name(&self, repository: &Repository, tag: &Tag) {
        let Some(kernel) = self.kernel.get() else { return };
        if let Some(node) = self.places.number(&Place::Directory(Some(repository.clone()))) {
            kernel.forget_name(self.number(Inode::of_namespace(node)), tag.as_str().as_bytes());
        }
    }

    /// Tells the kernel what it must forget of a view. Pages of a file that is open stay: they are the open file's own.
    pub(super) fn forget_in_view(&self, view: &View, forgotten: Vec<Forgotten>) {
        let Some(kernel) = self.kernel.get() else { return };
        for forgotten in forgotten {
            match forgotten {
                Forgotten::Name(directory, name) => {
                    let directory = self.number(Inode::of_view(view.number(), directory));
                    kernel.forget_name(directory, &name);
                    kernel.forget_inode(directory);
                }
                Forgotten::Node(node) => {
                    let number = self.number(Inode::of_view(view.number(), node));
                    if self.handles.of_inode(number).is_none() {
                        kernel.forget_inode(number);
                    }
                }
            }
        }
    }

    /// Forgets what directories of the namespace were seen to hold.
    pub(super) fn namespace_changed(&self) {
        self.places.unsettle();
        *self.source_tags() = None;
    }

    /// Retires the view of a tag that moved, unless it was edited meanwhile.
    pub(super) fn retire(&self, view: &Arc<View>) {
        if let (Some(overlay), Some(mut subject)) = (view.overlay(), view.subject(&self.context)) {
            // No tag has such a name. The directory goes with the last who is inside.
            subject.tag = format!("{}@{}", subject.tag, view.number());
            match overlay.retire(&subject) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::warn!("the directory of a tag that moved still holds its name: {error}"),
            }
        }
        self.views.retire(view);
    }
}

/// What of a tag's edits is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// All of them: somebody takes them back.
    Everything,
    /// Nothing unless the tag is empty.
    IfEmpty,
}

/// What is staged for the tag of a view, shown already or not.
pub(super) fn upper_of(view: &View) -> Option<Arc<Upper>> {
    view.overlay().map(|overlay| overlay.shared_upper()).or_else(|| view.given())
}
