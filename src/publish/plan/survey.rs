//! Surveys a publish: one pass over the frozen state and the artifact upstream.
//!
//! Counts changes, finds entries that are ignored or cannot be archived, and computes the identity that recognises a copy of a known tree. Decides
//! nothing.

use std::collections::HashSet;
use std::sync::Arc;

use super::foreign::directory_key;
use super::groups::Totals;
use super::guess::Guess;
use super::identity::archived;
use super::ignore::{IGNORE_FILE, IGNORE_LIMIT, IgnoreRules};
use super::layers::Plan;
use super::path_set::PathSet;
use crate::artifact::{Identity, IdentityDefaults, IdentityEntry, Kind, Secrets, TreeIdentity};
use crate::error::Error;
use crate::path::{components, is_within, order, show};
use crate::publish::Sizes;
use crate::view::compare::{Comparison, Pair, Verdict};
use crate::view::snapshot::{Entries, FirstNames, Snapshot};
use crate::view::{EntryContent, TreeEntry};

/// Most notes.
const NOTES: usize = 100;

/// Which paths to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::publish) enum Remember {
    /// None.
    Nothing,
    /// New or changed entries, and removed ones.
    Changes,
    /// Unchanged entries.
    Same,
}

/// The result.
pub(in crate::publish) struct Survey {
    /// Names added, changed, removed.
    pub changes: (u64, u64, u64),
    /// Entries other than directories: upstream, and here.
    pub files: (u64, u64),
    /// Names below the tag's own directory.
    pub names: u64,
    /// Totals for the plan.
    pub totals: Totals,
    /// Identity of the tree.
    pub identity: Identity,
    /// Ignored paths, with everything below.
    pub left_out: Arc<HashSet<Vec<u8>>>,
    /// Files among them.
    pub ignored: u64,
    /// New or changed paths, or unchanged ones; see [`Remember`].
    pub paths: PathSet,
    /// Removed paths whose parent still exists.
    pub removed: Vec<Vec<u8>>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// A symlink that leads out of the tree.
    pub escaping: Option<Vec<u8>>,
    /// New or changed files with the content of an encrypted one.
    pub secret: Vec<Secret>,
    /// The plan of the files dialect, without a silent root, if it was asked for and could be made on the way.
    pub plan: Option<Plan>,
}

/// A file whose content is also in an encrypted artifact.
pub(in crate::publish) struct Secret {
    pub path: Vec<u8>,
    pub sha256: [u8; 32],
    /// The artifact, for messages.
    pub holder: String,
}

/// Parameters of a survey.
pub(in crate::publish) struct Terms<'a> {
    /// Also publish ignored files.
    pub no_ignore: bool,
    pub defaults: &'a IdentityDefaults,
    pub remember: Remember,
    pub sizes: Sizes,
    pub secrets: &'a Secrets,
    /// Plans on the way.
    pub guess: Option<Guess>,
}

struct Walk {
    survey: Survey,
    identity: TreeIdentity,
    left_out: HashSet<Vec<u8>>,
    ignore: IgnoreRules,
    remember: Remember,
    names: FirstNames,
    /// The ignored directory that covers the current path.
    leaving: Option<Vec<u8>>,
    /// The last path below which nothing can exist any more.
    gone: Option<Vec<u8>>,
    guess: Option<Guess>,
}

/// Surveys a snapshot against the upstream tree.
pub(in crate::publish) async fn survey(new: &Arc<dyn Snapshot>, old: Option<Arc<dyn Snapshot>>, terms: Terms<'_>) -> Result<Survey, Error> {
    let ignore = match (terms.no_ignore, &old) {
        (true, _) => IgnoreRules::none(),
        (false, None) => ignore(new).await?,
        (false, Some(_)) => ignore(new).await?.and_of_runtimes(),
    };
    let mut walk = Walk::new(ignore, TreeIdentity::new(terms.defaults), terms.remember, terms.sizes);
    walk.guess = terms.guess;
    let mut comparison = Comparison::new(new, old.as_ref(), is_local);
    while let Some((pair, verdict)) = comparison.next().await? {
        let is_new = matches!(verdict, Verdict::Added | Verdict::Changed);
        let secret = if is_new { secret(&**new, &pair, terms.secrets).await? } else { None };
        walk.pair(&pair, verdict, secret);
    }
    let Walk { mut survey, identity, left_out, guess, .. } = walk;
    survey.plan = guess.and_then(|guess| guess.finish(&survey.totals));
    survey.identity = identity.finish();
    survey.left_out = Arc::new(left_out);
    Ok(survey)
}

/// Whether the SHA-256 of an entry is available without fetching anything.
fn is_local(entry: &TreeEntry) -> bool {
    !matches!(entry.content, EntryContent::Tree(..))
}

/// Whether a new or changed file has the content of an encrypted one.
async fn secret(reading: &dyn Snapshot, pair: &Pair, secrets: &Secrets) -> Result<Option<Secret>, Error> {
    let Some(new) = pair.new.as_ref().filter(|new| new.kind == Kind::File && new.size > 0 && !secrets.is_empty()) else { return Ok(None) };
    let sha256 = match new.sha256 {
        Some(sha256) => sha256,
        None => reading.sha256(new).await?,
    };
    let holder = secrets.holder(new.size, &sha256);
    Ok(holder.map(|holder| Secret { path: new.path.clone(), sha256, holder }))
}

/// The tag's own ignore file.
async fn ignore(snapshot: &Arc<dyn Snapshot>) -> Result<IgnoreRules, Error> {
    let mut entries = Entries::of(snapshot);
    while let Some(entry) = entries.next().await? {
        if order(&entry.path, IGNORE_FILE).is_lt() {
            continue;
        }
        if entry.path != IGNORE_FILE || entry.kind != Kind::File {
            break;
        }
        let text = snapshot.open(&entry).await?.read(0, IGNORE_LIMIT).await?;
        return Ok(IgnoreRules::new(&text));
    }
    Ok(IgnoreRules::new(b""))
}

impl Walk {
    fn new(ignore: IgnoreRules, identity: TreeIdentity, remember: Remember, sizes: Sizes) -> Self {
        let survey = Survey {
            changes: (0, 0, 0),
            files: (0, 0),
            names: 0,
            totals: Totals::new(sizes),
            identity: Identity { names: 0, bytes: 0, digest: None, absolute: false },
            left_out: Arc::default(),
            ignored: 0,
            paths: PathSet::default(),
            removed: Vec::new(),
            notes: Vec::new(),
            escaping: None,
            secret: Vec::new(),
            plan: None,
        };
        let (names, left_out) = (FirstNames::default(), HashSet::new());
        Self { survey, identity, left_out, ignore, remember, names, leaving: None, gone: None, guess: None }
    }

    fn pair(&mut self, pair: &Pair, verdict: Verdict, secret: Option<Secret>) {
        let is_directory = |entry: &TreeEntry| entry.kind == Kind::Directory;
        let was_directory = pair.old.as_ref().is_some_and(is_directory);
        self.survey.files.0 += u64::from(pair.old.is_some() && !was_directory);
        let new = pair.new.as_ref().filter(|new| !self.leaves_out(new, pair.old.is_some()));
        let Some(new) = new else {
            pair.old.iter().for_each(|old| self.removed(old));
            return;
        };
        self.survey.secret.extend(secret);
        if self.guess.as_mut().is_some_and(|guess| !guess.add(new)) {
            self.guess = None;
        }
        self.kept(new);
        if was_directory && is_directory(new) {
            self.remember(Remember::Same, &directory_key(&new.path));
        } else if was_directory {
            self.gone = Some(new.path.clone());
        }
        match verdict {
            Verdict::Same | Verdict::Removed => self.remember(Remember::Same, &new.path),
            Verdict::DirectoryTime => self.remember(Remember::Changes, &new.path),
            Verdict::Added | Verdict::Changed => {
                // The tag's own directory does not count as an addition.
                self.survey.changes.0 += u64::from(verdict == Verdict::Added && !new.path.is_empty());
                self.survey.changes.1 += u64::from(verdict == Verdict::Changed);
                self.remember(Remember::Changes, &new.path);
            }
        }
    }

    fn remember(&mut self, as_what: Remember, path: &[u8]) {
        if self.remember == as_what {
            self.survey.paths.insert(path);
        }
    }

    /// Whether a name is not published.
    fn leaves_out(&mut self, new: &TreeEntry, is_upstream: bool) -> bool {
        if self.leaving.as_ref().is_some_and(|above| is_within(&new.path, above)) {
            self.survey.ignored += u64::from(new.kind != Kind::Directory);
            return true;
        }
        if new.kind == Kind::Socket {
            self.leave_out(new);
            self.note(format!("sockets cannot be published: leaving out `{}`", show(&new.path)));
            return true;
        }
        if !is_upstream && self.ignore.matches(&new.path, new.kind, new.size) {
            self.leave_out(new);
            return true;
        }
        // The tag's own directory always exists.
        if let Err(error) = archived(new, None).check()
            && !new.path.is_empty()
        {
            self.leave_out(new);
            let instead = if is_upstream { ", and what the tag held under this name is removed" } else { "" };
            if self.survey.notes.len() < NOTES {
                self.survey.notes.push(format!("{error}: it is left out{instead}"));
            }
            return true;
        }
        false
    }

    fn leave_out(&mut self, new: &TreeEntry) {
        self.left_out.insert(new.path.clone());
        self.leaving = Some(new.path.clone());
        self.survey.ignored += u64::from(new.kind != Kind::Directory);
    }

    /// One note of each sort is enough.
    fn note(&mut self, text: String) {
        let sort = text.split('`').next().unwrap_or_default();
        if !self.survey.notes.iter().any(|known| known.starts_with(sort)) {
            self.survey.notes.push(text);
        }
    }

    fn removed(&mut self, old: &TreeEntry) {
        self.survey.changes.2 += 1;
        if self.gone.as_ref().is_some_and(|above| is_within(&old.path, above)) {
            return;
        }
        self.gone = Some(old.path.clone());
        if self.remember == Remember::Changes {
            self.survey.removed.push(old.path.clone());
        }
    }

    fn kept(&mut self, new: &TreeEntry) {
        self.survey.names += u64::from(!new.path.is_empty());
        self.survey.files.1 += u64::from(new.kind != Kind::Directory);
        let is_first = self.names.of(new).is_none();
        if is_first {
            self.survey.totals.add(new);
            if new.xattrs.iter().any(|(_, value)| value.is_empty()) {
                self.note(format!("an empty extended attribute cannot be archived: that of `{}` is left out", show(&new.path)));
            } else if !new.xattrs.is_empty() && archived(new, None).xattrs.is_empty() {
                self.note(format!(
                    "extended attributes are too many or too long for an archive: those of `{}` are left out",
                    show(&new.path)
                ));
            }
        }
        if new.kind == Kind::Symlink && self.survey.escaping.is_none() && leaves_tree(new) {
            self.survey.escaping = Some(new.path.clone());
        }
        let entry = IdentityEntry {
            path: &new.path,
            node: new.node,
            kind: new.kind,
            metadata: new.metadata,
            size: new.size,
            links: new.links,
            target: &new.target,
            sha256: new.sha256,
        };
        self.identity.add(&entry, &new.xattrs);
    }
}

/// Whether a link's target is outside the tree, judged by its text.
fn leaves_tree(link: &TreeEntry) -> bool {
    if link.target.starts_with(b"/") {
        return true;
    }
    let mut depth = components(&link.path).count().saturating_sub(1);
    for name in link.target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}
