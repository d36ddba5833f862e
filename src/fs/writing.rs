//! Staged tags as commands see them: what is staged, publishing it, comparing it, taking it back.
//!
//! Works on one mount's tags only; what another mount or process holds is neither shown nor touched. Never waits for the kernel.

use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::editing::Removal;
use super::files::blocking;
use super::selection::{Scope, Selected, tag_of};
use super::staged::{StagedView, TagName};
use super::tag_state::Claim;
use super::{Error, FileSystem, Selection};
use crate::artifact::Kind;
use crate::error::ErrorKind;
use crate::oci::{Digest, Repository, Tag};
use crate::publish::is_dropping;
use crate::registry::Push;
use crate::staging::{self, Subject, Upper, Uppers};
use crate::view::{Context, Difference, Meaning, Overlay, State};

/// What a mount that can be written to needs besides.
pub struct Writing {
    /// Where edits are staged.
    pub uppers: Arc<Uppers>,
    /// Where they are published.
    pub push: Arc<dyn Push>,
    /// Blobs sent at a time.
    pub concurrency: NonZeroUsize,
    /// What encrypted artifacts hold may be published in clear.
    pub plaintext: bool,
}

/// One tag with edits. Keys are stable: scripts read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StagedTag {
    /// Its reference.
    pub reference: String,
    /// Where it is below the mount; empty for the mount itself.
    pub path: String,
    /// Something differs from what was published last.
    pub edited: bool,
    /// Names that upstream lacks.
    pub added: u64,
    /// Names whose content or attributes differ.
    pub changed: u64,
    /// Names that are gone here.
    pub removed: u64,
    /// Staged bytes.
    pub bytes: u64,
    /// Names that a sync leaves out, such as `.DS_Store`.
    pub droppings: u64,
    /// The tag was deleted here.
    pub deleted: bool,
    /// Files that are open for writing.
    pub writers: bool,
    /// What is upstream is encrypted; the edits are not until they are published.
    pub encrypted: bool,
    /// Paths of files whose bytes a power cut may have damaged; a sync asks for `--force`.
    pub suspects: Vec<String>,
    /// Why the last sync refused, where the tag moved upstream.
    pub conflict: Option<String>,
    /// What of its edits means something else than this mount's flags say, in words.
    pub as_staged: Option<String>,
    /// Why it cannot be read, where that is so. The figures are 0 then.
    pub error: Option<String>,
}

/// What is staged of one tag, counted. The path is the mount's to say.
async fn staged_tag(context: &Context, overlay: &Arc<Overlay>) -> StagedTag {
    let (subject, binding) = (overlay.subject(), overlay.binding());
    let meaning = Meaning::of(overlay.upper()).ok().flatten();
    let mut tag = StagedTag {
        as_staged: meaning.and_then(|meaning| meaning.beside(&context.meaning, binding)),
        reference: reference_of(context, &subject),
        edited: overlay.is_edited(),
        deleted: binding.deleted,
        writers: overlay.has_writers(),
        encrypted: is_encrypted(context, &subject, binding.expected).await,
        ..StagedTag::default()
    };
    if binding.deleted {
        return tag;
    }
    match overlay.suspects() {
        Ok(paths) => tag.suspects = paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect(),
        Err(error) => tag.error = Some(error.to_string()),
    }
    match overlay.differences(context).await {
        Ok(differences) => {
            let has_base = binding.expected.or(binding.under).is_some();
            differences.iter().for_each(|difference| count(&mut tag, difference, has_base));
        }
        Err(error) => tag.error = Some(error.to_string()),
    }
    tag
}

fn count(tag: &mut StagedTag, difference: &Difference, has_base: bool) {
    match difference.state {
        State::Clean => {}
        State::Added => tag.added += 1,
        State::Changed => tag.changed += 1,
        State::Removed => tag.removed += 1,
    }
    if matches!(difference.state, State::Added | State::Changed) && difference.kind == Kind::File {
        tag.bytes = tag.bytes.saturating_add(difference.after.unwrap_or(0));
    }
    if difference.state == State::Added && is_dropping(&difference.path, difference.kind, difference.after.unwrap_or(0), has_base) {
        tag.droppings += 1;
    }
}

fn reference_of(context: &Context, subject: &Subject) -> String {
    let repository = Repository::parse(&subject.repository).ok();
    format!("{}:{}", context.authority.reference(repository.as_ref()), subject.tag)
}

/// Whether what is upstream is encrypted, as far as its manifest is known.
async fn is_encrypted(context: &Context, subject: &Subject, digest: Option<Digest>) -> bool {
    let (Some(digest), Ok(repository)) = (digest, Repository::parse(&subject.repository)) else { return false };
    let manifest = context.artifacts.manifest(&repository, &digest).await;
    manifest.is_ok_and(|manifest| {
        let says = |key: &str| manifest.annotations().get(key).map(String::as_str);
        says("io.oci-sync.encrypted") == Some("true") || says("dev.ocifs.seal").is_some()
    })
}

impl FileSystem {
    /// Takes over the uppers of the state directory that this mount covers and nobody holds. Asks no registry. Called before the mount
    /// is announced; answers what is still staged from before. `error` says what could not be taken over.
    pub async fn adopt(&self) -> Vec<StagedTag> {
        self.adopt_wanted(None).await
    }

    /// The same for a command, which means some of them. One that another process took just now counts as unreadable then, since the
    /// command cannot do what it was asked for.
    pub async fn adopt_wanted(&self, wanted: Option<&Selection>) -> Vec<StagedTag> {
        let Some(uppers) = self.context.staging.clone() else { return Vec::new() };
        let origin = self.context.artifacts.origin().to_owned();
        let (root, authority, selection) = (self.config.root.clone(), self.context.authority.clone(), wanted.cloned());
        let asked = wanted.is_some();
        let found = blocking(move || {
            let (scope, selection) = (Scope { root: &root, authority: &authority }, selection.unwrap_or_default());
            let is_wanted = |subject: &Subject| {
                subject.origin == origin
                    && tag_of(subject).is_some_and(|name| scope.covers(&name) && scope.meant(&selection, &name).is_some())
            };
            let list = uppers.list()?.into_iter().filter_map(|listed| match listed {
                Ok(listed) if listed.holder.is_some() || !is_wanted(&listed.subject) => None,
                Ok(listed) => Some((uppers.find(&listed.subject), listed.subject)),
                // A command says so itself.
                Err(_) if asked => None,
                Err(error) => {
                    tracing::warn!("staged edits that cannot be read: {error}");
                    None
                }
            });
            Ok(list.collect::<Vec<_>>())
        });
        let (found, odd): (Vec<_>, Vec<_>) = match found.await {
            Ok(found) => found.into_iter().partition(|(_, subject)| Tag::parse(&subject.tag).is_ok()),
            Err(error) => return vec![StagedTag { error: Some(error.to_string()), ..StagedTag::default() }],
        };
        // What a tag's own name holds goes first.
        let mut staged: Vec<StagedTag> = found.into_iter().filter_map(|(upper, subject)| self.adopt_one(upper, &subject, asked)).collect();
        staged.extend(odd.into_iter().filter_map(|(upper, subject)| self.adopt_retired(upper, subject, asked)));
        staged
    }

    /// Takes over what is left of the directory of a tag that moved while somebody was inside. Edits in it are those of the tag.
    fn adopt_retired(&self, upper: Result<Option<Upper>, staging::Error>, mut subject: Subject, asked: bool) -> Option<StagedTag> {
        let is_clean = |upper: &Upper| match upper.remove_if_clean() {
            Ok(removed) => removed,
            Err(error) => {
                tracing::warn!("a directory of a tag that moved stays in the state directory: {error}");
                false
            }
        };
        let shown = reference_of(&self.context, &subject);
        let (_, tag) = tag_of(&subject)?;
        subject.tag = tag.to_string();
        match upper {
            Ok(None) => None,
            Err(error) if error.kind == ErrorKind::Busy => None,
            Ok(Some(upper)) if is_clean(&upper) => None,
            Ok(Some(upper)) => match upper.move_to(&subject) {
                Ok(()) => self.adopt_one(Ok(Some(upper)), &subject, asked),
                Err(error) => {
                    let message = format!("older edits stay beside those of {}: {error}", reference_of(&self.context, &subject));
                    tracing::warn!("{message}");
                    Some(StagedTag { reference: shown, edited: true, error: Some(message), ..StagedTag::default() })
                }
            },
            Err(error) => Some(StagedTag { reference: shown, error: Some(error.to_string()), ..StagedTag::default() }),
        }
    }

    fn adopt_one(&self, upper: Result<Option<Upper>, staging::Error>, subject: &Subject, asked: bool) -> Option<StagedTag> {
        let name = tag_of(subject)?;
        if !self.scope().covers(&name) {
            return None;
        }
        let (reference, path) = (self.reference(&name), self.scope().path(&name));
        let staged = StagedTag { reference, path, ..StagedTag::default() };
        let result = match upper.map(|upper| upper.map(|upper| (upper.remove_if_clean(), upper))) {
            // Without edits, or another mount took it just now.
            Ok(None | Some((Ok(true), _))) => return None,
            Err(error) if error.kind == ErrorKind::Busy && !asked => return None,
            Err(error) | Ok(Some((Err(error), _))) => Err(Error::from(error)),
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
                self.staged.break_tag(name, error.to_string());
                Some(StagedTag { error: Some(error.to_string()), ..staged })
            }
        }
    }

    /// What is to be said of the meaning of edits that are taken over. Those of an ocifs that recorded none mean what the flags of the
    /// mount say that takes them over, from then on; a command that only `asked` for them does not settle that.
    fn as_staged(&self, upper: &Upper, asked: bool) -> Result<Option<String>, Error> {
        let own = &self.context.meaning;
        if let Some(meaning) = Meaning::of(upper)? {
            return Ok(meaning.beside(own, upper.binding()));
        }
        if !asked {
            own.record(upper)?;
        }
        Ok(Some(format!("staged by an older ocifs, taken for platform {}, kind {}", own.platform, own.kind.name())))
    }

    /// The tags that are staged by this mount, by path.
    pub async fn staged(&self) -> Vec<StagedTag> {
        self.count_all(self.selected(&Selection::All)).await
    }

    /// Those that a command means.
    ///
    /// # Errors
    /// As [`FileSystem::sync`].
    pub async fn staged_of(&self, selection: &Selection) -> Result<Vec<StagedTag>, Error> {
        Ok(self.count_all(self.select(selection).await?).await)
    }

    async fn count_all(&self, selected: Vec<Selected>) -> Vec<StagedTag> {
        let mut tags = Vec::new();
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
            Ok(overlay) => staged_tag(&self.context, &overlay).await,
            Err(error) => StagedTag { edited: true, deleted: staged.deleted, error: Some(error.to_string()), ..StagedTag::default() },
        };
        StagedTag { conflict: staged.conflict, ..tag }
    }

    /// The edits of a staged tag, laid over their tree now if nobody has entered it yet.
    pub(super) async fn overlay_of(&self, staged: &StagedView) -> Result<Arc<Overlay>, Error> {
        self.enter(&staged.view).await?;
        staged.view.overlay().map(Arc::clone).ok_or_else(super::stale)
    }

    /// What differs from upstream, by tag.
    ///
    /// # Errors
    /// As [`FileSystem::sync`], and what reading the trees says.
    pub async fn differences(&self, selection: &Selection) -> Result<Vec<(String, Vec<Difference>)>, Error> {
        let mut tags = Vec::new();
        for Selected { name, staged, below } in self.select(selection).await? {
            let reference = self.reference(&name);
            let found = async { self.overlay_of(&readable(staged)?).await?.differences(&self.context).await };
            let mut differences = found.await.map_err(|error| about(&reference, error))?;
            differences.retain(|difference| is_at(&difference.path, below.as_bytes()));
            tags.push((reference, differences));
        }
        Ok(tags)
    }

    /// Takes back what is selected (a path inside a tag: what is below it) and answers the references of the tags concerned.
    ///
    /// # Errors
    /// As [`FileSystem::sync`].
    pub async fn discard(&self, selection: &Selection) -> Result<Vec<String>, Error> {
        let mut references = Vec::new();
        for Selected { name, staged, below } in self.select(selection).await? {
            let reference = self.reference(&name);
            let discarded = match staged {
                Err(_) if below.is_empty() => self.give_up(&name).await.map(|()| true),
                staged => {
                    async {
                        readable(staged)?;
                        self.discard_one(&name, below).await
                    }
                    .await
                }
            };
            if discarded.map_err(|error| about(&reference, error))? {
                references.push(reference);
            }
        }
        Ok(references)
    }

    /// Answers whether there were any edits.
    async fn discard_one(&self, name: &TagName, below: String) -> Result<bool, Error> {
        let claimed = match self.claim(name, Claim::Whole) {
            // Published or taken back since it was selected.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
            claimed => claimed?,
        };
        let (whole, staged) = (below.is_empty(), &claimed.staged);
        // Nobody is inside of what no kernel shows.
        let unseen = staged.view.overlay().is_none() && self.kernel.get().is_none();
        let gone = whole && (staged.new || staged.deleted || unseen);
        let shown = if gone { None } else { Some(self.overlay_of(staged).await) };
        let overlay = match shown {
            Some(Err(error)) if !whole => return Err(error),
            Some(Ok(overlay)) => overlay,
            // Also the way out for what cannot be shown.
            None | Some(Err(_)) => return self.drop_claimed(name, &claimed, Removal::Everything).await,
        };
        overlay.fetch_expected().await?;
        let forgotten = blocking(move || overlay.discard(below.as_bytes())).await?;
        let view = Arc::clone(&staged.view);
        self.forget_in_view(&view, forgotten);
        drop(claimed);
        self.free(&view).await;
        Ok(true)
    }

    /// Removes edits that cannot be read.
    async fn give_up(&self, name: &TagName) -> Result<(), Error> {
        let (uppers, subject) = (Arc::clone(self.uppers()?), self.subject(&name.0, &name.1));
        blocking(move || Ok(uppers.give_up(&subject)?)).await?;
        self.staged.mend_tag(name);
        Ok(())
    }

    /// Stages an empty tag, of a repository that need not exist, and answers its path below the mount.
    ///
    /// # Errors
    /// Invalid where the mount does not cover the reference, Exists where it is a tag already, ReadOnly, Busy.
    pub async fn new_tag(&self, reference: &str) -> Result<String, Error> {
        self.uppers()?;
        let scope = self.scope();
        let Some(name) = scope.tag(reference) else {
            return Err(Error::new(ErrorKind::Invalid, format!("{reference:?} names no tag of {}", self.context.authority)));
        };
        if !scope.covers(&name) {
            return Err(Error::new(ErrorKind::Invalid, format!("{reference:?} is not below what is mounted")));
        }
        let (repository, tag) = &name;
        match self.tag_exists(repository, tag).await {
            Ok(false) => {}
            Ok(true) => return Err(Error::new(ErrorKind::Exists, format!("{repository}:{tag} exists"))),
            // How most registries answer for what does not exist. What is there after all is never overwritten by a sync.
            Err(error) if error.kind == ErrorKind::Denied => tracing::info!("{repository}:{tag} is taken for new: {error}"),
            Err(error) => return Err(error),
        }
        self.make_tag(&name).await?;
        Ok(self.scope().path(&name))
    }

    /// Closes all that is open, once the kernel asks nothing any more, so that a writer that was cut off keeps no tag from being
    /// published.
    pub fn disconnect(&self) {
        self.handles.close_all();
    }

    /// Removes what is staged without edits and makes the rest durable. The last thing that a mount does.
    pub async fn close(&self) {
        self.handles.close_all();
        let edited: Vec<Arc<Overlay>> = self.views.all().iter().filter_map(|view| view.overlay().map(Arc::clone)).collect();
        let removed = blocking(move || {
            for overlay in edited {
                // What stays survives a power cut from now on.
                let result = match overlay.remove_if_clean() {
                    Ok(false) => overlay.upper().sync_all().map_err(Into::into),
                    other => other.map(|_| ()),
                };
                if let Err(error) = result
                    && error.kind != ErrorKind::Gone
                {
                    tracing::warn!("edits in the state directory could not be put away: {error}");
                }
            }
            Ok(())
        });
        // Nothing in it fails.
        let _ = removed.await;
    }
}

/// Whether a path is another one or lies below it; all do if that is empty.
fn is_at(path: &[u8], of: &[u8]) -> bool {
    of.is_empty() || path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The edits of a tag.
///
/// # Errors
/// Why they cannot be read.
fn readable(staged: Result<StagedView, String>) -> Result<StagedView, Error> {
    staged.map_err(|why| Error::new(ErrorKind::Integrity, why))
}

/// An error with the tag that it happened to, where it does not name that already.
fn about(reference: &str, error: Error) -> Error {
    if error.message.contains(reference) { error } else { Error::new(error.kind, format!("{reference}: {}", error.message)) }
}
