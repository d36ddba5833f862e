//! Counts staged edits: `status` in plain data.

use std::sync::Arc;

use bytes::Bytes;

use super::selection::Selected;
use super::staged_tags::StagedTags;
use super::tag_table::StagedView;
use super::{Selection, StagedTag};
use crate::artifact::Kind;
use crate::blocking::blocking;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Repository};
use crate::publish::{IGNORE_FILE, IGNORE_LIMIT, LeftOut};
use crate::staging::{Counts, TagKey, Upper};
use crate::view::{Context, Difference, Meaning, Overlay, PathState};

/// Counts the staged edits of one tag. The path is filled in by the mount.
async fn staged_tag(context: &Context, overlay: &Arc<Overlay>) -> StagedTag {
    let (tag_key, binding) = (overlay.tag_key(), overlay.binding());
    let meaning = Meaning::of(overlay.upper()).ok().flatten();
    let mut tag = StagedTag {
        as_staged: meaning.and_then(|meaning| meaning.beside(&context.meaning, binding)),
        reference: reference_of(context, &tag_key),
        edited: overlay.is_edited(),
        deleted: binding.deleted,
        writers: overlay.has_writers(),
        encrypted: is_encrypted(context, &tag_key, binding.expected).await,
        ..StagedTag::default()
    };
    if binding.deleted {
        return tag;
    }
    match overlay.suspects() {
        Ok(paths) => tag.suspects = shown(&paths),
        Err(error) => tag.error = Some(error.to_string()),
    }
    if let Err(error) = count_all(context, overlay, &mut tag).await {
        let overlay = Arc::clone(overlay);
        estimate(error, blocking(move || overlay.upper().counts()), &mut tag).await;
    }
    tag
}

/// One tag that cannot be laid over its artifact, because of error `why`.
async fn unentered_tag(context: &Context, upper: Arc<Upper>, why: Error) -> StagedTag {
    let (binding, meaning) = (upper.binding(), Meaning::of(&upper).ok().flatten());
    let mut tag = StagedTag {
        as_staged: meaning.and_then(|meaning| meaning.beside(&context.meaning, binding)),
        edited: true,
        deleted: binding.deleted,
        suspects: shown(&upper.suspect_names().unwrap_or_default()),
        ..StagedTag::default()
    };
    if !binding.deleted {
        estimate(why, blocking(move || upper.counts()), &mut tag).await;
    }
    tag
}

/// Counts from the edits alone if the registry did not answer. Every other error is shown to the user.
async fn estimate(why: Error, counting: impl Future<Output = Result<Counts, Error>>, tag: &mut StagedTag) {
    if !matches!(why.kind, ErrorKind::Unreachable | ErrorKind::TimedOut) {
        tag.error = Some(why.to_string());
        return;
    }
    match counting.await {
        Ok(Counts { added, changed, removed, bytes }) => {
            (tag.added, tag.changed, tag.removed, tag.bytes, tag.estimated) = (added, changed, removed, bytes, true);
        }
        Err(error) => tag.error = Some(error.to_string()),
    }
}

fn shown(paths: &[Vec<u8>]) -> Vec<String> {
    paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

/// Counts what differs from upstream.
async fn count_all(context: &Context, overlay: &Arc<Overlay>, tag: &mut StagedTag) -> Result<(), Error> {
    let differences = overlay.differences().await?;
    let mut left_out = LeftOut::new(&ignore_file(context, overlay).await?, overlay.binding().expected.is_some());
    for difference in &differences {
        count(tag, difference);
        let is_upstream = difference.state == PathState::Changed;
        let is_there = is_upstream || difference.state == PathState::Added;
        if is_there && left_out.has(&difference.path, difference.kind, difference.after.unwrap_or(0), is_upstream) {
            tag.ignored += u64::from(difference.kind != Kind::Directory);
        }
    }
    Ok(())
}

/// The ignore patterns of the tag itself.
async fn ignore_file(context: &Context, overlay: &Arc<Overlay>) -> Result<Bytes, Error> {
    match overlay.lookup(0, IGNORE_FILE)? {
        Some(node) if overlay.attributes(context, node)?.kind == Kind::File => {
            overlay.open_reader(context, node).await?.read(0, IGNORE_LIMIT).await
        }
        _ => Ok(Bytes::new()),
    }
}

fn count(tag: &mut StagedTag, difference: &Difference) {
    match difference.state {
        PathState::Clean => {}
        PathState::Added => tag.added += 1,
        PathState::Changed => tag.changed += 1,
        PathState::Removed => tag.removed += 1,
    }
    if matches!(difference.state, PathState::Added | PathState::Changed) && difference.kind == Kind::File {
        tag.bytes = tag.bytes.saturating_add(difference.after.unwrap_or(0));
    }
}

pub(super) fn reference_of(context: &Context, tag_key: &TagKey) -> String {
    let repository = Repository::parse(&tag_key.repository).ok();
    format!("{}:{}", context.authority.reference(repository.as_ref()), tag_key.tag)
}

/// Whether the upstream artifact is encrypted, as far as its manifest is known.
async fn is_encrypted(context: &Context, tag_key: &TagKey, digest: Option<Digest>) -> bool {
    let (Some(digest), Ok(repository)) = (digest, Repository::parse(&tag_key.repository)) else { return false };
    let manifest = context.artifacts.manifest(&repository, &digest).await;
    manifest.is_ok_and(|manifest| {
        let says = |key: &str| manifest.annotations().get(key).map(String::as_str);
        says("io.oci-sync.encrypted") == Some("true") || says("dev.ocifs.seal").is_some()
    })
}

impl StagedTags {
    /// The tags staged by this mount, by path.
    pub(super) async fn staged(&self) -> Vec<StagedTag> {
        self.staged_all(self.selected(&Selection::All), &Selection::All).await
    }

    /// The number of them, without looking into any.
    pub(super) fn staged_count(&self) -> usize {
        self.selected(&Selection::All).len() + self.namespace.staged.older().len()
    }

    /// Those that a command selects.
    pub(super) async fn staged_of(&self, selection: &Selection) -> Result<Vec<StagedTag>, Error> {
        Ok(self.staged_all(self.select(selection).await?, selection).await)
    }

    async fn staged_all(&self, selected: Vec<Selected>, selection: &Selection) -> Vec<StagedTag> {
        let older = self.namespace.staged.older().into_iter().filter(|(name, _)| self.scope().part(selection, name).is_some());
        let mut tags: Vec<StagedTag> = older.map(|(_, tag)| tag).collect();
        for Selected { name, staged, .. } in selected {
            let mut tag = match staged {
                Ok(staged) => self.staged_one(staged).await,
                Err(why) => StagedTag { error: Some(why), ..StagedTag::default() },
            };
            (tag.reference, tag.path) = (self.reference(&name), self.scope().path(&name));
            tags.push(tag);
        }
        tags.sort_by(|one, other| one.path.cmp(&other.path));
        tags
    }

    async fn staged_one(&self, staged: StagedView) -> StagedTag {
        let tag = match self.overlay_of(&staged).await {
            Ok(overlay) => staged_tag(&self.namespace.context, &overlay).await,
            Err(error) => match staged.view.given() {
                Some(upper) => unentered_tag(&self.namespace.context, upper, error).await,
                None => StagedTag { edited: true, deleted: staged.deleted, error: Some(error.to_string()), ..StagedTag::default() },
            },
        };
        StagedTag { conflict: staged.conflict, ..tag }
    }
}
