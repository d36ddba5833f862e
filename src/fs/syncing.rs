//! Publishes staged tags one after another, and applies the result to their directories.

use std::sync::Arc;

use super::editing::Claimed;
use super::selection::Selected;
use super::staged_tags::StagedTags;
use super::tag_state::Claim;
use super::tag_table::TagName;
use super::{Root, Selection};
use crate::content::Lent;
use crate::error::{Error, ErrorKind};
use crate::oci::{Repository, Version};
use crate::publish::{Listener, Next, Options, Publisher, Report};
use crate::seal::Passphrase;
use crate::view::Meaning;

impl StagedTags {
    /// Tries these passphrases before the mount's own until the returned value is dropped.
    pub(super) fn lend(&self, passphrases: Vec<Passphrase>) -> Lent {
        self.namespace.context.artifacts.lend(passphrases)
    }

    /// Publishes the selected tags, one after another; a failed one does not stop the others. Dropping the future stops it.
    pub(super) async fn sync(&self, selection: &Selection, options: &Options, listener: &Listener) -> Result<Vec<Report>, Error> {
        let Some(publisher) = &self.publisher else {
            return Err(Error::new(ErrorKind::ReadOnly, "this mount is read-only"));
        };
        let _turn = self.publishing.acquire().await.map_err(|_| super::refusals::stale())?;
        let selected = self.select(selection).await?;
        if options.as_tag.is_some() && selected.len() > 1 {
            return Err(several_under_one_name());
        }
        let mut reports = Vec::new();
        for Selected { name, staged, .. } in selected {
            let is_named = !matches!(selection, Selection::All) || options.force;
            if !is_named && self.namespace.staged.is_doubtful(&name.0) {
                reports.push(Report::failed(self.reference(&name), ErrorKind::Skipped, doubtful(&name.0)));
                continue;
            }
            let published = match staged.map(|_| self.claim(&name, Claim::Publish)) {
                Ok(Ok(claimed)) => self.publish_one(publisher, &name, claimed, options, listener).await,
                // Discarded, renamed or published since it was selected.
                Ok(Err(error)) if error.kind == ErrorKind::NotFound => continue,
                Ok(Err(error)) => Err(error),
                Err(why) => Err(Error::integrity(why)),
            };
            reports.push(published.unwrap_or_else(|error| {
                self.namespace.staged.set_conflict(&name, (error.kind == ErrorKind::Conflict).then(|| error.to_string()));
                Report::failed(self.reference(&name), error.kind, error.message.into_owned())
            }));
        }
        Ok(reports)
    }

    async fn publish_one(
        &self,
        publisher: &Publisher,
        name: &TagName,
        claimed: Claimed<'_>,
        options: &Options,
        listener: &Listener,
    ) -> Result<Report, Error> {
        let overlay = self.overlay_of(&claimed.staged).await?;
        let context = self.namespace.context.of_upper(overlay.upper())?;
        let Meaning { kind, allow_delete, .. } = context.meaning;
        if context.meaning.is_sealed()
            && !self.namespace.context.meaning.encrypted
            && !self.namespace.context.artifacts.has_keys()
            && options.as_kind.is_none()
            && overlay.binding().expected.is_none()
        {
            let message =
                "it was staged as encrypted and no passphrase was given; give one, or publish it unencrypted with --as-kind oci-sync";
            return Err(Error::new(ErrorKind::KeyMissing, message));
        }
        let publisher = Publisher { context: Arc::new(context), kind, ..publisher.clone() };
        let plaintext = options.plaintext || self.namespace.config.writing.as_ref().is_some_and(|writing| writing.plaintext);
        let options = Options { allow_delete: options.allow_delete || allow_delete, plaintext, ..options.clone() };
        let (report, next) = publisher.publish(&overlay, &options, listener).await?;
        if !options.dry_run {
            // The repository exists upstream now, whatever happens to its tags.
            self.namespace.staged.drop_repository(&name.0);
            let view = Arc::clone(&claimed.staged.view);
            self.follow(name, claimed, next)?;
            self.free(&view).await;
        }
        Ok(report)
    }

    /// Applies a publish to the tag's directory, then releases the tag: without edits it follows upstream.
    fn follow(&self, name: &TagName, claimed: Claimed<'_>, next: Next) -> Result<(), Error> {
        let view = Arc::clone(&claimed.staged.view);
        match next {
            Next::Continues { .. } => {
                self.namespace.staged.set_conflict(name, None);
                Ok(())
            }
            Next::NewView => self.close_view(name, &view),
            Next::Moved(tag) => {
                let to = (name.0.clone(), tag);
                let is_root = matches!(&self.namespace.config.root, Root::Content(repository, Version::Tag(tag)) if (repository, tag) == (&name.0, &name.1));
                self.namespace.staged.rename(&self.namespace.views, name, &to);
                self.namespace.staged.set_conflict(&to, None);
                drop(claimed);
                if is_root {
                    self.show_again(name)?;
                }
                self.forget_tag_name(&name.0, &name.1);
                self.forget_tag_name(&to.0, &to.1);
                Ok(())
            }
        }
    }
}

/// Why tags of a repository are published only if named.
fn doubtful(repository: &Repository) -> String {
    format!(
        "skipped: {repository} is a new repository in which files were refused, so its tags may be directories copied one level too high \
         (files belong in REPOSITORY/TAG/); `ocifs discard` drops them, `ocifs sync --force` publishes them"
    )
}

/// Why `--as` is refused for more than one tag.
pub fn several_under_one_name() -> Error {
    Error::new(ErrorKind::Invalid, "several tags cannot be published under one name; name one of them")
}
