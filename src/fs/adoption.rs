//! Adopts edits left by an earlier mount.

use std::sync::Arc;

use super::selection::{Scope, tag_of};
use super::staged_tags::StagedTags;
use super::status::reference_of;
use super::{Selection, StagedTag};
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::Tag;
use crate::staging::{TagKey, Upper};
use crate::view::Meaning;

impl StagedTags {
    /// Adopts the uppers of the state directory that this mount covers and no process holds. Makes no request. Called before the mount
    /// is announced; returns what is still staged from before. `error` says why a tag could not be adopted.
    pub(super) async fn adopt(&self) -> Vec<StagedTag> {
        self.adopt_wanted(None).await
    }

    /// The same for a command, limited to the tags it wants. A tag that another process has just taken then counts as unreadable, since the
    /// command cannot do what was requested.
    pub(super) async fn adopt_wanted(&self, wanted: Option<&Selection>) -> Vec<StagedTag> {
        let Some(uppers) = self.namespace.context.staging.clone() else { return Vec::new() };
        let origin = self.namespace.context.artifacts.origin().to_owned();
        let (root, authority, selection) = (self.namespace.config.root.clone(), self.namespace.context.authority.clone(), wanted.cloned());
        let asked = wanted.is_some();
        let found = blocking(move || {
            let (scope, selection) = (Scope { root: &root, authority: &authority }, selection.unwrap_or_default());
            let is_wanted = |tag_key: &TagKey| {
                tag_key.origin == origin
                    && tag_of(tag_key).is_some_and(|name| scope.covers(&name) && scope.part(&selection, &name).is_some())
            };
            let list = uppers.list()?.into_iter().filter_map(|listed| match listed {
                Ok(listed) if listed.holder.is_some() || !is_wanted(&listed.tag_key) => None,
                Ok(listed) => Some((uppers.find(&listed.tag_key), listed.tag_key)),
                // The command reports it itself.
                Err(_) if asked => None,
                Err(error) => {
                    tracing::warn!("cannot read staged edits: {error}");
                    None
                }
            });
            Ok(list.collect::<Vec<_>>())
        });
        let (found, odd): (Vec<_>, Vec<_>) = match found.await {
            Ok(found) => found.into_iter().partition(|(_, tag_key)| Tag::parse(&tag_key.tag).is_ok()),
            Err(error) => return vec![StagedTag { error: Some(error.to_string()), ..StagedTag::default() }],
        };
        // Edits under a tag's own name come first.
        let mut staged: Vec<StagedTag> = found.into_iter().filter_map(|(upper, tag_key)| self.adopt_one(upper, &tag_key, asked)).collect();
        staged.extend(odd.into_iter().filter_map(|(upper, tag_key)| self.adopt_retired(upper, tag_key, asked)));
        staged
    }

    /// Adopts the remains of the directory of a tag that moved while it was in use. Edits in it are those of the tag.
    fn adopt_retired(&self, upper: Result<Option<Upper>, Error>, mut tag_key: TagKey, asked: bool) -> Option<StagedTag> {
        let is_clean = |upper: &Upper| match upper.remove_if_clean() {
            Ok(removed) => removed,
            Err(error) => {
                tracing::warn!("cannot remove the old directory of a moved tag from the state directory: {error}");
                false
            }
        };
        let shown = reference_of(&self.namespace.context, &tag_key);
        let name = tag_of(&tag_key)?;
        tag_key.tag = name.1.to_string();
        match upper {
            Ok(None) => None,
            Err(error) if error.kind == ErrorKind::Busy => None,
            Ok(Some(upper)) if is_clean(&upper) => None,
            Ok(Some(upper)) => match upper.move_to(&tag_key) {
                Ok(()) => self.adopt_one(Ok(Some(upper)), &tag_key, asked),
                Err(error) => {
                    let message = format!("older edits stay beside those of {}: {error}", reference_of(&self.namespace.context, &tag_key));
                    tracing::warn!("{message}");
                    let path = self.scope().path(&name);
                    let tag = StagedTag { reference: shown, path, edited: true, error: Some(message), ..StagedTag::default() };
                    self.namespace.staged.add_older(name, tag.clone());
                    Some(tag)
                }
            },
            Err(error) => Some(StagedTag { reference: shown, error: Some(error.to_string()), ..StagedTag::default() }),
        }
    }

    fn adopt_one(&self, upper: Result<Option<Upper>, Error>, tag_key: &TagKey, asked: bool) -> Option<StagedTag> {
        let name = tag_of(tag_key)?;
        if !self.scope().covers(&name) {
            return None;
        }
        let (reference, path) = (self.reference(&name), self.scope().path(&name));
        let staged = StagedTag { reference, path, ..StagedTag::default() };
        let result = match upper.map(|upper| upper.map(|upper| (upper.remove_if_clean(), upper))) {
            // No edits, or another mount has just taken it.
            Ok(None | Some((Ok(true), _))) => return None,
            Err(error) if error.kind == ErrorKind::Busy && !asked => return None,
            Err(error) | Ok(Some((Err(error), _))) => Err(error),
            Ok(Some((Ok(false), upper))) => {
                let deleted = upper.binding().deleted;
                let names = upper.suspect_names().unwrap_or_default();
                let suspects: Vec<String> = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
                let as_staged = self.as_staged(&upper, asked);
                as_staged.and_then(|as_staged| self.stage(&name, Arc::new(upper)).map(|_| (deleted, as_staged, suspects)))
            }
        };
        match result {
            Ok((deleted, as_staged, suspects)) => {
                tracing::info!("{} has edits that are not published", staged.reference);
                if !suspects.is_empty() {
                    let (reference, count) = (&staged.reference, suspects.len());
                    tracing::warn!("{count} files of {reference} were written shortly before a power cut and may be incomplete");
                }
                Some(StagedTag { edited: true, deleted, as_staged, suspects, ..staged })
            }
            Err(error) => {
                self.namespace.staged.break_tag(name, error.to_string());
                Some(StagedTag { error: Some(error.to_string()), ..staged })
            }
        }
    }

    /// A remark on the meaning of adopted edits. Those of an ocifs that recorded none get the meaning of the flags of the
    /// mount that adopts them, from then on; a command that only `asked` for them does not fix it.
    fn as_staged(&self, upper: &Upper, asked: bool) -> Result<Option<String>, Error> {
        let own = &self.namespace.context.meaning;
        if let Some(meaning) = Meaning::of(upper)? {
            return Ok(meaning.beside(own, upper.binding()));
        }
        if !asked {
            own.record(upper)?;
        }
        Ok(Some(format!("staged by an older ocifs, taken for platform {}, kind {}", own.platform, own.kind.name())))
    }
}
