//! Commands on staged tags: comparing, discarding, creating, and the end of a mount.
//!
//! Concerns one mount's tags only; tags held by another mount or process are neither shown nor touched. Never waits for the kernel.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Selection;
use super::editing::Removal;
use super::open_files::OpenFiles;
use super::selection::Selected;
use super::staged_tags::StagedTags;
use super::tag_state::Claim;
use super::tag_table::{StagedView, TagName};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::path::is_within;
use crate::view::{Difference, Overlay};

impl StagedTags {
    /// The edits of a staged tag, laid over their tree now if it was not entered yet.
    pub(super) async fn overlay_of(&self, staged: &StagedView) -> Result<Arc<Overlay>, Error> {
        self.namespace.enter(&staged.view).await?;
        staged.view.begun().await.map(Arc::clone).ok_or_else(super::refusals::stale)
    }

    /// The differences from upstream, by tag.
    pub(super) async fn differences(&self, selection: &Selection) -> Result<Vec<(String, Vec<Difference>)>, Error> {
        let mut tags = Vec::new();
        for Selected { name, staged, part } in self.select(selection).await? {
            let reference = self.reference(&name);
            let found = async { self.overlay_of(&readable(staged)?).await?.differences().await };
            let mut differences = found.await.map_err(|error| about(&reference, error))?;
            differences.retain(|difference| is_within(&difference.path, &part));
            tags.push((reference, differences));
        }
        Ok(tags)
    }

    /// Discards the selected edits (for a path inside a tag: those below it) and returns the references of the tags concerned.
    pub(super) async fn discard(&self, selection: &Selection) -> Result<Vec<String>, Error> {
        let mut references = Vec::new();
        for Selected { name, staged, part } in self.select(selection).await? {
            let reference = self.reference(&name);
            let discarded = match staged {
                Err(_) if part.is_empty() => self.give_up(&name).await.map(|()| true),
                staged => {
                    async {
                        readable(staged)?;
                        self.discard_one(&name, part).await
                    }
                    .await
                }
            };
            if discarded.map_err(|error| about(&reference, error))? {
                references.push(reference);
            }
            if self.namespace.staged.of_repository(&name.0).is_empty() {
                self.namespace.staged.set_doubtful(&name.0, false);
            }
        }
        Ok(references)
    }

    /// Returns whether there were any edits.
    async fn discard_one(&self, name: &TagName, part: Vec<u8>) -> Result<bool, Error> {
        let claimed = match self.claim(name, Claim::Whole) {
            // Published or discarded since it was selected.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
            claimed => claimed?,
        };
        let (whole, staged) = (part.is_empty(), &claimed.staged);
        // No process can be inside if no kernel shows it.
        let unseen = staged.view.overlay().is_none() && self.namespace.kernel.get().is_none();
        let gone = whole && (staged.new || staged.deleted || unseen);
        let shown = if gone { None } else { Some(self.overlay_of(staged).await) };
        let overlay = match shown {
            Some(Err(error)) if !whole => return Err(error),
            Some(Ok(overlay)) => overlay,
            // Also the way to remove edits that cannot be shown.
            None | Some(Err(_)) => return self.drop_claimed(name, &claimed, Removal::Everything).await,
        };
        overlay.fetch_expected().await?;
        let view = Arc::clone(&staged.view);
        let (tell, mut told) = mpsc::channel(1);
        // Without a listener there is nobody to report to: the command was cancelled.
        let discarding = blocking(move || overlay.discard(&part, &mut |forgotten| drop(tell.blocking_send(forgotten))));
        let telling = async {
            while let Some(forgotten) = told.recv().await {
                self.forget_in_view(&view, forgotten);
            }
        };
        tokio::join!(discarding, telling).0?;
        drop(claimed);
        self.free(&view).await;
        Ok(true)
    }

    /// Removes unreadable edits.
    async fn give_up(&self, name: &TagName) -> Result<(), Error> {
        let (uppers, tag_key) = (Arc::clone(self.uppers()?), self.tag_key(&name.0, &name.1));
        blocking(move || uppers.give_up(&tag_key)).await?;
        self.namespace.staged.mend_tag(name);
        Ok(())
    }

    /// Stages an empty tag, whose repository need not exist, and returns its path below the mount.
    pub(super) async fn new_tag(&self, reference: &str) -> Result<String, Error> {
        self.uppers()?;
        let scope = self.scope();
        let Some(name) = scope.tag(reference) else {
            return Err(Error::new(ErrorKind::Invalid, format!("{reference:?} is not a tag of {}", self.namespace.context.authority)));
        };
        if !scope.covers(&name) {
            return Err(Error::new(ErrorKind::Invalid, format!("{reference:?} is not below the mounted source")));
        }
        let (repository, tag) = &name;
        match self.namespace.tag_exists(repository, tag).await {
            Ok(false) => {}
            Ok(true) => return Err(Error::new(ErrorKind::Exists, format!("{repository}:{tag} exists"))),
            // Most registries answer this for a missing repository. A sync never overwrites an existing tag anyway.
            Err(error) if error.kind == ErrorKind::Denied => tracing::info!("{repository}:{tag} is assumed to be new: {error}"),
            Err(error) => return Err(error),
        }
        self.make_tag(&name).await?;
        self.forget_tag_name(repository, tag);
        Ok(self.scope().path(&name))
    }
}

impl OpenFiles {
    /// Closes everything open, once the kernel sends no more requests, so that a disconnected writer keeps no tag from being
    /// published.
    pub(super) fn disconnect(&self) {
        self.handles.close_all();
        self.unopened.clear();
    }

    /// Removes staged tags without edits and makes the rest durable. The last action of a mount.
    pub(super) async fn close(&self) {
        self.disconnect();
        let edited: Vec<Arc<Overlay>> = self.namespace.views.all().iter().filter_map(|view| view.overlay().map(Arc::clone)).collect();
        let removed = blocking(move || {
            for overlay in edited {
                // What stays survives a power cut from now on.
                let result = match overlay.remove_if_clean() {
                    Ok(false) => overlay.upper().sync_all(),
                    other => other.map(|_| ()),
                };
                if let Err(error) = result
                    && error.kind != ErrorKind::Gone
                {
                    tracing::warn!("cannot save the edits in the state directory: {error}");
                }
            }
            Ok(())
        });
        // This never fails.
        let _ = removed.await;
    }
}

/// The edits of a tag.
///
/// # Errors
/// Why they are unreadable.
fn readable(staged: Result<StagedView, String>) -> Result<StagedView, Error> {
    staged.map_err(|why| Error::new(ErrorKind::Integrity, why))
}

/// Adds the tag to an error, unless it names it already.
fn about(reference: &str, error: Error) -> Error {
    if error.message.contains(reference) { error } else { error.context(reference) }
}
